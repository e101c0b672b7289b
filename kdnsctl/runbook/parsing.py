"""A runbook out of Markdown. The page itself is the program: what a reader sees is what is run, and nothing is hidden.

    # Title, then a paragraph that says what it is for
    ## Variables                     a table: `NAME` | what it is | default
    ## 1. A step                     why, in plain words
    **Reads:** what                  or **Changes:** what, or **By hand:** what
    ```sh … ```                      the commands, the first such block of the step
    **Remember:** `NAME`             the words that the last command prints
    | exit code | what it means | next |      next: go on, step N, done, stop

Other headings, text and blocks are for the reader. A runbook that is not written so is refused, with the line. Files
are opened by `shelf`; nothing is run here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kdnsctl.model import UsageError
from kdnsctl.runbook import words
from kdnsctl.runbook.book import GIVEN, Kind, Next, Outcome, Runbook, Step, Variable, Way
from kdnsctl.runbook.words import Pipeline

LARGEST = 256 * 1024  # bytes of a runbook
_HEADING = re.compile(r"##\s+(?P<title>.+?)\s*#*")
_STEP = re.compile(r"(?P<number>[1-9][0-9]?)\.\s+(?P<title>.+)")
_FENCE = re.compile(r"(?P<ticks>`{3,}|~{3,})\s*(?P<language>[\w+-]*)\s*")
_EFFECT = re.compile(r"\*\*(?P<kind>Reads|Changes|By hand):\*\*\s*(?P<what>.+)")
_REMEMBER = re.compile(r"\*\*Remember:\*\*\s*`(?P<name>[^`]+)`.*")
_KINDS = {"Reads": Kind.READS, "Changes": Kind.CHANGES, "By hand": Kind.BY_HAND}
_NEXT = re.compile(r"(?P<way>go on|done|stop)|step (?P<step>[1-9][0-9]?)")
_OUTCOMES = ("exit code", "what it means", "next")
_VARIABLES = ("variable", "what it is", "default")
_DEFAULT = (Outcome(0, "", Next(Way.ON)),)


@dataclass(slots=True)
class _Section:
    """The lines below one heading; `line` is the heading's number in the file."""

    title: str
    line: int
    lines: list[str] = field(default_factory=list)


def parse(name: str, text: str) -> Runbook:
    """The runbook that `text` is. Raises UsageError, which names the line, when it is none."""
    if len(text.encode("utf-8", "replace")) > LARGEST:
        raise UsageError(f"runbook {name} is larger than {LARGEST // 1024} KiB")
    sections = list(_sections(name, text))
    title, summary = _head(name, sections[0])
    variables = tuple(one for part in sections if part.title == "Variables" for one in _variables(name, part))
    steps = tuple(
        _step(name, part, match) for part in sections[1:] if (match := _STEP.fullmatch(part.title)) is not None
    )
    book = Runbook(name, title, summary, text, hashlib.sha256(text.encode()).hexdigest(), steps, variables)
    _check(book)
    return book


def _sections(name: str, text: str) -> Iterator[_Section]:
    current, fence = _Section("", 1), ""
    for number, line in enumerate(text.splitlines(), 1):
        opened = _FENCE.fullmatch(line.strip())
        if opened and (not fence or (line.strip() == opened["ticks"] and opened["ticks"].startswith(fence))):
            fence = "" if fence else opened["ticks"]
        heading = None if fence else _HEADING.fullmatch(line)
        if heading:
            yield current
            current = _Section(heading["title"], number)
        current.lines.append(line)
    yield current
    if fence:
        raise UsageError(
            f"runbook {name}: a block of code that begins below {current.title or 'the title'!r} has no end"
        )


def _head(name: str, section: _Section) -> tuple[str, str]:
    lines = [line.strip() for line in section.lines]
    title = next((line[2:].strip() for line in lines if line.startswith("# ")), "")
    if not title:
        raise UsageError(f"runbook {name} has no title: its first line is '# TITLE'")
    after = lines[lines.index(next(line for line in lines if line.startswith("# "))) + 1 :]
    return title, " ".join(_first_paragraph(after))


def _first_paragraph(lines: Sequence[str]) -> Iterator[str]:
    begun = False
    for line in lines:
        if line:
            begun = True
            yield line
        elif begun:
            return


def _variables(name: str, section: _Section) -> Iterator[Variable]:
    for number, (variable, about, default) in _rows(name, section, _VARIABLES):
        plain = variable.strip("`")
        if not words.NAME.fullmatch(plain) or plain == GIVEN:
            raise UsageError(f"runbook {name}, line {number}: {variable!r} cannot be the name of a variable")
        yield Variable(plain, about, default.strip("`"))


