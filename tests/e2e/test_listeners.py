"""Where a gateway listens, and what it says when it cannot."""

import os
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

from tests.e2e import needs
from tests.e2e.gateway import PATIENCE, Gateway, rule, ruleset
from tests.e2e.peers import Echo, Endpoint, connect, echoes, is_refused, read_exactly
from tests.program import program


def run(text: str, folder: Path, *wrap: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a gateway that is to end by itself."""
    path = folder / "refused.toml"
    path.write_text(text)
    return subprocess.run(
        [*wrap, *program(), "run", str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **more},
    )


def assert_refused(ended: "subprocess.CompletedProcess[str]", *words: str) -> None:
    """Check that it ended with status 1, a message with these words, a hint, no traceback, and no record."""
    assert ended.returncode == 1, ended.stderr
    for word in (*words, "hint: "):
        assert word in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not ended.stdout


def test_ipv6() -> None:
    """An IPv6 listener takes IPv6 clients, dials an IPv6 endpoint, and writes both in brackets."""
    needs.ipv6()
    with Echo(("::1", 0)) as echo:
        with Gateway.start(ruleset(rule("six", f"[::1]:{echo.port}", listen="[::1]:0"))) as gateway:
            with connect(("::1", gateway.port("six"))) as client:
                assert echoes(client)
                name = client.getsockname()
            record = gateway.session()
        assert record["client"] == f"[::1]:{name[1]}"
        assert record["endpoint"] == f"[::1]:{echo.port}"
        assert record["listener"].startswith("[::1]:")


def test_both_families() -> None:
    """An address of ":0" is one port of both families, and an IPv4 client keeps its IPv4 address."""
    needs.ipv6()
    with Echo() as echo, Gateway.start(ruleset(rule("both", echo.port, listen=":0"), workers=2)) as gateway:
        port = gateway.port("both", 0)
        assert gateway.port("both", 1) == port
        listeners = {event["listener"] for event in gateway.events("listening")}
        assert listeners == {f"0.0.0.0:{port}", f"[::]:{port}"}
        for address in (("127.0.0.1", port), ("::1", port)):
            with connect(address) as client:
                assert echoes(client)
        clients = sorted(record["client"].rpartition(":")[0] for record in gateway.sessions(2))
        assert clients == ["127.0.0.1", "[::1]"]


def test_several_addresses(tmp_path: Path) -> None:
    """A rule with several listen addresses serves each of them."""
    with Echo() as echo:
        text = rule("many", echo.port).replace(
            'listen = "127.0.0.1:0"', f'listen = ["127.0.0.1:0", "127.0.0.2:0", "unix:{tmp_path}/front"]'
        )
        with Gateway.start(ruleset(text)) as gateway:
            addresses = (("127.0.0.1", gateway.port("many", 0)), ("127.0.0.2", gateway.port("many", 1)))
            for address in (*addresses, f"{tmp_path}/front"):
                with connect(address) as client:
                    assert echoes(client)
            assert len({record["listener"] for record in gateway.sessions(3)}) == 3


def test_port_range() -> None:
    """Each port of a range goes to the port as far into the endpoint's range."""
    with ExitStack() as ends:
        first_to, endpoints = _consecutive(ends, 4)
        first, held = _consecutive(ends, 4)
        for endpoint in held:
            endpoint.close()
        text = rule("range", f"127.0.0.1:{first_to}-{first_to + 3}", listen=f"127.0.0.1:{first}-{first + 3}")
        with Gateway.start(ruleset(text)) as gateway:
            for offset in (2, 0, 3, 1):
                with connect(("127.0.0.1", first + offset)) as client:
                    server = ends.enter_context(endpoints[offset].accept())
                    client.sendall(b"%d" % offset)
                    assert read_exactly(server, 1) == b"%d" % offset
                    server.close()
            for record in gateway.sessions(4):
                offset = int(record["listener"].rpartition(":")[2]) - first
                assert record["endpoint"] == f"127.0.0.1:{first_to + offset}"


def _consecutive(ends: ExitStack, count: int) -> tuple[int, list[Endpoint]]:
    """Listen on so many ports in a row, below those that the kernel gives out by itself."""
    for first in range(20_000 + os.getpid() % 5_000, 32_000, count):
        with ExitStack() as tried:
            try:
                taken = [tried.enter_context(Endpoint(("127.0.0.1", first + n))) for n in range(count)]
            except OSError:
                continue
            ends.enter_context(tried.pop_all())
            return first, taken
    raise AssertionError("no free ports in a row")


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    """The file that a killed program left at a listener's path is replaced, and gone after the end."""
    path = tmp_path / "front"
    Endpoint(str(path)).close()
    assert path.is_socket()
    with Echo() as echo:
        with Gateway.start(ruleset(rule("unix", echo.port, listen=f"unix:{path}"), workers=2)) as gateway:
            for _ in range(10):
                with connect(str(path)) as client:
                    assert echoes(client)
            gateway.sessions(10)
        assert not path.exists()


def test_a_live_unix_socket_is_not_taken_over(tmp_path: Path) -> None:
    """A unix socket that somebody listens on is theirs: the gateway says so, and leaves it alone."""
    path = f"{tmp_path}/front"
    with Echo(path):
        assert_refused(run(ruleset(rule("unix", 1, listen=f"unix:{path}")), tmp_path), path, '"unix"')
        with connect(path) as client:
            assert echoes(client)


def test_a_busy_unix_socket_is_not_waited_for(tmp_path: Path) -> None:
    """A unix socket whose owner is too busy to accept is live as well: it does not hang the start."""
    path = f"{tmp_path}/front"
    with Endpoint(path, backlog=0), ExitStack() as queue:
        for _ in range(3):
            filler = queue.enter_context(socket.socket(socket.AF_UNIX))
            filler.setblocking(False)
            filler.connect_ex(path)
        assert_refused(run(ruleset(rule("unix", 1, listen=f"unix:{path}")), tmp_path), path)


def test_another_file_is_not_replaced(tmp_path: Path) -> None:
    """A file at a listener's path that is no socket is never taken away."""
    path = tmp_path / "front"
    path.write_text("precious")
    assert_refused(run(ruleset(rule("unix", 1, listen=f"unix:{path}")), tmp_path), str(path))
    assert path.read_text() == "precious"


def test_port_in_use(tmp_path: Path) -> None:
    """A port where another program listens is refused, with every other refusal, and nothing stays bound."""
    with Endpoint() as one, Endpoint() as two:
        text = ruleset(
            rule("fine", 1, listen=f"unix:{tmp_path}/fine"),
            rule("one", 1, listen=f"127.0.0.1:{one.port}"),
            rule("two", 1, listen=f"127.0.0.1:{two.port}"),
        )
        assert_refused(run(text, tmp_path), '"one"', str(one.port), '"two"', str(two.port))
    assert not (tmp_path / "fine").exists()


def test_a_second_gateway_is_refused(tmp_path: Path) -> None:
    """A second gateway on a port of the first one is refused, and takes none of its clients."""
    with Echo() as echo, Gateway.start(ruleset(rule("way", echo.port), workers=2)) as gateway:
        port = gateway.port("way")
        assert_refused(
            run(ruleset(rule("way", 1, listen=f"127.0.0.1:{port}"), workers=2), tmp_path), str(port)
        )
        for _ in range(50):
            with connect(gateway.address("way")) as client:
                assert echoes(client)


def test_a_gateway_follows_another_one() -> None:
    """A port is free again as soon as a gateway has ended, whatever its sessions left in TIME_WAIT."""
    with Echo() as echo:
        with Gateway.start(ruleset(rule("way", echo.port))) as first:
            port = first.port("way")
            for _ in range(20):
                with connect(("127.0.0.1", port)) as client:
                    assert echoes(client)
        assert is_refused(("127.0.0.1", port))
        with Gateway.start(ruleset(rule("way", echo.port, listen=f"127.0.0.1:{port}"))) as second:
            with connect(("127.0.0.1", port)) as client:
                assert echoes(client)
            second.sessions(1)


def test_no_such_address(tmp_path: Path) -> None:
    """An address that no interface has is refused, with how to see those there are."""
    assert_refused(run(ruleset(rule("far", 1, listen="192.0.2.1:0")), tmp_path), "192.0.2.1", "ip address")


def test_no_such_directory(tmp_path: Path) -> None:
    """A unix socket in a directory that is not there is refused."""
    path = f"{tmp_path}/none/front"
    assert_refused(run(ruleset(rule("lost", 1, listen=f"unix:{path}")), tmp_path), path)


def test_privileged_port(tmp_path: Path) -> None:
    """Who may not bind a port below 1024 is told what it takes."""
    needs.root()
    for name in ("unshare", "setpriv"):
        needs.program(name)
    # A network namespace of its own, where ip_unprivileged_port_start is 1024 and nobody listens; root
    # without that one capability, because another user may not be able to read this checkout.
    wrap = ("unshare", "--net", "setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-all")
    ended = run(ruleset(rule("web", 1, listen="0.0.0.0:80")), tmp_path, *wrap)
    assert_refused(ended, "0.0.0.0:80", "CAP_NET_BIND_SERVICE")


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    """A unix path longer than the kernel takes is refused in words, before or at the bind."""
    ended = run(ruleset(rule("long", 1, listen=f"unix:{tmp_path}/{'x' * 200}")), tmp_path)
    assert ended.returncode in {1, 2}
    assert "Success" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hint:" in ended.stderr
