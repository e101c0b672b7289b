"""The files that analyze was given: what each is, what the cluster's objects among them say, and what nodes' dumps.

Inputs are opened and walked as those of logs are (`logs.sources`): files, directories, globs, archives, pipes, packed
or not, each once. They are read twice: tables can only be judged while they stream by when the truth is known. What is
neither objects nor a node's state is listed as skipped. Nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Final

from kdnsctl.diagnosis.index import Index
from kdnsctl.find.captures import Bundles, Moment
from kdnsctl.find.dumps import DumpError, Dumps
from kdnsctl.find.nodefiles import Artefact, NodeFiles, is_second, partner
from kdnsctl.find.objectfiles import MOST_JSON, MOST_YAML, NotObjectsError, Objects
from kdnsctl.find.recognise import HEAD, RULES, Sort, sort_of
from kdnsctl.find.report import Problem
from kdnsctl.logs.sources.files import Inputs
from kdnsctl.logs.sources.opening import BLOCK, ByteSource, Code, SourceError
from kdnsctl.logs.sources.walking import LogStream, Unreadable
from kdnsctl.model import Reason, Reporter

MOST_FILES: Final = 100_000  # of which something is kept; a stranger's archive could have any number
MOST_TEXT: Final = 16 << 20  # bytes of a small file; metrics of a large cluster have about 1 MB
ERRORS: Final = ".err"
NOT_EVIDENCE: Final = "notEvidence"
EARLIER: Final = "earlierCapture"
REPLACED: Final = "replaced"


@dataclass(slots=True)
class Sifted:
    """All inputs by what they are. `errors` are what commands said on standard error, by the path of the file.

    `objects` are those that lie in no bundle; `of_bundles` those of each capture that counts, and what lies in none.
    `changes` is what changed of EndpointSlices during a capture, as it was written down. `sizes` are how many bytes
    there are of the files that a bundle has records of, by their paths; of those that can be read to their ends.
    """

    bundles: Bundles = field(default_factory=Bundles)
    objects: Objects = field(default_factory=Objects)
    of_bundles: dict[Moment, Objects] = field(default_factory=dict)
    changes: dict[Moment, bytes] = field(default_factory=dict)
    files: list[Artefact] = field(default_factory=list)
    errors: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    skipped: list[Problem] = field(default_factory=list)
    unread: list[Unreadable] = field(default_factory=list)

    def moment_of(self, node: NodeFiles) -> Moment | None:
        """The capture whose objects are true for a node; None: those that lie in no bundle are."""
        for file in node.files:
            place = self.bundles.place(file.path)
            if place is not None:
                return place.moment
        for root, captures in self.bundles.by_root.items():
            if not node.files and node.name in captures.nodes:
                return (root, captures.of(node.name))
        return next(iter(self.of_bundles)) if len(self.of_bundles) == 1 else None

    def truth_of(self, moment: Moment | None) -> Objects:
        """The objects of a capture, or of none."""
        return self.objects if moment is None else self.of_bundles[moment]

    def all_objects(self) -> tuple[Objects, ...]:
        """The objects of every moment that there are any of."""
        return (self.objects, *self.of_bundles.values())


def sift(inputs: Inputs, reporter: Reporter, bundles: Bundles | None = None) -> Sifted:
    """Look at every input, and take in the objects. Raises UsageError where two say what is true of the same.

    `bundles` are those among the inputs: of each node the capture that counts is looked at, and no other.
    """
    bundles = bundles or Bundles()
    counting = [(root, one) for root, captures in bundles.by_root.items() for one in sorted(captures.counting)]
    sifted = Sifted(bundles, of_bundles={moment: Objects() for moment in counting})
    empty: list[Artefact] = []
    reporter.started("looking at files", None)
    try:
        for ordinal, item in enumerate(inputs.walk()):
            reporter.advanced(ordinal)
            if isinstance(item, Unreadable):
                sifted.unread.append(item)
            elif (place := bundles.place(item.path)) is not None and not bundles.counts(place):
                sifted.skipped.append(Problem(EARLIER, "of an earlier capture of its bundle", item.name))
            elif bundles.replaced(item.path):
                sifted.skipped.append(Problem(REPLACED, "was read again, as a whole", item.name))
            elif place is not None and place.changes:
                _take_changes(item, place.moment, sifted)
            elif bundles.is_record(item.path):
                sifted.skipped.append(Problem(NOT_EVIDENCE, "a record of the bundle itself", item.name))
            elif len(sifted.files) >= MOST_FILES:
                sifted.skipped.append(Problem(Code.TOO_LARGE, f"more than {MOST_FILES} files", item.name))
                break
            else:
                _look(item, ordinal, sifted, empty)
    finally:
        reporter.finished()
    for file in empty:  # an empty table is one when conntrack says beside it that it has shown no entries
        if beside(file, sifted.errors) and sort_of(beside(file, sifted.errors)) is Sort.CONNTRACK_COUNT:
            sifted.files.append(replace(file, sort=Sort.CONNTRACK))
        else:
            sifted.skipped.append(Problem(NOT_EVIDENCE, "is empty", file.name))
    return sifted


def beside(file: Artefact, errors: dict[str, bytes]) -> bytes:
    """What the command that wrote a file said on standard error, b"" when that is not known."""
    found = partner(PurePosixPath(file.path), errors) if file.path else None
    return errors[found] if found else b""


def read_dumps(
    inputs: Inputs, sifted: Sifted, indexes: Sequence[tuple[Sequence[Artefact], Index]], reporter: Reporter
) -> list[Dumps]:
    """The dumps of each node, in the order of `indexes`: its files, and what is true for it."""
    dumps = [Dumps() for _ in indexes]
    wanted = {file.ordinal: (number, file) for number, (files, _) in enumerate(indexes) for file in files}
    paths = {file.path for file in sifted.files}
    reporter.started("reading dumps", len(wanted))
    done = 0
    try:
        for ordinal, item in enumerate(inputs.walk()):
            if ordinal not in wanted or isinstance(item, Unreadable):
                continue
            number, file = wanted[ordinal]
            if is_second(file.path, paths):
                dumps[number].later.add(file.ordinal)
            _read(item, file, dumps[number], beside(file, sifted.errors), indexes[number][1], sifted)
            done += 1
            reporter.advanced(done)
            if done == len(wanted):
                break
    finally:
        reporter.finished()
    return dumps


def _look(item: LogStream, ordinal: int, sifted: Sifted, empty: list[Artefact]) -> None:
    with item.open() as source:
        head = _Beginning(source)
        sort = sort_of(head.bytes)
        file = Artefact(sort, item.name, item.path, ordinal, item.modified)
        if (said := sifted.bundles.recorded(item.path)) is not None:
            why = said.problem and Reason(
                said.problem.code, f"whoever read it could not read all of it ({said.problem.code})"
            )
            file = replace(file, modified=said.ended, began=said.began, problem=why)
            if head.error is None:
                sifted.sizes[item.path] = len(head.bytes)  # of one that is read further, all of it then
        if item.path.endswith(ERRORS) or sort is Sort.CONNTRACK_COUNT:
            sifted.errors[item.path] = head.bytes
        elif sort is Sort.EMPTY and head.error is None:
            empty.append(file)
        elif sort in (Sort.OBJECTS_JSON, Sort.OBJECTS_YAML):
            _take_objects(head, file, sifted)
        elif head.error is not None and sort in (Sort.EMPTY, Sort.OTHER):
            sifted.skipped.append(Problem(head.error.code, head.error.message, item.name))
        elif sort is Sort.OTHER:
            sifted.skipped.append(Problem(NOT_EVIDENCE, "no dump of a node, no objects of the cluster", item.name))
        else:
            sifted.files.append(file)


def _take_objects(head: _Beginning, file: Artefact, sifted: Sifted) -> None:
    most = MOST_JSON if file.sort is Sort.OBJECTS_JSON else MOST_YAML
    try:
        content = head.whole(most)
    except DumpError as error:
        sifted.skipped.append(Problem(error.reason.code, error.reason.message, file.name))
        return
    sifted.sizes[file.path] = len(content)
    place = sifted.bundles.place(file.path)
    # What lies in no bundle holds for all: where a bundle says the same, that is one candidate too many.
    objects = sifted.all_objects() if place is None else [sifted.of_bundles[place.moment]]
    try:
        taken = [_add_to(each, content, file) for each in objects]
        if not any(taken) and file.name not in objects[0].all_sources():
            sifted.skipped.append(Problem(NOT_EVIDENCE, "objects of other kinds than are looked for", file.name))
    except NotObjectsError as error:
        sifted.skipped.append(Problem(error.code, str(error), file.name))


def _add_to(objects: Objects, content: bytes, file: Artefact) -> int:
    add = objects.add_json if file.sort is Sort.OBJECTS_JSON else objects.add_yaml
    return add(content, file.name)


def _take_changes(item: LogStream, moment: Moment, sifted: Sifted) -> None:
    """What changed during a capture; where it breaks off, what came before still did."""
    with item.open() as source:
        head = _Beginning(source)
        try:
            content = head.whole(MOST_JSON)
        except DumpError as error:
            sifted.skipped.append(Problem(error.reason.code, error.reason.message, item.name))
            content = head.bytes
        else:
            sifted.sizes[item.path] = len(content)
    sifted.changes[moment] = sifted.changes.get(moment, b"") + content


def _read(item: LogStream, file: Artefact, dumps: Dumps, errors: bytes, index: Index, sifted: Sifted) -> None:
    with item.open() as opened:
        source = _Counted(opened)
        if file.sort is Sort.CONNTRACK:
            dumps.add_table(file, _blocks(source), errors, index)
        elif file.sort in RULES:
            dumps.add_rules(file, _blocks(source, MOST_JSON))
        else:
            head = _Beginning(source)
            try:
                dumps.add_text(file, head.whole(MOST_TEXT))
            except DumpError:
                dumps.add_text(file, head.bytes)  # what it holds can only add to what is found
    if source.over:
        sifted.sizes[item.path] = source.size
    else:
        sifted.sizes.pop(item.path, None)


class _Counted:
    """A source that counts what comes of it, and whether that was all and undamaged."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.size = 0
        self.over = False

    def read(self, size: int, /) -> bytes:
        block = self._source.read(size)
        self.size += len(block)
        self.over = not block and size > 0
        return block


class _Beginning:
    """The first bytes of a source, and all of it if wanted."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.error: Reason | None = None
        parts: list[bytes] = []
        size = 0
        try:
            while size < HEAD and (block := source.read(HEAD - size)):
                parts.append(block)
                size += len(block)
        except SourceError as error:
            self.error = Reason(error.code, str(error))
        self.bytes = b"".join(parts)

    def whole(self, most: int) -> bytes:
        """Everything. Raises DumpError when it breaks off, or is longer than `most`."""
        if self.error is not None:
            raise DumpError(self.error)
        return self.bytes + b"".join(_blocks(self._source, most - len(self.bytes)))


def _blocks(source: ByteSource, most: int | None = None) -> Iterator[bytes]:
    """A source piece by piece; raises DumpError where it breaks off, or grows longer than `most`."""
    size = 0
    try:
        while block := source.read(BLOCK):
            size += len(block)
            if most is not None and size > most:
                raise DumpError(Reason(Code.TOO_LARGE, f"is longer than {most} bytes"))
            yield block
    except SourceError as error:
        raise DumpError(Reason(error.code, str(error))) from error
