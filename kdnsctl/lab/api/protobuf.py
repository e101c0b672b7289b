r"""The few protobuf bodies kubectl sends: `auth can-i` and `drain` speak protobuf and nothing else.

Decodes the envelope (`k8s\0` and a runtime.Unknown) and the types listed here into what the JSON body would have been.
Field numbers: Kubernetes 1.36, generated.proto of apimachinery pkg/runtime and pkg/apis/meta/v1, of api
authorization/v1 and policy/v1. Answers are
JSON, which every client accepts that sends these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from kdnsctl.lab.replies import JSON, bad_request

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\0"

# A field is a name and the name of its type: a message, text, a number, a truth value, or a list of texts.
_Type = Mapping[int, tuple[str, str]]
_TEXT: Final = "text"
_TYPES: Final[Mapping[str, _Type]] = {
    "Unknown": {1: ("typeMeta", "TypeMeta"), 2: ("raw", "bytes")},
    "TypeMeta": {1: ("apiVersion", _TEXT), 2: ("kind", _TEXT)},
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "number"),
        2: ("preconditions", "Preconditions"),
        3: ("orphanDependents", "truth"),
        4: ("propagationPolicy", _TEXT),
        5: ("dryRun", "texts"),
    },
    "Preconditions": {1: ("uid", _TEXT), 2: ("resourceVersion", _TEXT)},
    "Eviction": {1: ("metadata", "ObjectMeta"), 2: ("deleteOptions", "DeleteOptions")},
    "ObjectMeta": {1: ("name", _TEXT), 3: ("namespace", _TEXT)},
    "SelfSubjectReview": {},
    "SelfSubjectAccessReview": {2: ("spec", "AccessSpec")},
    "AccessSpec": {1: ("resourceAttributes", "ResourceAttributes"), 2: ("nonResourceAttributes", "PathAttributes")},
    "ResourceAttributes": {
        1: ("namespace", _TEXT),
        2: ("verb", _TEXT),
        3: ("group", _TEXT),
        4: ("version", _TEXT),
        5: ("resource", _TEXT),
        6: ("subresource", _TEXT),
        7: ("name", _TEXT),
    },
    "PathAttributes": {1: ("path", _TEXT), 2: ("verb", _TEXT)},
    "SelfSubjectRulesReview": {2: ("spec", "RulesSpec")},
    "RulesSpec": {1: ("namespace", _TEXT)},
}
_BODIES: Final = ("DeleteOptions", "Eviction", "SelfSubjectReview", "SelfSubjectAccessReview", "SelfSubjectRulesReview")


def decode(data: bytes) -> JSON:
    """The object in a protobuf body. Raises Refused (400) when it is none, or of a type that is not known here."""
    if not data.startswith(_MAGIC):
        raise bad_request("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        envelope = _message("Unknown", data[len(_MAGIC) :])
        meta = envelope.get("typeMeta", {})
        if meta.get("kind") not in _BODIES:
            raise bad_request(f"the lab does not read {meta.get('kind')} objects in protobuf; send JSON")
        return {"apiVersion": meta.get("apiVersion"), "kind": meta["kind"]} | _message(
            meta["kind"], envelope.get("raw", b"")
        )
    except (IndexError, ValueError) as cause:
        raise bad_request(f"the protobuf body cannot be read: {cause}") from cause


def _message(type_name: str, data: bytes) -> JSON:
    fields, result = _TYPES[type_name], JSON()
    for number, value in _fields(data):
        if number not in fields:
            continue
        name, type_of = fields[number]
        if isinstance(value, int) != (type_of in ("number", "truth")):
            raise ValueError(f"{type_name}.{name} has another wire type")
        if isinstance(value, int):
            # A negative number is written as its 64-bit complement.
            result[name] = bool(value) if type_of == "truth" else value - (value >> 63 << 64)
        elif type_of == "bytes":
            result[name] = value
        elif type_of == "texts":
            result.setdefault(name, []).append(value.decode())
        elif type_of == _TEXT:
            # Go writes empty strings, too; in JSON they would have been left out.
            if value:
                result[name] = value.decode()
        else:
            result[name] = _message(type_of, value)
    return result


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The length-delimited and the varint fields of a message; the others are skipped."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        wire = key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
        elif wire == 1:
            place += 8
        elif wire == 5:
            place += 4
        elif wire == 2:
            length, place = _varint(data, place)
            if place + length > len(data):
                raise ValueError("a field is longer than its message")
            yield key >> 3, data[place : place + length]
            place += length
        else:
            raise ValueError(f"unknown wire type {wire}")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7
