"""Portway as PID 1 of a virtual machine: what an init system does elsewhere, as far as a gateway needs it."""
