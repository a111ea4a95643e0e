"""Everything that owns a file descriptor: the loop, the sockets, and the bytes between them."""
