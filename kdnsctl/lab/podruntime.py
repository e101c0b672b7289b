"""What the API asks of kubelets (`runtime.PodRuntime`): logs, exec and port-forward, over all nodes of the lab."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import socket
import struct
import termios
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from kdnsctl.lab import kernel
from kdnsctl.lab.agent import AgentGoneError
from kdnsctl.lab.container import StartError
from kdnsctl.lab.kubelet import Kubelet
from kdnsctl.lab.podlogs import LogOptions, LogReader
from kdnsctl.lab.podstate import ContainerState
from kdnsctl.lab.podworker import PodWorker
from kdnsctl.lab.runtime import (
    Chunk,
    CommandNotStarted,
    ContainerNotRunning,
    ExecSession,
    LogStream,
    NodeUnreachable,
    Output,
    PortConnection,
    PortRefused,
    PreviousNotFound,
)

_CHUNK = 65536


def in_network(netns_fd: int, action: Callable[[], socket.socket]) -> socket.socket:
    """Do something that makes a socket inside a network namespace; the socket stays there, the thread is left alone.

    A thread of its own does it, because a thread that entered a namespace and then failed to leave would be a trap.
    """
    result: Future[socket.socket] = Future()

    def work() -> None:
        try:
            kernel.setns(netns_fd, kernel.CLONE_NEWNET)
            result.set_result(action())
        except OSError as error:
            result.set_exception(error)

    thread = threading.Thread(target=work, name="in-network", daemon=True)
    thread.start()
    thread.join()
    return result.result()


class KubeletRuntime:
    """Implements `runtime.PodRuntime` by the kubelets of the lab."""

    def __init__(self, kubelets: dict[str, Kubelet]) -> None:
        self._kubelets = kubelets

    def _find(self, namespace: str, pod: str) -> tuple[Kubelet, PodWorker]:
        for kubelet in self._kubelets.values():
            worker = kubelet.worker(namespace, pod)
            if worker is not None:
                return kubelet, worker
        raise ContainerNotRunning(f"pod {namespace}/{pod} is not known to any kubelet yet")

    def _container(self, namespace: str, pod: str, container: str) -> tuple[Kubelet, PodWorker, ContainerState]:
        kubelet, worker = self._find(namespace, pod)
        state = worker.find(container)
        if state is None:
            raise ContainerNotRunning(f"container {container} is not known to the kubelet yet")
        return kubelet, worker, state

    def logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        previous: bool = False,
        follow: bool = False,
        tail_lines: int | None = None,
        since_time: datetime | None = None,
        since_seconds: int | None = None,
        limit_bytes: int | None = None,
        timestamps: bool = False,
    ) -> LogStream:
        """See `runtime.PodRuntime.logs`."""
        _, _, state = self._container(namespace, pod, container)
        log = state.previous_log if previous else state.log
        if log is None:
            if previous:
                raise PreviousNotFound(f'previous terminated container "{container}" in pod "{pod}" not found')
            raise ContainerNotRunning(f"container {container} has not started", reason=state.waiting[0])
        since = since_time
        if since is None and since_seconds is not None:
            since = datetime.now(UTC) - timedelta(seconds=since_seconds)
        return LogReader(log, LogOptions(follow, tail_lines, since, limit_bytes, timestamps))

    def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        command: Sequence[str],
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool = False,
    ) -> ExecSession:
        """See `runtime.PodRuntime.exec`."""
        kubelet, _, state = self._container(namespace, pod, container)
        if state.pid is None or state.launch is None:
            raise ContainerNotRunning(f'container not found ("{container}")', reason=state.waiting[0])
        environment = dict(state.launch.env)
        if tty:
            environment.setdefault("TERM", "xterm")
        launch = replace(state.launch, argv=tuple(command), builtin=None, env=environment)
        session = _Terminal() if tty else _Pipes(stdin=stdin, stdout=stdout, stderr=stderr)
        try:
            kubelet.agent.execute(state.pid, launch, session.theirs, session.ended)
        except StartError as error:
            session.close()
            text = "failed to exec in container: failed to start exec: OCI runtime exec failed: exec failed: "
            raise CommandNotStarted(f"{text}unable to start container process: {error}: unknown") from None
        except AgentGoneError as error:
            session.close()
            raise NodeUnreachable(f"error dialing backend: {error}") from None
        finally:
            session.let_go_of_theirs()
        return session

    def portforward(self, namespace: str, pod: str, port: int) -> PortConnection:
        """See `runtime.PodRuntime.portforward`."""
        return self.connect(namespace, pod, port)

    def connect(self, namespace: str, pod: str, port: int) -> socket.socket:
        """A TCP connection to 127.0.0.1:port in the pod. Raises PortRefused, NodeUnreachable, ContainerNotRunning."""
        kubelet, worker = self._find(namespace, pod)
        try:
            handle = kubelet.netns_fd(worker.netns)
        except OSError:
            raise NodeUnreachable(f"pod {namespace}/{pod} has no network yet") from None
        try:
            return in_network(handle, lambda: socket.create_connection(("127.0.0.1", port), 10))
        except OSError as error:
            raise PortRefused(f"failed to connect to localhost:{port} inside namespace: {error.strerror}") from None
        finally:
            os.close(handle)


class _Session:
    """What both kinds of exec share: reading what comes, the exit code, closing."""

    def __init__(self) -> None:
        self.theirs: list[int] = []
        self._mine: dict[int, Output] = {}
        self._input: int | None = None
        self._code: Future[int] = Future()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._closed = False

    def ended(self, code: int) -> None:
        """The command ended; called by the agent's listener."""
        self._code.set_result(code)

    def let_go_of_theirs(self) -> None:
        for fd in set(self.theirs):
            os.close(fd)
        self.theirs = []

    def _watch(self, fd: int, source: Output) -> None:
        self._mine[fd] = source
        self._selector.register(fd, selectors.EVENT_READ)

    def read(self) -> Chunk | None:
        with self._reading:
            return self._read()

    def _read(self) -> Chunk | None:
        while self._mine and not self._closed:
            for key, _ in self._selector.select():
                if key.fd == self._wake_read or self._closed:
                    return None
                try:
                    data = os.read(key.fd, _CHUNK)
                except OSError:
                    data = b""  # a terminal whose last process ended says EIO
                if data:
                    return Chunk(self._mine[key.fd], data)
                self._selector.unregister(key.fd)
                del self._mine[key.fd]
                if key.fd != self._input:
                    os.close(key.fd)
        return None

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            if self._input is None:
                raise BrokenPipeError("the command's standard input is closed")
            try:
                rest = rest[os.write(self._input, rest) :]
            except OSError as error:
                raise BrokenPipeError(str(error)) from None

    def close_stdin(self) -> None:
        with self._lock:
            if self._input is not None:
                os.close(self._input)
                self._input = None

    def resize(self, width: int, height: int) -> None:
        """Nothing to do without a terminal."""

    def exit_code(self) -> int:
        return self._code.result()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        os.write(self._wake_write, b"x")
        self.close_stdin()
        threading.Thread(target=self._drain, name="exec-drain", daemon=True).start()

    def _drain(self) -> None:
        """What the command still says goes nowhere: it must neither block on a full pipe nor die of a closed one."""
        with self._reading:
            self._selector.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            for fd in self._mine:
                with contextlib.suppress(OSError):  # a terminal's end is an error
                    while os.read(fd, _CHUNK):
                        continue
                with contextlib.suppress(OSError):  # a terminal was closed with its input
                    os.close(fd)
            self._mine = {}


class _Pipes(_Session):
    def __init__(self, *, stdin: bool, stdout: bool, stderr: bool) -> None:
        super().__init__()
        if stdin:
            theirs, self._input = os.pipe2(os.O_CLOEXEC)
        else:
            theirs = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.theirs = [theirs]
        for wanted, source in ((stdout, Output.STDOUT), (stderr, Output.STDERR)):
            if wanted:
                mine, theirs = os.pipe2(os.O_CLOEXEC)
                self._watch(mine, source)
            else:
                theirs = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
            self.theirs.append(theirs)


class _Terminal(_Session):
    def __init__(self) -> None:
        super().__init__()
        master, slave = os.openpty()
        self._input = master
        self.theirs = [slave, slave, slave]
        self._watch(master, Output.STDOUT)

    def close_stdin(self) -> None:
        """End of input is a character on a terminal; the terminal itself stays until the session is closed."""
        with contextlib.suppress(OSError, BrokenPipeError):
            if not self._closed:
                self.write(b"\x04")
                return
        super().close_stdin()

    def resize(self, width: int, height: int) -> None:
        if self._input is not None:
            fcntl.ioctl(self._input, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
