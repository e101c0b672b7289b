"""A time limit for a command on a node whose image has no `timeout`: a shell, `sleep`, and the shell's own `kill`.

The limit stands around the program itself, not around the shells that filter its output or write its trailer: those
end by themselves when it has ended, and the trailer tells that it was stopped. When the command ends in time, the timer
is ended too: nothing is left behind. Whatever happens to us or to the connection, all of it ends when the time is up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LATE: Final = 124
"""The exit code of a command that was stopped, as of timeout(1)."""

# For POSIX shells (tried with dash and bash). The timer is a subshell; on TERM it ends its sleep, which is `$!` if it
# has begun it: `$!` of before is the work. By KILL: between fork and exec, a shell's child loses a TERM. The timer says
# by its exit code that it has stopped the work. What shells tell of ended jobs is kept out of the command's stderr.
LIMIT: Final = (
    'export LC_ALL=C TZ=UTC; limit=$1; shift; "$@" & work=$!; '
    '( trap \'[ "$!" = "$work" ] || kill -KILL "$!"; exit 0\' TERM; '
    f'sleep "$limit" & wait "$!"; kill -KILL "$work"; exit {LATE} ) >/dev/null 2>&1 & timer=$!; '
    'wait "$work" 2>/dev/null; code=$?; kill "$timer" 2>/dev/null; wait "$timer" 2>/dev/null; '
    f'[ "$?" -eq {LATE} ] && code={LATE}; exit "$code"'
)


def limited(command: Sequence[str], seconds: int) -> list[str]:
    """The command line that runs `command` with numeric, untranslated output and in UTC, for `seconds` at most.

    Its exit code is the command's own, or `LATE`.
    """
    if not command or seconds < 1:
        raise ValueError(f"a command, and at least a second: {command!r}, {seconds}")
    return ["sh", "-c", LIMIT, "sh", str(seconds), *command]
