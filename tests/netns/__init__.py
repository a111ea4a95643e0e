"""Tunnels between hosts of their own: what a network, a process and a machine may do to them."""
