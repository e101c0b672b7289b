"""Incidents on this machine: a directory and a journal each, bound to one cluster. The journal is the only record of
changes.

`$XDG_STATE_HOME/kdnsctl/incidents/ID/journal.jsonl`, the directories 0700, the file 0600. The first record says of
which cluster it is, by the UID of its namespace kube-system, which no other cluster has. What is done in an incident is
known to the rooms that write to it.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from kdnsctl.cancel import CancelScope
from kdnsctl.changes import journal
from kdnsctl.changes.journal import Journal, Reading
from kdnsctl.cluster.objects import PartialObjectMetadata
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import Coverage, KdnsctlError, RefusedError, UsageError

JOURNAL: Final = "journal.jsonl"
OPENED: Final = "incident"  # kind of the first record
RUN: Final = "run"  # kind of the record with which a command begins
FOUND: Final = "found"  # kind of the record of what a command found that changes nothing
MOST_NAMES: Final = 100  # of nodes in such a record, for each verdict; all of them are counted
NAMESPACE: Final = "/api/v1/namespaces/kube-system"
NEEDED: Final = (
    Permission(
        "get",
        "namespaces",
        name="kube-system",
        without="an incident cannot be bound to the cluster: nothing is changed",
    ),
)
NOTED: Final = Permission(
    "get", "namespaces", name="kube-system", without="--incident: what is found cannot be noted in an incident"
)
"""For commands that only read, and note what they found when an incident is named."""
# The name is a directory, a part of the User-Agent and the value of a taint: a label's value (k8s docs, "Labels").
_ID: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something: `operator` is user@host of this machine, `run` names this run of the tool."""

    operator: str
    run: str

    def __str__(self) -> str:
        return f"{self.operator}/{self.run}"


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident that is open for writing. `fresh`: it was made just now."""

    id: str
    directory: Path
    cluster_uid: str
    journal: Journal
    fresh: bool

    def begin(self, command: str, actor: Actor, nodes: Iterable[str]) -> None:
        """Note that a command begins to change these nodes. Raises as `Journal.append`."""
        about = {"command": command, "run": actor.run, "operator": actor.operator, "nodes": list(nodes)}
        self.journal.append(RUN, about)

    def found(
        self,
        command: str,
        actor: Actor,
        found: Mapping[str, Iterable[str]],
        coverage: Coverage | None = None,
        evidence: tuple[Path, str] | None = None,
    ) -> None:
        """Note what a command found that changes nothing: verdict → nodes. Raises as `Journal.append`.

        `evidence` is where a bundle of it is, and the digest of that bundle's SHA256SUMS.
        """
        nodes = {verdict: list(names) for verdict, names in found.items()}
        about: dict[str, Any] = {
            "command": command,
            "run": actor.run,
            "operator": actor.operator,
            "counts": {verdict: len(names) for verdict, names in nodes.items()},
            "nodes": {verdict: names[:MOST_NAMES] for verdict, names in nodes.items()},
        }
        if coverage is not None:
            about |= {"inScope": coverage.in_scope, "judged": coverage.judged}
        if evidence is not None:
            about |= {"bundle": str(evidence[0]), "sumsSha256": evidence[1]}
        self.journal.append(FOUND, about)


@dataclass(frozen=True, slots=True)
class Summary:
    """An incident as `incident list` shows it. `reading` has all records, and what is wrong with them."""

    id: str
    directory: Path
    reading: Reading
    opened: datetime | None = None
    cluster: str = ""
    cluster_uid: str = ""
    operator: str = ""


def this_actor() -> Actor:
    """Who runs this, and a new name for the run."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = str(os.getuid())
    return Actor(f"{user}@{socket.gethostname()}", f"{os.getpid()}-{secrets.token_hex(3)}")


def new_id(now: datetime) -> str:
    """A name for an incident that begins now: its time in UTC, and enough chance to be the only one."""
    return f"{now:%Y%m%dt%H%M%Sz}-{secrets.token_hex(2)}".lower()


