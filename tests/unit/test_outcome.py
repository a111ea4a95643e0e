"""Stages, causes and drops: closed sets, and which pairs of stage and cause there are."""

import ast
import inspect
from itertools import pairwise

import pytest

from appliance import outcome
from appliance.outcome import LEGAL, Cause, Drop, Stage


def test_every_stage_can_end() -> None:
    """The table of legal ends knows every stage and nothing else."""
    assert set(LEGAL) == set(Stage)
    assert all(LEGAL.values())


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_ends_some_stage(cause: Cause) -> None:
    """No cause is in the documents that no session can have."""
    assert any(cause in causes for causes in LEGAL.values())


@pytest.mark.parametrize("stage", list(Stage))
def test_a_drain_and_a_fault_can_end_any_stage(stage: Stage) -> None:
    """Wherever a session is, the gateway may stop, and Portway may have a bug."""
    assert {Cause.DRAIN, Cause.INTERNAL} <= LEGAL[stage]


def test_ends_of_one_stage_are_not_those_of_another() -> None:
    """Dial causes belong to DIAL, what happens to bytes to RELAY."""
    dial = {cause for cause in Cause if cause.startswith("dial_")}
    assert dial <= LEGAL[Stage.DIAL]
    assert not dial & LEGAL[Stage.RELAY]
    assert not dial & LEGAL[Stage.ADMIT]
    ends = {Cause.CLIENT_EOF, Cause.ENDPOINT_EOF, Cause.CLIENT_RESET, Cause.ENDPOINT_RESET}
    assert ends <= LEGAL[Stage.RELAY]
    assert not ends & (LEGAL[Stage.DIAL] | LEGAL[Stage.ADMIT])


def test_what_ends_flows_alone_ends_them_while_they_relay() -> None:
    """A flow is answered, or loses its endpoint, once it has one; it may have to make room before."""
    flows = {Cause.ANSWERED, Cause.FLOW_LIMIT, Cause.ENDPOINT_REFUSED, Cause.ENDPOINT_UNREACHABLE}
    assert flows <= LEGAL[Stage.RELAY]
    assert flows & LEGAL[Stage.DIAL] == {Cause.FLOW_LIMIT}
    assert not flows & LEGAL[Stage.ADMIT]


@pytest.mark.parametrize("members", [Stage, Cause, Drop])
def test_the_text_is_the_names(members: type[Stage | Cause | Drop]) -> None:
    """What the log says is the name, in lower case; it is a plain string to whoever writes it."""
    for member in members:
        assert member.value == member.name.lower() == str(member)
        assert hash(member) == hash(member.value)


@pytest.mark.parametrize("members", [Stage, Cause, Drop])
def test_every_member_is_explained(members: type[Stage | Cause | Drop]) -> None:
    """Each has a sentence below it: the reference page is made of them."""
    tree = ast.parse(inspect.getsource(outcome))
    (body,) = (
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == members.__name__
    )
    explained = {
        before.targets[0].id
        for before, after in pairwise(body)
        if isinstance(before, ast.Assign)
        and isinstance(before.targets[0], ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and str(after.value.value).endswith(".")
    }
    assert explained == {member.name for member in members}


def test_the_table_cannot_be_changed() -> None:
    """It is read by several modules."""
    with pytest.raises(TypeError):
        LEGAL[Stage.ADMIT] = frozenset()  # type: ignore[index]  # what is tried
