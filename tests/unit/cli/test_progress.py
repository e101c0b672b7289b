"""Progress on stderr: a few lines in a log, a bar on a terminal, and neither on stdout."""

from __future__ import annotations

import sys
import threading

import pytest

from kdnsctl.cli import progress
from kdnsctl.cli.progress import BarReporter, LineReporter, reporting
from kdnsctl.cli.terminal import Color
from tests.unit.cli.reports import HOSTILE
from tests.unit.cli.terminals import on_terminal


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_of_a_known_total_each_quarter_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = LineReporter()
    reporter.started("reading", 1000)
    for done in range(1001):
        reporter.advanced(done)
    reporter.finished()
    assert told(capsys) == ["reading: 250 of 1000", "reading: 500 of 1000", "reading: 750 of 1000"]


def test_of_an_unknown_total_each_doubling_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = LineReporter()
    reporter.started("reading", None)
    for done in range(2500):
        reporter.advanced(done)
    assert told(capsys) == ["reading: 500 done", "reading: 1000 done", "reading: 2000 done"]


def test_a_total_that_becomes_known_later_is_used_from_then_on(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = LineReporter()
    reporter.started("reading", None)
    reporter.advanced(2)
    reporter.advanced(10, 1000)
    reporter.advanced(600)
    assert told(capsys) == ["reading: 600 of 1000"]


@pytest.mark.parametrize("units", [1, 7, 499])
def test_small_work_says_nothing(units: int, capsys: pytest.CaptureFixture[str]) -> None:
    for reporter in (LineReporter(), BarReporter(Color.AUTO)):
        for total in (units, None):
            reporter.started("reading", total)
            for done in range(1, units + 1):
                reporter.advanced(done)
            reporter.advanced(units, units)
            reporter.finished()
    assert told(capsys) == []


def test_before_anything_is_done_no_amount_is_said() -> None:
    assert [progress._amount(0, None), progress._amount(3, None)] == ["", "3 done"]
    assert [progress._amount(0, 8), progress._amount(3, 8)] == ["0 of 8", "3 of 8"]


def test_notes_are_told_at_once_and_made_safe(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting() as reporter:
        reporter.noted(HOSTILE)
    (line,) = told(capsys)
    assert line.isprintable()


def test_without_a_terminal_there_are_lines_and_with_one_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with reporting() as reporter:
        assert isinstance(reporter, LineReporter)

    seen: list[object] = []

    def call() -> int:
        with reporting() as reporter:
            seen.append(reporter)
        return 0

    on_terminal(monkeypatch, call, columns=80)  # TERM is unset: it cannot move the cursor
    monkeypatch.setenv("TERM", "xterm")
    on_terminal(monkeypatch, call, columns=80)
    assert [type(reporter) for reporter in seen] == [LineReporter, BarReporter]


def test_a_bar_shows_how_far_it_is_even_when_the_work_gives_no_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "PATIENCE", 0)
    shown = threading.Event()
    real = progress._bar

    class Watched:
        """Tells when the bar has been started."""

        def __init__(self, bar: object) -> None:
            self.bar = bar

        def __getattr__(self, name: str) -> object:
            return getattr(self.bar, name)

        def start(self) -> None:
            self.bar.start()  # type: ignore[attr-defined]
            shown.set()

    monkeypatch.setattr(progress, "_bar", lambda color: Watched(real(color)))

    def call() -> int:
        with reporting() as reporter:
            reporter.started("reading [bold]" + HOSTILE, 200)
            assert shown.wait(30)
            reporter.noted("by the way [red]")
            reporter.noted("word " * 40)
            reporter.advanced(50)
        return 0

    screen = on_terminal(monkeypatch, call, columns=160)
    assert "reading [bold]evil\\x1b" in screen.text
    assert "by the way [red]\n" in screen.text
    assert f"{'word ' * 31}word\n  {'word ' * 7}word\n" in screen.text
    assert "50 of 200" in screen.text
    assert "\x1b]0;" not in screen.raw
    assert "\u202e" not in screen.raw


def test_the_bar_is_gone_and_the_cursor_is_back_when_the_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "PATIENCE", 0)

    def work() -> None:
        with reporting() as reporter:
            reporter.started("reading", 10)
            raise KeyboardInterrupt

    def call() -> int:
        with pytest.raises(KeyboardInterrupt):
            work()
        sys.stderr.write("after\n")
        return 0

    screen = on_terminal(monkeypatch, call, columns=80)
    assert screen.raw.endswith("after\n")
    assert screen.raw.count("\x1b[?25l") == screen.raw.count("\x1b[?25h")
