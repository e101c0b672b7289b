"""What a server refuses in the spec of a pod or a pod template: names, images, mounts and paths that lead elsewhere.

A node makes files and directories of these names, so none may hold a separator or a way up. Texts follow Kubernetes
1.36 (pkg/apis/core/validation, apimachinery/pkg/util/validation). Resources, probes and security contexts are not
looked at. The types are right already (`shapes`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from kdnsctl.lab.replies import JSON, FieldFault

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_RULE: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035_RULE: Final = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_RULE: Final = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    "or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)


def required(field: str) -> FieldFault:
    """A field that is missing or empty."""
    return FieldFault(field, "Required value", "FieldValueRequired")


def wrong(field: str, value: Any, rule: str) -> FieldFault:
    """A value that breaks the rule, which the message repeats."""
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return FieldFault(field, f"Invalid value: {shown}: {rule}")


def label_faults(field: str, name: str) -> list[FieldFault]:
    """What keeps a name from being a DNS label (RFC 1123)."""
    faults = []
    if not _LABEL.fullmatch(name):
        faults.append(wrong(field, name, _LABEL_RULE))
    if len(name) > 63:
        faults.append(wrong(field, name, "must be no more than 63 characters"))
    return faults


def service_name_faults(name: str) -> list[FieldFault]:
    """What keeps a name from being a DNS label as RFC 1035 has it: it begins with a letter."""
    faults = []
    if not _LABEL_1035.fullmatch(name):
        faults.append(wrong("metadata.name", name, _LABEL_1035_RULE))
    if len(name) > 63:
        faults.append(wrong("metadata.name", name, "must be no more than 63 characters"))
    return faults


def key_faults(obj: JSON) -> list[FieldFault]:
    """Keys of a ConfigMap or Secret; they become names of files."""
    faults = []
    for part in ("data", "binaryData", "stringData"):
        for key in obj.get(part) or {}:
            field = f"{part}[{key}]"
            if not _KEY.fullmatch(key):
                faults.append(wrong(field, key, _KEY_RULE))
            elif key == "." or key.startswith(".."):
                rule = "must not be '.'" if key == "." else "must not start with '..'"
                faults.append(wrong(field, key, f"a valid config key {rule}"))
            if len(key) > 253:
                faults.append(wrong(field, key, "must be no more than 253 characters"))
    return faults


def pod_spec_faults(spec: JSON, field: str) -> list[FieldFault]:
    """Every fault of the spec; `field` is the path that leads to it."""
    faults: list[FieldFault] = []
    volumes = spec.get("volumes") or []
    faults += _names(volumes, f"{field}.volumes")
    for index, volume in enumerate(volumes):
        faults += _volume(volume, f"{field}.volumes[{index}]")
    if not spec.get("containers"):
        faults.append(required(f"{field}.containers"))
    known = {volume.get("name") for volume in volumes}
    taken: set[str] = set()
    for part in ("containers", "initContainers"):
        containers = spec.get(part) or []
        faults += _names(containers, f"{field}.{part}", taken)
        for index, container in enumerate(containers):
            faults += _container(container, f"{field}.{part}[{index}]", known)
    if spec.get("hostname"):
        faults += label_faults(f"{field}.hostname", spec["hostname"])
    return faults


def _names(items: Iterable[JSON], field: str, taken: set[str] | None = None) -> list[FieldFault]:
    taken = set() if taken is None else taken
    faults = []
    for index, item in enumerate(items):
        place, name = f"{field}[{index}].name", item.get("name")
        if not name:
            faults.append(required(place))
            continue
        faults += label_faults(place, name)
        if name in taken:
            faults.append(FieldFault(place, f'Duplicate value: "{name}"', "FieldValueDuplicate"))
        taken.add(name)
    return faults


def _container(container: JSON, field: str, volumes: set[Any]) -> list[FieldFault]:
    faults = []
    if not container.get("image"):
        faults.append(required(f"{field}.image"))
    for index, port in enumerate(container.get("ports") or []):
        for key in ("containerPort", "hostPort"):
            place, number = f"{field}.ports[{index}].{key}", port.get(key, 0)
            if key == "containerPort" and not number:
                faults.append(required(place))
            elif number and not 0 < number < 65536:
                faults.append(wrong(place, number, "must be between 1 and 65535, inclusive"))
    for index, variable in enumerate(container.get("env") or []):
        if not variable.get("name"):
            faults.append(required(f"{field}.env[{index}].name"))
    return faults + _mounts(container, field, volumes)


def _mounts(container: JSON, field: str, volumes: set[Any]) -> list[FieldFault]:
    faults = []
    seen = set()
    for index, mount in enumerate(container.get("volumeMounts") or []):
        place, name, path = f"{field}.volumeMounts[{index}]", mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            faults.append(required(f"{place}.name"))
        elif name not in volumes:
            faults.append(FieldFault(f"{place}.name", f'Not found: "{name}"', "FieldValueNotFound"))
        if not path:
            faults.append(required(f"{place}.mountPath"))
        elif path in seen:
            faults.append(wrong(f"{place}.mountPath", path, "must be unique"))
        seen.add(path)
        for key in ("subPath", "subPathExpr"):
            if mount.get(key):
                faults += _descending(f"{place}.{key}", mount[key])
    return faults


def _volume(volume: JSON, field: str) -> list[FieldFault]:
    faults = []
    for source in ("configMap", "secret", "downwardAPI"):
        faults += _items((volume.get(source) or {}).get("items") or [], f"{field}.{source}")
    for index, projection in enumerate((volume.get("projected") or {}).get("sources") or []):
        place = f"{field}.projected.sources[{index}]"
        for source in ("configMap", "secret", "downwardAPI"):
            faults += _items((projection.get(source) or {}).get("items") or [], f"{place}.{source}")
        token = projection.get("serviceAccountToken")
        if token is not None:
            faults += _file(f"{place}.serviceAccountToken.path", token.get("path", ""))
    if "hostPath" in volume:
        path = volume["hostPath"].get("path", "")
        if not path:
            faults.append(required(f"{field}.hostPath.path"))
        elif ".." in path.split("/"):
            faults.append(wrong(f"{field}.hostPath.path", path, "must not contain '..'"))
    return faults


def _items(items: list[JSON], field: str) -> list[FieldFault]:
    faults = []
    for index, item in enumerate(items):
        if "downwardAPI" not in field and not item.get("key"):
            faults.append(required(f"{field}.items[{index}].key"))
        faults += _file(f"{field}.items[{index}].path", item.get("path", ""))
    return faults


def _file(field: str, path: str) -> list[FieldFault]:
    if not path:
        return [required(field)]
    faults = _descending(field, path)
    if not faults and path.startswith(".."):
        faults.append(wrong(field, path, "must not start with '..'"))
    return faults


def _descending(field: str, path: str) -> list[FieldFault]:
    faults = []
    if path.startswith("/"):
        faults.append(wrong(field, path, "must be a relative path"))
    if ".." in path.split("/"):
        faults.append(wrong(field, path, "must not contain '..'"))
    return faults
