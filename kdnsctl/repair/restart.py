"""repair restart-kube-proxy: kube-proxy writes its rules anew, on one node after the other, and each is judged again.

The evidence is secured first, for a restart destroys it. A DaemonSet's pod is deleted by its UID; how a static pod and
an embedded kube-proxy are restarted is only said, since nothing in the API does it. The first node that is not well
afterwards ends it: where rules cannot be written, the next restart would not help either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope
from kdnsctl.changes import incidents, lock
from kdnsctl.changes.plan import NodePlan, Plan
from kdnsctl.changes.proxies import containers_of, daemon_set_path, line_of
from kdnsctl.cluster import logs, proxyload
from kdnsctl.cluster.errors import ApiError
from kdnsctl.cluster.kubeproxy import Kind, KubeProxy, kube_proxy_container
from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence import collect as collecting
from kdnsctl.find import analyze_nodes
from kdnsctl.find.analyze_nodes import NodeOptions
from kdnsctl.find.online import identity_of
from kdnsctl.find.scope import Chosen, InScope, nodes_in_scope
from kdnsctl.model import KdnsctlError, Reason, Verdict
from kdnsctl.quarantine.allowed import check_allowed
from kdnsctl.quarantine.capture import Judgement
from kdnsctl.repair import replacing
from kdnsctl.repair.owners import by_hand
from kdnsctl.repair.replacing import NotWrittenError, deletion, metrics_port, node_of, replace_proxy
from kdnsctl.repair.report import NodeRepair, RepairReport, Result
from kdnsctl.repair.session import CAPTURED, Session, quarantined

COMMAND: Final = "restart-kube-proxy"
VIA: Final = "api"
SECONDS: Final = replacing.TIMEOUT
CAUSE: Final = "Remove the cause; kube-proxy tries again by itself, every 30 s."
NEEDS: Final = Needs(
    needed=tuple(dict.fromkeys((*proxyload.NEEDED, *incidents.NEEDED, *replacing.NEEDED, *analyze_nodes.NEEDS.needed))),
    helpful=tuple(
        dict.fromkeys(
            (
                *lock.needed(instead=lock.UNPROTECTED),
                *replacing.HELPFUL,
                *collecting.NEEDS.needed,
                *collecting.NEEDS.helpful,
                *analyze_nodes.NEEDS.helpful,
                logs.needed(replacing.NAMESPACE),
                Permission(
                    "get",
                    "daemonsets",
                    group="apps",
                    namespace=replacing.NAMESPACE,
                    without="that the next kube-proxy is another one is not told before",
                ),
            )
        )
    ),
)


@dataclass(frozen=True, slots=True)
class RestartOptions:
    """What was asked. `seconds` is how long a new kube-proxy may take until it has written its rules."""

    chosen: Chosen
    collect: bool = True
    seconds: float = SECONDS


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is known before anything is changed. `done` has the answer on nodes that will not be changed."""

    options: RestartOptions
    found: InScope
    plan: Plan
    todo: tuple[str, ...]
    done: Mapping[str, NodeRepair]

    def report(
        self, nodes: Mapping[str, NodeRepair], now: datetime, incident: str = "", bundle: Path | None = None
    ) -> RepairReport:
        """The report on all nodes: `nodes`, and those that were not to be changed."""
        every = {**self.done, **nodes}
        where = (f"the evidence from before is in {bundle}",) if bundle else ()
        return RepairReport(
            generated_at=now,
            cluster=self.plan.cluster,
            repair=COMMAND,
            nodes=tuple(every[name] for name in self.found.names if name in every),
            incident=incident,
            scope=self.found.scope,
            notes=(*self.found.notes, *where),
            quarantined=quarantined(self.found.nodes),
        )


