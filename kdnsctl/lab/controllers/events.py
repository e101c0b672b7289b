"""Events: what controllers tell the operator, as `kubectl get events` shows it. Repeated ones are counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdnsctl.lab.controllers.ownership import template_hash
from kdnsctl.lab.kinds import EVENTS, Kind
from kdnsctl.lab.replies import Refused
from kdnsctl.lab.store import Store, timestamp


def record(
    store: Store, kind: Kind, about: Mapping[str, Any], reason: str, message: str, *, source: str, warning: bool = False
) -> None:
    """Write an event about an object, or count it when the same was written before.

    In a namespace that is being deleted there are no new ones: whoever records events takes no notice of the refusal.
    """
    metadata = about["metadata"]
    namespace = metadata.get("namespace", "default")
    name = f"{metadata['name']}.{template_hash([metadata['uid'], reason, message])}"
    now = timestamp(store.clock())
    known = store.find(EVENTS, name, namespace)
    if known is not None:
        store.update(EVENTS, known | {"count": known["count"] + 1, "lastTimestamp": now})
        return
    event = {
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "kind": kind.kind,
            **({"namespace": namespace} if kind.namespaced else {}),
            "name": metadata["name"],
            "uid": metadata["uid"],
            "apiVersion": kind.api_version,
            "resourceVersion": metadata["resourceVersion"],
        },
        "reason": reason,
        "message": message,
        "source": {"component": source},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "type": "Warning" if warning else "Normal",
        "eventTime": None,
        "reportingComponent": source,
        "reportingInstance": "",
    }
    try:
        store.create(EVENTS, event)
    except Refused as refusal:
        if refusal.code != 403:
            raise
