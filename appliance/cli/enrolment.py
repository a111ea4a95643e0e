"""What the verbs share that say who may serve a tunnel."""

import difflib
import os
import pwd
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

from appliance.cli.problems import complain
from appliance.cli.ruleset_file import WRONG_INPUT, read_ruleset
from appliance.problem import quoted
from appliance.ruleset import Ruleset, Tunnel
from appliance.tunnel.authority import AuthorityError
from appliance.tunnel.state import State

SHORT: Final = 12
"""How many digits of a serial are shown: enough to tell certificates apart, and to name one."""

_DAMAGED: Final = "put it back from a copy of the directory"


def tunnel_of(path: str) -> tuple[Ruleset, Tunnel]:
    """Read a ruleset that has a [tunnel], or end the program."""
    rules, _ = read_ruleset(path)
    if rules.tunnel is None:
        refuse(f"{path} has no [tunnel]", 'add [tunnel] with listen, such as ":7443", and an [[agent]]')
    return rules, rules.tunnel


def refuse(what: str, hint: str | None = None) -> NoReturn:
    """Say what is wrong with the input, and end the program."""
    complain(what, hint)
    raise SystemExit(WRONG_INPUT)


MOST_NAMED: Final = 10
"""Agents that a hint names."""


def unknown_agent(path: str, name: str, known: Iterable[str]) -> NoReturn:
    """Say that nobody is called so, and who may be meant."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        hint = f"did you mean {quoted(close[0])}?"
    elif names:
        more = ", …" if len(names) > MOST_NAMED else ""
        hint = f"there is {', '.join(map(quoted, names[:MOST_NAMED]))}{more}"
    else:
        hint = "add an [[agent]] with this name"
    refuse(f"{path} has no [[agent]] {quoted(name)}", hint)


@contextmanager
def told(state: State) -> Iterator[None]:
    """End the program with a sentence where the state directory is not as it should be."""
    try:
        yield
    except AuthorityError as wrong:
        complain(str(wrong), _DAMAGED)
        raise SystemExit(1) from None
    except OSError as error:
        where = error.filename or state.path
        complain(f"{where}: {error.strerror or error}", _hint(state.path, error))
        raise SystemExit(1) from None


def _hint(path: str, error: OSError) -> str | None:
    if isinstance(error, PermissionError):
        return f"run this as root, or as {_owner(path)}: [tunnel] state is {path}"
    if isinstance(error, FileNotFoundError | NotADirectoryError | FileExistsError):
        return "[tunnel] state is a directory: make it, for the user that the gateway runs as"
    return None


def _owner(path: str) -> str:
    """Name the user to whom a directory belongs."""
    try:
        uid = Path(path).stat().st_uid
    except OSError:
        return "the user that the gateway runs as"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def is_root() -> bool:
    """Whether what this process makes belongs to root."""
    return os.geteuid() == 0
