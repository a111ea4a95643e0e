"""End to end: a real gateway process, real sockets, port 0, readiness awaited."""
