"""An artefact that is being written: hashed as it passes, never held, and never there under its name half done.

It is written as `NAME.part` and renamed when it is closed. What its content means, and where bundles keep it, is not
known here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from kdnsctl.evidence.artefacts import Artefact
from kdnsctl.model import KdnsctlError, Reason

PART: Final = ".part"
CUT: Final = ".cut"  # what a crash left of a .part
ERRORS: Final = ".err"

_MOST_ATTEMPTS: Final = 1000


class BundleWriteError(KdnsctlError):
    """Something could not be written into a bundle: no room (`bundleFull`), or another reason (`bundleUnwritable`)."""

    code = "bundleUnwritable"


@dataclass(frozen=True, slots=True)
class Source:
    """How an artefact is read: by which way, with which command."""

    via: str
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that was just made. `path` is its name to be, in the bundle; `place` the same on the disk."""

    path: str
    place: Path
    descriptor: int
    compress: bool


def new_file(bundle: Path, folder: str, name: str, *, compress: bool) -> NewFile:
    """A file of that name in a folder of the bundle, which is made; of another name when an earlier attempt has it.

    Raises BundleWriteError.
    """
    stem, dot, ending = (name + (".gz" if compress else "")).partition(".")
    try:
        _make_folders(bundle, folder)
        for number in range(1, _MOST_ATTEMPTS):
            path = f"{folder}/{stem}{dot}{ending}" if number == 1 else f"{folder}/{stem}-{number}{dot}{ending}"
            if os.path.lexists(bundle / path) or os.path.lexists(bundle / (path + CUT)):
                continue
            with contextlib.suppress(FileExistsError):  # another thread's, at this moment
                return NewFile(path, bundle / path, _exclusive(bundle / (path + PART)), compress)
    except OSError as error:
        raise write_error(name, error) from error
    raise BundleWriteError(f"{name} was attempted {_MOST_ATTEMPTS} times already")


class Room:
    """The room that artefacts may be written into, by any number of threads, until it is closed.

    What is being written when it is closed is written to its end first: nothing gets into what was kept for others.
    """

    def __init__(self) -> None:
        self._one_write = threading.Lock()
        self._open = True

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """For the length of one write. Raises OSError, as a full disk does, when there is no room."""
        with self._one_write:
            if not self._open:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield

    def close(self) -> None:
        """No further write begins, and none is under way any more."""
        with self._one_write:
            self._open = False


class ArtefactFile:
    """One artefact, written from one thread. When it is closed, its record goes to `finished`.

    `room` is what artefacts may still be written into: what is left on a full disk is kept for the journal.
    `write` raises BundleWriteError when there is no room; `close` then still records what was had, as incomplete.
    """

    def __init__(
        self,
        node: str,
        item: str,
        capture: int,
        source: Source,
        file: NewFile,
        now: Callable[[], datetime],
        finished: Callable[[Artefact], None],
        room: Room | None = None,
    ) -> None:
        self.path = file.path
        self.size = 0
        self._about = (node, item, capture)
        self._source = source
        self._file = file
        self._now = now
        self._finished = finished
        self._room = room or Room()
        self._started = now()
        self._content = hashlib.sha256()
        self._stored = hashlib.sha256()
        self._stored_size = 0
        self._failed: BundleWriteError | None = None
        # 31: with a gzip header, so that zcat reads it. Level 1 is the fastest, and most of what can be gained.
        self._packer = zlib.compressobj(1, zlib.DEFLATED, 31) if file.compress else None

    def write(self, block: bytes | memoryview) -> None:
        """Add content."""
        if self._failed:
            raise self._failed
        self._content.update(block)
        self.size += len(block)
        self._store(self._packer.compress(block) if self._packer else block)

    def close(
        self,
        *,
        exit_code: int | None = None,
        errors: bytes = b"",
        proof: str = "",
        problem: Reason | None = None,
        times: tuple[datetime, datetime] | None = None,
    ) -> Artefact:
        """Finish it: on the disk, under its name, recorded. `errors` came on stderr, `problem` is why it is not whole.

        `times` are when reading began and ended, where that is better known than by the file's own beginning and end.

        A failed write is a problem by itself. Raises BundleWriteError when not even the name could be given, and what
        `finished` raises.
        """
        started, ended = times or (self._started, self._now())
        if self._packer and not self._failed:
            with contextlib.suppress(BundleWriteError):
                self._store(self._packer.flush())
        errors_path = self._write_errors(errors) if errors else ""
        self._put_in_place()
        if problem is None and self._failed:
            problem = Reason(self._failed.code, str(self._failed))
        node, item, capture = self._about
        artefact = Artefact(
            node=node,
            item=item,
            capture=capture,
            path=self.path,
            size=self.size,
            sha256=self._content.hexdigest(),
            stored_size=self._stored_size,
            stored_sha256=self._stored.hexdigest(),
            started=started,
            ended=ended,
            via=self._source.via,
            command=self._source.command,
            exit_code=exit_code,
            errors=errors_path,
            proof="" if problem else proof,
            problem=problem,
        )
        self._finished(artefact)
        return artefact

    def _put_in_place(self) -> None:
        try:
            try:
                os.fsync(self._file.descriptor)
            finally:
                os.close(self._file.descriptor)
        except OSError as error:
            self._failed = self._failed or write_error(self.path, error)
        try:
            Path(f"{self._file.place}{PART}").rename(self._file.place)
        except OSError as error:
            raise write_error(self.path, error) from error

    def _write_errors(self, errors: bytes) -> str:
        """What came on stderr, beside the artefact; "" when there is no room for it."""
        try:
            with self._room.writing():
                descriptor = _exclusive(Path(f"{self._file.place}{ERRORS}"))
                with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor, not of a path
                    file.write(errors)
        except OSError as error:
            self._failed = self._failed or write_error(self.path + ERRORS, error)
            return ""
        return self.path + ERRORS

    def _store(self, block: bytes | memoryview) -> None:
        view = memoryview(block)
        try:
            while view:
                with self._room.writing():
                    written = os.write(self._file.descriptor, view)
                self._stored.update(view[:written])
                self._stored_size += written
                view = view[written:]
        except OSError as error:
            self._failed = write_error(self.path, error)
            raise self._failed from error


def write_error(name: str, error: OSError) -> BundleWriteError:
    """What to tell of a failed write of the file of that name."""
    why = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "collect into a larger place with -O DIR"
        return BundleWriteError(f"no room for {name}: {why}", hint=hint, code="bundleFull")
    return BundleWriteError(f"{name} cannot be written: {why}", hint="collect into another place with -O DIR")


def _make_folders(bundle: Path, folder: str) -> None:
    """Each of them 0700: `parents=True` would give those above the usual mode."""
    place = bundle
    for part in folder.split("/"):
        place /= part
        place.mkdir(mode=0o700, exist_ok=True)


def _exclusive(path: Path) -> int:
    """A new file, 0600. Neither an old file nor a link to one is ever written to."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
