"""Label and field selectors: their texts parsed into predicates over objects. Knows which fields each kind offers.

The fields are those a real server offers for the kinds served; any other field is refused with its own text, because
a stand-in that ignored a selector would hand out every object and hide a client's mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kdnsctl.lab.kinds import Kind
from kdnsctl.lab.replies import JSON, bad_request

Predicate = Callable[[Mapping[str, Any]], bool]

# Kubernetes 1.36: metadata.name and metadata.namespace everywhere, plus these (pkg/apis/*/conversion.go).
_FIELDS: Final[dict[str, frozenset[str]]] = {
    "pods": frozenset(
        {
            "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
            "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
        }
    ),
    "nodes": frozenset({"spec.unschedulable"}),
    "namespaces": frozenset({"status.phase"}),
    "secrets": frozenset({"type"}),
    "services": frozenset({"spec.clusterIP", "spec.type"}),
    "replicasets": frozenset({"status.replicas"}),
    "events": frozenset(
        {
            "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
            "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
            "reason", "reportingComponent", "source", "type",
        }
    ),
}  # fmt: skip

_SET_TERM = re.compile(r"^([^\s!=,()]+)\s+(in|notin)\s*\(([^()]*)\)$")
_EQUALITY_TERM = re.compile(r"^([^\s!=,()]+)\s*(==|=|!=)\s*([^\s,()=!]*)$")
_KEY = re.compile(r"^(!?)\s*([^\s!=,()<>]+)$")
_ORDER_TERM = re.compile(r"^([^\s!=,()<>]+)\s*([<>])\s*(-?\d+)$")


def everything(_: Mapping[str, Any]) -> bool:
    """The empty selector."""
    return True


def _split(text: str) -> list[str]:
    """Split at commas that are outside parentheses."""
    terms, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "," and depth == 0:
            terms.append(text[start:index].strip())
            start = index + 1
    terms.append(text[start:].strip())
    return terms


LabelTest = Callable[[Mapping[str, str]], bool]


def _set_test(key: str, values: frozenset[str], *, wanted: bool) -> LabelTest:
    # An object without the key satisfies notin and !=, and never in and =.
    if wanted:
        return lambda labels: key in labels and labels[key] in values
    return lambda labels: key not in labels or labels[key] not in values


def _label_term(term: str) -> LabelTest:
    if match := _SET_TERM.match(term):
        key, operator, listed = match.groups()
        return _set_test(key, frozenset(value.strip() for value in listed.split(",")), wanted=operator == "in")
    if match := _EQUALITY_TERM.match(term):
        key, operator, value = match.groups()
        return _set_test(key, frozenset({value}), wanted=operator != "!=")
    if match := _ORDER_TERM.match(term):
        return _order_test(match[1], match[2], int(match[3]))
    if match := _KEY.match(term):
        absent, key = match.groups()
        return (lambda labels: key not in labels) if absent else (lambda labels: key in labels)
    raise bad_request(f"unable to parse requirement: found '{term}', expected: a label selector")


def _order_test(key: str, operator: str, bound: int) -> LabelTest:
    def test(labels: Mapping[str, str]) -> bool:
        value = labels.get(key, "")
        if not re.fullmatch(r"-?\d+", value):
            return False
        return int(value) > bound if operator == ">" else int(value) < bound

    return test


def parse_labels(text: str) -> LabelTest:
    """A label selector as in `-l`, as a test over a label map. Raises Refused (400) when it cannot be read."""
    if not text.strip():
        return everything
    tests = [_label_term(term) for term in _split(text)]
    return lambda labels: all(test(labels) for test in tests)


def match_selector(selector: Mapping[str, Any] | None) -> LabelTest:
    """A LabelSelector of an object (matchLabels, matchExpressions) as a test; None selects nothing, {} everything."""
    if selector is None:
        return lambda _: False
    tests = [_set_test(key, frozenset({value}), wanted=True) for key, value in selector.get("matchLabels", {}).items()]
    tests += [expression_test(expression) for expression in selector.get("matchExpressions", [])]
    return lambda labels: all(test(labels) for test in tests)


def expression_test(expression: Mapping[str, Any]) -> LabelTest:
    """One `{key, operator, values}` of a label selector or of a node affinity."""
    key, operator = expression.get("key", ""), expression.get("operator", "")
    values: Sequence[str] = expression.get("values", [])
    if operator in ("In", "NotIn"):
        return _set_test(key, frozenset(values), wanted=operator == "In")
    if operator == "Exists":
        return lambda labels: key in labels
    if operator == "DoesNotExist":
        return lambda labels: key not in labels
    if operator in ("Gt", "Lt"):
        return _order_test(key, ">" if operator == "Gt" else "<", int(values[0]))
    raise bad_request(f'"{operator}" is not a valid label selector operator')


def _field_value(kind: Kind, obj: Mapping[str, Any], field: str) -> str:
    if kind.plural == "events" and field == "source":
        return str(obj.get("source", {}).get("component") or obj.get("reportingComponent") or "")
    value: Any = obj
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            break
    if field in ("spec.unschedulable", "spec.hostNetwork"):
        return "true" if value else "false"
    return "" if value is None else str(value)


def parse_fields(kind: Kind, text: str) -> Predicate:
    """A field selector as in `--field-selector`. Raises Refused (400) for a field the kind does not offer."""
    if not text.strip():
        return everything
    tests: list[Predicate] = []
    for term in _split(text):
        match = re.match(r"^([^=!]+?)\s*(==|=|!=)\s*(.*)$", term)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        field, operator, value = match.groups()
        offered = field == "metadata.name" or (field == "metadata.namespace" and kind.namespaced)
        if not offered and field not in _FIELDS.get(kind.plural, frozenset()):
            raise bad_request(
                f'Unable to find "{kind.api_version}, Resource={kind.plural}" that match label selector "", '
                f'field selector "{text}": field label not supported: {field}'
            )
        tests.append(_field_test(kind, field, value, wanted=operator != "!="))
    return lambda obj: all(test(obj) for test in tests)


def _field_test(kind: Kind, field: str, value: str, *, wanted: bool) -> Predicate:
    return lambda obj: (_field_value(kind, obj, field) == value) is wanted


def object_filter(kind: Kind, label_selector: str = "", field_selector: str = "") -> Predicate:
    """Both selectors of a list or watch as one predicate over whole objects."""
    if not label_selector and not field_selector:
        return everything
    labels, fields = parse_labels(label_selector), parse_fields(kind, field_selector)
    return lambda obj: labels(labels_of(obj)) and fields(obj)


def labels_of(obj: Mapping[str, Any]) -> JSON:
    """The labels, {} when there are none."""
    return obj.get("metadata", {}).get("labels") or {}
