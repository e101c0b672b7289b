"""A journal: one JSON object a line, only ever appended to, each line bound to the one before it by its hash.

It is written before and after everything that must not be forgotten, so a record is on the disk (fsync) when `append`
returns, and appending is safe from several processes at once (flock). What the records mean is their writers' business.

A process that dies while it writes leaves a line without an end. Such a *torn* last line was never acknowledged:
readers leave it out, and the next append removes it and says so in its own record (`discarded`, in bytes). Anything
else that does not fit the chain was changed afterwards, and is an error.

A line: `{"number": 3, "time": "2026-11-23T03:02:39.120345Z", "kind": "artefact", …, "previous": "SHA-256 of line 2"}`.
The first line's `previous` is 64 zeros. The hash is that of the line's bytes without its newline.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import msgspec

from kdnsctl.model import KdnsctlError, Reason, RefusedError

FIRST: Final = "0" * 64  # what the first line binds itself to
OWN_KEYS: Final = frozenset({"number", "time", "kind", "previous", "discarded"})
LONGEST: Final = 4 * 1024 * 1024  # bytes of one line; a longer one is no record of ours


class JournalError(KdnsctlError):
    """A journal is not what was written: changed, mixed with another, or not a journal at all."""

    code = "journalBroken"


@dataclass(frozen=True, slots=True)
class Record:
    """One line. `number` counts from 1, `time` is UTC, `digest` is the SHA-256 that the next line refers to.

    `discarded` counts the bytes of a torn line that stood before it.
    """

    number: int
    time: datetime
    kind: str
    body: Mapping[str, Any]
    digest: str
    discarded: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """What is in a journal: the records up to the first that does not fit, why it does not, and a torn line's bytes."""

    records: tuple[Record, ...]
    problem: Reason | None = None
    torn: int = 0

    @property
    def head(self) -> str:
        """The digest of the last record: with it, nothing before can be changed unseen."""
        return self.records[-1].digest if self.records else FIRST


@dataclass(slots=True)
class _Chain:
    """How far a journal was read: the last record's number and digest, and the byte after it."""

    number: int = 0
    head: str = FIRST
    end: int = 0
    torn: int = 0

    def feed(self, file: BinaryIO) -> Iterator[Record]:
        """The records from where `file` stands. Raises JournalError at the first line that does not fit."""
        self.torn = 0
        while line := file.readline(LONGEST + 2):
            if not line.endswith(b"\n"):
                if len(line) > LONGEST:
                    raise JournalError(f"line {self.number + 1} is no record: it is too long")
                self.torn = len(line)
                return
            record = _decoded(line[:-1], self.number + 1, self.head)
            self.accept(record, len(line))
            yield record

    def accept(self, record: Record, size: int) -> None:
        self.number = record.number
        self.head = record.digest
        self.end += size


def read(path: Path) -> Reading:
    """All records of a journal. Raises OSError when it cannot be read; damage is told in `problem`."""
    with path.open("rb") as file:
        return read_from(file)


def read_from(file: BinaryIO) -> Reading:
    """`read`, from where an open file stands."""
    chain = _Chain()
    records: list[Record] = []
    try:
        for record in chain.feed(file):
            records.append(record)  # noqa: PERF402 - what came before an error is kept
    except JournalError as error:
        return Reading(tuple(records), Reason(error.code, str(error)))
    return Reading(tuple(records), None, chain.torn)


