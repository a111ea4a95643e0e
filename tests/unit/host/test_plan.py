"""From what there is to what is wanted."""

from pathlib import Path

import pytest

from appliance.host.items import Absent, Account, Directory, File, Item, Link, NoAccount, Program
from appliance.host.plan import Found, Kind, change, plan

FILE = File(Path("/etc/x"), "one\ntwo\n", 0o640, "root", "portway")
STARTER = File(Path("/etc/x"), "one\n", 0o640, "root", "portway", is_starter=True)
MINE = "owner me:portway to root:portway"
FOLDER = Directory(Path("/etc/d"), 0o750, "root", "portway")
LINK = Link(Path("/usr/local/bin/x"), "/opt/x")
PROGRAM = Program(Path("/opt/portway/1-abc"), "abc")

AS_WANTED: list[tuple[Item, Found]] = [
    (Account(), Found(Kind.ACCOUNT)),
    (NoAccount(), Found()),
    (Absent(Path("/x")), Found()),
    (FOLDER, Found(Kind.DIRECTORY, 0o750, "root", "portway")),
    (FILE, Found(Kind.FILE, 0o640, "root", "portway", FILE.text)),
    (STARTER, Found(Kind.FILE, 0o640, "root", "portway", "what the operator wrote\n")),
    (LINK, Found(Kind.LINK, 0o777, "root", "root", target="/opt/x")),
    (PROGRAM, Found(Kind.DIRECTORY, 0o755, "root", "root", digest="abc")),
]


def test_what_is_as_wanted_is_left_alone() -> None:
    """A second run finds nothing to do, of any kind of item; an operator's ruleset is as wanted."""
    changes = plan(tuple(item for item, _ in AS_WANTED), dict(AS_WANTED))
    assert [change.item for change in changes] == [item for item, _ in AS_WANTED]
    assert [change for change in changes if change.what or change.obstacle or change.diff] == []


@pytest.mark.parametrize(
    ("item", "found", "what"),
    [
        (Account(), Found(), "create"),
        (NoAccount(), Found(Kind.ACCOUNT), "remove"),
        (Absent(Path("/x")), Found(Kind.OTHER), "remove"),
        (FOLDER, Found(), "create"),
        (FOLDER, Found(Kind.DIRECTORY, 0o755, "root", "portway"), "mode 0755 to 0750"),
        (FOLDER, Found(Kind.DIRECTORY, 0o750, "root", "0"), "owner root:0 to root:portway"),
        (FILE, Found(), "create"),
        (FILE, Found(Kind.FILE, 0o640, "root", "portway", "one\n"), "replace"),
        (FILE, Found(Kind.FILE, 0o644, "me", "portway", FILE.text), f"mode 0644 to 0640, {MINE}"),
        (STARTER, Found(Kind.FILE, 0o600, "root", "portway", "x"), "mode 0600 to 0640"),
        (LINK, Found(), "link to /opt/x"),
        (LINK, Found(Kind.LINK, target="/opt/y"), "link to /opt/x"),
        (LINK, Found(Kind.FILE, is_single_file=True), "replace by a link to /opt/x"),
        (PROGRAM, Found(), "copy"),
        (PROGRAM, Found(Kind.DIRECTORY, digest="abd"), "copy anew, it was damaged"),
    ],
)  # fmt: skip
def test_what_is_to_be_done(item: Item, found: Found, what: str) -> None:
    """What is missing is made, what differs is changed, and the words say which."""
    made = change(item, found)
    assert (made.what, made.obstacle, made.before) == (what, "", found)


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (FOLDER, Kind.FILE),
        (FILE, Kind.DIRECTORY),
        (FILE, Kind.LINK),
        (LINK, Kind.FILE),
        (PROGRAM, Kind.OTHER),
    ],
)
def test_what_is_in_the_way(item: Item, kind: Kind) -> None:
    """What is of another kind is not replaced: somebody else made it."""
    made = change(item, Found(kind))
    assert made.obstacle
    assert not made.what


@pytest.mark.parametrize("text", ["[Service]\n", ""])
def test_another_ones_unit_is_not_replaced(text: str) -> None:
    """A unit that an operator wrote by hand starts another ruleset: it stays, and its service."""
    item = File(Path("/etc/x"), "# Made by us, newer\n", mark="# Made by us")
    made = change(item, Found(Kind.FILE, text=text))
    assert made.obstacle
    assert not made.what
    assert change(item, Found(Kind.FILE, text="# Made by us\n")).what == "replace"


def test_a_difference_is_shown() -> None:
    """A text that changes comes with its difference, as diff -u shows it."""
    made = change(FILE, Found(Kind.FILE, 0o640, "root", "portway", "one\nthree\n"))
    assert made.diff.splitlines() == ["--- /etc/x", "+++ /etc/x", "@@ -1,2 +1,2 @@", " one", "-three", "+two"]
    assert change(FILE, Found()).diff.splitlines()[:2] == ["--- /dev/null", "+++ /etc/x"]
