"""`python -m bench`: every relay under every load, alternating, then the table and the JSON."""

import os
import platform
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec

from bench.endpoints import Scale, absent_tools, endpoints
from bench.idle import allow_descriptors, fitting
from bench.process import Cores
from bench.relays import KINDS, PORTWAY, version
from bench.report import Results, document, table
from bench.run import LOADS, Run, say
from bench.slab import readable

CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
DESCRIPTORS = 20_000
RECEIVE_BUFFER = Path("/proc/sys/net/core/rmem_max")
FULL = Scale(
    bulk_bytes=2_000_000_000,
    requests_s=2,
    single_s=1,
    connections_s=2,
    sessions=3_000,
    datagrams_s=1.0,
    flows_s=2.0,
)
QUICK = msgspec.structs.replace(
    FULL, bulk_bytes=1_000_000_000, requests_s=1, connections_s=1, datagrams_s=0.5, flows_s=1.0
)


class Names(click.ParamType[tuple[str, ...]]):
    """Names of a closed set, separated by commas."""

    name = "names"

    def __init__(self, known: tuple[str, ...]) -> None:
        self.known = known

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split and check; an unknown name is refused, the order is that of the known ones."""
        wanted = [name.strip() for name in str(value).split(",")]
        for name in wanted:
            if name not in self.known:
                self.fail(f"{name!r} is not one of {', '.join(self.known)}", param, ctx)
        return tuple(name for name in self.known if name in wanted)


def choose_cores(available: set[int], *, pin: bool | None) -> Cores:
    """Give the relay the first core and the load the last, or leave both free; None pins where it can."""
    if pin and len(available) < 2:
        raise click.UsageError("--pin needs two cores, one for the relay and one for the load")
    if pin is False or len(available) < 2:
        return Cores(None, None)
    return Cores(min(available), max(available))


def describe(repeat: int, scale: Scale, cores: Cores) -> dict[str, object]:
    """Where and how this run was made, to be kept beside its numbers."""
    return {
        "kernel": platform.release(),
        "congestion_control": CONGESTION_CONTROL.read_text().strip(),
        "receive_buffer_max": int(RECEIVE_BUFFER.read_text()),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "pinned": msgspec.to_builtins(cores),
        "load_average": os.getloadavg()[0],
        "repetitions": repeat,
        "scale": msgspec.to_builtins(scale),
        "versions": {
            key: found for key, kind in KINDS.items() if not kind.missing() and (found := version(kind))
        },
    }


def absences(relays: tuple[str, ...]) -> dict[str, str]:
    """Find the relays asked for that cannot run here, and why."""
    return {key: reason for key in relays if (reason := KINDS[key].absence())}


def write(path: Path, report: Mapping[str, object]) -> None:
    """Write the JSON, indented for people."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--only", type=Names(LOADS), default=",".join(LOADS), show_default=True, help="The loads to run."
)
@click.option(
    "--relays", type=Names(tuple(KINDS)), default=",".join(KINDS), show_default=True, help="The relays."
)
@click.option("--repeat", type=click.IntRange(1), default=None, help="Repetitions: 5, with --quick 2.")
@click.option(
    "--quick", is_flag=True, help="A look in about two minutes: less of each load, fewer repetitions."
)
@click.option(
    "--pin/--no-pin", default=None, help="The relay on one core, the load on another (where there are two)."
)
@click.option("--detail", is_flag=True, help="Kernel memory per idle session by slab cache as well.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), default=Path("dist/bench.json"), show_default=True
)
def main(
    only: tuple[str, ...],
    relays: tuple[str, ...],
    repeat: int | None,
    quick: bool,
    pin: bool | None,
    detail: bool,
    json_path: Path,
) -> None:
    """Measure Portway beside direct, nginx stream, HAProxy and socat; exit 1 if anything was discarded."""
    # What was started is ended on the way out, and SIGTERM is to be a way out as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Debian keeps nginx and haproxy where an ordinary user's PATH does not look.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    if missing := absent_tools():
        raise click.ClickException(f"the loads need {', '.join(missing)}")
    descriptors = allow_descriptors(DESCRIPTORS)
    scale, repeat = (QUICK if quick else FULL), repeat or (2 if quick else 5)
    scale = msgspec.structs.replace(scale, sessions=fitting(scale.sessions, descriptors))
    cores, absent = choose_cores(os.sched_getaffinity(0), pin=pin), absences(relays)
    for key, reason in absent.items():
        say(f"ABSENT {KINDS[key].title}: {reason}")
    unread = {} if readable() else {"kernel memory": "only root may read /proc/slabinfo"}
    setting = describe(repeat, scale, cores)
    present = tuple(key for key in relays if key not in absent)
    with (
        tempfile.TemporaryDirectory(prefix="portway-bench-") as name,
        endpoints(Path(name), cores, scale) as bench,
    ):
        run = Run(bench, [KINDS[key] for key in present], only, Path(name))
        run.repeat(repeat)
    results = Results(
        present,
        run.samples,
        run.median_caches(),
        absent | run.failed | unread,
        run.discarded,
        setting,
        run.quiet(),
    )
    write(json_path, document(results))
    print(table(results, detail=detail))
    sys.exit(1 if run.discarded or run.failed or PORTWAY in absent else 0)


if __name__ == "__main__":
    main()
