"""What a probe has measured so far, on stderr: a table that renews itself on a terminal, a line for each elsewhere.

It is told of every attempt, by the threads that ask; it decides nothing.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

from kdnsctl.cli.progress import console
from kdnsctl.cli.terminal import Color, is_dumb, tell, visible
from kdnsctl.probe.measure import Kind, Measured, Watch
from kdnsctl.probe.queries import Attempt

FRAMES = 4  # a second
MOST_ROWS = 24  # on a terminal: what is over and well goes first

_KINDS = {Kind.POD: "pod", Kind.VIP: "VIP", Kind.NODE_LOCAL: "node-local-dns"}


@contextlib.contextmanager
def watching(color: Color) -> Iterator[Watch]:
    """What `probe` tells of its attempts, for as long as the block lasts."""
    if not (sys.stderr is not None and sys.stderr.isatty() and not is_dumb()):
        yield _told
        return
    view = _View()
    with _live(view, color):
        yield view.watch


def title(one: Measured) -> str:
    """Which measurement it is, in a few words."""
    batch, backend = one.target.batch, one.target.backend
    named = f"{_KINDS[one.target.kind]} {backend.pod if backend and backend.pod else one.target.address}"
    ports = f", {len(batch.ports)} held ports" if batch.ports else ""
    return f"{named} {batch.over.value}{ports}"


def state(one: Measured) -> str:
    """How far it is."""
    told = one.told
    if not told.sent and one.problem is not None:
        return f"not measured: {one.problem.message}"
    typical = told.percentile(0.5)
    took = "" if typical is None else f", {typical:.1f} ms"
    unsent = f", {told.unsent} not sent" if told.unsent else ""
    return f"{told.answered} of {told.sent} answered{unsent}{took}"


def _told(place: str, one: Measured, attempt: Attempt | None) -> None:
    """Plain lines: one when a measurement is over."""
    if attempt is None:
        tell(f"{place or 'this machine'}: {title(one)}: {state(one)}")


class _View:
    """The rows, by place and measurement."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, int], tuple[Measured, bool]] = {}

    def watch(self, place: str, one: Measured, attempt: Attempt | None) -> None:
        with self._lock:
            self._rows[place, id(one)] = one, attempt is None

    def __rich__(self) -> Any:
        from rich.table import Table  # noqa: PLC0415  # loaded by `_live`
        from rich.text import Text  # noqa: PLC0415

        with self._lock:
            rows = [(place, one, over) for (place, _), (one, over) in self._rows.items()]
        shown = Table.grid(padding=(0, 2))
        for place, one, over in _most_telling(rows):
            lost = one.told.lost
            style = "red" if lost and not one.told.answered else "yellow" if lost else "green" if over else ""
            words = (place or "this machine", title(one), state(one))
            shown.add_row(*(Text(visible(word), style=style) for word in words))
        return shown


def _most_telling(rows: list[tuple[str, Measured, bool]]) -> list[tuple[str, Measured, bool]]:
    spare = len(rows) - MOST_ROWS
    kept = []
    for row in rows:
        if spare > 0 and row[2] and not row[1].told.lost:
            spare -= 1
        else:
            kept.append(row)
    return kept[-MOST_ROWS:]


def _live(view: _View, color: Color) -> Any:
    from rich.live import Live  # noqa: PLC0415  # costs ten times a short run

    return Live(
        view,
        console=console(color),
        refresh_per_second=FRAMES,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
