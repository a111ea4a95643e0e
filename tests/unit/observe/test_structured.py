"""appliance/observe/structured.py: structlog without asyncio."""

import subprocess
import sys


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_a_gateway_loads_neither_asyncio_nor_rich() -> None:
    """They are 30 ms at start and 9 MB in each process, for nothing."""
    code = "import sys, appliance.supervisor.master; print({'asyncio', 'rich'} & set(sys.modules))"
    assert _run(code).strip() == "set()"


def test_no_verb_that_runs_a_gateway_loads_tls() -> None:
    """TLS and certificates wait for a ruleset with a tunnel: 9 MB in each process, and 100 ms at start."""
    verbs = "run", "forward", "reload", "status", "check"
    code = f"import sys, importlib; [importlib.import_module('appliance.cli.' + verb) for verb in {verbs}];"
    code += "print({'ssl', 'cryptography'} & set(sys.modules))"
    assert _run(code).strip() == "set()"


def test_whoever_imports_asyncio_afterwards_gets_it() -> None:
    """The empty module that structlog was given is nobody else's."""
    assert _run("import appliance.observe.log, asyncio; print(asyncio.run.__name__)").strip() == "run"


def test_who_had_asyncio_keeps_it() -> None:
    """A program that uses it and then imports this one sees no difference."""
    code = "import asyncio as one, appliance.observe.log, asyncio as other, structlog; print(one is other)"
    assert _run(code).strip() == "True"
