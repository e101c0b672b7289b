"""A bundle that is being written: a directory that only grows, and that a crash at any moment leaves readable.

    manifest.json     what is in the bundle and how it came about; written anew at the end of every capture
    journal.jsonl     each thing that was done, as it was done (see `changes.journal`)
    SHA256SUMS        of every file but itself; `sha256sum -c SHA256SUMS` checks it
    cluster/01/…      the cluster's side, one directory for each capture
    nodes/NODE/01/…   a node's side, likewise

An artefact is written under a name of its own that ends in `.part`, and gets its name when it is closed; only then is
it in the journal. What a crash leaves behind is kept, renamed to `.cut` and recorded as incomplete, when the bundle is
opened again. Files are 0600, directories 0700.

Where the disk fills up, a reserve that was set aside beforehand is given up, so that the journal, manifest and sums can
still be written: the evidence that was had by then stays usable.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from kdnsctl.changes.journal import Journal, Record, read, utc_now
from kdnsctl.evidence.artefactfile import CUT, PART, ArtefactFile, Room, Source, new_file, write_error
from kdnsctl.evidence.artefacts import CLUSTER, Artefact, safe_name, unsafe_name
from kdnsctl.model import API_VERSION, KdnsctlError, Reason, RefusedError, UsageError

MANIFEST: Final = "manifest.json"
JOURNAL: Final = "journal.jsonl"
SUMS: Final = "SHA256SUMS"
RESERVE: Final = ".reserve"
RESERVE_SIZE: Final = 512 * 1024  # bytes; manifest, journal and sums of a thousand artefacts take less


@dataclass(slots=True)
class Bundle:
    """A bundle that this process, and no other, writes into. Safe to use from several threads at once."""

    directory: Path
    capture: int
    _journal: Journal
    _lock: int
    _now: Callable[[], datetime]
    _artefacts: list[Artefact] = field(default_factory=list)
    _one_thread: threading.Lock = field(default_factory=threading.Lock)
    _room: Room = field(default_factory=Room)  # closed: nothing but journal, manifest and sums may be written any more

    @classmethod
    def create(cls, directory: Path, about: Mapping[str, Any], now: Callable[[], datetime] | None = None) -> Self:
        """Begin a bundle in a directory that does not exist yet, or is empty.

        `about` is who collects what and where, for the manifest; plain data. Raises RefusedError when the directory
        cannot be used, UsageError when there is something in it.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            if any(directory.iterdir()):
                raise UsageError(
                    f"{directory} is not empty; nothing was collected",
                    hint="go on with the bundle in it (--resume), or name another directory",
                )
        except OSError as error:
            raise RefusedError(
                f"no bundle can be written to {directory}: {error.strerror}; nothing was collected"
            ) from error
        return cls._open(directory, 1, "begun", about, now or utc_now)

    @classmethod
    def resume(
        cls, directory: Path, about: Mapping[str, Any], *, again: bool, now: Callable[[], datetime] | None = None
    ) -> Self:
        """Go on with a bundle: with its last capture where that ended early or, with `again`, with a new one.

        What was left half written is kept as incomplete artefacts. Raises UsageError when there is no bundle,
        JournalError when its journal was changed, RefusedError when somebody else is writing into it.
        """
        captures = [record.body.get("capture", 0) for record in cls.records(directory)]
        last = max((capture for capture in captures if isinstance(capture, int)), default=0)
        return cls._open(directory, last + 1 if again else max(last, 1), "resumed", about, now or utc_now)

    @staticmethod
    def records(directory: Path) -> tuple[Record, ...]:
        """What the journal of the bundle in a directory says. Raises UsageError when there is none."""
        if not (directory / JOURNAL).is_file():
            raise UsageError(f"there is no bundle in {directory}; nothing was collected")
        return read(directory / JOURNAL).records

    @classmethod
    def _open(
        cls, directory: Path, capture: int, kind: str, about: Mapping[str, Any], now: Callable[[], datetime]
    ) -> Self:
        lock = _locked(directory)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(os.close, lock)
            journal = Journal.open(directory / JOURNAL, now)
            on_failure.callback(journal.close)
            bundle = cls(directory, capture, journal, lock, now)
            bundle._artefacts.extend(_artefacts(read(directory / JOURNAL).records))
            bundle._set_reserve_aside()
            bundle.record(kind, dict(about))
            bundle.account_for_leftovers()
            on_failure.pop_all()
        return bundle

    @property
    def artefacts(self) -> tuple[Artefact, ...]:
        """All that the bundle has, of all captures, in the order in which they were finished."""
        with self._one_thread:
            return tuple(self._artefacts)

    def has(self, node: str, item: str) -> bool:
        """Whether this capture holds the item whole, so that it need not be read again."""
        return any(
            one.complete and (one.node, one.item, one.capture) == (node, item, self.capture) for one in self.artefacts
        )

    def record(self, kind: str, body: Mapping[str, Any]) -> Record:
        """Write into the journal; `capture` is added. Raises KdnsctlError when there is no room even for it."""
        said = {"capture": self.capture, **body}
        try:
            return self._journal.append(kind, said)
        except KdnsctlError:
            if not self._give_up_reserve():
                raise
            return self._journal.append(kind, said)

    def begin(self, node: str, item: str, name: str, source: Source, *, compress: bool = False) -> ArtefactFile:
        """Begin an artefact of `node` (CLUSTER: of none) called `name`; write to what is returned, then close it.

        Names that were used before, by an attempt that was cut, get a number. Raises BundleWriteError without room.
        """
        place = "cluster" if node == CLUSTER else f"nodes/{safe_name(node)}"
        file = new_file(self.directory, f"{place}/{self.capture:02d}", safe_name(name), compress=compress)
        return ArtefactFile(node, item, self.capture, source, file, self._now, self.add, self._room)

    def add(self, artefact: Artefact) -> None:
        """Record an artefact that is finished."""
        self.record("artefact", artefact.to_json())
        with self._one_thread:
            self._artefacts.append(artefact)

    def finish(self, summary: Mapping[str, Any]) -> str:
        """Write manifest and sums. Returns the SHA-256 of SHA256SUMS: who keeps it can prove the bundle later.

        `summary` is what came of this capture, for the manifest; plain data.
        """
        self._give_up_reserve()
        self.record("finished", dict(summary))
        return seal(self.directory, self.artefacts)

    def close(self) -> None:
        """Let go of the bundle. Without `finish` it has no current manifest, and `resume` goes on with it."""
        self._give_up_reserve()
        self._journal.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def account_for_leftovers(self) -> None:
        """Files that nobody finishes: half written, or whole and not yet in the journal. They are kept, as incomplete.

        To be called when nothing is being written any more that counts: a crash, or work that hangs, left them.
        """
        known = {path for one in self._artefacts for path in (one.path, one.errors)}
        for path in sorted(_files(self.directory)):
            if not path.startswith(("cluster/", "nodes/")) or path in known:
                continue
            kept = path.removesuffix(PART) + CUT
            (self.directory / path).rename(self.directory / kept)
            self.add(_left_behind(self.directory, kept))

    def _set_reserve_aside(self) -> None:
        """As much as there is, up to RESERVE_SIZE: that a disk is nearly full already, the first write will tell."""
        descriptor = os.open(self.directory / RESERVE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with contextlib.suppress(OSError):
                os.posix_fallocate(descriptor, 0, RESERVE_SIZE)
        finally:
            os.close(descriptor)

    def _give_up_reserve(self) -> bool:
        self._room.close()
        try:
            (self.directory / RESERVE).unlink()
        except OSError:
            return False
        return True


def seal(directory: Path, artefacts: Sequence[Artefact]) -> str:
    """Write manifest and sums of a bundle whose journal is complete. Returns the SHA-256 of SHA256SUMS.

    Raises BundleWriteError.
    """
    journal = read(directory / JOURNAL)
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "Bundle",
        "captures": _captures(journal.records),
        "artefacts": [artefact.to_json() for artefact in artefacts],
        "journalHead": journal.head,
    }
    _replace(directory / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    sums = b"".join(f"{digest}  {path}\n".encode() for path, digest in _digests(directory, artefacts))
    _replace(directory / SUMS, sums)
    return hashlib.sha256(sums).hexdigest()


def sealed(directory: Path) -> str:
    """The SHA-256 of SHA256SUMS of a bundle that is finished: nothing was recorded since. "" for any other."""
    try:
        journal = read(directory / JOURNAL)
        manifest = (directory / MANIFEST).read_bytes()
        sums = (directory / SUMS).read_bytes()
        head = msgspec.json.decode(manifest, type=dict[str, Any]).get("journalHead")
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    line = f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()
    finished = journal.problem is None and not journal.torn and head == journal.head and line in sums
    return hashlib.sha256(sums).hexdigest() if finished else ""


def _captures(records: Iterable[Record]) -> list[dict[str, Any]]:
    """What the journal says of every capture: how it began, was resumed, ended."""
    captures: dict[int, dict[str, Any]] = {}
    for record in records:
        number = record.body.get("capture")
        if record.kind in ("begun", "resumed", "finished") and isinstance(number, int):
            said = {key: value for key, value in record.body.items() if key != "capture"}
            events = captures.setdefault(number, {"capture": number, "events": []})["events"]
            events.append({"what": record.kind, "time": record.time.isoformat(), **said})
    return [captures[number] for number in sorted(captures)]


def _digests(directory: Path, artefacts: Iterable[Artefact]) -> Iterable[tuple[str, str]]:
    """Every file and its hash. Of artefacts it is the one from when they were written: later changes must show."""
    known = {one.path: one.stored_sha256 for one in artefacts}
    for path in sorted(_files(directory)):
        if path not in (SUMS, RESERVE):
            yield path, known.get(path) or _sha256(directory / path)


def _replace(place: Path, content: bytes) -> None:
    new = place.with_name(f"{place.name}.new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor, not of a path
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(place)
    except OSError as error:
        raise write_error(place.name, error) from error


def _locked(directory: Path) -> int:
    """The directory itself is the lock: it is there before anything in it, and a crash leaves nothing to remove."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise RefusedError(f"somebody else is writing into the bundle {directory}; nothing was collected") from error
    return descriptor


def _artefacts(records: Iterable[Record]) -> Iterable[Artefact]:
    return (Artefact.from_json(record.body) for record in records if record.kind == "artefact")


def _left_behind(directory: Path, path: str) -> Artefact:
    """What is known of a file that was being written when its process ended."""
    parts = path.split("/")
    file = directory / path
    about = file.stat()
    digest = _sha256(file)
    moment = datetime.fromtimestamp(about.st_mtime, UTC)
    return Artefact(
        node=CLUSTER if parts[0] == "cluster" else unsafe_name(parts[1]),
        item="",
        capture=int(parts[-2]),
        path=path,
        size=about.st_size,
        sha256=digest,
        stored_size=about.st_size,
        stored_sha256=digest,
        started=moment,
        ended=moment,
        via="",
        problem=Reason("interrupted", "the process that wrote it ended before it was finished"),
    )


def _files(directory: Path) -> Iterable[str]:
    """Paths of all that is in a bundle and is not a directory, links included and not followed."""
    for folder, _, names in os.walk(directory):
        yield from ((Path(folder) / name).relative_to(directory).as_posix() for name in names)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
