"""Asking the operator before anything is changed: on the terminal, never on standard input, which may be a pipe.

What will be done is shown by the command, on stderr; here it is only asked for.
"""

from __future__ import annotations

import contextlib
import termios

from kdnsctl.model import RefusedError

TERMINAL = "/dev/tty"


class ClosedError(RefusedError):
    """The operator has no more to say: the end of the input, Ctrl-D."""


def confirm(question: str, *, yes: bool, no_input: bool) -> None:
    """Return when the operator agrees, or has by --yes. Raises RefusedError when not, and where nobody can be asked.

    Ctrl-C stays KeyboardInterrupt, and says that nothing was changed.
    """
    if yes:
        return
    hint = "repeat with --yes, or see first what would be done: --dry-run=client"
    if no_input:
        raise RefusedError("nobody may be asked (--no-input); nothing was changed", hint=hint)
    try:
        said = ask(f"{question} [y/N]", no_input=False)
    except ClosedError:
        said = ""
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("nothing was changed") from error
    except RefusedError as error:
        raise RefusedError("there is no terminal to ask on; nothing was changed", hint=hint) from error
    if said not in ("y", "yes"):
        raise RefusedError("not confirmed; nothing was changed")


def ask(question: str, *, no_input: bool, lower: bool = True) -> str:
    """What the operator types, one line, in small letters unless `lower` is False.

    What was typed before the question was there is no answer to it, and is thrown away.
    Raises ClosedError at the end of what is typed, and RefusedError when nobody can be asked.
    """
    if no_input:
        raise RefusedError("nobody may be asked (--no-input)")
    try:
        with (
            open(TERMINAL, encoding="utf-8", errors="replace") as answers,  # noqa: PTH123 - a device, not a path
            open(TERMINAL, "w", encoding="utf-8") as questions,  # noqa: PTH123
        ):
            with contextlib.suppress(termios.error):
                termios.tcflush(answers.fileno(), termios.TCIFLUSH)
            try:
                questions.write(f"{question} ")
                questions.flush()
                line = answers.readline()
            except KeyboardInterrupt:
                questions.write("\n")  # what is said next begins a line
                raise
    except OSError as error:
        raise RefusedError("there is no terminal to ask on") from error
    if not line:
        raise ClosedError("nothing was answered")
    said = line.strip()
    return said.lower() if lower else said
