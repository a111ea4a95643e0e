"""The reference page docs/log.md, made from the names: `python -m appliance.observe.reference` prints it."""

import ast
import inspect
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

from msgspec import UNSET

from appliance.observe.lines import json_form
from appliance.observe.log import Log
from appliance.observe.names import HEAD, SESSION_LEVEL, Event, Field, Level
from appliance.observe.outlet import Outlet
from appliance.observe.record import SessionRecord
from appliance.observe.sink import LineWriter
from appliance.outcome import LEGAL, Cause, Drop, Refusal, Stage

_INTRO: Final = """\
# The log

`portway run` writes its log to stdout: JSON, UTF-8, one object a line; on a terminal,
the same records as lines for a person (colour unless `NO_COLOR` is set or `TERM` is `dumb`). This page is
made from the program: `python -m appliance.observe.reference`.

Every record begins with `event`, `level` and `time`. A field that never came to be is left out, never null;
in the tables it stands in brackets. Releases may add fields to an event. A TCP session has one record,
written when it ends, whether it was served or refused, and so has a UDP flow:
"""

_READER: Final = """
A reader that stalls, dies or fills its disk never stalls forwarding. Each process holds up to 1 MiB of lines
for it; what comes beyond is dropped, and a `log_dropped` record stands in the place of the lines that are
missing. Processes that share one pipe, socket or file do not mix their lines. A file is appended to, so it
may be truncated under way (logrotate's `copytruncate`).

What to know before counting:

- While there are many records they are written together, up to 50 ms after a session's end, which is what
  `time` says.
- A worker that is killed (SIGKILL, out of memory) leaves no records of the sessions it had.
- At the gateway's end a stalled reader has one second more. Lines it has not taken by then are lost, and
  nothing counts them.
- `up` and `down` count bytes given to the other side's kernel. What of them a client or endpoint that
  aborted never read is counted too.
- Of datagrams, too, what the kernel took to send is counted; whether it arrived nobody says. `up` and `down`
  are what they carried, without headers.
- A datagram that is dropped before it belongs to a flow is in no flow's record: `datagrams_dropped` counts
  it.
- An endpoint that accepts and resets before the gateway could see the connection is `dial_refused`.
"""

_SAMPLE_TIME: Final = 1700000000.123


def page() -> str:
    """Write the whole page, Markdown."""
    parts = [
        _INTRO,
        f"```json\n{sample()}```",
        _READER,
        "## Events\n",
        *_table(("event", "level", "meaning", "fields"), _events()),
        "\n## Fields\n",
        *_table(("field", "type", "unit or form", "meaning"), _fields()),
        "\n## Stages\n",
        *_table(("stage", "meaning", "causes that end a session in it"), _stages()),
        "\n## Causes\n",
        *_table(("cause", "level of the record", "meaning"), _causes()),
        "\n## Drops\n",
        "The keys of a flow's `drops`, each with how many of its datagrams were dropped because of it.\n",
        *_table(("drop", "meaning"), _plain(Drop)),
        "\n## Refusals\n",
        *_table(("refusal", "meaning"), _plain(Refusal)),
    ]
    return "\n".join(parts) + "\n"


def sample() -> str:
    """Write the records of an ordinary session and flow, as the log does."""
    taken: list[bytes] = []

    def take(data: bytes) -> int:
        taken.append(data)
        return len(data)

    writer = LineWriter(Outlet(-1, take, 1 << 20, lambda: None), lambda _count: b"")
    log = Log(writer, json_form(lambda: _SAMPLE_TIME), Level.INFO)
    log.sessions(_samples())
    log.flush()
    return b"".join(taken).decode()


def _samples() -> list[SessionRecord]:
    return [
        SessionRecord(
            level="",
            time=0.0,
            session="01HF7YAT3V4T9Q2M7XKD000042",
            rule="intranet-web",
            protocol="tcp",
            client="203.0.113.9:51022",
            listener="0.0.0.0:8080",
            endpoint="10.0.0.5:80",
            stage=Stage.RELAY,
            cause=Cause.CLIENT_EOF,
            up=1204,
            down=90811,
            up_datagrams=UNSET,
            down_datagrams=UNSET,
            drops=UNSET,
            connect_ms=0.41,
            first_byte_ms=3.2,
            duration_ms=812.0,
        ),
        SessionRecord(
            level="",
            time=0.0,
            session="01HF7YAT3V4T9Q2M7XKD000043",
            rule="dns",
            protocol="udp",
            client="203.0.113.9:40112",
            listener="0.0.0.0:53",
            endpoint="10.0.0.2:53",
            stage=Stage.RELAY,
            cause=Cause.IDLE_TIMEOUT,
            up=164,
            down=1351,
            up_datagrams=4,
            down_datagrams=3,
            drops={Drop.SEND_FULL: 1},
            connect_ms=UNSET,
            first_byte_ms=2.7,
            duration_ms=30412.0,
        ),
    ]


def _events() -> Iterator[Sequence[str]]:
    for event in Event:
        fields = [*_codes(event.always), *(f"({name})" for name in _codes(event.sometimes))]
        yield f"`{event}`", ", ".join(event.levels), event.meaning, ", ".join(fields)


def _fields() -> Iterator[Sequence[str]]:
    for field in (*HEAD, *(field for field in Field if field not in HEAD)):
        yield f"`{field}`", field.kind, field.unit, field.meaning


def _stages() -> Iterator[Sequence[str]]:
    meanings = _meanings(Stage)
    for stage in Stage:
        legal = [cause for cause in Cause if cause in LEGAL[stage]]
        yield f"`{stage}`", meanings[stage.name], ", ".join(_codes(legal))


def _causes() -> Iterator[Sequence[str]]:
    meanings = _meanings(Cause)
    for cause in Cause:
        yield f"`{cause}`", SESSION_LEVEL[cause], meanings[cause.name]


def _plain(closed_set: type[StrEnum]) -> Iterator[Sequence[str]]:
    meanings = _meanings(closed_set)
    for member in closed_set:
        yield f"`{member}`", meanings[member.name]


def _codes(names: Sequence[str]) -> list[str]:
    return [f"`{name}`" for name in names]


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _meanings(closed_set: type[StrEnum]) -> dict[str, str]:
    """Read the docstring below each member from the source: at run time Python has thrown them away."""
    body = ast.parse(inspect.getsource(closed_set)).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError(f"{closed_set} is no class")
    found = {}
    for member, text in zip(body.body, body.body[1:], strict=False):
        match member, text:
            case (
                ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(meaning))),
            ):
                found[name] = " ".join(meaning.split())
    return found


if __name__ == "__main__":
    sys.stdout.write(page())
