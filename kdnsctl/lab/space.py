"""The lab's life from outside: up, down, status, shell, env. Small functions with typed options and results.

These run in the caller's process and change nothing on the machine but the lab's own directory: the listening socket
for the API is made here, on loopback, and handed down, because a socket belongs to the namespace it was made in. All
else happens in the namespaces that `spaceinit` makes. `down` needs nobody's cooperation: it ends the lab's first
process by the kernel, waits for that, and removes the directory.
"""

# ruff: noqa: PTH109, PTH123 - paths here go straight into system calls and argument lists
from __future__ import annotations

import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kdnsctl.lab import control, enter
from kdnsctl.lab.spacedir import (
    Identity,
    LabDir,
    LabError,
    check_owner,
    create,
    is_running,
    lab_dir,
    locked,
    read_identity,
    remove,
)

DEFAULT_NAME = "default"
DEFAULT_VERSION = "v1.30.14"
_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What lab to build. `rootless` None: without root unless the caller is root; `port` 0: any free one."""

    name: str = DEFAULT_NAME
    nodes: int = 3
    kube_proxy_version: str = DEFAULT_VERSION
    kube_proxy_verbosity: int = 2
    kube_proxy_json: bool = False
    """Log in JSON, as `--logging-format=json` makes it."""
    rootless: bool | None = None
    ssh: bool = True
    port: int = 0
    timeout: float = 60.0
    root: Path | None = None
    """Directory that holds the labs; None: the user's state directory."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a lab. `running` False with `exists` True: it ended, and its directory waits for `down`."""

    name: str
    exists: bool
    running: bool
    rootless: bool = False
    recorded: bool = False
    directory: Path = Path()
    server: str = ""
    pid: int = 0
    nodes: tuple[dict[str, Any], ...] = ()


def up(options: UpOptions) -> Status:
    """Build a lab and return when its DNS answers on every node. Raises LabError; a lab that failed is removed."""
    if not 1 <= options.nodes <= 50:
        raise LabError(f"a lab has 1 to 50 nodes, not {options.nodes}; nothing was made")
    where = lab_dir(options.name, options.root)
    rootless = os.geteuid() != 0 if options.rootless is None else options.rootless
    settings = {
        "rootless": rootless,
        "nodes": options.nodes,
        "version": options.kube_proxy_version,
        "verbosity": options.kube_proxy_verbosity,
        "json": options.kube_proxy_json,
        "ssh": options.ssh,
    }
    create(where)
    try:
        start_process(where, "kdnsctl.lab.spaceinit", settings, port=options.port, timeout=options.timeout)
    except BaseException as failure:
        log = _last_lines(where.log_file, 15)
        down(options.name, root=options.root)
        if isinstance(failure, LabError):
            said = f"\nIts log ended with:\n{log}" if log else ""
            raise LabError(
                f"{failure}{said}\nThe lab was removed again. `kdnsctl lab doctor` checks the machine."
            ) from None
        raise
    return status(options.name, root=options.root)


def start_process(
    where: LabDir, module: str, settings: dict[str, Any], *, port: int = 0, timeout: float = 60.0
) -> None:
    """Run `module` with the settings, a listening socket on loopback and a pipe on which it says when it is ready.

    The module returns once the process that stays is recorded; what it prints goes to the lab's log. Raises LabError.
    """
    with socket.create_server(("127.0.0.1", port)) as listener:
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        with (
            open(ready_read, "rb", buffering=0) as ready,
            open(ready_write, "wb", buffering=0) as said,
            _log(where) as log,
        ):
            fds = {"ready_fd": ready_write, "listen_fd": listener.fileno()}
            argument = json.dumps({"root": str(where.root), **fds, **settings})
            # -P and PYTHONPATH: the very package that runs now, not one that lies in the current directory.
            package = str(Path(__file__).resolve().parents[2])
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", module, argument],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(ready_write, listener.fileno()),
                start_new_session=True,
                cwd="/",
                env={**_passed_on(os.environ), "PYTHONPATH": os.pathsep.join([package, *sys.path[1:]])},
            )
            said.close()
            try:
                child.wait()
            except BaseException:  # interrupted: what is not recorded by now never will be
                child.kill()
                child.wait()
                raise
            _await_ready(ready.fileno(), timeout)


def _log(where: LabDir) -> BinaryIO:
    try:
        return open(where.log_file, "ab")
    except FileNotFoundError:
        raise LabError(f"{where.root} was removed while the lab came up") from None


def _passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """What the lab's processes may know of the caller's environment: any pod that sees a node's processes reads it."""
    return {key: value for key, value in environment.items() if key in _PASSED_ON or key.startswith("LC_")}


def _await_ready(fd: int, timeout: float) -> None:
    """Read what the lab says about its start until it says ready. Raises LabError on an error, an end or too late."""
    text = b""
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    while b"ready\n" not in text:
        if not waiting.poll(timeout * 1000):
            raise LabError(f"the lab was not ready within {timeout:.0f} s")
        data = os.read(fd, 4096)
        if not data:
            message = text.decode(errors="replace").strip().removeprefix("error ")
            raise LabError(message or "the lab ended while it started, without a word")
        text += data


def _last_lines(path: Path, count: int) -> str:
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
    except OSError:
        return ""


