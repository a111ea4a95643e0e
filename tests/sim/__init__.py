"""Simulations: the gateway's own code over a kernel that throws dice. SEED=n replays one run."""
