"""Binding: every address as it was written, all or none, and nobody else's port."""

import errno
import os
import random
import socket
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.ruleset import Ruleset, read
from appliance.supervisor.binding import Binder, Bound, Refusal
from tests.ports import free_for_both_families

LOOPBACK = "127.0.0.1"


def ruleset(*listens: str) -> Ruleset:
    """Make a ruleset of one rule for each address."""
    text = "".join(
        f'[[rule]]\nname = "rule-{number}"\nlisten = "{listen}"\nto = "10.0.0.5:80"\n'
        for number, listen in enumerate(listens)
    )
    made = read(text.encode(), "test")
    assert isinstance(made, Ruleset), made
    return made


@contextmanager
def bound(*listens: str, workers: int = 2, inherited: Iterable[socket.socket] = ()) -> Iterator[Binder]:
    """Bind; whatever was bound is closed afterwards."""
    binder = Binder(workers, inherited)
    try:
        binder.bind(ruleset(*listens))
        yield binder
    finally:
        binder.close()
        for unused in binder.unused:
            unused.close()


def port_of(one: Bound) -> int:
    name = one.sockets[0].getsockname()
    return int(name[1])


def listening(host: str = LOOPBACK, port: int = 0, *, family: int = socket.AF_INET) -> socket.socket:
    return socket.create_server((host, port), family=family)


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_each_worker_has_a_socket_of_its_own() -> None:
    """As many sockets as workers at one port, which the kernel picked; one each, not shared."""
    with bound("127.0.0.1:0", workers=3) as binder:
        (one,) = binder.bound
        assert not one.shared
        assert not one.inherited
        assert [one.sockets_for(worker) for worker in range(3)] == [(each,) for each in one.sockets]
        assert len({each.fileno() for each in one.sockets}) == 3
        assert len({each.getsockname() for each in one.sockets}) == 1
        assert one.address == f"127.0.0.1:{port_of(one)}"
        assert port_of(one) != 0


def test_every_socket_takes_clients() -> None:
    """The kernel spreads clients over all of them, and none is lost."""
    with bound("127.0.0.1:0", workers=2) as binder:
        (one,) = binder.bound
        clients = [socket.create_connection((LOOPBACK, port_of(one))) for _ in range(40)]
        taken = [len(queue_of(listener)) for listener in one.sockets]
        assert sum(taken) == 40
        assert min(taken) > 0  # one in 2 ** 39 otherwise
        for client in clients:
            client.close()


def queue_of(listener: socket.socket) -> list[str]:
    peers: list[str] = []
    while True:
        try:
            client, peer = listener.accept()
        except BlockingIOError:
            return peers
        client.close()
        peers.append(str(peer))


def test_no_host_is_both_families() -> None:
    """`:0` is one port of both, IPv6 first, apart: an IPv4 client keeps its IPv4 address."""
    with bound(":0") as binder:
        six, four = binder.bound
        assert (six.address, four.address) == (f"[::]:{port_of(four)}", f"0.0.0.0:{port_of(six)}")
        for host in (LOOPBACK, "::1"):
            assert answers(host, port_of(six))
        client = socket.create_connection((LOOPBACK, port_of(six)))
        assert sum(len(queue_of(listener)) for listener in four.sockets) == 2
        client.close()
        assert not binder.without_ipv6


