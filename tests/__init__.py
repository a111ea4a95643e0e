"""Tests of Portway; the folders are explained in ARCHITECTURE.md."""
