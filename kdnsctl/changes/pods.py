"""The verbs that take a pod away: by eviction, which asks its disruption budget, and by deletion, which does not.

Both name the pod's UID as a precondition, so another pod of that name is never touched. There is no way back: who
controls the pod makes a new one. When to ask, and what to do about a no, is decided by whoever takes the step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kdnsctl.changes.verbs import Effect, Means, Verb
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.retries import NO_RETRIES
from kdnsctl.model import Step

EVICT: Final = "pod.evict"
DELETE: Final = "pod.delete"
NEEDED: Final = (
    Permission("get", "pods", without="no pod is evicted: it could be another of that name by then"),
    Permission("create", "pods", subresource="eviction", without="no pod can be evicted"),
)
DELETING: Final = (Permission("delete", "pods", without="pods cannot be deleted past their budgets"),)
_NAME: Final = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
_PATH: Final = re.compile(rf"/api/v1/namespaces/({_NAME})/pods/({_NAME})")


class _PodVerb:
    """`args`: the pod's path, its node, and the grace period in seconds (None: the pod's own)."""

    def __init__(self, name: str, word: str) -> None:
        self._name = name
        self._word = word

    def check(self, step: Step) -> None:
        path, node, grace = step.args.get("path"), step.args.get("node"), step.args.get("grace")
        if set(step.args) != {"path", "node", "grace"} or not (isinstance(path, str) and isinstance(node, str)):
            raise ValueError("its arguments are path, node and grace")
        if not _PATH.fullmatch(path):
            raise ValueError(f"it is about {path!r}, which is no pod")
        if grace is not None and (type(grace) is not int or grace < 0):
            raise ValueError("its grace period is a number of seconds, or null")
        if not step.uid:
            raise ValueError("it does not say which pod it is about (uid)")

    def says(self, step: Step) -> str:
        namespace, name = _where(step)
        return f"{self._word} pod {namespace}/{name} from node {step.args['node']}"

    def inverse(self, step: Step) -> None:  # noqa: ARG002
        return None

    def apply(self, step: Step, means: Means) -> Effect:
        """Ask once. Every answer but a success is raised as it is: what it means, the caller knows."""
        namespace, name = _where(step)
        options: dict[str, Any] = {"preconditions": {"uid": step.uid}}
        if step.args["grace"] is not None:
            options["gracePeriodSeconds"] = step.args["grace"]
        if means.dry_run:
            options["dryRun"] = ["All"]
        path = step.args["path"]
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", **options}
        if self._name == EVICT:
            path += "/eviction"
            body = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": name, "namespace": namespace},
                "deleteOptions": options,
            }
        reply = means.connection.request(
            "POST" if self._name == EVICT else "DELETE",
            path,
            query={"dryRun": "All" if means.dry_run else None},
            body=msgspec.json.encode(body),
            scope=means.scope,
            retry=NO_RETRIES,
        )
        return Effect(changed=True, audit_id=reply.audit_id)


def step(*, evict: bool, namespace: str, name: str, uid: str, node: str, grace: int | None) -> Step:
    """The step that takes this pod away. `grace` in seconds, None: the pod's own."""
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    return Step(EVICT if evict else DELETE, {"path": path, "node": node, "grace": grace}, uid)


def _where(step: Step) -> tuple[str, str]:
    found = _PATH.fullmatch(step.args["path"])
    if found is None:
        raise ValueError(f"no pod: {step.args['path']!r}")
    return found[1], found[3]


POD_VERBS: Final[Mapping[str, Verb]] = {EVICT: _PodVerb(EVICT, "evict"), DELETE: _PodVerb(DELETE, "delete")}
