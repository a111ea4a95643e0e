"""Asking a running gateway over its admin socket, for the verbs that do.

Little is imported here: `portway status --healthy` runs every few seconds.
"""

from typing import Final, TypeVar

import click
import msgspec

from appliance.problem import printable
from appliance.supervisor.admin_wire import PATIENCE, ask
from appliance.supervisor.status import Failure

R = TypeVar("R", bound=msgspec.Struct)

_RUNNING: Final = "does it run, with [gateway] admin in its ruleset, or with --admin?"
_OTHER: Final = "something else listens there, or another version of Portway"


class NoAnswerError(Exception):
    """A gateway could not be asked: why, and what to do about it."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


def ask_gateway(address: str, request: bytes, kind: type[R]) -> tuple[bytes, R]:
    """Give the reply, as it came and decoded. Raises NoAnswerError."""
    try:
        line = ask(address, request)
        if error := msgspec.json.decode(line, type=Failure).error:
            raise NoAnswerError(f"the gateway at {address} refuses: {error}")
        return line, msgspec.json.decode(line, type=kind)
    except TimeoutError:
        what, hint = f"the gateway at {address} did not answer within {PATIENCE:.0f} s", "is it stopped?"
    except PermissionError:
        what = f"this user may not ask the gateway at {address}"
        hint = "the gateway's user and group may, and root: see ls -l"
    except (FileNotFoundError, ConnectionRefusedError):
        what, hint = f"no gateway listens at {address}", _RUNNING
    except OSError as error:
        what, hint = f"cannot ask the gateway at {address}: {error.strerror or error}", _RUNNING
    except (msgspec.DecodeError, UnicodeDecodeError):
        what, hint = f"what answers at {address} is no gateway of this version", _OTHER
    raise NoAnswerError(what, hint)


def complain_briefly(what: str, hint: str | None = None) -> None:
    """Do as `cli.problems.complain`, which would take 8 ms to import."""
    click.echo(printable(f"portway: {what}"), err=True)
    if hint:
        click.echo(printable(f"  hint: {hint}"), err=True)
