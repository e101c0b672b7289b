"""Which pods of a node a drain takes, which stay, and which forbid it: kubectl's filters, in kubectl's order.

Source: Kubernetes 1.36, k8s.io/kubectl pkg/drain/filters.go, messages included. Pure: DaemonSets are looked up by the
caller. It differs on purpose in two things: kubectl keeps only the last filter's warning, here every
warning is kept; and pods of our own stay.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from kdnsctl.cluster.objects import Pod
from kdnsctl.reach.podspec import MANAGED_BY, MANAGER, RUN

DAEMON_SET: Final = "ignoring DaemonSet-managed Pods"
LOCAL_STORAGE: Final = "Pods with local storage (use --delete-emptydir-data to override)"
LOCAL_STORAGE_GOES: Final = "deleting Pods with local storage"
UNMANAGED: Final = "Pods that declare no controller (use --force to override)"
OUR_OWN: Final = "a pod of kdnsctl's own, which ends by itself (kdnsctl cleanup)"
UNMANAGED_GOES: Final = "deleting Pods that declare no controller"


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """kubectl drain's options. `grace_period` in seconds, None: the pod's own. `timeout` in seconds, None: no end.

    `skip_wait` in seconds, None: never: a pod that should be gone for longer is not waited for. DaemonSets' pods always
    stay, so there is nothing for --ignore-daemonsets to say.
    """

    force: bool = False
    delete_emptydir_data: bool = False
    grace_period: int | None = None
    timeout: float | None = None
    pod_selector: str = ""
    disable_eviction: bool = False
    skip_wait: float | None = None


class Fate(enum.StrEnum):
    """What is to become of a pod."""

    GOES = "goes"
    STAYS = "stays"
    FORBIDS = "forbids"  # nothing on its node goes


@dataclass(frozen=True, slots=True)
class Decision:
    """A pod's fate: `why` when it stays or forbids, `warnings` when it goes although something speaks against it."""

    pod: Pod
    fate: Fate
    why: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Said:
    fate: Fate = Fate.GOES
    message: str = ""


_GOES: Final = _Said()


@dataclass(frozen=True, slots=True)
class Known:
    """What the filters know beside the pod: DaemonSets that are there (namespace and name), options, the time."""

    daemon_sets: Collection[tuple[str, str]]
    options: DrainOptions
    now: datetime


def decide(pods: Iterable[Pod], known: Known) -> list[Decision]:
    """The decision about each pod, in order."""
    return [_decide(pod, known) for pod in pods]


def refusal(decisions: Iterable[Decision]) -> str:
    """Why a node may not be drained, as kubectl says it; empty when nothing forbids it."""
    reasons: dict[str, list[str]] = {}
    for decision in decisions:
        if decision.fate is Fate.FORBIDS:
            reasons.setdefault(decision.why, []).append(name_of(decision.pod))
    return "; ".join(f"cannot delete {why}: {', '.join(pods)}" for why, pods in reasons.items())


def name_of(pod: Pod) -> str:
    """Namespace and name."""
    return f"{pod.metadata.namespace}/{pod.metadata.name}"


def _decide(pod: Pod, known: Known) -> Decision:
    warnings: list[str] = []
    for one in _FILTERS:
        said = one(pod, known)
        if said.fate is not Fate.GOES:
            return Decision(pod, said.fate, said.message)
        if said.message:
            warnings.append(said.message)
    return Decision(pod, Fate.GOES, warnings=tuple(warnings))


def long_gone(pod: Pod, options: DrainOptions, now: datetime) -> bool:
    """Whether its end was due so long ago that it is not waited for. The timestamp holds the grace period already."""
    end = pod.metadata.deletion_timestamp
    return bool(options.skip_wait) and end is not None and now - end > timedelta(seconds=options.skip_wait or 0)


def _skip_deleted(pod: Pod, known: Known) -> _Said:
    if long_gone(pod, known.options, known.now):
        return _Said(Fate.STAYS, f"has DeletionTimestamp older than {known.options.skip_wait:g} seconds, skipping")
    return _GOES


def _daemon_set(pod: Pod, known: Known) -> _Said:
    owner = pod.metadata.controller
    if owner is None or owner.kind != "DaemonSet" or owner.api_version != "apps/v1" or pod.ended:
        return _GOES
    if (pod.metadata.namespace, owner.name) in known.daemon_sets:
        return _Said(Fate.STAYS, DAEMON_SET)
    missing = f'daemonsets.apps "{owner.name}" not found'
    return _Said(Fate.GOES if known.options.force else Fate.FORBIDS, missing)


def _mirror(pod: Pod, _: Known) -> _Said:
    return _Said(Fate.STAYS, "static pod: it comes from a file on the node") if pod.static else _GOES


def _our_own(pod: Pod, _: Known) -> _Said:
    """What a capture has left, or is about to end: it ends by itself, and forbids nothing (kubectl knows no such)."""
    ours = pod.metadata.labels.get(MANAGED_BY) == MANAGER and RUN in pod.metadata.labels
    return _Said(Fate.STAYS, OUR_OWN) if ours and pod.metadata.controller is None else _GOES


def _local_storage(pod: Pod, known: Known) -> _Said:
    if pod.ended or not any(volume.empty_dir is not None for volume in pod.spec.volumes):
        return _GOES
    if known.options.delete_emptydir_data:
        return _Said(message=LOCAL_STORAGE_GOES)
    return _Said(Fate.FORBIDS, LOCAL_STORAGE)


def _unmanaged(pod: Pod, known: Known) -> _Said:
    if pod.ended or pod.metadata.controller is not None:
        return _GOES
    if known.options.force:
        return _Said(message=UNMANAGED_GOES)
    return _Said(Fate.FORBIDS, UNMANAGED)


# The order is behaviour: a DaemonSet's pod with an emptyDir stays, and does not forbid.
_FILTERS: Final[tuple[Callable[[Pod, Known], _Said], ...]] = (
    _skip_deleted, _daemon_set, _mirror, _our_own, _local_storage, _unmanaged,
)  # fmt: skip
