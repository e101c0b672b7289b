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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from kdnsctl.changes.journal import Record, read_from
from kdnsctl.logs.sources.files import Inputs
from kdnsctl.logs.sources.opening import BLOCK, SourceError
from kdnsctl.logs.sources.walking import LogStream
from kdnsctl.model import Reason

JOURNAL: Final = "journal.jsonl"
ASKED: Final = ("kubeProxy.health", "kubeProxy.metrics")  # items in which kube-proxy tells how it is
MOST: Final = 256 << 20  # bytes of a journal; as for `bundle verify`

_OWN: Final = re.compile(r"(?:manifest\.json|SHA256SUMS|journal\.jsonl)\Z")
_CAPTURE: Final = re.compile(r"(?:cluster|nodes/([^/]+))/(\d{2,6})/([^/]+)\Z")
_CHANGES: Final = re.compile(r"endpointslices-watch(?:-\d+)?\.jsonl(?:\.cut)?\Z")


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
        return not self.node and bool(_CHANGES.match(self.name))


Moment = tuple[str, int]  # the root of a bundle, and a capture in it


@dataclass(frozen=True, slots=True)
class Captures:
    """One bundle. `kept` says which capture counts for a node that is not of the `last` one; `nodes` are all in scope.

    `times` has when the reading of each artefact began and ended, by its path in the bundle without `.gz`, and `silent`
    why kube-proxy did not tell how it is, by node and capture.
    """

    last: int
    kept: Mapping[str, int] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()
    times: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)
    silent: Mapping[tuple[str, int], Reason] = field(default_factory=dict)

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

    def times(self, path: str) -> tuple[datetime, datetime] | None:
        """When the reading of a file began and ended, as its bundle says."""
        for root in self._above(path):
            if (found := self.by_root[root].times.get(_inside(path, root))) is not None:
                return found
        return None

    def silent(self, node: str) -> Reason | None:
        """Why a node's kube-proxy did not tell how it is, as its bundle says; None when it did, or nobody asked."""
        for captures in self.by_root.values():
            if (why := captures.silent.get((node, captures.of(node)))) is not None:
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


def captures_of(records: Iterable[Record]) -> Captures | None:
    """What a journal's records say; None when they are of no bundle. Each record may be a stranger's."""
    last = 0
    kept: dict[int, dict[str, int]] = {}
    nodes: dict[str, None] = {}
    times: dict[str, tuple[datetime, datetime]] = {}
    silent: dict[tuple[str, int], Reason] = {}
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
        elif record.kind == "artefact":
            _note_times(record.body, times)
        if record.kind in ("artefact", "missing") and record.body.get("item") in ASKED:
            _note_silence(record.body, number, silent)
    return Captures(last, kept.get(last, {}), tuple(nodes), times, silent) if last else None


def _note_silence(said: Mapping[str, Any], capture: int, silent: dict[tuple[str, int], Reason]) -> None:
    problem = said.get("problem")
    if isinstance(problem, dict):
        why = Reason(str(problem.get("code", "")), str(problem.get("message", "")))
        silent.setdefault((str(said.get("node")), capture), why)


def _note_times(said: Mapping[str, Any], times: dict[str, tuple[datetime, datetime]]) -> None:
    try:
        began, ended = datetime.fromisoformat(said["started"]), datetime.fromisoformat(said["ended"])
        path = str(said["path"]).removesuffix(".gz")
    except (KeyError, TypeError, ValueError):
        return
    if began.tzinfo is not None and ended.tzinfo is not None:
        times[path] = (began, ended)


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