def _step(name: str, section: _Section, heading: re.Match[str]) -> Step:
    kind, effect, remembers = None, "", ""
    for offset, line in _outside_code(section):
        if found := _EFFECT.fullmatch(line):
            if kind is not None:
                raise UsageError(f"runbook {name}, line {section.line + offset}: a step has one kind, not two")
            kind, effect = _KINDS[found["kind"]], found["what"]
        elif told := _REMEMBER.fullmatch(line):
            remembers = told["name"]
    if kind is None:
        raise UsageError(
            f"runbook {name}, line {section.line}: step {heading['number']} does not say what it does",
            hint="before its commands, a line that begins with **Reads:**, **Changes:** or **By hand:**",
        )
    return Step(
        int(heading["number"]),
        heading["title"],
        "\n".join(section.lines).rstrip() + "\n",
        kind,
        effect,
        () if kind is Kind.BY_HAND else _commands(name, section),
        remembers,
        tuple(_outcomes(name, section)) or _DEFAULT,
    )


def _commands(name: str, section: _Section) -> tuple[Pipeline, ...]:
    code: list[str] = []
    fence = None
    for line in section.lines:
        match = _FENCE.fullmatch(line.strip())
        if fence is None and match and match["language"] == "sh":
            fence = match["ticks"]
        elif fence is not None and line.strip() == fence:
            break
        elif fence is not None:
            code.append(line)
    try:
        return words.pipelines("\n".join(code))
    except UsageError as error:
        raise UsageError(f"runbook {name}, below line {section.line}: {error}") from error


def _outcomes(name: str, section: _Section) -> Iterator[Outcome]:
    for number, (codes, meaning, follows) in _rows(name, section, _OUTCOMES):
        match = _NEXT.fullmatch(follows)
        if match is None:
            raise UsageError(f"runbook {name}, line {number}: 'next' is go on, step N, done or stop, not {follows!r}")
        what = Next(Way.STEP, int(match["step"])) if match["step"] else _way(match["way"])
        for code in codes.split(","):
            if code.strip() == "else":
                yield Outcome(None, meaning, what)
            elif code.strip().isdecimal():
                yield Outcome(int(code), meaning, what)
            else:
                raise UsageError(f"runbook {name}, line {number}: {code.strip()!r} is no exit code, and not 'else'")


def _way(text: str) -> Next:
    return Next({"go on": Way.ON, "done": Way.DONE, "stop": Way.STOP}[text])


def _rows(name: str, section: _Section, headings: Sequence[str]) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """The rows of the table with these headings, and their lines' numbers."""
    inside = False
    for offset, line in _outside_code(section):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.strip().startswith("|") else []
        if not cells:
            inside = False
        elif [cell.lower() for cell in cells] == list(headings):
            inside = True
        elif inside and not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            if len(cells) != 3:
                raise UsageError(f"runbook {name}, line {section.line + offset}: a row has three cells")
            yield section.line + offset, (cells[0], cells[1], cells[2])


def _outside_code(section: _Section) -> Iterator[tuple[int, str]]:
    fence = ""
    for offset, line in enumerate(section.lines):
        match = _FENCE.fullmatch(line.strip())
        if match and (not fence or (line.strip() == match["ticks"] and match["ticks"].startswith(fence))):
            fence = "" if fence else match["ticks"]
        elif not fence:
            yield offset, line


def _check(book: Runbook) -> None:
    numbers = [step.number for step in book.steps]
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        raise UsageError(f"the steps of runbook {book.name} are '## 1. …', '## 2. …' and so on, not {numbers}")
    known = {GIVEN, *(one.name for one in book.variables)}
    for step in book.steps:
        where = f"step {step.number} of runbook {book.name}"
        if step.kind is not Kind.BY_HAND and not step.commands:
            raise UsageError(f"{where} has no commands: a block of code that begins with ```sh")
        if step.remembers and step.remembers not in known - {GIVEN}:
            raise UsageError(f"{where} remembers {step.remembers}, which is not among its variables")
        used = {one for pipeline in step.commands for one in words.variables_of(pipeline)}
        if unknown := sorted(used - known):
            raise UsageError(f"{where} uses {', '.join(unknown)}, which is not among its variables")
        for outcome in step.outcomes:
            if outcome.next.way is Way.STEP and outcome.next.step not in numbers:
                raise UsageError(f"{where} goes on to step {outcome.next.step}, which does not exist")
