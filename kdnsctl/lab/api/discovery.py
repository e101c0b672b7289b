"""What the server says about itself: /api, /apis, the resource lists of each group, /version. Pure.

Only what is served is listed, with the fields of `api/discovery-*.json` and `api/version.json`. The aggregated form is
not offered; kubectl falls back on this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kdnsctl.lab.kinds import KINDS, Kind, Subresource
from kdnsctl.lab.replies import JSON

VERSION: Final[JSON] = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "$Format:%H$",
    "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "go1.27.3",
    "compiler": "gc",
    "platform": "linux/amd64",
}

# Resources that only take a POST and store nothing, by group and version.
REVIEWS: Final[dict[tuple[str, str], tuple[tuple[str, str, str], ...]]] = {
    ("authentication.k8s.io", "v1"): (("selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview"),),
    ("authorization.k8s.io", "v1"): (
        ("selfsubjectaccessreviews", "selfsubjectaccessreview", "SelfSubjectAccessReview"),
        ("selfsubjectrulesreviews", "selfsubjectrulesreview", "SelfSubjectRulesReview"),
    ),
}
# The order in which a real server lists its groups.
_GROUPS: Final = (
    ("apps", "v1"),
    ("authentication.k8s.io", "v1"),
    ("authorization.k8s.io", "v1"),
    ("policy", "v1"),
    ("apiextensions.k8s.io", "v1"),
    ("coordination.k8s.io", "v1"),
    ("discovery.k8s.io", "v1"),
)


def answer(path: str, address: str, custom: Sequence[Kind] = ()) -> JSON | None:
    """The body of a discovery path, None for any other path. `address` is host:port of the server.

    `custom` are the kinds that are served beside the built-in ones.
    """
    served: dict[str, list[str]] = {}
    for group, version in [*_GROUPS, *((kind.group, kind.version) for kind in custom)]:
        if version not in served.setdefault(group, []):
            served[group].append(version)
    parts = [part for part in path.split("/") if part]
    if parts == ["version"]:
        return dict(VERSION)
    if parts == ["api"]:
        reachable = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": reachable}
    if parts == ["api", "v1"]:
        return _resources("", "v1", KINDS)
    if parts == ["apis"]:
        groups = [_group(group, versions) for group, versions in served.items()]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if parts[:1] == ["apis"] and len(parts) in (2, 3) and parts[1] in served:
        group = parts[1]
        if len(parts) == 2:
            return {"kind": "APIGroup", "apiVersion": "v1"} | _group(group, served[group])
        if parts[2] in served[group]:
            return _resources(group, parts[2], [*KINDS, *custom])
    return None


def _group(group: str, versions: Sequence[str]) -> JSON:
    served = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": served, "preferredVersion": served[0]}


def _resources(group: str, version: str, kinds: Sequence[Kind]) -> JSON:
    entries: list[JSON] = []
    for kind in kinds:
        if (kind.group, kind.version) == (group, version):
            entries.append(_entry(kind))
            entries += [_subentry(kind, sub) for sub in kind.subresources]
    for plural, singular, name in REVIEWS.get((group, version), ()):
        entries.append(
            {"name": plural, "singularName": singular, "namespaced": False, "kind": name, "verbs": ["create"]}
        )
    entries.sort(key=lambda entry: str(entry["name"]))
    body: JSON = {"kind": "APIResourceList"}
    if group:
        # The legacy group of a real server leaves this out, recorded in discovery-api-v1.
        body["apiVersion"] = "v1"
    return body | {"groupVersion": f"{group}/{version}" if group else version, "resources": entries}


def _entry(kind: Kind) -> JSON:
    entry: JSON = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    optional: Sequence[tuple[str, object]] = (
        ("shortNames", list(kind.short_names)),
        ("categories", list(kind.categories)),
        ("storageVersionHash", kind.storage_hash),
    )
    return entry | {name: value for name, value in optional if value}


def _subentry(kind: Kind, sub: Subresource) -> JSON:
    entry: JSON = {"name": f"{kind.plural}/{sub.name}", "singularName": "", "namespaced": kind.namespaced}
    if sub.group is not None:
        entry |= {"group": sub.group, "version": sub.version}
    return entry | {"kind": sub.kind, "verbs": list(sub.verbs)}
