"""The cluster's side of a bundle: lists as the API gives them, and every change of EndpointSlices while nodes are read.

The lists come before the first node is read. Of pods, environment variables are left out, and of everything what
kubectl remembers of manifests: both can hold secrets. Nothing is judged here.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.journal import utc_now
from kdnsctl.cluster.lists import list_all
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
REMEMBERED: Final = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Kind:
    """What is listed: the item's id, the kind of the list, and where the API has it."""

    id: str
    kind: str
    version: str
    path: str


KINDS: Final = (
    Kind("services", "ServiceList", "v1", "/api/v1/services"),
    Kind(SLICES, "EndpointSliceList", "discovery.k8s.io/v1", f"{bracket.SLICES}/endpointslices"),
    Kind("nodes", "NodeList", "v1", "/api/v1/nodes"),
    Kind("pods", "PodList", "v1", "/api/v1/namespaces/kube-system/pods"),
)
NEEDED: Final = (
    Permission("list", "services", without="what was collected cannot be judged"),
    *bracket.NEEDED,
)
HELPFUL: Final = bracket.HELPFUL


class ClusterCollector:
    """Collects the cluster's side into a bundle. What is missing is in `gaps`, by the item."""

    def __init__(self, bundle: Bundle, connection: Connection, reporter: Reporter) -> None:
        self._bundle = bundle
        self._connection = connection
        self._reporter = reporter
        self.gaps: list[Gap] = []

    @contextlib.contextmanager
    def during(self, scope: CancelScope) -> Iterator[None]:
        """List everything, and keep the watch open for the length of the block.

        Raises what ends the scope.
        """
        for kind in KINDS:
            if kind.id != SLICES:
                self._list(kind, scope)
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
        try:
            found = list_all(self._connection, kind.path, msgspec.Raw, scope=scope)
        except KdnsctlError as error:
            scope.check()
            self._missing(kind.id, error)
            return
        self._write_list(kind, found.items, found.resource_version)

    def _write_list(self, kind: Kind, items: Iterable[msgspec.Raw], version: str) -> None:
        head = {"apiVersion": kind.version, "kind": kind.kind, "metadata": {"resourceVersion": version}}
        try:
            file = self._bundle.begin(CLUSTER, kind.id, f"{kind.id}.json", Source(API, ("GET", kind.path)))
            try:
                file.write(msgspec.json.encode(head)[:-1] + b',"items":[\n')
                for number, item in enumerate(items):
                    file.write((b",\n" if number else b"") + without_secrets(bytes(item)))
                file.write(b"\n]}\n")
            finally:
                file.close(proof=Proof.CLOSED.value)
        except BundleWriteError as error:
            self.gaps.append(Gap(kind.id, Reason(error.code, str(error))))

    def _begin_watch(self, kind: Kind, scope: CancelScope) -> threading.Thread | None:
        events = watch(self._connection, kind.path, msgspec.Raw, scope=scope, note=self._reporter.noted)
        try:
            first = next(events)
        except KdnsctlError as error:
            scope.check()
            self._missing(SLICES, error)
            return None
        self._write_list(kind, first.items, first.resource_version)
        try:
            source = Source(API, ("WATCH", kind.path))
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

    def _missing(self, item: str, error: KdnsctlError) -> None:
        self.gaps.append(Gap(item, Reason(error.code, str(error))))
        problem = {"code": error.code, "message": str(error)}
        self._bundle.record("missing", {"node": CLUSTER, "item": item, "problem": problem})


def without_secrets(item: bytes) -> bytes:
    """An object without what can hold secrets. Raises msgspec.DecodeError for what is no object."""
    one: dict[str, Any] = msgspec.json.decode(item, type=dict[str, Any])
    metadata, spec = one.get("metadata"), one.get("spec")
    if isinstance(metadata, dict) and isinstance(metadata.get("annotations"), dict):
        metadata["annotations"].pop(REMEMBERED, None)
    if isinstance(spec, dict):
        for group in ("containers", "initContainers", "ephemeralContainers"):
            for container in spec.get(group) or ():
                container.pop("env", None)
    return msgspec.json.encode(one)


def lines(event: Event[msgspec.Raw], at: datetime) -> Iterator[bytes]:
    """An event as it is written down. `at` is when it came: only so it can be told which dumps are older.

    A new list begins with a line of its own, so that what is not in it is known to be gone.
    """
    said = {"type": event.change.value, "time": at.isoformat()}
    if event.change in (Change.BOOKMARK, Change.LISTED):
        yield msgspec.json.encode({**said, "resourceVersion": event.resource_version}) + b"\n"
    for item in event.items:
        yield msgspec.json.encode({**said, "object": msgspec.Raw(without_secrets(bytes(item)))}) + b"\n"
