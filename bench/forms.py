"""`python -m bench.forms`: what freezing costs, after `make binary`: the start, a request, a connection.

The source runs under the interpreter and the packages that were frozen, so that nothing but the form differs.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from bench.__main__ import FULL, choose_cores
from bench.endpoints import endpoints
from bench.process import READY_DEADLINE_S, FailedError, free_port
from bench.relays import Kind, Routes, portway_ruleset
from bench.run import Run, say

ROOT = Path(__file__).parent.parent
SOURCE = "source"
FORMS = {
    "folder": ROOT / "dist" / "folder" / "portway",
    "single": ROOT / "dist" / "portway",
}
# Wanted: the first listening socket after so many times what the source takes; the loads within 5 %.
START_LIMITS = {"folder": 1.3, "single": 2.2}
LOAD_LIMIT = 1.05
LOOK_S = 0.0002
SCALE = msgspec.structs.replace(FULL, requests_s=1, connections_s=1)
TITLES = {
    "start": "first listening socket, ms",
    "requests_cpu": "CPU per request, 32 clients, µs",
    "single_cpu": "CPU per request, 1 client, µs",
    "connections_cpu": "CPU per connection, µs",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A number of a form: median, least and most of its samples, and the ratio to the source's median."""

    title: str
    form: str
    median: float
    low: float
    high: float
    ratio: float
    limit: float | None

    def text(self) -> str:
        """Write it as a line of the table."""
        wanted = ""
        if self.limit is not None:
            wanted = f"<= {self.limit:.2f} {'met' if self.ratio <= self.limit else 'NOT MET'}"
        numbers = f"{self.median:8.1f}  {self.low:8.1f} - {self.high:.1f}"
        return f"{self.title:36} {self.form:8} {numbers:30} {self.ratio:5.2f}  {wanted}"


def commands() -> dict[str, list[str]]:
    """Give the words that start each form."""
    found = (ROOT / ".cache" / "freeze").glob("venv-*/bin/python")
    pythons = sorted(found, key=lambda each: each.lstat().st_mtime)
    if not pythons or not all(program.exists() for program in FORMS.values()):
        raise click.ClickException("nothing is frozen: make binary")
    source = [str(pythons[-1]), "-m", "appliance"]
    return {SOURCE: source, **{name: [str(program)] for name, program in FORMS.items()}}


def start_ms(command: list[str]) -> float:
    """Time from starting a program to the first connect that its listener takes."""
    port = free_port("127.0.0.1")
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, "forward", f"127.0.0.1:{port}", "127.0.0.1:9"], stdout=subprocess.DEVNULL, cwd=ROOT
    )
    try:
        while True:
            with socket.socket() as client:
                if not client.connect_ex(("127.0.0.1", port)):
                    return (time.monotonic() - began) * 1e3
            if process.poll() is not None or time.monotonic() > began + READY_DEADLINE_S:
                raise FailedError(f"{command[0]} does not listen")
            time.sleep(LOOK_S)
    finally:
        process.terminate()
        process.wait()


def starts(forms: dict[str, list[str]], repeat: int) -> dict[str, list[float]]:
    """Start each form in turn, so often; once more before, for warm file caches."""
    samples: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(repeat + 1):
        for form, command in forms.items():
            samples[form].append(start_ms(command))
    return {form: taken[1:] for form, taken in samples.items()}


def kind(form: str, command: list[str]) -> Kind:
    """Make a relay of a form, for the loads that all relays are put under."""

    def run(directory: Path, routes: Routes) -> list[list[str]]:
        return [[*command, "run", str(portway_ruleset(directory, routes))]]

    return Kind(form, f"Portway, {form}", "make binary", lambda: False, run, record=b'"event":"session"')


def rows(metric: str, samples: dict[str, list[float]], limits: dict[str, float]) -> list[Row]:
    """Compare the forms by their medians."""
    base = statistics.median(samples[SOURCE])
    return [
        Row(
            TITLES[metric], form, statistics.median(taken), min(taken), max(taken),
            statistics.median(taken) / base, limits.get(form),
        )
        for form, taken in samples.items()
    ]  # fmt: skip


@click.command()
@click.option("--repeat", type=click.IntRange(1), default=5, show_default=True, help="Turns of each load.")
@click.option("--starts", "start_repeat", type=click.IntRange(1), default=15, show_default=True)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), default=ROOT / "dist" / "bench-forms.json"
)
def main(repeat: int, start_repeat: int, json_path: Path) -> None:
    """Measure what freezing costs; exit 1 if a measurement was discarded."""
    forms = commands()
    say("starts")
    found = {"start": starts(forms, start_repeat)}
    cores = choose_cores(os.sched_getaffinity(0), pin=None)
    with (
        tempfile.TemporaryDirectory(prefix="portway-bench-") as name,
        endpoints(Path(name), cores, SCALE) as bench,
    ):
        kinds = [kind(form, command) for form, command in forms.items()]
        run = Run(bench, kinds, ("requests", "connections"), Path(name))
        run.repeat(repeat)
    found |= {metric: run.samples[metric] for metric in TITLES if metric in run.samples}
    table = []
    for metric, samples in found.items():
        limits = START_LIMITS if metric == "start" else dict.fromkeys(FORMS, LOAD_LIMIT)
        table += rows(metric, {form: samples[form] for form in forms if form in samples}, limits)
    print("\n".join(row.text() for row in table))
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_bytes(msgspec.json.format(msgspec.json.encode({"samples": found, "rows": table})) + b"\n")
    sys.exit(1 if run.discarded or run.failed else 0)


if __name__ == "__main__":
    main()
