"""Every event and every field of the log, once: name, kind, unit, meaning.

Log lines, tests and docs/log.md are made from these tables (`python -m appliance.observe.reference`).
A field that never came to be is left out of its record; it is never null.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final, Self

from appliance.outcome import Cause, Drop


@unique
class Level(StrEnum):
    """How much a record asks of its reader."""

    __hash__ = str.__hash__  # Enum's own is a Python function: 0.15 us for each look-up

    INFO = "info"
    """Nothing to do."""
    WARNING = "warning"
    """Something outside Portway failed, or a limit was reached."""
    ERROR = "error"
    """A fault in Portway."""


@unique
class Kind(StrEnum):
    """The JSON type of a field."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    OBJECT = "object"
    """Counts: whole numbers above 0, by what was counted."""


@unique
class Field(StrEnum):
    """A key of a record."""

    kind: Kind
    unit: str
    meaning: str

    def __new__(cls, name: str, kind: Kind, unit: str, meaning: str) -> Self:
        """Make the member a string that carries its kind, unit and meaning."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.kind = kind
        member.unit = unit
        member.meaning = meaning
        return member

    EVENT = "event", Kind.STRING, "", "What is reported; the first key of every record."
    LEVEL = "level", Kind.STRING, "", "info, warning or error."
    TIME = (
        "time",
        Kind.STRING,
        "RFC 3339, UTC, milliseconds",
        "When the record was written; a session's is when it ended.",
    )
    SESSION = (
        "session",
        Kind.STRING,
        "ULID, 26 characters",
        "The session or flow. Unique; sorts by the time it was accepted or its first datagram came.",
    )
    RULE = "rule", Kind.STRING, "", "The rule's name in the ruleset."
    PROTOCOL = "protocol", Kind.STRING, "", "tcp or udp."
    CLIENT = (
        "client",
        Kind.STRING,
        "address:port, [address]:port or unix",
        "Who connected, or sent; `unix` for a client of a unix socket, which has no address.",
    )
    LISTENER = (
        "listener",
        Kind.STRING,
        "address:port, [address]:port or unix:/path",
        "The bound socket.",
    )
    ENDPOINT = (
        "endpoint",
        Kind.STRING,
        "address:port, [address]:port or unix:/path",
        "The endpoint dialled last. Left out when none was.",
    )
    AGENT = "agent", Kind.STRING, "", "The agent's name. Left out where no agent carries the session."
    PEER = "peer", Kind.STRING, "address:port or [address]:port", "The other end of a tunnel's connection."
    GATEWAY = "gateway", Kind.STRING, "host:port", "The gateway as the agent's join file names it."
    REFUSAL = "refusal", Kind.STRING, "", "Why a connection to the tunnel's port was refused: see Refusals."
    RETRY_MS = "retry_ms", Kind.NUMBER, "milliseconds", "The pause before the next try."
    SERIAL = "serial", Kind.STRING, "hexadecimal", "The serial number of a certificate."
    STAGE = "stage", Kind.STRING, "", "How far the session or flow came."
    CAUSE = "cause", Kind.STRING, "", "What ended the session or flow."
    UP = "up", Kind.INTEGER, "bytes", "From client to endpoint, as far as the kernel took them to send."
    DOWN = "down", Kind.INTEGER, "bytes", "From endpoint to client, as far as the kernel took them to send."
    UP_DATAGRAMS = (
        "up_datagrams",
        Kind.INTEGER,
        "datagrams",
        "From client to endpoint, as far as the kernel took them to send. Left out unless `protocol` is udp.",
    )
    DOWN_DATAGRAMS = (
        "down_datagrams",
        Kind.INTEGER,
        "datagrams",
        "From endpoint to client, as far as the kernel took them to send. Left out unless `protocol` is udp.",
    )
    DROPS = (
        "drops",
        Kind.OBJECT,
        "datagrams by drop",
        "The flow's datagrams that were not passed on, by why: see Drops. Left out when there were none.",
    )
    CONNECT_MS = (
        "connect_ms",
        Kind.NUMBER,
        "milliseconds",
        "From the start of the dial that succeeded to its connection. Left out when none did, and for udp.",
    )
    FIRST_BYTE_MS = (
        "first_byte_ms",
        Kind.NUMBER,
        "milliseconds",
        "From accept, or a flow's first datagram, to the endpoint's first byte. Left out when none came.",
    )
    DURATION_MS = (
        "duration_ms",
        Kind.NUMBER,
        "milliseconds",
        "From accept, or a flow's first datagram, to the end.",
    )
    ATTEMPTS = (
        "attempts",
        Kind.INTEGER,
        "dials",
        "How many endpoints were dialled. Left out unless more than one.",
    )
    WORKER = "worker", Kind.INTEGER, "index from 0", "The worker."
    WORKERS = "workers", Kind.INTEGER, "processes", "How many workers run."
    PID = "pid", Kind.INTEGER, "", "The process."
    VERSION = "version", Kind.STRING, "", "The version of Portway."
    EXIT_STATUS = (
        "exit_status",
        Kind.INTEGER,
        "",
        "What the process returned. Left out when a signal ended it.",
    )
    SIGNAL = "signal", Kind.STRING, "", "The signal that ended the process, or asked it to stop: SIGTERM."
    RESTART_MS = (
        "restart_ms",
        Kind.NUMBER,
        "milliseconds",
        "After how long a new worker takes the place. Left out when none will.",
    )
    SESSIONS_MAX = (
        "sessions_max",
        Kind.INTEGER,
        "sessions",
        "How many each worker takes at a time: as many as its file descriptors allow.",
    )
    FLOWS_MAX = (
        "flows_max",
        Kind.INTEGER,
        "flows",
        "How many UDP flows each worker takes at a time. Left out where no rule carries UDP.",
    )
    DEADLINE_MS = "deadline_ms", Kind.NUMBER, "milliseconds", "After how long live sessions are cut."
    NAME = "name", Kind.STRING, "", "The host name."
    ERROR = (
        "error",
        Kind.STRING,
        "",
        (
            "What failed: the errno's name (EMFILE), `session_limit` (the worker has all the sessions its "
            "file descriptors allow), or the message."
        ),
    )
    COUNT = (
        "count",
        Kind.INTEGER,
        "lines or datagrams",
        "How many were dropped since the last such report.",
    )
    WANTED = "wanted", Kind.INTEGER, "bytes", "What the ruleset asks for."
    GRANTED = "granted", Kind.INTEGER, "bytes", "What the kernel gives."
    INTERFACE = "interface", Kind.STRING, "", "The network interface."
    ADDRESS = "address", Kind.STRING, "address/length", "The address, with its network's length."
    SERVER = "server", Kind.STRING, "address or host name", "The server that said so."
    LEASE_MS = (
        "lease_ms",
        Kind.NUMBER,
        "milliseconds",
        "How long the lease holds unless it is renewed. Left out when it holds for ever.",
    )
    OFFSET_MS = "offset_ms", Kind.NUMBER, "milliseconds", "How far the clock was behind the server's."
    ACTION = (
        "action",
        Kind.STRING,
        "",
        "What is done: `off` or `reboot` (power), `step` (at once) or `slew` (gradually; the clock).",
    )
    UPTIME_MS = "uptime_ms", Kind.NUMBER, "milliseconds", "Since the kernel started."
    RULES = "rules", Kind.INTEGER, "rules", "How many the ruleset has."
    KEPT = "kept", Kind.INTEGER, "listeners", "How many both rulesets have."
    OPENED = "opened", Kind.INTEGER, "listeners", "How many only the new ruleset has."
    CLOSED = "closed", Kind.INTEGER, "listeners", "How many only the former ruleset had."
    EXCEPTION = "exception", Kind.STRING, "lines", "The traceback."
    MESSAGE = "message", Kind.STRING, "", "What is the matter, in a sentence."


@unique
class Event(StrEnum):
    """What a record reports, with the fields it has always and the ones it has when they came to be."""

    levels: tuple[Level, ...]
    meaning: str
    always: tuple[Field, ...]
    sometimes: tuple[Field, ...]

    def __new__(
        cls,
        name: str,
        levels: tuple[Level, ...],
        meaning: str,
        always: tuple[Field, ...] = (),
        sometimes: tuple[Field, ...] = (),
    ) -> Self:
        """Make the member a string that carries what its records look like."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.levels = levels
        member.meaning = meaning
        member.always = always
        member.sometimes = sometimes
        return member

    SESSION = (
        "session",
        (Level.INFO, Level.WARNING, Level.ERROR),
        "A session or flow ended. One for every accepted client; the level follows the cause.",
        (
            Field.SESSION,
            Field.RULE,
            Field.PROTOCOL,
            Field.CLIENT,
            Field.LISTENER,
            Field.STAGE,
            Field.CAUSE,
            Field.UP,
            Field.DOWN,
            Field.DURATION_MS,
        ),
        (
            Field.ENDPOINT,
            Field.AGENT,
            Field.UP_DATAGRAMS,
            Field.DOWN_DATAGRAMS,
            Field.DROPS,
            Field.CONNECT_MS,
            Field.FIRST_BYTE_MS,
            Field.ATTEMPTS,
        ),
    )
    LISTENING = (
        "listening",
        (Level.INFO,),
        "A listener is bound.",
        (Field.RULE, Field.PROTOCOL, Field.LISTENER),
    )
    RECEIVE_BUFFER_LIMITED = (
        "receive_buffer_limited",
        (Level.WARNING,),
        (
            "The kernel grants the UDP sockets of a rule less than its `receive_buffer`, so a burst may cost "
            "datagrams: raise net.core.rmem_max (sysctl)."
        ),
        (Field.RULE, Field.WANTED, Field.GRANTED),
    )
    READY = (
        "ready",
        (Level.INFO,),
        "Every worker accepts clients.",
        (Field.WORKERS, Field.PID, Field.VERSION, Field.SESSIONS_MAX),
        (Field.FLOWS_MAX,),
    )
    WORKER_STARTED = "worker_started", (Level.INFO,), "A worker runs.", (Field.WORKER, Field.PID)
    WORKER_ENDED = (
        "worker_ended",
        (Level.INFO, Level.WARNING),
        "A worker is gone: asked to (info), or not (warning). Exit status or signal says how.",
        (Field.WORKER, Field.PID),
        (Field.EXIT_STATUS, Field.SIGNAL, Field.RESTART_MS),
    )
    RELOADED = (
        "reloaded",
        (Level.INFO,),
        (
            "The ruleset was read again and is in force: new workers are started on it, and the former ones "
            "drain once those accept."
        ),
        (Field.RULES, Field.KEPT, Field.OPENED, Field.CLOSED),
    )
    RELOAD_FAILED = (
        "reload_failed",
        (Level.ERROR,),
        "The ruleset as it is now cannot be put in force: nothing has changed.",
        (Field.MESSAGE,),
    )
    DRAINING = (
        "draining",
        (Level.INFO,),
        "No more clients are accepted; live sessions may end by themselves until the deadline.",
        (Field.SIGNAL, Field.DEADLINE_MS),
    )
    STOPPED = "stopped", (Level.INFO,), "The gateway ends; the last record."
    LISTENER_PAUSED = (
        "listener_paused",
        (Level.WARNING,),
        (
            "A worker accepts no more at this listener for now: it lacks file descriptors or memory, or has "
            "all the sessions it may have; `error` says which. Its clients wait in the kernel's queue."
        ),
        (Field.RULE, Field.LISTENER, Field.ERROR, Field.WORKER),
    )
    LISTENER_RESUMED = (
        "listener_resumed",
        (Level.INFO,),
        "The worker accepts again after listener_paused.",
        (Field.RULE, Field.LISTENER, Field.WORKER),
    )
    DATAGRAMS_DROPPED = (
        "datagrams_dropped",
        (Level.WARNING,),
        (
            "The kernel dropped datagrams of clients at this listener, before they belonged to a flow: its "
            "receive buffer was full."
        ),
        (Field.RULE, Field.LISTENER, Field.WORKER, Field.COUNT),
    )
    LOG_DROPPED = (
        "log_dropped",
        (Level.WARNING,),
        "The reader of the log was too slow, gone, or its disk full: lines are missing here.",
        (Field.COUNT,),
    )
    INTERNAL_ERROR = (
        "internal_error",
        (Level.ERROR,),
        "A fault in Portway, with its traceback. Please report it. In the master there is no `worker`.",
        (Field.EXCEPTION,),
        (Field.WORKER,),
    )
    RESOLVE_FAILED = (
        "resolve_failed",
        (Level.WARNING,),
        "A host name of the ruleset does not resolve.",
        (Field.NAME, Field.ERROR, Field.WORKER),
    )
    MACHINE_STARTED = (
        "machine_started",
        (Level.INFO,),
        "The VM is set up and starts its gateway; `message` says whose rules it runs.",
        (Field.VERSION, Field.UPTIME_MS, Field.MESSAGE),
    )
    ADDRESS_ADDED = (
        "address_added",
        (Level.INFO,),
        "An interface of the VM has an address.",
        (Field.INTERFACE, Field.ADDRESS),
    )
    ADDRESS_REMOVED = (
        "address_removed",
        (Level.INFO,),
        "An interface of the VM has lost an address.",
        (Field.INTERFACE, Field.ADDRESS),
    )
    LEASE_OBTAINED = (
        "lease_obtained",
        (Level.INFO,),
        "A DHCP server grants the VM an address, or something new with it.",
        (Field.INTERFACE, Field.ADDRESS, Field.SERVER),
        (Field.LEASE_MS,),
    )
    LEASE_LOST = (
        "lease_lost",
        (Level.WARNING,),
        "The DHCP server has taken the address back, or did not renew it in time.",
        (Field.INTERFACE, Field.ADDRESS, Field.SERVER),
    )
    CLOCK_SET = (
        "clock_set",
        (Level.INFO,),
        "The VM's clock is brought to the time of a server: the first time, and after steps and failures.",
        (Field.SERVER, Field.OFFSET_MS, Field.ACTION),
    )
    GATEWAY_ENDED = (
        "gateway_ended",
        (Level.INFO, Level.ERROR),
        "The VM's gateway is gone: asked to (info), or not (error), which restarts the VM.",
        (Field.PID,),
        (Field.EXIT_STATUS, Field.SIGNAL, Field.RESTART_MS),
    )
    RESTARTED_AFTER = (
        "restarted_after",
        (Level.WARNING,),
        "Why the VM had to restart; more in crash.log on its PORTWAY partition.",
        (Field.MESSAGE,),
    )
    POWER = (
        "power",
        (Level.INFO,),
        "The VM is told to turn off or to reboot; `message` says by what.",
        (Field.ACTION, Field.MESSAGE),
    )
    AGENT_CONNECTED = (
        "agent_connected",
        (Level.INFO,),
        "An agent has a control channel to this worker, and its rules can be served.",
        (Field.AGENT, Field.PEER, Field.VERSION, Field.WORKER),
    )
    AGENT_LOST = (
        "agent_lost",
        (Level.INFO, Level.WARNING),
        "An agent's control channel has ended: in order (info), or not (warning); `error` says how.",
        (Field.AGENT, Field.PEER, Field.ERROR, Field.DURATION_MS, Field.WORKER),
    )
    TUNNEL_REFUSED = (
        "tunnel_refused",
        (Level.WARNING,),
        (
            "Somebody connected to the tunnel's port and was refused; `refusal` says why. Of many like it in "
            "a row one is reported, with how many there were."
        ),
        (Field.PEER, Field.REFUSAL, Field.WORKER),
        (Field.AGENT, Field.ERROR, Field.COUNT),
    )
    TUNNEL_UP = (
        "tunnel_up",
        (Level.INFO,),
        "This agent has a control channel to a gateway.",
        (Field.AGENT, Field.GATEWAY, Field.PEER, Field.VERSION, Field.WORKER),
    )
    TUNNEL_DOWN = (
        "tunnel_down",
        (Level.INFO, Level.WARNING),
        (
            "This agent has no control channel to a gateway, and tries again; `error` says why. Told again "
            "when that changes, and every minute."
        ),
        (Field.AGENT, Field.GATEWAY, Field.ERROR, Field.WORKER),
        (Field.PEER, Field.RETRY_MS),
    )
    CERTIFICATE_RENEWED = (
        "certificate_renewed",
        (Level.INFO,),
        "An agent has a new certificate: made by the gateway, which tells its serial, or got by the agent.",
        (Field.AGENT, Field.WORKER),
        (Field.SERIAL,),
    )
    WARNING = (
        "warning",
        (Level.WARNING,),
        "Something an operator should know and nothing else reports.",
        (Field.MESSAGE,),
        (Field.LISTENER, Field.WORKER, Field.ERROR),
    )


