"""A thousand UDP ports in one rule: how soon they answer, and what they hold."""

import socket
import struct

from bench.account import descriptors, settled_cpu_seconds, user_bytes
from bench.endpoints import Bench
from bench.loads import Numbers
from bench.process import Address, FailedError
from bench.relays import PORTS, Running

ANSWER_TIMEOUT_S = 1.0
PORT = struct.Struct("!H")


def ask_each(host: str, ports: range) -> None:
    """Send a datagram to each port and take what it sends back; FailedError at the first that does not."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(ANSWER_TIMEOUT_S)
        sock.bind((host, 0))
        for port in ports:
            asked: tuple[bytes, Address] = PORT.pack(port), (host, port)
            sock.sendto(*asked)
            try:
                answer = sock.recvfrom(64)
            except TimeoutError as error:
                raise FailedError(f"port {port} does not answer") from error
            if answer != asked:
                raise FailedError(f"port {port} was asked, {answer[1][1]} answered")


def measure_ports(_bench: Bench, relay: Running) -> Numbers:
    """Time from start to answer, memory and descriptors at rest, and memory with a flow on every port."""
    host, first = relay.entry(PORTS)
    count = next(route.way.ports for route in relay.routes if route.name == PORTS)
    settled_cpu_seconds(relay.roots, reap=False)
    numbers = {
        "ports_ready": relay.ready_s * 1e3,
        "ports_memory": user_bytes(relay.roots) / 1e6,
        "ports_fds": float(descriptors(relay.roots)),
    }
    ask_each(host, range(first, first + count))
    settled_cpu_seconds(relay.roots, reap=False)
    return numbers | {"ports_flows": user_bytes(relay.roots) / 1e6}
