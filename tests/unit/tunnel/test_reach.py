"""What an agent may reach: both lists must agree, and a name is held against what it resolves to."""

import pytest

from appliance.net.sockets import Endpoint
from appliance.tunnel.reach import Reach
from appliance.values import AllowedTarget, TargetAddress


def allowed(*texts: str) -> list[AllowedTarget]:
    return [AllowedTarget.parse(text) for text in texts]


def at(host: str, port: int) -> Endpoint:
    return Endpoint(0, (host, port), f"{host}:{port}")


def target(text: str) -> TargetAddress:
    return TargetAddress.parse(text)


@pytest.mark.parametrize(
    ("ours", "theirs", "is_denied"),
    [
        (None, None, False),
        (["10.0.0.0/8:*"], None, False),
        (None, ["10.1.0.0/16:22"], False),
        (["10.0.0.0/8:*"], ["10.1.0.0/16:22"], False),
        (["10.0.0.0/8:*"], ["10.1.0.0/16:23"], True),
        (["192.168.0.0/16:*"], ["10.1.0.0/16:22"], True),
        ([], None, True),
        (None, [], True),
    ],
)
def test_an_address_needs_both(ours: list[str] | None, theirs: list[str] | None, *, is_denied: bool) -> None:
    """An address is reached where each list that there is has it; an empty list has none."""
    lists = [None if texts is None else allowed(*texts) for texts in (ours, theirs)]
    reach = Reach(target("10.1.2.3:22"), lists)
    assert reach.is_denied is is_denied
    assert reach.is_settled


def test_a_name_that_is_listed_may_be_any_address() -> None:
    """A list that has the name itself says nothing of addresses."""
    reach = Reach(target("db.example:5432"), [allowed("db.example:5432")])
    assert reach.is_settled
    assert not reach.is_denied


def test_a_name_that_is_not_listed_is_held_against_its_addresses() -> None:
    """Where a list has no such name each address that it resolves to must be in it, with the port."""
    reach = Reach(target("db.example:5432"), [allowed("10.0.0.0/8:5432"), allowed("db.example:*"), None])
    assert not reach.is_denied
    assert not reach.is_settled
    assert reach.permits(at("10.9.9.9", 5432))
    assert not reach.permits(at("169.254.169.254", 5432))
    assert not reach.permits(at("10.9.9.9", 5433))


def test_a_name_needs_both_lists_for_an_address() -> None:
    """An address that only one of two lists has is not dialled."""
    reach = Reach(target("db.example:1"), [allowed("10.0.0.0/8:*"), allowed("10.1.0.0/16:*")])
    assert reach.permits(at("10.1.0.1", 1))
    assert not reach.permits(at("10.2.0.1", 1))


def test_a_path_is_reached_by_its_name_only() -> None:
    """A unix socket is reached where its very path is listed."""
    assert not Reach(target("unix:/run/a"), [allowed("unix:/run/a")]).is_denied
    assert Reach(target("unix:/run/a"), [allowed("unix:/run/b", "0.0.0.0/0:*")]).is_denied