def test_a_host_without_ipv6_gets_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """`:port` works there, and the operator is told; an address that asks for IPv6 is refused."""
    real = socket.socket

    def without_ipv6(family: int = -1, *more: int, **named: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(family, *more, **named)

    monkeypatch.setattr("appliance.supervisor.binding.socket.socket", without_ipv6)
    with bound(":0", "[::1]:0") as binder:
        (four,) = binder.bound
        assert four.address.startswith("0.0.0.0:")
        assert binder.without_ipv6 == [":0"]
        (refusal,) = binder.refused
        assert refusal.hint == "this host has no IPv6"


def test_one_family_taken_refuses_both() -> None:
    """A port that is free for IPv6 only is not bound by half."""
    with listening("0.0.0.0") as taken:
        port = taken.getsockname()[1]
        with bound(f":{port}") as binder:
            assert binder.bound == []
            assert [refusal.address for refusal in binder.refused] == [f":{port}"]
        assert not answers("::1", port)


def test_a_range_knows_its_offsets() -> None:
    """Each port of a range is bound, and says which one it is."""
    for _ in range(10):  # the kernel knows of single free ports only
        host = "127.{}.{}.{}".format(*(random.randint(2, 250) for _ in range(3)))
        with listening(host) as probe:
            first = min(probe.getsockname()[1], 65533)
        with bound(f"{host}:{first}-{first + 2}", f"{host}:0") as binder:
            if binder.refused:
                continue
            seen = [(one.rule.name, port_of(one) - first, one.offset) for one in binder.bound[:3]]
            assert seen == [("rule-0", 0, 0), ("rule-0", 1, 1), ("rule-0", 2, 2)]
            assert binder.bound[3].offset == 0
            return
    raise AssertionError("no three free ports in a row, ten times")


def test_every_refused_address_is_reported() -> None:
    """One run tells all of them, and what else is in the ruleset is bound meanwhile."""
    with listening() as one, listening() as two:
        taken = [f"127.0.0.1:{each.getsockname()[1]}" for each in (one, two)]
        with bound(taken[0], "127.0.0.1:0", taken[1], "203.0.113.77:0") as binder:
            assert [(refusal.rule, refusal.address) for refusal in binder.refused] == [
                ("rule-0", taken[0]),
                ("rule-2", taken[1]),
                ("rule-3", "203.0.113.77:0"),
            ]
            assert [refusal.error.errno for refusal in binder.refused] == [
                errno.EADDRINUSE,
                errno.EADDRINUSE,
                errno.EADDRNOTAVAIL,
            ]
            assert len(binder.bound) == 1


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0", ":0"])
def test_a_second_gateway_is_refused(listen: str) -> None:
    """SO_REUSEPORT is for our workers: another gateway of the same user does not get half of the clients."""
    with bound(listen) as first:
        port = port_of(first.bound[0])
        for again in (f"127.0.0.1:{port}", f"0.0.0.0:{port}", f":{port}"):
            with bound(again) as second:
                assert not second.bound
                assert [refusal.error.errno for refusal in second.refused] == [errno.EADDRINUSE]


def test_a_port_is_free_again_at_once() -> None:
    """Connections of an earlier run, in TIME_WAIT, do not keep the port."""
    with bound("127.0.0.1:0", workers=1) as first:
        port = port_of(first.bound[0])
        client = socket.create_connection((LOOPBACK, port))
        accepted, _ = first.bound[0].sockets[0].accept()
        accepted.close()  # this side ends first, and has the TIME_WAIT
        client.close()
    with bound(f"127.0.0.1:{port}") as second:
        assert not second.refused


def test_closing_gives_everything_up() -> None:
    """Afterwards nobody listens."""
    with bound(":0") as binder:
        port = port_of(binder.bound[0])
        assert answers(LOOPBACK, port)
        binder.close()
        assert not answers(LOOPBACK, port)
        assert not answers("::1", port)


# -- unix sockets ---------------------------------------------------------------------------------


def test_a_unix_socket_is_shared_and_leaves_no_file(tmp_path: Path) -> None:
    """One socket for all workers; its file goes with it."""
    path = tmp_path / "s"
    with bound(f"unix:{path}", workers=3) as binder:
        (one,) = binder.bound
        assert one.shared
        assert one.address == f"unix:{path}"
        assert one.sockets_for(2) == one.sockets_for(0)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    """The file of a gateway that was killed does not keep the next one from starting."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
    assert path.exists()
    with bound(f"unix:{path}") as binder:
        assert not binder.refused


@pytest.mark.parametrize("full", [False, True])
def test_a_live_unix_socket_stays(tmp_path: Path, full: bool) -> None:
    """Where somebody listens the address is refused, also when his queue is full, and his file stays."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as first:
        live.bind(str(path))
        live.listen(0)
        if full:
            first.connect(str(path))
        with bound(f"unix:{path}") as binder:
            assert [refusal.error.errno for refusal in binder.refused] == [errno.EADDRINUSE]
        assert stat.S_ISSOCK(path.stat().st_mode)


def test_a_file_is_not_taken_away(tmp_path: Path) -> None:
    """Only sockets are ever removed, whatever the ruleset names."""
    path = tmp_path / "precious"
    path.write_text("data")
    with bound(f"unix:{path}") as binder:
        assert [refusal.error.errno for refusal in binder.refused] == [errno.EADDRINUSE]
    assert path.read_text() == "data"


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """The hint says what is missing."""
    with bound(f"unix:{tmp_path}/absent/s") as binder:
        (refusal,) = binder.refused
        assert refusal.hint == "the unix socket's directory does not exist"


# -- sockets that came from outside ---------------------------------------------------------------


def test_an_inherited_socket_is_used() -> None:
    """It is matched by its address, shared by the workers, and made ready as our own are."""
    outside = listening()
    port = outside.getsockname()[1]
    with bound("127.0.0.1:0", f"127.0.0.1:{port}", inherited=[outside]) as binder:
        ours, theirs = binder.bound
        assert (ours.inherited, theirs.inherited) == (False, True)
        assert theirs.shared
        assert theirs.sockets == (outside,)
        assert theirs.rule.name == "rule-1"
        assert not outside.getblocking()
        assert outside.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert not binder.unused


@pytest.mark.parametrize("only_six", [False, True])
def test_an_inherited_wildcard_is_matched(only_six: bool) -> None:
    """[::] of both families is `:port` as a whole; an IPv6-only one is half of it, and IPv4 is bound."""
    port = free_for_both_families()
    outside = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=not only_six)
    with bound(f":{port}", inherited=[outside]) as binder:
        assert not binder.refused
        families = [(one.sockets[0].family, one.inherited) for one in binder.bound]
        assert families[0] == (socket.AF_INET6, True)
        assert families[1:] == ([(socket.AF_INET, False)] if only_six else [])
        assert answers(LOOPBACK, port)


