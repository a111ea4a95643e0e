"""Builds the disk image of the VM: `python -m image.vm.build`."""
