"""What `kdnsctl doctor` found, as values, and their stable JSON form (kind `DoctorReport`).

Nothing is asked here: `doctor` fills these records, `cli` renders them. The JSON keys are a promise
(docs/schemas/DoctorReport.schema.json): they may grow, they never change meaning.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kdnsctl.access.needs import Needs
from kdnsctl.access.review import Access
from kdnsctl.cluster.target import Target
from kdnsctl.model import API_VERSION, ExitCode


class State(enum.StrEnum):
    """How a check came out. `warning`: commands work, and the operator should know something."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Ability(enum.StrEnum):
    """Whether a command may do its work: all of it, knowing less, not (or not for all nodes), or not known."""

    WORKS = "works"
    LIMITED = "limited"
    FAILS = "fails"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `name` is stable. `hint` says what to do, empty when nothing is to do."""

    name: str
    state: State
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class CommandState:
    """What will become of one command. `lacking` are the permissions that it does without, the needed first.

    `options` are those of its options that need permissions of their own: True when they are all allowed, None when
    that is not known. `why` is set when no permission is to blame.
    """

    name: str
    ability: Ability
    lacking: tuple[Access, ...] = ()
    options: tuple[tuple[str, bool | None], ...] = ()
    why: str = ""
    needed: int = 0  # so many of `lacking` are needed ones

    @property
    def decisive(self) -> tuple[Access, ...]:
        """Those that its ability is owed to: without a needed one, what is merely helpful does not matter."""
        return self.lacking[: self.needed] or self.lacking


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """The whole answer. `clock` is by how many seconds this machine's clock is ahead of the server's, if known."""

    generated_at: datetime
    client_version: str
    target: Target | None
    checks: tuple[Check, ...]
    permissions: tuple[Access, ...]
    commands: tuple[CommandState, ...]
    server_version: str | None = None
    address: str | None = None
    clock: float | None = None
    rungs: tuple[CommandState, ...] = ()  # the ways to nodes


def ability_of(name: str, needs: Needs, answers: Mapping[object, Access]) -> CommandState:
    """What a command can do with these answers, which are by permission."""
    lacking = [answers[one] for one in (*needs.needed, *needs.helpful) if not answers[one].allowed]
    needed = [answers[one].allowed for one in needs.needed]
    if False in needed:
        ability = Ability.FAILS
    elif None in needed:
        ability = Ability.UNKNOWN
    else:
        ability = Ability.LIMITED if lacking else Ability.WORKS
    options = tuple((option, _all(answers[one].allowed for one in of)) for option, of in needs.with_option.items())
    return CommandState(name, ability, tuple(lacking), options, needed=sum(not allowed for allowed in needed))


def _all(answers: Any) -> bool | None:
    known = list(answers)
    return False if False in known else None if None in known else True


def exit_code(report: DoctorReport) -> ExitCode:
    """1 when a command will not work, 4 when one knows less or nobody knows, else 0."""
    abilities = {command.ability for command in report.commands}
    if Ability.FAILS in abilities:
        return ExitCode.FAILED
    return ExitCode.INCOMPLETE if abilities - {Ability.WORKS} else ExitCode.OK


def to_json(report: DoctorReport) -> dict[str, Any]:
    """The report as plain data for `-o json` and `-o yaml`, keys in their documented order."""
    target = report.target
    whom = target.impersonation if target else None
    return {
        "apiVersion": API_VERSION,
        "kind": "DoctorReport",
        "generatedAt": report.generated_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "clientVersion": report.client_version,
        "serverVersion": report.server_version,
        "server": target.server if target else None,
        "context": target.context if target else None,
        "user": target.user if target else None,
        "impersonating": whom.user if whom else None,
        "proxy": target.proxy.url if target and target.proxy else None,
        "address": report.address,
        "clockAheadSeconds": report.clock,
        "checks": [
            {"name": check.name, "state": check.state.value, "detail": check.detail, "hint": check.hint}
            for check in report.checks
        ],
        "permissions": [_permission(answer) for answer in report.permissions],
        "commands": [
            {
                "name": command.name,
                "ability": command.ability.value,
                "why": command.why,
                "lacking": [str(answer.permission) for answer in command.lacking],
                "options": dict(command.options),
            }
            for command in report.commands
        ],
        "rungs": [
            {
                "name": rung.name,
                "ability": rung.ability.value,
                "why": rung.why,
                "lacking": [str(answer.permission) for answer in rung.lacking],
            }
            for rung in report.rungs
        ],
    }


def _permission(answer: Access) -> dict[str, Any]:
    permission = answer.permission
    return {
        "permission": str(permission),
        "verb": permission.verb,
        "group": permission.group,
        "resource": permission.resource,
        "subresource": permission.subresource,
        "namespace": permission.namespace,
        "resourceName": permission.name,
        "allowed": answer.allowed,
        "why": answer.why,
        "without": permission.without,
    }
