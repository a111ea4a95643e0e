"""Endpoints that refuse, do not answer, do not exist, or come and go, and the time-outs."""

import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e import needs
from tests.e2e.gateway import Gateway, Record, rule, ruleset, wait_for
from tests.e2e.peers import (
    Echo,
    Endpoint,
    assert_idle,
    blackhole,
    connect,
    echoes,
    finish,
    name_of,
    read_exactly,
    read_to_end,
    read_to_reset,
    refusing,
    reset,
    turned_away,
)


def outcome(record: Record) -> tuple[str, str, int]:
    """Give what a test of a dial looks at: stage, cause, attempts (the record leaves 1 out)."""
    return record["stage"], record["cause"], record.get("attempts", 1)


def test_the_next_endpoint_is_tried() -> None:
    """An endpoint that refuses costs a try, not the session; the record says where it went and the tries."""
    with refusing() as dead, refusing() as dead_too, Echo() as echo:
        to = [f"127.0.0.1:{dead}", f"127.0.0.1:{dead_too}", echo.to]
        with Gateway.start(ruleset(rule("way", to))) as gateway:
            for _ in range(3):
                with connect(gateway.address("way")) as client:
                    assert echoes(client)
            records = gateway.sessions(3)
        assert [outcome(record) for record in records] == [("relay", "client_eof", n) for n in (3, 2, 1)]
        assert {record["endpoint"] for record in records} == {echo.to}


def test_round_robin() -> None:
    """Live endpoints get sessions by turns."""
    with Echo() as one, Echo() as two, Echo() as three:
        with Gateway.start(ruleset(rule("way", [one.to, two.to, three.to]))) as gateway:
            for _ in range(9):
                with connect(gateway.address("way")) as client:
                    assert echoes(client)
            records = sorted(gateway.sessions(9), key=lambda record: str(record["session"]))
        assert [record["endpoint"] for record in records] == [one.to, two.to, three.to] * 3


def test_every_endpoint_refuses() -> None:
    """Where all endpoints refuse, the client is reset, and the record names the last one tried."""
    with refusing() as dead, refusing() as dead_too:
        to = [f"127.0.0.1:{dead}", f"127.0.0.1:{dead_too}"]
        with Gateway.start(ruleset(rule("way", to))) as gateway:
            assert turned_away(gateway.address("way"))
            record = gateway.session()
        assert outcome(record) == ("dial", "dial_refused", 2)
        assert record["endpoint"] == to[1]
        assert record["level"] == "warning"
        assert "connect_ms" not in record


def test_no_answer() -> None:
    """An endpoint that never answers is given up after connect_timeout, and the client is reset."""
    with blackhole() as dead:
        with Gateway.start(ruleset(rule("way", dead, connect_timeout="200ms"))) as gateway:
            assert turned_away(gateway.address("way"))
            record = gateway.session()
        assert outcome(record) == ("dial", "dial_timeout", 1)
        assert record["duration_ms"] >= 200


def test_no_answer_then_the_next() -> None:
    """An endpoint that never answers costs connect_timeout; the next gets the session, early bytes too."""
    with blackhole() as dead, Echo() as echo:
        text = ruleset(rule("way", [f"127.0.0.1:{dead}", echo.to], connect_timeout="200ms"))
        with Gateway.start(text) as gateway:
            with connect(gateway.address("way")) as client:
                client.sendall(b"early")
                finish(client)
                assert read_to_end(client) == b"early"
            assert outcome(gateway.session()) == ("relay", "client_eof", 2)


def test_a_dial_that_is_answered_late(tmp_path: Path) -> None:
    """What a client sent, FIN included, while its endpoint had not answered yet, arrives once it does."""
    with Endpoint(backlog=0) as endpoint, ExitStack() as fillers:
        filler = fillers.enter_context(connect(("127.0.0.1", endpoint.port)))
        with Gateway.start(ruleset(rule("way", endpoint.port, connect_timeout="1h"))) as gateway:
            with connect(gateway.address("way")) as client:
                client.sendall(b"question")
                finish(client)
                filler.close()
                endpoint.accept().close()  # the filler: now the kernel takes the next SYN
                with endpoint.accept() as server:
                    assert read_to_end(server) == b"question"
                    server.sendall(b"answer")
                assert read_to_end(client) == b"answer"
            assert outcome(gateway.session()) == ("relay", "client_eof", 1)


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_the_client_leaves_during_the_dial(leave: str) -> None:
    """A client that gives up while its endpoint does not answer has its record all the same."""
    with blackhole() as dead, Gateway.start(ruleset(rule("way", dead, connect_timeout="300ms"))) as gateway:
        client = connect(gateway.address("way"))
        who = name_of(client)
        client.sendall(b"anybody?")
        (client.close if leave == "close" else lambda: reset(client))()
        record = gateway.session()
        assert record["client"] == who
        assert (record["stage"], record["cause"]) in {("dial", "dial_timeout"), ("dial", "client_reset")}


def test_a_name_that_does_not_resolve() -> None:
    """A name nobody knows ends the dial, or is passed over for the other endpoints, and is reported."""
    with Echo() as echo:
        text = ruleset(
            rule("lost", "nothing.invalid:80", connect_timeout="60s"),
            rule("found", ["nothing.invalid:80", echo.to], connect_timeout="60s"),
        )
        with Gateway.start(text) as gateway:
            assert turned_away(gateway.address("lost"))
            with connect(gateway.address("found")) as client:
                assert echoes(client)
            records = {record["rule"]: record for record in gateway.sessions(2)}
            failed = gateway.await_event("resolve_failed")[0]
        assert records["lost"]["cause"] == "dial_resolve"
        assert records["lost"].get("attempts", 1) <= 1
        assert "endpoint" not in records["lost"]
        assert records["found"]["cause"] == "client_eof"
        assert failed["name"] == "nothing.invalid"


