"""cleanup: the pods that earlier runs have left on the cluster: found by their label, told, and deleted by their UID.

A pod that still runs and was made by somebody else may belong to a run that goes on: it is only touched when its run,
or an age, is named. Nothing that does not carry our label is ever looked at.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kdnsctl import fleet
from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope
from kdnsctl.changes import reminding
from kdnsctl.cluster import pods
from kdnsctl.cluster.errors import ForbiddenError
from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence.ways import VIA_POD
from kdnsctl.find.online import identity_of
from kdnsctl.model import API_VERSION, ExitCode, Reporter, Scope
from kdnsctl.reach.podkeeper import PodSettings
from kdnsctl.reach.podspec import OPERATOR, RUN, SELECTOR

AT_ONCE: Final = 16
ENDED: Final = ("Succeeded", "Failed")
NEEDS: Final = Needs(
    needed=(Permission("list", "pods", without="pods that were left are not found"),),
    helpful=tuple(
        dict.fromkeys(
            (
                *reminding.HELPFUL,
                Permission("list", "nodes", without="nodes that are still in quarantine are not named"),
            )
        )
    ),
    # Who may make pods needs it; nobody else gets it unasked, for it is good for kube-proxy's pods as well.
    with_option={
        VIA_POD: (Permission("delete", "pods", namespace=PodSettings().namespace, without="what was left stays"),)
    },
)


class Fate(enum.StrEnum):
    """What becomes of a pod."""

    FOUND = "found"  # it would be deleted; nothing was asked of the server
    WOULD_DELETE = "wouldDelete"  # the server would do it
    DELETED = "deleted"
    GONE = "gone"  # it was not there any more
    KEPT = "kept"
    FAILED = "failed"


class DryRun(enum.StrEnum):
    """Whether anything is done, as kubectl says it."""

    NONE = "none"
    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A pod of ours. `why` says why it is kept, or what failed."""

    namespace: str
    name: str
    uid: str
    node: str
    run: str
    operator: str
    phase: str
    made: datetime | None
    terminating: bool = False
    fate: Fate = Fate.FOUND
    why: str = ""

    @property
    def place(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of them: those of one run, those older than that, seen by `operator`. None: no matter."""

    operator: str
    run: str | None = None
    older_than: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """All of our pods that can be seen. `scope` is partial where only one namespace may be listed; `note` says so."""

    cluster: str
    generated_at: datetime
    pods: tuple[Leftover, ...]
    scope: Scope = Scope.FULL
    note: str = ""

    @property
    def to_delete(self) -> tuple[Leftover, ...]:
        """Those that nothing speaks against deleting."""
        return tuple(one for one in self.pods if one.fate is Fate.FOUND)

    @property
    def exit_code(self) -> ExitCode:
        """OK when nothing failed and everything could be seen."""
        failed = any(one.fate is Fate.FAILED for one in self.pods)
        return ExitCode.INCOMPLETE if failed or self.scope is Scope.PARTIAL else ExitCode.OK


def find(
    connection: Connection,
    wanted: Wanted,
    namespace: str,
    *,
    scope: CancelScope,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Found:
    """What there is, and what is to become of it. `namespace` is looked into where all may not be listed.

    Raises as `pods.find` when not even that may be.
    """
    moment = now()
    identity = identity_of(connection.target)
    labels = SELECTOR if wanted.run is None else f"{SELECTOR},{RUN}={wanted.run}"
    try:
        seen = pods.find(connection, None, labels, scope=scope)
    except ForbiddenError as error:
        seen = pods.find(connection, namespace, labels, scope=scope)
        note = f"pods may not be listed in all namespaces ({error.failure.message or error}): only {namespace} was seen"
        return Found(identity, moment, _judged(seen, wanted, moment), Scope.PARTIAL, note)
    return Found(identity, moment, _judged(seen, wanted, moment))


def delete(
    connection: Connection, found: Found, *, server_dry_run: bool, scope: CancelScope, reporter: Reporter
) -> Found:
    """Delete those that are to be; each by its UID. With `server_dry_run` the server only says whether it would."""
    by_uid = {one.uid: one for one in found.to_delete}

    def work(uid: str, limit: CancelScope) -> bool:
        one = by_uid[uid]
        return pods.delete(connection, one.namespace, one.name, uid, scope=limit, dry_run=server_dry_run)

    outcomes = fleet.run(
        by_uid, work, parallel=AT_ONCE, deadline=None, reporter=reporter, scope=scope, what="deleting pods"
    )
    done = Fate.WOULD_DELETE if server_dry_run else Fate.DELETED
    fates = {
        outcome.node: (Fate.FAILED, outcome.reason.message)
        if outcome.reason is not None
        else (done if outcome.value else Fate.GONE, "")
        for outcome in outcomes
    }
    return replace(
        found,
        pods=tuple(
            replace(one, fate=fates[one.uid][0], why=fates[one.uid][1]) if one.uid in fates else one
            for one in found.pods
        ),
    )


def to_json(
    found: Found, dry_run: DryRun, leases: Sequence[dict[str, Any]] = (), notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The report as plain data (docs/schemas/CleanupReport.schema.json). `leases` and `notes` are those of locks."""
    return {
        "apiVersion": API_VERSION,
        "kind": "CleanupReport",
        "cluster": found.cluster,
        "generatedAt": found.generated_at.isoformat(),
        "dryRun": dry_run.value,
        "scope": found.scope.value,
        "pods": [
            {
                "namespace": one.namespace,
                "name": one.name,
                "uid": one.uid,
                "node": one.node,
                "run": one.run,
                "operator": one.operator,
                "phase": one.phase,
                "createdAt": one.made.isoformat() if one.made else None,
                "fate": one.fate.value,
                "why": one.why,
            }
            for one in found.pods
        ],
        "leases": list(leases),
        "notes": [note for note in (found.note, *notes) if note],
    }


def _judged(seen: Sequence[Pod], wanted: Wanted, now: datetime) -> tuple[Leftover, ...]:
    found = [_leftover(pod) for pod in seen]
    return tuple(
        replace(one, fate=Fate.KEPT, why=why) if (why := _why_kept(one, wanted, now)) else one
        for one in sorted(found, key=lambda one: (one.run, one.node, one.name))
    )


def _leftover(pod: Pod) -> Leftover:
    metadata = pod.metadata
    return Leftover(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        node=pod.spec.node_name,
        run=metadata.labels.get(RUN, ""),
        operator=metadata.annotations.get(OPERATOR, ""),
        phase=pod.status.phase,
        made=metadata.creation_timestamp,
        terminating=metadata.deletion_timestamp is not None,
    )


def _why_kept(one: Leftover, wanted: Wanted, now: datetime) -> str:
    if one.terminating:
        return "it is being deleted already"
    if wanted.older_than is not None and (one.made is None or now - one.made < wanted.older_than):
        return "it is younger than was asked for"
    named = wanted.run is not None or wanted.older_than is not None
    if not named and one.phase not in ENDED and one.operator != wanted.operator:
        return f"it runs, and is {one.operator or 'somebody'}'s: name its run or an age to delete it nevertheless"
    return ""
