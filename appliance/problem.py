"""One thing that is wrong with what an operator wrote: where, what, and what to do about it.

Pure values. `appliance.cli.problems` shows them on a terminal or as JSON.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A character of a file, or the file as a whole.

    `line` and `column` count from 1, `column` in characters (code points); both are 0 for the whole file, as
    of one that cannot be read. `excerpt` is the whole line as the file has it, without its end: raw text,
    which only `printable` makes fit for a terminal.
    """

    file: str
    line: int = 0
    column: int = 0
    excerpt: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at a place.

    `key` is the dotted path of the key or value (`rule[2].listen[0]`, counted from 0), or empty where the
    text has no keys yet. `others` are places that `what` speaks of as well. Problems sort by place.
    """

    place: Place
    key: str
    what: str
    hint: str | None = None
    others: tuple[Place, ...] = ()

    def __lt__(self, other: "Problem") -> bool:
        return (self.place, self.key, self.what) < (other.place, other.key, other.what)

    def __str__(self) -> str:
        """Give the one line `file:line:column: key: what (file:line)`, fit for a terminal or a log."""
        key = f"{self.key}: " if self.key else ""
        return printable(f"{self.place}: {key}{self.what_and_where}")

    @property
    def what_and_where(self) -> str:
        """Give `what` with its other places behind it, raw."""
        if not self.others:
            return self.what
        return f"{self.what} ({', '.join(f'{place.file}:{place.line}' for place in self.others)})"


def printable(text: str, keep: str = "") -> str:
    r"""Escape every character that is not shown as itself: controls, line ends, bidirectional marks.

    A hostile file (or file name) must not steer the operator's terminal: ESC becomes `\x1b`. Backslashes
    stay, so that text which is printable already comes back as it is. Characters in `keep` are let through.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def quoted(text: str, limit: int = 60) -> str:
    """Give `text` in double quotes for a message: escaped, and cut to about `limit` characters."""
    kept = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return '"' + printable(kept.replace("\\", "\\\\").replace('"', '\\"')) + '"'
