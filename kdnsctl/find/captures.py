"""Bundles hold several captures: which of them counts for each node, as the bundle's journal says.

A node's tables can only be judged by what was true when they were read, so captures are never mixed: each node has one,
and is judged by the cluster's side of that one. The last capture counts, but for nodes that it was joined with an
earlier one for (`kept`): those were finished there. Directories and archives of bundles are known by their journals,
wherever they lie among the inputs. What of a bundle is whole is not looked at here.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from kdnsctl.changes.journal import Record, read_from
from kdnsctl.logs.sources.files import Inputs
from kdnsctl.logs.sources.opening import BLOCK, SourceError
from kdnsctl.logs.sources.walking import LogStream
from kdnsctl.model import Reason

JOURNAL: Final = "journal.jsonl"
COMPLETE: Final = "complete"  # what a capture says in the end of a node that it has read to the end
ASKED: Final = ("kubeProxy.health", "kubeProxy.metrics")  # items in which kube-proxy tells how it is
UNSTEADY: Final = timedelta(seconds=1)  # as far may times of records written at once by several threads go back
MOST: Final = 256 << 20  # bytes of a journal; as for `bundle verify`

_OWN: Final = re.compile(r"(?:manifest\.json|SHA256SUMS|journal\.jsonl)\Z")
_CAPTURE: Final = re.compile(r"(?:cluster|nodes/([^/]+))/(\d{2,6})/([^/]+)\Z")
CHANGES: Final = re.compile(r"endpointslices-watch(?:-\d+)?\.jsonl(?:\.cut)?\Z")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file lies: in the bundle at `root`, of which capture, of which node ("": of the cluster)."""

    root: str
    capture: int
    node: str
    name: str

    @property
    def moment(self) -> Moment:
        """The cluster's side that it belongs to."""
        return (self.root, self.capture)

    @property
    def changes(self) -> bool:
        """Whether it holds what changed of EndpointSlices during a capture."""
        return not self.node and bool(CHANGES.match(self.name))


