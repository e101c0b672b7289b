"""What is written on the cluster about a raised verbosity, so that anybody can put it back: `kdnsctl.io/verbosity`.

The annotation is on every node whose kube-proxy was raised, and on the DaemonSet whose command line was. It is written
before anything is raised and removed when all of it is back, so whatever happens in between, it is there. It can be
written by whoever may change nodes or DaemonSets: it is checked before it is acted on, and says nothing about where
anything is sent. Nothing is asked or changed here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from kdnsctl.changes.incidents import checked_id
from kdnsctl.changes.proxies import ANNOTATION, HIGHEST, json_of
from kdnsctl.cluster.objects import Node
from kdnsctl.model import KdnsctlError, UsageError

VERSION: Final = 1
MOST_TEXT: Final = 400  # characters of a field: an operator is USER@HOST, and a host's name has up to 253
RESTORE: Final = "kdnsctl verbosity restore puts it back"


class Way(enum.StrEnum):
    """How a verbosity is raised."""

    RUNTIME = "runtime"  # told to the running kube-proxy; nothing restarts
    TEMPLATE = "template"  # by the DaemonSet's command line under OnDelete; kube-proxy restarts on the named nodes


class RecordError(KdnsctlError):
    """What is written there is no record of a raised verbosity."""

    code = "badRecord"


@dataclass(frozen=True, slots=True)
class Raised:
    """That one verbosity is raised: by whom, since and until when (None: until somebody puts it back).

    `uid` is that of the pod that was told (RUNTIME), or of the DaemonSet (TEMPLATE). `before` is the level that it had.
    """

    incident: str
    operator: str
    run: str
    since: datetime
    until: datetime | None
    way: Way
    level: int
    before: int
    uid: str

    def overdue(self, now: datetime) -> bool:
        """Whether it should be back by now."""
        return self.until is not None and self.until < now

    def to_json(self) -> dict[str, Any]:
        """As the annotation holds it."""
        return {
            "version": VERSION,
            "incident": self.incident,
            "operator": self.operator,
            "run": self.run,
            "since": _text_of(self.since),
            "until": None if self.until is None else _text_of(self.until),
            "way": self.way.value,
            "level": self.level,
            "before": self.before,
            "uid": self.uid,
        }


@dataclass(frozen=True, slots=True)
class RaisedTemplate:
    """That a DaemonSet's command line is raised: what it was, what it is, and the update strategy that it had."""

    raised: Raised
    container: str
    strategy: Mapping[str, Any]
    was: Mapping[str, Any]
    line: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As the annotation holds it."""
        return {
            **self.raised.to_json(),
            "container": self.container,
            "strategy": dict(self.strategy),
            "was": dict(self.was),
            "line": dict(self.line),
        }


def of_node(node: Node) -> Raised | None:
    """The record on a node, None without one. Raises RecordError when what is there is none."""
    text = node.metadata.annotations.get(ANNOTATION)
    if text is None:
        return None
    try:
        return _raised(json_of(text))
    except (ValueError, TypeError, KeyError) as error:
        raise _no_record(f"node {node.metadata.name}", error) from error


def of_daemon_set(found: Mapping[str, Any]) -> RaisedTemplate | None:
    """The record on a DaemonSet as the API has it, None without one. Raises RecordError when what is there is none."""
    metadata = found.get("metadata") or {}
    text = (metadata.get("annotations") or {}).get(ANNOTATION)
    if text is None:
        return None
    try:
        return _template(json_of(text))
    except (ValueError, TypeError, KeyError) as error:
        raise _no_record(f"DaemonSet {metadata.get('namespace')}/{metadata.get('name')}", error) from error


def from_json(value: Any) -> Raised:
    """A record as a step has it. Raises RecordError."""
    try:
        return _raised(value)
    except (ValueError, TypeError, KeyError) as error:
        raise _no_record("a step", error) from error


def sentence(where: str, raised: Raised, now: datetime) -> str:
    """One raised verbosity in words, for people."""
    until = "" if raised.until is None else f", until {raised.until:%Y-%m-%d %H:%M:%SZ}"
    said = f"{where}: kube-proxy's verbosity is raised to {raised.level} since {raised.since:%Y-%m-%d %H:%M:%SZ}"
    return f"{'OVERDUE: ' if raised.overdue(now) else ''}{said}{until} by {raised.operator}"


def reminders(nodes: Sequence[Node], now: datetime | None = None, most: int = 3) -> list[str]:
    """What to tell whoever looks at these nodes: which are raised, the overdue first, and how that is put back."""
    found: list[tuple[str, Raised]] = []
    broken: list[str] = []
    for node in nodes:
        try:
            raised = of_node(node)
        except RecordError as error:
            broken.append(str(error))
            continue
        if raised is not None:
            found.append((node.metadata.name, raised))
    return reminder(found, now or datetime.now(UTC), broken, most)


def reminder(
    found: Sequence[tuple[str, Raised]], now: datetime, broken: Sequence[str] = (), most: int = 3
) -> list[str]:
    """What to tell of what is raised, where; the overdue first. `broken`: records that cannot be read."""
    if not found and not broken:
        return []
    in_order = sorted(found, key=lambda one: not one[1].overdue(now))
    said = [*broken, *(sentence(where, raised, now) for where, raised in in_order)]
    more = [f"and {len(said) - most} more are raised"] if len(said) > most else []
    return [*said[:most], *more, RESTORE]


def _raised(value: Any) -> Raised:
    if not isinstance(value, Mapping) or value.get("version") != VERSION:
        raise ValueError(f"not a record of version {VERSION}")
    texts = {key: value[key] for key in ("incident", "operator", "run", "since", "way", "uid")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("its fields are no text")
    if any(len(text) > MOST_TEXT for text in texts.values()):
        raise ValueError(f"its fields are longer than {MOST_TEXT} characters")
    try:
        checked_id(texts["incident"])  # it names a directory, and goes into every request
    except UsageError as error:
        raise ValueError(str(error)) from error
    levels = value["level"], value["before"]
    if not all(type(level) is int and 0 <= level <= HIGHEST for level in levels):
        raise ValueError(f"its levels are no numbers from 0 to {HIGHEST}")
    until = value.get("until")
    return Raised(
        incident=texts["incident"],
        operator=texts["operator"],
        run=texts["run"],
        since=_time(texts["since"]),
        until=None if until is None else _time(until),
        way=Way(texts["way"]),
        level=levels[0],
        before=levels[1],
        uid=texts["uid"],
    )


def _template(value: Any) -> RaisedTemplate:
    raised = _raised(value)
    container, strategy = value["container"], value["strategy"]
    if not isinstance(container, str) or not isinstance(strategy, Mapping):
        raise TypeError("its container is no text, or its strategy no object")
    if strategy.get("type") not in ("RollingUpdate", "OnDelete"):
        raise ValueError(f"there is no update strategy {strategy.get('type')!r}")
    return RaisedTemplate(raised, container, strategy, _line(value["was"]), _line(value["line"]))


def _line(value: Any) -> dict[str, list[str] | None]:
    line = {}
    for key in ("command", "args"):
        words = value[key]
        if words is not None and not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
            raise TypeError(f"its {key} is no list of words")
        line[key] = words
    return line


def _time(text: Any) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("its time has no zone")
    return time


def _text_of(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _no_record(where: str, error: Exception) -> RecordError:
    return RecordError(
        f"the annotation {ANNOTATION} of {where} is no record of kdnsctl: {error}",
        hint="look at it with kubectl get -o yaml; nothing of it was acted on",
    )
