"""`kdnsctl runbook run`: words into one run, questions on the terminal, the report (kind `RunbookReport`)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdnsctl.cli import confirming
from kdnsctl.cli.commands import Entry, Group, environment_name, named_object
from kdnsctl.cli.ending import interruptible
from kdnsctl.cli.options import Answer, Common, Connection, Form, Record
from kdnsctl.cli.runbook.reading import Directories, Name
from kdnsctl.cli.terminal import FALLBACK_WIDTH, columns, flush, has_color, put, tell, visible
from kdnsctl.model import ExitCode, RefusedError, UsageError

if TYPE_CHECKING:
    from kdnsctl.runbook.book import Runbook, Step, Variable
    from kdnsctl.runbook.running import Choice, RunReport

STDERR = 2
WIDEST = 110  # cells: longer lines are hard to read

# Commands that change something without a plan of their own (`Entry.changes` has the others).
_ALSO_CHANGING = {("cleanup",), ("incident", "undo")}


@dataclass(frozen=True, slots=True)
class Agreed:
    """What the operator agrees to beforehand."""

    yes_to_reads: Annotated[
        bool, typer.Option("--yes-to-reads", help="Do not ask before steps that only read.", show_default=False)
    ] = False
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask at all, nor let commands ask.", show_default=False)
    ] = False


def run(
    common: Common,
    connection: Connection,
    record: Record,
    answer: Answer,
    agreed: Agreed,
    name: Name,
    runbook_dir: Directories = None,
    variables: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="The value of a variable (repeatable: one word each)."),
    ] = None,
    start: Annotated[
        int | None, typer.Option("--from", metavar="STEP", min=1, help="Begin, or go on, with this step.")
    ] = None,
) -> int:
    """Go through a runbook: each step is shown, agreed to, run, and its exit code leads to the next.

    Examples:
      kdnsctl runbook run dns-blackhole --yes-to-reads
      kdnsctl runbook run quarantine-and-release --set NODES=ip-10-0-0-1
      # Go on where it was left, also after a crash
      kdnsctl runbook run dns-blackhole --incident 20261123t030239z-1f2e

    The answer is y (run it), s (skip it) or q (quit; --incident ID goes on there); Enter runs nothing. Commands that
    change something ask for themselves, with their plan. All belong to one incident, and go to the cluster that is said
    here. With -o json what the steps print goes to standard error.

    Exit codes: 0 at its end, 4 left, stopped, or with steps left out, 5 nothing was run, 1 a step failed,
    2 wrong usage, 130 interrupted.
    """
    from kdnsctl.changes import incidents  # noqa: PLC0415
    from kdnsctl.runbook import diary, shelf  # noqa: PLC0415
    from kdnsctl.runbook import running as work  # noqa: PLC0415

    book = shelf.load(name, shelf.directories(runbook_dir or (), os.environ))
    _check(book)
    if start is not None and start > len(book.steps):
        raise UsageError(f"--from: runbook {name} has {len(book.steps)} steps")
    given = _given(book, variables or ())
    actor = incidents.this_actor()
    incident = record.incident or incidents.new_id(datetime.now(UTC))
    where = diary.place(incidents.incidents_directory(os.environ), incident, book.name)
    written, progress = diary.begin(where, book, start)
    with written, interruptible():
        if progress.finished:
            tell(f"runbook {book.name} is at its end in incident {incident}; --from STEP goes through it again")
            return _ended(work.RunReport(book.name, incident, work.End.DONE, 0, ()), (), answer)
        about = {"runbook": book.name, "digest": book.digest, "operator": actor.operator, "run": actor.run}
        written.append(diary.BEGUN, {**about, "at": progress.at})
        for key, value in given.items():
            progress.values[key] = value
            diary.value(written, key, value)
        tell(f"runbook {book.name} in incident {incident}: {'begins' if progress.fresh else 'goes on'} with step "
             f"{progress.at} of {len(book.steps)}")  # fmt: skip
        hands = work.Hands(
            show=lambda step: _show(step, common),
            decide=_Decider(agreed, len(book.steps), no_input=common.no_input),
            ask=lambda variable: _asked_value(variable, no_input=common.no_input or agreed.yes),
            told=_told,
            environment=_environment(connection, common, incident, yes=agreed.yes),
            programs=_programs(connection),
            out=None if answer.output is Form.TABLE else STDERR,  # stdout is the report's alone
        )
        try:
            report = work.run(book, incident, progress, written, hands)
        except KeyboardInterrupt:
            place = "in" if progress.running else "before"
            tell(f"interrupted {place} step {progress.at}; {_resume(book.name, incident)}")
            raise
    return _ended(report, progress.skipped, answer)


def _check(book: Runbook) -> None:
    """Refuse a runbook with a step that says it reads, and has a command of ours that changes something."""
    from kdnsctl.runbook.book import Kind  # noqa: PLC0415

    for step in book.steps:
        for pipeline in step.commands:
            for command in pipeline:
                words = ["".join(part.text for part in word) for word in command]
                if step.kind is Kind.READS and _changes(words):
                    raise UsageError(
                        f"step {step.number} of runbook {book.name} says that it reads, but {' '.join(words[:2])} "
                        "changes something; nothing was run"
                    )


def _changes(words: Sequence[str]) -> bool:
    """Whether a command line is one of ours that may change something."""
    from kdnsctl.cli.app import COMMANDS  # noqa: PLC0415

    if words[0] != "kdnsctl" or any(word in ("--dry-run=client", "--dry-run=server") for word in words):
        return False
    entries: Mapping[str, Entry] = COMMANDS
    path: tuple[str, ...] = ()
    for word in words[1:]:
        entry = entries.get(word)
        if entry is None:
            continue  # an option before the command
        path = (*path, word)
        if entry.changes or path in _ALSO_CHANGING:
            return True
        target: Any = named_object(entry.path)
        if not isinstance(target, Group):
            return False
        entries = target.entries
    return False


def _given(book: Runbook, said: Sequence[str]) -> dict[str, tuple[str, ...]]:
    from kdnsctl.runbook.words import checked  # noqa: PLC0415

    known = {one.name for one in book.variables}
    values: dict[str, list[str]] = {}
    for one in said:
        key, equals, value = one.partition("=")
        if not equals or key not in known:
            raise UsageError(
                f"--set {one}: it is NAME=VALUE, and the variables of {book.name} are "
                + (", ".join(sorted(known)) or "none")
            )
        values.setdefault(key, []).append(value)
    return {key: checked(key, words) for key, words in values.items()}


def _as_kubectl(connection: Connection) -> dict[str, object]:
    """The options with one value that kubectl has under the same name; empty ones were not given."""
    return {
        "--kubeconfig": connection.kubeconfig,
        "--context": connection.context,
        "--cluster": connection.cluster,
        "--user": connection.user,
        "--server": connection.server,
        "--tls-server-name": connection.tls_server_name,
        "--as": connection.impersonate,
        "--as-uid": connection.impersonate_uid,
    }


def _environment(connection: Connection, common: Common, incident: str, *, yes: bool) -> dict[str, str]:
    """The environment of the commands: what was said of the cluster here is said to them, and the incident."""
    said: dict[str, str] = {environment_name("--incident"): incident}
    options = {
        **_as_kubectl(connection),
        "--as-group": " ".join(connection.impersonate_groups),
        "--token-file": connection.token_file,
        "--resolve": " ".join(connection.resolve),
        "--request-timeout": connection.request_timeout and f"{connection.request_timeout.total_seconds():g}s",
    }
    said |= {environment_name(option): str(value) for option, value in options.items() if value}
    if yes:
        said[environment_name("--yes")] = "true"
    if common.no_input:
        said[environment_name("--no-input")] = "true"
    if common.config is not None:
        said[environment_name("--config")] = str(common.config)
    # What decides about this command (its --from, its -o, …) is not meant for those of the steps.
    own = {environment_name(option) for option in ("--output", "--set", "--from", "--yes-to-reads", "--runbook-dir")}
    return {**{key: value for key, value in os.environ.items() if key not in own}, **said}


def _programs(connection: Connection) -> dict[str, list[str]]:
    """What a first word stands for: this kdnsctl, and a kubectl that speaks to the same cluster as the same user."""
    said = [f"{name}={value}" for name, value in _as_kubectl(connection).items() if value]
    said += [f"--as-group={group}" for group in connection.impersonate_groups]
    return {"kdnsctl": _ourselves(), "kubectl": ["kubectl", *said]}


def _ourselves() -> list[str]:
    """How this kdnsctl is started again: as a module, or as the single file that it came in (scripts/singlefile.py)."""
    file = getattr(sys.modules["__main__"], "SINGLE_FILE", None)
    return [sys.executable, file] if file else [sys.executable, "-P", "-m", "kdnsctl"]


class _Decider:
    """Asks before each step, unless it was agreed to beforehand."""

    def __init__(self, agreed: Agreed, steps: int, *, no_input: bool) -> None:
        self._agreed, self._steps, self._no_input = agreed, steps, no_input
        self._ran = False

    def __call__(self, step: Step, lines: Sequence[str], again: bool) -> Choice:  # noqa: FBT001 - as `Hands` has it
        from kdnsctl.runbook.book import Kind  # noqa: PLC0415
        from kdnsctl.runbook.running import Choice  # noqa: PLC0415

        tell("")
        for line in lines:
            _plain(f"  $ {visible(line)}")
        if step.kind is Kind.READS and self._agreed.yes_to_reads:  # it can be read again
            self._ran = True
            return Choice.RUN
        if again:
            tell("this step was begun before and has no known end: look what it did, before you run it again")
        # What a person has to do is not done because somebody said --yes beforehand.
        if not again and step.kind is not Kind.BY_HAND and self._agreed.yes:
            self._ran = True
            return Choice.RUN
        try:
            choice = _asked(_question(step, self._steps), no_input=self._no_input)
        except confirming.ClosedError:
            return Choice.LEAVE
        except RefusedError as error:
            if not self._ran:
                raise RefusedError(
                    f"step {step.number} has to be agreed to, and there is nobody to ask; nothing was run",
                    hint="--yes-to-reads agrees to steps that read, --yes to all; --from STEP to one that was begun",
                ) from error
            tell(f"nobody can be asked about step {step.number}")
            return Choice.LEAVE
        self._ran = self._ran or choice is not Choice.LEAVE
        return choice


def _question(step: Step, steps: int) -> str:
    from kdnsctl.runbook.book import Kind  # noqa: PLC0415

    which = f"step {step.number} of {steps}"
    return {
        Kind.READS: f"Run {which}? It only reads.",
        Kind.CHANGES: f"Run {which}? It CHANGES something.",
        Kind.BY_HAND: f"{which.capitalize()} is done by hand. Is it done?",
    }[step.kind] + " [y]es, [s]kip, [q]uit:"


def _asked(question: str, *, no_input: bool) -> Choice:
    """One of the three answers; anything else, Enter too, is asked again. Raises as `confirming.ask`."""
    from kdnsctl.runbook.running import Choice  # noqa: PLC0415

    choices = {"y": Choice.RUN, "yes": Choice.RUN, "s": Choice.SKIP, "skip": Choice.SKIP, "q": Choice.LEAVE,
               "quit": Choice.LEAVE}  # fmt: skip
    while (choice := choices.get(confirming.ask(question, no_input=no_input))) is None:
        tell("y runs it. s leaves it out and goes on with the next. q quits here, and you can go on later.")
    return choice


def _show(step: Step, common: Common) -> None:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.runbook import page  # noqa: PLC0415

    flush()
    paint = table.painter(color=has_color(sys.stderr, common.color))
    width = min(columns(sys.stderr) or FALLBACK_WIDTH, WIDEST)
    _plain("")
    for line in page.lines_of(step.text, commands=bool(step.commands), width=width, paint=paint):
        _plain(line)


def _plain(line: str) -> None:
    """One line on stderr that is safe and laid out already, or must not be broken so that it can be copied."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _told(text: str) -> None:
    flush()
    tell("")  # apart from what the step printed
    for line in text.splitlines():
        tell(line)


