"""`portway machine`: PID 1 of the VM."""

import os
import signal

import click

from appliance.cli.problems import complain, render


@click.command(hidden=True, short_help="Be PID 1 of the VM image.")
@click.option("--power-off", is_flag=True, help="Have PID 1 drain the gateway and turn the machine off.")
def machine(*, power_off: bool) -> None:
    """Set up the machine, run its gateway and look after both. The kernel starts this; nobody else does."""
    if power_off:
        os.kill(1, signal.SIGTERM)
        return
    if os.getpid() != 1:
        complain(
            "this is PID 1 of the VM image, and this process is not", "portway run RULESET is the gateway"
        )
        raise SystemExit(1)
    from appliance.machine.start import start  # noqa: PLC0415  wanted only here

    start(_rest)


def _rest(early: int) -> None:
    """Import the rest, and be it."""
    from appliance.cli.gateway import ruleset_status, serve  # noqa: PLC0415  drivers are loaded meanwhile
    from appliance.machine.pid1 import Machine  # noqa: PLC0415  same
    from appliance.machine.rules import Candidate  # noqa: PLC0415  same

    def gateway(candidate: Candidate, admin: str) -> int:
        text, ruleset = candidate.text, candidate.ruleset
        return serve(ruleset, ruleset_status(text.origin, text.data, ruleset), admin)

    Machine(gateway, render, early).run()
