"""Going through a runbook: each step is shown, agreed to, run, and its exit code leads to the next.

What the operator decides comes from `Hands`; every decision and every end is in the diary before the next step
begins, so that a run can be resumed wherever it broke off. Steps run commands of their own (`pipes`); nothing is judged
here but exit codes.
"""

from __future__ import annotations

import enum
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdnsctl.changes.journal import Journal
from kdnsctl.model import API_VERSION, KdnsctlError, UsageError
from kdnsctl.runbook import diary, pipes, words
from kdnsctl.runbook.book import GIVEN, Kind, Outcome, Runbook, Step, Variable, Way
from kdnsctl.runbook.diary import Progress

MOST_VISITS = 20  # of one step in one run: a runbook that goes round and round ends


class Choice(enum.StrEnum):
    """What the operator says to a step."""

    RUN = "run"
    SKIP = "skip"
    LEAVE = "leave"


class End(enum.StrEnum):
    """How a run ended: at its end, by a step that leads no further, by a failure, or because somebody left."""

    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Hands:
    """What a run needs from outside: somebody who decides, somewhere to show things, and the environment of commands.

    `decide` is asked before each step, with its command lines as they will be run; `again` says that the step was begun
    before and its end is not known. `ask` gives a variable's words, or raises. `programs` replaces a first word. `out`
    is the file descriptor that what steps print goes to; None is our own standard output.
    """

    show: Callable[[Step], None]
    decide: Callable[[Step, Sequence[str], bool], Choice]
    ask: Callable[[Variable], Sequence[str]]
    told: Callable[[str], None]
    environment: Mapping[str, str]
    programs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    out: int | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was run or left out. `code` is its exit code, None when it was left out or done by hand."""

    step: int
    title: str
    choice: Choice
    code: int | None = None
    meaning: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run as it ended. `at` is the step that comes next when it is resumed; 0 when there is none."""

    book: str
    incident: str
    end: End
    at: int
    steps: tuple[Done, ...]
    message: str = ""


def run(book: Runbook, incident: str, progress: Progress, written: Journal, hands: Hands) -> RunReport:
    """Go through `book` from where `progress` is.

    Raises KeyboardInterrupt when it came while a step ran; the diary then has a step without an end.
    """
    steps: list[Done] = []
    visits: Counter[int] = Counter()
    turned: _Turned | None = None
    while turned is None or turned.end is None:
        step = book.step(progress.at)
        visits[step.number] += 1
        if visits[step.number] > MOST_VISITS:
            message = f"step {step.number} came {MOST_VISITS} times and led to itself again"
            turned = _Turned(End.STOPPED, step.number, message)
            break
        turned = _turn(_Run(book, incident, progress, written, hands), step)
        if turned.done is not None:
            steps.append(turned.done)
        progress.at = turned.at or progress.at
    if turned.end is End.DONE:
        written.append(diary.FINISHED, {"skipped": list(progress.skipped)})
    return RunReport(book.name, incident, turned.end or End.DONE, turned.at, tuple(steps), turned.message)


@dataclass(frozen=True, slots=True)
class _Turned:
    """What became of one step: how the run ended with it (None: it goes on), which comes next, and what was done."""

    end: End | None
    at: int
    message: str = ""
    done: Done | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    book: Runbook
    incident: str
    progress: Progress
    written: Journal
    hands: Hands


def _turn(now: _Run, step: Step) -> _Turned:
    """One step: shown, agreed to, and carried out."""
    now.hands.show(step)
    try:
        commands = _commands(now, step)
    except UsageError as error:
        return _Turned(End.LEFT, step.number, str(error) + (f" ({error.hint})" if error.hint else ""))
    lines = [line(pipeline) for pipeline in commands]
    choice = now.hands.decide(step, lines, now.progress.open == step.number)
    if choice is Choice.LEAVE:
        return _Turned(End.LEFT, step.number)
    following = step.number + 1 if step.number < len(now.book.steps) else 0
    if choice is Choice.SKIP:
        now.progress.skipped.append(step.number)
        now.progress.open = 0
        now.written.append(diary.SKIPPED, {"step": step.number, "then": following})
        done = Done(step.number, step.title, choice)
        return _Turned(None if following else End.DONE, following, done=done)
    try:
        for pipeline in commands:
            pipes.check([_program(now, command) for command in pipeline], now.hands.environment)
    except KdnsctlError as error:
        return _Turned(End.FAILED, step.number, str(error))  # nothing of the step was run
    now.written.append(diary.STEP, {"step": step.number, "commands": commands})
    now.progress.open, now.progress.running = step.number, True
    return _carried_out(now, step, commands)


