"""The endpoint of conversations: SEED REPORT. Says its port; ends when its stdin does and all have ended."""

import socket
import sys
from contextlib import suppress
from pathlib import Path

from tests.conversations.peer import IN, Loop
from tests.conversations.plan import Side

STDIN = 0


def main(seed: int, report: Path) -> None:
    """Serve until told to end."""
    loop = Loop(seed, Side.SERVER, lambda: None)
    is_told = False
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        listener.setblocking(False)

        def accept_or_end(fd: int) -> None:
            nonlocal is_told
            if fd == STDIN:
                is_told = True
                loop.epoll.unregister(STDIN)
            elif fd == listener.fileno():
                with suppress(BlockingIOError):
                    connection, _ = listener.accept()
                    connection.setblocking(False)
                    loop.add(connection, None)

        loop.epoll.register(listener.fileno(), IN)
        loop.epoll.register(STDIN, IN)
        print(listener.getsockname()[1], flush=True)
        while loop.ends or not is_told:
            loop.turn(accept_or_end)
    loop.report(report)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
