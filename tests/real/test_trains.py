"""Datagrams of every length, in trains as QUIC stacks send them or one by one, there and back."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.gateway import Gateway, rule, ruleset
from tests.real.datagrams import flows, free_ports
from tests.real.trains import Rails, datagrams, exchange, give_back

DATAGRAMS = 8000


@pytest.mark.parametrize("server", ["trains", "singles"])
@pytest.mark.parametrize("client", ["trains", "singles"])
def test_each_datagram_stays_one(client: str, server: str) -> None:
    """Datagrams come in order and with their bounds, each way, and the record has each of them."""
    sent, inside, listen = datagrams(DATAGRAMS, len(client) * 10 + len(server)), free_ports(), free_ports()
    text = rule("trains", "{}:{}".format(*inside), "{}:{}".format(*listen), protocol="udp")
    with (
        socket.socket(type=socket.SOCK_DGRAM) as near,
        socket.socket(type=socket.SOCK_DGRAM) as far,
        ThreadPoolExecutor(1) as pool,
        Gateway.start(ruleset(text)) as gateway,
    ):
        near.bind(("127.0.0.1", 0))
        far.bind(inside)
        arrived = pool.submit(give_back, Rails(far, server == "trains"), DATAGRAMS)
        check_same(exchange(Rails(near, client == "trains"), sent, listen), sent)
        check_same(arrived.result(), sent)
        (record,) = flows(gateway, "trains")
    assert record["up_datagrams"] == record["down_datagrams"] == DATAGRAMS
    assert record["up"] == record["down"] == sum(map(len, sent))


def check_same(came: list[bytes], sent: list[bytes]) -> None:
    """Compare datagrams; say what differs by their lengths, since megabytes are nothing to print."""
    if came == sent:
        return
    at = next((n for n, pair in enumerate(zip(came, sent, strict=False)) if pair[0] != pair[1]), len(came))
    these, those = ([len(each) for each in some[at : at + 5]] for some in (came, sent))
    raise AssertionError(f"from datagram {at} of {len(sent)} on: lengths {these} instead of {those}")
