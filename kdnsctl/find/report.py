"""What find-affected found, as values, and their stable JSON form (kind `FindReport`).

Nothing is judged here and nothing printed: `judge` fills these records, `cli` renders them. The JSON keys are a
promise (docs/schemas/FindReport.schema.json): they may grow, they never change meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from kdnsctl.diagnosis.findings import Diagnosis, Finding
from kdnsctl.model import API_VERSION, Basis, Coverage, Verdict

_ORDER = (Verdict.AFFECTED, Verdict.SUSPECT, Verdict.UNKNOWN, Verdict.CLEAN, Verdict.NOT_APPLICABLE)


@dataclass(frozen=True, slots=True)
class SignatureCount:
    """How often one signature of the catalogue was logged; times are UTC, None where no line carried one."""

    id: str
    count: int
    first_seen: datetime | None
    last_seen: datetime | None
    example: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """A conntrack deletion that failed: flows to `vip` still go to `endpoint` ("" when the log names none)."""

    vip: str
    endpoint: str
    service: str
    count: int
    first_seen: datetime | None
    last_seen: datetime | None


@dataclass(frozen=True, slots=True)
class CauseCount:
    """Why kube-proxy says it failed, by the catalogue's cause id ("other" when the catalogue has none)."""

    id: str
    count: int
    meaning: str
    example: str = ""


@dataclass(frozen=True, slots=True)
class EmbeddedEntries:
    """conntrack entries printed inside the errors: they were deleted before the failure, so they name the clients.

    `clients` is sorted and capped; `complete` is False when the cap or a cut-off record left some out.
    """

    count: int
    clients: tuple[str, ...]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class RaceWindow:
    """What else kube-proxy did within `seconds` of an endpoint removal or of a failed deletion for the Service.

    A restart or a failed rules write this close to a CoreDNS roll-out is the textbook way to lose a clean-up
    (kubernetes/kubernetes#125467, #112604).
    """

    seconds: int
    first: datetime
    last: datetime
    endpoint_changes: int
    restarts: tuple[datetime, ...]
    sync_failures: int


@dataclass(frozen=True, slots=True)
class EarlierFailures:
    """Failures logged before the window, about the Services asked for, with whatever signature.

    `next_start` is when kube-proxy first started after the last of them: that normally removes what they left behind.
    """

    count: int
    last_seen: datetime | None
    next_start: datetime | None


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a node's log covers, UTC: from its first record to its last.

    The log of a running kube-proxy covers the time up to when it was read: it had nothing more to say.
    """

    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class KubeProxy:
    """What the log tells of kube-proxy itself. `version` is exact ("v1.30.3"); `versions` a range when it is not."""

    version: str | None = None
    versions: str = ""
    mode: str | None = None
    verbosity: int | None = None
    pods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """A piece of evidence that is missing or damaged: `code` is stable, `message` for people, `source` says where."""

    code: str
    message: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class NodeState:
    """What the node's own tables say: the judgement on them, when they were last read, and by which way."""

    read_at: datetime | None
    via: str
    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True)
class NodeFinding:
    """Everything that is said of one node.

    `identified` is False when the input did not say which node it was from: `name` is then a pod or file name, shown
    but never passed on to another command. `complete` is False when a part of the evidence was missing or damaged.
    """

    name: str
    verdict: Verdict
    basis: Basis | None
    reason: str
    reason_code: str = ""
    identified: bool = True
    name_from: str = ""
    stale_entries: int | None = None
    signatures: tuple[SignatureCount, ...] = ()
    events: tuple[SignatureCount, ...] = ()
    peers: tuple[Peer, ...] = ()
    causes: tuple[CauseCount, ...] = ()
    embedded_entries: EmbeddedEntries | None = None
    other_services: Mapping[str, int] = field(default_factory=dict)
    earlier_failures: EarlierFailures | None = None
    race_window: RaceWindow | None = None
    kube_proxy: KubeProxy = KubeProxy()
    restarts: tuple[datetime, ...] = ()
    restart_count: int = 0
    span: Span | None = None
    complete: bool = True
    problems: tuple[Problem, ...] = ()
    sources: tuple[str, ...] = ()
    state: NodeState | None = None


@dataclass(frozen=True, slots=True)
class FindReport:
    """The whole answer. `notes` are lines for people about the run as a whole, `next_commands` what to run now."""

    generated_at: datetime
    nodes: tuple[NodeFinding, ...]
    coverage: Coverage
    cluster: str | None = None
    services: tuple[str, ...] = ()
    since: datetime | None = None
    skipped: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    next_commands: tuple[str, ...] = ()


class Judged(Protocol):
    """A node in a report."""

    @property
    def name(self) -> str: ...
    @property
    def verdict(self) -> Verdict: ...


J = TypeVar("J", bound=Judged)


def in_order(nodes: Iterable[J]) -> tuple[J, ...]:
    """As they are reported: what needs somebody first, then by name."""
    return tuple(sorted(nodes, key=lambda node: (_ORDER.index(node.verdict), node.name)))


