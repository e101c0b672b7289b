"""Asking before changes: on the terminal, and nothing happens without a yes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kdnsctl.cli import confirming
from kdnsctl.cli.ending import interruptible
from kdnsctl.model import RefusedError

Answer = Callable[[bytes], threading.Thread]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Types a yes that nobody asked for, and an answer when there is a question, on a terminal of its own."""

    def typed(answer: bytes) -> threading.Thread:
        ours, theirs = os.openpty()
        monkeypatch.setattr(confirming, "TERMINAL", os.ttyname(theirs))
        os.write(ours, b"yes\n")

        def watch() -> None:
            shown = b""
            while not shown.endswith(b"Delete this pod? [y/N] "):
                shown += os.read(ours, 1000)
            os.write(ours, answer)

        watcher = threading.Thread(target=watch)
        watcher.start()
        return watcher

    return typed


@pytest.mark.parametrize("answer", [b"y\n", b"YES\n", b" y \n"])
def test_a_yes_is_a_yes_and_was_asked_for(terminal: Answer, answer: bytes) -> None:
    watcher = terminal(answer)
    confirming.confirm("Delete this pod?", yes=False, no_input=False)
    watcher.join()  # it saw the question


@pytest.mark.parametrize("answer", [b"\n", b"n\n", b"yo\n", b"\x04"])
def test_anything_else_is_a_no(terminal: Answer, answer: bytes) -> None:
    watcher = terminal(answer)
    with pytest.raises(RefusedError, match="not confirmed; nothing was changed"):
        confirming.confirm("Delete this pod?", yes=False, no_input=False)
    watcher.join()


def test_ctrl_c_at_the_question_says_that_nothing_was_changed_on_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = os.openpty()
    monkeypatch.setattr(confirming, "TERMINAL", os.ttyname(theirs))
    shown = bytearray()

    def press() -> None:
        while not shown.endswith(b"Delete this pod? [y/N] "):
            shown.extend(os.read(ours, 1000))
        os.kill(os.getpid(), signal.SIGINT)
        while not shown.endswith(b"\n"):
            shown.extend(os.read(ours, 1000))

    watcher = threading.Thread(target=press, daemon=True)
    watcher.start()
    with pytest.raises(KeyboardInterrupt, match="nothing was changed"):
        confirming.confirm("Delete this pod?", yes=False, no_input=False)
    watcher.join(60)
    assert shown.endswith(b"[y/N] \r\n")


def test_nobody_is_asked_who_has_said_yes_or_may_not_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirming, "TERMINAL", str(tmp_path / "none"))
    confirming.confirm("Really?", yes=True, no_input=True)
    for no_input, why in ((True, "--no-input"), (False, "no terminal")):
        with pytest.raises(RefusedError, match=why) as caught:
            confirming.confirm("Really?", yes=False, no_input=no_input)
        assert "--dry-run=client" in caught.value.hint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_being_ended_is_as_ctrl_c_within_the_block_and_ignored_where_it_was(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN)
        with interruptible():
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)
