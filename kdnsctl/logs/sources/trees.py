"""What PATH arguments stand for on this machine's disk: files, directories, globs and pipes, in a steady order.

Directories are listed and links looked at, but no file is opened here and nothing is read: that is `walking`. What a
directory holds may come from a stranger's bundle. So a FIFO, socket or device in it is never opened, directories are
only entered where they really are (links to them would lead out of the tree or round in circles), and a link to a file
that the walk meets anyway is not a second file.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kdnsctl.logs.sources.opening import Code, unreadable
from kdnsctl.model import UsageError


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file. `status` is the file's own, not that of a link to it."""

    path: str
    status: os.stat_result
    explicit: bool = False


@dataclass(frozen=True, slots=True)
class Pipe:
    """A FIFO that was named itself, as by the shell's `<(command)`."""

    path: str
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that was named itself, or that a glob matched."""

    path: str
    explicit: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that is not read, and why. `code` is a value of opening.Code."""

    path: str
    code: str
    message: str
    explicit: bool = False


def named(path: str) -> Sequence[Found | Pipe | Directory | Refused]:
    """What one PATH argument stands for: itself, or what it matches as a glob if nothing is called so.

    Raises UsageError when there is nothing of that name and nothing that matches, or only empty directories.
    """
    try:
        status = Path(path).stat() if path else None
    except (FileNotFoundError, NotADirectoryError):
        status = None
    except OSError as error:
        return [_refused(path, error, explicit=True)]
    if status is None:
        return _matched(path)
    if stat.S_ISREG(status.st_mode):
        return [Found(path, status, explicit=True)]
    if stat.S_ISFIFO(status.st_mode):
        return [Pipe(path, status)]
    if not stat.S_ISDIR(status.st_mode):
        return [Refused(path, Code.NOT_A_FILE, _NOT_A_FILE, explicit=True)]
    directory = Directory(path, explicit=True)
    if _is_empty(directory):
        raise UsageError(f"no files in {path!r}")
    return [directory]


def below(directory: Directory, roots: Sequence[str]) -> Iterator[Found | Refused]:
    """Every file in `directory` and the directories in it, in order of `order_key`.

    `roots` are the real paths of all directories that are walked: a link to a file in one of them is left out, because
    the walk meets the file itself.
    """
    pending = [_listing(directory.path, explicit=directory.explicit)]
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
        elif isinstance(entry, Refused):
            yield entry
        elif entry.is_dir(follow_symlinks=False):
            pending.append(_listing(entry.path))
        elif entry.is_symlink():
            yield from _linked(entry.path, roots)
        elif entry.is_file(follow_symlinks=False):
            try:
                yield Found(entry.path, entry.stat(follow_symlinks=False))
            except OSError as error:  # it went away since the directory was listed
                yield _refused(entry.path, error)
        else:
            yield Refused(entry.path, Code.NOT_A_FILE, _NOT_A_FILE)


def order_key(path: str) -> tuple[object, ...]:
    """Sorts paths name by name, numbers in them by value, and the rotated files of a log oldest first before it.

    Rotated names: the kubelet's 0.log.20240606-164946 (kubernetes, pkg/kubelet/logs/container_log_manager.go), and
    logrotate's kube-proxy.log-20240606 and kube-proxy.log.1, where the highest number is the oldest; compressed or not.
    """
    return tuple(_name_key(name) for name in path.split("/"))


_DANGLING: Final = "a link to something that does not exist"
_NOT_A_FILE: Final = "neither a file nor a directory: not opened"
_COMPRESSED: Final = re.compile(r"\.(?:gz|zst|zstd|xz|bz2)$")
_STAMPED: Final = re.compile(r"(?P<log>.+?)[.-](?P<stamp>[0-9]{8}(?:[-_T.]?[0-9]{2,6})?)")
_NUMBERED: Final = re.compile(r"(?P<log>.*log)\.(?P<number>[0-9]{1,4})")
_DIGITS: Final = re.compile(r"([0-9]+)")


def _name_key(name: str) -> tuple[object, ...]:
    stem = _COMPRESSED.sub("", name)
    if stamped := _STAMPED.fullmatch(stem):
        return (_natural(stamped["log"]), 0, _natural(stamped["stamp"]), name)
    if numbered := _NUMBERED.fullmatch(stem):
        return (_natural(numbered["log"]), 1, _natural(str(9999 - int(numbered["number"]))), name)
    return (_natural(stem), 2, (), name)


def _natural(text: str) -> tuple[object, ...]:
    """Text and numbers in turn. A number is its length and its digits: they may be more than int() takes."""
    parts = _DIGITS.split(text)
    return tuple((len(part.lstrip("0")), part.lstrip("0")) if index % 2 else part for index, part in enumerate(parts))


def _listing(directory: str, *, explicit: bool = False) -> Iterator[os.DirEntry[str] | Refused]:
    try:
        with os.scandir(directory) as entries:
            listed = sorted(entries, key=lambda entry: _name_key(entry.name))
    except OSError as error:
        return iter([_refused(directory, error, explicit=explicit)])
    return iter(listed)


