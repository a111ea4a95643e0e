"""Reverse tunnels: a gateway's way to dial through an agent, and an agent's way to accept from a gateway."""
