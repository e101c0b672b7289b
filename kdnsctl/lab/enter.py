"""Running a command inside the lab from an ordinary terminal: into the namespaces by system calls, as its parent.

`nsenter` would do for scripts. It stands between the terminal and the command, though, and a Ctrl-C that the command
wants for itself (a ping that prints its statistics, an interpreter) ends it, so that the shell comes back too early.
Here the processes in between leave those signals to the command.

Nothing is known here of nodes: the caller says by PID whose namespaces to enter.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdnsctl.lab import kernel
from kdnsctl.lab.spacedir import Identity, LabError, is_running

_OF_A_LAB = kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWPID | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC
_OF_A_NODE = ("mnt", "net", "uts", "ipc", "pid")
_FOR_THE_COMMAND = (signal.SIGINT, signal.SIGQUIT)


def run(
    identity: Identity, words: Sequence[str], environment: Mapping[str, str], *, node_pid: int | None = None
) -> int:
    """Run `words` with this process's terminal and files; its exit code, 128 + N when signal N ended it.

    `node_pid` is the first process of a node, as the lab counts PIDs; None stays in the hub. 127: there is no such
    command, 126: it cannot be run; the reason is on stderr. The calling process stays where it is. When it is killed,
    the command gets a SIGHUP.

    Raises LabError when the namespaces cannot be entered.
    """
    try:
        handle = os.pidfd_open(identity.pid)
    except OSError as error:
        raise LabError(f"the lab's first process is gone: {error.strerror}") from None
    if not is_running(identity):  # asked after the handle was taken: a PID cannot change hands in between
        os.close(handle)
        raise LabError("the lab's first process is gone")
    trouble_read, trouble_write = os.pipe2(os.O_CLOEXEC)
    before = {number: signal.signal(number, lambda *_: None) for number in _FOR_THE_COMMAND}
    try:
        between = os.fork()
        if between == 0:
            os.close(trouble_read)
            _go_between(handle, identity, node_pid, list(words), environment, trouble_write)
        os.close(trouble_write)
        with os.fdopen(trouble_read, "rb") as trouble:
            said = trouble.read().decode(errors="replace")
        code = os.waitstatus_to_exitcode(os.waitpid(between, 0)[1])
    finally:
        os.close(handle)
        for number, handler in before.items():
            signal.signal(number, handler)
    if said:
        raise LabError(f"the lab could not be entered: {said}")
    return code if code >= 0 else 128 - code


def _go_between(
    handle: int,
    identity: Identity,
    node_pid: int | None,
    words: list[str],
    environment: Mapping[str, str],
    trouble: int,
) -> None:
    """Enter, start the command, and end as it ends. Never returns."""
    code = 1
    try:
        kernel.die_with_parent()
        directory = Path.cwd()
        kernel.setns(handle, _OF_A_LAB | (kernel.CLONE_NEWUSER if identity.rootless else 0))
        if node_pid is not None:
            ways = [os.open(f"/proc/{node_pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in _OF_A_NODE]
            for way in ways:
                kernel.setns(way)
        # Where the caller stands exists inside too, except below directories that the lab has its own of.
        for place in (directory, Path("/")):
            with contextlib.suppress(OSError):
                os.chdir(place)
                break
        command = os.fork()
        if command == 0:
            _become(words, environment)
        os.close(trouble)
        result = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
        code = result if result >= 0 else 128 - result
    except OSError as error:
        os.write(trouble, str(error).encode())
    finally:
        os._exit(code)


def _become(words: list[str], environment: Mapping[str, str]) -> None:
    try:
        kernel.die_with_parent(signal.SIGHUP)
        # Python ignores SIGPIPE; what is started here must not.
        for number in (*_FOR_THE_COMMAND, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(words[0], words, dict(environment))  # noqa: S606  # no shell: the words are the command
    except OSError as error:
        why = "there is no such command" if isinstance(error, FileNotFoundError) else error.strerror
        sys.stderr.write(f"error: {words[0]}: {why}\n")
        sys.stderr.flush()
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)
    finally:
        os._exit(126)
