"""What an agent joins with: both spellings, what is wrong in them, and the file's renewal."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from appliance.problem import Problem
from appliance.tunnel import join_file
from appliance.tunnel.authority import open_authority
from appliance.tunnel.join import LARGEST, PREFIX, Join, file_of, line_of, read_join
from appliance.tunnel.join_file import load_join, save, store
from appliance.tunnel.state import State


@pytest.fixture(scope="module")
def join(tmp_path_factory: pytest.TempPathFactory) -> Join:
    authority = open_authority(State(f"{tmp_path_factory.mktemp('ca')}/state"))
    issued = authority.enrol("office", 1e9)
    return Join(
        name="office",
        gateways=("203.0.113.5:7443", "[2001:db8::1]:7443", "gw.example:443"),
        ca=authority.certificate,
        certificate=issued.certificate,
        key=issued.key,
        expires=issued.record.expires,
        allow_to=("192.168.1.0/24:22", "unix:/run/app.sock"),
        proxy="http://me:s%40crét@proxy.internal:3128",
    )


def problem(text: str | bytes) -> Problem:
    found = read_join(text if isinstance(text, bytes) else text.encode(), "office.join")
    assert isinstance(found, Problem)
    return found


def test_both_spellings_read_back(join: Join) -> None:
    """The file and the line say the same, with all that may be left out and without."""
    for one in (join, replace(join, allow_to=None, proxy=None)):
        assert read_join(file_of(one).encode(), "f") == one
        assert read_join(line_of(one).encode(), "f") == one


def test_a_line_is_short_and_plain(join: Join) -> None:
    """It is pasted into terminals, which take 4095 characters, and quoted in shells."""
    line = line_of(join)
    assert line.startswith(PREFIX)
    assert len(line) < 2000
    assert all(char.isascii() and (char.isalnum() or char in "-_.") for char in line)


def test_a_line_that_was_wrapped(join: Join) -> None:
    """Mail and terminals break lines and put spaces at their ends; that does no harm."""
    line = line_of(join)
    wrapped = "\r\n  ".join(line[at : at + 70] for at in range(0, len(line), 70))
    assert read_join(f"\n {wrapped} \n".encode(), "f") == join


def test_a_line_that_was_cut_or_changed(join: Join) -> None:
    """It is told as damaged, and not as whatever its bytes then are."""
    line = line_of(join)
    for damaged in (
        line[:-1],
        line[:100],
        PREFIX,
        line + "A",
        line.replace("A", "B", 1),
        line + "é",
    ):
        assert problem(damaged).what == "the line is not as it was made"


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ('name = "office"', "", "office.join:1:1: name: is missing"),
        ('name = "office"', "name = 5", "office.join:3:8: name: expected `str`, got `int`"),
        ('name = "office"', 'name = "../x"', "office.join:3:8: name: expected `str` matching regex"),
        ('name = "office"', 'nam = "x"\nname = "office"', "office.join:3:1: nam: is no known key"),
        ("203.0.113.5:7443", "203.0.113.5", 'gateways[0]: "203.0.113.5" has no port'),
        ("203.0.113.5:7443", "203.0.113.5:1-2", 'gateways[0]: "203.0.113.5:1-2" is not one port of a host'),
        ('["192.168.1.0/24', '["192.168.1.0/33', "allow_to[0]:"),
        ('proxy = "http', 'proxy = "ftp', "is no proxy that is known here"),
        ("BEGIN PRIVATE", "BEGIN RSA PRIVATE", "key: it is not one block of PEM: PRIVATE KEY"),
        ("BEGIN CERTIFICATE", "BEGIN CERTIFICATES", "certificate: it is not one block of PEM: CERTIFICATE"),
        ('ca = """', 'ca = """x', "ca: it is not one block of PEM: CERTIFICATE"),
        ("Z\ncert", "\ncert", "expires: expected `datetime` with a timezone component"),
        ("[", "", "not valid TOML"),
    ],
)
def test_what_is_wrong_in_a_file(join: Join, was: str, now: str, said: str) -> None:
    """It is told with its place, as in a ruleset."""
    text = file_of(join)
    assert was in text
    assert said in str(problem(text.replace(was, now, 1)))


def test_a_file_of_something_else() -> None:
    """What is too large is not parsed; what is no text is told."""
    assert problem(b"#" * (LARGEST + 1)).what == "is larger than 64 KiB"
    assert "not UTF-8" in problem(b"\xff").what
    assert problem(b"").what == "is missing"


@given(st.binary(max_size=300))
def test_any_bytes(text: bytes) -> None:
    """Reading never raises."""
    assert isinstance(read_join(text, "f"), Problem)
    assert isinstance(read_join(PREFIX.encode() + text, "f"), Problem)


def test_saving(join: Join, tmp_path: Path) -> None:
    """The file is for its user alone, whatever the umask; nothing is overwritten unless it is to be."""
    path = tmp_path / "office.join"
    before = os.umask(0)
    try:
        save(str(path), join)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        with pytest.raises(FileExistsError):
            save(str(path), replace(join, name="lab"))
        assert load_join(str(path)) == join
        save(str(path), replace(join, name="lab"), force=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_join(str(path)) == replace(join, name="lab")
    assert list(tmp_path.iterdir()) == [path]


def test_renewing_keeps_what_the_operator_wrote(join: Join, tmp_path: Path) -> None:
    """Comments, and what was changed since the agent started, stay; so do mode and link."""
    path, link = tmp_path / "office.join", tmp_path / "link"
    save(str(path), join)
    text = path.read_text().replace("gw.example", "other.example") + "# mine\n"
    path.write_text(text)
    path.chmod(0o640)
    link.symlink_to(path)
    store(str(link), join.ca, join.key, 2e9)
    assert "# mine" in path.read_text()
    found = load_join(str(path))
    assert isinstance(found, Join)
    assert (found.certificate, found.expires, found.gateways[2]) == (join.ca, 2e9, "other.example:443")
    assert (link.is_symlink(), stat.S_IMODE(path.stat().st_mode)) == (True, 0o640)
    assert sorted(tmp_path.iterdir()) == [link, path]


def test_renewing_a_line_in_a_file(join: Join, tmp_path: Path) -> None:
    """A line that was saved stays a line."""
    path = tmp_path / "office.join"
    path.write_text(line_of(join) + "\n")
    store(str(path), join.ca, join.key, 2e9)
    assert path.read_text().startswith(PREFIX)
    assert load_join(str(path)) == replace(join, certificate=join.ca, expires=2e9)


def test_renewing_where_nothing_can_take_its_place(
    join: Join, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is mounted into a container is written where it is."""
    path = tmp_path / "office.join"
    save(str(path), join)

    def busy(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(join_file, "_put", busy)
    store(str(path), join.ca, join.key, 2e9)
    assert load_join(str(path)) == replace(join, certificate=join.ca, expires=2e9)


def test_renewing_what_is_no_join_file(tmp_path: Path) -> None:
    """It is an error that says so, and the file stays as it is."""
    path = tmp_path / "office.join"
    path.write_text("x = 1\n")
    with pytest.raises(OSError, match="is no join file any more"):
        store(str(path), "", "", 0.0)
    assert path.read_text() == "x = 1\n"
