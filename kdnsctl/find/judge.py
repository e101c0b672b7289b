"""One node's log judged: what was counted in it becomes a verdict, with its reason and everything that supports it.

Pure. The rules: a failure logged for the Services asked for makes a node suspect, never more; a log without one makes
it clean only if the log is whole, covers the window, is kube-proxy's, and is of a release whose log can tell (up to
1.31). Everything else is unknown. Incomplete evidence can prove a fault, never health.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from kdnsctl.find.race import race_window
from kdnsctl.find.report import (
    CauseCount,
    EmbeddedEntries,
    KubeProxy,
    NodeFinding,
    Peer,
    Problem,
    SignatureCount,
    Span,
    timestamp,
)
from kdnsctl.find.services import concerns, resolved
from kdnsctl.logs.details import CAUSES, OTHER_CAUSE
from kdnsctl.logs.signatures import BY_ID, Kind
from kdnsctl.logs.tally import MOST_CLIENTS, Count, Tally
from kdnsctl.logs.times import to_datetime
from kdnsctl.model import Basis, Reason, UsageError, Verdict

LAST_MINOR_WHOSE_LOG_TELLS = 31
"""From 1.32 on kube-proxy can leave stale entries without a line (kubernetes/kubernetes#139628, #112604)."""

_MEANING = {cause.id: cause.meaning for cause in CAUSES}
_VERSION = re.compile(r"v?1\.(\d{1,3})(?:[.+\-]\S*)?$")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: Services (empty: DNS), signatures (empty: all), the window, the version where the log is mute."""

    services: tuple[str, ...] = ()
    signatures: frozenset[str] = frozenset()
    since: int | None = None
    version: str | None = None


@dataclass(slots=True)
class NodeLog:
    """What there is of one node: its tally, its inputs, and what is wrong with them."""

    name: str
    tally: Tally
    identified: bool = True
    name_from: str = ""
    pods: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    size: int = 0
    records: bool = False


def minor_of(version: str) -> int:
    """The minor release of "v1.30.3", "1.30" or "v1.30.3+k3s1"; raises UsageError for anything else."""
    match = _VERSION.match(version)
    if match is None:
        raise UsageError(f"{version!r} is not a kube-proxy version", hint="for example v1.30.3 or 1.30")
    return int(match[1])


def judge(log: NodeLog, question: Question) -> NodeFinding:
    """The verdict on one node from its log alone."""
    tally = log.tally
    failures, others, peers = _sort_failures(tally, question)
    versions = _Versions.of(tally, question)
    verdict, reason = _verdict(log, question, failures, others, versions)
    removals = [
        time
        for time, service in (*tally.deletions_failed, *tally.endpoint_changes)
        if concerns(service, question.services)
    ]
    span = Span(first, last) if (first := to_datetime(tally.first)) and (last := to_datetime(tally.last)) else None
    return NodeFinding(
        name=log.name,
        verdict=verdict,
        basis=Basis.LOG if log.records else None,
        reason=reason.message,
        reason_code=reason.code,
        identified=log.identified,
        name_from=log.name_from,
        signatures=tuple(
            _signature(signature, failures[signature], tally) for signature in BY_ID if signature in failures
        ),
        events=tuple(
            _signature(signature.id, tally.counts[signature.id], tally)
            for signature in BY_ID.values()
            if signature.kind is not Kind.FAILURE and signature.id in tally.counts
        ),
        peers=peers,
        causes=_causes(tally, failures) if failures else (),
        embedded_entries=EmbeddedEntries(
            tally.entries,
            tuple(sorted(tally.clients)[:MOST_CLIENTS]),
            tally.clients_complete and len(tally.clients) <= MOST_CLIENTS,
        )
        if tally.entries
        else None,
        other_services=others,
        race_window=race_window(removals, tally.starts, tally.syncs_failed),
        kube_proxy=KubeProxy(
            version=versions.exact,
            versions=versions.text,
            mode=tally.mode,
            verbosity=tally.verbosity,
            pods=tuple(sorted(set(log.pods))),
        ),
        restarts=tuple(moment for start in tally.starts if (moment := to_datetime(start))),
        restart_count=tally.start_count,
        span=span,
        complete=not log.problems,
        problems=tuple(log.problems),
        sources=tuple(dict.fromkeys(log.sources)),
    )


def _sort_failures(tally: Tally, question: Question) -> tuple[dict[str, Count], dict[str, int], tuple[Peer, ...]]:
    """Failures about the Services asked for by signature, counts of those about others, and the peers."""
    failures: dict[str, Count] = {}
    others: dict[str, int] = {}
    peers: dict[tuple[str, str, str], Count] = {}
    addresses = dict(tally.addresses)
    for _, service, vip, _ in tally.peers:
        if service and vip:
            addresses.setdefault(vip, service)
    for (signature, said, vip, endpoint), count in tally.peers.items():
        service = resolved(said, vip, addresses)
        if not concerns(service, question.services):
            others[service] = others.get(service, 0) + count.count
            continue
        if question.signatures and signature not in question.signatures:
            continue
        failures.setdefault(signature, Count()).merge(count)
        if vip:
            peers.setdefault((vip, endpoint, service), Count()).merge(count)
    ordered = sorted(peers.items(), key=lambda item: (-item[1].count, item[0]))
    return (
        failures,
        dict(sorted(others.items())),
        tuple(
            Peer(vip, endpoint, service, count.count, to_datetime(count.first), to_datetime(count.last))
            for (vip, endpoint, service), count in ordered
        ),
    )


def _signature(signature: str, count: Count, tally: Tally) -> SignatureCount:
    example = count.example or tally.counts[signature].example
    return SignatureCount(signature, count.count, to_datetime(count.first), to_datetime(count.last), example)


def _causes(tally: Tally, failures: dict[str, Count]) -> tuple[CauseCount, ...]:
    causes: dict[str, Count] = {}
    for (signature, cause), count in tally.causes.items():
        if signature in failures:
            causes.setdefault(cause, Count()).merge(count)
    return tuple(
        CauseCount(cause, count.count, _MEANING.get(cause, "not in the catalogue; see the example"), count.example)
        for cause, count in sorted(causes.items(), key=lambda item: (item[0] == OTHER_CAUSE, -item[1].count, item[0]))
    )


@dataclass(frozen=True, slots=True)
class _Versions:
    """The releases of kube-proxy that can have written the log: `oldest` and `newest` are minors of 1.N."""

    exact: str | None
    oldest: int
    newest: int

    @classmethod
    def of(cls, tally: Tally, question: Question) -> _Versions:
        said = [version for _, version in tally.versions if _VERSION.match(version)]
        if said:
            minors = [minor_of(version) for version in said]
            return cls(said[-1], min(minors), max(minors))
        if question.version is not None:
            minor = minor_of(question.version)
            return cls(None, minor, minor)
        if tally.oldest_possible > tally.newest_possible:
            # Wordings of two releases: an upgrade happened inside the log, and only the outer limits are known.
            return cls(None, tally.newest_possible, tally.oldest_possible)
        return cls(None, tally.oldest_possible, tally.newest_possible)

    @property
    def log_tells(self) -> bool | None:
        """Whether the absence of failures means anything; None when the release is not known well enough."""
        if self.newest <= LAST_MINOR_WHOSE_LOG_TELLS:
            return True
        return False if self.oldest > LAST_MINOR_WHOSE_LOG_TELLS or self.exact else None

    @property
    def text(self) -> str:
        if self.oldest == self.newest:
            return f"1.{self.oldest}"
        known_oldest, known_newest = self.oldest > 0, self.newest < 37
        if known_oldest and known_newest:
            return f"1.{self.oldest}–1.{self.newest}"
        if known_oldest:
            return f"1.{self.oldest}+"
        return f"up to 1.{self.newest}" if known_newest else ""


def _verdict(
    log: NodeLog, question: Question, failures: dict[str, Count], others: dict[str, int], versions: _Versions
) -> tuple[Verdict, Reason]:
    if failures:
        said = ", ".join(f"{count.count}x {signature}" for signature, count in failures.items())
        return Verdict.SUSPECT, Reason("failureLogged", f"logged {said}")
    unknown = _why_unknown(log, question, versions)
    if unknown is not None:
        return Verdict.UNKNOWN, unknown
    elsewhere = f"; failures were logged for {', '.join(others)}" if others else ""
    return Verdict.CLEAN, Reason("nothingLogged", f"no failure logged in the time covered{elsewhere}")


def _why_unknown(log: NodeLog, question: Question, versions: _Versions) -> Reason | None:
    """The first reason why a log without failures does not prove health, None when it does."""
    tally = log.tally
    first, last = tally.first, tally.last
    if log.problems:
        problem = log.problems[0]
        return Reason(problem.code, problem.message)
    if not log.size:
        return Reason("emptyLog", "the log is empty")
    if not log.records:
        return Reason("noRecords", "no log records of kube-proxy in it")
    if not tally.ours:
        return Reason("notKubeProxy", "nothing in it that only kube-proxy logs; is this kube-proxy's log?")
    if first is None or last is None:
        return Reason("noTimes", "no record has a time")
    if question.since is not None and last < question.since:
        return Reason("logEnds", f"log ends at {timestamp(to_datetime(last))}, before the window")
    if question.since is not None and first > question.since:
        return Reason("logBegins", f"log begins at {timestamp(to_datetime(first))}, inside the window")
    if question.signatures and any(signature not in question.signatures for signature, *_ in tally.peers):
        return Reason("otherSignatures", "failures were logged with signatures that were not asked for")
    if versions.log_tells is None:
        return Reason(
            "versionUnknown",
            "no failure logged, but the log does not tell kube-proxy's version, and from 1.32 on a log proves nothing",
        )
    if not versions.log_tells:
        return Reason("logProvesNothing", "no failure logged, but from 1.32 on a log alone proves nothing")
    return None
