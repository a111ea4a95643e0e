"""What holds for every test: the form under test; how hypothesis looks for examples on a busy machine."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from tests import program

# No deadline: a machine with two busy cores says nothing about an example. `deep` is for a night.
settings.register_profile("usual", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", parent=settings.get_profile("usual"), max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "usual"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests that start a gateway start it in this form."""
    parser.addoption("--form", choices=program.FORMS, default="source")


def pytest_configure(config: pytest.Config) -> None:
    """Say it to whoever starts one; and have it hear what background jobs, and all under nohup(1), ignore.

    What is ignored is inherited, a handler is not: the gateways have the default.
    """
    program.under_test = config.getoption("form")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)  # noqa: ARG005
