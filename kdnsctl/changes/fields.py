"""The verbs that set one field of one object: cordon, taint, annotation, label, a machine's hook, a node's record.

Each is a JSON patch with a `test` on the object's uid and resourceVersion, so nothing that somebody else changed
meanwhile is overwritten. A test that fails is answered 422 `Invalid` (recorded from 1.36.2), as is content that the
server refuses: the object is read again before anything is concluded. Maps and lists that are not there are created,
and removed again with their last entry; other entries are left alone (`spec.taints` is an atomic list).

All of these are symmetrical: what takes a step back is the same verb with `before` and `after` exchanged. A step about
a node with a record marks in it, by the same patch, that it is done (`marks`): what others set is not taken back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from kdnsctl.changes import marks
from kdnsctl.changes.pods import POD_VERBS
from kdnsctl.changes.verbs import DriftError, Effect, Means, Verb
from kdnsctl.cluster.answers import decode
from kdnsctl.cluster.errors import ConflictError, CutOffError, InvalidError
from kdnsctl.cluster.permission import Permission
from kdnsctl.model import KdnsctlError, Step

PATCH: Final = "application/json-patch+json"
ATTEMPTS: Final = 10  # a node's object changes with every heartbeat that changes a condition
NODES: Final = "/api/v1/nodes/"
RECORD: Final = "kdnsctl.io/quarantine"  # annotation with a node's record, and key of the taint
NEEDED: Final = (
    Permission("get", "nodes", without="no node can be changed: what it is like before is not known"),
    Permission("patch", "nodes", without="no node can be held, cordoned or released"),
)
# Objects that steps may be about: nodes, and what managers have for a node. A journal may not lead anywhere else.
_NAME = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
_WORDS: Final = {"nodes": "node", "daemonsets": "DaemonSet"}
_PATHS: Final = re.compile(
    rf"/api/v1/nodes/{_NAME}"
    rf"|/apis/karpenter\.sh/v1[a-z0-9]*/nodeclaims/{_NAME}"
    rf"|/apis/(cluster\.x-k8s\.io|machine\.openshift\.io)/v1[a-z0-9]*/namespaces/{_NAME}/machines/{_NAME}"
)

Value = Any  # as JSON has it; None: absent
Operation = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FieldVerb:
    """A verb that sets one field: how it is read, written and said. `args` are the names of the step's arguments."""

    args: tuple[str, ...]
    read: Callable[[Mapping[str, Any], Mapping[str, Any]], Value]
    write: Callable[[Mapping[str, Any], Mapping[str, Any], Value], Sequence[Operation]]
    words: Callable[[str, Mapping[str, Any], Value], str]
    same: Callable[[Value, Value], bool] = lambda one, other: bool(one == other)
    paths: re.Pattern[str] = _PATHS

    def check(self, step: Step) -> None:
        if set(step.args) != {"path", *self.args} or not all(isinstance(one, str) for one in step.args.values()):
            raise ValueError(f"its arguments are {', '.join(('path', *self.args))}, all text")
        if not self.paths.fullmatch(step.args["path"]):
            raise ValueError(f"it is about {step.args['path']!r}, which no step changes")
        if not step.uid:
            raise ValueError("it does not say which object it is about (uid)")

    def says(self, step: Step) -> str:
        return self.words(object_of(step), step.args, step.after)

    def inverse(self, step: Step) -> Step:
        return Step(step.verb, step.args, step.uid, before=step.after, after=step.before)

    def apply(self, step: Step, means: Means) -> Effect:
        path, sent, last = step.args["path"], False, ""
        problem: KdnsctlError | None = None
        for _ in range(ATTEMPTS):
            found = means.connection.get(path, dict[str, Any], scope=means.scope)
            version = _metadata(found).get("resourceVersion", "")
            self._ours(found, step)
            now, record = self.read(found, step.args), self._record(found)
            if self.same(now, step.after):
                # After an answer that got lost, this is what it would have said: unless somebody else was faster.
                return Effect(changed=sent and marks.says_taken(record, step) is not False)
            if not self.same(now, step.before):
                raise DriftError(f"{object_of(step)}: {self._drift(step, now)}", now)
            if marks.is_others(record, step):
                raise DriftError(f"{object_of(step)}: {step.verb} is {_shown(now)}, which somebody else has set", now)
            if problem is not None and version == last:
                raise problem  # nobody changed it meanwhile: it is our content that the server refuses
            last = version
            try:
                return self._send(path, version, found, step, means)
            except (InvalidError, ConflictError) as error:
                problem = error
            except CutOffError as error:
                sent, problem, last = True, error, ""
                if means.dry_run:
                    raise
        raise problem or KdnsctlError(f"{object_of(step)} could not be changed")

    def _send(self, path: str, version: str, found: Mapping[str, Any], step: Step, means: Means) -> Effect:
        operations: list[Operation] = [
            {"op": "test", "path": "/metadata/uid", "value": step.uid},
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            *self.write(found, step.args, step.after),
        ]
        if (marked := marks.with_mark(self._record(found), step)) is not None:
            operations += _set_record(found, step.args, marked)
        reply = means.connection.request(
            "PATCH",
            path,
            body=msgspec.json.encode(operations),
            content_type=PATCH,
            query={"dryRun": "All" if means.dry_run else None, "fieldManager": "kdnsctl"},
            scope=means.scope,
        )
        became = self.read(decode(reply.body, dict[str, Any], f"PATCH {path}"), step.args)
        if not self.same(became, step.after):
            raise DriftError(
                f"{object_of(step)}: the server took the change, and has something else now: {became!r}", became
            )
        return Effect(changed=True, audit_id=reply.audit_id)

    def _record(self, found: Mapping[str, Any]) -> marks.Record:
        """The record of the node that a step is about; nothing for other objects, and for the record itself."""
        record = _record(found, {}) if self.read is not _record else None
        return record if isinstance(record, Mapping) else {}

    def _ours(self, found: Mapping[str, Any], step: Step) -> None:
        uid = _metadata(found).get("uid", "")
        if uid != step.uid:
            raise DriftError(f"{object_of(step)} is another object of that name now (uid {uid}, not {step.uid})", None)

    def _drift(self, step: Step, now: Value) -> str:
        return f"{step.verb} {step.args.get('key', '')} is {_shown(now)}, neither {_shown(step.before)} nor " + _shown(
            step.after
        )


