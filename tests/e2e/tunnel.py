"""A gateway and its agents under test: real processes, enrolled by the verbs.

with tunnel(rule("web", port, via="office")) as world:
connect(world.gateway.address("web"))
world.agent.session()
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from appliance.cli.asking import ask_gateway
from appliance.supervisor.status import AgentLink, Agents
from tests.e2e.gateway import Gateway, wait_for
from tests.program import program

ADMIN = "admin"
"""The admin socket of a tunnel's gateway, in its folder."""

LISTENERS = "[tunnel]"
"""What the log calls the rule of the tunnel's own listeners."""


def tunnel_ruleset(
    *rules: str,
    state: Path | str,
    workers: int = 1,
    agents: tuple[str, ...] = ("office",),
    encryption: str = "tls",
    heartbeat: str = "2s",
    drain: str = "5s",
    listen: str = "127.0.0.1:0",
    admin: Path | str = "",
) -> str:
    """Write a ruleset with [tunnel], the agents and the rules."""
    text = f'[gateway]\nworkers = {workers}\ndrain_timeout = "{drain}"\n'
    text += f'admin = "{admin}"\n\n' if admin else "\n"
    text += f'[tunnel]\nlisten = "{listen}"\nstate = "{state}"\n'
    text += f'encryption = "{encryption}"\nheartbeat = "{heartbeat}"\n\n'
    text += "".join(f'[[agent]]\nname = "{name}"\n\n' for name in agents)
    return text + "".join(rules)


def enroll(ruleset: Path, name: str, gateway: str, output: Path, *more: str) -> Path:
    """Run `portway enroll`."""
    words = ["enroll", str(ruleset), name, "--gateway", gateway, "-o", str(output), *more]
    done = subprocess.run([*program(), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output


@contextmanager
def agent(join: Path, *more: str, workers: int = 1, links: int | None = 1) -> Iterator[Gateway]:
    """Start an agent; wait for so many control channels, if any."""
    verb = ("agent", "--join", str(join), "--workers", str(workers), *more)
    with Gateway.start("", verb=verb) as running:
        if links:
            running.await_event("tunnel_up", links)
        yield running


class Tunnel:
    """A gateway, and agents of one name."""

    def __init__(self, folder: Path, gateway: Gateway, join: Path) -> None:
        self.folder = folder
        self.gateway = gateway
        self.join = join
        self.agents: list[Gateway] = []

    @property
    def agent(self) -> Gateway:
        """The first agent."""
        return self.agents[0]

    @property
    def port(self) -> int:
        """Where agents come in."""
        return self.gateway.port(LISTENERS)

    def links(self) -> tuple[AgentLink, ...]:
        """Ask the gateway for its control channels."""
        _, told = ask_gateway(str(self.folder / ADMIN), b'{"verb":"agents"}', Agents)
        return told.links

    def await_links(self, count: int) -> None:
        """Wait until the gateway has so many control channels."""

        def there() -> bool:
            come, gone = self.gateway.events("agent_connected"), self.gateway.events("agent_lost")
            return len(come) - len(gone) == count

        wait_for(f"{count} control channels", there)


@contextmanager
def tunnel(
    *rules: str,
    workers: int = 1,
    agent_workers: int = 1,
    agents: int = 1,
    name: str = "office",
    encryption: str = "tls",
    heartbeat: str = "2s",
    drain: str = "5s",
    allow_to: tuple[str, ...] = (),
) -> Iterator[Tunnel]:
    """Start a gateway, enroll an agent, and start it so many times."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="portway-tunnel-")))
        text = tunnel_ruleset(
            *rules,
            state=folder / "state",
            workers=workers,
            agents=(name,),
            encryption=encryption,
            heartbeat=heartbeat,
            drain=drain,
            admin=folder / ADMIN,
        )
        gateway = stack.enter_context(Gateway.start(text))
        world = Tunnel(folder, gateway, folder / f"{name}.join")
        enroll(gateway.folder / "rules.toml", name, f"127.0.0.1:{world.port}", world.join)
        links = max(workers, agent_workers)
        more = tuple(word for target in allow_to for word in ("--allow-to", target))
        for _ in range(agents):
            running = agent(world.join, *more, workers=agent_workers, links=links)
            world.agents.append(stack.enter_context(running))
        world.await_links(links * agents)
        yield world
