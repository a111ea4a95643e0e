"""Builds the container image: `python -m image.container.build`."""
