"""Random conversations through a gateway, every byte accounted for."""
