"""A bundle made anew without what says whose it is: same verdict, same findings, other names and addresses.

The bundle is verified, then read twice: for the names, and to be written with pseudonyms for them. The new one is a
whole bundle with a journal, manifest and sums of its own; its journal quotes the hashes of the old one, so that whoever
has both can show that they belong together. What no file says how to redact is left out, and accounted for. The key of
the pseudonyms is never written.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from kdnsctl import __version__
from kdnsctl.changes.journal import Journal, Record, read_from, utc_now
from kdnsctl.evidence.artefactfile import CUT, ERRORS, ArtefactFile, Source, new_file
from kdnsctl.evidence.artefacts import CLUSTER, Artefact, safe_name, unsafe_name
from kdnsctl.evidence.bundle import JOURNAL, seal
from kdnsctl.evidence.contents import Allowance, File, files
from kdnsctl.evidence.pseudonyms import Pseudonyms
from kdnsctl.evidence.redactfiles import handler_of, is_withheld
from kdnsctl.evidence.renaming import Renaming
from kdnsctl.evidence.verify import verify
from kdnsctl.logs.sources.opening import BLOCK, ByteSource, SourceError, decompressed
from kdnsctl.model import Reason, RefusedError, Reporter, UsageError

LEFT_OUT: Final = Reason("leftOut", "nothing is known of how to redact it")
WITHHELD: Final = Reason("withheld", "it is never part of a redacted bundle")
UNREADABLE: Final = Reason("leftOut", "it cannot be read as what it should be")
MOST_ERRORS: Final = 1 << 20  # bytes of what one command said on standard error


@dataclass(frozen=True, slots=True)
class Redaction:
    """What was made: how many artefacts, which were left out (by their paths before), and the new sums' SHA-256.

    `withheld` are those that never are in a redacted bundle, `left_out` those of which nothing is known.
    """

    directory: Path
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
    not sound or was not finished; BundleWriteError when the new one cannot be written: then some of it may be there.
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
    _make(directory)
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
        source = Source(_word(record.via), command_of(record.command))
        one = ArtefactFile(node, _word(record.item), record.capture, source, new, lambda: next(times), written.append)
        problem = record.problem and Reason(_word(record.problem.code) or "other", _word(record.problem.code))
        try:
            for piece in handler[0](_pieces(_plain(file)), self.renaming):
                one.write(piece)
        except (msgspec.MsgspecError, SourceError, UnicodeDecodeError):
            # Half a list, or half a packed file: what came before it is kept, and it was called incomplete before.
            problem = problem or UNREADABLE
        errors = self._errors(record)
        one.close(exit_code=record.exit_code, errors=errors, proof=_word(record.proof), problem=problem)
        moment = record.ended.timestamp()
        os.utime(self._directory / new.path, (moment, moment))
        self.artefacts[file.path] = written[0]
        return True

    def _errors(self, record: Artefact) -> bytes:
        said = self._texts.get(record.errors, b"")
        handler = handler_of(record.errors) if said else None
        return b"".join(handler[0]([said], self.renaming)) if handler else b""


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise UsageError(f"{directory} is not empty; nothing was written", hint="name another directory")
        directory.chmod(0o700)
    except OSError as error:
        raise RefusedError(f"nothing can be written to {directory}: {error.strerror}; nothing was written") from error


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
    capture = {"capture": said.get("capture", 0)}

    def node(name: object) -> str:
        return renaming.name("node", str(name)) if name else CLUSTER

    match record.kind:
        case "begun" | "resumed" | "finished":
            body: dict[str, Any] = {key: _word(said[key]) for key in ("kdnsctl", "via") if key in said}
            if isinstance(said.get("items"), list):
                body["items"] = [_word(item) for item in said["items"]]
            nodes = said.get("nodes")
            if isinstance(nodes, dict):
                body["nodes"] = {node(name): _word(status) for name, status in nodes.items()}
            elif isinstance(nodes, list):
                body["nodes"] = [node(name) for name in nodes]
            if isinstance(said.get("kept"), dict):
                body["kept"] = {node(name): one for name, one in said["kept"].items() if isinstance(one, int)}
            yield record.kind, {**capture, **body}
        case "node":
            items = [_word(item) for item in said.get("items", ())]
            missing = [{"item": _word(one["item"]), **_problem(one)} for one in said.get("missing", ())]
            rungs = str(said.get("via", "")).replace(", ", ",")
            told = {"status": _word(said.get("status", "")), "via": _word(rungs)}
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
    return {"node": node(said.get("node")), "item": _word(said.get("item", ""))}


def _problem(said: object) -> dict[str, str]:
    """Why something is missing, by the code alone: the words may name anything."""
    code = _word(said.get("code", "")) if isinstance(said, dict) else ""
    return {"code": code, "message": code}


def _word(said: object) -> str:
    """A word of ours; what may be anything is none."""
    return said if isinstance(said, str) and _OURS.fullmatch(said) else ""


_OURS: Final = re.compile(r"[A-Za-z0-9][\w.,+-]{0,63}")


def command_of(words: Sequence[str]) -> tuple[str, ...]:
    """A command, as far as it is the same on every node: not whose pod it was asked of."""
    return tuple(words[:1] if words[:1] == ("logs",) else words)
