"""One suite over every form: what passes is byte-exact and in the log, and the end is in order."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from appliance import __version__
from tests.e2e.datagram_peers import Answering, Peer, asks
from tests.e2e.gateway import ruleset
from tests.e2e.peers import (
    Echo,
    Endpoint,
    Sending,
    connect,
    digest,
    echoes,
    finish,
    payload,
    read_to_end,
    refusing,
)
from tests.forms.container import Container
from tests.forms.form import Form, Running
from tests.forms.local import Local
from tests.forms.vm import Vm

if TYPE_CHECKING:
    from subprocess import CompletedProcess

FORMS: tuple[Form, ...] = (Local("source"), Local("single"), Local("folder"), Container(), Vm())

SIZE = 3 << 20
CLIENTS = 50
BAD = '[[rule]]\nname = "web"\nlisen = ":80"\nto = "10.0.0.5:80"\n'


def write(form: Form, name: str, port: int, **more: str) -> str:
    """Write a rule to a port of this host."""
    keys = {"listen": form.listen(), "to": f"{form.endpoint_host}:{port}", **more}
    return f'[[rule]]\nname = "{name}"\n' + "".join(f'{key} = "{value}"\n' for key, value in keys.items())


class Site:
    """A form at work: rules to every kind of endpoint, which the tests of this module share."""

    def __init__(self, running: Running, endpoint: Endpoint) -> None:
        self.running = running
        self.endpoint = endpoint


@contextmanager
def site(form: Form) -> Iterator[Site]:
    """Start a form between peers of this host."""
    with Echo() as echo, Endpoint() as endpoint, Answering() as answering, refusing() as refused:
        rules = (
            write(form, "bulk", endpoint.port),
            write(form, "small", echo.port),
            write(form, "datagrams", answering.port, protocol="udp", idle_timeout="1s"),
            write(form, "closed", refused),
        )
        with form.start(ruleset(*rules)) as running:
            yield Site(running, endpoint)
            assert running.stop() == 0
            running.check()


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: form.name)
def form(request: pytest.FixtureRequest) -> Form:
    """Each form in turn."""
    form: Form = request.param
    form.needs()
    return form


@pytest.fixture(scope="module")
def at_work(form: Form) -> Iterator[Site]:
    """One start for several tests: a virtual machine takes its seconds."""
    with site(form) as site_of_form:
        yield site_of_form


def test_bytes_both_ways_and_half_close(at_work: Site) -> None:
    """Megabytes arrive as they were sent, both ways at once; a FIN of one side leaves the other way open."""
    up, down = payload(SIZE, 1), payload(SIZE, 2)
    with connect(at_work.running.address("bulk")) as client, at_work.endpoint.accept() as server:
        sending = Sending(client, up, finish), Sending(server, down)
        with ThreadPoolExecutor(1) as pool:
            came_up = pool.submit(read_to_end, server)
            head = client.recv(1)
            assert digest(came_up.result()) == digest(up)
            server.sendall(b"the last word")
            finish(server)
            assert digest(head + read_to_end(client)) == digest(down + b"the last word")
        for each in sending:
            each.done()
    (record,) = at_work.running.sessions("bulk")
    assert (record["stage"], record["cause"]) == ("relay", "client_eof")
    assert (record["up"], record["down"]) == (SIZE, SIZE + len(b"the last word"))


def test_many_small_sessions(at_work: Site) -> None:
    """Every one of many clients gets its own bytes back, and a record that says so."""
    address = at_work.running.address("small")

    def talk(number: int) -> int:
        data = payload(1 + number * 37, number)
        with connect(address) as client:
            client.sendall(data)
            # QEMU's network takes a FIN for a reset while the machine has not answered yet.
            first = client.recv(1)
            finish(client)
            assert first + read_to_end(client) == data
        return len(data)

    with ThreadPoolExecutor(10) as pool:
        sizes = sorted(pool.map(talk, range(CLIENTS)))
    records = at_work.running.sessions("small", CLIENTS)
    assert sorted(record["up"] for record in records) == sizes
    assert sorted(record["down"] for record in records) == sizes
    assert {record["cause"] for record in records} == {"client_eof"}
    assert len({record["session"] for record in records}) == CLIENTS


def test_datagrams(at_work: Site) -> None:
    """Datagrams come back whole, empty and large ones too, and the flow has its record when it is idle."""
    address = at_work.running.address("datagrams")
    sizes = (4, 0, 1, 1400, 9000)
    with Peer() as client:
        for size in sizes:
            assert asks(client, address, payload(size, size))
    (record,) = at_work.running.sessions("datagrams")
    assert (record["up_datagrams"], record["down_datagrams"]) == (len(sizes), len(sizes))
    assert (record["up"], record["down"]) == (sum(sizes), sum(sizes))
    assert record["cause"] == "idle_timeout"


def test_a_refused_endpoint(at_work: Site) -> None:
    """A client whose endpoint refuses is let go without a byte, and the record says why."""
    with suppress(ConnectionResetError), connect(at_work.running.address("closed")) as client:
        assert client.recv(1) == b""
    (record,) = at_work.running.sessions("closed")
    assert (record["stage"], record["cause"]) == ("dial", "dial_refused")


def test_it_says_that_it_is_well(at_work: Site) -> None:
    """The question for its health, asked as this form asks it, is answered with yes."""
    answer = at_work.running.health()
    if answer is not None:
        assert answer.returncode == 0, answer.stderr


def test_an_orderly_stop_drains(form: Form) -> None:
    """Asked to stop, it takes nobody new, keeps the live session until it ends by itself, and ends with 0."""
    with site(form) as at_work:
        running = at_work.running
        with connect(running.address("small")) as client:
            assert echoes(client)
            running.ask_to_stop()
            running.await_record("draining")
            assert echoes(client, b"still here")
            finish(client)
            assert read_to_end(client) == b""
        assert running.wait() == 0
        (record,) = running.sessions("small")
        assert (record["cause"], record["up"]) == ("client_eof", len(b"pingstill here"))
        assert running.records("stopped")


def test_a_bad_ruleset(form: Form) -> None:
    """`check` says the same of a bad ruleset in every form, with place and hint, and ends with 2."""
    seen = asked(form, "check", "-", stdin=BAD)
    wanted = asked(FORMS[0], "check", "-", stdin=BAD)
    assert wanted.returncode == 2
    assert "hint: did you mean listen?" in wanted.stderr
    assert (seen.returncode, seen.stdout, seen.stderr) == (2, wanted.stdout, wanted.stderr)


def test_the_version(form: Form) -> None:
    """`--version` is the version of this tree: what was built is what is tested."""
    seen = asked(form, "--version")
    assert (seen.returncode, seen.stdout) == (0, f"portway, version {__version__}\n")


def asked(form: Form, *words: str, stdin: str = "") -> "CompletedProcess[str]":
    """Use a form's command line, where it has one."""
    ended = form.run(*words, stdin=stdin)
    if ended is None:
        pytest.skip(f"{form.name} has no command line")
    return ended