def _asked_value(variable: Variable, *, no_input: bool) -> Sequence[str]:
    """What the operator gives for a variable; what cannot be a value is asked for again."""
    from kdnsctl.runbook.words import checked  # noqa: PLC0415

    question = f"{variable.name}, {variable.about}:"
    try:
        while True:
            said = confirming.ask(question, no_input=no_input, lower=False)
            try:
                return checked(variable.name, said.split())
            except UsageError as error:
                tell(str(error))
    except RefusedError as error:
        raise UsageError(
            f"{variable.name} ({variable.about}) has no value", hint=f"give it one: --set {variable.name}=VALUE"
        ) from error


def _ended(report: RunReport, skipped: Sequence[int], answer: Answer) -> int:
    from kdnsctl.cli import output  # noqa: PLC0415
    from kdnsctl.runbook.running import End, to_json  # noqa: PLC0415

    if answer.output is not Form.TABLE:
        output.document(to_json(report), answer.format)
    words = f"runbook {report.book}: {report.end.value}" + (f": {report.message}" if report.message else "")
    if report.end is not End.DONE:
        words += f"; {_resume(report.book, report.incident)}"
    elif skipped:
        words += "; left out: step " + ", ".join(map(str, sorted(set(skipped))))
    if answer.output is Form.TABLE:
        put("")
    tell(words)
    if report.end is End.FAILED:
        return ExitCode.FAILED
    if report.end is End.LEFT and not report.steps:
        return ExitCode.USAGE if report.message else ExitCode.REFUSED
    return ExitCode.OK if report.end is End.DONE and not skipped else ExitCode.INCOMPLETE


def _resume(name: str, incident: str) -> str:
    return f"go on with: kdnsctl runbook run {name} --incident {incident}"
