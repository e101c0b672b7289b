"""A bundle made anew without what says whose it is: same verdict, same findings, other names and addresses.

The bundle is verified, then read twice: for the names, and to be written with pseudonyms for them. The new one is a
whole bundle with a journal, manifest and sums of its own; its journal quotes the hashes of the old one, so that whoever
has both can show that they belong together. What no file says how to redact is left out, and accounted for. The key of
the pseudonyms is never written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from kdnsctl import __version__
from kdnsctl.changes.journal import Journal, Record, read_from, utc_now
from kdnsctl.evidence import known
from kdnsctl.evidence.artefactfile import CUT, ERRORS, ArtefactFile, Source, new_file
from kdnsctl.evidence.artefacts import CLUSTER, Artefact, safe_name, unsafe_name
from kdnsctl.evidence.bundle import JOURNAL, seal
from kdnsctl.evidence.contents import Allowance, File, files
from kdnsctl.evidence.packing import compression_of, pack
from kdnsctl.evidence.pseudonyms import Pseudonyms
from kdnsctl.evidence.redactfiles import handler_of, is_withheld
from kdnsctl.evidence.renaming import Renaming
from kdnsctl.evidence.verify import Verification, verify
from kdnsctl.logs.sources.opening import BLOCK, ByteSource, SourceError, decompressed
from kdnsctl.model import Reason, RefusedError, Reporter, UsageError

LEFT_OUT: Final = Reason("leftOut", "nothing is known of how to redact it")
WITHHELD: Final = Reason("withheld", "it is never part of a redacted bundle")
UNREADABLE: Final = Reason("leftOut", "it cannot be read as what it should be")
MOST_ERRORS: Final = 1 << 20  # bytes of what one command said on standard error


@dataclass(frozen=True, slots=True)
class Redaction:
    """What was made: how many artefacts, which were left out (by their paths before), and the new sums' SHA-256.

    `place` is the copy, a directory or an archive. `withheld` are those that never are in a redacted bundle, `left_out`
    those of which nothing is known.
    """

    place: Path
    artefacts: int
    left_out: tuple[str, ...]
    withheld: tuple[str, ...]
    sums_digest: str


class BrokenBundleError(RefusedError):
    """The bundle is not what was collected: what it says would get a new seal."""

    code = "bundleBroken"


def redact(location: Path, directory: Path, key: bytes, *, reporter: Reporter) -> Redaction:
    """Write the bundle at `location` (a directory or an archive), redacted, to `directory`, which is made.

    Raises UsageError when there is no bundle, or something is in `directory`; BrokenBundleError when the bundle is
    not sound or was not finished; BundleWriteError when the new one cannot be written. Whatever ends it early,
    what was written by then is taken away again.
    """
    if location.is_dir() and not (location / JOURNAL).is_file():
        raise UsageError(f"there is no bundle in {location}; nothing was written")
    found = verify(location)
    if not found.sound or not found.finished:
        why = found.flaws[0].message if found.flaws else "its last capture has not ended"
        raise BrokenBundleError(
            f"{location} is not as it was collected, or not finished ({why}); nothing was written",
            hint="look at `kdnsctl bundle verify`; where collecting was interrupted, finish it with collect --resume",
        )
    _must_be_beside(location, directory)
    new = not directory.exists()
    _make(directory)
    try:
        return _redacted(location, directory, key, found, reporter)
    except BaseException:  # half of a bundle is of no use, and in the way of the next attempt
        _unmake(directory, whole=new)
        raise


def redact_to_archive(location: Path, archive: Path, key: bytes, *, reporter: Reporter) -> Redaction:
    """The same into an archive, which is made: its ending (.tar.zst, .tar.gz) tells how it is compressed.

    Raises what `redact` and `pack` raise, and UsageError when the archive is there or its name has no such ending; then
    nothing is left of it. Meanwhile the copy is in a directory beside it.
    """
    compression = compression_of(archive)
    _must_be_beside(location, archive)
    if os.path.lexists(archive):
        raise UsageError(f"{archive} is there already; nothing was written", hint="name another file")
    try:
        within = Path(tempfile.mkdtemp(prefix=f".{archive.name}-", dir=archive.parent))
    except OSError as error:
        raise RefusedError(f"nothing can be written beside {archive}: {error.strerror}; nothing was written") from error
    try:
        made = redact(location, within / archive.name.partition(".tar")[0], key, reporter=reporter)
        pack(made.place, archive, compression)
    finally:
        shutil.rmtree(within, ignore_errors=True)
    return dataclasses.replace(made, place=archive)


def _redacted(location: Path, directory: Path, key: bytes, found: Verification, reporter: Reporter) -> Redaction:
    journal = journal_of(location)
    renaming, texts = learned(location, journal, key, reporter=reporter)
    made = _Made(directory, renaming, {one.path: one for one in found.artefacts}, texts)
    reporter.started("redacting", len(found.artefacts))
    try:
        for file in files(location, Allowance()):
            if made.take(file):
                reporter.advanced(len(made.artefacts))
    finally:
        reporter.finished()
    digest = _write_journal(directory, journal, made, found.sums_digest)
    return Redaction(
        directory,
        len(made.artefacts),
        tuple(path for path, why in made.left_out.items() if why is LEFT_OUT),
        tuple(path for path, why in made.left_out.items() if why is WITHHELD),
        digest,
    )


def learned(
    location: Path, journal: Iterable[Record], key: bytes, *, reporter: Reporter
) -> tuple[Renaming, dict[str, bytes]]:
    """All names of a bundle and their pseudonyms, and what commands said on standard error, by the path of the file."""
    renaming = Renaming(Pseudonyms(key))
    _learn_records(journal, renaming)
    texts: dict[str, bytes] = {}
    reporter.started("learning names", None)
    try:
        for number, file in enumerate(files(location, Allowance())):
            reporter.advanced(number)
            _learn(file, renaming, texts)
    finally:
        reporter.finished()
    renaming.settle()
    return renaming, texts


class _Made:
    """The files of the new bundle, by the paths of those that they were made of."""

    def __init__(
        self, directory: Path, renaming: Renaming, records: Mapping[str, Artefact], texts: Mapping[str, bytes]
    ) -> None:
        self._directory = directory
        self._records = records
        self._texts = texts
        self.renaming = renaming
        self.artefacts: dict[str, Artefact] = {}
        self.left_out: dict[str, Reason] = {}

    def take(self, file: File) -> bool:
        """Make the new file of an old one; False for what is no artefact."""
        record = self._records.get(file.path)
        if record is None:
            return False
        handler = handler_of(file.path)
        if handler is None:
            self.left_out[file.path] = WITHHELD if is_withheld(file.path) else LEFT_OUT
            return True
        name = file.path.rpartition("/")[2].removesuffix(CUT)
        packed = name.endswith(".gz")
        cut = CUT if file.path.endswith(CUT) else ""
        node = self.renaming.name("node", record.node) if record.node else CLUSTER
        place = "cluster" if node == CLUSTER else f"nodes/{safe_name(node)}"
        new = new_file(
            self._directory,
            f"{place}/{record.capture:02d}",
            name.removesuffix(".gz") + cut,
            compress=packed and not cut,
        )
        times = iter((record.started, record.ended))
        written: list[Artefact] = []
        source = Source(known.rung(record.via), known.command(record.command))
        item = known.item(record.item)
        one = ArtefactFile(node, item, record.capture, source, new, lambda: next(times), written.append)
        problem = record.problem and Reason(known.code(record.problem.code), known.code(record.problem.code))
        try:
            for piece in handler[0](_pieces(_plain(file)), self.renaming):
                one.write(piece)
        except (msgspec.MsgspecError, SourceError, UnicodeDecodeError):
            # Half a list, or half a packed file: what came before it is kept, and it was called incomplete before.
            problem = problem or UNREADABLE
        errors = self._errors(record)
        one.close(exit_code=record.exit_code, errors=errors, proof=known.proof(record.proof), problem=problem)
        moment = record.ended.timestamp()
        with contextlib.suppress(OSError, OverflowError):  # no file system has any year
            os.utime(self._directory / new.path, (moment, moment))
        self.artefacts[file.path] = written[0]
        return True

    def _errors(self, record: Artefact) -> bytes:
        said = self._texts.get(record.errors, b"")
        handler = handler_of(record.errors) if said else None
        return b"".join(handler[0]([said], self.renaming)) if handler else b""


def _must_be_beside(location: Path, place: Path) -> None:
    """Raises UsageError for a copy inside the bundle that it is of, which would not be what was collected any more."""
    if location.is_dir() and place.resolve().is_relative_to(location.resolve()):
        raise UsageError(f"{place} lies inside the bundle that it is of; nothing was written", hint="name another")


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise UsageError(f"{directory} is not empty; nothing was written", hint="name another directory")
        directory.chmod(0o700)
    except OSError as error:
        raise RefusedError(f"nothing can be written to {directory}: {error.strerror}; nothing was written") from error


def _unmake(directory: Path, *, whole: bool) -> None:
    """Take away what is in a directory that was empty before, and with `whole` the directory."""
    for one in directory.iterdir():
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one, ignore_errors=True)
        else:
            one.unlink(missing_ok=True)
    if whole:
        with contextlib.suppress(OSError):
            directory.rmdir()


def _plain(file: File) -> ByteSource:
    return decompressed(file.content) if ".gz" in file.path.rpartition("/")[2] else file.content


def _pieces(source: ByteSource) -> Iterator[bytes]:
    while block := source.read(BLOCK):
        yield block


def _learn(file: File, renaming: Renaming, texts: dict[str, bytes]) -> None:
    handler = handler_of(file.path)
    if handler is None:
        return
    if file.path.endswith(ERRORS):
        texts[file.path] = b"".join(_pieces(file.content))[:MOST_ERRORS]
        handler[1]([texts[file.path]], renaming)
        return
    with contextlib.suppress(msgspec.MsgspecError, SourceError, UnicodeDecodeError):  # told when it is written
        handler[1](_pieces(_plain(file)), renaming)


# --- the journal


def journal_of(location: Path) -> tuple[Record, ...]:
    """What the journal of a bundle says. Raises UsageError when there is none."""
    for file in files(location, Allowance()):
        if file.path == JOURNAL:
            return read_from(io.BytesIO(b"".join(_pieces(file.content)))).records
    raise UsageError(f"there is no bundle {location}")


def _learn_records(records: Iterable[Record], renaming: Renaming) -> None:
    for record in records:
        nodes = record.body.get("nodes")
        for node in (*(nodes if isinstance(nodes, (list, dict)) else ()), record.body.get("node")):
            if isinstance(node, str):
                renaming.learn("node", node)
        path = record.body.get("path")
        if isinstance(path, str) and path.startswith("nodes/"):
            renaming.learn("node", unsafe_name(path.split("/")[1]))


def _write_journal(directory: Path, records: Sequence[Record], made: _Made, sums: str) -> str:
    """The old journal's records, at their times, behind one that says what they were made of."""
    times = [utc_now()]
    with Journal.open(directory / JOURNAL, lambda: times[0]) as journal:
        head = records[-1].digest if records else ""
        about = {"kdnsctl": __version__, "sumsSha256": sums, "journalHead": head, "leftOut": len(made.left_out)}
        journal.append("redacted", about)
        artefacts: list[Artefact] = []
        for record in records:
            times[0] = record.time
            for kind, body in _renamed(record, made):
                said = journal.append(kind, body)
                if kind == "artefact":
                    artefacts.append(Artefact.from_json(said.body))
    return seal(directory, artefacts)


