"""A ruleset from the bytes of its file: the one way in."""

from msgspec import UNSET

from appliance.problem import Problem
from appliance.ruleset.check import check
from appliance.ruleset.decode import decode
from appliance.ruleset.finding import Finding, dotted
from appliance.ruleset.model import DefaultsTable, File, RuleTable
from appliance.ruleset.parse import parse
from appliance.ruleset.rules import Gateway, Rule, Ruleset
from appliance.ruleset.source import Source


def read(text: bytes, file: str) -> Ruleset | tuple[Problem, ...]:
    """Read a ruleset.

    `text` is the file's raw bytes, `file` the name that places give it; nothing is opened. Gives the ruleset,
    or every problem of the text in the order of their places. Never raises, whatever the text holds.
    """
    parsed = parse(text, file)
    if isinstance(parsed, Problem):
        return (parsed,)
    source, document = parsed
    decoded = decode(document)
    findings = decoded.findings + check(decoded.rules)
    if findings or decoded.file is None:
        return _problems(source, findings)
    return _complete(decoded.file)


def _problems(source: Source, findings: list[Finding]) -> tuple[Problem, ...]:
    from appliance.ruleset.places import Places  # noqa: PLC0415 - tomlkit is needed only where there are problems

    places = Places(source)
    return tuple(
        sorted(
            Problem(
                places.of(finding.path, at_key=finding.at_key),
                dotted(finding.path),
                finding.what,
                finding.hint,
                tuple(places.of(other) for other in finding.others),
            )
            for finding in findings
        )
    )


def _complete(file: File) -> Ruleset:
    workers, drain_timeout = file.gateway.workers, float(file.gateway.drain_timeout)
    gateway = Gateway(workers=None if workers == "auto" else workers, drain_timeout=drain_timeout)
    return Ruleset(gateway=gateway, rules=tuple(_rule(rule, file.defaults) for rule in file.rule))


def _rule(rule: RuleTable, defaults: DefaultsTable) -> Rule:
    connect_timeout = defaults.connect_timeout if rule.connect_timeout is UNSET else rule.connect_timeout
    idle_timeout = defaults.idle_timeout if rule.idle_timeout is UNSET else rule.idle_timeout
    return Rule(
        name=rule.name,
        listen=tuple(rule.listen),
        to=tuple(rule.to),
        protocol=defaults.protocol if rule.protocol is UNSET else rule.protocol,
        connect_timeout=float(connect_timeout),
        idle_timeout=float(idle_timeout),
    )
