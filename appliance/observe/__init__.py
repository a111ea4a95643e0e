"""The observe layer: what Portway reports, under which names, and how a line gets out without blocking."""
