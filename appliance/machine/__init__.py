"""PID 1 of the VM, and the slots of its disk."""
