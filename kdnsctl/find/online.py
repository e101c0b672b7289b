"""find-affected on a live cluster: nodes in scope → where kube-proxy is → its logs → verdicts → a report.

Every node in scope is in the report exactly once, whatever happens to it or to us: judged, unknown with the reason, or
not applicable. Only logs are read, and with --live the nodes' own tables too; nothing is changed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from kdnsctl import fleet
from kdnsctl.access.needs import Needs
from kdnsctl.access.preflight import asking
from kdnsctl.cancel import INTERRUPTED, CancelScope
from kdnsctl.changes.incidents import NOTED
from kdnsctl.cluster import dns, proxyload
from kdnsctl.cluster.dns import DnsService, find_dns
from kdnsctl.cluster.errors import ForbiddenError
from kdnsctl.cluster.kubeproxy import Kind, KubeProxy, PodPlace
from kdnsctl.cluster.logs import needed
from kdnsctl.cluster.target import Target
from kdnsctl.cluster.transport import Connection
from kdnsctl.diagnosis.evidence import SETTLE
from kdnsctl.find.advice import next_looks, next_readings, notes
from kdnsctl.find.barred import read_where_allowed
from kdnsctl.find.commands import next_commands
from kdnsctl.find.joined import joined
from kdnsctl.find.judge import NodeLog, Question, checked_signatures, judge
from kdnsctl.find.live import HELPFUL as STATE_HELPFUL
from kdnsctl.find.live import NEEDED as STATE_NEEDED
from kdnsctl.find.live import PARALLEL as STATE_PARALLEL
from kdnsctl.find.live import Judged, LiveOptions, State, judge_nodes
from kdnsctl.find.releases import is_version, minor_of
from kdnsctl.find.report import FindReport, NodeFinding, Problem, in_order
from kdnsctl.find.report import KubeProxy as Proxy
from kdnsctl.find.scope import Chosen, InScope, nodes_in_scope
from kdnsctl.find.services import checked
from kdnsctl.logs.scan import Decided
from kdnsctl.logs.sources.pods import KUBELET_LOGS, PodReading, read_pod
from kdnsctl.logs.sources.repeats import MarkedTally
from kdnsctl.logs.times import from_datetime, to_datetime
from kdnsctl.model import Basis, Coverage, KdnsctlError, Outcome, Reason, Reporter, Scope, UsageError, Verdict

PARALLEL: Final = 32  # log requests at once: they are outside the server's own limits
REACTS_WITHIN: Final = timedelta(minutes=1)  # longer than a sync takes where one with many Services is slow
NEEDS: Final = Needs(
    needed=(*proxyload.NEEDED, needed("kube-system")),
    helpful=(*dns.NEEDED, *proxyload.HELPFUL, NOTED),
    with_option={"--kubelet-logs": (KUBELET_LOGS,), "--live": (*STATE_NEEDED, *STATE_HELPFUL)},
)
ALLOWED_BY: Final = "`kdnsctl rbac find-affected` prints the Role that allows it"


@dataclass(frozen=True, slots=True)
class OnlineOptions:
    """What find-affected was asked of a cluster.

    `since` counts from now, `since_time` is absolute and aware; give one of the two, or none: all that the logs hold.
    `services` are "NAMESPACE/NAME" (none: the DNS Services), `signatures` catalogue ids (none: all).
    `kube_proxy_version` stands in where neither log nor image tells the release. `kubelet_logs` allows reading the
    kubelet's file where a pod's log is empty. `live` reads the nodes' tables as well, `live_parallel` at once; `settle`
    as in LiveOptions.
    """

    chosen: Chosen = field(default_factory=Chosen)
    since: timedelta | None = None
    since_time: datetime | None = None
    services: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()
    kube_proxy_version: str | None = None
    parallel: int = PARALLEL
    kubelet_logs: bool = False
    live: bool = False
    live_parallel: int = STATE_PARALLEL
    settle: timedelta = SETTLE


def find_in_cluster(
    options: OnlineOptions, connection: Connection, *, scope: CancelScope, reporter: Reporter, now: datetime
) -> FindReport:
    """Judge every node in scope by its kube-proxy's log.

    When `scope` ends while logs are read (the deadline, Ctrl-C), the report has what is known by then, and
    `scope.reason` tells. Before that there is nothing to report: what ended it is raised, as is what is wrong with the
    options, and any error of listing nodes and pods.
    """
    services = checked(options.services)
    signatures = checked_signatures(options.signatures)
    if options.kube_proxy_version is not None:
        minor_of(options.kube_proxy_version)
    since = _window(options, now)
    try:
        about = nodes_in_scope(connection, options.chosen, scope=scope, others=True)
        places = {name: proxy.place for name in about.names if (proxy := about.proxies.get(name)) and proxy.place}
        logs = (needed(place.namespace) for place in places.values())
        with asking(connection, logs, scope=scope) as refused:
            found, said = _dns(connection, scope)
            barred = {answer.permission.namespace: answer for answer in refused()}
    except KdnsctlError as error:
        if scope.reason is None or error.code != "deadline":
            raise
        raise KdnsctlError(
            f"the nodes and their kube-proxy could not be listed: {error}; no log was read",
            hint="is the API server slow? See --deadline",
            code=error.code,
        ) from error
    question = Question(
        services or tuple(str(service) for service in found),
        signatures,
        since,
        options.kube_proxy_version,
        _addresses(found),
    )

    decided: Decided = {}

    def work(node: str, limit: CancelScope) -> PodReading:
        return read_pod(
            connection,
            node,
            places[node],
            limit,
            since=since,
            now=now,
            kubelet_logs=options.kubelet_logs,
            decided=decided,
        )

    def read(names: Iterable[str]) -> list[Outcome[PodReading]]:
        return fleet.run(
            names,
            work,
            parallel=options.parallel,
            deadline=None,
            reporter=reporter,
            scope=scope,
            what="reading kube-proxy's logs",
        )

    for answer in barred.values():
        reporter.noted(f"not allowed: {answer.permission}, so {answer.permission.without}; {ALLOWED_BY}")
    outcomes = read_where_allowed(places, barred, read)
    changed = max((service.changed for service in found if service.changed), default=None)

    def report(states: Judged) -> FindReport:
        findings = account(about, outcomes, question, now, changed)
        findings = in_order(joined(finding, states.outcomes.get(finding.name)) for finding in findings)
        return FindReport(
            generated_at=now,
            nodes=findings,
            coverage=Coverage.of((finding.verdict for finding in findings), about.scope),
            cluster=identity_of(connection.target),
            services=question.services,
            since=to_datetime(since),
            notes=(
                *about.notes,
                *said,
                *states.notes,
                *_forbidden(findings, about),
                *_faults(findings),
                *_youngest(findings, since),
                *notes(findings, ()),
            ),
            next_commands=(
                *next_looks(findings, live=options.live),
                *next_commands(findings),
                *next_readings(findings, about.proxies, kubelet_logs=options.kubelet_logs),
            ),
        )

    # Ctrl-C beside a run over nodes, which ends by itself only within, must not end the command: what was read is told.
    states = _unread(about, INTERRUPTED) if options.live else Judged({})
    try:
        states = _states(options, question, about, connection, scope=scope, reporter=reporter, now=now)
        return report(states)
    except KeyboardInterrupt:
        scope.cancel()
        return report(states)


def _states(
    options: OnlineOptions,
    question: Question,
    about: InScope,
    connection: Connection,
    *,
    scope: CancelScope,
    reporter: Reporter,
    now: datetime,
) -> Judged:
    """What the nodes' own tables say of the Services asked for, where they are to be read; else nothing."""
    if not options.live:
        return Judged({})
    if scope.reason is not None:
        return _unread(about, scope.reason)
    if not question.services:
        return Judged({}, ("No node's tables were read: no DNS Service is known. Name one with --service.",))
    asked = LiveOptions(
        services=question.services,
        settle=options.settle,
        whole=False,
        thorough=False,
        version=options.kube_proxy_version,
        parallel=options.live_parallel,
    )
    try:
        return judge_nodes(connection, _readable(about), about.nodes, asked, scope=scope, reporter=reporter, now=now)
    except KdnsctlError as error:
        reason = Reason(error.code, str(error), error)
        return replace(_unread(about, reason), notes=(f"No node's tables could be judged: {error}",))


