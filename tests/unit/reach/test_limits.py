from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
from pathlib import Path

import pytest

from kdnsctl.reach.limits import LATE, limited

# The kube-proxy image has dash as `sh`; vendors' images may have bash.
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]


def in_session(session: int) -> list[str]:
    """The processes that are left of a session, by their command lines. Those that are just ending are waited for."""
    left = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                handle = os.pidfd_open(int(directory.name))
                try:
                    if not select.select([handle], [], [], 60)[0]:
                        left.append(command)
                finally:
                    os.close(handle)
    return left


def run(shell: str, *command: str, seconds: int = 50) -> tuple[int, bytes, bytes, list[str]]:
    """Exit code, output, complaints, and what is left running."""
    words = limited(command, seconds)
    assert words[0] == "sh"
    process = subprocess.Popen(
        [shell, *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err, in_session(process.pid)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_the_shells_that_matter_are_here() -> None:
    assert "dash" in SHELLS


@pytest.mark.parametrize("code", [0, 1, 7, 123, 255])
def test_the_exit_code_is_the_commands_own(shell: str, code: int) -> None:
    assert run(shell, "sh", "-c", f"echo out; echo err >&2; exit {code}") == (code, b"out\n", b"err\n", [])


def test_what_was_killed_says_so_and_what_is_not_there_too(shell: str) -> None:
    assert run(shell, "sh", "-c", "kill -9 $$")[0] == 137
    assert run(shell, "no-such-program")[0] == 127


def test_arguments_are_never_read_by_a_shell(shell: str) -> None:
    hostile = "$(touch /tmp/kdnsctl-was-here); `id` 'x' \"y\" *"
    assert run(shell, "printf", "%s", hostile)[1].decode() == hostile


def test_language_and_time_zone_are_set(shell: str) -> None:
    assert run(shell, "sh", "-c", "echo $LC_ALL $TZ")[1] == b"C UTC\n"


def test_a_command_that_hangs_is_stopped_and_nothing_is_left(shell: str) -> None:
    assert run(shell, "sleep", "600", seconds=1) == (LATE, b"", b"", [])


def test_a_command_that_cannot_be_asked_to_stop_is_stopped(shell: str) -> None:
    deaf = "trap '' TERM INT HUP; while :; do read -r _ < /dev/zero; done"
    assert run(shell, shell, "-c", deaf, seconds=1)[0] == LATE


def test_however_fast_a_command_is_no_timer_is_left(shell: str) -> None:
    # The timer's own sleep is begun while it is already being ended: that race is run many times.
    for _ in range(60):
        assert run(shell, "true", seconds=599) == (0, b"", b"", [])


@pytest.mark.parametrize(("command", "seconds"), [((), 5), (("true",), 0)])
def test_nothing_to_run_or_no_time_is_refused(command: tuple[str, ...], seconds: int) -> None:
    with pytest.raises(ValueError, match="a command, and at least a second"):
        limited(command, seconds)
