"""Portway's own tunnel, as its user runs it: enrolled, one worker each, its log into a file."""

import subprocess
import sys
from functools import partial

from appliance.__main__ import VERBS
from bench.process import FailedError
from bench.tunnel.pair import ENCRYPTED, PLAIN, Ends, Site, Tunnel

AGENT = "office"
PROGRAM = [sys.executable, "-m", "appliance"]
ENROL_DEADLINE_S = 30.0


def _absence() -> str | None:
    missing = [verb for verb in ("enroll", "agent") if verb not in VERBS]
    return f"this checkout has no verb {' and no '.join(missing)}" if missing else None


def ruleset(site: Site, encryption: str) -> str:
    """Write what the gateway runs on: a rule for each route, all through one agent."""
    rules = "".join(
        f'\n[[rule]]\nname = "{route.name}"\nvia = "{AGENT}"\n'
        + 'listen = "{}:{}"\nto = "{}:{}"\n'.format(*route.listen, *route.way.to)
        for route in site.routes
    )
    return (
        "[gateway]\nworkers = 1\n\n[tunnel]\n"
        + 'listen = "{}:{}"\n'.format(*site.tunnel)
        + f'state = "{site.directory}/state"\n\n[[agent]]\nname = "{AGENT}"\nencryption = "{encryption}"\n'
        + rules
    )


def _enrol(path: str, site: Site) -> str:
    """Enrol the agent: its join file. It needs no gateway that runs."""
    join = str(site.directory / "office.join")
    at = "{}:{}".format(*site.dial)
    argv = [*PROGRAM, "enroll", path, AGENT, "--gateway", at, "-o", join]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=ENROL_DEADLINE_S, check=False)
    if done.returncode:
        raise FailedError(f"enroll ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return join


def _prepare(site: Site, *, encryption: str) -> Ends:
    path = site.directory / "ruleset.toml"
    path.write_text(ruleset(site, encryption))
    join = _enrol(str(path), site)
    return Ends([*PROGRAM, "run", str(path)], [*PROGRAM, "agent", "--join", join])


def _tunnel(key: str, title: str, group: str, encryption: str) -> Tunnel:
    return Tunnel(
        key,
        title,
        "portway",
        group,
        _absence,
        partial(_prepare, encryption=encryption),
        record=b'"event":"session"',
    )


TUNNELS = (
    _tunnel("portway-tls", "Portway, TLS", ENCRYPTED, "tls"),
    _tunnel("portway-plain", "Portway, none", PLAIN, "none"),
)
