"""Files below a directory that somebody else may rearrange: made, opened and removed without following any link.

A node's root owns the node's /var/log, and the supervisor writes there from outside, where a symbolic link would lead
to the machine's own files. So every step goes through a handle on the directory before it (openat(2) with O_NOFOLLOW);
a link or a `..` on the way is an error, not a way. Nothing here knows what the files are for.
"""

# ruff: noqa: PTH208 - a directory is read through its handle here, which pathlib cannot do
from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def directory(root: Path, inside: str, *, make: bool = False) -> Iterator[int]:
    """A handle on the directory `inside` below `root`. `root` itself is trusted.

    Raises OSError when a part is missing (and `make` is off), no directory or a link, ValueError for `..` or `/…`.
    """
    handle = os.open(root, _DIRECTORY)
    try:
        for part in _parts(inside):
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=handle)
            below = os.open(part, _DIRECTORY, dir_fd=handle)
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


def _parts(inside: str) -> tuple[str, ...]:
    parts = PurePosixPath(inside).parts
    if ".." in parts or inside.startswith("/"):
        raise ValueError(f"{inside!r} leads out of its directory")
    return parts


def _one(name: str) -> str:
    if name in ("", ".", "..") or "/" in name:
        raise ValueError(f"{name!r} is no file name")
    return name


def new_file(root: Path, inside: str, name: str) -> int:
    """A new, empty file to read and to append to, in place of one of that name; its descriptor. Raises OSError."""
    with directory(root, inside, make=True) as handle:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_one(name), dir_fd=handle)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o644, dir_fd=handle)


def new_link(root: Path, inside: str, name: str, target: str) -> None:
    """A symbolic link to `target`, whatever that is. Raises OSError."""
    with directory(root, inside, make=True) as handle:
        os.symlink(target, _one(name), dir_fd=handle)


def remove_tree(root: Path, inside: str, name: str) -> None:
    """Remove the directory `name` and what is in it; links are removed, not followed. Raises OSError."""
    with directory(root, inside) as handle:
        shutil.rmtree(_one(name), dir_fd=handle)


def remove_matching(root: Path, inside: str, pattern: str) -> None:
    """Remove the files (not directories) whose names match the shell pattern. Raises OSError."""
    with directory(root, inside) as handle:
        for name in fnmatch.filter(os.listdir(handle), pattern):
            os.unlink(name, dir_fd=handle)
