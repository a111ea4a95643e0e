"""iperf3 with UDP: datagrams at a steady rate, each way, small and large, in one stream and in several."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.gateway import Gateway, rule, ruleset
from tests.real.datagrams import SILENCE, dropped, flows, free_ports, sessions, total
from tests.real.programs import Address, answers, find, run, running

KNOCK = 4
"""A stream begins with a datagram of so many bytes each way (iperf_udp.c, UDP_CONNECT_MSG)."""
ROOM = "2M"
"""Socket buffers of iperf3's ends, so that what a busy machine lets wait is not lost there."""
LOST = 0.05
"""What a busy machine may lose: the rates are a fraction of what the gateway carries."""


@dataclass(frozen=True)
class Load:
    """What each stream sends."""

    streams: int
    rate: str
    size: int
    count: int

    @property
    def words(self) -> list[str]:
        """The options of iperf3."""
        each = {"-P": self.streams, "-b": self.rate, "-l": self.size, "-k": self.count, "-w": ROOM}
        return [str(word) for pair in each.items() for word in pair]


LOADS = [
    pytest.param(Load(1, "100M", 1400, 20_000), id="frames"),
    pytest.param(Load(1, "100M", 8 << 10, 3_000), id="8K"),
    pytest.param(Load(1, "60M", 60 << 10, 300), id="60K"),
    pytest.param(Load(1, "5M", 64, 20_000), id="tiny"),
    pytest.param(Load(4, "25M", 1400, 20_000), id="four-streams"),
]


@pytest.fixture(scope="module")
def iperf3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Run the server; it takes TCP, for its orders, and UDP on the same port."""
    host, port = free_ports()
    command = [find("iperf3"), "-s", "-B", host, "-p", str(port), "--forceflush"]
    with running(command, lambda: answers((host, port)), tmp_path_factory.mktemp("iperf3")):
        yield host, port


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("way", ["up", "down"])
def test_datagrams(iperf3: Address, way: str, load: Load) -> None:
    """The records have each datagram that iperf3 sent: passed on, or dropped, which next to none are."""
    host, port = free_ports()
    text = rule("bulk", "{}:{}".format(*iperf3), f"{host}:{port}", protocol="tcp+udp")
    with Gateway.start(ruleset(text)) as gateway:
        words = ["-u", *load.words, *(["-R"] if way == "down" else [])]
        end = report(run([find("iperf3"), "-J", "-c", host, "-p", str(port), *words]))
        # Its server ends when it is told to, by TCP, whatever is still on the way by UDP.
        those = flows(gateway, "bulk", SILENCE | {"endpoint_refused"}, may_drop=True)
        lost = dropped(gateway, those)
        assert len(sessions(gateway, "bulk")) == 1
    assert len({each["client"] for each in those}) == load.streams
    sent, received = end["sum_sent"], end["sum_received"]
    assert sent["packets"] >= load.count
    passed = total(those, f"{way}_datagrams") - load.streams
    assert passed + lost == sent["packets"]
    assert total(those, way) == passed * load.size + load.streams * KNOCK
    assert received["bytes"] <= passed * load.size
    back = "down" if way == "up" else "up"
    assert total(those, back) == load.streams * KNOCK
    # What was still on the way at the end is not counted in this.
    assert received["lost_packets"] <= LOST * sent["packets"]


def report(said: bytes) -> dict[str, Any]:
    """Give what the client reports at the end."""
    told = json.loads(said)
    assert "error" not in told, told
    return dict(told["end"])
