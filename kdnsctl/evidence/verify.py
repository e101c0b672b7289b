"""Whether a bundle still is what was collected: every file there, unchanged, nothing added, the journal unbroken.

The bundle is read once, from a directory or an archive, and need not be ours: it is input like any other. What its
artefacts mean is not looked at. What cannot be found out from the bundle alone is whether all of it was made anew; for
that the SHA-256 of its SHA256SUMS has to be known from elsewhere, and `sums_digest` tells it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from kdnsctl.changes.journal import Reading, read_from
from kdnsctl.evidence.artefacts import Artefact
from kdnsctl.evidence.bundle import JOURNAL, MANIFEST, RESERVE, SUMS
from kdnsctl.evidence.contents import LIMIT, Allowance, File, files
from kdnsctl.logs.sources.opening import BLOCK, ByteSource, SourceError, decompressed
from kdnsctl.model import KdnsctlError

KEPT: Final = 256 * 1024 * 1024  # bytes of the manifest, the journal or the sums that are read


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something that is not as it was collected. `code` is stable; `path` is "" for the bundle itself."""

    code: str
    message: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found out. `artefacts` are those of the journal; `finished` tells whether the last capture has ended.

    `sums_digest` is the SHA-256 of SHA256SUMS, "" without one.
    """

    flaws: tuple[Flaw, ...]
    artefacts: tuple[Artefact, ...]
    manifest: Mapping[str, Any]
    finished: bool
    sums_digest: str

    @property
    def sound(self) -> bool:
        """Whether everything is as it was collected."""
        return not self.flaws


@dataclass(frozen=True, slots=True)
class _Digest:
    """A file as it is: stored, and decompressed when its name says that it is compressed (None when that failed)."""

    size: int
    sha256: str
    content: tuple[int, str] | None


def verify(location: Path, *, limit: int = LIMIT) -> Verification:
    """Read all of the bundle at `location` and check it. Raises UsageError when there is nothing like a bundle."""
    flaws: list[Flaw] = []
    found: dict[str, _Digest] = {}
    texts: dict[str, bytes] = {}
    allowance = Allowance(limit)
    try:
        for file in files(location, allowance):
            flaw = _take(file, found, texts, allowance)
            if flaw:
                flaws.append(flaw)
    except SourceError as error:
        flaws.append(Flaw(error.code, str(error)))
    journal = read_from(io.BytesIO(texts.get(JOURNAL, b"")))
    manifest = _manifest(texts.get(MANIFEST))
    artefacts = tuple(_recorded(journal, flaws))
    flaws += _missing(found)
    if journal.problem:
        flaws.append(Flaw(journal.problem.code, journal.problem.message, JOURNAL))
    flaws += _against_records(found, artefacts)
    flaws += _against_sums(found, texts.get(SUMS, b""))
    if manifest and manifest.get("journalHead") != journal.head:
        flaws.append(Flaw("manifestMismatch", "it was not written for this journal", MANIFEST))
    if manifest and manifest.get("artefacts") != [artefact.to_json() for artefact in artefacts]:
        flaws.append(Flaw("manifestMismatch", "its artefacts are not those of the journal", MANIFEST))
    sums = texts.get(SUMS)
    return Verification(
        tuple(flaws),
        artefacts,
        manifest,
        bool(journal.records) and journal.records[-1].kind == "finished",
        hashlib.sha256(sums).hexdigest() if sums is not None else "",
    )


def _take(file: File, found: dict[str, _Digest], texts: dict[str, bytes], allowance: Allowance) -> Flaw | None:
    if file.refused:
        return Flaw("unsafeMember", f"it was not read: {file.refused}", file.path)
    if file.path in found:
        return Flaw("twice", "there are two of that name", file.path)
    digest, kept = _digest(file, allowance)
    if file.path in (JOURNAL, MANIFEST, SUMS):
        if kept is None:
            return Flaw("tooLarge", "it is larger than any that is meant well", file.path)
        texts[file.path] = kept
    found[file.path] = digest
    return None


def _digest(file: File, allowance: Allowance) -> tuple[_Digest, bytes | None]:
    """Hash a file, and what is packed in it, in one pass; of the bundle's own files the bytes too."""
    tee = _Tee(file.content, keep=file.path in (JOURNAL, MANIFEST, SUMS))
    content = _content(decompressed(tee), allowance) if file.path.endswith(".gz") else None
    while tee.read(BLOCK):  # what follows the end of the packed content is a part of the file as well
        pass
    return _Digest(tee.size, tee.hash.hexdigest(), content), tee.kept


