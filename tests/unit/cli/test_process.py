"""What only a process of its own can show: what is imported, signals, pipes, completion in a shell."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"kubernetes", "paramiko", "dns", "pydantic", "yaml", "msgspec", "re2", "jsonschema"}
KDNSCTL = [sys.executable, "-m", "kdnsctl"]

TELL_MODULES = (
    "import sys; from kdnsctl.__main__ import main; code = main(sys.argv[1:]); "
    "sys.stderr.write(' '.join(sorted({name.partition('.')[0] for name in sys.modules}))); sys.exit(code)"
)


def start(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **changes}
    )


def imported_by(*arguments: str, **environment: str) -> set[str]:
    ran = start("-c", TELL_MODULES, *arguments, **environment)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stderr.split())


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["find-affected", "--help"], ["signatures"], ["completion", "bash"]]
)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    assert imported_by(*arguments) & (HEAVY | {"rich"}) == set()


def test_version_imports_next_to_nothing() -> None:
    loaded = imported_by("--version")
    assert loaded & {"typer", "typing", "dataclasses", "enum", "re", "inspect"} <= imported_by_python()
    assert "typer" not in loaded


def imported_by_python() -> set[str]:
    return set(start("-c", "import sys; print(' '.join(sys.modules))").stdout.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("fi", ["find-affected"]),
        ("signatures CT_L", ["CT_LIST_FAIL"]),
        ("find-affected --signature CT_L", ["CT_LIST_FAIL"]),
        ("--color never find-affected -o ''", ["table", "wide", "json", "yaml", "name"]),
        ("find-affected --since-", ["--since-time"]),
        ("find-affected --conte", ["--context"]),
        ("find-affected --logs /e", []),  # nothing: the shell then offers files
    ],
)
def test_tab_offers_and_imports_nothing_heavy(words: str, offered: list[str]) -> None:
    line = f"kdnsctl {words}"
    last = str(len(line.split()) - 1)
    ran = start("-c", TELL_MODULES, _KDNSCTL_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=last)
    assert ran.stdout.split() == offered
    assert set(ran.stderr.split()) & (HEAVY | {"rich"}) == set()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_tab_explains_in_shells_that_can_show_it_and_does_not_import_rich_for_it(shell: str) -> None:
    ran = start(
        "-c",
        TELL_MODULES,
        _KDNSCTL_COMPLETE=f"complete_{shell}",
        _TYPER_COMPLETE_ARGS="kdnsctl find-affected --since",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert "Judge from this moment on" in ran.stdout
    assert "rich" not in ran.stderr.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_serves_both_names(shell: str) -> None:
    ran = start("-m", "kdnsctl", "completion", shell)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "_KDNSCTL_COMPLETE=complete_" + shell in ran.stdout
    for name in ("kdnsctl", "kubectl-kdns"):
        assert any(line.endswith(f" {name}") or f"--command {name} " in line for line in ran.stdout.splitlines())


def test_the_bash_script_completes_in_bash(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    command = tmp_path / "kdnsctl"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kdnsctl "$@"\n')
    command.chmod(0o755)
    script = (
        "source <(kdnsctl completion bash); COMP_WORDS=(kdnsctl find-affected --since-); COMP_CWORD=2; "
        '_kdnsctl_completion kdnsctl; echo "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    ran = subprocess.run(
        [bash, "--norc", "-c", script], capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    )
    assert (ran.stdout, ran.stderr) == ("--since-time\n", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["signatures"], ["signatures", "-o", "json"]])
class TestOutputThatFails:
    def test_a_reader_that_goes_away_is_no_error_and_no_verdict(self, arguments: list[str], unbuffered: str) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        ran = subprocess.run(
            [*KDNSCTL, *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
        os.close(writing)
        assert (ran.returncode, ran.stderr) == (141, "")

    def test_a_full_disk_is_said_in_one_line(self, arguments: list[str], unbuffered: str) -> None:
        with Path("/dev/full").open("w") as full:
            ran = subprocess.run(
                [*KDNSCTL, *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            )
        assert ran.returncode == 1
        assert ran.stderr == "error: the answer could not be written: No space left on device\n"

    def test_a_closed_stdout_is_said_in_one_line(self, arguments: list[str], unbuffered: str) -> None:
        closing = ["sh", "-c", 'exec "$@" >&-', "sh", *KDNSCTL, *arguments]
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        ran = subprocess.run(closing, stderr=subprocess.PIPE, text=True, check=False, env=environment)
        assert ran.returncode == 1
        assert ran.stderr == "error: standard output is closed; there is nowhere to write the answer to\n"


def test_a_closed_stdin_is_said_in_one_line() -> None:
    closing = ["sh", "-c", 'exec "$@" <&-', "sh", *KDNSCTL, "find-affected", "--logs", "-"]
    ran = subprocess.run(closing, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (2, "error: --logs - reads standard input, but it is closed\n")


def test_an_encoding_without_the_characters_spells_them_out() -> None:
    ran = start("-m", "kdnsctl", "signatures", PYTHONIOENCODING="ascii")
    assert ran.returncode == 0
    assert "1.9\\u20131.31" in ran.stdout
    ran = start("-m", "kdnsctl", "signatures", "-o", "json", PYTHONIOENCODING="latin-1")
    assert '"1.9–1.31"' in ran.stdout  # JSON is UTF-8 whatever the terminal is


def test_ctrl_c_ends_with_130_and_one_line() -> None:
    master, slave = os.openpty()
    command = [*KDNSCTL, "find-affected", "--logs", "-"]
    with subprocess.Popen(
        command,
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        os.close(slave)
        assert running.stderr is not None
        assert running.stderr.readline() == "reading a log from the terminal; Ctrl-D ends it\n"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    os.close(master)
    assert (running.returncode, out, err) == (130, "", "interrupted\n")


def test_ctrl_c_that_comes_while_python_tidies_up_still_ends_the_command() -> None:
    """What is raised in a finalizer is printed and forgotten by Python."""
    program = """
import sys, threading
from kdnsctl.cli import failures

class Tidied:
    def __del__(self):
        raise KeyboardInterrupt

def run():
    Tidied()
    threading.Event().wait(60)
    return 0

sys.exit(failures.contain(run, debug=False))
"""
    ran = start("-c", program)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "interrupted\n")
