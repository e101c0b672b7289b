"""The lab's object store: what a real cluster keeps in etcd, with the write rules of its API server.

Every write goes through the same steps whoever makes it: defaults, validation, admission, version check. Keeping,
listing and watching is the history's (`history`). Time and randomness are injected. No HTTP, no access rules: those are
the API's; no controllers either.

Objects that `get`, `find`, `select` and the writing methods return are copies; those in pages and changes are shared
and must not be changed. All methods may be called from any thread. They raise `Refused` as a server would answer.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from kdnsctl.lab import replies, validation
from kdnsctl.lab.changes import ChangeType
from kdnsctl.lab.defaults import give_cluster_ip, set_defaults
from kdnsctl.lab.history import History, copied, key_of, ordered
from kdnsctl.lab.kinds import DISRUPTION_BUDGETS, LEASES, NAMESPACES, NODES, PODS, SERVICES, Kind
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.shapes import check_shape

Clock = Callable[[], datetime]
NAME_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
"""The letters of generated names (k8s.io/apimachinery/pkg/util/rand): no vowels and no digits that look like them."""

_NEEDS_VERSION: Final = (LEASES, DISRUPTION_BUDGETS)


def utc_now() -> datetime:
    """The clock of a lab that is not a test."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """A time as metadata writes it: RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Admission:
    """What an admission check sees: the object about to be stored, and the one it replaces (None on creation)."""

    kind: Kind
    obj: JSON
    old: JSON | None
    subresource: str | None
    dry_run: bool


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """`grace_seconds` None: the pod's own. `orphan`: dependents lose their owner instead of being collected."""

    grace_seconds: int | None = None
    uid: str | None = None
    version: str | None = None
    orphan: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Deleted:
    """The object as it was last seen; `gone` is False while it is still terminating."""

    obj: JSON
    gone: bool


