"""As many sessions at once as a worker has descriptors for."""