SESSION_LEVEL: Final[Mapping[Cause, Level]] = MappingProxyType(
    {
        Cause.CLIENT_EOF: Level.INFO,
        Cause.ENDPOINT_EOF: Level.INFO,
        # A peer that aborts is everyday traffic (browsers, health checks): nobody has to act on it.
        Cause.CLIENT_RESET: Level.INFO,
        Cause.ENDPOINT_RESET: Level.INFO,
        Cause.IDLE_TIMEOUT: Level.INFO,
        Cause.ANSWERED: Level.INFO,
        Cause.DRAIN: Level.INFO,
        Cause.DIAL_REFUSED: Level.WARNING,
        Cause.DIAL_TIMEOUT: Level.WARNING,
        Cause.DIAL_UNREACHABLE: Level.WARNING,
        Cause.DIAL_RESOLVE: Level.WARNING,
        Cause.AGENT_OFFLINE: Level.WARNING,
        Cause.AGENT_DENIED: Level.WARNING,
        Cause.SOURCE_UNAVAILABLE: Level.WARNING,
        Cause.FD_LIMIT: Level.WARNING,
        Cause.FLOW_LIMIT: Level.WARNING,
        Cause.ENDPOINT_REFUSED: Level.WARNING,
        Cause.ENDPOINT_UNREACHABLE: Level.WARNING,
        Cause.INTERNAL: Level.ERROR,
    }
)
"""The level of a session's or flow's record, by what ended it."""

