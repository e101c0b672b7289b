"""What a request asks for, read from its method, path and query: kind, namespace, name, subresource, verb.

Pure. The verbs are those of Kubernetes' access rules (get, list, watch, create, update, patch, delete,
deletecollection). Whether it may, and the answer, are other modules' business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from kdnsctl.lab.kinds import Kind, find_kind
from kdnsctl.lab.replies import FieldFault, Refused, bad_request, invalid

_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_TRUE: Final = ("1", "t", "true", "T", "TRUE", "True")
_FALSE: Final = ("", "0", "f", "false", "F", "FALSE", "False")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes. `plural` and `group` are kept apart from `kind`, which is None when it is not served."""

    verb: str
    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    kind: Kind | None = None

    @property
    def resource(self) -> str:
        """The resource as access rules name it: `pods`, `pods/log`."""
        return f"{self.plural}/{self.subresource}" if self.subresource else self.plural


def parse_target(
    method: str,
    path: str,
    query: Mapping[str, str],
    find: Callable[[str, str, str], Kind | None] = find_kind,
) -> Target | None:
    """The target of a resource path, None for every other path (discovery, health, version).

    `find` tells the kind of a group, version and plural.
    """
    parts = [part for part in path.split("/") if part]
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize"):
        # Everything below a namespace; a namespace itself has only these two subresources.
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = rest[0], rest[1] if len(rest) > 1 else "", "/".join(rest[2:])
    watching = flag(query, "watch")
    if method in ("GET", "HEAD"):
        verb = "watch" if watching and not subresource else "get" if name else "list"
    elif method == "DELETE":
        verb = "delete" if name else "deletecollection"
    else:
        verb = _VERBS.get(method, method.lower())
    kind = find(group, version, plural)
    return Target(verb, group, version, plural, namespace, name, subresource, kind)


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean option. Raises Refused (400) when it is none, with the message of Go's parser."""
    text = query.get(name)
    if text is None or text in _FALSE:
        return False
    if text in _TRUE:
        return True
    raise bad_request(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def number(query: Mapping[str, str], name: str) -> int | None:
    """A whole number, None when the option is absent. Raises Refused (400)."""
    text = query.get(name)
    if text is None or text == "":
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def is_dry_run(values: list[str], what: str) -> bool:
    """Whether `dryRun` asks for a dry run. `what` names the options in the refusal (422) of an unknown value."""
    unknown = [value for value in values if value != "All"]
    if unknown:
        message = f'Unsupported value: ["{unknown[0]}"]: supported values: "All"'
        fault = FieldFault("dryRun", message, "FieldValueNotSupported")
        refusal: Refused = invalid(what, "", [fault], group="meta.k8s.io")
        raise refusal
    return bool(values)