def down(name: str = DEFAULT_NAME, *, root: Path | None = None) -> bool:
    """End the lab and remove everything of it. True when there was something; safe to repeat.

    Raises LabError when the directory could not be removed; before anything is done, when it is not the caller's, or
    when its record cannot be read.
    """
    where = lab_dir(name, root)
    check_owner(where)
    with locked(where) as present:
        if not present:
            return False
        _end(read_identity(where))
        try:
            remove(where)
        except OSError as error:
            raise LabError(
                f"the lab's processes are ended, but {error.filename} could not be removed: {error.strerror}"
            ) from None
    return True


def _end(identity: Identity | None) -> None:
    """Kill the recorded first process, if it is still that one, and wait until all processes of the lab are gone."""
    if identity is None:
        return
    try:
        handle = os.pidfd_open(identity.pid)
    except OSError:
        return
    try:
        # The handle is taken first and the start time compared then: a PID cannot change hands in between.
        if is_running(identity):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            # The first process of a PID namespace ends only after all others in it did.
            select.select([handle], [], [])
    finally:
        os.close(handle)


def status(name: str = DEFAULT_NAME, *, root: Path | None = None) -> Status:
    """What state the lab is in, with its nodes and what its DNS clients count. Never changes anything."""
    where = lab_dir(name, root)
    if not where.root.exists():
        return Status(name, exists=False, running=False, directory=where.root)
    identity = read_identity(where)
    if identity is None or not is_running(identity):
        return Status(name, exists=True, running=False, directory=where.root)
    try:
        reply = control.ask(where, {"op": "status"})
    except LabError:
        reply = {"server": "", "nodes": []}  # it is coming up, or going down
    return Status(
        name,
        exists=True,
        running=True,
        rootless=identity.rootless,
        recorded=identity.recorded,
        directory=where.root,
        server=reply["server"],
        pid=identity.pid,
        nodes=tuple(reply["nodes"]),
    )


def running_lab(name: str, root: Path | None = None) -> LabDir:
    """The directory of a lab that runs. Raises LabError that says what to do when none does."""
    where = lab_dir(name, root)
    if not is_running(read_identity(where)):
        if where.root.exists():
            raise LabError(f"the lab {name!r} is not running any more; clear it away with: kdnsctl lab down {name}")
        raise LabError(f"there is no lab {name!r}; make one with: kdnsctl lab up {name}")
    return where


def shell_command(
    command: Sequence[str] = (), *, name: str = DEFAULT_NAME, node: str | None = None, root: Path | None = None
) -> list[str]:
    """The command line that runs `command` (default: the user's shell) inside the lab, to be executed by the caller.

    Without `node` it runs in the hub, where every node answers and `ip netns exec NODE` works; with it, in that
    node's own namespaces and files.
    """
    where = running_lab(name, root)
    identity = read_identity(where)
    if identity is None:
        raise LabError(f"the lab {name!r} ended a moment ago; clear it away with: kdnsctl lab down {name}")
    words = list(command) or [os.environ.get("SHELL", "/bin/sh")]
    user = ["-U", "--preserve-credentials"] if identity.rootless else []
    enter = ["nsenter", "-t", str(identity.pid), *user, "-n", "-m", "-p", "-u", "-i"]
    if node is None:
        directory = os.getcwd()
        return (
            [*enter, f"--wd={directory}", "--", *words] if not directory.startswith("/run/") else [*enter, "--", *words]
        )
    pid = control.ask(where, {"op": "node-pid", "node": node})["pid"]
    # Inside the lab's PID namespace the node's first process has another number than outside.
    return [*enter, "--", "nsenter", "-t", str(pid), "-n", "-m", "-p", "-u", "-i", "--", *words]


def shell(
    command: Sequence[str] = (), *, name: str = DEFAULT_NAME, node: str | None = None, root: Path | None = None
) -> int:
    """Run a command inside the lab with the caller's terminal; its exit code. Raises LabError when there is no lab."""
    where = running_lab(name, root)
    identity = read_identity(where)
    if identity is None:
        raise LabError(f"the lab {name!r} ended just now; clear it away with: kdnsctl lab down {name}")
    if identity.recorded:
        raise LabError(f"the lab {name!r} plays recordings: there is nothing to enter")
    node_pid = None if node is None else int(control.ask(where, {"op": "node-pid", "node": node})["pid"])
    # Debian gives users a PATH without the tools that a lab is looked at with.
    path = os.pathsep.join(filter(None, (os.environ.get("PATH"), "/usr/local/sbin:/usr/sbin:/sbin")))
    home = {} if node is None else {"HOME": "/run/home"}  # a node's own; that of the machine is read-only there
    words = list(command) or [os.environ.get("SHELL", "/bin/sh")]
    return enter.run(identity, words, {**os.environ, "PATH": path, **home, **environment(where)}, node_pid=node_pid)


def environment(where: LabDir) -> dict[str, str]:
    """Variables that make kubectl and kdnsctl speak to the lab, from any shell of the machine."""
    return {"KUBECONFIG": str(where.kubeconfig), "KDNSCTL_SSH_CONFIG": str(where.ssh / "config")}


def env(name: str = DEFAULT_NAME, *, root: Path | None = None) -> str:
    """Lines for `eval "$(kdnsctl lab env)"`. Raises LabError when the lab does not run."""
    return _exports(running_lab(name, root))


def no_env(name: str, *, root: Path | None = None) -> str:
    """Lines for the same when there is no such lab: they fail, and lead nowhere.

    Left as it was, the shell would go on to speak to another cluster; without KUBECONFIG it would, too.
    """
    return _exports(lab_dir(name, root)) + "false\n"


def _exports(where: LabDir) -> str:
    return "".join(f"export {key}={shlex.quote(value)}\n" for key, value in environment(where).items())