def object_of(step: Step) -> str:
    """What a step is about, for people: `node knode1`, `nodeclaims default-x7k2p`."""
    kind, name = step.args["path"].rsplit("/", 2)[-2:]
    return f"{_WORDS.get(kind, kind)} {name}"


def node_path(node: str) -> str:
    """Where a node is in the API."""
    return f"{NODES}{node}"


def _metadata(found: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata: Mapping[str, Any] = found.get("metadata") or {}
    return metadata


def _shown(value: Value) -> str:
    return "absent" if value is None else msgspec.json.encode(value).decode()[:200]


# --- what the fields are ---


def _unschedulable(found: Mapping[str, Any], _: Mapping[str, Any]) -> Value:
    return (found.get("spec") or {}).get("unschedulable") or None  # false and absent are the same


def _set_unschedulable(found: Mapping[str, Any], _: Mapping[str, Any], value: Value) -> Sequence[Operation]:
    if value is None:
        there = "unschedulable" in (found.get("spec") or {})
        return [{"op": "remove", "path": "/spec/unschedulable"}] if there else []
    return [{"op": "add", "path": "/spec/unschedulable", "value": value}]


def _entry(section: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Value]:
    return lambda found, args: (_metadata(found).get(section) or {}).get(args["key"])


def _set_entry(section: str) -> Callable[[Mapping[str, Any], Mapping[str, Any], Value], Sequence[Operation]]:
    def write(found: Mapping[str, Any], args: Mapping[str, Any], value: Value) -> Sequence[Operation]:
        whole, key = f"/metadata/{section}", args["key"]
        entries = _metadata(found).get(section) or {}
        if value is None:
            return [{"op": "remove", "path": whole if set(entries) == {key} else f"{whole}/{escaped(key)}"}]
        if not entries:
            return [{"op": "add", "path": whole, "value": {key: value}}]
        return [{"op": "add", "path": f"{whole}/{escaped(key)}", "value": value}]

    return write


def escaped(key: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _taint(found: Mapping[str, Any], args: Mapping[str, Any]) -> Value:
    taints = (found.get("spec") or {}).get("taints") or []
    return next((one for one in taints if (one.get("key"), one.get("effect")) == (args["key"], args["effect"])), None)


def _set_taint(found: Mapping[str, Any], args: Mapping[str, Any], value: Value) -> Sequence[Operation]:
    taints = (found.get("spec") or {}).get("taints") or []
    return _set_in_list("/spec/taints", taints, _taint(found, args), value)


def _set_in_list(path: str, entries: Sequence[Any], now: Value, value: Value) -> Sequence[Operation]:
    """Places in the list are safe to name: the test on the resourceVersion holds them."""
    if now is None:
        if not entries:
            return [{"op": "add", "path": path, "value": [value]}]
        return [{"op": "add", "path": f"{path}/-", "value": value}]
    if value is None and len(entries) == 1:
        return [{"op": "remove", "path": path}]
    place = f"{path}/{entries.index(now)}"
    return [{"op": "remove", "path": place} if value is None else {"op": "replace", "path": place, "value": value}]


def _hook(found: Mapping[str, Any], args: Mapping[str, Any]) -> Value:
    hooks = ((found.get("spec") or {}).get("lifecycleHooks") or {}).get(args["moment"]) or []
    return next((one for one in hooks if one.get("name") == args["name"]), None)


def _set_hook(found: Mapping[str, Any], args: Mapping[str, Any], value: Value) -> Sequence[Operation]:
    path, moment = "/spec/lifecycleHooks", args["moment"]
    hooks = (found.get("spec") or {}).get("lifecycleHooks") or {}
    entries = hooks.get(moment) or []
    if value is not None and not hooks:
        return [{"op": "add", "path": path, "value": {moment: [value]}}]
    return _set_in_list(f"{path}/{escaped(moment)}", entries, _hook(found, args), value)


def _record(found: Mapping[str, Any], _: Mapping[str, Any]) -> Value:
    """The record on a node: text that is no record of ours stands for itself, and so for drift."""
    text = (_metadata(found).get("annotations") or {}).get(RECORD)
    try:
        return None if text is None else msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return text


def _set_record(found: Mapping[str, Any], _: Mapping[str, Any], value: Value) -> Sequence[Operation]:
    text = None if value is None else msgspec.json.encode(value).decode()
    return _set_entry("annotations")(found, {"key": RECORD}, text)


def _said_entry(order: str, noun: str) -> Callable[[str, Mapping[str, Any], Value], str]:
    return lambda name, args, value: (
        f"remove the {noun} {args['key']} from {name}" if value is None else f"{order} {name} {args['key']}={value}"
    )


def _said_taint(name: str, args: Mapping[str, Any], value: Value) -> str:
    if value is None:
        return f"remove the taint {args['key']}:{args['effect']} from {name}"
    return f"taint {name} {args['key']}={value.get('value', '')}:{args['effect']}"


VERBS: Final[Mapping[str, Verb]] = {
    "node.cordon": FieldVerb(
        (),
        _unschedulable,
        _set_unschedulable,
        lambda name, _, value: f"cordon {name}" if value else f"uncordon {name}",
    ),
    "node.taint": FieldVerb(("key", "effect"), _taint, _set_taint, _said_taint),
    "object.annotate": FieldVerb(
        ("key",), _entry("annotations"), _set_entry("annotations"), _said_entry("annotate", "annotation")
    ),
    "object.label": FieldVerb(("key",), _entry("labels"), _set_entry("labels"), _said_entry("label", "label")),
    "machine.hook": FieldVerb(
        ("moment", "name"),
        _hook,
        _set_hook,
        lambda name, args, value: (
            f"{'remove' if value is None else 'add'} the {args['moment']} hook {args['name']} of {name}"
        ),
    ),
    "node.record": FieldVerb(
        (),
        _record,
        lambda found, args, value: _set_record(found, args, marks.kept(_record(found, args), value)),
        lambda name, _, value: f"remove the record from {name}" if value is None else f"write the record on {name}",
        marks.same,
    ),
    **POD_VERBS,
}
