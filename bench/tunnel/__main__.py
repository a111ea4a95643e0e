"""`python -m bench.tunnel`: every tunnel under every load, alternating, then the table and the JSON."""

import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click
import msgspec

from bench.__main__ import DESCRIPTORS, FULL, Names, choose_cores, describe, write
from bench.endpoints import absent_tools, endpoints
from bench.idle import allow_descriptors, fitting
from bench.relays import Kind
from bench.run import say
from bench.tunnel.built import versions
from bench.tunnel.report import Results, document, table
from bench.tunnel.run import LOADS, REFERENCES, TUNNELS, TunnelRun
from bench.tunnel.ssh import separation

SCALE = msgspec.structs.replace(FULL, requests_s=1, single_s=1, connections_s=1, sessions=1_000)
KEYS = (*REFERENCES, *TUNNELS)


def _present(wanted: tuple[str, ...]) -> tuple[list[Kind], dict[str, str]]:
    """Find what can run here; what cannot, and why."""
    kinds, absent = [], {}
    for key in wanted:
        reason = TUNNELS[key].absence() if key in TUNNELS else REFERENCES[key].absence()
        if reason:
            absent[key] = reason
            say(f"ABSENT {key}: {reason}")
        else:
            kinds.append(TUNNELS[key].kind if key in TUNNELS else REFERENCES[key])
    return kinds, absent


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--only", type=Names(LOADS), default=",".join(LOADS), show_default=True, help="The loads to run."
)
@click.option("--tunnels", type=Names(KEYS), default=",".join(KEYS), show_default=True, help="The tunnels.")
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Repetitions.")
@click.option("--minutes", type=float, default=7.5, show_default=True, help="No repetition ends after that.")
@click.option("--quick", is_flag=True, help="A look: one repetition.")
@click.option(
    "--pin/--no-pin", default=None, help="Both ends on one core, the load on another (where there are two)."
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    default=Path("dist/bench-tunnel.json"),
    show_default=True,
)
def main(
    only: tuple[str, ...],
    tunnels: tuple[str, ...],
    repeat: int,
    minutes: float,
    quick: bool,
    pin: bool | None,
    json_path: Path,
) -> None:
    """Measure Portway's tunnel beside frp, rathole and ssh -R; exit 1 if anything was discarded."""
    # What was started is ended on the way out, and SIGTERM is to be a way out as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Debian keeps nginx and sshd where an ordinary user's PATH does not look.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    if missing := absent_tools():
        raise click.ClickException(f"the loads need {', '.join(missing)}")
    scale = msgspec.structs.replace(SCALE, sessions=fitting(SCALE.sessions, allow_descriptors(DESCRIPTORS)))
    cores, repeat = choose_cores(os.sched_getaffinity(0), pin=pin), 1 if quick else repeat
    kinds, absent = _present(tunnels)
    setting = describe(repeat, scale, cores) | {"versions": versions()}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="portway-bench-")))
        stack.enter_context(separation())
        bench = stack.enter_context(endpoints(folder, cores, scale))
        run = TunnelRun(bench, kinds, only, folder, limit_s=minutes * 60)
        run.repeat(repeat)
    results = Results(
        tuple(kind.key for kind in kinds),
        run.samples,
        absent | run.failed,
        run.discarded,
        setting,
        run.quiet(),
    )
    write(json_path, document(results))
    print(table(results))
    sys.exit(1 if run.discarded or run.failed or absent else 0)


if __name__ == "__main__":
    main()
