"""What the pages show as code: every fenced block, the commands in it, and the mark that says what tests do with it.

A block that shows commands has a mark, an HTML comment on a line above it, which is not seen on the site:

    <!-- run: broken lab; exits 3, 0 -->    it is run there (`places`), and ends so; all end with 0 if nothing is said
    <!-- not run: REASON -->                for the reader of the source to check

Of a block marked `console`, a line that begins with `$ ` is a command and what follows is what it prints (`printed`);
with `; one command` behind the place only the first is, and the others are printed by it, as `lab demo` does.
Of one marked `sh` everything is commands. Blocks in other languages show none. Pages are read here, nothing is run.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELLS = frozenset({"sh", "console"})
# Runbooks are run step by step by tests/lab/test_runbooks.py, with `kdnsctl runbook run` itself.
RUN_AS_RUNBOOKS = ROOT / "docs" / "runbooks"

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>\S*)(?P<more>[^\n`]*)$")
_MARK = re.compile(r"<!-- (?P<kind>run|not run): (?P<text>.*?) -->")
_RUN = re.compile(r"(?P<place>[a-z ]+?)(?P<alone>; one command)?(?:; exits (?P<codes>[0-9]+(?:, [0-9]+)*))?")


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a block, in the line where it begins; `printed` is None where the page shows no output."""

    line: int
    text: str
    printed: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """What the page says is done with a block. `place` is None where it is not run, for `reason`."""

    place: str | None = None
    reason: str = ""
    codes: tuple[int, ...] = ()
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page; `line` is that of its opening fence."""

    page: Path
    line: int
    language: str
    lines: tuple[str, ...]
    mark: Mark | None

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> tuple[Command, ...]:
        if self.language == "console":
            alone = self.mark is not None and self.mark.alone
            return tuple(_console(self.lines, self.line + 1, 1 if alone else None))
        if self.language == "sh":
            return tuple(_script(self.lines, self.line + 1))
        return ()


def pages() -> list[Path]:
    """Every page of the project, those of the site and README.md among them."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, with their marks.

    Raises:
        ValueError: a block has no end, or its mark cannot be read.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    blocks = []
    at = 0
    while at < len(lines):
        opened = _FENCE.match(lines[at])
        if opened is None:
            at += 1
            continue
        indent, fence = opened["indent"], opened["fence"]
        end = next((n for n in range(at + 1, len(lines)) if lines[n] == indent + fence), None)
        where = f"{page.relative_to(ROOT)}:{at + 1}"
        if end is None or opened["more"].strip():
            message = f"{where}: this block has no end, or words after its language"
            raise ValueError(message)
        inside = tuple(line.removeprefix(indent) for line in lines[at + 1 : end])
        blocks.append(Block(page, at + 1, opened["language"], inside, _mark_above(lines, at, where)))
        at = end + 1
    return blocks


def _mark_above(lines: Sequence[str], fence: int, where: str) -> Mark | None:
    """The mark on the last line above a fence that is not empty."""
    above = next((line.strip() for line in reversed(lines[:fence]) if line.strip()), "")
    found = _MARK.fullmatch(above)
    if found is None:
        if above.startswith("<!--"):
            message = f"{where}: {above!r} is no mark: write `run: PLACE` or `not run: REASON`"
            raise ValueError(message)
        return None
    if found["kind"] == "not run":
        return Mark(reason=found["text"])
    run = _RUN.fullmatch(found["text"])
    if run is None:
        message = f"{where}: {found['text']!r} is not `PLACE; one command; exits N, N`"
        raise ValueError(message)
    codes = tuple(int(code) for code in (run["codes"] or "").split(", ") if code)
    return Mark(place=run["place"], codes=codes, alone=run["alone"] is not None)


def _console(lines: Sequence[str], first: int, most: int | None) -> Iterator[Command]:
    starts = [n for n, line in enumerate(lines) if line.startswith("$ ")][:most]
    for start, following in zip(starts, [*starts[1:], len(lines)], strict=True):
        printed = lines[start + 1 : following]
        while printed and not printed[-1].strip():  # an empty line before the next command is for the eye
            printed = printed[:-1]
        yield Command(first + start, lines[start].removeprefix("$ "), tuple(printed) or None)


def _script(lines: Sequence[str], first: int) -> Iterator[Command]:
    """Whole commands: lines are put together until the shell finds nothing missing."""
    held: list[str] = []
    for number, line in enumerate(lines, first):
        if not held and (not line.strip() or line.startswith("#")):
            continue
        held.append(line)
        if not line.endswith("\\") and _is_whole("\n".join(held)):
            yield Command(number + 1 - len(held), "\n".join(held))
            held = []
    if held:
        message = f"line {first + len(lines) - len(held)}: the shell misses the end of this command"
        raise ValueError(message)


@functools.cache
def _is_whole(text: str) -> bool:
    if not re.search(r"[\"'`(){}]|\b(?:do|then|in)\b|\|\s*$|<<", text):
        return True
    return (
        subprocess.run(["bash", "-n"], input=text + "\n", text=True, capture_output=True, check=False).returncode == 0
    )