def _readable(about: InScope) -> list[KubeProxy]:
    """Those through which their nodes' tables can be read."""
    proxies = [proxy for name in about.names if (proxy := about.proxies.get(name))]
    return [proxy for proxy in proxies if proxy.place and proxy.place.running]


def _unread(about: InScope, reason: Reason) -> Judged:
    """No node's tables were judged, for one reason."""
    outcomes: dict[str, Outcome[State]] = {proxy.node: Outcome(proxy.node, reason=reason) for proxy in _readable(about)}
    return Judged(outcomes)


def account(
    about: InScope,
    outcomes: Iterable[Outcome[PodReading]],
    question: Question,
    now: datetime,
    changed: datetime | None,
) -> tuple[NodeFinding, ...]:
    """One finding for each node in scope, in the order in which they are reported.

    `changed` is when the endpoints of DNS last changed, None where that is not known.
    """
    read = {outcome.node: outcome for outcome in outcomes}
    return in_order(_finding(name, about, read.get(name), question, now, changed) for name in about.names)


def _finding(
    name: str,
    about: InScope,
    outcome: Outcome[PodReading] | None,
    question: Question,
    now: datetime,
    changed: datetime | None,
) -> NodeFinding:
    proxy = about.proxies.get(name)
    if proxy is None:
        if about.blind:
            return _unjudged(name, Verdict.UNKNOWN, Reason(ForbiddenError.code, about.blind))
        why = "no kube-proxy pod is seen on it, and whether there is such a node cannot be known"
        return _unjudged(name, Verdict.UNKNOWN, Reason("noKubeProxyPod", why))
    if proxy.place is None or outcome is None:
        return _without_log(proxy)
    if outcome.value is None:
        reading = PodReading(MarkedTally(), problems=[outcome.reason] if outcome.reason else [])
    else:
        reading = outcome.value
    return _judged(proxy, proxy.place, reading, question, now, changed)