HEAD: Final = (Field.EVENT, Field.LEVEL, Field.TIME)
"""The keys every record begins with, in this order."""


def deviations(record: Mapping[str, object]) -> list[str]:
    """Say where a decoded record differs from these tables: one sentence each, none when it conforms."""
    name = record.get("event")
    event = next((event for event in Event if event == name), None)
    if event is None:
        return [f"unknown event {name!r}"]
    found = [] if tuple(record)[:3] == HEAD else [f"begins with {', '.join(tuple(record)[:3])}"]
    if record.get("level") not in event.levels:
        found.append(f"{event} at level {record.get('level')!r}")
    found += [f"{event} without {field}" for field in event.always if field not in record]
    known = {*HEAD, *event.always, *event.sometimes}
    found += [f"{event} with {key}" for key in record if key not in known]
    found += [
        f"{field} is {record[field]!r}, not of type {field.kind}"
        for field in Field
        if field in record and not _IS[field.kind](record[field])
    ]
    return found


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_counts(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(key in tuple(Drop) and _is_integer(count) and count > 0 for key, count in value.items())
    )


_IS: Final[Mapping[Kind, Callable[[object], bool]]] = MappingProxyType(
    {
        Kind.STRING: lambda value: isinstance(value, str),
        Kind.INTEGER: _is_integer,
        Kind.NUMBER: lambda value: isinstance(value, float) or _is_integer(value),
        Kind.OBJECT: _is_counts,
    }
)
