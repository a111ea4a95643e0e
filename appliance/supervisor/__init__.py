"""The processes: a master that holds every listening socket, and the workers that do the work."""