def _without_log(proxy: KubeProxy) -> NodeFinding:
    version = _version(proxy)
    match proxy.kind:
        case Kind.ABSENT:
            return _unjudged(proxy.node, Verdict.NOT_APPLICABLE, Reason("noKubeProxy", proxy.why), version)
        case Kind.EMBEDDED:
            why = f"kube-proxy is {proxy.why}: its log is in the node's journal (unit {proxy.unit}), not in the API"
            return _unjudged(proxy.node, Verdict.UNKNOWN, Reason("embedded", why), version)
        case _:
            return _unjudged(proxy.node, Verdict.UNKNOWN, Reason("kubeProxyMissing", proxy.why), version)


def _judged(
    proxy: KubeProxy,
    place: PodPlace,
    reading: PodReading,
    question: Question,
    now: datetime,
    changed: datetime | None,
) -> NodeFinding:
    problems = [Problem(problem.code, problem.message) for problem in reading.problems]
    if not place.running:
        problems.append(Problem("notRunning", f"kube-proxy does not run: {proxy.why}"))
    behind = _behind(reading, changed, now)
    if behind is not None:
        problems.append(behind)
    return judge(
        NodeLog(
            proxy.node,
            reading.tally,
            name_from="api",
            pods=[place.pod],
            sources=reading.sources,
            problems=problems,
            size=reading.size,
            records=reading.records,
            before=reading.before,
            version=_version(proxy),
            read_at=None if problems else from_datetime(now),
        ),
        question,
    )