def test_localhost() -> None:
    """A host name is looked up as the host's administrator set it up."""
    with Echo() as echo, Gateway.start(ruleset(rule("way", f"localhost:{echo.port}"))) as gateway:
        for _ in range(20):
            with connect(gateway.address("way")) as client:
                assert echoes(client)
        assert {record["endpoint"] for record in gateway.sessions(20)} == {echo.to}


def test_every_address_of_a_name_is_tried(tmp_path: Path) -> None:
    """Of a name with several addresses, of both families, those that refuse are passed over."""
    needs.root()
    needs.program("unshare")
    needs.ipv6()
    hosts = tmp_path / "hosts"
    hosts.write_text("::1 many.test\n127.0.0.2 many.test\n127.0.0.1 many.test\n")
    script = f'mount --bind {hosts} /etc/hosts && exec "$0" "$@"'
    wrap = ("unshare", "--mount", "sh", "-c", script)
    with Echo() as echo, Gateway.start(ruleset(rule("way", f"many.test:{echo.port}")), wrap=wrap) as gateway:
        for _ in range(5):
            with connect(gateway.address("way")) as client:
                assert echoes(client)
        records = gateway.sessions(5)
        assert {record["endpoint"] for record in records} == {echo.to}
        assert max(record.get("attempts", 1) for record in records) >= 2


def test_no_route(tmp_path: Path) -> None:
    """An endpoint to which there is no route is unreachable, at once, and the gateway says so."""
    needs.root()
    needs.program("unshare")
    text = ruleset(rule("way", "192.0.2.1:80", listen=f"unix:{tmp_path}/front"))
    with Gateway.start(text, wrap=("unshare", "--net")) as gateway:
        with connect(f"{tmp_path}/front") as client:
            assert client.recv(1) == b""
        assert outcome(gateway.session()) == ("dial", "dial_unreachable", 1)


def test_no_unix_socket(tmp_path: Path) -> None:
    """A unix endpoint that is not there is unreachable; one nobody listens on any more refuses."""
    with Endpoint(f"{tmp_path}/stale"):
        pass
    text = ruleset(rule("gone", f"unix:{tmp_path}/gone"), rule("stale", f"unix:{tmp_path}/stale"))
    with Gateway.start(text) as gateway:
        assert turned_away(gateway.address("gone"))
        assert turned_away(gateway.address("stale"))
        causes = {record["rule"]: record["cause"] for record in gateway.sessions(2)}
    assert causes == {"gone": "dial_unreachable", "stale": "dial_refused"}


def test_an_endpoint_comes_back(tmp_path: Path) -> None:
    """An endpoint that was down and comes back serves the next client, with no restart and no grudge."""
    path = f"{tmp_path}/back"
    with Gateway.start(ruleset(rule("way", f"unix:{path}"))) as gateway:
        assert turned_away(gateway.address("way"))
        with (
            Endpoint(path) as endpoint,
            connect(gateway.address("way")) as client,
            endpoint.accept() as server,
        ):
            server.sendall(b"back")
            assert read_exactly(client, 4) == b"back"
        gateway.sessions(2)


@pytest.mark.parametrize("connect_timeout", ["100ms", "1h"])
def test_idle_sessions_end(connect_timeout: str) -> None:
    """A session in which nothing moves for idle_timeout is ended and reset, however long a dial may take."""
    with Endpoint() as endpoint:
        text = ruleset(rule("way", endpoint.port, idle_timeout="300ms", connect_timeout=connect_timeout))
        with Gateway.start(text) as gateway:
            with connect(gateway.address("way")) as client, endpoint.accept() as server:
                client.sendall(b"hello")
                assert read_exactly(server, 5) == b"hello"
                assert read_to_reset(client) == b""
                assert read_to_reset(server) == b""
            record = gateway.session()
            assert outcome(record) == ("relay", "idle_timeout", 1)
            assert record["duration_ms"] >= 300


def test_busy_sessions_do_not_end() -> None:
    """A session in which a byte moves now and then, either way, outlives its idle_timeout."""
    with Endpoint() as endpoint:
        text = ruleset(rule("way", endpoint.port, idle_timeout="3s", connect_timeout="100ms"))
        with Gateway.start(text) as gateway, ExitStack() as ends:
            begun = time.monotonic()
            ways = []
            for number in range(2):
                client = ends.enter_context(connect(gateway.address("way")))
                server = ends.enter_context(endpoint.accept())
                ways.append((client, server) if number else (server, client))
            while time.monotonic() - begun < 7:
                for source, sink in ways:
                    source.sendall(b"x")
                    assert sink.recv(1) == b"x"
                sink.settimeout(0.1)
                with pytest.raises(TimeoutError):  # a pause in which nothing comes
                    sink.recv(1)
            assert not gateway.events("session")
            assert_idle(gateway.workers[0])


def test_a_clogged_session_is_idle_too() -> None:
    """A session whose sink takes nothing for idle_timeout ends: a vanished reader holds nothing for ever."""
    with Endpoint() as endpoint:
        text = ruleset(rule("way", endpoint.port, idle_timeout="500ms", connect_timeout="100ms"))
        with Gateway.start(text) as gateway, connect(gateway.address("way")), endpoint.accept() as server:
            server.setblocking(False)
            wait_for("the end", lambda: _is_cut(server))
            assert gateway.session()["cause"] == "idle_timeout"


def _is_cut(server: socket.socket) -> bool:
    try:
        server.send(bytes(65536))
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return False
