"""analyze on live nodes: nodes in scope → their state, read through kube-proxy's pod or as told → verdicts → a report.

Every node in scope is in the report exactly once. Nothing is written on a node, and nothing is changed. How nodes are
read and judged is in `live`; here the report is made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope
from kdnsctl.changes.incidents import NOTED
from kdnsctl.cluster import proxyload
from kdnsctl.cluster.errors import ForbiddenError
from kdnsctl.cluster.kubeproxy import Kind, KubeProxy
from kdnsctl.cluster.transport import Connection
from kdnsctl.diagnosis.evidence import SETTLE
from kdnsctl.find import live
from kdnsctl.find.advice import TOO_EARLY
from kdnsctl.find.analysis import AnalyzeReport, NodeAnalysis, judged, unjudged
from kdnsctl.find.commands import MOST_NODES, NODE_NAME
from kdnsctl.find.live import PARALLEL, LiveOptions, State, judge_nodes
from kdnsctl.find.online import identity_of
from kdnsctl.find.report import KubeProxy as Proxy
from kdnsctl.find.report import in_order
from kdnsctl.find.scope import Chosen, InScope, nodes_in_scope
from kdnsctl.find.services import checked
from kdnsctl.model import Coverage, Outcome, Reason, Reporter, Verdict
from kdnsctl.reach.shell import NodeShell

NEEDS: Final = Needs(
    needed=(*proxyload.NEEDED, *live.NEEDED),
    helpful=tuple(dict.fromkeys((*live.HELPFUL, *proxyload.HELPFUL, NOTED))),
)


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What analyze was asked of a cluster. `services` are "NAMESPACE/NAME" (none: all); the rest as in LiveOptions."""

    chosen: Chosen = field(default_factory=Chosen)
    services: tuple[str, ...] = ()
    settle: timedelta = SETTLE
    version: str | None = None
    parallel: int = PARALLEL


def analyze_nodes(
    options: NodeOptions,
    connection: Connection,
    *,
    scope: CancelScope,
    reporter: Reporter,
    now: datetime,
    about: InScope | None = None,
    shell_of: Callable[[KubeProxy], NodeShell] | None = None,
) -> AnalyzeReport:
    """Judge every node in scope by its state.

    `about` are the nodes in scope, where they are known already. `shell_of` says how a node is reached that has a
    kube-proxy, whether its pod runs or not; by default through that pod. When `scope` ends while nodes are read, the
    report has what is known by then, and `scope.reason` tells. Raises what `nodes_in_scope` and `judge_nodes` raise.
    """
    services = checked(options.services)
    about = about or nodes_in_scope(connection, options.chosen, scope=scope, command="analyze")
    asked = LiveOptions(
        services=services,
        settle=options.settle,
        whole=not services,
        version=options.version,
        parallel=options.parallel,
    )
    unread = {name: why_unread(name, about, through_pod=shell_of is None) for name in about.names}
    readable = [about.proxies[name] for name, why in unread.items() if why is None]
    found = judge_nodes(
        connection, readable, about.nodes, asked, scope=scope, reporter=reporter, now=now, shell_of=shell_of
    )
    analyses = in_order(_analysis(name, about, unread[name], found.outcomes.get(name)) for name in about.names)
    return AnalyzeReport(
        generated_at=now,
        nodes=analyses,
        coverage=Coverage.of((node.verdict for node in analyses), about.scope),
        cluster=identity_of(connection.target),
        services=services,
        notes=(*about.notes, *found.notes),
        next_commands=tuple(_next(analyses)),
    )


def why_unread(name: str, about: InScope, *, through_pod: bool = True) -> tuple[Verdict, Reason] | None:
    """Why a node's state cannot be read, and what follows; None when it can be tried.

    Not `through_pod`: also where kube-proxy is in no pod that runs.
    """
    proxy = about.proxies.get(name)
    if proxy is None:
        if about.blind:
            return Verdict.UNKNOWN, Reason(ForbiddenError.code, about.blind)
        why = "no kube-proxy pod is seen on it, and whether there is such a node cannot be known"
        return Verdict.UNKNOWN, Reason("noKubeProxyPod", why)
    if (proxy.place is not None and proxy.place.running) or (not through_pod and proxy.kind is not Kind.ABSENT):
        return None
    match proxy.kind:
        case Kind.ABSENT:
            return Verdict.NOT_APPLICABLE, Reason("noKubeProxy", proxy.why)
        case Kind.EMBEDDED:
            why = f"kube-proxy is {proxy.why}: there is no pod to read the node through"
            return Verdict.UNKNOWN, Reason("embedded", why)
        case Kind.MISSING:
            return Verdict.UNKNOWN, Reason("kubeProxyMissing", proxy.why)
        case _:
            return Verdict.UNKNOWN, Reason("notRunning", f"kube-proxy does not run: {proxy.why}")


def _analysis(
    name: str, about: InScope, unread: tuple[Verdict, Reason] | None, outcome: Outcome[State] | None
) -> NodeAnalysis:
    proxy = about.proxies.get(name)
    if unread is not None:
        return unjudged(name, *unread, name_from="api", kube_proxy=_proxy(proxy))
    if outcome is None or outcome.value is None:
        reason = (outcome.reason if outcome else None) or Reason("internalError", "the node was not read")
        return unjudged(name, Verdict.UNKNOWN, reason, name_from="api", kube_proxy=_proxy(proxy))
    state = outcome.value
    return judged(
        name,
        state.diagnosis,
        name_from="api",
        kube_proxy=_proxy(proxy, state),
        read_at=state.read_at,
        via=state.via,
    )


def _proxy(proxy: KubeProxy | None, state: State | None = None) -> Proxy:
    if proxy is None:
        return Proxy()
    return Proxy(
        version=proxy.version or (state.version if state else "") or None,
        mode=state.mode.value if state and state.mode else None,
        pods=(proxy.place.pod,) if proxy.place else (),
    )


def _next(nodes: Sequence[NodeAnalysis]) -> Iterable[str]:
    """What to run now: once more where nothing has settled; then, of the affected, the evidence and the quarantine.

    Where nothing could be judged for lack of a pod: the files to bring. Names are the API's, and go into a shell.
    """
    named = [node for node in nodes if NODE_NAME.fullmatch(node.name)]
    unsettled = [node.name for node in named if node.reason_code in TOO_EARLY]
    affected = [node.name for node in named if node.verdict is Verdict.AFFECTED]
    if affected:
        yield f"kdnsctl collect {' '.join(affected[:MOST_NODES])}"
        yield f"kdnsctl quarantine {' '.join(affected[:MOST_NODES])}"
    if unsettled:
        yield f"kdnsctl analyze {' '.join(unsettled[:MOST_NODES])}"
    embedded = [node.name for node in nodes if node.reason_code == "embedded"]
    if embedded:
        yield f"ssh {embedded[0]} sudo cat /proc/net/nf_conntrack > {embedded[0]}.conntrack"
        yield f"kdnsctl analyze {embedded[0]}.conntrack services.json endpointslices.json --node {embedded[0]}"
