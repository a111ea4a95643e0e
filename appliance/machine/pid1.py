"""PID 1 of the VM: sets the machine up, starts the gateway, and stays to look after both.

The order is that of need: drivers, the two files, interfaces (DHCP is on its way), the gateway. What it
forwards does not wait for an address, a clock or a person: sockets are bound before their addresses are there
(ip_nonlocal_bind).
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from appliance import __version__
from appliance.machine import crash, mounts, rules, screen, swap, upgrade
from appliance.machine.children import (
    Readiness,
    Serve,
    how_ended,
    start_clock,
    start_gateway,
)
from appliance.machine.config import NETWORK, first
from appliance.machine.console import KEPT, Console, open_device, open_pipe
from appliance.machine.drivers import Arrivals, Drivers, loaded, modaliases, read_list
from appliance.machine.network import Network
from appliance.machine.network_file import read_network
from appliance.machine.network_model import NetworkFile
from appliance.machine.power import Buttons, go_down
from appliance.machine.privileges import GID, UID
from appliance.machine.signals import Signals
from appliance.machine.slots import Booted
from appliance.machine.start import on_failure
from appliance.machine.storage import Storage
from appliance.machine.syscalls import Restart
from appliance.net.reactor import Reactor
from appliance.observe.log import make_log
from appliance.observe.names import Event
from appliance.supervisor.journal import Journal

HEALTHY_AFTER: Final = 10.0
"""Seconds that the gateway must have been ready for, before its rules and its slot are good."""
TRIAL: Final = 180.0
"""Seconds that a new slot has to become healthy."""
LAST_ORDER: Final = 10.0
"""Seconds beyond drain_timeout after which the gateway is killed."""
SETTLE: Final = 2.0
"""Seconds for changes to come together before the screen is shown again."""
FIRST_SCREEN: Final = 4.0
"""Seconds after which the screen is shown, with or without an address."""

_WRONG: Final = (1, 2)
"""How a gateway ends that cannot run its rules."""


class Machine:
    """PID 1."""

    def __init__(self, serve: Serve, render: rules.Render, early: int) -> None:
        """`serve` runs a gateway, `render` writes a problem: both belong to the layer above.

        `early` is the process that loads drivers meanwhile.
        """
        self._early = early
        self._serve = serve
        self._render = render
        self._reactor = Reactor(self._report_fault)
        reading, self._output = open_pipe(UID, GID)
        self._console = Console(self._reactor, reading, open_device())
        self._log = make_log(self._output, tty=False)
        self._journal = Journal(self._reactor, self._log)
        self._problems: list[str] = []
        self._storage = Storage(self._problems)
        self._notes: list[str] = []
        self._history = ""
        self._command_line = ""
        self._network: Network | None = None
        self._candidate: rules.Candidate | None = None
        self._gateway = self._clock = 0
        self._clock_servers: tuple[str, ...] = ()
        self._ready_at: float | None = None
        self._is_healthy = False
        self._is_kept = False
        self._down: Restart | None = None
        self._shown = ""
        self._is_screen_due = False
        on_failure(self._keep_failure)

    # -- the way up -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Set everything up and look after it, until the machine goes down."""
        self._signals = Signals(self._reactor, self._signalled)
        self._problems += mounts.set_sysctls()
        self._command_line = Path("/proc/cmdline").read_text(encoding="utf-8", errors="replace")
        booted = Booted.of(self._command_line)
        with suppress(ChildProcessError):
            os.waitpid(self._early, 0)
        self._drivers = Drivers(read_list(), loaded())
        self._drivers.settle(modaliases)
        if said := swap.start(self._drivers):
            self._problems.append(said)
        self._storage.mount(booted, self._drivers)
        self._look_back()
        self._offer()
        if said := mounts.seal_root():
            self._notes.append(said)
        self._start_network()
        self._candidates = rules.candidates(
            self._storage.places, self._storage.kept, self._render, self._problems
        )
        mounts.writable_by_gateway("/run/portway", UID, GID)
        Readiness(self._reactor, self._ready)
        self._start_gateway()
        if booted.is_trial:
            self._later(TRIAL, self._end_trial)
        self._later(0.0, self._see_to_the_rest)
        self._later(FIRST_SCREEN, self._show)
        self._reactor.run()

    def _later(self, pause: float, task: Callable[[], None]) -> None:
        self._reactor.arm(self._reactor.now + pause, _Later(task))

    def _see_to_the_rest(self) -> None:
        """Do what may come after the gateway's start."""
        self._drivers.need("evdev", "button")
        self._buttons = Buttons(self._reactor, partial(self._go_down, Restart.POWER_OFF, "power button"))
        self._buttons.watch()
        Arrivals(self._drivers, self._buttons.watch).watch(self._reactor)
        self._drivers.settle(modaliases)  # what came between the first look and now
        self._problems += self._drivers.failed
        self._changed()

    def _look_back(self) -> None:
        """Tell why the machine had to restart, if it had to."""
        if last := self._storage.restarted_after():
            self._history = f"restarted after: {last.reason} ({last.time}, attempt {last.attempt})"
            self._log.warning(Event.RESTARTED_AFTER, message=last.reason)

    def _offer(self) -> None:
        try:
            outcome = upgrade.offer(self._command_line, self._storage.disk)
        except (OSError, ValueError) as error:  # ValueError: grubenv has no room
            self._problems.append(f"looking for an upgrade: {getattr(error, 'strerror', None) or error}")
            return
        self._notes += outcome.lines
        if outcome.reboot:
            self._say("".join(f"{line}\n" for line in outcome.lines))
            self._console.finish()
            go_down(Restart.AUTOBOOT, lambda: None)

    def _start_network(self) -> None:
        network: NetworkFile | None = None
        if text := first(self._storage.places, NETWORK, self._problems):
            read = read_network(text.data, text.origin)
            if isinstance(read, NetworkFile):
                network = read
            else:
                self._problems += [self._render(problem) for problem in read]
                self._problems.append(f"{text.origin} is not used: every interface asks DHCP")
        self._network = Network(self._reactor, self._log, network or NetworkFile(), self._changed)
        try:
            self._network.start()
        except OSError as error:
            self._problems.append(f"the network cannot be set up: {error.strerror or error}")
        self._journal.wrote()

    # -- the gateway ----------------------------------------------------------------------------------

    def _start_gateway(self) -> None:
        """Start it with the best ruleset that is left to try."""
        self._candidate = next(self._candidates)
        self._ready_at = None
        self._log.info(
            Event.MACHINE_STARTED,
            version=__version__,
            uptime_ms=round(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000, 1),
            message=f"rules: {self._candidate.text.origin}",
        )
        self._log.flush()  # or the child would inherit the lines
        self._gateway = start_gateway(self._serve, self._candidate, self._output)

    def _ready(self) -> None:
        if self._ready_at is None:
            self._ready_at = self._reactor.now
            self._later(HEALTHY_AFTER, partial(self._healthy, self._gateway))
            self._later(crash.SETTLED, partial(self._settled, self._gateway))
            self._show_soon()

    def _healthy(self, pid: int) -> None:
        """The gateway has been ready for a while: its rules are good, and so is the slot."""
        if pid != self._gateway or self._down is not None:
            return
        self._is_healthy = True
        if self._candidate:
            self._storage.keep(self._candidate)
        self._keep_slot()
        self._show_soon()

    def _settled(self, pid: int) -> None:
        """The gateway has been ready for long: the next crash is the first one again."""
        if pid == self._gateway and self._down is None:
            self._storage.forget_restart()

    def _keep_slot(self) -> None:
        """Keep the slot on trial, once it is well."""
        if self._is_kept or not self._is_well():
            return
        try:
            self._notes += upgrade.keep(self._command_line, self._storage.disk)
        except (OSError, ValueError) as error:  # ValueError: grubenv has no room
            said = f"keeping the new slot: {getattr(error, 'strerror', None) or error}"
            if said not in self._problems:  # the next change tries again
                self._problems.append(said)
            return
        self._is_kept = True

    def _is_well(self) -> bool:
        """Say whether this version does what the last one did.

        It has found the disk, its gateway runs the operator's rules, if there are any, and an interface has
        an address, so there is a driver for its card.
        """
        if not self._is_healthy or self._storage.disk is None:
            return False
        if self._candidate is None or self._candidate.is_stopgap:
            return False
        shown = self._network.shown() if self._network else ()
        return any(each.addresses for each in shown)

    def _gateway_ended(self, status: int) -> None:
        pid, self._gateway = self._gateway, 0
        how = how_ended(status)
        if self._down is not None:
            self._log.info(Event.GATEWAY_ENDED, pid=pid, **how)
            self._journal.flush()
            self._finish()
            return
        if self._ready_at is None and how.get("exit_status") in _WRONG and self._refused_rules():
            return
        words = " ".join(f"{name} {value}" for name, value in how.items())
        memory = ", after the kernel ran out of memory" if crash.was_short_of_memory() else ""
        self._crashed(f"the gateway ended: {words}{memory}", pid=pid, how=how)

    def _refused_rules(self) -> bool:
        """Try the next ruleset: this one cannot run here (an address is taken). False without a next."""
        assert self._candidate is not None
        if self._candidate.text.origin == rules.BUILT_IN:
            return False
        self._console.drain()
        said = [line for line in self._console.last if not line.startswith("{")]
        self._problems.append(
            "\n".join([f"{self._candidate.text.origin}: the gateway did not start", *said[-5:]])
        )
        self._start_gateway()
        return True

    def _end_trial(self) -> None:
        if not self._is_kept and self._down is None:
            self._crashed(f"the new slot was not healthy within {TRIAL:.0f} s")

    def _crashed(self, reason: str, pid: int = 0, how: dict[str, object] | None = None) -> None:
        """Keep the reason, and restart the machine after a pause that grows."""
        self._console.drain()
        pause = self._storage.keep_reason(reason, tuple(self._console.last))
        if how is not None:
            self._log.error(Event.GATEWAY_ENDED, pid=pid, **how, restart_ms=pause * 1000)
        self._problems.append(f"{reason}; the machine restarts in {pause:.0f} s")
        self._show()
        self._down = Restart.AUTOBOOT
        self._later(pause, self._finish)
        if self._gateway:
            os.kill(self._gateway, signal.SIGKILL)

    # -- the clock ------------------------------------------------------------------------------------

    def _keep_time(self) -> None:
        """Have the clock kept as the servers say that are known now."""
        servers = self._network.time_servers if self._network else ()
        if servers == self._clock_servers:
            return
        self._clock_servers = servers
        if self._clock:
            os.kill(self._clock, signal.SIGKILL)
            self._clock = 0
        if servers:
            self._log.flush()
            self._clock = start_clock(servers, self._output)

    # -- signals --------------------------------------------------------------------------------------

    def _signalled(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers:
            self._go_down(Restart.POWER_OFF, "SIGTERM")
        if signal.SIGINT in numbers:
            self._go_down(Restart.AUTOBOOT, "Ctrl-Alt-Del")
        if signal.SIGCHLD in numbers:
            self._reap()

    def _reap(self) -> None:
        """Take the status of every child that has ended, orphans too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self._gateway:
                self._gateway_ended(status)
            elif pid == self._clock:
                self._clock = 0
                self._clock_servers = ()
                self._later(10.0, self._keep_time)

    # -- the way down ---------------------------------------------------------------------------------

    def _go_down(self, how: Restart, why: str) -> None:
        """Drain the gateway and turn the machine off, or start it anew. A second time, cut."""
        is_first = self._down is None
        if self._down is None or how is Restart.POWER_OFF:  # off, also in the pause before a restart
            self._down = how
        if is_first:
            self._storage.forget_restart()
            action = "off" if how is Restart.POWER_OFF else "reboot"
            self._log.info(Event.POWER, action=action, message=why)
            self._journal.flush()
        if not self._gateway:
            self._finish()
            return
        with suppress(ProcessLookupError):
            os.kill(self._gateway, signal.SIGTERM)
        if is_first and self._candidate:
            within = self._candidate.ruleset.gateway.drain_timeout + LAST_ORDER
            self._later(within, self._finish)

    def _finish(self) -> None:
        """Go down now."""
        self._log.close()
        self._console.finish()
        go_down(self._down if self._down is not None else Restart.AUTOBOOT, self._storage.unmount)

    # -- for people -----------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Something about the network is different."""
        self._journal.wrote()
        self._keep_slot()
        if self._ready_at is not None:
            self._keep_time()
        self._show_soon()

    def _show_soon(self) -> None:
        if not self._is_screen_due:
            self._is_screen_due = True
            self._later(SETTLE, self._show)

    def _show(self) -> None:
        """Show the screen, if it says something new."""
        self._is_screen_due = False
        if self._ready_at is not None:
            self._keep_time()
        text = screen.render(self._view())
        if text != self._shown:
            self._shown = text
            self._say(text)

    def _say(self, text: str) -> None:
        self._journal.flush()
        self._console.drain()
        self._console.write(text.encode())

    def _view(self) -> screen.View:
        network, candidate = self._network, self._candidate
        return screen.View(
            host_name=network.host_name if network else "",
            interfaces=network.shown() if network else (),
            name_servers=network.name_servers if network else (),
            rules_from=candidate.text.origin if candidate else "none yet",
            ruleset=candidate.ruleset if candidate else None,
            health=self._health(),
            config=self._storage.where,
            state=self._storage.state,
            problems=tuple(self._problems),
            history=self._history,
            notes=tuple(self._notes),
        )

    def _health(self) -> str:
        if self._ready_at is None:
            return "starting"
        return "healthy" if self._is_healthy else f"ready for less than {HEALTHY_AFTER:.0f} s"

    def _keep_failure(self, text: str) -> float:
        *_, last = text.strip().splitlines()
        return self._storage.keep_reason(f"PID 1 has failed: {last}", tuple(text.splitlines()[-KEPT:]))

    def _report_fault(self, fault: BaseException) -> None:
        if not self._gateway and self._down is None:  # it came between a gateway's end and what follows it
            self._down = Restart.AUTOBOOT
            self._later(crash.UNKNOWN_PAUSE, self._finish)
        self._log.error(Event.INTERNAL_ERROR, exc_info=fault)
        self._journal.flush()


class _Later:
    """A task for later, as the timers call it."""

    def __init__(self, task: Callable[[], None]) -> None:
        self._task = task

    def on_deadline(self, now: float) -> None:  # noqa: ARG002  as the timers call it
        """Do it."""
        self._task()

    def on_fault(self) -> None:
        """Nothing ends."""
