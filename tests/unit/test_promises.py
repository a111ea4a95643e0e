"""Every test says what it holds: a reader of a failure wants the promise, not the code."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
FILES = sorted(TESTS.rglob("test_*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_every_test_states_its_promise(path: Path) -> None:
    """No test function is without a docstring."""
    tree = ast.parse(path.read_text())
    tests = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert [test.name for test in tests if not ast.get_docstring(test)] == []


def test_there_are_tests() -> None:
    """The search above finds the files it is meant for."""
    assert len(FILES) > 50
