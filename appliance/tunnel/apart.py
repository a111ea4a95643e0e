"""Work that is done once, in a child process, for what it imports: 9 MB that nobody has afterwards."""

import os
from collections.abc import Callable
from typing import NoReturn

import msgspec


class _Done(msgspec.Struct, tag="done"):
    texts: tuple[str, ...]


class _Failed(msgspec.Struct, tag="failed"):
    what: str
    number: int | None = None
    file: str | None = None


class _Wrong(msgspec.Struct, tag="wrong"):
    what: str


def apart(work: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """Give what `work` gives, or raise its OSError or ValueError; anything else becomes a RuntimeError.

    Not for a process that has sessions: the child has their sockets as long as it lives (`net.reactor`, 2).
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if not pid:
        _work(work, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read()
    os.waitpid(pid, 0)
    try:
        outcome: _Done | _Failed | _Wrong = msgspec.json.decode(said, type=_Done | _Failed | _Wrong)
    except msgspec.DecodeError:
        raise RuntimeError("a child process has ended without a word") from None
    match outcome:
        case _Done(texts=texts):
            return texts
        case _Failed(number=number, what=what, file=file):
            raise OSError(number, what, file)
        case _Wrong(what=what):
            raise ValueError(what)


def _work(work: Callable[[], tuple[str, ...]], writing: int) -> NoReturn:
    outcome: _Done | _Failed | _Wrong
    try:
        try:
            outcome = _Done(work())
        except OSError as error:
            outcome = _Failed(error.strerror or str(error), error.errno, error.filename)
        except ValueError as error:
            outcome = _Wrong(str(error))
        os.write(writing, msgspec.json.encode(outcome))
    finally:
        os._exit(0)
