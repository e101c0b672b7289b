"""Kinds that a CustomResourceDefinition in the store defines: served from the moment it is stored until it is deleted.

Of its versions only the stored one is served, and objects are not held to its schema. A real server converts between
versions and prunes what the schema does not know.
"""

from __future__ import annotations

import functools

from kdnsctl.lab.history import History
from kdnsctl.lab.kinds import CUSTOM_RESOURCE_DEFINITIONS, KINDS, STATUS_VERBS, Kind, Subresource, find_kind
from kdnsctl.lab.replies import JSON


def custom_kinds(store: History) -> list[Kind]:
    """The kinds that are defined now."""
    return [kind_of(definition) for definition in store.page(CUSTOM_RESOURCE_DEFINITIONS).items]


def served_kind(store: History, group: str, version: str, plural: str) -> Kind | None:
    """The kind of a URL path, built in or defined; None when nobody serves it."""
    found = find_kind(group, version, plural)
    if found is not None:
        return found
    definition = store.find(CUSTOM_RESOURCE_DEFINITIONS, f"{plural}.{group}")
    kind = None if definition is None else kind_of(definition)
    return kind if kind is not None and kind.version == version else None


def is_custom(kind: Kind) -> bool:
    """Whether a definition defines it."""
    return kind not in KINDS


def kind_of(definition: JSON) -> Kind:
    """What a definition defines."""
    spec = definition["spec"]
    names = spec["names"]
    version = next(one for one in spec["versions"] if one.get("storage"))
    return _kind(
        spec["group"],
        version["name"],
        names["plural"],
        names["singular"],
        names["kind"],
        tuple(names.get("shortNames", ())),
        tuple(names.get("categories", ())),
        namespaced=spec["scope"] == "Namespaced",
        has_status="status" in version.get("subresources", {}),
    )


@functools.cache  # one definition is one kind: the history of writes tells kinds apart by identity
def _kind(
    group: str,
    version: str,
    plural: str,
    singular: str,
    kind: str,
    short_names: tuple[str, ...],
    categories: tuple[str, ...],
    *,
    namespaced: bool,
    has_status: bool,
) -> Kind:
    status = (Subresource("status", kind, STATUS_VERBS),) if has_status else ()
    return Kind(
        group,
        version,
        plural,
        singular,
        kind,
        namespaced=namespaced,
        short_names=short_names,
        categories=categories,
        subresources=status,
        counts_generation=True,
    )