def timestamp(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with microseconds, as klog prints them, or None."""
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def to_json(report: FindReport) -> dict[str, Any]:
    """The report as plain data for `-o json` and `-o yaml`, keys in their documented order."""
    return {
        "apiVersion": API_VERSION,
        "kind": "FindReport",
        "cluster": report.cluster,
        "generatedAt": timestamp(report.generated_at),
        "services": list(report.services),
        "since": timestamp(report.since),
        "nodes": [_node(node) for node in report.nodes],
        "coverage": coverage_to_json(report.coverage),
        "skipped": [problem_to_json(problem) for problem in report.skipped],
        "notes": list(report.notes),
        "nextCommands": list(report.next_commands),
    }


def _node(node: NodeFinding) -> dict[str, Any]:
    span, race, embedded, proxy = node.span, node.race_window, node.embedded_entries, node.kube_proxy
    earlier = node.earlier_failures
    return {
        "name": node.name,
        "identified": node.identified,
        "nameFrom": node.name_from,
        "verdict": node.verdict.value,
        "basis": node.basis.value if node.basis else None,
        "reason": node.reason,
        "reasonCode": node.reason_code,
        "complete": node.complete,
        "signatures": [_signature(signature) for signature in node.signatures],
        "staleEntries": node.stale_entries,
        "state": _state(node.state),
        "peers": [
            {
                "vip": peer.vip,
                "endpoint": peer.endpoint,
                "service": peer.service,
                "count": peer.count,
                "firstSeen": timestamp(peer.first_seen),
                "lastSeen": timestamp(peer.last_seen),
            }
            for peer in node.peers
        ],
        "causes": [
            {"id": cause.id, "count": cause.count, "meaning": cause.meaning, "example": cause.example}
            for cause in node.causes
        ],
        "embeddedEntries": embedded
        and {"count": embedded.count, "clients": list(embedded.clients), "complete": embedded.complete},
        "otherServices": dict(node.other_services),
        "earlierFailures": earlier
        and {
            "count": earlier.count,
            "lastSeen": timestamp(earlier.last_seen),
            "nextStart": timestamp(earlier.next_start),
        },
        "raceWindow": race
        and {
            "seconds": race.seconds,
            "first": timestamp(race.first),
            "last": timestamp(race.last),
            "endpointChanges": race.endpoint_changes,
            "restarts": [timestamp(moment) for moment in race.restarts],
            "syncFailures": race.sync_failures,
        },
        "kubeProxy": {
            "version": proxy.version,
            "versions": proxy.versions,
            "mode": proxy.mode,
            "verbosity": proxy.verbosity,
            "pods": list(proxy.pods),
        },
        "restarts": [timestamp(moment) for moment in node.restarts],
        "restartCount": node.restart_count,
        "span": span and {"first": timestamp(span.first), "last": timestamp(span.last)},
        "events": [_signature(event) for event in node.events],
        "problems": [problem_to_json(problem) for problem in node.problems],
        "sources": list(node.sources),
    }


def _state(state: NodeState | None) -> dict[str, Any] | None:
    if state is None:
        return None
    diagnosis = state.diagnosis
    return {
        "verdict": diagnosis.verdict.value,
        "reason": diagnosis.reason.message,
        "reasonCode": diagnosis.reason.code,
        "complete": diagnosis.complete,
        "reads": diagnosis.reads,
        "readAt": timestamp(state.read_at),
        "via": state.via,
        "findings": [finding_to_json(finding) for finding in diagnosis.findings],
    }


def finding_to_json(finding: Finding) -> dict[str, Any]:
    """One finding of a check, as every report has it."""
    return {
        "id": finding.id,
        "severity": finding.severity.value,
        "service": finding.service,
        "port": finding.port,
        "protocol": finding.protocol,
        "family": finding.family,
        "count": finding.count,
        "backends": list(finding.backends),
        "clients": [
            {"address": client.address, "count": client.count, "pod": client.pod, "namespace": client.namespace}
            for client in finding.clients
        ],
        "explanation": finding.explanation,
        "advice": finding.advice,
        "commands": list(finding.commands),
        "repair": finding.repair,
    }


def _signature(signature: SignatureCount) -> dict[str, Any]:
    return {
        "id": signature.id,
        "count": signature.count,
        "firstSeen": timestamp(signature.first_seen),
        "lastSeen": timestamp(signature.last_seen),
        "example": signature.example,
    }


def coverage_to_json(coverage: Coverage) -> dict[str, Any]:
    """How much of what was in scope could be judged, as every report has it."""
    return {
        "inScope": coverage.in_scope,
        "judged": coverage.judged,
        "unknown": coverage.unknown,
        "notApplicable": coverage.not_applicable,
        "scope": coverage.scope.value,
    }


def problem_to_json(problem: Problem) -> dict[str, str]:
    """A piece of evidence that is missing or damaged, as every report has it."""
    return {"code": problem.code, "message": problem.message, "source": problem.source}
