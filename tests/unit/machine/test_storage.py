"""What is kept from one start to the next: the row of crashes."""

import time
from pathlib import Path

import pytest

from appliance.machine.config import LAST_GOOD, Text
from appliance.machine.rules import QUICKSTART, Candidate
from appliance.machine.storage import Storage
from appliance.ruleset import Ruleset, read
from tests.unit.machine.test_upgrade import Folder


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A machine that started five seconds ago, with a PORTWAY partition."""
    monkeypatch.setattr(time, "clock_gettime", lambda _clock: 5.0)
    made = Storage([])
    made.disk = Folder("/dev/vda1", tmp_path)
    return made


def test_crashes_in_a_row(storage: Storage, tmp_path: Path) -> None:
    """The pause grows while nothing ends the row; a gateway that was ready for ten seconds does not."""
    data = QUICKSTART.encode()
    ruleset = read(data, "rules.toml")
    assert isinstance(ruleset, Ruleset)
    assert [storage.keep_reason("a", ()), storage.keep_reason("b", ())] == [1.0, 2.0]
    storage.keep(Candidate(ruleset, Text("rules.toml", data), is_own=True))
    assert (tmp_path / LAST_GOOD).read_bytes() == data
    assert storage.keep_reason("c", ()) == 4.0


def test_the_row_ends(storage: Storage) -> None:
    """A crash after the row's end is the first one again, and the next start does not tell of the old one."""
    storage.keep_reason("a", ())
    storage.keep_reason("b", ())
    assert storage.restarted_after() is not None
    storage.forget_restart()
    assert storage.restarted_after() is None
    assert storage.keep_reason("c", ()) == 1.0
