"""What a child process does is as if it had been done here, its errors too."""

import errno
import os

import pytest

from appliance.tunnel.apart import apart


def test_what_it_gives() -> None:
    """Texts come back, however long; the child is gone."""
    assert apart(lambda: ("a", "é" * 100_000, str(os.getpid() != 0))) == ("a", "é" * 100_000, "True")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_its_errors() -> None:
    """An OSError keeps its number and file, a ValueError its sentence."""

    def fails() -> tuple[str, ...]:
        raise PermissionError(errno.EACCES, "no", "/state/ca.key")

    with pytest.raises(PermissionError) as refused:
        apart(fails)
    assert refused.value.filename == "/state/ca.key"

    def is_wrong() -> tuple[str, ...]:
        raise ValueError("ca.key holds no key")

    with pytest.raises(ValueError, match=r"ca\.key holds no key"):
        apart(is_wrong)


def test_a_child_that_dies() -> None:
    """One that ends without a word is an error, not a result."""

    def dies() -> tuple[str, ...]:
        os._exit(3)

    with pytest.raises(RuntimeError, match="without a word"):
        apart(dies)
