"""Commands in a container, for the rungs that reach a node through one: run by exec, one after the other.

What is run, and in whose pod, is known to the rungs.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster import execs
from kdnsctl.cluster.retries import RetryPolicy
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError
from kdnsctl.reach.readings import ReadingLog, Run


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a pod."""

    connection: Connection
    namespace: str
    pod: str
    name: str

    def running(
        self,
        log: ReadingLog,
        scope: CancelScope,
        seconds: float,
        *,
        before: tuple[str, ...] = (),
        retry: RetryPolicy | None = None,
    ) -> Run:
        """What runs a command line in it, for `seconds` at most, with the words of `before` in front of it."""

        def run(line: list[str], stdout: Callable[[bytes], None]) -> None:
            execs.run(
                self.connection,
                execs.ExecRequest(self.namespace, self.pod, self.name, (*before, *line)),
                stdout=stdout,
                stderr=log.complain,
                scope=scope,
                seconds=seconds,
                opened=log.begin,
                retry=retry,
            )

        return run


class Turn:
    """One reading of a node at a time: iptables-save contends for the lock that kube-proxy needs."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def mine(self, scope: CancelScope) -> Iterator[None]:
        """Wait for it, and have it for the length of the block."""
        left = scope.remaining()
        if not self._lock.acquire(timeout=-1 if left is None else left):
            scope.check()
            raise KdnsctlError(
                f"{self._node} was busy with another reading for all the time there was", code="deadline"
            )
        try:
            yield
        finally:
            self._lock.release()
