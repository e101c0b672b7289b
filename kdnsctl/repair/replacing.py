"""One node's kube-proxy is replaced: its pod is deleted by its UID, and the next one is waited for until it has synced.

A restart writes all rules anew and deletes the entries of UDP Services, so it usually heals the node, and destroys the
evidence with that: whoever calls this has secured it. When kube-proxy has written its rules for the first time is read
from its metrics, `kubeproxy_sync_proxy_rules_last_timestamp_seconds` (since 1.14, in every mode), which no event tells
of; its log says so only from verbosity 2 on, and its health is good before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from kdnsctl.cancel import CancelScope, duration
from kdnsctl.changes import pods
from kdnsctl.cluster import portforward, proxyload
from kdnsctl.cluster.errors import ConflictError, ForbiddenError, NotFoundError
from kdnsctl.cluster.kubeproxy import Kind, KubeProxy, PodPlace, kube_proxy_container
from kdnsctl.cluster.kubeproxy import locate as located
from kdnsctl.cluster.objects import Node, Pod
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.portforward import ForwardRequest
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.watch import Change, watch
from kdnsctl.facts.kubeproxy import METRICS_PORT
from kdnsctl.model import KdnsctlError, Step
from kdnsctl.netfilter.kubeproxy import Metrics, parse_metrics
from kdnsctl.repair.cause import why_not_written
from kdnsctl.repair.session import Session

TIMEOUT: Final = 120.0  # seconds until the next kube-proxy has synced; an image may have to be pulled
PAUSE: Final = 1.0  # seconds between two looks at its metrics
MOST_METRICS: Final = 16 << 20  # bytes
LAST_SYNC: Final = "sync_proxy_rules_last_timestamp_seconds"
FAILURES: Final = ("sync_proxy_rules_iptables_restore_failures_total", "sync_proxy_rules_nftables_sync_failures_total")
FAILED_FOR_GOOD: Final = 2  # syncs: one may have met the xtables lock of somebody else, and is tried again after 30 s
NAMESPACE: Final = "kube-system"
NEEDED: Final = (
    Permission("delete", "pods", namespace=NAMESPACE, without="kube-proxy cannot be restarted"),
    Permission("watch", "pods", namespace=NAMESPACE, without="the next kube-proxy is waited for by listing pods"),
)
HELPFUL: Final = tuple(
    replace(one, without="whether kube-proxy has written its rules is not known")
    for one in portforward.needed(NAMESPACE)
)


class NotWrittenError(KdnsctlError):
    """The next kube-proxy runs, and cannot write its rules."""

    code = "notWritten"


class NotSyncedError(KdnsctlError):
    """The next kube-proxy did not come, or is not known to have written its rules."""

    code = "notSynced"


@dataclass(frozen=True, slots=True)
class Replaced:
    """A kube-proxy that was replaced: its successor. `unproven`: why it is not known to have synced, "" if it is."""

    place: PodPlace
    unproven: str = ""


def deletion(proxy: KubeProxy) -> Step:
    """The step that deletes a node's kube-proxy. Raises ValueError for one that is no pod."""
    if proxy.place is None:
        raise ValueError(f"kube-proxy on {proxy.node} is no pod")
    place = proxy.place
    return pods.step(evict=False, namespace=place.namespace, name=place.pod, uid=place.uid, node=proxy.node, grace=None)


def replace_proxy(
    session: Session, proxy: KubeProxy, *, port: int = METRICS_PORT, seconds: float = TIMEOUT
) -> Replaced:
    """Delete the pod, journaled, and wait until its successor has written its rules.

    Raises NotSyncedError or NotWrittenError when it has not within `seconds`, KdnsctlError when the pod could not be
    deleted, or is not the one that was meant any more.
    """
    if proxy.place is None or proxy.kind is not Kind.DAEMON_SET:
        raise ValueError(f"kube-proxy on {proxy.node} is no DaemonSet's pod")
    old = proxy.place
    try:
        session.take(deletion(proxy))
    except (NotFoundError, ConflictError) as error:
        raise KdnsctlError(
            f"kube-proxy's pod {old.namespace}/{old.pod} was replaced meanwhile by somebody else", code="drift"
        ) from error
    session.reporter.noted(f"{proxy.node}: waiting until the next kube-proxy has written its rules")
    with session.scope.child(seconds) as limit:
        place = _successor(session, proxy.node, old, limit, seconds)
        return _synced(session, replace(proxy, place=place), place, port, limit)