class Store(History):
    """See the module. `admission` holds checks in the order they run; each may raise Refused."""

    def __init__(self, clock: Clock = utc_now, *, seed: int | None = None, history: int = 20_000) -> None:
        super().__init__(history)
        self.clock = clock
        self.random = random.Random(seed)  # noqa: S311 - names and ids, no secrets
        self.admission: list[Callable[[Admission], None]] = []

    def create(self, kind: Kind, obj: JSON, *, dry_run: bool = False) -> JSON:
        """Store a new object; metadata.namespace and name (or generateName) say where."""
        obj = copied(obj)
        obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
        check_shape(kind, obj)
        metadata = obj.setdefault("metadata", {})
        with self.lock:
            if "name" not in metadata and metadata.get("generateName"):
                metadata["name"] = metadata["generateName"] + self.suffix()
            for ours in ("uid", "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields"):
                metadata.pop(ours, None)
            if kind.namespaced:
                namespace = metadata.setdefault("namespace", "default")
                if ("", namespace) not in self._kept(NAMESPACES):
                    raise replies.not_found(NAMESPACES, namespace)
            else:
                metadata.pop("namespace", None)
            metadata["creationTimestamp"] = timestamp(self.clock())
            metadata["uid"] = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
            if kind.counts_generation:
                metadata["generation"] = 1
            if kind.has_status and kind is not NODES:
                # A kubelet registers its node together with its status; every other status starts empty.
                obj.pop("status", None)
            set_defaults(kind, obj)
            if kind is SERVICES:
                give_cluster_ip(obj, [service["spec"] for service in self._kept(SERVICES).values()])
            validation.check_new(kind, obj)
            self._admit(Admission(kind, obj, None, None, dry_run))
            if key_of(obj) in self._kept(kind):
                raise replies.already_exists(kind, metadata["name"])
            self.refuse_in_terminating(kind, metadata)
            return self._commit(ChangeType.ADDED, kind, obj, None, dry_run=dry_run)

    def update(self, kind: Kind, obj: JSON, *, subresource: str | None = None, dry_run: bool = False) -> JSON:
        """Replace an object. A resourceVersion in it must be the current one (409 otherwise)."""
        metadata = obj.get("metadata", {})
        name, namespace = metadata.get("name", ""), metadata.get("namespace", "") if kind.namespaced else ""
        if kind in _NEEDS_VERSION and not metadata.get("resourceVersion"):
            message = "Invalid value: 0x0: must be specified for an update"
            fault = replies.FieldFault("metadata.resourceVersion", message)
            raise replies.invalid(kind.plural, name, [fault], group=kind.group)
        if uid := metadata.get("uid"):
            current = self.get(kind, name, namespace)["metadata"]["uid"]
            if uid != current:
                why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {current}"
                raise replies.conflict(kind, name, why)
        return self.change(kind, name, namespace, lambda _: obj, subresource=subresource, dry_run=dry_run)

    def change(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        edit: Callable[[JSON], JSON],
        *,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> JSON:
        """Read, edit and replace as one step; `edit` gets a copy and returns the new object. What a patch does.

        With `subresource="status"` only status (and labels, annotations, finalizers) is taken over; without it, status
        is kept for the kinds that have the subresource. A write that changes nothing keeps the version.
        """
        with self.lock:
            old = self._kept(kind).get((namespace, name))
            if old is None:
                raise replies.not_found(kind, name)
            new = copied(edit(copied(old)))
            new["apiVersion"], new["kind"] = kind.api_version, kind.kind
            check_shape(kind, new)
            asked = new.setdefault("metadata", {})
            if asked.get("resourceVersion") not in (None, "", old["metadata"]["resourceVersion"]):
                raise replies.stale_write(kind, name)
            validation.check_identity(kind, new, old)
            for ours in ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"):
                asked.pop(ours, None)
                if ours in old["metadata"]:
                    asked[ours] = old["metadata"][ours]
            asked.pop("managedFields", None)
            if subresource == "status":
                # Who owns a pod is not its kubelet's to say (podStatusStrategy of a real server).
                asked.pop("ownerReferences", None)
                if "ownerReferences" in old["metadata"]:
                    asked["ownerReferences"] = old["metadata"]["ownerReferences"]
                new = {**old, "metadata": asked, "status": new.get("status", {})}
            elif kind.has_status:
                new["status"] = old.get("status", {})
            set_defaults(kind, new)
            validation.check_changed(kind, new, old)
            self._admit(Admission(kind, new, old, subresource, dry_run))
            if kind.counts_generation and validation.spec_changed(new, old):
                asked["generation"] = old["metadata"].get("generation", 0) + 1
            asked["resourceVersion"] = old["metadata"]["resourceVersion"]
            new["metadata"] = ordered(asked)
            if new == old:
                return copied(old)
            if "deletionTimestamp" in asked and not _held(kind, new) and not _waits_for_kubelet(kind, new):
                return self._commit(ChangeType.DELETED, kind, new, old, dry_run=dry_run)
            return self._commit(ChangeType.MODIFIED, kind, new, old, dry_run=dry_run)

    def bind(self, name: str, namespace: str, node: str) -> JSON:
        """Give a pod its node, which no ordinary write may. Raises Refused (404, or 409 when it has one)."""
        with self.lock:
            old = self._kept(PODS).get((namespace, name))
            if old is None:
                raise replies.not_found(PODS, name)
            if assigned := old["spec"].get("nodeName"):
                raise replies.conflict(PODS, name, f'pod {name} is already assigned to node "{assigned}"')
            new = copied(old)
            new["spec"]["nodeName"] = node
            return self._commit(ChangeType.MODIFIED, PODS, new, old, dry_run=False)

    def delete(self, kind: Kind, name: str, namespace: str = "", options: DeleteOptions = DeleteOptions()) -> Deleted:
        """Delete at once, or mark a pod on a node (its kubelet confirms with grace 0) or an object with finalizers."""
        with self.lock:
            old = self._kept(kind).get((namespace, name))
            if old is None:
                raise replies.not_found(kind, name)
            metadata = old["metadata"]
            if options.uid is not None and options.uid != metadata["uid"]:
                raise replies.wrong_uid(kind, name, options.uid, metadata["uid"])
            if options.version is not None and options.version != metadata["resourceVersion"]:
                raise replies.wrong_version(kind, name, options.version, metadata["resourceVersion"])
            if options.orphan:
                self._orphan_dependents(metadata["uid"], dry_run=options.dry_run)
            grace = _grace(kind, old, options)
            if grace == 0 and not _held(kind, old):
                return Deleted(
                    self._commit(ChangeType.DELETED, kind, copied(old), old, dry_run=options.dry_run), gone=True
                )
            if "deletionTimestamp" in metadata and grace >= metadata.get("deletionGracePeriodSeconds", 0):
                return Deleted(copied(old), gone=False)
            new = copied(old)
            changed = new["metadata"]
            started = self.clock()
            if "deletionTimestamp" in metadata:
                # A shorter grace period counts from the first request, not from this one.
                then = datetime.strptime(metadata["deletionTimestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
                started = then - timedelta(seconds=metadata.get("deletionGracePeriodSeconds", 0))
            elif kind.counts_generation:
                changed["generation"] = changed.get("generation", 0) + 1
            changed["deletionTimestamp"] = timestamp(started + timedelta(seconds=grace))
            changed["deletionGracePeriodSeconds"] = grace
            if kind is NAMESPACES:
                new.setdefault("status", {})["phase"] = "Terminating"
            return Deleted(self._commit(ChangeType.MODIFIED, kind, new, old, dry_run=options.dry_run), gone=False)

    def suffix(self) -> str:
        """Five letters for a generated name."""
        with self.lock:
            return "".join(self.random.choices(NAME_LETTERS, k=5))

    def _admit(self, admission: Admission) -> None:
        for check in self.admission:
            check(admission)

    def refuse_in_terminating(self, kind: Kind, metadata: JSON) -> None:
        """Raises Refused (403) for something new in a namespace that is being deleted; an eviction is new, too."""
        with self.lock:
            namespace = self._kept(NAMESPACES).get(("", metadata.get("namespace", "")))
        if namespace is None or "deletionTimestamp" not in namespace["metadata"]:
            return
        name = namespace["metadata"]["name"]
        why = f"unable to create new content in namespace {name} because it is being terminated"
        refusal = replies.forbidden(kind.plural, kind.group, metadata["name"], why)
        message = f"namespace {name} is being terminated"
        cause = {"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}
        refusal.details = {**(refusal.details or {}), "causes": [cause]}
        raise refusal

    def _orphan_dependents(self, uid: str, *, dry_run: bool) -> None:
        for kind, objects in self._objects.items():
            for obj in list(objects.values()):
                owners = obj["metadata"].get("ownerReferences", [])
                if any(owner["uid"] == uid for owner in owners):
                    new = copied(obj)
                    new["metadata"]["ownerReferences"] = [owner for owner in owners if owner["uid"] != uid]
                    self._commit(ChangeType.MODIFIED, kind, new, obj, dry_run=dry_run)


def _held(kind: Kind, obj: JSON) -> bool:
    """Whether something must happen before the object may go: its finalizers, or the emptying of a namespace."""
    if kind is NAMESPACES and obj.get("spec", {}).get("finalizers"):
        return True
    return bool(obj["metadata"].get("finalizers"))


def _waits_for_kubelet(kind: Kind, obj: JSON) -> bool:
    return kind is PODS and obj["metadata"].get("deletionGracePeriodSeconds", 0) > 0


def _grace(kind: Kind, obj: JSON, options: DeleteOptions) -> int:
    """Seconds a deletion waits. Only pods have any; one without a node or one that has ended has none to wait for."""
    if kind is not PODS:
        return 0
    if not obj["spec"].get("nodeName") or obj.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if options.grace_seconds is None:
        return int(obj["spec"].get("terminationGracePeriodSeconds", 30))
    return 1 if options.grace_seconds < 0 else options.grace_seconds
