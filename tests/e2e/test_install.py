"""`portway install` and `uninstall`, below a root directory of their own, from a stand-in of a folder form.

Under a systemd that runs, and with the real program: tests/forms/test_install.py.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import needs

REPOSITORY = Path(__file__).parents[2]
RULES = "etc/portway/rules.toml"
OWN_RULES = '[[rule]]\nname = "mine"\nlisten = ":8080"\nto = "10.0.0.5:80"\n'
RECAP = re.compile(r"^ok=(\d+) changed=(\d+) failed=(\d+)", re.MULTILINE)
LIMIT = "2.0"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The root directory of an image that has nothing but a root user."""
    needs.root()
    needs.program("useradd")
    made = tmp_path / "image"
    for folder in ("etc/systemd/system/multi-user.target.wants", "usr/local/bin", "opt", "var/lib", "root"):
        (made / folder).mkdir(parents=True)
    (made / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (made / "etc/group").write_text("root:x:0:\n")
    return made


def folder_form(place: Path, build: str = "one") -> Path:
    """Make a stand-in of a folder form: its launcher starts the package from source."""
    made = place / f"form-{build}"
    (made / "app/_internal").mkdir(parents=True)
    (made / "lib").mkdir()
    (made / "lib/loader").write_text(build)
    (made / "app/portway").write_text("the program")
    (made / "portway").write_text(f'#!/bin/sh\nexec {sys.executable} -m appliance "$@"\n')
    (made / "portway").chmod(0o755)
    return made


def portway(*arguments: str | Path, wrap: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """Run the command."""
    command = [*wrap, sys.executable, "-m", "appliance", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def counts(done: "subprocess.CompletedProcess[str]") -> tuple[int, ...]:
    """Give ok, changed and failed of a recap."""
    found = RECAP.search(done.stdout)
    assert found, done.stdout + done.stderr
    return tuple(map(int, found.groups()))


def install(image: Path, form: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """Install a folder form into an image, which must succeed."""
    done = portway("install", "--root", image, "--from", form, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def everything(image: Path) -> dict[str, tuple[object, ...]]:
    """What there is in an image: of each path the mode, the owner, and the content or target."""
    found: dict[str, tuple[object, ...]] = {}
    for path in image.rglob("*"):
        status = path.lstat()
        if path.name.endswith("-"):  # the copies that useradd and userdel leave
            continue
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(image))] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


def current(image: Path) -> str:
    """The name of the program that an image has."""
    return str((image / "opt/portway/current").readlink())


def test_install(image: Path, tmp_path: Path) -> None:
    """Everything is there, with the modes and owners it is to have; a second run changes nothing."""
    done = install(image, folder_form(tmp_path))
    assert counts(done) == (1, 10, 0)
    found = everything(image)
    passwd = (image / "etc/passwd").read_text().splitlines()[-1].split(":")
    assert passwd[0] == "portway"
    assert passwd[5:] == ["/nonexistent", "/bin/false"]
    user, group = int(passwd[2]), int(passwd[3])
    assert [found["etc/portway"][:3], found[RULES][:3], found["var/lib/portway"][:3]] == [
        (0o040750, 0, group),
        (0o100640, 0, group),
        (0o040700, user, group),
    ]
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*-[0-9a-f]{12}", current(image))
    assert (image / "opt/portway/current/lib/loader").read_text() == "one"
    assert str((image / "usr/local/bin/portway").readlink()) == "/opt/portway/current/portway"
    assert (image / "etc/systemd/system/multi-user.target.wants/portway.service").is_symlink()
    assert portway("check", image / RULES).returncode == 0

    again = install(image, folder_form(tmp_path / "elsewhere"))
    assert counts(again) == (11, 0, 0)
    assert everything(image) == found


def test_uninstall(image: Path, tmp_path: Path) -> None:
    """Nothing is left of an installation; a second run changes nothing."""
    before = everything(image)
    install(image, folder_form(tmp_path))
    assert counts(portway("uninstall", "--root", image))[1:] == (9, 0)
    after = everything(image)
    for file in ("etc/passwd", "etc/group"):
        assert (after[file][3], after.pop(file)[3]) == (before[file][3], before.pop(file)[3])
    wants = (
        "etc/systemd/system/multi-user.target.wants"  # systemctl disable removes it, too, when it is empty
    )
    assert {**after, wants: before[wants]} == before
    done = portway("uninstall", "--root", image)
    assert (done.returncode, counts(done)[1:]) == (0, (0, 0))


def test_a_dry_run(image: Path, tmp_path: Path) -> None:
    """It says what would be done, with the unit's text, and does nothing; also what uninstall would do."""
    before = everything(image)
    done = install(image, folder_form(tmp_path), "--dry-run")
    assert counts(done) == (1, 10, 0)
    assert "+ExecStart=/opt/portway/current/portway run" in done.stdout
    assert everything(image) == before
    install(image, tmp_path / "form-one")
    before = everything(image)
    assert counts(portway("uninstall", "--root", image, "--dry-run"))[1:] == (9, 0)
    assert everything(image) == before


def test_from_source(image: Path) -> None:
    """What runs from source has nothing to install, and says so; it can still say what would be done."""
    done = portway("install", "--root", image)
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs a frozen form" in done.stderr
    assert counts(portway("install", "--root", image, "--dry-run")) == (1, 10, 0)


def test_json(image: Path, tmp_path: Path) -> None:
    """The recap for a program: each item with its status, and the counts."""
    said = json.loads(install(image, folder_form(tmp_path), "--json").stdout)
    assert (said["ok"], said["changed"], said["failed"], said["dry_run"]) == (1, 10, 0, False)
    assert said["items"][0] == {"item": "user portway", "status": "changed", "what": "create", "diff": ""}
    said = json.loads(portway("uninstall", "--root", image, "--json", "--dry-run").stdout)
    assert (said["changed"], said["dry_run"]) == (9, True)


def test_an_upgrade(image: Path, tmp_path: Path) -> None:
    """The new folder becomes the current one, the one before is kept for the way back, older ones go."""
    names = []
    for build in ("one", "two", "three"):
        install(image, folder_form(tmp_path, build))
        names.append(current(image))
    assert len(set(names)) == 3
    there = {path.name for path in (image / "opt/portway").iterdir()}
    assert there == {names[1], names[2], "current", "previous"}
    assert str((image / "opt/portway/previous").readlink()) == names[1]
    assert counts(install(image, tmp_path / "form-three"))[1:] == (0, 0)
    install(image, tmp_path / "form-two")  # the way back
    assert (current(image), str((image / "opt/portway/previous").readlink())) == (names[1], names[2])


def test_a_damaged_program_is_copied_anew(image: Path, tmp_path: Path) -> None:
    """A file that differs from what was installed is noticed and set right."""
    install(image, folder_form(tmp_path))
    (image / "opt/portway/current/lib/loader").write_text("0ne")
    assert counts(install(image, tmp_path / "form-one"))[1:] == (1, 0)
    assert (image / "opt/portway/current/lib/loader").read_text() == "one"


def test_a_ruleset_that_the_new_version_does_not_take(image: Path, tmp_path: Path) -> None:
    """The upgrade is refused before anything is changed, with every problem; status 2."""
    install(image, folder_form(tmp_path))
    (image / RULES).write_text('[[rule]]\nname = "web"\nlisten = "80"\nto = "10.0.0.5"\n')
    before = everything(image)
    for more in ((), ("--dry-run",)):
        done = portway(
            "install", "--root", image, "--from", folder_form(tmp_path / "x" / str(len(more)), "two"), *more
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{image / RULES}:3:10: rule[0].listen" in done.stderr
        assert "nothing was changed" in done.stderr
    assert everything(image) == before


def test_the_ruleset_is_the_operators(image: Path, tmp_path: Path) -> None:
    """It is never overwritten; uninstall leaves it, and whose it is, unless it is told to purge."""
    install(image, folder_form(tmp_path))
    (image / RULES).write_text(OWN_RULES)
    (image / "var/lib/portway/ca.pem").touch()
    install(image, folder_form(tmp_path, "two"))
    assert (image / RULES).read_text() == OWN_RULES
    done = portway("uninstall", "--root", image)
    assert "note     /etc/portway is kept; --purge takes it along" in done.stdout
    assert (image / RULES).read_text() == OWN_RULES
    assert (image / "var/lib/portway/ca.pem").exists()
    assert "portway" in (image / "etc/passwd").read_text()
    assert not (image / "opt/portway").exists()
    assert counts(portway("uninstall", "--root", image))[1:] == (0, 0)
    assert counts(portway("uninstall", "--root", image, "--purge"))[1:] == (3, 0)
    assert [path for path in everything(image) if "portway" in path] == []


def test_what_others_made_stays(image: Path, tmp_path: Path) -> None:
    """A file of somebody else's in /opt/portway or /etc/portway is no part of the installation."""
    install(image, folder_form(tmp_path))
    for file in ("opt/portway/notes", "etc/portway/cert.pem"):
        (image / file).write_text("mine")
    install(image, folder_form(tmp_path, "two"))
    portway("uninstall", "--root", image)
    assert sorted(path for path in everything(image) if "portway/" in path) == [
        "etc/portway/cert.pem", RULES, "opt/portway/notes",
    ]  # fmt: skip


def test_a_unit_that_somebody_else_made(image: Path, tmp_path: Path) -> None:
    """A service written by hand runs another ruleset: it is neither replaced nor taken away."""
    unit = image / "etc/systemd/system/portway.service"
    unit.parent.mkdir(parents=True, exist_ok=True)
    unit.write_text(mine := "[Service]\nExecStart=/usr/local/bin/portway run /etc/edge.toml\n")
    before = everything(image)
    done = portway("install", "--root", image, "--from", folder_form(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "portway.service was not made by `portway install`" in done.stderr
    assert everything(image) == before
    done = portway("uninstall", "--root", image)
    assert done.returncode == 0
    assert "portway.service is kept" in done.stdout
    assert unit.read_text() == mine


@pytest.mark.parametrize("file", ["usr/local/bin/portway", "opt/portway", "etc/portway"])
def test_something_in_the_way(image: Path, tmp_path: Path, file: str) -> None:
    """Another program's file is not replaced: the installation is refused before anything is changed."""
    (image / file).write_text("not ours")
    before = everything(image)
    done = portway("install", "--root", image, "--from", folder_form(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"/{file} is no" in done.stderr
    assert everything(image) == before
    assert portway("uninstall", "--root", image).returncode == 0
    assert (image / file).read_text() == "not ours"


def test_the_single_file_makes_way(image: Path, tmp_path: Path) -> None:
    """Portway in one file, dropped at /usr/local/bin/portway and run from there, is replaced by the link."""
    (image / "usr/local/bin/portway").write_bytes(b"\x7fELF" + bytes(100) + b"PORTWAY1")
    install(image, folder_form(tmp_path))
    assert (image / "usr/local/bin/portway").is_symlink()


def test_a_step_that_fails(image: Path, tmp_path: Path) -> None:
    """The line says what failed, the recap counts it, the status is 1; what was installed before still is."""
    install(image, folder_form(tmp_path))
    before = current(image)
    unit = image / "etc/systemd/system/portway.service"
    unit.unlink()
    (unit.parent / ".new-portway.service").mkdir()  # where the new text would go
    done = portway("install", "--root", image, "--from", folder_form(tmp_path, "two"))
    assert (done.returncode, counts(done)[2]) == (1, 1)
    assert "failed   /etc/systemd/system/portway.service: create: " in done.stdout
    assert "Traceback" not in done.stderr
    assert current(image) == before
    assert (image / "opt/portway/current/lib/loader").read_text() == "one"
    (unit.parent / ".new-portway.service").rmdir()
    install(image, tmp_path / "form-two")
    assert (image / "opt/portway/current/lib/loader").read_text() == "two"


@pytest.mark.parametrize("step", range(1, 7))
def test_a_kill_in_the_middle(image: Path, tmp_path: Path, step: int) -> None:
    """Killed whenever a name is about to change, what was there works, and a rerun converges."""
    strace = needs.program("strace")
    install(image, folder_form(tmp_path))
    (image / "usr/local/bin/portway").unlink()
    (image / "etc/systemd/system/portway.service").write_text("# Made by `portway install`, an earlier one\n")
    before = current(image)
    form = folder_form(tmp_path, "two")
    kill = (
        strace,
        "--quiet=all",
        "-o",
        os.devnull,
        "-e",
        "trace=rename",
        "-e",
        f"inject=rename:signal=KILL:when={step}",
    )
    done = portway("install", "--root", image, "--from", form, wrap=kill)
    if step < 6:  # copy, command, unit, previous, current
        assert done.returncode != 0, done.stdout
        assert (image / f"opt/portway/{before}/lib/loader").read_text() == "one"
        assert (image / "opt/portway/current/lib/loader").read_text() in {"one", "two"}
    install(image, form)
    assert (image / "opt/portway/current/lib/loader").read_text() == "two"
    assert str((image / "opt/portway/previous").readlink()) == before
    assert [path for path in everything(image) if ".new-" in path] == []
    assert counts(install(image, form))[1:] == (0, 0)


def test_two_at_a_time(image: Path, tmp_path: Path) -> None:
    """The second one is refused."""
    flock = needs.program("flock")
    done = portway("install", "--root", image, "--from", folder_form(tmp_path), wrap=(flock, str(image)))
    assert done.returncode == 1
    assert "another installation is at work" in done.stderr


def test_not_root(image: Path, tmp_path: Path) -> None:
    """Others are told; they may look what would be done."""
    code = (
        "import os; os.geteuid = lambda: 1000\nfrom appliance.__main__ import main; main(prog_name='portway')"
    )
    for verb in ("install", "uninstall"):
        done = subprocess.run(
            [sys.executable, "-c", code, verb, "--root", image], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "only root may do this" in done.stderr


def test_an_image_without_accounts(image: Path, tmp_path: Path) -> None:
    """Without /etc/passwd all is root's, a line says so, and a later run gives the user what is its own."""
    accounts = {name: (image / "etc" / name).read_text() for name in ("passwd", "group")}
    for name in accounts:
        (image / "etc" / name).unlink()
    done = install(image, folder_form(tmp_path))
    assert "has no /etc/passwd yet" in done.stdout
    assert counts(install(image, tmp_path / "form-one"))[1:] == (0, 0)
    for name, text in accounts.items():
        (image / "etc" / name).write_text(text)
    assert counts(install(image, tmp_path / "form-one"))[1:] == (4, 0)


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("install", "--root", "/nowhere"), 2, "does not exist"),
        (("install", "--within", "soon"), 2, '"soon" is no duration'),
        (("install", "--now", "--root", "{image}"), 2, "an image, which runs none"),
        (("install", "--root", "{image}", "--from", "{image}"), 1, "no folder form that runs here"),
        (("install", "--root", "{image}/linked", "--from", "{form}"), 1, "which is not below"),
        (("uninstall", "--root", "{image}/linked"), 1, "which is not below"),
    ],
)
def test_bad_input(
    image: Path, tmp_path: Path, arguments: tuple[str, ...], status: int, sentence: str
) -> None:
    """A sentence and the status that fits, and no traceback; nothing is made."""
    (image / "linked").mkdir()
    (image / "linked/etc").symlink_to("/etc")
    before = everything(image)
    form = folder_form(tmp_path)
    done = portway(*(word.format(image=image, form=form) for word in arguments))
    assert done.returncode == status
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert everything(image) == before


def test_the_unit_is_right_and_tight(image: Path, tmp_path: Path) -> None:
    """Of the unit, systemd finds nothing wrong, and rates its exposure at 2.0 or below."""
    analyze = needs.program("systemd-analyze")
    install(image, folder_form(tmp_path))
    unit = tmp_path / "portway.service"
    text = (image / "etc/systemd/system/portway.service").read_text()
    # verify looks for the programs on this host
    unit.write_text(text.replace("/opt/portway/current/portway", "/bin/true"))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    limit = f"--threshold={float(LIMIT) * 10:.0f}"
    rated = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", limit, unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout
    exposure = re.search(r"exposure level for portway.service: ([0-9.]+)", rated.stdout)
    assert exposure
    assert float(exposure[1]) <= float(LIMIT)
