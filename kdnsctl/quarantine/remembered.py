"""What the incident's journal remembers of DNS: the nodes found affected, and whether it answered since it lost a pod.

A run that goes on after another must not take the next DNS pod on a guess, and DNS must not come to stand on a node
that is known to be bad. The journal is that of this machine: what was done from another is not in it. Nothing is
changed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kdnsctl.changes import incidents
from kdnsctl.changes.executor import BEGUN, FAILED
from kdnsctl.changes.incidents import RUN
from kdnsctl.changes.journal import Record, read
from kdnsctl.model import KdnsctlError, Verdict
from kdnsctl.quarantine import interrupted

DNS_POD: Final = "dnsPod"  # written before one is evicted: `service`, `pod`, `uid`
DNS_ASKED: Final = "dnsAsked"  # `service`, `answers`


@dataclass(frozen=True, slots=True)
class Remembered:
    """`unproven` are DNS Services of which a pod was taken, and that have not been seen to answer since.

    `affected` are the nodes of which that is the last that was found.
    """

    unproven: frozenset[str] = frozenset()
    affected: frozenset[str] = frozenset()


def remembered(journal: Path) -> Remembered:
    """What a journal knows. Raises KdnsctlError when it cannot be read: then nothing more is done in its incident."""
    try:
        records = read(journal).records
    except OSError as error:
        raise KdnsctlError(f"the journal {journal} cannot be read: {error.strerror or error}") from error
    return Remembered(unproven(records), affected(records))


def unproven(records: Sequence[Record]) -> frozenset[str]:
    """The DNS Services without an answer since a pod of theirs was, or may have been, evicted."""
    service_of: dict[str, str] = {}
    steps: dict[int, str] = {}
    for record in records:
        body = record.body
        if record.kind == DNS_POD:
            service_of[str(body.get("uid"))] = str(body.get("service"))
        elif record.kind == BEGUN and (uid := _mapping(body.get("step")).get("uid")) in service_of:
            steps[record.number] = service_of[uid]
        elif record.kind == FAILED and body.get("certain") is True:
            steps.pop(int(body.get("of") or 0), None)
        elif record.kind == DNS_ASKED and body.get("answers") is True:
            steps = {number: service for number, service in steps.items() if service != body.get("service")}
    return frozenset(steps.values())


def affected(records: Iterable[Record]) -> frozenset[str]:
    """The nodes that were found affected, and neither found well nor released since."""
    bad: set[str] = set()
    for record in records:
        for name, verdict in _verdicts(record):
            if verdict == Verdict.AFFECTED:
                bad.add(name)
            elif verdict != Verdict.UNKNOWN:
                bad.discard(name)
        if record.kind == RUN and record.body.get("command") == "release":
            bad.difference_update(map(str, record.body.get("nodes") or ()))
    return frozenset(bad)


def _verdicts(record: Record) -> Iterator[tuple[str, str]]:
    """The nodes that a record says something of, and what."""
    body = record.body
    match record.kind:
        case incidents.FOUND:
            for verdict, names in _mapping(body.get("nodes")).items():
                yield from ((str(name), verdict) for name in names)
        case interrupted.DONE:
            for name, one in _mapping(body.get("nodes")).items():
                yield name, str(_mapping(one).get("verdict"))
        case "repaired":
            yield str(body.get("node")), str(body.get("verdict"))
        case _:
            pass


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
