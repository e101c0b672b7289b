"""The verbs about kube-proxy itself: its verbosity while it runs, and its DaemonSet's command line and update strategy.

A DaemonSet's command line is only raised while its strategy is OnDelete: with RollingUpdate its controller would
restart kube-proxy on every node. The patch that changes it is bound to the version of the DaemonSet in which that was
so. Putting a command line back is done under every strategy: what a controller then restarts is what was raised.

What the verbosity is cannot be read from a running kube-proxy, so that verb cannot tell what somebody else set
meanwhile. It is only sent to the very pod that the step names: another one starts at the level of its command line.

Why kube-proxy's ConfigMap is never changed: every kube-proxy exits when its file changes (server.go, since 1.14).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from kdnsctl.changes.fields import FieldVerb, Operation, Value, escaped, node_path
from kdnsctl.changes.verbs import DriftError, Effect, Means, Verb
from kdnsctl.cluster import portforward
from kdnsctl.cluster.errors import printable
from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.portforward import ForwardRequest
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError, Step

RUNTIME: Final = "kubeProxy.verbosity"
RECORD: Final = "verbosity.record"
STRATEGY: Final = "daemonSet.strategy"
COMMAND: Final = "daemonSet.command"
ANNOTATION: Final = "kdnsctl.io/verbosity"  # on nodes whose kube-proxy was raised, and on the DaemonSet
FLAGS_PATH: Final = "/debug/flags/v"  # on the metrics server, with enableProfiling; since 1.22 (kubernetes#98306)
SECONDS: Final = 10.0
HIGHEST: Final = 10
ON_DELETE: Final = "OnDelete"
# The level is on the node's or the DaemonSet's record as well, so both are patched.
RECORDING: Final = (Permission("patch", "nodes", without="no verbosity is raised: nothing would tell that it is"),)

_NAME: Final = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
_DAEMON_SET: Final = rf"/apis/apps/v1/namespaces/{_NAME}/daemonsets/{_NAME}"
_DAEMON_SETS: Final = re.compile(_DAEMON_SET)
_RECORDED: Final = re.compile(rf"/api/v1/nodes/{_NAME}|{_DAEMON_SET}")
_POD: Final = re.compile(rf"/api/v1/namespaces/({_NAME})/pods/({_NAME})")
_FLAG: Final = re.compile(r"--?v(?:=(\d+))?")
_SHELLS: Final = frozenset({"sh", "bash", "ash", "dash"})


# --- command lines ---


def level_of(words: Sequence[str]) -> int | None:
    """The level of `-v` on a command line (the last counts, as for pflag); None without one that is a number."""
    found = None
    for place, word in enumerate(words):
        match = _FLAG.fullmatch(word)
        if match is not None:
            text = match[1] or (words[place + 1] if place + 1 < len(words) else "")
            found = int(text) if text.isascii() and text.isdigit() else found
    return found


def with_level(line: Mapping[str, Any], level: int) -> dict[str, Any] | None:
    """A container's command line (`command` and `args`, None: absent) with another level of `-v`.

    None where it cannot be done by adding a word: a shell script, or the image's own command.
    """
    command, args = list(line.get("command") or ()), list(line.get("args") or ())
    if not command and not args:
        return None
    if command and command[0].rpartition("/")[2] in _SHELLS:
        return None
    command, args = _without_level(command), _without_level(args)
    (args if args or line.get("args") else command).append(f"--v={level}")
    return {"command": command or None, "args": args or None}


def _without_level(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        match = None if skip else _FLAG.fullmatch(word)
        if not skip and match is None:
            kept.append(word)
        skip = match is not None and match[1] is None
    return kept


def line_of(container: Mapping[str, Any]) -> dict[str, Any]:
    """The command line of a container as the API has it."""
    return {"command": container.get("command") or None, "args": container.get("args") or None}


def _level_in(line: Any) -> int:
    """The level of a command line; without a flag it is 0, or what the configuration says: lower than any raised."""
    return level_of([*(line.get("command") or ()), *(line.get("args") or ())]) or 0


# --- while it runs ---


def answers_flags(connection: Connection, namespace: str, pod: str, port: int, *, scope: Any) -> bool:
    """Whether a running kube-proxy takes another verbosity. It is asked in a way that changes nothing.

    Raises as `portforward.get`.
    """
    request = ForwardRequest(namespace, pod, port, FLAGS_PATH)
    end = portforward.get(connection, request, take=lambda _: None, scope=scope, seconds=SECONDS)
    return end.status == 406  # "unsupported http method": only PUT is; without profiling it is 404


class _Runtime:
    """`args`: the pod's path, its node, and the port of its metrics. `before` and `after` are levels."""

    def check(self, step: Step) -> None:
        path, node, port = step.args.get("path"), step.args.get("node"), step.args.get("port")
        if set(step.args) != {"path", "node", "port"} or not (isinstance(path, str) and isinstance(node, str)):
            raise ValueError("its arguments are path, node and port")
        if not _POD.fullmatch(path) or not step.uid:
            raise ValueError(f"it is about {path!r}, which is no pod, or does not say which (uid)")
        if type(port) is not int or not 0 < port < 65536:
            raise ValueError("its port is none")
        if not all(type(level) is int and 0 <= level <= HIGHEST for level in (step.before, step.after)):
            raise ValueError(f"its levels are numbers from 0 to {HIGHEST}")

    def says(self, step: Step) -> str:
        return f"set the verbosity of the running kube-proxy on node {step.args['node']} to {step.after}"

    def inverse(self, step: Step) -> Step:
        return Step(step.verb, step.args, step.uid, before=step.after, after=step.before)

    def apply(self, step: Step, means: Means) -> Effect:
        namespace, name = _pod_of(step)
        port: int = step.args["port"]
        found = means.connection.get(step.args["path"], Pod, scope=means.scope)
        if found.metadata.uid != step.uid or found.spec.node_name != step.args["node"]:
            raise DriftError(
                f"kube-proxy's pod {namespace}/{name} was replaced (uid {found.metadata.uid}): it started at its own "
                "level",
                found.metadata.uid,
            )
        if means.dry_run:
            if not answers_flags(means.connection, namespace, name, port, scope=means.scope):
                raise KdnsctlError(f"{namespace}/{name} has no {FLAGS_PATH}: enableProfiling is off", code="profiling")
            return Effect(changed=True)
        request = ForwardRequest(namespace, name, port, FLAGS_PATH)
        body = str(step.after).encode()
        end, answer = portforward.put(means.connection, request, body, scope=means.scope, seconds=SECONDS)
        if end.status != 200:
            said = printable(answer[:200].decode("utf-8", "replace")).strip()
            raise KdnsctlError(f"{request} did not take verbosity {step.after}: {end.status} {said}", code="profiling")
        return Effect(changed=True, audit_id=end.audit_id)


