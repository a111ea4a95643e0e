"""The state directory: what is kept, for whom, and what happens when two do something at the same time."""

import os
import threading
from pathlib import Path

import pytest

from appliance.tunnel.authority import open_authority
from appliance.tunnel.state import Record, Seen, State
from tests.e2e import needs

ONE, TWO = "1" * 32, "2" * 32


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(f"{tmp_path}/state")
    with state.locked():
        return state


def record(serial: str = ONE, name: str = "office", replaces: str = "") -> Record:
    return Record(name=name, serial=serial, issued=1.0, expires=2.0, replaces=replaces)


def modes(state: State) -> dict[str, str]:
    top = Path(state.path)
    return {str(path.relative_to(top)): oct(path.stat().st_mode & 0o7777) for path in (top, *top.rglob("*"))}


def test_what_is_kept(state: State) -> None:
    """Every certificate by name and age, with what became of it."""
    state.record(record(TWO, "office", replaces=ONE))
    state.record(record(ONE))
    state.record(record("3" * 32, "lab"))
    state.mark_revoked(ONE)
    state.note_seen(TWO, 5.5, "203.0.113.9:4000", "0.1.0")
    found = state.enrolled()
    assert [(one.name, one.serial[0], one.revoked) for one in found] == [
        ("lab", "3", False),
        ("office", "1", True),
        ("office", "2", False),
    ]
    assert found[2].seen == Seen(at=5.5, peer="203.0.113.9:4000", version="0.1.0")
    assert found[2].replaces == ONE


def test_modes(state: State) -> None:
    """The directories are for their owner alone, the key above all; the umask has no say."""
    before = os.umask(0)
    try:
        open_authority(state).enrol("office", 0.0)
        state.note_seen(ONE, 0.0, "", "")
        state.mark_revoked(ONE)
    finally:
        os.umask(before)
    found = modes(state)
    serial = next(name for name in found if name.startswith("agents/"))
    assert found == {
        ".": "0o700",
        "ca.key": "0o600",
        "ca.pem": "0o644",
        "agents": "0o700",
        serial: "0o644",
        "revoked": "0o700",
        f"revoked/{ONE}": "0o644",
        "seen": "0o700",
        f"seen/{ONE}.json": "0o644",
    }


def test_nothing_is_there_yet(tmp_path: Path) -> None:
    """A directory that nobody made holds no agents, and nothing is revoked."""
    state = State(f"{tmp_path}/none")
    assert state.enrolled() == []
    assert not state.is_revoked(ONE)
    assert state.revoke(name="office") == []


def test_what_cannot_be_looked_up_is_revoked(tmp_path: Path) -> None:
    """A gateway lets nobody in on the strength of an error."""
    (tmp_path / "state").write_text("a file")
    assert State(f"{tmp_path}/state").is_revoked(ONE)


def test_revoking_by_name_and_serial(state: State) -> None:
    """All of a name, or the one that is meant; again, it changes nothing."""
    for serial, name in ((ONE, "office"), (TWO, "office"), ("3" * 32, "lab")):
        state.record(record(serial, name))
    assert [one.serial for one in state.revoke(name="office", serial="2")] == [TWO]
    assert [one.serial for one in state.revoke(name="office")] == [ONE]
    assert state.revoke(name="office") == []
    assert not state.is_revoked("3" * 32)


def test_a_certificate_made_meanwhile_is_revoked_too(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose record appears while its name is being revoked is found by the second look."""
    state.record(record(ONE))
    mark = State.mark_revoked

    def slowly(self: State, serial: str) -> None:
        if serial == ONE:
            self.record(record(TWO, replaces=ONE))
        mark(self, serial)

    monkeypatch.setattr(State, "mark_revoked", slowly)
    assert [one.serial for one in state.revoke(name="office")] == [ONE, TWO]


def test_a_serial_is_no_path(state: State) -> None:
    """What would write elsewhere is refused."""
    with pytest.raises(ValueError, match="ca"):
        state.mark_revoked("../ca.key")


def test_what_is_not_a_record_is_passed_over(state: State) -> None:
    """A file that was being written when the power went, and an editor's copy, are no certificates."""
    state.record(record(ONE))
    agents = Path(state.path, "agents")
    (agents / f".{TWO}.json.0123").write_text("{")
    (agents / "copy.json").write_text("{")
    assert [one.serial for one in state.enrolled()] == [ONE]


def test_a_damaged_record_is_named(state: State) -> None:
    """What Portway did not write is an error with the file's name."""
    state.record(record(ONE))
    Path(state.path, "agents", f"{ONE}.json").write_text("{}")
    with pytest.raises(OSError, match="is not as Portway writes it") as raised:
        state.enrolled()
    assert raised.value.filename == f"{state.path}/agents/{ONE}.json"


def test_no_link_is_followed(state: State, tmp_path: Path) -> None:
    """Root, who writes in another's directory, is not led out of it."""
    (tmp_path / "elsewhere").mkdir()
    Path(state.path, "revoked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="revoked"):
        state.mark_revoked(ONE)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_nothing_is_left_when_it_cannot_be_written(state: State) -> None:
    """A write that fails leaves neither the file nor a part of it, and says which it was."""
    Path(state.path, "agents").mkdir()
    Path(state.path, "agents", f"{ONE}.json").mkdir()
    with pytest.raises(OSError, match=ONE) as raised:
        state.record(record(ONE))
    assert raised.value.filename == f"{state.path}/agents/{ONE}.json"
    assert [path.name for path in Path(state.path, "agents").iterdir()] == [f"{ONE}.json"]


def test_root_gives_what_it_makes_to_the_owner(tmp_path: Path) -> None:
    """A gateway that is not root reads and writes what root's verbs have made."""
    needs.root()
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    os.chown(path, 65532, 65533)
    state = State(str(path))
    open_authority(state).enrol("office", 0.0)
    state.note_seen(ONE, 0.0, "", "")
    state.mark_revoked(ONE)
    owners = {(found.stat().st_uid, found.stat().st_gid) for found in (path, *path.rglob("*"))}
    assert owners == {(65532, 65533)}


def test_one_ca_whoever_is_first(tmp_path: Path) -> None:
    """Of many who find no CA one makes it, and all have the same."""
    found: list[str] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait(10)
        found.append(open_authority(State(f"{tmp_path}/state")).certificate)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
