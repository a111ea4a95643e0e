"""What an installation says: a line for each item, and the recap."""

from dataclasses import dataclass, field
from enum import StrEnum

import click
import msgspec

from appliance.problem import printable


class Status(StrEnum):
    """How an item came out."""

    OK = "ok"
    CHANGED = "changed"
    FAILED = "failed"


class Line(msgspec.Struct, frozen=True):
    """One item."""

    item: str
    status: Status
    what: str = ""
    diff: str = ""


@dataclass(slots=True)
class Recap:
    """The items so far. Lines appear as they are added; JSON, where that is wanted, at the end."""

    wants_json: bool
    is_dry: bool
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, item: object, status: Status, what: str = "", diff: str = "") -> None:
        """Say how an item came out; the difference is shown only where nothing is done about it yet."""
        line = Line(str(item), status, what, diff if self.is_dry else "")
        self.lines.append(line)
        if not self.wants_json:
            click.echo(printable(f"{status:8} {item}{f': {what}' if what else ''}"))
            if line.diff:
                click.echo("\n".join(f"         {printable(each)}" for each in line.diff.splitlines()))

    def note(self, text: str) -> None:
        """Say something that is about no item."""
        self.notes.append(text)
        if not self.wants_json:
            click.echo(printable(f"note     {text}"))

    def count(self, status: Status) -> int:
        """Count the items that came out so."""
        return sum(line.status is status for line in self.lines)

    def close(self) -> int:
        """Print the recap; give the exit status."""
        counts = {status.value: self.count(status) for status in Status}
        if self.wants_json:
            whole = {"dry_run": self.is_dry, "items": self.lines, "notes": self.notes, **counts}
            click.echo(msgspec.json.format(msgspec.json.encode(whole)))
        else:
            would = " (dry run: nothing was changed)" if self.is_dry else ""
            click.echo(" ".join(f"{name}={count}" for name, count in counts.items()) + would)
        return 1 if counts["failed"] else 0