def _pod_of(step: Step) -> tuple[str, str]:
    found = _POD.fullmatch(step.args["path"])
    if found is None:
        raise ValueError(f"no pod: {step.args['path']!r}")
    return found[1], found[3]


def runtime_step(node: str, namespace: str, pod: str, uid: str, port: int, levels: tuple[int, int]) -> Step:
    """The step that sets the verbosity of a running kube-proxy, from the first of `levels` to the second."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
    return Step(RUNTIME, {"path": path, "node": node, "port": port}, uid, *levels)


# --- the DaemonSet ---


def daemon_set_path(namespace: str, name: str) -> str:
    """Where a DaemonSet is in the API."""
    return f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}"


def strategy_of(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """A DaemonSet's update strategy."""
    strategy: Mapping[str, Any] = (found.get("spec") or {}).get("updateStrategy") or {}
    return strategy


def _strategy(found: Mapping[str, Any], _: Mapping[str, Any]) -> Value:
    return dict(strategy_of(found)) or None


def _set_strategy(_found: Mapping[str, Any], _: Mapping[str, Any], value: Value) -> Sequence[Operation]:
    return [{"op": "add", "path": "/spec/updateStrategy", "value": value}]


def containers_of(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The containers of a DaemonSet's template, as the API has them."""
    template = ((found.get("spec") or {}).get("template") or {}).get("spec") or {}
    return template.get("containers") or ()


def _place(found: Mapping[str, Any], args: Mapping[str, Any]) -> int:
    names = [one.get("name") for one in containers_of(found)]
    if args["container"] not in names:
        raise DriftError(f"the DaemonSet has no container {args['container']} any more")
    return names.index(args["container"])


def _command(found: Mapping[str, Any], args: Mapping[str, Any]) -> Value:
    return line_of(containers_of(found)[_place(found, args)])


def _set_command(found: Mapping[str, Any], args: Mapping[str, Any], value: Value) -> Sequence[Operation]:
    strategy = strategy_of(found).get("type")
    if _level_in(value) > _level_in(_command(found, args)) and strategy != ON_DELETE:
        raise DriftError(
            f"the update strategy is {strategy}, not {ON_DELETE}: somebody sets it back, and every kube-proxy would be "
            "restarted",
            strategy,
        )
    place = _place(found, args)
    there = containers_of(found)[place]
    operations: list[Operation] = []
    for key in ("command", "args"):
        path = f"/spec/template/spec/containers/{place}/{escaped(key)}"
        if value[key] is not None:
            operations.append({"op": "add", "path": path, "value": value[key]})
        elif there.get(key) is not None:
            operations.append({"op": "remove", "path": path})
    return operations


def _said_command(name: str, args: Mapping[str, Any], value: Value) -> str:
    line = " ".join([*(value["command"] or ()), *(value["args"] or ())])
    return f"have {name} start {args['container']} with: {line}"


# --- the record ---


def _record(found: Mapping[str, Any], _: Mapping[str, Any]) -> Value:
    text = ((found.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION)
    return None if text is None else json_of(text)


def json_of(text: str) -> Any:
    """What an annotation holds; its text where it is no JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return text


def _set_record(found: Mapping[str, Any], _: Mapping[str, Any], value: Value) -> Sequence[Operation]:
    whole = "/metadata/annotations"
    entries = (found.get("metadata") or {}).get("annotations") or {}
    if value is None:
        only = set(entries) == {ANNOTATION}
        return [{"op": "remove", "path": whole if only else f"{whole}/{escaped(ANNOTATION)}"}]
    text = msgspec.json.encode(value).decode()
    if not entries:
        return [{"op": "add", "path": whole, "value": {ANNOTATION: text}}]
    return [{"op": "add", "path": f"{whole}/{escaped(ANNOTATION)}", "value": text}]


def record_step(path: str, uid: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Step:
    """The step that writes on a node or a DaemonSet that its verbosity is raised, or removes that."""
    return Step(RECORD, {"path": path}, uid, before, after)


def node_record_step(node: str, uid: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Step:
    """The same for a node."""
    return record_step(node_path(node), uid, before, after)


PROXY_VERBS: Final[Mapping[str, Verb]] = {
    RUNTIME: _Runtime(),
    STRATEGY: FieldVerb(
        (),
        _strategy,
        _set_strategy,
        lambda name, _, value: f"set the update strategy of {name} to {(value or {}).get('type')}",
        paths=_DAEMON_SETS,
    ),
    COMMAND: FieldVerb(("container",), _command, _set_command, _said_command, paths=_DAEMON_SETS),
    RECORD: FieldVerb(
        (),
        _record,
        _set_record,
        lambda name, _, value: (
            f"remove the record of a raised verbosity from {name}"
            if value is None
            else f"write on {name} that its verbosity is raised"
        ),
        paths=_RECORDED,
    ),
}
