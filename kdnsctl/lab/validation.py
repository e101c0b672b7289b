"""What a server refuses to store: bad names, labels that are none, changes to what cannot change (HTTP 422).

Far from all of a real server's validation: what kdnsctl and its tests can run into. Unknown fields are kept as they
are. Texts follow Kubernetes 1.36 (apimachinery pkg/api/validation, pkg/apis/core/validation).
"""

from __future__ import annotations

import re
from typing import Any, Final

from kdnsctl.lab.kinds import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    Kind,
)
from kdnsctl.lab.podvalidation import key_faults, label_faults, pod_spec_faults, required, service_name_faults
from kdnsctl.lab.replies import JSON, FieldFault, invalid
from kdnsctl.lab.selectors import match_selector

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_SUBDOMAIN_RULE: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_VALUE_RULE: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_KEY_RULE: Final = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_ANNOTATION_LIMIT: Final = 256 * 1024
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_POD_RULE: Final = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def check_new(kind: Kind, obj: JSON) -> None:
    """Raises Refused (422) with every fault found."""
    metadata = obj["metadata"]
    faults = []
    if not metadata.get("name"):
        faults.append(
            FieldFault("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")
        )
    elif kind is NAMESPACES:
        faults += label_faults("metadata.name", metadata["name"])
    elif kind is SERVICES:
        faults += service_name_faults(metadata["name"])
    elif not _SUBDOMAIN.fullmatch(metadata["name"]) or len(metadata["name"]) > 253:
        faults.append(FieldFault("metadata.name", f'Invalid value: "{metadata["name"]}": {_SUBDOMAIN_RULE}'))
    faults += _metadata_faults(metadata) + _content_faults(kind, obj)
    _raise(kind, metadata.get("name", ""), faults)


def check_identity(kind: Kind, new: JSON, old: JSON) -> None:
    """What names an object never changes."""
    faults = []
    for field in ("name", "namespace", "uid"):
        value = new["metadata"].get(field)
        if value is not None and value != old["metadata"].get(field):
            faults.append(FieldFault(f"metadata.{field}", f'Invalid value: "{value}": field is immutable'))
        elif field in old["metadata"]:
            new["metadata"][field] = old["metadata"][field]
    _raise(kind, old["metadata"]["name"], faults)


def check_changed(kind: Kind, new: JSON, old: JSON) -> None:
    """Raises Refused (422) for faults in the new object and for changes that are not allowed."""
    faults = _metadata_faults(new["metadata"]) + _content_faults(kind, new)
    if kind is PODS and _fixed_part(new) != _fixed_part(old):
        faults.append(FieldFault("spec", f"Forbidden: {_POD_RULE}", "FieldValueForbidden"))
    if kind in (DAEMON_SETS, DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS) and new["spec"].get("selector") != old[
        "spec"
    ].get("selector"):
        shown = _go(new["spec"].get("selector"))
        faults.append(FieldFault("spec.selector", f"Invalid value: {shown}: field is immutable"))
    _raise(kind, old["metadata"]["name"], faults)


def spec_changed(new: JSON, old: JSON) -> bool:
    """Whether anything but metadata and status differs; that is what metadata.generation counts."""

    def rest(obj: JSON) -> JSON:
        return {key: value for key, value in obj.items() if key not in ("metadata", "status", "kind", "apiVersion")}

    return rest(new) != rest(old)


def _raise(kind: Kind, name: str, faults: list[FieldFault]) -> None:
    if faults:
        raise invalid(kind.kind, name, faults, group=kind.group)


def _metadata_faults(metadata: JSON) -> list[FieldFault]:
    faults = []
    for key, value in (metadata.get("labels") or {}).items():
        if not _is_key(key):
            faults.append(FieldFault("metadata.labels", f'Invalid value: "{key}": {_KEY_RULE}'))
        if not isinstance(value, str) or (value and not (_LABEL_NAME.fullmatch(value) and len(value) <= 63)):
            faults.append(FieldFault("metadata.labels", f'Invalid value: "{value}": {_VALUE_RULE}'))
    annotations = metadata.get("annotations") or {}
    bad = [key for key in annotations if not _is_key(key)]
    faults += [FieldFault("metadata.annotations", f'Invalid value: "{key}": {_KEY_RULE}') for key in bad]
    size = sum(len(key.encode()) + len(str(value).encode()) for key, value in annotations.items())
    if size > _ANNOTATION_LIMIT:
        message = f"Too long: may not be more than {_ANNOTATION_LIMIT} bytes"
        faults.append(FieldFault("metadata.annotations", message, "FieldValueTooLong"))
    return faults