def test_an_inherited_ipv4_wildcard_is_half_of_both() -> None:
    """0.0.0.0 from outside is the IPv4 half of `:port`; IPv6 is bound."""
    port = free_for_both_families()
    outside = listening("0.0.0.0", port)
    with bound(f":{port}", inherited=[outside]) as binder:
        assert not binder.refused
        assert [one.inherited for one in binder.bound] == [False, True]


def test_an_inherited_unix_socket_keeps_its_file(tmp_path: Path) -> None:
    """The file is the service manager's."""
    path = tmp_path / "s"
    outside = socket.socket(socket.AF_UNIX)
    outside.bind(str(path))
    outside.listen()
    with bound(f"unix:{path}", inherited=[outside]) as binder:
        assert binder.bound[0].inherited
    assert path.exists()


def test_what_no_rule_asks_for_is_told() -> None:
    """Another address or port is not taken by resemblance."""
    with socket.socket() as probe:  # a port free at 127.0.0.2 may be one that others' connections have here
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    outside = listening("127.0.0.2", port)
    with bound(f"127.0.0.1:{port}", inherited=[outside]) as binder:
        assert binder.unused == [outside]
        assert not binder.bound[0].inherited


INHERITED = """
import os, socket
from appliance.supervisor.binding import inherited_sockets
web = socket.create_server(("127.0.0.1", 0))
dns = socket.socket(type=socket.SOCK_DGRAM)
dns.bind(("127.0.0.1", 0))
silent = socket.socket()
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
reading, writing = os.pipe()
passed = (web, silent, dns, notify)
kept = [os.dup(each) for each in (*(each.fileno() for each in passed), reading)]
names = [web.getsockname(), dns.getsockname()]
for each in passed:
    each.close()
os.close(reading)
for number, fd in enumerate(kept):
    os.dup2(fd, 60 + number)
os.closerange(3, 60)
for number in range(5):
    os.dup2(60 + number, 3 + number)
os.closerange(60, 70)
os.environ["LISTEN_FDS"] = "6"
os.environ["LISTEN_FDNAMES"] = "a:b:c:d:e:f"
os.environ["LISTEN_PID"] = str(os.getpid() {other})
taken = inherited_sockets()
assert not [name for name in os.environ if name.startswith("LISTEN_")]
if not {other}:
    assert [each.fileno() for each in taken] == [3, 5]
    assert [each.getsockname() for each in taken] == names
    assert not any(os.get_inheritable(fd) for fd in (3, 5))
else:
    assert taken == []
assert inherited_sockets() == []
print("held")
"""


@pytest.mark.parametrize("other", ["+0", "+1"])
def test_listening_sockets_are_taken_over(other: str) -> None:
    """What listens or receives is taken, nothing else; what is meant for another process is left alone."""
    code = INHERITED.replace("{other}", other)
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout.strip()) == (0, "held"), child.stderr


