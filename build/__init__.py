"""Freezes the program and makes releases of it."""
