"""The least Roles that grant a set of permissions, as manifests. Pure; printing and applying are somebody else's.

A permission for one namespace goes into a Role there, one for all of them into a ClusterRole. Rules are merged only
where that grants nothing more: same resources and names, other verbs; or same group, verbs and names, other resources.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from kdnsctl.access import Permission

Manifest = dict[str, Any]

# Verbs that RBAC cannot narrow to a name: the name is not known when they are authorized (k8s docs, RBAC,
# "Referring to resources").
NAMELESS = ("create", "list", "watch", "deletecollection")
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete")  # in the order in which people write them


def roles(permissions: Iterable[Permission], name: str) -> list[Manifest]:
    """A ClusterRole, when one is needed, and a Role for each namespace; all with `name`, sorted, nothing twice."""
    by_place: dict[str | None, set[Permission]] = defaultdict(set)
    for permission in permissions:
        by_place[permission.namespace].add(permission)
    everywhere = by_place.pop(None, set())
    manifests = [_manifest("ClusterRole", name, None, everywhere)] if everywhere else []
    for namespace in sorted(place for place in by_place if place is not None):
        needed = {one for one in by_place[namespace] if not _granted(one, everywhere)}
        if needed:
            manifests.append(_manifest("Role", name, namespace, needed))
    return manifests


def bindings(manifests: Iterable[Manifest], subjects: Iterable[Manifest]) -> list[Manifest]:
    """A binding of each role to all `subjects` (`{"kind": "User", "name": …}`)."""
    group = {"apiGroup": "rbac.authorization.k8s.io"}
    who = [subject if subject.get("kind") == "ServiceAccount" else group | subject for subject in subjects]
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": f"{role['kind']}Binding",
            "metadata": dict(role["metadata"]),
            "roleRef": group | {"kind": role["kind"], "name": role["metadata"]["name"]},
            "subjects": who,
        }
        for role in manifests
    ]


def _granted(permission: Permission, everywhere: set[Permission]) -> bool:
    """Whether a ClusterRole's rule already grants it."""
    same = (permission.verb, permission.group, permission.resource_path)
    return any(
        (other.verb, other.group, other.resource_path) == same and other.name in ("", permission.name)
        for other in everywhere
    )


def _manifest(kind: str, name: str, namespace: str | None, permissions: set[Permission]) -> Manifest:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata,
        "rules": _rules(permissions),
    }


def _rules(permissions: set[Permission]) -> list[Manifest]:
    verbs: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for one in permissions:
        name = "" if one.verb in NAMELESS else one.name
        verbs[one.group, one.resource_path, name].add(one.verb)
    for (group, resource, name), which in verbs.items():
        if name:  # what may be done to all need not be granted again for one
            which.difference_update(verbs.get((group, resource, ""), set()))
    resources: dict[tuple[str, tuple[str, ...], str], set[str]] = defaultdict(set)
    for (group, resource, name), which in verbs.items():
        if which:
            resources[group, tuple(sorted(which, key=_order)), name].add(resource)
    return [
        {"apiGroups": [group], "resources": sorted(which)}
        | ({"resourceNames": [name]} if name else {})
        | {"verbs": list(allowed)}
        for (group, allowed, name), which in sorted(
            resources.items(), key=lambda item: (item[0][0], sorted(item[1]), item[0])
        )
    ]


def _order(verb: str) -> tuple[int, str]:
    return (VERBS.index(verb) if verb in VERBS else len(VERBS), verb)
