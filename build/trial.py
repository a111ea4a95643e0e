"""The tunnel's certificates and TLS, tried with what was frozen. Run by selftest.py.

A script of its own on the program's archive of modules (portway.spec), which is not shipped. PyInstaller does
not look into it: what it finds is there because the program asks for it.
"""

import ssl
import sys
import tempfile
from pathlib import Path
from typing import Final

from appliance.observe.log import wall_clock
from appliance.tunnel.authority import load_authority, new_key, open_authority, request_for
from appliance.tunnel.credentials import agent_context, gateway_context, peer_of, server_name
from appliance.tunnel.join import Join, file_of, line_of, read_join
from appliance.tunnel.state import State

LIBRARIES: Final = ("libcrypto", "libssl", "legacy", "_rust", "_openssl")


def joined(state: State, now: float) -> Join:
    """Make an authority and an agent, whose certificate is renewed by a request of its own."""
    first = open_authority(state).enrol("office", now)
    authority, key = load_authority(state), new_key()
    renewed = authority.renew("office", first.record.serial, request_for(key), now)
    assert renewed.record.serial != first.record.serial
    made = Join(
        name="office",
        gateways=("192.0.2.1:7443",),
        ca=authority.certificate,
        certificate=first.certificate,
        key=first.key,
        expires=first.record.expires,
    )
    for text in (file_of(made), line_of(made)):
        assert read_join(text.encode(), "office.join") == made
    return made


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Let both speak through memory until both are done."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    agent = client.wrap_bio(down, up, server_hostname=server_name("w0"))
    gateway = server.wrap_bio(up, down, server_side=True)
    waiting = [agent, gateway]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)
    return agent, gateway


def mapped(word: str) -> set[str]:
    """Name the files with that word in their name that are mapped into this process (proc(5), maps)."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if word in line.rpartition("/")[2]}


def main(now: float) -> None:
    """Try it, or end with a traceback."""
    with tempfile.TemporaryDirectory(prefix="trial-") as place:
        state = State(place)
        join = joined(state, now)
        agent, gateway = shake_hands(agent_context(join), gateway_context(load_authority(state)))
        agent.write(b"there")
        assert gateway.read(100) == b"there"
        assert agent.version() == "TLSv1.3"
        assert peer_of(gateway)[0] == "office"
        assert [one.name for one in state.enrolled()] == ["office", "office"]
    own = str(Path(sys._MEIPASS).resolve())  # type: ignore[attr-defined]  # noqa: SLF001  PyInstaller's name
    for library in LIBRARIES:
        (found,) = mapped(library)
        assert found.startswith(own), f"{found} is not what was frozen"
    print(f"{ssl.OPENSSL_VERSION}, {agent.version()}")


if __name__ == "__main__":
    main(float(int(wall_clock())))  # a file tells whole seconds
