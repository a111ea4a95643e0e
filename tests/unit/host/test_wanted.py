"""Which items make an installation, and which its absence."""

from pathlib import Path

import pytest

from appliance.host.items import Absent, Account, Directory, File, Link, NoAccount
from appliance.host.layout import CONFIGURATION, CURRENT, ENABLED, PREVIOUS, PROGRAMS, STATE, UNIT
from appliance.host.wanted import Kept, Programs, Release, absence, installation, outdated

A, B, C = (f"1.{number}-{'0' * 12}" for number in range(3))
NEW = Release("1.1", "0" * 64)


def test_the_folder_is_named_by_version_and_digest() -> None:
    """Two builds of a version are two folders; without a folder form at hand the digest is not known."""
    assert NEW.name == B
    assert Release("1.1", None).name == "1.1-DIGEST"


@pytest.mark.parametrize(
    ("there", "before", "gone"),
    [
        (Programs(), None, []),
        (Programs(frozenset({A}), A), A, []),
        (Programs(frozenset({A, B}), B, A), A, []),
        (Programs(frozenset({A, B, C}), C, A), C, [A]),
        (Programs(frozenset({A, B}), A, B), A, []),
        (Programs(frozenset({A, B}), A, A), A, []),
        (Programs(frozenset({C, ".new-x"}), A, C), C, [".new-x"]),
    ],
)
def test_the_one_before_is_kept(there: Programs, before: str | None, gone: list[str]) -> None:
    """Next to what is installed stays what was current before, or the one before that on a second run."""
    items = installation(NEW, there, has_accounts=True)
    assert Link(CURRENT, B) in items
    assert (Link(PREVIOUS, before) if before else Absent(PREVIOUS)) in items
    assert list(outdated(NEW, there, None)) == [Absent(PROGRAMS / name) for name in gone]


def test_what_is_running_stays() -> None:
    """After two upgrades without a restart the service runs on a folder that no link names."""
    there = Programs(frozenset({A, B, C}), C, A)
    assert outdated(NEW, there, A) == ()


def test_an_image_without_accounts() -> None:
    """There is no user to give anything to: all is root's, and no account is made."""
    items = installation(NEW, Programs(), has_accounts=False)
    assert Account() not in items
    owners = {(item.owner, item.group) for item in items if isinstance(item, Directory | File)}
    assert owners == {("root", "root")}


def test_current_is_switched_when_all_is_there() -> None:
    """The link that a running service's next start follows comes after what it needs."""
    items = installation(NEW, Programs(), has_accounts=True)
    assert [type(item) for item in items[-2:]] == [Link, Link]
    assert items[-2] == Link(CURRENT, B)


def test_the_account_stays_with_what_is_its_own() -> None:
    """As long as its files are there, nobody else may get its number."""
    for kept in (Kept(rules=True), Kept(state=True)):
        assert NoAccount() not in absence(Programs(), kept)
    assert NoAccount() in absence(Programs(), Kept())


def test_what_is_kept_is_not_removed() -> None:
    """Each thing that is kept is left out, and nothing else is."""
    whole = absence(Programs(frozenset({A})), Kept())
    assert Absent(PROGRAMS / A) in whole
    command = Absent(Path("/usr/local/bin/portway"))
    assert set(whole) - set(absence(Programs(frozenset({A})), Kept(unit=True))) == {
        Absent(ENABLED),
        Absent(UNIT),
    }
    for kept, path in (
        (Kept(rules=True), Absent(CONFIGURATION)),
        (Kept(state=True), Absent(STATE)),
        (Kept(command=True), command),
        (Kept(programs=True), Absent(PROGRAMS)),
    ):
        missing = set(whole) - set(absence(Programs(frozenset({A})), kept))
        assert missing - {NoAccount()} == {path}
