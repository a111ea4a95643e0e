"""The lines of `portway source`: which there are for which endpoints, and how they are found again."""

import pytest

from appliance.host.answers import NFT_TABLE, Line, Place, State, lines, undo
from appliance.ruleset import Protocol
from appliance.values import TargetAddress

ROUTE = {"type": "local", "dst": "default", "dev": "lo", "scope": "host", "flags": []}
MARK_RULE = {"priority": 5057, "src": "all", "fwmark": "0x2000", "fwmask": "0x2000", "table": "5057"}
HERE_RULE = {
    "priority": 5057,
    "src": "127.0.0.1",
    "iif": "lo",
    "ipproto": "tcp",
    "sport": 80,
    "table": "5057",
}
OTHERS = [
    {"priority": 0, "src": "all", "table": "local"},
    {"priority": 5057, "src": "10.0.0.0", "srclen": 8, "table": "12"},
    {"priority": 32766, "src": "all", "table": "main"},
]
META_MARK = {"meta": {"key": "mark"}}
NFT: list[dict[str, object]] = [
    {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
    {"table": {"family": "inet", "name": NFT_TABLE, "handle": 1}},
    {"chain": {"name": "answers", "type": "filter", "hook": "prerouting", "prio": -150, "policy": "accept"}},
    {
        "rule": {
            "chain": "answers",
            "expr": [
                {"match": {"op": "==", "left": {"socket": {"key": "transparent"}}, "right": 1}},
                {"mangle": {"key": META_MARK, "value": {"|": [META_MARK, 0x2000]}}},
            ],
        }
    },
]
NOTHING = State({4: OTHERS, 6: OTHERS}, {4: [], 6: []}, [])


def place(text: str, *, here: bool, protocol: Protocol = Protocol.TCP) -> Place:
    return Place(TargetAddress.parse(text), protocol, here)


def commands(*places: Place) -> list[str]:
    return [line.command for line in lines(places)]


def test_an_endpoint_elsewhere() -> None:
    """A route, a rule for what is marked, and nftables, which marks; for the endpoint's family only."""
    four = commands(place("10.0.0.5:80", here=False))
    assert four[:2] == [
        "ip route replace local default dev lo table 5057",
        "ip rule add pref 5057 fwmark 0x2000/0x2000 lookup 5057",
    ]
    assert four[2].startswith("nft '")
    assert len(four) == 3
    six = commands(place("[2001:db8::5]:80", here=False))
    assert all(command.startswith("ip -6 ") for command in six[:2])


def test_an_endpoint_here() -> None:
    """A route, and a rule for each protocol at its address and ports; nftables is not needed."""
    both = place("127.0.0.1:8000-8009", here=True, protocol=Protocol.BOTH)
    assert commands(both) == [
        "ip route replace local default dev lo table 5057",
        "ip rule add pref 5057 from 127.0.0.1 iif lo ipproto tcp sport 8000-8009 lookup 5057",
        "ip rule add pref 5057 from 127.0.0.1 iif lo ipproto udp sport 8000-8009 lookup 5057",
    ]
    assert "from ::1 iif lo ipproto udp sport 53 " in "".join(
        commands(place("[::1]:53", here=True, protocol=Protocol.UDP))
    )


def test_a_name_may_be_anywhere() -> None:
    """Both families, each line once, also for several endpoints."""
    made = commands(place("db.example:80", here=False), place("10.0.0.5:80", here=False))
    assert len(made) == len(set(made)) == 5


@pytest.mark.parametrize(
    ("state", "is_there"),
    [
        (NOTHING, [False, False, False]),
        (State({4: [*OTHERS, MARK_RULE], 6: OTHERS}, {4: [ROUTE], 6: []}, NFT), [True, True, True]),
        (State({4: [*OTHERS, MARK_RULE], 6: OTHERS}, {4: [], 6: [ROUTE]}, NFT[:3]), [False, True, False]),
        (
            State({4: OTHERS, 6: [MARK_RULE]}, {4: [{**ROUTE, "dev": "eth0"}], 6: []}, NFT[:2] + NFT[3:]),
            [False] * 3,
        ),
    ],
)
def test_what_is_in_place_is_found(state: State, is_there: list[bool]) -> None:
    """In the family that is meant, and only if it does what the line does."""
    assert [line.is_in(state) for line in lines([place("10.0.0.5:80", here=False)])] == is_there


def test_a_rule_of_another_endpoint_is_another_rule() -> None:
    """Address, protocol and port are compared."""
    state = State({4: [HERE_RULE], 6: []}, {4: [ROUTE], 6: []}, [])

    def found(text: str, protocol: Protocol = Protocol.TCP) -> list[bool]:
        return [line.is_in(state) for line in lines([place(text, here=True, protocol=protocol)])]

    assert found("127.0.0.1:80") == [True, True]
    assert found("127.0.0.1:81") == [True, False]
    assert found("127.0.0.2:80") == [True, False]
    assert found("127.0.0.1:80", Protocol.UDP) == [True, False]


def test_the_way_back() -> None:
    """Every rule, route and table of ours, and nothing of others', whatever the endpoints were."""
    state = State({4: [*OTHERS, MARK_RULE, HERE_RULE], 6: [MARK_RULE]}, {4: [ROUTE], 6: [ROUTE]}, NFT)
    assert undo(state) == [
        "ip rule del pref 5057 lookup 5057",
        "ip rule del pref 5057 lookup 5057",
        "ip route flush table 5057",
        "ip -6 rule del pref 5057 lookup 5057",
        "ip -6 route flush table 5057",
        "nft delete table inet portway_source",
    ]
    assert undo(NOTHING) == []


def test_no_endpoint_needs_nothing() -> None:
    """Where all of them are unix sockets there is nothing to set up."""
    assert lines([]) == []
    assert Line("true", 4).is_in(NOTHING) is False