def _behind(reading: PodReading, changed: datetime | None, now: datetime) -> Problem | None:
    """Why this log does not tell of the time since it ends; None when it may.

    Who runs and says nothing has nothing to say, unless something happened that it always tells of: a kube-proxy that
    logs its syncs (-v=2) logs one when the endpoints of DNS change. One that is stopped or hangs looks just as running.
    And of a change that nobody has had the time to react to, no silence tells.
    """
    last = reading.tally.last
    if changed is None or last is None or last >= from_datetime(changed):
        return None
    what = f"the endpoints of DNS changed at {changed:%Y-%m-%dT%H:%M:%SZ}"
    ends = f"since {to_datetime(last):%Y-%m-%dT%H:%M:%SZ}"
    wait = changed + REACTS_WITHIN - now
    if wait >= timedelta(0):
        seconds = math.ceil(min(wait, REACTS_WITHIN).total_seconds()) + 1
        again = f"look again in {seconds} s, or with --live now"
        return Problem(
            "justChanged", f"{what}, and kube-proxy has logged nothing {ends}, which is no proof yet: {again}"
        )
    if not reading.tally.logs_syncs:
        return None
    why = f"{what}, and kube-proxy, which logs its syncs, has logged nothing {ends}: is it at work?"
    return Problem("notFollowing", why)


def _unjudged(name: str, verdict: Verdict, reason: Reason, version: str | None = None) -> NodeFinding:
    return NodeFinding(
        name, verdict, None, reason.message, reason.code, name_from="api", kube_proxy=Proxy(version=version)
    )


def _version(proxy: KubeProxy) -> str | None:
    return proxy.version if proxy.version and is_version(proxy.version) else None


def _window(options: OnlineOptions, now: datetime) -> int | None:
    if options.since is not None and options.since_time is not None:
        raise UsageError("--since and --since-time exclude each other")
    if options.since_time is not None:
        if options.since_time > now:
            raise UsageError("--since-time lies in the future")
        return from_datetime(options.since_time)
    return None if options.since is None else from_datetime(now - options.since)


def _dns(connection: Connection, scope: CancelScope) -> tuple[Sequence[DnsService], Sequence[str]]:
    """The DNS Services, and what the operator should know when they are not known."""
    by_name = "a failure counts as one of DNS when its Service or port is named so."
    try:
        found = find_dns(connection, scope=scope)
    except ForbiddenError as error:
        return (), (f"The DNS Services cannot be read ({error}): {by_name}",)
    return found, () if found else (f"No DNS Service was found: {by_name}",)


def _addresses(services: Iterable[DnsService]) -> dict[str, Collection[str]]:
    """Service ports by VIP, in kube-proxy's spelling: NAMESPACE/NAME:PORT."""
    return {
        vip: {f"{service}:{port.name}" if port.name else str(service) for port in service.ports}
        for service in services
        for vip in service.vips
    }


def identity_of(target: Target) -> str:
    """A cluster in words: its context, and its server."""
    return f"{target.context} ({target.server})" if target.context else target.server


def _forbidden(findings: Sequence[NodeFinding], about: InScope) -> Iterable[str]:
    if about.scope is Scope.PARTIAL or any(finding.reason_code == ForbiddenError.code for finding in findings):
        yield f"Something was not allowed: {ALLOWED_BY}."


def _faults(findings: Sequence[NodeFinding]) -> Iterable[str]:
    missing = [finding.name for finding in findings if finding.reason_code == "kubeProxyMissing"]
    if missing:
        have = "node has" if len(missing) == 1 else "nodes have"
        yield f"{len(missing)} {have} no kube-proxy and should have one: a fault by itself, see the reason."


def _youngest(findings: Sequence[NodeFinding], since: int | None) -> Iterable[str]:
    """How little "clean" may mean without a window: a log can begin a minute ago, with a new pod."""
    clean = [one for one in findings if one.verdict is Verdict.CLEAN and one.basis is Basis.LOG]
    spans = [(one.span.first, one.name) for one in clean if one.span]
    if since is None and spans:
        begins, name = max(spans)
        yield (
            f"Clean is said of the time since each log begins; the latest begins at {begins:%Y-%m-%dT%H:%M:%SZ} "
            f"({name}). With --since, nodes whose log does not reach back so far are unknown."
        )
