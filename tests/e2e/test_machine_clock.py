"""What the VM's clock asks, over real sockets: a time server in the test, right, wrong, or not there."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

from appliance.machine.clock import first_answer
from appliance.machine.sntp import Sample
from tests.ports import free_for_both_families

AHEAD = 1000.0
EPOCH = 2_208_988_800


def answer(question: bytes) -> bytes:
    """Answer as a server whose clock is ahead."""
    now = time.time() + AHEAD  # noqa: TID251  a time server has the wall clock
    stamp = struct.pack("!II", int(now) + EPOCH, int(now % 1 * (1 << 32)))
    return bytes((0x24, 2)) + bytes(22) + question[40:48] + stamp + stamp


@contextmanager
def time_server(reply: Callable[[bytes], bytes]) -> Iterator[int]:
    """Answer each question; its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as serving:
        serving.bind(("127.0.0.1", 0))

        def serve() -> None:
            while (taken := serving.recvfrom(1024))[0] != b"end":
                serving.sendto(reply(taken[0]), taken[1])

        thread = Thread(target=serve)
        thread.start()
        port = int(serving.getsockname()[1])
        try:
            yield port
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"end", ("127.0.0.1", port))
            thread.join()


def test_a_server_says_how_far_off_the_clock_is() -> None:
    """A server that is 1000 s ahead is believed, to within a second."""
    with time_server(answer) as port:
        found = first_answer(["localhost", "127.0.0.1"], port)
    assert isinstance(found, tuple)
    server, sample = found
    assert server in {"localhost", "127.0.0.1"}
    assert isinstance(sample, Sample)
    assert abs(sample.offset - AHEAD) < 1.0


def test_why_there_is_no_time() -> None:
    """A server that does not know the time, and one that is not there, are told by name."""
    with time_server(lambda question: b"\xe4" + answer(question)[1:]) as port:
        assert first_answer(["127.0.0.1"], port) == ["127.0.0.1 does not know the time itself"]
    assert first_answer(["127.0.0.1"], free_for_both_families()) == ["127.0.0.1: Connection refused"]
