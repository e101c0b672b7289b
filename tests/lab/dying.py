"""kdnsctl in a process that kills itself with SIGKILL at a chosen moment, as a machine or an operator would.

    python -m tests.lab.dying record:N COMMAND...    after the Nth record of a journal
    python -m tests.lab.dying step:N COMMAND...      at the Nth step: a file opened or renamed, a connection made, …
    python -m tests.lab.dying count:FILE COMMAND...  never; write `RECORDS STEPS` to FILE

Pods that it makes get no time beyond the run's own deadline. Steps are the interpreter's audit events, so that one
number is one place in the work as nearly as threads allow.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdnsctl.__main__ import main
from kdnsctl.changes.journal import Journal, Record
from kdnsctl.reach import podkeeper

STEPS = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "socket.connect", "subprocess.Popen"})


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(moment: str, words: list[str]) -> int:
    kind, _, at = moment.partition(":")
    records, steps = itertools.count(1), itertools.count(1)
    append = Journal.append

    def appended(self: Journal, kind_: str, body: Mapping[str, Any]) -> Record:
        record = append(self, kind_, body)
        if next(records) == (int(at) if kind == "record" else 0):
            _die()
        return record

    def happened(event: str, _: tuple[Any, ...]) -> None:
        if event in STEPS and next(steps) == (int(at) if kind == "step" else 0):
            _die()

    setattr(Journal, "append", appended)  # noqa: B010 - a plain assignment is to a method
    podkeeper.SLACK = 0.0  # type: ignore[misc]  # so that nobody has to wait a minute for their end
    sys.addaudithook(happened)
    sys.argv = ["kdnsctl", *words]
    code = main()
    if kind == "count":
        Path(at).write_text(f"{next(records) - 1} {next(steps) - 1}", encoding="ascii")
    return code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
