"""A long line between gateway and agent, a program of its own: what passes is held for a while, each way.

`python -m bench.tunnel.distance HOST PORT TO_HOST TO_PORT ONE_WAY_MS`. For first bytes, not for bulk: it
holds whatever comes. In user space, since not every kernel can delay packets, and only root may ask it to.
"""

import asyncio
import sys
from asyncio import StreamReader, StreamWriter
from contextlib import suppress

from bench.process import Address


def due(now: float, one_way: float, not_before: float, previous: float) -> float:
    """Tell when what is sent now arrives: one way later, not before it could, nor before what went before."""
    return max(now + one_way, not_before, previous)


class Line:
    """One way of a connection: bytes that are read here are written there, later and in their order."""

    def __init__(self, reader: StreamReader, writer: StreamWriter, one_way: float, not_before: float) -> None:
        self._reader, self._writer = reader, writer
        self._one_way, self._not_before = one_way, not_before
        self._arriving: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def carry(self) -> None:
        """Carry everything, and the end of it."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._depart())
            tasks.create_task(self._arrive())

    async def _depart(self) -> None:
        clock, at, piece = asyncio.get_running_loop().time, 0.0, b"."
        while piece:
            try:
                piece = await self._reader.read(65536)
            except OSError:
                piece = b""
            at = due(clock(), self._one_way, self._not_before, at)
            self._arriving.put_nowait((at, piece))

    async def _arrive(self) -> None:
        clock, piece = asyncio.get_running_loop().time, b"."
        while piece:
            at, piece = await self._arriving.get()
            await asyncio.sleep(at - clock())
            with suppress(OSError):
                if piece:
                    self._writer.write(piece)
                else:
                    self._writer.write_eof()


async def _connection(reader: StreamReader, writer: StreamWriter, to: Address, one_way: float) -> None:
    """Carry a connection. Its SYN takes one way, the answer to that another; only then the client sends."""
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(one_way)
    try:
        far_reader, far_writer = await asyncio.open_connection(*to)
    except OSError:
        writer.close()
        return
    await asyncio.gather(
        Line(reader, far_writer, one_way, began + 3 * one_way).carry(),
        Line(far_reader, writer, one_way, 0.0).carry(),
    )
    for each in (writer, far_writer):
        each.close()


async def _serve(listen: Address, to: Address, one_way: float) -> None:
    server = await asyncio.start_server(lambda r, w: _connection(r, w, to, one_way), *listen, backlog=4096)
    await server.serve_forever()


def main(host: str, port: str, to_host: str, to_port: str, one_way_ms: str) -> None:
    """Lie between, until ended."""
    asyncio.run(_serve((host, int(port)), (to_host, int(to_port)), float(one_way_ms) / 1e3))


if __name__ == "__main__":
    main(*sys.argv[1:])
