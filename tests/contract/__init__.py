"""What holds for every kind of connection."""
