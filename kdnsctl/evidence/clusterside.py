"""The cluster's side of a bundle: lists as the API gives them, and every change of EndpointSlices while nodes are read.

The lists come before the first node is read. Environment variables are left out, and of everything what kubectl
remembers of manifests: both can hold secrets. So can command lines of other people's pods: of pods that are not in
kube-system only what tells who is behind an address is kept. Secrets are never asked for. Nothing is judged here.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import msgspec

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.journal import utc_now
from kdnsctl.cluster.answers import decode
from kdnsctl.cluster.errors import ForbiddenError, NotFoundError
from kdnsctl.cluster.lists import Listing, list_all
from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.watch import Change, Event, watch
from kdnsctl.evidence.artefactfile import ArtefactFile, BundleWriteError, Source
from kdnsctl.evidence.artefacts import CLUSTER
from kdnsctl.evidence.bundle import Bundle
from kdnsctl.evidence.nodeside import API
from kdnsctl.evidence.resuming import Gap
from kdnsctl.find import bracket
from kdnsctl.model import KdnsctlError, Proof, Reason, Reporter

SLICES: Final = "endpointslices"
WATCH: Final = "endpointslices.watch"
KUBE_SYSTEM: Final = "kube-system"
REMEMBERED: Final = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Kind:
    """What is listed: the item's id, the kind of the list, and where the API has it.

    `fields` narrows it down. `extra`: it helps to understand, and no verdict hangs on it. `names`: only these objects.
    """

    id: str
    kind: str
    version: str
    path: str
    fields: str | None = None
    extra: bool = False
    names: tuple[str, ...] = ()


KINDS: Final = (
    Kind("services", "ServiceList", "v1", "/api/v1/services"),
    Kind(SLICES, "EndpointSliceList", "discovery.k8s.io/v1", f"{bracket.SLICES}/endpointslices"),
    Kind("nodes", "NodeList", "v1", "/api/v1/nodes"),
    Kind("events", "EventList", "v1", "/api/v1/namespaces/kube-system/events", extra=True),
    # Events of Nodes lie in `default` (client-go tools/record, for objects without a namespace).
    Kind(
        "events.nodes",
        "EventList",
        "v1",
        "/api/v1/namespaces/default/events",
        fields="involvedObject.kind=Node",
        extra=True,
    ),
    Kind("daemonsets", "DaemonSetList", "apps/v1", "/apis/apps/v1/namespaces/kube-system/daemonsets", extra=True),
    Kind("deployments", "DeploymentList", "apps/v1", "/apis/apps/v1/namespaces/kube-system/deployments", extra=True),
    Kind(
        "configmaps",
        "ConfigMapList",
        "v1",
        "/api/v1/namespaces/kube-system/configmaps",
        extra=True,
        # kubeadm's kube-proxy and EKS's, CoreDNS, node-local-dns.
        names=("kube-proxy", "kube-proxy-config", "coredns", "node-local-dns"),
    ),
)
PODS: Final = Kind("pods", "PodList", "v1", "/api/v1/namespaces/kube-system/pods")
CLIENTS: Final = Kind("pods.clients", "PodList", "v1", "/api/v1/pods", extra=True)
CLOCK: Final = "clock"
ASK_CLOCK: Final = ("GET", "/version")
FEW_NODES: Final = 20  # as many are asked for their pods one by one; of more, all pods are listed
NEEDED: Final = (
    Permission("list", "services", without="what was collected cannot be judged"),
    *bracket.NEEDED,
)
HELPFUL: Final = (
    *bracket.HELPFUL,
    Permission("list", "pods", without="the pods behind clients are not named"),
    Permission("list", "events", namespace=KUBE_SYSTEM, without="what happened to its pods is not collected"),
    Permission("list", "events", namespace="default", without="what happened to nodes is not collected"),
    Permission("list", "daemonsets", group="apps", namespace=KUBE_SYSTEM, without="DaemonSets are not collected"),
    Permission("list", "deployments", group="apps", namespace=KUBE_SYSTEM, without="Deployments are not collected"),
    *(
        Permission(
            "get",
            "configmaps",
            namespace=KUBE_SYSTEM,
            name=name,
            without="how kube-proxy and DNS are set up is not collected",
        )
        for kind in KINDS
        for name in kind.names
    ),
)
_SECRET: Final = re.compile(r"(?i)credential|secret|passw|token|access_?key|api_?key|private|-data\s*:|bearer")
LEFT_OUT: Final = "# a line that could hold a secret was left out"


class ClusterCollector:
    """Collects the cluster's side into a bundle, `nodes` being those that are read.

    What is missing is in `gaps`, by the item, and in `lacking` what no verdict hangs on.
    """

    def __init__(self, bundle: Bundle, connection: Connection, nodes: Collection[str], reporter: Reporter) -> None:
        self._bundle = bundle
        self._connection = connection
        self._nodes = nodes
        self._reporter = reporter
        self.gaps: list[Gap] = []
        self.lacking: list[Gap] = []

    @contextlib.contextmanager
    def during(self, scope: CancelScope) -> Iterator[None]:
        """List everything, and keep the watch open for the length of the block.

        Raises what ends the scope.
        """
        self._ask_clock(scope)
        for kind in KINDS:
            if kind.id != SLICES:
                self._list(kind, scope)
        self._list_pods(scope)
        with scope.child() as following:
            slices = next(kind for kind in KINDS if kind.id == SLICES)
            watching = self._begin_watch(slices, following)
            try:
                yield
            finally:
                following.cancel()
                if watching is not None:
                    watching.join(5.0)

    def _list(self, kind: Kind, scope: CancelScope) -> None:
        found = self._listed(kind, scope)
        if found is not None:
            self._write_list(kind, (bytes(item) for item in found.items), found.resource_version)

    def _listed(self, kind: Kind, scope: CancelScope) -> Listing[msgspec.Raw] | None:
        """What there is of a kind; None, and noted, when it cannot be had."""
        try:
            if kind.names:
                return Listing(list(self._named(kind, scope)), "")
            return list_all(self._connection, kind.path, msgspec.Raw, fields=kind.fields, scope=scope)
        except KdnsctlError as error:
            scope.check()
            self._missing(kind.id, error, extra=kind.extra)
            return None

    def _named(self, kind: Kind, scope: CancelScope) -> Iterator[msgspec.Raw]:
        """The objects of those names that there are. One that may not be read ends it only if none may be."""
        refused: KdnsctlError | None = None
        found = False
        for name in kind.names:
            try:
                body = self._connection.request("GET", f"{kind.path}/{name}", scope=scope).body
                yield decode(body, msgspec.Raw, f"GET {kind.path}/{name}")
                found = True
            except NotFoundError:
                continue
            except ForbiddenError as error:
                refused = error
        if refused is not None and not found:
            raise refused

    def _list_pods(self, scope: CancelScope) -> None:
        """The pods of kube-system, and of others on the nodes what tells who they are, in one list: each once."""
        found = self._listed(PODS, scope)
        if found is None:
            return
        pods = {_identity(bytes(item)): bytes(item) for item in found.items}
        for item in self._clients(scope):
            identity = _identity(item)
            if identity[1] in self._nodes and identity not in pods:
                pods[identity] = who(item)
        self._write_list(PODS, pods.values(), found.resource_version)

    def _clients(self, scope: CancelScope) -> Iterator[bytes]:
        """The pods on the nodes, maybe with others."""
        few = len(self._nodes) <= FEW_NODES
        for narrowed in [f"spec.nodeName={node}" for node in self._nodes] if few else [None]:
            found = self._listed(replace(CLIENTS, fields=narrowed), scope)
            if found is None:
                return  # what holds for one node holds for the others
            yield from (bytes(item) for item in found.items)

    def _ask_clock(self, scope: CancelScope) -> None:
        """The API server's own time, between two of ours, and its release."""
        began = utc_now()
        try:
            reply = self._connection.request("GET", "/version", scope=scope)
            version = decode(reply.body, dict[str, Any], "GET /version")
        except KdnsctlError as error:
            scope.check()
            self._missing(CLOCK, error, extra=True)
            return
        said = {"began": began.isoformat(), "date": reply.date, "ended": utc_now().isoformat()}
        self._write(CLOCK, ASK_CLOCK, [msgspec.json.encode({**said, "version": version})])

    def _write_list(self, kind: Kind, items: Iterable[bytes], version: str) -> None:
        head = {"apiVersion": kind.version, "kind": kind.kind, "metadata": {"resourceVersion": version}}

        def pieces() -> Iterator[bytes]:
            yield msgspec.json.encode(head)[:-1] + b',"items":[\n'
            for number, item in enumerate(items):
                yield (b",\n" if number else b"") + without_secrets(item)
            yield b"\n]}\n"

        self._write(kind.id, command_of(kind), pieces())

    def _write(self, item: str, command: tuple[str, ...], pieces: Iterable[bytes]) -> None:
        try:
            file = self._bundle.begin(CLUSTER, item, f"{item}.json", Source(API, command))
            try:
                for piece in pieces:
                    file.write(piece)
            finally:
                file.close(proof=Proof.CLOSED.value)
        except BundleWriteError as error:
            self.gaps.append(Gap(item, Reason(error.code, str(error))))

    def _begin_watch(self, kind: Kind, scope: CancelScope) -> threading.Thread | None:
        events = watch(self._connection, kind.path, msgspec.Raw, scope=scope, note=self._reporter.noted)
        try:
            first = next(events)
        except KdnsctlError as error:
            scope.check()
            self._missing(SLICES, error)
            return None
        self._write_list(kind, (bytes(item) for item in first.items), first.resource_version)
        try:
            source = Source(API, watching(kind))
            file = self._bundle.begin(CLUSTER, WATCH, "endpointslices-watch.jsonl", source)
        except BundleWriteError as error:
            self.gaps.append(Gap(WATCH, Reason(error.code, str(error))))
            return None
        thread = threading.Thread(target=self._follow, args=(events, file, scope), name="endpointslices", daemon=True)
        thread.start()
        return thread

    def _follow(self, events: Iterator[Event[msgspec.Raw]], file: ArtefactFile, scope: CancelScope) -> None:
        problem = None
        try:
            for event in events:
                for line in lines(event, utc_now()):
                    file.write(line)
        except BundleWriteError as error:
            problem = Reason(error.code, str(error))
        except KdnsctlError as error:
            if scope.reason is None:  # else it is over because the nodes have been read
                problem = Reason(error.code, str(error))
        if file.close(proof=Proof.CLOSED.value, problem=problem).problem is not None:
            self.gaps.append(Gap(WATCH, problem or Reason("bundleFull", "no room for it")))

    def _missing(self, item: str, error: KdnsctlError, *, extra: bool = False) -> None:
        (self.lacking if extra else self.gaps).append(Gap(item, Reason(error.code, str(error))))
        problem = {"code": error.code, "message": str(error)}
        self._bundle.record("missing", {"node": CLUSTER, "item": item, "problem": problem})


