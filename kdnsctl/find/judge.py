"""One node's log judged: what was counted in it becomes a verdict, with its reason and everything that supports it.

Pure. The rules: a failure logged for the Services asked for makes a node suspect, never more; a log without one makes
it clean only if the log is whole, covers the window, is kube-proxy's, and is of a release whose log can tell (up to
1.31, without a known silent bug). Everything else is unknown. Incomplete evidence can prove a fault, never health.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kdnsctl.find.race import race_window
from kdnsctl.find.releases import Releases, known_silent
from kdnsctl.find.report import (
    CauseCount,
    EmbeddedEntries,
    KubeProxy,
    NodeFinding,
    Peer,
    Problem,
    SignatureCount,
    Span,
)
from kdnsctl.find.services import concerns, resolved
from kdnsctl.logs.details import CAUSES, OTHER_CAUSE
from kdnsctl.logs.signatures import BY_ID, Kind
from kdnsctl.logs.tally import MOST_CLIENTS, ONE_START, Count, Tally
from kdnsctl.logs.times import to_datetime
from kdnsctl.model import Basis, Reason, Verdict

_MEANING = {cause.id: cause.meaning for cause in CAUSES}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: Services (empty: DNS), signatures (empty: all), the window, the version where the log is mute."""

    services: tuple[str, ...] = ()
    signatures: frozenset[str] = frozenset()
    since: int | None = None
    version: str | None = None


@dataclass(slots=True)
class NodeLog:
    """What there is of one node: its tally, its inputs, and what is wrong with them.

    `parts` has a tally for each kube-proxy that wrote in it (a pod, or a log and its rotated files), the newest last:
    what one says of its version says nothing of another's. When it is empty, all of `tally` is one's.
    """

    name: str
    tally: Tally
    identified: bool = True
    name_from: str = ""
    pods: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    size: int = 0
    records: bool = False
    parts: list[Tally] = field(default_factory=list)


def judge(log: NodeLog, question: Question) -> NodeFinding:
    """The verdict on one node from its log alone."""
    tally = log.tally
    said = _sort_failures(tally, question)
    failures = said.asked
    releases = _releases(log, question)
    verdict, reason = _verdict(log, question, said, releases)
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
        peers=said.peers,
        causes=_causes(tally, failures) if failures else (),
        embedded_entries=EmbeddedEntries(
            tally.entries,
            tuple(sorted(tally.clients)[:MOST_CLIENTS]),
            tally.clients_complete and len(tally.clients) <= MOST_CLIENTS,
        )
        if tally.entries
        else None,
        other_services=said.others,
        race_window=race_window(removals, tally.starts, tally.syncs_failed),
        kube_proxy=KubeProxy(
            version=releases.exact,
            versions=releases.text,
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


def _releases(log: NodeLog, question: Question) -> Releases:
    return Releases.together([_releases_of(part, question) for part in log.parts or [log.tally]])


def _releases_of(part: Tally, question: Question) -> Releases:
    """The releases that wrote in the window; what the last start before it says holds in it."""
    begin = part.first if question.since is None else question.since
    if begin is None:
        begin = 0
    before = [version for time, version in part.versions if time <= begin]
    within = [version for time, version in part.versions if time > begin]
    return Releases.of(
        [*before[-1:], *within],
        part.oldest_possible,
        part.newest_possible,
        question.version,
        begins_unsaid=all(time > begin + ONE_START for time, _ in part.versions),
    )


@dataclass(frozen=True, slots=True)
class _Failures:
    """The failures logged: those asked for by signature, counts of those about other Services, and the peers.

    `left_out`: some were about a Service asked for, and their signature was not asked for.
    """

    asked: dict[str, Count]
    left_out: bool
    others: dict[str, int]
    peers: tuple[Peer, ...]


def _sort_failures(tally: Tally, question: Question) -> _Failures:
    asked: dict[str, Count] = {}
    left_out = False
    others: dict[str, int] = {}
    peers: dict[tuple[str, str, str], Count] = {}
    addresses = {address: {*names} for address, names in tally.addresses.items()}
    for signature, said, vip, _ in tally.peers:
        # Other signatures name external addresses, which Services can share.
        if signature == "CT_DEL_ENDPOINT" and said and vip:
            addresses.setdefault(vip, set()).add(said)
    for (signature, said, vip, endpoint), count in tally.peers.items():
        service = resolved(said, vip, addresses, question.services)
        if not concerns(service, question.services):
            others[service] = others.get(service, 0) + count.count
        elif question.signatures and signature not in question.signatures:
            left_out = True
        else:
            asked.setdefault(signature, Count()).merge(count)
            if vip:
                peers.setdefault((vip, endpoint, service), Count()).merge(count)
    ordered = sorted(peers.items(), key=lambda item: (-item[1].count, item[0]))
    return _Failures(
        asked,
        left_out,
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


def _verdict(log: NodeLog, question: Question, said: _Failures, releases: Releases) -> tuple[Verdict, Reason]:
    if said.asked:
        counts = ", ".join(f"{count.count}x {signature}" for signature, count in said.asked.items())
        return Verdict.SUSPECT, Reason("failureLogged", f"logged {counts}")
    unknown = _why_unknown(log, question, said, releases)
    if unknown is not None:
        return Verdict.UNKNOWN, unknown
    first, last = log.tally.first, log.tally.last
    covered = f"from {_clock(question.since or first)} to {_clock(last)}"
    elsewhere = f"; failures were logged for {', '.join(said.others)}" if said.others else ""
    return Verdict.CLEAN, Reason("nothingLogged", f"no failure logged {covered}{elsewhere}")


def _why_unknown(log: NodeLog, question: Question, said: _Failures, releases: Releases) -> Reason | None:
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
        return Reason("logEnds", f"log ends at {_clock(last)}, before the window")
    if question.since is not None and first > question.since:
        return Reason("logBegins", f"log begins at {_clock(first)}, inside the window")
    if said.left_out:
        return Reason("otherSignatures", "failures were logged with signatures that were not asked for")
    if releases.log_tells is None:
        return Reason(
            "versionUnknown",
            "no failure logged, but the log does not tell kube-proxy's version down to the patch release, and of some "
            "releases, and all from 1.32 on, a log proves nothing",
        )
    if releases.silent and not releases.is_reconciler:
        silent = releases.silent[0]
        return Reason(
            "logProvesNothing",
            f"no failure logged, but {silent} can leave stale entries without a line "
            f"(kubernetes/kubernetes{known_silent(silent)})",
        )
    if not releases.log_tells:
        return Reason("logProvesNothing", "no failure logged, but from 1.32 on a log alone proves nothing")
    return None


def _clock(moment: int | None) -> str:
    time = to_datetime(moment)
    return "" if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")