def _linked(link: str, roots: Sequence[str]) -> Iterator[Found | Refused]:
    """What a link in a directory adds to the walk: a regular file that the walk would not meet, or a problem."""
    try:
        if any(_is_met(target, roots) for target in _meant_targets(link)):
            return
        status = Path(link).stat()
    except FileNotFoundError:
        yield Refused(link, Code.DANGLING_LINK, _DANGLING)
    except OSError as error:  # among them links that lead to themselves
        yield _refused(link, error)
    else:
        if stat.S_ISREG(status.st_mode):
            yield Found(link, status)
        elif stat.S_ISDIR(status.st_mode):
            message = "a link to a directory elsewhere, which is not entered: name that directory itself"
            yield Refused(link, Code.NOT_A_FILE, message)
        else:
            yield Refused(link, Code.NOT_A_FILE, _NOT_A_FILE)


def _meant_targets(link: str) -> Iterator[str]:
    """What a link may point to: in a copy of a machine's files, an absolute link means what was copied with it.

    In a copy of a node's /var/log, containers/x.log points to /var/log/pods/… of the machine it is now on; meant is
    the directory beside it.
    """
    yield link
    target = str(Path(link).readlink())
    above = posixpath.dirname(str(Path(link).absolute()))
    while target.startswith("/") and above != "/":
        yield above + target
        above = posixpath.dirname(above)


def _is_met(path: str, roots: Sequence[str]) -> bool:
    """Whether the walk of `roots` (real paths) meets what is at `path`."""
    real = os.path.realpath(path)
    return any(real == root or real.startswith(root.rstrip("/") + "/") for root in roots) and Path(real).exists()


def _refused(path: str, error: OSError, *, explicit: bool = False) -> Refused:
    return Refused(path, Code.UNREADABLE, str(unreadable(error)), explicit)


def _is_empty(directory: Directory) -> bool:
    return next(below(directory, (os.path.realpath(directory.path),)), None) is None


# Globs. glob.glob would follow links to directories under `**`, round and round, and say nothing of directories that
# it cannot list.


def _matched(pattern: str) -> Sequence[Found | Directory | Refused]:
    if not _is_magic(pattern):
        what = _DANGLING if pattern and Path(pattern).is_symlink() else "no such file or directory"
        raise UsageError(f"{what}: {pattern!r}")
    refused: list[Refused] = []
    matched: list[Found | Directory | Refused] = []
    for path in _expanded(pattern, refused):
        try:
            status = Path(path).stat()
        except FileNotFoundError:
            matched.append(Refused(path, Code.DANGLING_LINK, _DANGLING))
        except OSError as error:
            matched.append(_refused(path, error))
        else:
            if stat.S_ISDIR(status.st_mode):
                matched.append(Directory(path, explicit=False))
            elif stat.S_ISREG(status.st_mode):
                matched.append(Found(path, status))
            else:
                matched.append(Refused(path, Code.NOT_A_FILE, _NOT_A_FILE))
    matched.extend(refused)
    if all(isinstance(place, Directory) and _is_empty(place) for place in matched):
        raise UsageError(f"no files match {pattern!r}")
    return matched


def _expanded(pattern: str, refused: list[Refused]) -> Sequence[str]:
    """The paths that match; directories that cannot be listed are added to `refused`."""
    bases = ["/" if pattern.startswith("/") else ""]
    parts = [part for part in pattern.split("/") if part]
    while parts and parts[-1] == "**":  # all that is below a directory: the walk of that directory
        parts.pop()
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        reached: dict[str, None] = {}  # in order, each once
        for base in bases:
            if part == "**":
                reached |= dict.fromkeys(_directories(base, refused))
            elif _is_magic(part):
                reached |= dict.fromkeys(_entries(base, part, refused, directories_only=not last))
            elif os.path.lexists(base + part):
                reached[base + part + ("" if last else "/")] = None
        bases = list(reached)
    return bases


def _entries(base: str, pattern: str, refused: list[Refused], *, directories_only: bool) -> Iterator[str]:
    matches = re.compile(fnmatch.translate(pattern)).match
    for entry in _listing(base or "."):
        if isinstance(entry, Refused):
            refused.append(entry)
        elif matches(entry.name) and (pattern.startswith(".") or not entry.name.startswith(".")):
            if not directories_only:
                yield base + entry.name
            elif entry.is_dir():
                yield f"{base}{entry.name}/"


def _directories(base: str, refused: list[Refused]) -> Iterator[str]:
    """`base` and every directory below it, by real directories only."""
    pending = [base]
    while pending:
        directory = pending.pop()
        yield directory
        for entry in _listing(directory or "."):
            if isinstance(entry, Refused):
                refused.append(entry)
            elif entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                pending.append(f"{directory}{entry.name}/")


def _is_magic(pattern: str) -> bool:
    return any(character in pattern for character in "*?[")