def command_of(kind: Kind) -> tuple[str, ...]:
    """How a kind is listed, as the record of the list has it."""
    return ("GET", kind.path)


def watching(kind: Kind) -> tuple[str, ...]:
    """How changes of a kind are followed, as their record has it."""
    return ("WATCH", kind.path)


def without_secrets(item: bytes) -> bytes:
    """An object without what can hold secrets. Raises msgspec.DecodeError for what is no object."""
    one: dict[str, Any] = msgspec.json.decode(item, type=dict[str, Any])
    metadata, spec, data = one.get("metadata"), one.get("spec"), one.get("data")
    if isinstance(metadata, dict) and isinstance(metadata.get("annotations"), dict):
        metadata["annotations"].pop(REMEMBERED, None)
    template = spec.get("template") if isinstance(spec, dict) else None
    for of_pod in (spec, template.get("spec") if isinstance(template, dict) else None):
        for container in _containers(of_pod) if isinstance(of_pod, dict) else ():
            container.pop("env", None)
    if isinstance(data, dict):  # of a ConfigMap
        one["data"] = {key: _told(str(text)) for key, text in data.items() if "kubeconfig" not in key.lower()}
        one.pop("binaryData", None)
    return msgspec.json.encode(one)


def _containers(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for group in ("containers", "initContainers", "ephemeralContainers"):
        yield from spec.get(group) or ()


def who(pod: bytes) -> bytes:
    """Of a pod only what tells whose an address is. Raises msgspec.DecodeError for what is no pod."""
    one: dict[str, Any] = msgspec.json.decode(pod, type=dict[str, Any])
    metadata, spec, status = (dict(one.get(part) or {}) for part in ("metadata", "spec", "status"))
    return msgspec.json.encode(
        {
            "metadata": {key: metadata[key] for key in _WHOSE if key in metadata},
            "spec": {key: spec[key] for key in ("nodeName", "hostNetwork") if key in spec}
            | {
                "containers": [
                    {"name": each.get("name"), "image": each.get("image")} for each in spec.get("containers") or ()
                ]
            },
            "status": {key: status[key] for key in ("phase", "podIP", "podIPs", "hostIP") if key in status},
        }
    )


_WHOSE: Final = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "ownerReferences")


def _told(text: str) -> str:
    """A file of configuration without the lines that could hold a secret; nothing of one that holds a key."""
    if "PRIVATE KEY" in text:
        return LEFT_OUT
    return "\n".join(LEFT_OUT if _SECRET.search(line) else line for line in text.split("\n"))


def _identity(pod: bytes) -> tuple[str, str, str]:
    """Namespace, node and name of a pod."""
    one = msgspec.json.decode(pod, type=Pod)
    return one.metadata.namespace, one.spec.node_name, one.metadata.name


def lines(event: Event[msgspec.Raw], at: datetime) -> Iterator[bytes]:
    """An event as it is written down. `at` is when it came: only so it can be told which dumps are older.

    A new list begins with a line of its own, so that what is not in it is known to be gone.
    """
    said = {"type": event.change.value, "time": at.isoformat()}
    if event.change in (Change.BOOKMARK, Change.LISTED):
        yield msgspec.json.encode({**said, "resourceVersion": event.resource_version}) + b"\n"
    for item in event.items:
        yield msgspec.json.encode({**said, "object": msgspec.Raw(without_secrets(bytes(item)))}) + b"\n"
