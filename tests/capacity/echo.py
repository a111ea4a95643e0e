"""An endpoint that echoes, for thousands of sessions at once. Says its port; ends when its stdin does."""

import resource
import select
import socket
from contextlib import suppress

STDIN = 0


def main() -> None:
    """Echo until told to end; on every address of this host."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with socket.create_server(("0.0.0.0", 0), backlog=4096) as listener, select.epoll() as epoll:
        listener.setblocking(False)
        epoll.register(listener.fileno(), select.EPOLLIN)
        epoll.register(STDIN, select.EPOLLIN)
        print(listener.getsockname()[1], flush=True)
        sessions: dict[int, socket.socket] = {}
        while True:
            for fd, _ in epoll.poll():
                if fd == STDIN:
                    return
                if fd != listener.fileno():
                    echo(fd, sessions)
                    continue
                with suppress(BlockingIOError):
                    session, _ = listener.accept()
                    sessions[session.fileno()] = session
                    epoll.register(session.fileno(), select.EPOLLIN)


def echo(fd: int, sessions: dict[int, socket.socket]) -> None:
    """Send back what came, a few bytes; end when the other end does."""
    data = sessions[fd].recv(4096)
    if data:
        sessions[fd].sendall(data)
    else:
        sessions.pop(fd).close()


if __name__ == "__main__":
    main()
