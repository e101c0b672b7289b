"""What the lab's API asks of whoever runs the pods: logs, exec and port-forward, as plain blocking calls.

The kubelet stand-in implements `PodRuntime`; the API stand-in calls it from worker threads, one per request or
stream, and never from its event loop. So every method may block, must be safe to call from several threads at once,
and everything it returns has a `close()` that may be called from another thread and makes a blocked call return
soon: that is how the API ends a stream when the client hangs up. This module holds no implementation and knows
nothing of HTTP.

The API has checked before it calls: the pod exists in the store, the container is one of its containers, and the
options are valid (the replies for that are the API server's). What only a kubelet can know is said by raising one of
the errors below; the API turns each into the reply a real cluster gives.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class RuntimeRefusal(Exception):  # noqa: N818 - an answer of the node, not an accident
    """The node could not do what was asked; `str()` is the message for the client. Answered with HTTP 500."""


class NodeUnreachable(RuntimeRefusal):
    """No kubelet answers on the pod's node (`str()` says how the connection failed). Answered with HTTP 500."""


class ContainerNotRunning(RuntimeRefusal):
    """The container exists in the spec but has no process to attach to, or no log yet.

    For logs the reply is HTTP 400 `container "c" in pod "p" is waiting to start: REASON`, with `reason` such as
    ContainerCreating; for exec it is HTTP 500 with the message of `str()`.
    """

    def __init__(self, message: str, *, reason: str = "ContainerCreating") -> None:
        super().__init__(message)
        self.reason = reason


class PreviousNotFound(RuntimeRefusal):
    """The container never ended, so there is no earlier log. HTTP 400, as recorded in `api/log-previous-missing`."""


class CommandNotStarted(RuntimeRefusal):
    """The command could not be started, for example because the image does not hold the file.

    A real cluster has switched protocols by then, so this reaches the client on the error channel as an internal
    error with the runtime's text and no exit code of the command.
    """


class PortRefused(RuntimeRefusal):
    """Nothing in the pod listens on the port. Reported on the error channel of that port."""


class Output(enum.Enum):
    """Which of a command's two outputs a chunk came from; with a terminal everything is STDOUT."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a command's output, at least one byte, in the order it was written to its stream."""

    source: Output
    data: bytes


class LogStream(Protocol):
    """Log bytes in the order written. Ends when the log ends, for a followed log when the container ends.

    Chunks need not be whole lines. After `close()` from any thread the iteration ends soon, without an error.
    """

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes: ...

    def close(self) -> None: ...


class ExecSession(Protocol):
    """A command that runs in a container. One thread reads, one writes; `close` may come from a third."""

    def read(self) -> Chunk | None:
        """Block for the next output; None once both streams have ended. What was not asked for is not returned."""
        ...

    def write(self, data: bytes) -> None:
        """Give bytes to the command's standard input. Raises BrokenPipeError when the command no longer reads."""
        ...

    def close_stdin(self) -> None:
        """End the standard input, so that `cat` ends. Idempotent."""
        ...

    def resize(self, width: int, height: int) -> None:
        """Set the terminal's size in characters. Does nothing without a terminal."""
        ...

    def exit_code(self) -> int:
        """Block until the command has ended; its exit status, 128+N when signal N ended it (as containerd says)."""
        ...

    def close(self) -> None:
        """Let go of the session. Idempotent.

        A command that still runs is left alone, as a real runtime leaves it when the client hangs up: its standard
        input ends and its output goes nowhere.
        """
        ...


class PortConnection(Protocol):
    """A connected TCP stream into the pod. A `socket.socket` is one."""

    def recv(self, bufsize: int, /) -> bytes:
        """Block for up to `bufsize` bytes; b"" when the other side has ended its direction."""
        ...

    def sendall(self, data: bytes, /) -> None: ...

    def shutdown(self, how: int, /) -> None:
        """End one or both directions, with the constants of `socket` (SHUT_WR and so on)."""
        ...

    def close(self) -> None: ...


class PodRuntime(Protocol):
    """Runs pods. Every method names the pod as the API does; all raise the errors above and nothing else."""

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
        """The container's log (both outputs interleaved), or that of its previous instance.

        Order of the options, as the kubelet applies them: lines at or after `since_time` (aware, UTC) or not older
        than `since_seconds`; of these the last `tail_lines` (0: none, then follow); each with `timestamps` prefixed by
        its time in RFC 3339 with nine decimals and a space; the whole cut off after `limit_bytes` bytes, even in the
        middle of a line. Raises PreviousNotFound, ContainerNotRunning, NodeUnreachable.
        """
        ...

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
        """Start `command` (never through a shell) in the container's namespaces, files and capabilities.

        Raises CommandNotStarted, ContainerNotRunning, NodeUnreachable.
        """
        ...

    def portforward(self, namespace: str, pod: str, port: int) -> PortConnection:
        """Connect to 127.0.0.1:`port` inside the pod's network namespace. Raises PortRefused, NodeUnreachable."""
        ...