def _content(source: ByteSource, allowance: Allowance) -> tuple[int, str] | None:
    size, digest = 0, hashlib.sha256()
    try:
        while block := source.read(BLOCK):
            allowance.take(len(block))
            size += len(block)
            digest.update(block)
    except SourceError as error:
        if error.code == "tooLarge":
            raise
        return None
    return size, digest.hexdigest()


class _Tee:
    """A source that hashes what passes through it."""

    def __init__(self, source: ByteSource, *, keep: bool) -> None:
        self._source = source
        self.size = 0
        self.hash = hashlib.sha256()
        self.kept: bytes | None = b"" if keep else None
        self._pieces = io.BytesIO()

    def read(self, size: int, /) -> bytes:
        block = self._source.read(size)
        self.size += len(block)
        self.hash.update(block)
        if self.kept is not None:
            if self.size > KEPT:
                self.kept = None
            elif block:
                self._pieces.write(block)
            else:
                self.kept = self._pieces.getvalue()
        return block


def _manifest(content: bytes | None) -> Mapping[str, Any]:
    if content is None:
        return {}
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {"broken": True}


def _recorded(journal: Reading, flaws: list[Flaw]) -> Iterable[Artefact]:
    for record in journal.records:
        if record.kind == "artefact":
            try:
                yield Artefact.from_json(record.body)
            except KdnsctlError as error:
                flaws.append(Flaw("badRecord", f"record {record.number}: {error}", JOURNAL))


def _missing(found: Mapping[str, _Digest]) -> Iterable[Flaw]:
    for path in (JOURNAL, MANIFEST, SUMS):
        if path not in found:
            yield Flaw("missing", "it is not there", path)


def _against_records(found: Mapping[str, _Digest], artefacts: Iterable[Artefact]) -> Iterable[Flaw]:
    accounted = {JOURNAL, MANIFEST, SUMS, RESERVE}
    for artefact in artefacts:
        accounted |= {artefact.path, artefact.errors}
        is_there = found.get(artefact.path)
        if is_there is None:
            yield Flaw("missing", "it was collected and is not there", artefact.path)
        elif (is_there.size, is_there.sha256) != (artefact.stored_size, artefact.stored_sha256):
            yield Flaw("changed", _difference(is_there, artefact), artefact.path)
        elif artefact.complete and (is_there.content or (is_there.size, is_there.sha256)) != (
            artefact.size,
            artefact.sha256,
        ):
            yield Flaw("changed", "what is packed in it is not what was read", artefact.path)
        if artefact.errors and artefact.errors not in found:
            yield Flaw("missing", "it was collected and is not there", artefact.errors)
    for path in found:
        if path not in accounted:
            yield Flaw("added", "no record says where it came from", path)


def _difference(is_there: _Digest, artefact: Artefact) -> str:
    if is_there.size != artefact.stored_size:
        return f"it has {is_there.size} bytes; {artefact.stored_size} were collected"
    return "its content is not what was collected"


def _against_sums(found: Mapping[str, _Digest], sums: bytes) -> Iterable[Flaw]:
    listed: set[str] = set()
    for line in sums.decode("utf-8", "surrogateescape").splitlines():
        digest, _, path = line.partition("  ")
        listed.add(path)
        if path in found and found[path].sha256 != digest:
            yield Flaw("sumMismatch", "it is not what SHA256SUMS says", path)
        elif path not in found:
            yield Flaw("missing", "SHA256SUMS lists it and it is not there", path)
    if sums:
        for path in found:
            if path not in listed and path not in (SUMS, RESERVE):
                yield Flaw("added", "SHA256SUMS does not list it", path)
