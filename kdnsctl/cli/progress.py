"""How far long work is, on stderr: a bar on a terminal, a few plain lines elsewhere.

A bar appears only when the work lasts; short work leaves the screen alone and never pays for importing rich. Plain
lines come at each quarter, or when the amount has doubled: often enough to see life, seldom enough for a build log.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kdnsctl.cli.terminal import Color, has_color, is_dumb, tell, visible
from kdnsctl.model import Reporter

PATIENCE = 0.3  # seconds of work before a bar is worth showing


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
    """Plain lines. Nothing is said of work that is over before its first quarter is."""

    def __init__(self) -> None:
        self._what = ""
        self._total: int | None = None
        self._next = 0.0

    def started(self, what: str, total: int | None) -> None:
        self._what, self._total, self._next = what, total, (total or 0) / 4

    def advanced(self, done: int, total: int | None = None) -> None:
        if total is not None and total != self._total:
            self._total, self._next = total, max(self._next, total / 4)
        if not self._total:
            if done and done >= self._next:
                self._next = done * 2
                tell(f"{self._what}: {done}")
        elif self._next <= done < self._total:
            self._next = (done * 4 // self._total + 1) * self._total / 4
            tell(f"{self._what}: {100 * done // self._total}%")

    def noted(self, message: str) -> None:
        tell(message)

    def finished(self) -> None:
        pass


class BarReporter:
    """A bar that goes away when the work is done. What is noted stays above it."""

    def __init__(self, color: Color) -> None:
        self._color = color
        self._bar: Any = None
        self._task: Any = None
        self._what = ""
        self._since = 0.0

    def started(self, what: str, total: int | None) -> None:
        self.finished()
        self._what, self._since = what, time.monotonic()
        self._total = total

    def advanced(self, done: int, total: int | None = None) -> None:
        if total is not None:
            self._total = total
        if self._bar is None and time.monotonic() - self._since >= PATIENCE:
            self._bar, self._task = _bar(self._what, self._color)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self._total)

    def noted(self, message: str) -> None:
        if self._bar is None:
            tell(message)
            return
        from rich.text import Text  # noqa: PLC0415  # already loaded by the bar

        self._bar.console.print(Text(visible(message)), soft_wrap=True)

    def finished(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _bar(what: str, color: Color) -> tuple[Any, Any]:
    from rich import progress  # noqa: PLC0415  # costs ten times a short run
    from rich.console import Console  # noqa: PLC0415

    colored = has_color(sys.stderr, color)
    console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False, no_color=not colored)
    bar = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=None),
        progress.TaskProgressColumn(markup=False),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    bar.start()
    return bar, bar.add_task(visible(what), total=None)
