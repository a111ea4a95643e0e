"""The screen for people."""

from dataclasses import replace

from appliance import __version__
from appliance.machine.screen import MOST, InterfaceLine, View, render
from appliance.ruleset import Ruleset, read

RULES = b"""
[[rule]]
name = "web"
listen = [":80", ":81", ":82", ":83"]
to = "10.0.0.5:80"
"""


def ruleset(text: bytes = RULES) -> Ruleset:
    """Read rules."""
    result = read(text, "rules.toml")
    assert isinstance(result, Ruleset)
    return result


VIEW = View(
    host_name="gw-1",
    interfaces=[InterfaceLine("eth0", ["192.0.2.5/24"], "DHCP from 192.0.2.1", has_carrier=True)],
    name_servers=["192.0.2.53"],
    rules_from="PORTWAY:rules.toml",
    ruleset=ruleset(),
    health="healthy",
    config="PORTWAY (/dev/vda1)",
    state="none",
)


def test_what_a_person_looks_for() -> None:
    """Version, name, addresses, rules, health, where the files are."""
    lines = render(VIEW).splitlines()
    assert lines[1:-1] == [
        f" Portway {__version__} on gw-1",
        " network  eth0: 192.0.2.5/24 (DHCP from 192.0.2.1)",
        " dns      192.0.2.53",
        " rules    PORTWAY:rules.toml",
        "          web  tcp  :80, :81, :82 and 1 more -> 10.0.0.5:80",
        " health   healthy",
        " config   PORTWAY (/dev/vda1)",
        " state    none",
    ]


def test_what_is_wrong_stands_below() -> None:
    """Problems come with their lines, the last restart and notes too, and nothing steers the terminal."""
    view = replace(
        VIEW,
        problems=["rules.toml:1:1: no\x1b[2J\n  hint: yes"],
        history="restarted after: x",
        notes=["slot b is new"],
    )
    assert render(view).splitlines()[-5:-1] == [
        " before   restarted after: x",
        " note     slot b is new",
        " WRONG    rules.toml:1:1: no\\x1b[2J",
        "            hint: yes",
    ]


def test_no_network() -> None:
    """An interface without address or cable says so, and a machine without any, too."""
    down = InterfaceLine("eth0", [], "asking DHCP", has_carrier=False)
    assert " network  eth0: no address yet, no carrier (asking DHCP)\n" in render(
        replace(VIEW, interfaces=[down])
    )
    assert " network  no network interface\n" in render(replace(VIEW, interfaces=[]))


def test_many_rules_are_counted() -> None:
    """A thousand rules do not scroll the rest away."""
    text = b"".join(RULES.replace(b"web", b"web%d" % n).replace(b":8", b":%d" % (n + 10)) for n in range(40))
    shown = render(replace(VIEW, ruleset=ruleset(text)))
    assert f"          and {40 - MOST} more\n" in shown
    assert len(shown.splitlines()) < 30
