"""OpenSSH: `ssh -R`, with a server of its own."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.tunnel.pair import ENCRYPTED, Ends, Site, Tunnel

CIPHER = "aes128-gcm@openssh.com"
PROGRAMS = ("sshd", "ssh", "ssh-keygen")
# Where sshd, as root, shuts in its unprivileged half; otherwise made by the service that nobody started.
SEPARATION = Path("/run/sshd")


def _absence() -> str | None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"no {' and no '.join(missing)} (Debian: openssh-server openssh-client)" if missing else None


def server_config(site: Site) -> str:
    """Write what sshd runs on: keys of its own, and the client may choose the address that it listens at."""
    host, port = site.tunnel
    folder = site.directory
    return (
        f"ListenAddress {host}:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PidFile none\nPermitRootLogin prohibit-password\nGatewayPorts clientspecified\n"
        f"Ciphers {CIPHER}\nCompression no\nLogLevel ERROR\n"
    )


def client_command(site: Site, known: Path, user: str) -> list[str]:
    """Build the command of the client: it knows this server and nothing else of this host."""
    options = {
        "IdentityFile": site.directory / "user",
        "IdentityAgent": "none",
        "UserKnownHostsFile": known,
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "Ciphers": CIPHER,
        "Compression": "no",
        "ExitOnForwardFailure": "yes",
        "LogLevel": "ERROR",
        "Port": site.dial[1],
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    for route in site.routes:
        words += ["-R", "{}:{}:{}:{}".format(*route.listen, *route.way.to)]
    return [shutil.which("ssh") or "ssh", "-F", "none", "-N", "-T", *words, f"{user}@{site.dial[0]}"]


def _prepare(site: Site) -> Ends:
    folder = site.directory
    for key in ("host", "user"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    kind, key, *_ = (folder / "host.pub").read_text().split()
    known = folder / "known"
    known.write_text("[{}]:{} {} {}\n".format(*site.dial, kind, key))
    config = folder / "sshd_config"
    config.write_text(server_config(site))
    # sshd runs itself anew for each client, and so must be told where it is.
    server = [shutil.which("sshd") or "sshd", "-D", "-e", "-f", str(config)]
    return Ends(server, client_command(site, known, pwd.getpwuid(os.geteuid()).pw_name))


@contextmanager
def separation() -> Iterator[None]:
    """Make the folder that sshd insists on, and take it away again if it was not there."""
    is_mine = not os.geteuid() and not SEPARATION.exists()
    if is_mine:
        SEPARATION.mkdir(mode=0o755)
    try:
        yield
    finally:
        if is_mine:
            SEPARATION.rmdir()


TUNNELS = (Tunnel("ssh", "ssh -R, AES-GCM", "ssh", ENCRYPTED, _absence, _prepare),)
