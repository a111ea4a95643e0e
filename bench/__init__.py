"""The benchmark: Portway beside direct, nginx stream, HAProxy and socat, in one go on one machine."""