def checked_id(name: str) -> str:
    """The name, if it can be an incident's. Raises UsageError."""
    if not _ID.fullmatch(name):
        raise UsageError(
            f"an incident's name has up to 63 letters, digits, dots, dashes and underscores, not {name!r}",
            hint="it begins and ends with a letter or digit",
        )
    return name


def incidents_directory(environment: Mapping[str, str]) -> Path:
    """$XDG_STATE_HOME/kdnsctl/incidents, by default below ~/.local/state. It need not exist."""
    base = environment.get("XDG_STATE_HOME", "")
    if base.startswith("/"):  # the specification has relative ones ignored
        return Path(base) / "kdnsctl" / "incidents"
    home = environment.get("HOME")
    return (Path(home) if home else Path("~").expanduser()) / ".local" / "state" / "kdnsctl" / "incidents"


def cluster_uid(connection: Connection, *, scope: CancelScope) -> str:
    """What tells this cluster from every other: the UID of kube-system. Raises as `Connection.get`."""
    uid = connection.get(NAMESPACE, PartialObjectMetadata, scope=scope).metadata.uid
    if not uid:
        raise KdnsctlError(f"the namespace kube-system of {connection.target} has no UID; nothing was changed")
    return uid


def open_incident(
    directory: Path,
    name: str,
    uid: str,
    cluster: str,
    actor: Actor,
    now: Callable[[], datetime] = journal.utc_now,
) -> Incident:
    """Open the incident `name` below `directory` for writing, or begin it.

    Raises RefusedError when it cannot be written, or is another cluster's; JournalError when its journal was changed.
    Nothing was changed then.
    """
    place = directory / checked_id(name)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        place.chmod(0o700)
    except OSError as error:
        raise RefusedError(
            f"the incident's directory {place} cannot be made ({error.strerror or error}); nothing was changed",
            hint="name a writable place with XDG_STATE_HOME",
        ) from error
    written = Journal.open(place / JOURNAL, now)
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(written.close)
        first = journal.read(place / JOURNAL).records[:1]
        if not first:
            written.append(OPENED, {"id": name, "cluster": cluster, "clusterUid": uid, "operator": actor.operator})
        elif (known := first[0].body.get("clusterUid")) != uid:
            raise RefusedError(
                f"incident {name} belongs to another cluster ({first[0].body.get('cluster')}, kube-system {known}), "
                f"not to {cluster} (kube-system {uid}); nothing was changed",
                hint="check --context, or leave --incident out for a new incident",
            )
        on_failure.pop_all()
    return Incident(name, place, uid, written, fresh=not first)


def check_cluster(incident: Summary, uid: str, cluster: str) -> None:
    """Raise RefusedError when an incident is another cluster's than that of `uid`."""
    if incident.cluster_uid != uid:
        raise RefusedError(
            f"incident {incident.id} belongs to another cluster ({incident.cluster}, kube-system "
            f"{incident.cluster_uid or 'unknown'}), not to {cluster} (kube-system {uid}); nothing was changed",
            hint="check --context",
        )


def summary(directory: Path, name: str) -> Summary:
    """What is known of one incident. Raises UsageError when there is none of that name; damage is in `reading`."""
    place = directory / checked_id(name)
    try:
        reading = journal.read(place / JOURNAL)
    except FileNotFoundError:
        raise UsageError(
            f"no incident {name} on this machine ({place} has no journal)", hint="see kdnsctl incident list"
        ) from None
    except OSError as error:
        raise KdnsctlError(f"{place / JOURNAL} cannot be read: {error.strerror or error}") from error
    first = reading.records[0] if reading.records else None
    if first is None or first.kind != OPENED:
        return Summary(name, place, reading)
    body = first.body
    return Summary(
        name,
        place,
        reading,
        first.time,
        str(body.get("cluster", "")),
        str(body.get("clusterUid", "")),
        str(body.get("operator", "")),
    )


def summaries(directory: Path) -> list[Summary]:
    """All incidents of this machine, the oldest first."""
    if not directory.is_dir():
        return []
    names = [one.name for one in directory.iterdir() if _ID.fullmatch(one.name) and (one / JOURNAL).is_file()]
    found = [summary(directory, name) for name in names]
    return sorted(found, key=lambda one: (one.opened.isoformat() if one.opened else "", one.id))
