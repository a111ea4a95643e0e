"""The disk image, started: firmware, disks, configuration, upgrades."""