def prepare(options: RestartOptions, connection: Connection, *, scope: CancelScope) -> Prepared:
    """Find kube-proxy on the nodes, and make the plan. Changes nothing.

    Raises RefusedError for what is not allowed, UsageError for a node that does not exist, else as `list_all`.
    """
    check_allowed(connection, (*incidents.NEEDED, replacing.NEEDED[0]), "repair", scope=scope)
    found = nodes_in_scope(connection, options.chosen, scope=scope, command="repair")
    plans: list[NodePlan] = []
    templates = _Templates(connection, scope)
    done: dict[str, NodeRepair] = {}
    for name in found.names:
        proxy = found.proxies.get(name)
        if proxy is not None and proxy.kind is Kind.DAEMON_SET and proxy.place is not None:
            notes = (
                *((CAPTURED,) if options.collect else ()),
                *templates.differ(proxy, found.pods.get(proxy.place.uid)),
            )
            then = ("wait until the new kube-proxy has written its rules, and judge the node again",)
            plans.append(NodePlan(name, (deletion(proxy),), then, notes))
            continue
        done[name] = _not_here(name, proxy, found)
        plans.append(NodePlan(name, notes=(f"is left as it is: {done[name].reason.message}", done[name].advice)))
    todo = tuple(name for name in found.names if name not in done)
    told = ["one node after the other; the first that is not well afterwards ends it"] if len(todo) > 1 else []
    told.append(
        "a restart deletes the entries of every UDP Service on the node, and with them the evidence"
        + ("" if options.collect else "; none is captured (--no-collect)")
    )
    plan = Plan(f"repair {COMMAND}", identity_of(connection.target), tuple(plans), notes=tuple(told))
    return Prepared(options, found, plan, todo, done)


class _Templates:
    """The DaemonSets' templates, each read once: the next pod is made by them, and need not be as the last was."""

    def __init__(self, connection: Connection, scope: CancelScope) -> None:
        self._connection = connection
        self._scope = scope
        self._found: dict[str, Mapping[str, Any]] = {}

    def differ(self, proxy: KubeProxy, pod: Pod | None) -> tuple[str, ...]:
        """In what the next kube-proxy of a node will be another one, for the plan; nothing where that is not known."""
        place = proxy.place
        running = kube_proxy_container(pod) if pod else None
        if place is None or running is None:
            return ()
        path = daemon_set_path(place.namespace, place.owner)
        if path not in self._found:
            try:
                self._found[path] = self._connection.get(path, dict[str, Any], scope=self._scope)
            except ApiError:
                self._scope.check()
                self._found[path] = {}
        wanted = next((one for one in containers_of(self._found[path]) if one.get("name") == running.name), None)
        if wanted is None:
            return ()
        said = []
        if wanted.get("image") != running.image:
            said.append(f"image {wanted.get('image')} instead of {running.image}")
        if line_of(wanted) != line_of({"command": list(running.command), "args": list(running.args)}):
            said.append("another command line")
        return (f"its DaemonSet has changed since: the next kube-proxy has {', and '.join(said)}",) if said else ()


def _not_here(name: str, proxy: KubeProxy | None, found: InScope) -> NodeRepair:
    """The answer on a node whose kube-proxy cannot be restarted through the API."""
    if proxy is None:
        why = found.blind or "where its kube-proxy is, is not known"
        return NodeRepair(name, Result.REFUSED, Reason("unknown", why))
    if proxy.kind is Kind.ABSENT:
        nothing = Verdict.NOT_APPLICABLE
        return NodeRepair(name, Result.NOTHING_TO_DO, Reason("noKubeProxy", proxy.why), nothing, nothing)
    if proxy.kind is Kind.MISSING:
        return NodeRepair(name, Result.REFUSED, Reason("missing", f"there is no kube-proxy to restart: {proxy.why}"))
    node = node_of(found.nodes, name)
    kubelet = node.status.node_info.kubelet_version if node else ""
    if proxy.kind is Kind.OTHER_POD:
        why = "its kube-proxy is a pod that no DaemonSet would make again"
        return NodeRepair(name, Result.REFUSED, Reason("otherPod", why))
    what = "a static pod" if proxy.kind is Kind.STATIC_POD else f"no pod, but {proxy.why}"
    reason = Reason(proxy.kind.value, f"its kube-proxy is {what}: nothing in the API restarts it")
    return NodeRepair(name, Result.REFUSED, reason, advice=by_hand(proxy, kubelet, "restart it"))


