"""Builds what is shipped as an image."""
