"""The benchmark of tunnels: Portway's beside frp, rathole and `ssh -R`, in one go on one machine."""