def utc_now() -> datetime:
    """The time now, as records carry it."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Journal:
    """A journal that is open for appending, by this process and maybe by others."""

    path: Path
    _descriptor: int
    _now: Callable[[], datetime] = utc_now
    _chain: _Chain = field(default_factory=_Chain)
    _one_thread: threading.Lock = field(default_factory=threading.Lock)  # flock tells processes apart, not threads

    @classmethod
    def open(cls, path: Path, now: Callable[[], datetime] = utc_now) -> Self:
        """Open a journal, or begin one (mode 0600) in a directory that exists.

        Raises RefusedError when it cannot be written, before anything is: without a journal nothing may be changed.
        Raises JournalError when what is there is not a whole journal.
        """
        try:
            # Not through a link: the journal's directory may be one that others can write to.
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise RefusedError(
                f"the journal {path} cannot be written ({_why(error)}); nothing was changed",
                hint="name a writable place, for example with XDG_STATE_HOME",
            ) from error
        journal = cls(path, descriptor, now)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(journal.close)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise RefusedError(f"the journal {path} is not a file; nothing was changed")
            with journal._locked():
                journal._read_on()
            _sync_directory(path.parent)
            on_failure.pop_all()
        return journal

    @property
    def head(self) -> str:
        """The digest of the last record that this process knows of."""
        return self._chain.head

    def append(self, kind: str, body: Mapping[str, Any]) -> Record:
        """Add one record; on the disk when this returns. `body` is JSON, with none of the journal's own keys.

        Raises KdnsctlError when it could not be written: then there is at most a torn line, which counts as nothing.
        Raises JournalError when somebody else made the journal something else meanwhile.
        """
        if taken := OWN_KEYS & body.keys():
            raise ValueError(f"the journal itself writes {', '.join(sorted(taken))}")
        with self._locked():
            self._read_on()
            record, line = self._record(kind, body, self._chain.torn)
            self._remove_torn()
            self._write(line + b"\n")
            self._chain.accept(record, len(line) + 1)
        return record

    def close(self) -> None:
        """Close the file. Appending afterwards is an error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _record(self, kind: str, body: Mapping[str, Any], discarded: int) -> tuple[Record, bytes]:
        time = self._now().astimezone(UTC)
        fields = {
            "number": self._chain.number + 1,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "kind": kind,
            **body,
            **({"discarded": discarded} if discarded else {}),
            "previous": self._chain.head,
        }
        line = msgspec.json.encode(fields)
        if len(line) > LONGEST:
            raise ValueError(f"a record of {len(line)} bytes does not fit into a journal")
        # As a reader will see it, so that writer and readers cannot disagree.
        return _decoded(line, self._chain.number + 1, self._chain.head), line

    def _write(self, line: bytes) -> None:
        try:
            _write_all(self._descriptor, line)
            os.fsync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):  # what is not acknowledged should not be there; else it counts as torn
                os.ftruncate(self._descriptor, self._chain.end)
            raise KdnsctlError(
                f"the journal {self.path} cannot be written ({_why(error)})",
                hint="make room there, then run the same command again: it goes on where it was",
                code="journalUnwritable",
            ) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._one_thread:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _read_on(self) -> None:
        """Take in what others appended."""
        with open(os.dup(self._descriptor), "rb") as file:  # noqa: PTH123 - of a descriptor, not of a path
            file.seek(self._chain.end)
            for _ in self._chain.feed(file):
                pass
        if os.fstat(self._descriptor).st_size < self._chain.end:
            raise JournalError(f"the journal {self.path} became shorter: records were removed from it")

    def _remove_torn(self) -> None:
        if self._chain.torn:
            os.ftruncate(self._descriptor, self._chain.end)


def _decoded(line: bytes, number: int, previous: str) -> Record:
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
        time = datetime.fromisoformat(fields["time"])
        kind = fields["kind"]
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise JournalError(f"line {number} is no record of a journal") from error
    if fields.get("number") != number or time.tzinfo is None or not isinstance(kind, str):
        raise JournalError(f"line {number} is not record {number}: lines were removed, added or moved")
    if fields.get("previous") != previous:
        raise JournalError(f"line {number} does not follow from the line before it: one of them was changed")
    body = {key: value for key, value in fields.items() if key not in OWN_KEYS}
    discarded = fields.get("discarded", 0)
    return Record(number, time.astimezone(UTC), kind, body, hashlib.sha256(line).hexdigest(), discarded)


def _write_all(descriptor: int, line: bytes) -> None:
    """A full disk shows as a short write first, and as an error when the rest is written."""
    while line:
        line = line[os.write(descriptor, line) :]


def _why(error: OSError) -> str:
    return error.strerror or str(error)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
