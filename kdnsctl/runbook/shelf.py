"""Where runbooks are: in directories that the operator names, in the operator's own, and in the package.

A runbook's name is its file's, without `.md`. Where two have the same name, that of the directory named first counts.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdnsctl.model import UsageError
from kdnsctl.runbook.book import Runbook
from kdnsctl.runbook.parsing import LARGEST, parse

BUILT_IN = Path(__file__).parent / "books"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class Place:
    """A runbook's name and its file; `built_in` for those that come with kdnsctl."""

    name: str
    path: Path
    built_in: bool


def directories(named: Sequence[Path], environment: Mapping[str, str]) -> list[Path]:
    """Where to look, in this order. Raises UsageError for a named directory that is none."""
    for one in named:
        if not one.is_dir():
            raise UsageError(f"{one} is not a directory with runbooks")
    base = environment.get("XDG_CONFIG_HOME", "")
    home = environment.get("HOME")
    config = Path(base) if base.startswith("/") else (Path(home) if home else Path("~").expanduser()) / ".config"
    return [*named, config / "kdnsctl" / "runbooks", BUILT_IN]


def places(where: Sequence[Path]) -> list[Place]:
    """All runbooks that there are, by name; their text is not read."""
    found: dict[str, Place] = {}
    for directory in where:
        for place in _in(directory):
            found.setdefault(place.name, place)
    return sorted(found.values(), key=lambda one: one.name)


def load(name: str, where: Sequence[Path]) -> Runbook:
    """The runbook `name`. Raises UsageError when there is none, or none that can be trusted or understood."""
    known = places(where)
    place = next((one for one in known if one.name == name), None)
    if place is None:
        raise UsageError(f"there is no runbook {name}", hint="there are: " + ", ".join(one.name for one in known))
    return read(place)


def read(place: Place) -> Runbook:
    """The runbook of a file. Raises UsageError."""
    try:
        with place.path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"the runbook {place.path} cannot be read: {error.strerror or error}") from error
    if mode & stat.S_IWOTH:
        raise UsageError(
            f"the runbook {place.path} can be written by anybody, so it is not run",
            hint="look what is in it, then: chmod o-w",
        )
    try:
        return parse(place.name, content.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"the runbook {place.path} is not UTF-8 text") from error


def _in(directory: Path) -> Iterator[Place]:
    if not directory.is_dir():
        return
    for path in sorted(directory.glob("*.md")):
        if path.is_file() and _NAME.fullmatch(path.stem):
            yield Place(path.stem, path, directory == BUILT_IN)
