"""rathole: over TLS, over Noise, and over bare TCP."""

import subprocess
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench.process import FailedError
from bench.tunnel.built import RATHOLE, absence
from bench.tunnel.certificates import NAME, PASSWORD, write_identity
from bench.tunnel.pair import ENCRYPTED, PLAIN, Ends, Site, Tunnel

PROGRAM = RATHOLE / "rathole"
TOKEN = "bench"  # noqa: S105 - it keeps nobody out
# It quotes addresses of each session at its usual level.
QUIET = ["env", "RUST_LOG=warn", str(PROGRAM)]


def config(site: Site, side: str, transport: str) -> str:
    """Write what one side, "server" or "client", runs on: a service for each route."""
    at, (host, port) = ("bind_addr", site.tunnel) if side == "server" else ("remote_addr", site.dial)
    services = "".join(
        f"\n[{side}.services.{route.name}]\n"
        + (
            'bind_addr = "{}:{}"\n'.format(*route.listen)
            if side == "server"
            else 'local_addr = "{}:{}"\n'.format(*route.way.to)
        )
        for route in site.routes
    )
    return f'[{side}]\n{at} = "{host}:{port}"\ndefault_token = "{TOKEN}"\n\n{transport}{services}'


def parse_keys(text: str) -> tuple[str, str]:
    """Read the private and the public key out of what `rathole --genkey` prints; FailedError without them."""
    match text.split():
        case ["Private", "Key:", private, "Public", "Key:", public]:
            return private, public
        case _:
            raise FailedError(f"rathole --genkey printed {text.strip()!r}")


def _transport(side: str, name: str, settings: str) -> str:
    return f'[{side}.transport]\ntype = "{name}"\n' + (
        f"[{side}.transport.{name}]\n{settings}" if settings else ""
    )


def _tls(directory: Path) -> tuple[str, str]:
    identity, root = write_identity(directory, datetime.now(UTC))
    return (
        _transport("server", "tls", f'pkcs12 = "{identity}"\npkcs12_password = "{PASSWORD}"\n'),
        _transport("client", "tls", f'trusted_root = "{root}"\nhostname = "{NAME}"\n'),
    )


def _noise(_directory: Path) -> tuple[str, str]:
    printed = subprocess.run([PROGRAM, "--genkey"], capture_output=True, text=True, check=True).stdout
    private, public = parse_keys(printed)
    return (
        _transport("server", "noise", f'local_private_key = "{private}"\n'),
        _transport("client", "noise", f'remote_public_key = "{public}"\n'),
    )


def _tcp(_directory: Path) -> tuple[str, str]:
    return _transport("server", "tcp", ""), _transport("client", "tcp", "")


TRANSPORTS = {"tls": _tls, "noise": _noise, "tcp": _tcp}


def _prepare(site: Site, *, transport: str) -> Ends:
    commands = []
    for side, settings in zip(("server", "client"), TRANSPORTS[transport](site.directory), strict=True):
        path = site.directory / f"{side}.toml"
        path.write_text(config(site, side, settings))
        commands.append([*QUIET, f"--{side}", str(path)])
    return Ends(*commands)


def _tunnel(key: str, title: str, group: str, transport: str) -> Tunnel:
    return Tunnel(
        key, title, "rathole", group, partial(absence, PROGRAM), partial(_prepare, transport=transport)
    )


TUNNELS = (
    _tunnel("rathole-tls", "rathole, TLS", ENCRYPTED, "tls"),
    _tunnel("rathole-noise", "rathole, Noise", ENCRYPTED, "noise"),
    _tunnel("rathole-plain", "rathole", PLAIN, "tcp"),
)
