"""At which level each node's kube-proxy logs, and how that can be raised. Reads only, and changes nothing.

What a running kube-proxy logs at cannot be asked of it: its level is what it was started with (its command line, else
its configuration), or what a record on its node says that it was raised to. What somebody set at runtime by hand is
not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope
from kdnsctl.changes.proxies import daemon_set_path
from kdnsctl.changes.raised import Raised, RaisedTemplate, RecordError, Way, of_daemon_set, of_node
from kdnsctl.cluster import proxyload
from kdnsctl.cluster.errors import ForbiddenError, NotFoundError
from kdnsctl.cluster.kubeproxy import Kind, KubeProxy
from kdnsctl.cluster.objects import Node, Pod
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.proxyconfig import ProxyConfig
from kdnsctl.cluster.transport import Connection
from kdnsctl.find.scope import Chosen, InScope, nodes_in_scope
from kdnsctl.model import Reason
from kdnsctl.repair.owners import by_hand, owner_of

RUNTIME_SINCE: Final = (1, 22)  # kubernetes#98306
NEEDS: Final = Needs(
    needed=proxyload.NEEDED,
    helpful=(
        *proxyload.HELPFUL,
        Permission(
            "get", "daemonsets", group="apps", namespace="kube-system", without="who manages kube-proxy is not known"
        ),
        Permission("get", "configmaps", namespace="kube-system", without="without --v its level is not known"),
    ),
)


@dataclass(frozen=True, slots=True)
class Level:
    """One node. `config` is None when its kube-proxy's settings are not known; `problem`: its record is none."""

    name: str
    uid: str
    node: Node | None
    proxy: KubeProxy | None
    config: ProxyConfig | None = None
    raised: Raised | None = None
    problem: str = ""

    @property
    def start(self) -> int | None:
        """The level that its kube-proxy was started with."""
        return self.config.verbosity if self.config else None

    @property
    def now(self) -> int | None:
        """The level that it logs at."""
        if self.raised is not None and self.raised.way is Way.RUNTIME and self._same_pod:
            return self.raised.level
        return self.start

    @property
    def _same_pod(self) -> bool:
        place = self.proxy.place if self.proxy else None
        return place is not None and self.raised is not None and place.uid == self.raised.uid


@dataclass(slots=True)
class Survey:
    """What was found: the nodes in scope, and the DaemonSets of their kube-proxies by path, as the API has them."""

    found: InScope
    levels: tuple[Level, ...]
    daemon_sets: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def templates(self) -> dict[str, RaisedTemplate]:
        """The DaemonSets whose command line is raised. Raises RecordError."""
        read = {path: of_daemon_set(one) for path, one in self.daemon_sets.items()}
        return {path: record for path, record in read.items() if record is not None}

    def pod(self, level: Level) -> Pod | None:
        """The pod that is a node's kube-proxy."""
        place = level.proxy.place if level.proxy else None
        return self.found.pods.get(place.uid) if place else None


@dataclass(frozen=True, slots=True)
class CannotRaise:
    """Why a node's verbosity cannot be raised from here, and how it is done."""

    reason: Reason
    advice: str = ""


def survey(connection: Connection, chosen: Chosen, *, scope: CancelScope, command: str) -> Survey:
    """Look at the nodes in scope. Raises as `nodes_in_scope`."""
    found = nodes_in_scope(connection, chosen, scope=scope, command=command)
    by_name = {node.metadata.name: node for node in found.nodes}
    read = proxyload.ConfigReader(connection, scope)
    levels = tuple(_level(name, by_name.get(name), found, read) for name in found.names)
    result = Survey(found, levels, notes=[*found.notes, *read.notes])
    owners = {
        daemon_set_path(place.namespace, place.owner)
        for proxy in found.proxies.values()
        if (place := proxy.place) is not None and place.owner
    }
    for path in sorted(owners):
        try:
            result.daemon_sets[path] = connection.get(path, dict[str, Any], scope=scope)
        except (ForbiddenError, NotFoundError) as error:
            result.notes.append(f"who manages kube-proxy is not known: {error}")
    return result


def _level(name: str, node: Node | None, found: InScope, read: proxyload.ConfigReader) -> Level:
    proxy = found.proxies.get(name)
    raised, problem = None, ""
    try:
        raised = of_node(node) if node else None
    except RecordError as error:
        problem = str(error)
    pod = found.pods.get(proxy.place.uid) if proxy and proxy.place else None
    config = read.of(pod) if pod else None
    return Level(name, node.metadata.uid if node else "", node, proxy, config, raised, problem)


def way_of(level: Level, daemon_sets: Mapping[str, Mapping[str, Any]], nodes: Iterable[Node]) -> Way | CannotRaise:
    """How a node's verbosity can be raised, as far as its settings tell: whether it answers is not tried here."""
    proxy = level.proxy
    if proxy is None or proxy.kind in (Kind.ABSENT, Kind.MISSING):
        return CannotRaise(Reason("noKubeProxy", proxy.why if proxy else "where its kube-proxy is, is not known"))
    kubelet = level.node.status.node_info.kubelet_version if level.node else ""
    if proxy.kind is Kind.EMBEDDED or proxy.place is None:
        return CannotRaise(Reason("embedded", f"its kube-proxy is {proxy.why}, no pod"), by_hand(proxy, kubelet))
    if not proxy.place.running:
        return CannotRaise(Reason("notRunning", f"its kube-proxy does not run: {proxy.why}"))
    profiling = level.config.profiling if level.config else None
    if profiling is not False and not _older(proxy.version):
        return Way.RUNTIME
    return template_way(level, daemon_sets, nodes)


def template_way(
    level: Level, daemon_sets: Mapping[str, Mapping[str, Any]], nodes: Iterable[Node]
) -> Way | CannotRaise:
    """Whether it can be raised by the DaemonSet: the node must have one, and nobody else may look after it."""
    proxy = level.proxy
    place = proxy.place if proxy else None
    if proxy is None or place is None or proxy.kind is not Kind.DAEMON_SET:
        kubelet = level.node.status.node_info.kubelet_version if level.node else ""
        why = "enableProfiling is off, and its kube-proxy is no DaemonSet's pod"
        return CannotRaise(Reason("staticPod", why), by_hand(proxy, kubelet) if proxy else "")
    found = daemon_sets.get(daemon_set_path(place.namespace, place.owner))
    if found is None:
        return CannotRaise(Reason("unknownOwner", "enableProfiling is off, and its DaemonSet cannot be read"))
    owner = owner_of(found, nodes)
    if owner is not None:
        return CannotRaise(
            Reason(
                "managed",
                f"enableProfiling is off, and the DaemonSet {place.namespace}/{place.owner} is managed by {owner.name} "
                f"({owner.sign}): it would be set back, and every kube-proxy restarted",
            ),
            f"the way that is meant for it: {owner.way}",
        )
    return Way.TEMPLATE


def _older(version: str | None) -> bool:
    parts = (version or "").lstrip("v").split(".")
    if len(parts) < 2 or not all(part.isdigit() for part in parts[:2]):
        return False
    return (int(parts[0]), int(parts[1])) < RUNTIME_SINCE
