"""The option `--admin`, as every verb has it that makes an admin socket or asks one."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from appliance.values.admin import parse_admin
from appliance.values.misread import Misread

F = TypeVar("F", bound=Callable[..., Any])


def admin_option(help: str) -> Callable[[F], F]:  # noqa: A002  as click calls it
    """Give a verb the option; its value is a path, `@`, or None where it is not given."""
    return click.option(
        "--admin", metavar="ADDR", envvar="PORTWAY_ADMIN", show_envvar=True, callback=_parse, help=help
    )


def _parse(_ctx: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    try:
        return None if text is None else parse_admin(text)
    except Misread as misread:
        raise click.BadParameter(f"{misread.what}; {misread.hint}") from None
