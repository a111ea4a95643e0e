"""Bytes in, values out: what passes between gateways and agents, and before a connection is theirs. Pure."""
