"""Running the command lines of a step: processes joined by pipes, without a shell, and without an end to Ctrl-C.

Standard input is empty: a command that wants to ask does so on the terminal itself. Ctrl-C reaches the commands as it
reaches us; they are waited for, since they say where they left things.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO

from kdnsctl.model import KdnsctlError
from kdnsctl.runbook.words import LONGEST_VALUE


def check(commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> None:
    """Raises KdnsctlError for a program that is not there."""
    for words in commands:
        if shutil.which(words[0], path=environment.get("PATH")) is None:
            raise KdnsctlError(f"the program {words[0]} is not on this machine", code="programMissing")


def run(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str], *, keep: bool, out: int | None = None
) -> tuple[int, str]:
    """Run commands joined by pipes; return an exit code, and with `keep` what the last one printed, else nothing.

    What the last one prints goes to the file descriptor `out`, None being our own standard output. The code is that of
    the last command that did not end with 0, as with `set -o pipefail`. Raises KdnsctlError for a program that cannot
    be run, and KeyboardInterrupt when all have ended after one.
    """
    begun: list[subprocess.Popen[bytes]] = []
    kept = b""
    try:
        source: int | IO[bytes] = subprocess.DEVNULL
        for place, words in enumerate(commands):
            piped = place + 1 < len(commands) or keep
            try:
                process = subprocess.Popen(
                    words, stdin=source, stdout=subprocess.PIPE if piped else out, env=dict(environment)
                )
            except OSError as error:  # no program, not ours to run, or too many words
                raise KdnsctlError(f"{words[0]} cannot be run: {error.strerror or error}", code="notRun") from error
            begun.append(process)
            if isinstance(source, IO) or hasattr(source, "close"):
                source.close()  # the reader's alone now: when it goes, the writer is told
            source = process.stdout if process.stdout is not None else subprocess.DEVNULL
        if keep and begun[-1].stdout is not None:
            kept = _read(begun[-1].stdout)
    finally:
        interrupted = _wait(begun)
    if interrupted:
        raise KeyboardInterrupt
    return next((code for one in reversed(begun) if (code := _code(one.returncode))), 0), kept.decode(
        "utf-8", "replace"
    )


def _read(stream: IO[bytes]) -> bytes:
    with stream:
        content = stream.read(LONGEST_VALUE + 1)
    if len(content) > LONGEST_VALUE:
        raise KdnsctlError(f"the command prints more than {LONGEST_VALUE // 1024} KiB, too much to be remembered")
    return content


def _wait(begun: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Wait for all; whether Ctrl-C came meanwhile. A second one ends those that still run."""
    interrupted = False
    for process in begun:
        while process.returncode is None:
            try:
                process.wait()
            except KeyboardInterrupt:
                if interrupted:
                    for each in begun:
                        with contextlib.suppress(ProcessLookupError):
                            each.terminate()
                interrupted = True
    return interrupted


def _code(returned: int) -> int:
    """As a shell has it: 128 and the number of the signal."""
    return 128 - returned if returned < 0 else returned
