"""iperf3: as many bytes as it goes, each way, in one stream and in several."""

import json
from collections.abc import Iterator

import pytest

from tests.e2e.gateway import Gateway, rule, ruleset
from tests.real.programs import (
    ORDERLY,
    RESET,
    Address,
    answers,
    find,
    free_address,
    records,
    run,
    running,
)

BYTES = 512 << 20
COOKIE = 37
"""What each stream begins with (iperf_api.h, COOKIE_SIZE)."""


@pytest.fixture(scope="module")
def iperf3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Run the server."""
    host, port = free_address()
    command = [find("iperf3"), "-s", "-B", host, "-p", str(port), "--forceflush"]
    with running(command, lambda: answers((host, port)), tmp_path_factory.mktemp("iperf3")):
        yield host, port


@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("way", ["up", "down"])
def test_streams(iperf3: Address, way: str, streams: int) -> None:
    """iperf3 moves 512 MiB without an error, and the records have what it says it sent and received."""
    with Gateway.start(ruleset(rule("bulk", "{}:{}".format(*iperf3)))) as gateway:
        port = str(gateway.port("bulk"))
        words = ["-P", str(streams), "-n", str(BYTES), *(["-R"] if way == "down" else [])]
        said = json.loads(run([find("iperf3"), "-J", "-c", "127.0.0.1", "-p", port, *words]))
        assert "error" not in said, said
        # A stream's receiver may close it before it has read all: that is a reset.
        those = records(gateway, "bulk", streams + 1, ORDERLY | RESET)
    sent, received = said["end"]["sum_sent"]["bytes"], said["end"]["sum_received"]["bytes"]
    assert sent >= BYTES
    carried = sorted(each[way] for each in those)[1:]
    assert received <= sum(carried) <= sent + streams * COOKIE
