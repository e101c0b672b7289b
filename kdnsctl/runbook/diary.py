"""What a run of a runbook has done so far: written beside the incident's journal, and read to go on.

`$XDG_STATE_HOME/kdnsctl/incidents/ID/runbook-NAME.jsonl`, a journal (`changes.journal`) of its own: it tells which
steps were begun and how they ended. What they changed on the cluster is in the incident's own journal, by the commands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdnsctl.changes import journal
from kdnsctl.changes.incidents import checked_id
from kdnsctl.changes.journal import Journal, JournalError, Record
from kdnsctl.model import RefusedError
from kdnsctl.runbook.book import Runbook

BEGUN = "begun"  # kinds of records: the run, its variables, and each step's beginning and end
VARIABLE = "variable"
STEP = "step"
ENDED = "ended"
SKIPPED = "skipped"
FINISHED = "finished"


@dataclass(slots=True)
class Progress:
    """How far a run is: the step that comes next, the variables, and the steps that were left out.

    `open` is a step that was begun and whose end is not written: it may have done anything, or nothing. `running`: its
    commands run now, or were running when Ctrl-C came.
    """

    at: int = 1
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)
    open: int = 0
    running: bool = False
    finished: bool = False
    fresh: bool = True


def place(directory: Path, incident: str, name: str) -> Path:
    """The file of a run. Raises UsageError for what is not an incident's name."""
    return directory / checked_id(incident) / f"runbook-{name}.jsonl"


def begin(path: Path, book: Runbook, start: int | None) -> tuple[Journal, Progress]:
    """Open the diary at `path`, or begin one, and tell where the run stands. `start` wins over where it stood.

    Raises RefusedError when it cannot be written, or is that of another text; JournalError when it was changed.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise RefusedError(
            f"{path.parent} cannot be made ({error.strerror or error}); nothing was run",
            hint="name a writable place with XDG_STATE_HOME",
        ) from error
    written = Journal.open(path)
    try:
        progress = _read(path, book, start)
    except BaseException:
        written.close()
        raise
    if start is not None:
        progress.at, progress.finished, progress.open = start, False, 0
    return written, progress


def value(written: Journal, name: str, words: Sequence[str]) -> None:
    """Note what a variable is from now on."""
    written.append(VARIABLE, {"name": name, "value": list(words)})


def _read(path: Path, book: Runbook, start: int | None) -> Progress:
    reading = journal.read(path)
    if reading.problem is not None:
        raise JournalError(f"{path} is not as it was written: {reading.problem.message}")
    known = next((one.body.get("digest") for one in reversed(reading.records) if one.kind == BEGUN), None)
    if known not in (None, book.digest) and start is None:
        raise RefusedError(
            f"runbook {book.name} is not as it was when this run began; nothing was run",
            hint="see which step it has to go on with, then: --from STEP",
        )
    return _so_far(reading.records)


def _so_far(records: Sequence[Record]) -> Progress:
    progress = Progress(fresh=not records)
    for record in records:
        body: Mapping[str, Any] = record.body
        match record.kind:
            case "variable":
                progress.values[str(body["name"])] = tuple(str(word) for word in body["value"])
            case "step":
                progress.open = progress.at = int(body["step"])
            case "ended":
                progress.open, progress.at = 0, int(body["then"]) or int(body["step"])
            case "skipped":
                progress.skipped.append(int(body["step"]))
                progress.at = int(body["then"])
            case "finished":
                progress.finished = True
            case _:
                pass
    return progress
