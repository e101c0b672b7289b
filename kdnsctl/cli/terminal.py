"""The operator's terminal: what may be written to it, how wide it is, and whether it has colour.

Everything that comes from a node or a log is untrusted. `visible` is the one gate to the screen: a control character,
an escape sequence, a change of writing direction or an invisible character comes out as its escaped spelling.
"""

from __future__ import annotations

import contextlib
import enum
import io
import os
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterable
from typing import TextIO

FALLBACK_WIDTH = 80
OWN_NAME = "kdnsctl"


class Color(enum.StrEnum):
    """When to use colour."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


def visible(text: str) -> str:
    """`text` on one line, with every character that does not print as itself spelled out as in Python source."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def width_of(text: str) -> int:
    """How many cells `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def columns(stream: TextIO) -> int | None:
    """How wide the terminal behind `stream` is; None when it is not a terminal and nothing needs to fit.

    COLUMNS wins over what the terminal says, as it does for other programs.
    """
    if not stream.isatty():
        return None
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said) > 0:
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or FALLBACK_WIDTH
    except (OSError, ValueError):
        return FALLBACK_WIDTH


def has_color(stream: TextIO, color: Color) -> bool:
    """Whether to colour what goes to `stream`: --color, else NO_COLOR, else FORCE_COLOR, else a capable terminal."""
    if color is not Color.AUTO:
        return color is Color.ALWAYS
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in {"", "0"}:
        return True
    return stream.isatty() and not is_dumb()


def is_dumb() -> bool:
    """Whether the terminal says that it cannot move its cursor."""
    return os.environ.get("TERM", "") in {"", "dumb"}


class _Spelling:
    """How the operator calls us, for the length of a process: set before anything is said."""

    program = OWN_NAME
    words: tuple[str, ...] = ()  # of the command that runs
    command = re.compile(r"(?!)")  # what is replaced: our name in front of one of our commands


def called_as(program: str, commands: Iterable[str]) -> None:
    """Have what is said to people name us as `program`: `kubectl kdns` as a plug-in of kubectl."""
    _Spelling.program, _Spelling.words = program, ()
    names = "|".join(map(re.escape, commands))
    _Spelling.command = re.compile(rf"\b{OWN_NAME}(?= (?:{names})\b)" if program != OWN_NAME else r"(?!)")


def running(words: tuple[str, ...]) -> None:
    """Say which command runs, by its words."""
    _Spelling.words = words


def words_running() -> tuple[str, ...]:
    """The words of the command that runs; none before one does."""
    return _Spelling.words


def as_called(text: str) -> str:
    """`text` with our commands as the operator has to type them."""
    return _Spelling.command.sub(_Spelling.program, text)


class OutputError(Exception):
    """Standard output does not take what is written to it; the cause says why: a full disk, a reader that is gone."""


def put(text: str) -> None:
    """Write the answer, or a part of it, to stdout.

    Raises:
        OutputError: it could not be written.
    """
    try:
        sys.stdout.write(text)
    except OSError as error:
        raise OutputError(error.strerror or str(error)) from error


def flush() -> None:
    """Bring to its reader what was `put`. Raises as `put` does."""
    try:
        sys.stdout.flush()
    except OSError as error:
        raise OutputError(error.strerror or str(error)) from error


def prepare() -> None:
    """Make stdout and stderr take any character: one that their encoding lacks is spelled out, not an error."""
    flush()  # changing a stream flushes it, and has no words for why it could not
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def tell(message: str) -> None:
    """One line on stderr, broken between words where a terminal ends; what is unprintable in it is spelled out."""
    # When stderr itself is gone there is nobody left to tell, and the exit code still speaks.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        line, width = as_called(visible(message)), columns(sys.stderr)
        if width is not None and width_of(line) > width:
            line = textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
