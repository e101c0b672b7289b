"""The node's first process: it starts what the kubelet stand-in asks for and says when it ended.

One per node, PID 1 of the node's PID namespace, in the node's network, mount and host-name namespaces, forked from
the supervisor before it had threads. It keeps no state of pods: a request names everything, and file descriptors
(standard streams, the pod's network namespace) come with it. When it dies, the kernel ends everything on the node.
`AgentClient` is the supervisor's side.
"""

# ruff: noqa: PTH123 - paths here go straight into system calls and argument lists
from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from kdnsctl.lab import container, kernel
from kdnsctl.lab.container import Builtin, Launch, StartError

_MAX_MESSAGE = 1 << 17
_MAX_FDS = 8
ExitHandler = Callable[[int], None]


def serve(channel: socket.socket, builtins: Mapping[str, Builtin]) -> None:
    """Answer requests until the supervisor's side closes. Runs as PID 1 of the node; single-threaded on purpose."""
    wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    running: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        selector.register(wake_r, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is channel:
                    message, fds = _receive(channel)
                    if message is None:
                        return
                    _handle(channel, message, fds, running, builtins)
                else:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_r, 4096)
            _reap(channel, running)


def _reap(channel: socket.socket, running: dict[int, int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        request = running.pop(pid, None)
        if request is not None:
            code = os.waitstatus_to_exitcode(status)
            _send(channel, {"event": "exit", "id": request, "code": code if code >= 0 else 128 - code})


def _handle(
    channel: socket.socket,
    message: dict[str, Any],
    fds: list[int],
    running: dict[int, int],
    builtins: Mapping[str, Builtin],
) -> None:
    request = int(message["id"])
    try:
        if message["op"] == "signal":
            os.kill(int(message["pid"]), int(message["signal"]))
            _send(channel, {"id": request})
            return
        launch = Launch.from_json(message["launch"])
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            _child(channel, message, launch, fds, write_end, builtins)
        os.close(write_end)
        running[pid] = request
        with open(read_end, "rb") as reader:
            report = reader.read().decode(errors="replace")
        lines = report.splitlines()
        first = next((int(line[4:]) for line in lines if line.startswith("pid ")), 0)
        error = next((line[6:] for line in lines if line.startswith("error ")), None)
        if error is not None or not first:
            running.pop(pid, None)  # it ends by itself and is reaped without an event
            _send(channel, {"id": request, "error": error or "the shim ended before it started anything"})
        else:
            _send(channel, {"id": request, "pid": first})
    except (OSError, ValueError, TypeError) as error:
        _send(channel, {"id": request, "error": str(error)})
    finally:
        for fd in fds:
            os.close(fd)


def _child(
    channel: socket.socket,
    message: dict[str, Any],
    launch: Launch,
    fds: list[int],
    report: int,
    builtins: Mapping[str, Builtin],
) -> None:
    try:
        signal.set_wakeup_fd(-1)
        kernel.die_with_parent()
        channel.close()
        builtin = builtins.get(launch.builtin) if launch.builtin else None
        if message["op"] == "start":
            container.run_container(launch, fds[:3], fds[3] if len(fds) > 3 else None, report, builtin)
        else:
            _join_and_run(int(message["target"]), launch, fds[:3], report)
    except OSError as error:
        os.write(report, f"error {error}\n".encode())
    finally:
        os._exit(128)


def _join_and_run(target: int, launch: Launch, streams: Sequence[int], report: int) -> None:
    """Exec: enter all namespaces of the container whose first process is `target`, then run the command there."""
    container.name_shim()
    kinds = ("ipc", "uts", "net", "pid", "mnt")
    handles = [os.open(f"/proc/{target}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
    root = os.open(f"/proc/{target}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for handle in handles:
        kernel.setns(handle)
    os.fchdir(root)
    os.chroot(".")
    os.chdir("/")
    for handle in (*handles, root):
        os.close(handle)
    pid = os.fork()
    if pid == 0:
        try:
            kernel.die_with_parent()
            os.setsid()
            for number, source in enumerate(streams):
                os.dup2(source, number)
            if os.isatty(0):
                _take_terminal()
            container.become(launch)
            container.execute(launch)
        except (OSError, StartError) as error:
            os.write(report, f"error {error}\n".encode())
        finally:
            os._exit(128)
    os.write(report, f"pid {pid}\n".encode())
    container.be_shim_of(pid, [*streams, report])


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    ancillary_size = socket.CMSG_LEN(_MAX_FDS * array.array("i").itemsize)
    data, ancillary, _, _ = channel.recvmsg(_MAX_MESSAGE, ancillary_size, socket.MSG_CMSG_CLOEXEC)
    received = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
    if not data:
        return None, list(received)
    return json.loads(data), list(received)


def _send(channel: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    channel.sendmsg([json.dumps(message).encode()], ancillary)


class AgentGoneError(Exception):
    """The node's first process ended: nothing runs on the node any more."""


class AgentClient:
    """The supervisor's side of one node's agent. Safe to use from several threads."""

    def __init__(self, node: str, channel: socket.socket, on_gone: Callable[[str], None]) -> None:
        self.node = node
        self._channel = channel
        self._on_gone = on_gone
        self._lock = threading.Lock()
        self._next = 0
        self._replies: dict[int, Future[dict[str, Any]]] = {}
        self._exits: dict[int, ExitHandler] = {}
        self._gone = False

    def start_listening(self) -> None:
        """Start the thread that takes replies and exit events; call it once the supervisor may have threads."""
        threading.Thread(target=self._listen, name=f"agent-{self.node}", daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                message, _ = _receive(self._channel)
            except OSError:
                message = None
            if message is None:
                break
            if message.get("event") == "exit":
                with self._lock:
                    handler = self._exits.pop(int(message["id"]), None)
                if handler is not None:
                    handler(int(message["code"]))
                continue
            with self._lock:
                waiting = self._replies.pop(int(message["id"]), None)
            if waiting is not None:
                waiting.set_result(message)
        with self._lock:
            self._gone = True
            open_replies, self._replies = list(self._replies.values()), {}
            handlers, self._exits = list(self._exits.values()), {}
        for future in open_replies:
            future.set_exception(AgentGoneError(f"node {self.node} is gone"))
        for handler in handlers:
            handler(137)
        self._on_gone(self.node)

    def _call(
        self, message: dict[str, Any], fds: Sequence[int] = (), on_exit: ExitHandler | None = None
    ) -> dict[str, Any]:
        future: Future[dict[str, Any]] = Future()
        with self._lock:
            if self._gone:
                raise AgentGoneError(f"node {self.node} is gone")
            self._next += 1
            request = self._next
            self._replies[request] = future
            if on_exit is not None:
                self._exits[request] = on_exit
            try:
                _send(self._channel, {**message, "id": request}, fds)
            except OSError as error:
                self._replies.pop(request, None)
                self._exits.pop(request, None)
                raise AgentGoneError(f"node {self.node} is gone: {error}") from None
        reply = future.result()
        if "error" in reply:
            with self._lock:
                self._exits.pop(request, None)
            raise StartError(reply["error"])
        return reply

    def start(self, launch: Launch, streams: Sequence[int], netns: int | None, on_exit: ExitHandler) -> int:
        """Start a container or plain process; its first process' PID on the node. Raises StartError, AgentGoneError.

        `on_exit` is called with the exit code from the listening thread, possibly before this returns.
        """
        fds = [*streams] if netns is None else [*streams, netns]
        return int(self._call({"op": "start", "launch": launch.to_json()}, fds, on_exit)["pid"])

    def execute(self, target: int, launch: Launch, streams: Sequence[int], on_exit: ExitHandler) -> int:
        """Run a command in the container whose first process is `target`. Raises StartError, AgentGoneError."""
        message = {"op": "exec", "target": target, "launch": launch.to_json()}
        return int(self._call(message, list(streams), on_exit)["pid"])

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a process of the node. Raises StartError when it is gone."""
        self._call({"op": "signal", "pid": pid, "signal": number})
