"""Every way a command can end, as an exit code and, when something went wrong, one line on stderr.

Nothing is decided here about what is an error; this is where errors stop. A traceback is shown with --debug only.
"""

from __future__ import annotations

import _thread
import contextlib
import difflib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import typer

from kdnsctl.cli.commands import environment_name
from kdnsctl.cli.options import GLOBAL_GROUPS
from kdnsctl.cli.terminal import OutputError, flush, prepare, tell, words_running
from kdnsctl.model import ExitCode, KdnsctlError

# What a shell reports for a program that SIGPIPE ended (128 + 13): the reader went away before the answer was out, so
# no verdict can be claimed by 0, 3 or 4.
BROKEN_PIPE = 141

# typer's base of everything that is wrong with a command line; it has no public name of its own.
_CommandLineError: Any = typer.BadParameter.__base__


def contain(run: Callable[[], int], *, debug: bool) -> int:
    """Call `run`, flush what it wrote, and return its exit code, or that of the error it raised."""
    if sys.stdout is None or sys.stdout.closed:
        tell("error: standard output is closed; there is nowhere to write the answer to")
        return ExitCode.FAILED
    try:
        with _heard_anywhere():
            code = _flushed(run)
    except KeyboardInterrupt:
        tell("interrupted")
        code = ExitCode.INTERRUPTED
    except KdnsctlError as error:
        tell(f"error: {error}")
        if error.hint:
            tell(f"hint: {_of_command(error.hint)}")
        code = error.exit_code
    except _CommandLineError as error:
        tell(f"error: {usage_message(error)}")
        code = ExitCode.USAGE
    except OutputError as error:
        code = _without_reader(error)
    except OSError as error:  # of something that nobody foresaw, but the system's words say it better than a traceback
        if debug:
            traceback.print_exc()
        place = f": {error.filename}" if error.filename else ""
        tell(f"error: {error.strerror or error}{place} (--debug shows where)")
        code = ExitCode.FAILED
    except Exception as error:  # noqa: BLE001  # the last stop: whatever it is, the operator gets a line, not a page
        if debug:
            traceback.print_exc()
        kind = type(error).__name__
        tell(f"internal error: {kind}: {error}; run with --debug for the traceback, please report")
        code = ExitCode.FAILED
    return int(code)


def _of_command(hint: str) -> str:
    """A hint that names `kdnsctl rbac`, with the command that it is about."""
    from kdnsctl.cli.needing import command_for  # noqa: PLC0415  # imports what everything here is part of

    command = command_for(words_running())
    return hint.replace("`kdnsctl rbac`", f"`kdnsctl rbac {command}`") if command else hint


@contextlib.contextmanager
def _heard_anywhere() -> Iterator[None]:
    """Say Ctrl-C again that came while Python tidied up an object.

    What is raised in a finalizer (urllib3 closes pools in one) ends nothing: Python prints it and goes on.
    """
    usual = sys.unraisablehook

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            usual(unraisable)
            return
        later = threading.Timer(0.01, _thread.interrupt_main)  # not at once: it would be raised in here, and lost too
        later.daemon = True
        later.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = usual


def _flushed(run: Callable[[], int]) -> int:
    prepare()
    try:
        code = run()
    except typer.Exit as exit_:  # --help, --version
        code = exit_.exit_code
    flush()
    return code


def _without_reader(error: OutputError) -> int:
    """The exit code when the answer did not reach its reader; a reader that went away wants no words about it."""
    _discard_output()
    if isinstance(error.__cause__, BrokenPipeError):
        return BROKEN_PIPE
    tell(f"error: the answer could not be written: {error}")
    return ExitCode.FAILED


def _discard_output() -> None:
    """Point stdout at nothing, so that the interpreter's own flush at exit does not complain again."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def usage_message(error: Any) -> str:
    """What is wrong with the command line, in one line that says what is accepted."""
    where = error.ctx.command_path if error.ctx is not None else "kdnsctl"
    if hasattr(error, "option_name"):
        return _option_message(error, where)
    parameter = getattr(error, "param", None)
    if parameter is not None and not error.message:
        return f"{_with_short(error.ctx, parameter)} is missing ('{where} --help' explains it)"
    if parameter is not None:
        prefix = "" if parameter.param_type_name == "argument" else f"{_spelling(error.ctx, parameter)}: "
        return prefix + _lowered(error.message)
    message = _lowered(error.format_message())
    if message.startswith("missing command"):
        return f"no command given; '{where} --help' lists the commands"
    if message.startswith("no such command"):
        if message == "no such command 'version'":  # it is one of kubectl's
            return "unknown command 'version'; did you mean --version?"
        name, guess, close = message.removeprefix("no such command ").partition(". Did you mean ")
        return f"unknown command {name}" + (f"; did you mean {close}" if guess else f" ('{where} --help' lists them)")
    return f"{message} ('{where} --help' explains what is accepted)"


def _option_message(error: Any, where: str) -> str:
    """The line for an option that does not exist, or lacks its value, or has one it does not take."""
    name = error.option_name
    if not hasattr(error, "possibilities"):
        return f"{name} needs a value" if "requires" in error.message else _lowered(error.message)
    if name in _global_options():
        return f"{name} has no effect on '{where}'"
    close = [known for known in error.possibilities or () if _alike(name, known)]
    if close:
        return f"unknown option {name}; did you mean {close[0]}?"
    return f"unknown option {name} ('{where} --help' lists those of '{where}')"


def _alike(name: str, known: str) -> bool:
    """Whether `known` may be what was meant; dashes do not count as letters in common."""
    return difflib.SequenceMatcher(None, name.lstrip("-"), known.lstrip("-")).ratio() >= 0.7


def _spelling(ctx: Any, parameter: Any) -> str:
    """How the operator gave a parameter: as an option, in the environment, in a file, or as a word."""
    if parameter.param_type_name == "argument":
        return str(parameter.human_readable_name)
    long = next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0])
    source = ctx.get_parameter_source(parameter.name) if ctx is not None else None
    if source is not None and source.name == "DEFAULT_MAP":
        return str(ctx.default_map.setting(parameter.name).place)
    return environment_name(long) if source is not None and source.name == "ENVIRONMENT" else str(long)


def _with_short(ctx: Any, parameter: Any) -> str:
    """A parameter by all names that it has: an option is often known by its letter."""
    spelled = _spelling(ctx, parameter)
    short = [name for name in parameter.opts if name.startswith("-") and not name.startswith("--")]
    return f"{spelled} ({', '.join(short)})" if short else spelled


def _lowered(message: str) -> str:
    """As the rest of a line: no capital, no full stop."""
    message = message.rstrip(".")
    return message[:1].lower() + message[1:]


def _global_options() -> set[str]:
    """The spellings of every option that some command accepts globally."""
    spellings: set[str] = set()
    for group in GLOBAL_GROUPS:
        hints = get_type_hints(group, include_extras=True)
        for field in fields(group):
            option = get_args(hints[field.name])[1]
            spellings.update((option.default, *(option.param_decls or ())))
    return spellings