# -- what the operator reads ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "what", "hint"),
    [
        (errno.EADDRINUSE, "Address already in use", "another program listens there; `ss -ltnp` names it"),
        (
            errno.EACCES,
            "Permission denied",
            "ports below 1024 need CAP_NET_BIND_SERVICE, a unix socket a directory one may write to",
        ),
        (
            errno.EADDRNOTAVAIL,
            "Cannot assign requested address",
            "no interface of this host has that address; `ip address` lists them",
        ),
        (
            errno.EMFILE,
            "Too many open files",
            "more listeners than this process may have files; raise `ulimit -n`",
        ),
        (errno.EAFNOSUPPORT, "Address family not supported by protocol", "this host has no IPv6"),
        (errno.EIO, "Input/output error", None),
    ],
)
def test_a_refusal_says_what_and_what_to_do(number: int, what: str, hint: str | None) -> None:
    """Rule, address and reason in one sentence; a hint where there is one."""
    refusal = Refusal("web", "0.0.0.0:80", OSError(number, os.strerror(number)))
    assert refusal.what == f'rule "web": cannot listen on 0.0.0.0:80: {what}'
    assert refusal.hint == hint


def test_a_refusal_without_an_errno_still_speaks() -> None:
    """An OSError that carries no number has its text, not "Success"."""
    refusal = Refusal("web", "0.0.0.0:80", OSError("AF_UNIX path too long"))
    assert "Success" not in refusal.what
    assert "AF_UNIX path too long" in refusal.what


def test_an_interface_that_is_not_there() -> None:
    """A link-local address of an absent interface is refused in words, not with a number of another table."""
    with bound("[fe80::1%nosuch0]:8080") as binder:
        (refusal,) = binder.refused
        assert refusal.address == "[fe80::1%nosuch0]:8080"
        assert "Unknown error" not in refusal.what
        assert "Success" not in refusal.what


def test_a_reload_takes_over_every_socket() -> None:
    """More workers get new ones beside them; of fewer, one serves several, and none is closed."""
    with bound("127.0.0.1:0", workers=2) as former:
        more, fewer = Binder(3, former=[former]), Binder(1, former=[former])
        for binder in (more, fewer):
            binder.bind(ruleset("127.0.0.1:0"))
            assert not binder.refused
        (one,), (grown,), (shrunk,) = former.bound, more.bound, fewer.bound
        assert (grown.address, shrunk.address) == (one.address, one.address)
        assert grown.sockets[:2] == shrunk.sockets == one.sockets
        assert [len(grown.sockets_for(worker)) for worker in range(3)] == [1, 1, 1]
        assert shrunk.sockets_for(0) == one.sockets
        assert more.took_over(grown)
        more.release(former.bound)
        assert [each.fileno() < 0 for each in grown.sockets] == [False, False, True]


def test_a_refused_reload_has_made_no_socket_that_clients_may_enter() -> None:
    """More workers get theirs only once every address is bound: one that is closed again resets its queue."""
    with bound("127.0.0.1:0", workers=1) as former, listening() as taken:
        binder = Binder(3, former=[former])
        binder.bind(ruleset("127.0.0.1:0", f"127.0.0.1:{taken.getsockname()[1]}"))
        assert [refusal.error.errno for refusal in binder.refused] == [errno.EADDRINUSE]
        assert binder.bound[0].sockets == former.bound[0].sockets
        binder.release(former.bound)


def test_an_address_of_a_ruleset_before_the_last_one_is_taken_over_too() -> None:
    """Until a ruleset is in force the one before it has its sockets; and each is taken once."""
    port = free_for_both_families()
    with bound(f"127.0.0.1:{port}", "127.0.0.1:0") as first:
        second = Binder(2, former=[first])
        second.bind(ruleset("127.0.0.1:0"))
        third = Binder(2, former=[second, first])
        third.bind(ruleset(f"127.0.0.1:{port}", "127.0.0.1:0"))
        assert not third.refused
        assert third.bound[0].sockets == first.bound[0].sockets
        for binder in (second, third):
            binder.release(first.bound)


def test_an_address_only_the_new_ruleset_has_beside_one_of_all_addresses() -> None:
    """One's own listener is nobody else's: `127.0.0.1:80` may follow on `:80`."""
    port = free_for_both_families()
    with bound(f":{port}") as former:
        binder = Binder(2, former=[former])
        binder.bind(ruleset(f"127.0.0.1:{port}"))
        assert not binder.refused
        assert not binder.took_over(binder.bound[0])
        binder.release(former.bound)
