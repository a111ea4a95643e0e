"""Commands that make the user and its group, by what a host has."""

from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.host.account import group_command, names, number, user_command
from appliance.host.commands import CommandError, environment
from appliance.host.layout import OutsideError, Root


def having(*programs: str) -> Callable[[str], str | None]:
    """Be a host that has these programs."""
    return lambda name: f"/sbin/{name}" if name in programs else None


def test_with_shadow() -> None:
    """Debian, RHEL and others: a system user without home and shell, in a group of its own."""
    host, find = Root(), having("useradd", "groupadd", "adduser")
    assert group_command(host, "portway", find) == ("/sbin/groupadd", "--system", "portway")
    command = user_command(host, "portway", find)
    assert command[:4] == ("/sbin/useradd", "--system", "--gid", "portway")
    assert "--no-create-home" in command
    assert command[-1] == "portway"


def test_with_busybox() -> None:
    """Alpine."""
    host, find = Root(), having("adduser", "addgroup")
    assert group_command(host, "portway", find) == ("/sbin/addgroup", "-S", "portway")
    assert user_command(host, "portway", find)[:4] == ("/sbin/adduser", "-S", "-D", "-H")


def test_in_an_image(tmp_path: Path) -> None:
    """The accounts are those of the image; its shell is the one it has."""
    image = Root(tmp_path)
    assert user_command(image, "portway", having("useradd"))[1:3] == ("--prefix", str(tmp_path))
    assert "/bin/false" in user_command(image, "portway", having("useradd"))
    (tmp_path / "sbin").mkdir()
    (tmp_path / "sbin/nologin").touch()
    assert "/sbin/nologin" in user_command(image, "portway", having("useradd"))
    assert group_command(image, "portway", having("addgroup")) == (
        "chroot",
        str(tmp_path),
        "addgroup",
        "-S",
        "portway",
    )


def test_with_neither() -> None:
    """A host with no program for it: a sentence says so."""
    with pytest.raises(CommandError, match="neither groupadd nor addgroup"):
        group_command(Root(), "portway", having())


def test_names_of_an_image(tmp_path: Path) -> None:
    """They are those in the image's own files; a broken line is nobody; root is always there."""
    image = Root(tmp_path)
    assert names(image, "passwd") == {0: "root"}
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(
        "root:x:0:0::/:/bin/sh\nbroken\n\nportway:x:997:995::/:\nother:x:997:1::/:\n"
    )
    assert names(image, "passwd") == {0: "root", 997: "portway"}
    assert number(image, "passwd", "portway") == 997
    with pytest.raises(CommandError, match="has no nobody"):
        number(image, "passwd", "nobody")


def test_a_link_that_leads_out_of_an_image(tmp_path: Path) -> None:
    """A path of an image that leads to the host's own files is refused."""
    (tmp_path / "image").mkdir()
    (tmp_path / "image/etc").symlink_to("/etc")
    with pytest.raises(OutsideError, match="which is not below"):
        Root(tmp_path / "image").at(Path("/etc/passwd"))


def test_the_path_of_other_programs() -> None:
    """Sudo and cron leave out where useradd and systemctl are."""
    assert environment({"PATH": "/mine", "A": "b"})["PATH"].startswith("/mine:/usr/local/sbin:")
    assert environment({"PATH": "", "A": "b"})["A"] == "b"
    assert "/usr/sbin" in environment({})["PATH"].split(":")