def _is_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and not _SUBDOMAIN.fullmatch(prefix):
        return False
    return len(name) <= 63 and _LABEL_NAME.fullmatch(name) is not None


def _content_faults(kind: Kind, obj: JSON) -> list[FieldFault]:
    if kind is NODES:
        return _taint_faults(obj)
    if kind in (CONFIG_MAPS, SECRETS):
        return key_faults(obj)
    if kind is SERVICES:
        ports = obj["spec"].get("ports") or []
        return [required(f"spec.ports[{index}].port") for index, port in enumerate(ports) if not port.get("port")]
    if kind is PODS:
        return pod_spec_faults(obj["spec"], "spec")
    if kind in (DAEMON_SETS, DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS):
        faults = pod_spec_faults(obj["spec"]["template"]["spec"], "spec.template.spec")
        labels = obj["spec"]["template"].get("metadata", {}).get("labels", {})
        if not match_selector(obj["spec"].get("selector"))(labels):
            message = f"Invalid value: {_go(labels)}: `selector` does not match template `labels`"
            faults.append(FieldFault("spec.template.metadata.labels", message))
        return faults
    if kind is CUSTOM_RESOURCE_DEFINITIONS:
        return _definition_faults(obj)
    return []


def _definition_faults(obj: JSON) -> list[FieldFault]:
    spec = obj.get("spec", {})
    names = spec.get("names", {})
    fields = {"spec.group": spec.get("group"), "spec.scope": spec.get("scope")}
    fields |= {f"spec.names.{key}": names.get(key) for key in ("plural", "kind")}
    faults = [required(field) for field, value in fields.items() if not value]
    if faults:
        return faults
    name = obj["metadata"]["name"]
    if name != f"{names['plural']}.{spec['group']}":
        rule = 'must be spec.names.plural+"."+spec.group'
        faults.append(FieldFault("metadata.name", f'Invalid value: "{name}": {rule}'))
    if sum(bool(one.get("storage")) for one in spec.get("versions", ())) != 1:
        message = "Invalid value: must have exactly one version marked as storage version"
        faults.append(FieldFault("spec.versions", message))
    return faults


def _taint_faults(node: JSON) -> list[FieldFault]:
    faults = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(node.get("spec", {}).get("taints") or []):
        field = f"spec.taints[{index}]"
        if taint.get("effect") not in _EFFECTS:
            supported = ", ".join(f'"{effect}"' for effect in sorted(_EFFECTS))
            message = f'Unsupported value: "{taint.get("effect", "")}": supported values: {supported}'
            faults.append(FieldFault(f"{field}.effect", message, "FieldValueNotSupported"))
        identity = (taint.get("key", ""), taint.get("effect", ""))
        if identity in seen:
            faults.append(FieldFault(field, f"Duplicate value: {_go(taint)}", "FieldValueDuplicate"))
        seen.add(identity)
    return faults


def _fixed_part(pod: JSON) -> JSON:
    """The part of a pod's spec that no update may change (tolerations may only grow, which is not checked)."""
    free = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")
    spec = {key: value for key, value in pod["spec"].items() if key not in free}
    if not spec.get("nodeName"):
        spec.pop("nodeName", None)
    for part in ("containers", "initContainers"):
        if part in spec:
            spec[part] = [{key: value for key, value in item.items() if key != "image"} for item in spec[part]]
    return spec


def _go(value: Any) -> str:
    """A value as the server's messages show it; only the outline of Go's %#v."""
    if isinstance(value, dict):
        return "{" + ",".join(f'"{key}":{_go(item)}' for key, item in value.items()) + "}"
    return f'"{value}"' if isinstance(value, str) else str(value)
