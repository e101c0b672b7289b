"""A runbook with somebody at the terminal: what is answered, what is typed for variables, and Ctrl-C."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdnsctl.cli import confirming
from tests.unit.runbook.conftest import Run
from tests.unit.runbook.test_runbook import page, report

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 120  # seconds; a process begins late on a machine that is busy
Type = Callable[..., None]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Type]:
    """Types the next of its answers when a question is there, on a terminal of its own."""
    ours, theirs = os.openpty()
    monkeypatch.setattr(confirming, "TERMINAL", os.ttyname(theirs))
    answers: list[bytes] = []

    def watch() -> None:
        shown = b""
        while block := os.read(ours, 65536):
            shown += block
            if shown.endswith(b": ") and answers:
                shown = b""
                os.write(ours, answers.pop(0))
            elif shown.endswith(b"\x00"):
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield lambda *keys: answers.extend(keys)
    os.write(theirs, b"\x00")
    watcher.join(PATIENCE)
    os.close(ours)
    os.close(theirs)
    assert answers == []


def test_an_answer_that_is_none_runs_nothing_and_is_asked_for_again(kdnsctl: Run, typed: Type) -> None:
    steps = [("Reads", "mkdir one", "go on"), ("Changes", "mkdir two", "go on"), ("By hand", "mkdir three", "done")]
    Path("books/mine.md").write_text(page(*steps), "utf-8")
    typed(b"\n", b"n\n", b"maybe\n", b"s\n", b"YES\n", b"y\n")
    code, out, err = kdnsctl("run", "mine", "-o", "json")
    assert (code, report(out)["end"]) == (4, "done")  # a step was left out
    assert [(step["step"], step["choice"]) for step in report(out)["steps"]] == [(1, "skip"), (2, "run"), (3, "run")]
    assert sorted(each.name for each in Path().iterdir() if each.name in ("one", "two", "three")) == ["two"]
    assert err.count("y runs it. s leaves it out and goes on with the next. q quits here") == 3
    assert "left out: step 1" in err


@pytest.mark.parametrize("keys", [b"q\n", b"quit\n", b"\x04"])
def test_who_quits_goes_on_there(kdnsctl: Run, typed: Type, keys: bytes) -> None:
    Path("books/mine.md").write_text(page(("Reads", "true", "go on"), ("Changes", "mkdir two", "done")), "utf-8")
    typed(keys)
    code, out, err = kdnsctl("run", "mine", "--incident", "try", "-o", "json")
    assert (code, report(out)["end"], report(out)["next"]) == (5, "left", 1)
    typed(b"y\n", keys)
    code, out, err = kdnsctl("run", "mine", "--incident", "try", "-o", "json")
    assert (code, report(out)["end"], report(out)["next"]) == (4, "left", 2)
    assert "go on with: kdnsctl runbook run mine --incident try" in err
    assert not Path("two").exists()
    typed(b"y\n")
    code, out, err = kdnsctl("run", "mine", "--incident", "try", "-o", "json")
    assert (code, [step["step"] for step in report(out)["steps"]]) == (0, [2])
    assert "begun before" not in err


def test_what_is_typed_for_a_variable_is_words_and_never_a_shells(kdnsctl: Run, typed: Type) -> None:
    Path("books/mine.md").write_text(page(("Reads", "printf '<%s>' $WORDS \"$WORDS\"", "done")), "utf-8")
    typed(b"\n", b"-rf\n", b"$(touch made) a;b `touch made` * | x>made\n", b"y\n")
    code, out, err = kdnsctl("run", "mine", "--incident", "try")
    assert code == 0
    words = ["$(touch", "made)", "a;b", "`touch", "made`", "*", "|", "x>made"]
    assert out.strip() == "".join(f"<{word}>" for word in [*words, " ".join(words)])
    assert "WORDS is empty" in err
    assert "WORDS cannot be '-rf': it would be taken for an option" in err
    assert not Path("made").exists()


def test_a_variable_that_nobody_gives_ends_it_before_its_step(kdnsctl: Run, typed: Type) -> None:
    Path("books/mine.md").write_text(page(("Reads", "touch $WORDS", "done")), "utf-8")
    typed(b"\x04")
    code, _, err = kdnsctl("run", "mine")
    assert code == 2
    assert "WORDS (some words) has no value (give it one: --set WORDS=VALUE)" in err
    code, _, err = kdnsctl("run", "mine", "--yes", "--set", "WORDS=$(touch made)")
    assert code == 0
    assert not Path("made").exists()
    assert Path("$(touch made)").exists()


class Process:
    """kdnsctl in a process of its own, with a terminal of its own from which keys reach its whole group."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = os.openpty()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}

        def take_terminal() -> None:
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        self._running = subprocess.Popen(
            [sys.executable, "-P", "-m", "kdnsctl", "runbook", "run", *arguments, "--runbook-dir", "books"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509  # one system call, and no lock
        )
        os.close(theirs)
        self._shown = b""
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                block = os.read(self._ours, 65536)
            except OSError:
                block = b""
            with self._more:
                self._shown += block
                self._more.notify_all()
            if not block:
                return

    def press(self, keys: bytes, *, when: bytes) -> None:
        with self._more:
            assert self._more.wait_for(lambda: when in self._shown, PATIENCE), self._shown
        os.write(self._ours, keys)

    def end(self) -> tuple[int, bytes, str]:
        out, _ = self._running.communicate(timeout=PATIENCE)
        self._reader.join(PATIENCE)
        os.close(self._ours)
        return self._running.returncode, out, self._shown.decode()


@pytest.mark.usefixtures("kdnsctl")
def test_ctrl_c_in_a_step_and_at_a_question_and_going_on_after_each() -> None:
    # What is typed while a step runs answers no question that comes after it.
    ahead = "sh -c 'echo begun >&2; read line < /dev/tty; echo went on >&2'"
    Path("books/ahead.md").write_text(page(("Reads", ahead, "go on"), ("Changes", "mkdir two", "done")), "utf-8")
    process = Process("ahead", "--yes-to-reads", "--incident", "try")
    process.press(b"over\ny\ny\n", when=b"\nbegun")
    process.press(b"q\n", when=b"It CHANGES something. [y]es, [s]kip, [q]uit:")
    code, _, shown = process.end()
    assert (code, "went on" in shown, Path("two").exists()) == (4, True, False)

    loop = "sh -c 'trap \"echo tidied up >&2; exit 130\" INT; echo begun >&2; while :; do sleep 1; done'"
    Path("books/mine.md").write_text(page(("Changes", loop, "go on"), ("Reads", "true", "done")), "utf-8")
    process = Process("mine", "--yes", "--incident", "try")
    process.press(b"\x03", when=b"\nbegun")
    code, out, shown = process.end()
    assert (code, out) == (130, b"")
    assert shown.index("tidied up") < shown.index("interrupted in step 1; go on with: kdnsctl runbook run mine")

    process = Process("mine", "--yes", "--incident", "try", "-o", "json")
    process.press(b"\x03", when=b"It CHANGES something. [y]es, [s]kip, [q]uit:")  # for all its --yes
    code, out, shown = process.end()
    assert (code, out) == (130, b"")
    assert "begun before and has no known end" in shown
    assert "interrupted before step 1; go on with" in shown

    process = Process("mine", "--yes", "--incident", "try", "-o", "json")
    process.press(b"s\n", when=b"[q]uit:")
    code, out, shown = process.end()
    assert (code, [step["choice"] for step in json.loads(out)["steps"]]) == (4, ["skip", "run"])


def test_a_step_that_is_killed_failed_and_one_that_cannot_begin_was_not_begun(kdnsctl: Run) -> None:
    Path("books/mine.md").write_text(page(("Reads", "sh -c 'kill -9 $$'", "done")), "utf-8")
    code, out, err = kdnsctl("run", "mine", "--yes", "--incident", "try", "-o", "json")
    assert (code, report(out)["end"], report(out)["next"]) == (1, "failed", 1)
    assert "step 1 ended with 137 (ended by signal 9), which the runbook does not expect" in err
    Path("books/other.md").write_text(page(("Changes", "no-such-program-here", "done")), "utf-8")
    for _ in range(2):  # the second time it is not asked for as one that was begun
        code, out, err = kdnsctl("run", "other", "--yes", "--no-input", "--incident", "try", "-o", "json")
        assert (code, report(out)["end"]) == (1, "failed")
        assert "the program no-such-program-here is not on this machine" in err


def test_without_a_terminal_nobody_is_asked(kdnsctl: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(confirming, "TERMINAL", str(tmp_path / "none"))
    Path("books/mine.md").write_text(page(("Reads", "true", "go on"), ("Changes", "mkdir two", "done")), "utf-8")
    code, out, err = kdnsctl("run", "mine", "--incident", "try")
    assert (code, out) == (5, "")
    assert "step 1 has to be agreed to, and there is nobody to ask; nothing was run" in err
    code, out, err = kdnsctl("run", "mine", "--yes-to-reads", "--incident", "try")
    assert (code, "nobody can be asked about step 2" in err) == (4, True)
    assert not Path("two").exists()