def _carried_out(now: _Run, step: Step, commands: Sequence[Sequence[Sequence[str]]]) -> _Turned:
    began = time.monotonic()
    try:
        code = _lines(now, step, commands)
    except KdnsctlError as error:
        return _Turned(End.FAILED, step.number, str(error))
    outcome = step.after(code)
    meaning, then = outcome.meaning if outcome else "", _then(now.book, step, outcome)
    now.progress.open, now.progress.running = 0, False
    now.written.append(diary.ENDED, {"step": step.number, "code": code, "meaning": meaning, "then": then})
    by_hand = step.kind is Kind.BY_HAND
    seconds = time.monotonic() - began
    done = Done(step.number, step.title, Choice.RUN, None if by_hand else code, meaning, seconds)
    if outcome is None:
        signal = f" (ended by signal {code - 128})" if 128 < code < 128 + 65 else ""
        message = f"step {step.number} ended with {code}{signal}, which the runbook does not expect"
        return _Turned(End.FAILED, step.number, message, done)
    follows = f"step {then}" if outcome.next.way is not Way.STOP and then else "the end"
    follows = "it stops here" if outcome.next.way is Way.STOP else f"next: {follows}"
    said = "" if by_hand else f" (exit code {code})"
    now.hands.told(f"step {step.number}: {meaning or 'done'}{said}; {follows}")
    if outcome.next.way is Way.STOP:
        return _Turned(End.STOPPED, step.number, meaning, done)
    return _Turned(None, then, done=done) if then else _Turned(End.DONE, 0, meaning, done)


def line(pipeline: Sequence[Sequence[str]]) -> str:
    """A pipeline as a shell would be given it."""
    import shlex  # noqa: PLC0415  # only for showing

    return " | ".join(shlex.join(command) for command in pipeline)


def to_json(report: RunReport) -> dict[str, Any]:
    """The report as published: kind `RunbookReport`."""
    return {
        "apiVersion": API_VERSION,
        "kind": "RunbookReport",
        "runbook": report.book,
        "incident": report.incident,
        "end": report.end.value,
        "next": report.at or None,
        "message": report.message,
        "steps": [
            {
                "step": one.step,
                "title": one.title,
                "choice": one.choice.value,
                "exitCode": one.code,
                "meaning": one.meaning,
                "seconds": round(one.seconds, 3),
            }
            for one in report.steps
        ],
    }


def _commands(now: _Run, step: Step) -> list[list[list[str]]]:
    """The step's pipelines with the variables' values, which are asked for when they are needed first."""
    wanted = {name for pipeline in step.commands for name in words.variables_of(pipeline)} - {GIVEN}
    for name in sorted(wanted):
        _value(now, name)
    values = {**now.progress.values, GIVEN: (now.incident,)}
    return [[words.arguments(command, values) for command in pipeline] for pipeline in step.commands]


def _value(now: _Run, name: str) -> None:
    """See to it that the variable has a value: by its default, or by asking."""
    known = {one.name: one for one in now.book.variables}
    values = now.progress.values
    if name in values:
        return
    if known[name].default:
        word = words.in_text(known[name].default)
        for part in word:
            if part.variable in known and part.variable != name:
                _value(now, part.variable)
        found: Sequence[str] = [words.fill(word, {**values, GIVEN: (now.incident,)})]
    else:
        found = now.hands.ask(known[name])
    values[name] = words.checked(name, found)
    diary.value(now.written, name, values[name])


def _lines(now: _Run, step: Step, commands: Sequence[Sequence[Sequence[str]]]) -> int:
    """Run a step's lines, up to the first that does not end with 0; its exit code."""
    code = 0
    for place, pipeline in enumerate(commands):
        keep = bool(step.remembers) and place == len(commands) - 1
        prepared = [_program(now, command) for command in pipeline]
        code, printed = pipes.run(prepared, now.hands.environment, keep=keep, out=now.hands.out)
        if keep:
            now.hands.told(printed.rstrip("\n"))
            _remember(step, printed, now.progress, now.written)
        if code:
            break
    return code


def _program(now: _Run, command: Sequence[str]) -> list[str]:
    return [*now.hands.programs.get(command[0], command[:1]), *command[1:]]


def _remember(step: Step, printed: str, progress: Progress, written: Journal) -> None:
    found = printed.split()
    if found:  # nothing to remember is no error here: what the exit code means is the runbook's to say
        progress.values[step.remembers] = words.checked(step.remembers, found)
        diary.value(written, step.remembers, found)
    else:
        progress.values.pop(step.remembers, None)


def _then(book: Runbook, step: Step, outcome: Outcome | None) -> int:
    """The number of the step that follows, 0 for none; a step that leads no further is where a run is resumed."""
    if outcome is None or outcome.next.way is Way.STOP:
        return step.number
    if outcome.next.way is Way.STEP:
        return outcome.next.step
    return step.number + 1 if outcome.next.way is Way.ON and step.number < len(book.steps) else 0