Moment = tuple[str, int]  # the root of a bundle, and a capture in it


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a bundle says of one of its files: whose it is (`node` "": the cluster's), of which item, how many bytes.

    `problem` is why it is not all there was, None when it is whole. `began` and `ended` are of its reading.
    """

    node: str
    item: str
    capture: int
    size: int
    began: datetime
    ended: datetime
    problem: Reason | None = None


@dataclass(frozen=True, slots=True)
class Captures:
    """One bundle. `kept` says which capture counts for a node that is not of the `last` one; `nodes` are all in scope.

    `artefacts` are its files by their paths in it without `.gz`, `of_whom` the same by node and capture; `absent` is
    why an item was not even begun to be read, by node and capture, too. `finished` are the nodes, with the capture, of
    which collecting has come to its end. In captures of `unsteady` the clock of whoever collected went back.
    """

    last: int
    kept: Mapping[str, int] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()
    artefacts: Mapping[str, Recorded] = field(default_factory=dict)
    of_whom: Mapping[tuple[str, int], Mapping[str, Recorded]] = field(default_factory=dict)
    absent: Mapping[tuple[str, int], Mapping[str, Reason]] = field(default_factory=dict)
    finished: frozenset[tuple[str, int]] = frozenset()
    unsteady: frozenset[int] = frozenset()

    def of(self, node: str) -> int:
        """The capture that counts for a node."""
        return self.kept.get(node, self.last)

    @property
    def counting(self) -> frozenset[int]:
        """Every capture that counts for any node."""
        return frozenset({self.last, *self.kept.values()})


@dataclass(frozen=True, slots=True)
class Bundles:
    """The bundles among some inputs, by the logical path of their directory ("": the current one)."""

    by_root: Mapping[str, Captures] = field(default_factory=dict)

    def place(self, path: str) -> Place | None:
        """Where in a bundle a file lies, None for one that is in none, or in none of its captures."""
        for root in self._above(path):
            match = _CAPTURE.fullmatch(_inside(path, root))
            if match is not None:
                return Place(root, int(match[2]), match[1] or "", match[3])
        return None

    def is_record(self, path: str) -> bool:
        """Whether a file is a bundle's record of how it came about, and no evidence here."""
        return any(_OWN.fullmatch(_inside(path, root)) for root in self._above(path))

    def counts(self, place: Place) -> bool:
        """Whether the file counts: it is of the capture that counts for its node, or of one that counts for any."""
        captures = self.by_root[place.root]
        return place.capture == captures.of(place.node) if place.node else place.capture in captures.counting

    def recorded(self, path: str) -> Recorded | None:
        """What its bundle says of a file, None when it is in none, or in none of its records."""
        for root in self._above(path):
            if (found := self.by_root[root].artefacts.get(_inside(path, root))) is not None:
                return found
        return None

    def replaced(self, path: str) -> bool:
        """Whether a file is of an attempt that failed, and a later one has the same whole."""
        mine = self.recorded(path)
        if mine is None or mine.problem is None or not mine.item:
            return False
        return any(
            one.item == mine.item and one.problem is None
            for root in self._above(path)
            for one in self.by_root[root].of_whom.get((mine.node, mine.capture), {}).values()
        )

    def silent(self, node: str) -> Reason | None:
        """Why a node's kube-proxy did not tell how it is, as its bundle says; None when it did, or nobody asked."""
        for captures in self.by_root.values():
            whose = (node, captures.of(node))
            for one in captures.of_whom.get(whose, {}).values():
                if one.item in ASKED and one.problem is not None:
                    return one.problem
            for item, why in captures.absent.get(whose, {}).items():
                if item in ASKED:
                    return why
        return None

    def _above(self, path: str) -> Iterable[str]:
        return (root for root in self.by_root if not root or path.startswith(f"{root}/"))


def bundles_in(inputs: Inputs) -> Bundles:
    """Find the bundles among the inputs. What is no journal, or cannot be read, makes no bundle."""
    found: dict[str, Captures] = {}
    for item in inputs.walk():
        root, _, name = item.path.rpartition("/")
        if name == JOURNAL and isinstance(item, LogStream):
            captures = captures_of(read_from(io.BytesIO(_content(item))).records)
            if captures is not None:
                found[root] = captures
    return Bundles(found)


def captures_of(records: Sequence[Record]) -> Captures | None:
    """What a journal's records say; None when they are of no bundle. Each record may be a stranger's."""
    last = 0
    kept: dict[int, dict[str, int]] = {}
    nodes: dict[str, None] = {}
    artefacts: dict[str, Recorded] = {}
    absent: dict[tuple[str, int], dict[str, Reason]] = {}
    finished: set[tuple[str, int]] = set()
    for record in records:
        number = record.body.get("capture")
        if not isinstance(number, int) or number < 1:
            continue
        last = max(last, number)
        if record.kind in ("begun", "resumed", "finished"):
            joined = record.body.get("kept")
            if isinstance(joined, dict):
                kept[number] = {str(name): one for name, one in joined.items() if isinstance(one, int) and one > 0}
            named = record.body.get("nodes")
            if isinstance(named, (list, dict)):  # the last says it of all, those that were kept among them
                nodes = dict.fromkeys(str(name) for name in named)
            if record.kind == "finished":
                known = {name: kept.get(number, {}).get(name, number) for name in nodes}
                finished |= {(name, one) for name, one in known.items() if _is_complete(name, named)}
        elif record.kind == "artefact":
            _note_artefact(record.body, number, artefacts)
        elif record.kind == "node":
            finished.add((str(record.body.get("node")), number))
        elif record.kind == "missing" and (why := _problem(record.body)) is not None:
            whose = (str(record.body.get("node")), number)
            absent.setdefault(whose, {}).setdefault(str(record.body.get("item")), why)
    if not last:
        return None
    of_whom: dict[tuple[str, int], dict[str, Recorded]] = {}
    for path, one in artefacts.items():
        of_whom.setdefault((one.node, one.capture), {})[path] = one
    return Captures(
        last, kept.get(last, {}), tuple(nodes), artefacts, of_whom, absent, frozenset(finished), _unsteady(records)
    )


def _is_complete(node: str, said: Any) -> bool:
    """Whether a capture says in its end that a node was read to the end, or says nothing of single nodes."""
    return said.get(node) == COMPLETE if isinstance(said, dict) else True


def _unsteady(records: Iterable[Record]) -> frozenset[int]:
    """The captures in which times go back."""
    found: set[int] = set()
    latest: dict[int, datetime] = {}
    for record in records:
        number = record.body.get("capture")
        if isinstance(number, int):
            if record.time < latest.setdefault(number, record.time) - UNSTEADY:
                found.add(number)
            latest[number] = max(record.time, latest[number])
    return frozenset(found)


def _problem(said: Mapping[str, Any]) -> Reason | None:
    problem = said.get("problem")
    if not isinstance(problem, dict):
        return None
    return Reason(str(problem.get("code", "")), str(problem.get("message", "")))


def _note_artefact(said: Mapping[str, Any], capture: int, artefacts: dict[str, Recorded]) -> None:
    try:
        began, ended = datetime.fromisoformat(said["started"]), datetime.fromisoformat(said["ended"])
        path, size = str(said["path"]).removesuffix(".gz"), int(said["size"])
    except (KeyError, TypeError, ValueError):
        return
    if began.tzinfo is not None and ended.tzinfo is not None:
        node, item = str(said.get("node")), str(said.get("item"))
        artefacts[path] = Recorded(node, item, capture, size, began, ended, _problem(said))


def _inside(path: str, root: str) -> str:
    return path[len(root) + 1 :] if root else path


def _content(item: LogStream) -> bytes:
    """All of it, as far as it can be read and is not too much: the beginning of a journal is one too."""
    pieces: list[bytes] = []
    size = 0
    with contextlib.suppress(SourceError), item.open() as source:  # that it breaks off is told where it is sifted
        while size < MOST and (block := source.read(BLOCK)):
            pieces.append(block)
            size += len(block)
    return b"".join(pieces)
