"""How far long work is, on stderr: a bar on a terminal, a few plain lines elsewhere.

A bar appears only when the work lasts; short work leaves the screen alone and never pays for importing rich. Plain
lines are for a build log: none for work of fewer than `WORTH_LINES` units, then one at each quarter, or when the amount
has doubled. They go by the amount, not by the time, so that the same work always says the same.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kdnsctl.cli.terminal import Color, columns, filled, has_color, is_dumb, tell, visible
from kdnsctl.model import Reporter

PATIENCE = 0.3  # seconds of work before a bar is worth showing
WORTH_LINES = 500  # units of work from which plain lines are told


@contextmanager
def reporting(color: Color = Color.AUTO) -> Iterator[Reporter]:
    """The Reporter that fits stderr. It is finished in any case when the block is left."""
    on_terminal = sys.stderr is not None and sys.stderr.isatty() and not is_dumb()
    reporter: BarReporter | LineReporter = BarReporter(color) if on_terminal else LineReporter()
    try:
        yield reporter
    finally:
        reporter.finished()


class LineReporter:
    """Plain lines. Nothing is said of work that is over before it has come far."""

    def __init__(self) -> None:
        self._what = ""
        self._total: int | None = None
        self._next = 0.0

    def started(self, what: str, total: int | None) -> None:
        self._what, self._total, self._next = what, total, (total / 4 if total else WORTH_LINES)

    def advanced(self, done: int, total: int | None = None) -> None:
        if total is not None and total != self._total:
            self._total, self._next = total, max(done + 1, total / 4)
        small = self._total is not None and self._total < WORTH_LINES
        if small or done < self._next or done == self._total:
            return
        if self._total:
            self._next = (done * 4 // self._total + 1) * self._total / 4
        else:
            self._next = done * 2
        tell(f"{self._what}: {_amount(done, self._total)}")

    def noted(self, message: str) -> None:
        tell(message)

    def finished(self) -> None:
        pass


class BarReporter:
    """A bar that goes away when the work is done. What is noted stays above it.

    It is started by a timer, not by `advanced`: one huge file may give no sign of life for minutes.
    """

    def __init__(self, color: Color) -> None:
        self._color = color
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._bar: Any = None
        self._task: Any = None
        self._what = ""
        self._done = 0
        self._total: int | None = None

    def started(self, what: str, total: int | None) -> None:
        self.finished()
        self._what, self._done, self._total = what, 0, total
        self._timer = threading.Timer(PATIENCE, self._show)
        self._timer.daemon = True
        self._timer.start()

    def advanced(self, done: int, total: int | None = None) -> None:
        self._done, self._total = done, self._total if total is None else total
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self._total, amount=_amount(done, self._total))

    def noted(self, message: str) -> None:
        with self._lock:
            if self._bar is None:
                tell(message)
            else:
                from rich.text import Text  # noqa: PLC0415  # already loaded by the bar

                self._bar.console.print(Text(filled(message)), soft_wrap=True)

    def finished(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def _show(self) -> None:
        with self._lock:
            if self._timer is not None:
                bar = _bar(self._color)
                self._task = bar.add_task(
                    visible(self._what),
                    completed=self._done,
                    total=self._total,
                    amount=_amount(self._done, self._total),
                )
                bar.start()
                self._bar = bar


def _amount(done: int, total: int | None) -> str:
    """Units done, in words that need no unit; nothing before the first is done, since a 0 only looks like a fault."""
    if total:
        return f"{done} of {total}"
    return f"{done} done" if done else ""


def _bar(color: Color) -> Any:
    from rich import progress  # noqa: PLC0415  # costs ten times a short run

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=None),
        progress.TextColumn("{task.fields[amount]}", markup=False),
        progress.TimeElapsedColumn(),
        console=console(color),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def console(color: Color) -> Any:
    """Rich's view of stderr, which takes nothing for markup."""
    from rich.console import Console  # noqa: PLC0415

    return Console(
        file=sys.stderr,
        width=columns(sys.stderr),
        no_color=not has_color(sys.stderr, color),
        markup=False,
        highlight=False,
        emoji=False,
    )