def _successor(session: Session, node: str, old: PodPlace, limit: CancelScope, seconds: float) -> PodPlace:
    """Wait for another pod than the old one that runs on the node."""
    path = f"/api/v1/namespaces/{old.namespace}/pods"
    known: dict[str, Pod] = {}
    try:
        for event in watch(session.connection, path, Pod, fields=f"spec.nodeName={node}", scope=limit):
            if event.change is Change.LISTED:
                known = {}
            for pod in event.items:
                if event.change is Change.DELETED:
                    known.pop(pod.metadata.uid, None)
                elif kube_proxy_container(pod):
                    known[pod.metadata.uid] = pod
            others = [pod for uid, pod in known.items() if uid != old.uid]
            place = located(None, others)[node].place if others else None
            if place is not None and place.running:
                return place
    except KdnsctlError:
        session.scope.check()
        if limit.reason is None:
            raise
    raise NotSyncedError(
        f"no new kube-proxy runs on {node} {duration(seconds)} after the old one was deleted: its rules are those from "
        "before, and get old",
        hint=f"kubectl -n {old.namespace} get pods -o wide --field-selector spec.nodeName={node}",
    )


def _synced(session: Session, new: KubeProxy, place: PodPlace, port: int, limit: CancelScope) -> Replaced:
    connection, scope, last = session.connection, session.scope, ""
    while limit.reason is None:
        try:
            metrics = read_metrics(connection, place, port, limit)
        except ForbiddenError as error:
            return Replaced(place, f"whether it has written its rules may not be read: {error}")
        except KdnsctlError as error:
            scope.check()
            last = str(error)
        else:
            if (metrics.value(LAST_SYNC) or 0) > 0:
                return Replaced(place)
            if sum(metrics.value(name) or 0 for name in FAILURES) >= FAILED_FOR_GOOD:
                cause = why_not_written(connection, new, scope=scope, now=session.now()) or "its metrics count failures"
                raise NotWrittenError(f"rules cannot be written: {cause}")
            last = "its metrics tell of no sync"
        limit.pause(PAUSE)
    scope.check()
    cause = why_not_written(connection, new, scope=scope, now=session.now())
    if cause:
        raise NotWrittenError(f"rules cannot be written: {cause}")
    raise NotSyncedError(f"the new kube-proxy on {new.node} is not known to have written its rules: {last}")


def read_metrics(connection: Connection, place: PodPlace, port: int, scope: CancelScope) -> Metrics:
    """What a kube-proxy counts. Raises as `portforward.get`."""
    body = bytearray()

    def take_in(piece: bytes) -> None:
        body.extend(piece[: MOST_METRICS - len(body)])

    request = ForwardRequest(place.namespace, place.pod, port, "/metrics")
    end = portforward.get(connection, request, take=take_in, scope=scope, seconds=10)
    if end.status != 200:
        raise KdnsctlError(f"{request} answers /metrics with {end.status}")
    return parse_metrics([bytes(body)])


def metrics_port(connection: Connection, pod: Pod | None, *, scope: CancelScope) -> int:
    """The port of a kube-proxy's metrics, as it is set up; the default where that cannot be read."""
    try:
        config = proxyload.read_config(connection, pod, scope=scope) if pod is not None else None
    except KdnsctlError:
        scope.check()
        return METRICS_PORT
    return port_of(config.metrics_address if config else None)


def port_of(address: str | None) -> int:
    """The port of `metricsBindAddress`; the default without one."""
    text = (address or "").rpartition(":")[2]
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) < 65536 else METRICS_PORT


def node_of(nodes: tuple[Node, ...], name: str) -> Node | None:
    """The node of that name."""
    return next((node for node in nodes if node.metadata.name == name), None)
