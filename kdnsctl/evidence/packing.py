"""A bundle as one file: a tar archive, compressed, that opens on any system and says itself what is in it.

Nothing is left out and nothing added. The files that tell about the others come first, so that whoever reads the stream
once knows what to expect. Unpacking is left to `tar`; everything here that reads a bundle reads archives as they are.
"""

from __future__ import annotations

import contextlib
import enum
import gzip
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from kdnsctl.evidence.artefactfile import BundleWriteError, write_error
from kdnsctl.evidence.bundle import JOURNAL, MANIFEST, RESERVE, SUMS
from kdnsctl.evidence.contents import Allowance, files
from kdnsctl.logs.sources.opening import SourceError
from kdnsctl.model import KdnsctlError, UsageError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class Compression(enum.StrEnum):
    """How an archive is compressed. What is large in a bundle is compressed already, so neither has much left to do."""

    GZIP = "gzip"
    ZSTD = "zstd"


_ENDINGS = {Compression.GZIP: ".tar.gz", Compression.ZSTD: ".tar.zst"}


def archive_name(directory: Path, compression: Compression) -> Path:
    """Where `pack` puts the archive unless told otherwise: beside the bundle, under its name."""
    return directory.with_name(directory.name + _ENDINGS[compression])


def compression_of(archive: Path) -> Compression:
    """What the name of an archive asks for. Raises UsageError for a name that asks for neither."""
    for compression, ending in _ENDINGS.items():
        if archive.name.endswith(ending):
            return compression
    raise UsageError(f"{archive} is not called as an archive is: *{', *'.join(_ENDINGS.values())}")


def is_named_as_one(place: Path) -> bool:
    """Whether something is called as an archive is; one that is a directory is none."""
    return place.name.endswith(tuple(_ENDINGS.values())) and not place.is_dir()


def is_bundle(archive: Path) -> bool:
    """Whether a file is an archive that begins as those of bundles do, and not somebody's something else."""
    try:
        first = next(files(archive, Allowance()))
    except (KdnsctlError, SourceError, OSError, StopIteration):
        return False
    return first.path in (MANIFEST, JOURNAL, SUMS)


def pack(directory: Path, archive: Path, compression: Compression, *, replace: bool = False) -> int:
    """Write the bundle in `directory` to `archive`, and return the archive's bytes. The directory stays as it is.

    `replace`: an archive that is there is one of this bundle as it was before, or was being written when its process
    was killed. Raises UsageError when the archive is
    there already or would lie inside the bundle, BundleWriteError when it cannot be written; then nothing is left of
    it, and one that was there is what it was.
    """
    if archive.exists() and not replace:
        raise UsageError(f"{archive} is there already; nothing was written", hint="name another file")
    if archive.resolve().is_relative_to(directory.resolve()):
        raise UsageError(f"{archive} would lie inside the bundle that it is of; nothing was written")
    part = archive.with_name(archive.name + ".part")
    if replace:
        part.unlink(missing_ok=True)
    try:
        with contextlib.ExitStack() as on_failure:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            on_failure.callback(part.unlink, missing_ok=True)
            with open(descriptor, "wb") as raw:  # noqa: PTH123 - of a descriptor, not of a path
                with _compressed(raw, compression) as packed:
                    _write(directory, packed)
                raw.flush()
                os.fsync(raw.fileno())
            part.replace(archive)
            on_failure.pop_all()
    except FileExistsError as error:
        message = f"{part} is there: another process writes this archive, or one was killed doing so"
        raise BundleWriteError(message, hint="remove it if nobody is at work") from error
    except OSError as error:
        raise write_error(archive.name, error) from error
    return archive.stat().st_size


@contextlib.contextmanager
def _compressed(raw: IO[bytes], compression: Compression) -> Iterator[Any]:
    if compression is Compression.ZSTD:
        with zstd.ZstdFile(raw, "wb", level=3) as packed:
            yield packed
    else:
        with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, filename="", mtime=0) as packed:
            yield packed


def _write(directory: Path, packed: Any) -> None:
    with tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar:
        for path in _in_order(directory):
            place = directory / path
            about = tarfile.TarInfo(f"{directory.resolve().name}/{path}")
            with place.open("rb") as content:
                status = os.fstat(content.fileno())
                about.size, about.mtime, about.mode = status.st_size, int(status.st_mtime), 0o600
                tar.addfile(about, content)


def _in_order(directory: Path) -> list[str]:
    first = (MANIFEST, JOURNAL, SUMS)
    found = [
        (Path(folder) / name).relative_to(directory).as_posix()
        for folder, _, names in os.walk(directory)
        for name in names
        if not (Path(folder) / name).is_symlink()
    ]
    return sorted(
        (path for path in found if path != RESERVE),
        key=lambda path: (first.index(path) if path in first else len(first), path),
    )