def _renamed(record: Record, made: _Made) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a record becomes: by a list of the kinds, and of what is kept of each. Others are left out."""
    said, renaming = record.body, made.renaming
    number = said.get("capture")
    capture = {"capture": number if isinstance(number, int) else 0}

    def node(name: object) -> str:
        return renaming.name("node", str(name)) if name else CLUSTER

    match record.kind:
        case "begun" | "resumed" | "finished":
            told = {"kdnsctl": known.release(said.get("kdnsctl")), "via": known.via(said.get("via"))}
            body: dict[str, Any] = {key: word for key, word in told.items() if word}
            if isinstance(said.get("items"), list):
                body["items"] = known.items(said["items"])
            nodes = said.get("nodes")
            if isinstance(nodes, dict):
                body["nodes"] = {node(name): known.status(status) for name, status in nodes.items()}
            elif isinstance(nodes, list):
                body["nodes"] = [node(name) for name in nodes]
            if isinstance(said.get("kept"), dict):
                body["kept"] = {node(name): one for name, one in said["kept"].items() if isinstance(one, int)}
            yield record.kind, {**capture, **body}
        case "node":
            items = known.items(said.get("items"))
            missing = [_missing(one) for one in known.listed(said.get("missing")) if isinstance(one, dict)]
            told = {"status": known.status(said.get("status")), "via": known.rungs(said.get("via"))}
            whole = said.get("whole")
            about = {"node": node(said.get("node")), "whole": whole if isinstance(whole, int) else 0}
            yield "node", {**capture, **about, **told, "missing": missing, "items": items}
        case "missing":
            yield "missing", {**capture, **_item(said, node), "problem": _problem(said.get("problem"))}
        case "artefact":
            path = str(said.get("path"))
            if path in made.artefacts:
                yield "artefact", {**capture, **made.artefacts[path].to_json()}
            elif path in made.left_out:
                why = made.left_out[path]
                yield "missing", {**capture, **_item(said, node), "problem": {"code": why.code, "message": why.message}}
        case _:
            pass


def _item(said: Mapping[str, Any], node: Callable[[object], str]) -> dict[str, str]:
    return {"node": node(said.get("node")), "item": known.item(said.get("item"))}


def _missing(said: Mapping[str, Any]) -> dict[str, str]:
    return {"item": known.item(said.get("item")), **_problem(said)}


def _problem(said: object) -> dict[str, str]:
    """Why something is missing, by the code alone: the words may name anything."""
    code = known.code(said.get("code") if isinstance(said, dict) else None)
    return {"code": code, "message": code}
