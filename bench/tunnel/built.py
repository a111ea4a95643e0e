"""The peers that Debian does not have: where `bench/tunnel/setup-peers` puts what it built."""

from pathlib import Path

PEERS = Path(__file__).parents[2] / ".cache" / "tunnel-peers"
FRP = PEERS / "frp-0.68.0"
RATHOLE = PEERS / "rathole-0.5.0"


def absence(program: Path) -> str | None:
    """Tell why a peer cannot run here, or None."""
    return None if program.exists() else "not built (bench/tunnel/setup-peers says why)"


def versions() -> dict[str, str]:
    """Tell which versions of the peers are compared, for the record beside their numbers."""
    return dict(folder.name.split("-") for folder in (FRP, RATHOLE) if folder.exists())
