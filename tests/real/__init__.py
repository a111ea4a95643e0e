"""Real programs, through a gateway."""