def _ended(name: str, before: Verdict) -> NodeRepair:
    """The answer on a node whose restart is ended before its own."""
    why = Reason("ended", "ended while its kube-proxy was replaced: whether it is well is not known")
    advice = f"kdnsctl analyze {name} tells"
    return NodeRepair(name, Result.FAILED, why, before, Verdict.UNKNOWN, changed=True, via=VIA, advice=advice)


@dataclass(slots=True)
class Work:
    """What the nodes of one run share. `results` has one answer for each node that is done.

    `begun` is the answer on the node at work, should that be ended.
    """

    prepared: Prepared
    session: Session
    results: dict[str, NodeRepair] = field(default_factory=dict)
    bundle: Path | None = None
    begun: NodeRepair | None = None

    def report(self) -> RepairReport:
        """The report, as far as it has come."""
        if self.begun is not None:
            self.results.setdefault(self.begun.name, self.begun)
        failed = next((name for name, one in self.results.items() if one.result is Result.FAILED), "")
        why = f"{failed} is not well after its restart" if failed else "the command was ended before"
        for name in self.prepared.todo:
            self.results.setdefault(name, NodeRepair(name, Result.NOT_TRIED, Reason("stopped", why)))
        return self.prepared.report(self.results, self.session.now(), self.session.incident.id, self.bundle)

    def run(self) -> None:
        """Restart what was planned. Raises what ended the scope: `report` tells what was done."""
        todo = self.prepared.todo
        self.session.begin(f"repair {COMMAND}", todo)
        captured: Mapping[str, Judgement] = {}
        if self.prepared.options.collect:
            self.bundle, captured = self.session.secure(todo, "before-restart")
        for name in todo:
            known = captured.get(name)
            if self.prepared.options.collect and (known is None or not known.captured):
                why = (
                    f"its evidence could not be captured, so it is not restarted{f': {known.reason}' if known else ''}"
                )
                advice = "--no-collect restarts it all the same"
                self.results[name] = NodeRepair(name, Result.REFUSED, Reason("notCaptured", why), advice=advice)
                continue
            before = known.verdict if known else Verdict.UNKNOWN
            self.begun = _ended(name, before)
            self.results[name] = self._one(name, before)
            if self.results[name].result is Result.FAILED:
                return

    def _one(self, name: str, before: Verdict) -> NodeRepair:
        proxy = self.prepared.found.proxies[name]
        pod = self.prepared.found.pods.get(proxy.place.uid) if proxy.place else None
        port = metrics_port(self.session.connection, pod, scope=self.session.scope)
        try:
            done = replace_proxy(self.session, proxy, port=port, seconds=self.prepared.options.seconds)
        except NotWrittenError as error:
            return self._failed(name, before, error, CAUSE)
        except KdnsctlError as error:
            self.session.scope.check()
            return self._failed(name, before, error, error.hint)
        verdict, reason = self._judged(name)
        if verdict is Verdict.CLEAN:
            said = f"; {done.unproven}" if done.unproven else ""
            well = Reason("restarted", f"kube-proxy restarted: {reason}{said}")
            return NodeRepair(name, Result.REPAIRED, well, before, verdict, changed=True, via=VIA)
        why = Reason("notWell", f"kube-proxy restarted, and the node is {verdict}: {reason}")
        advice = f"kdnsctl analyze {name} tells what is wrong with it"
        return NodeRepair(name, Result.FAILED, why, before, verdict, changed=True, via=VIA, advice=advice)

    def _judged(self, name: str) -> tuple[Verdict, str]:
        at = self.session
        asked = NodeOptions(Chosen((name,)))
        report = analyze_nodes.analyze_nodes(asked, at.connection, scope=at.scope, reporter=at.reporter, now=at.now())
        at.scope.check()
        return report.nodes[0].verdict, report.nodes[0].reason

    def _failed(self, name: str, before: Verdict, error: KdnsctlError, advice: str) -> NodeRepair:
        changed = error.code in (NotWrittenError.code, replacing.NotSyncedError.code)
        after = self._judged(name)[0] if changed else None
        reason = Reason(error.code, str(error), error)
        via = VIA if changed else ""
        return NodeRepair(name, Result.FAILED, reason, before, after, changed=changed, via=via, advice=advice)
