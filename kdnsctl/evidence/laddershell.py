"""A node as one `NodeShell`, whichever rungs of the ladder it takes: each fact by the first that can begin to read it.

For who reads a node and does not care by which way: what is opened stays open, what failed to open is not tried again.
A command that fails has failed: no pod is made, and nobody logged in, for what is not there on most nodes. What
kube-proxy is asked over HTTP goes through its pod, if that runs. Nothing on a node is changed by this way.
"""

from __future__ import annotations

import contextlib
from typing import Final, Self

from kdnsctl.cancel import CancelScope
from kdnsctl.evidence.nodeside import Way
from kdnsctl.evidence.ways import Ladder
from kdnsctl.model import Fact, KdnsctlError, Toolset
from kdnsctl.reach.shell import NodeShell, Reading, Sink

NO_WAY: Final = "noWay"


class LadderShell:
    """A `NodeShell`. `close` ends what was opened."""

    def __init__(self, ladder: Ladder, node: str) -> None:
        self._node = node
        self._stack = contextlib.ExitStack()
        self._ways = ladder.ways(node, self._stack)
        self._forward: NodeShell | None = ladder.kube_proxy(node)
        self._opened: dict[str, NodeShell | KdnsctlError] = {}
        self._last: NodeShell | None = None
        self._used: dict[str, None] = {}

    @property
    def node(self) -> str:
        return self._node

    @property
    def rung(self) -> str:
        """The rungs that have read something, in words."""
        return ", ".join(self._used)

    @property
    def toolsets(self) -> tuple[Toolset, ...]:
        return self._last.toolsets if self._last else ()

    def can(self, fact: Fact) -> bool:
        if fact.endpoint is not None:
            return self._forward is not None
        return any(way.can(fact) for way in self._ways)

    def command(self, fact: Fact) -> tuple[str, ...] | None:
        return self._last.command(fact) if self._last else None

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        if fact.endpoint is not None:
            if self._forward is None:
                raise KdnsctlError(f"kube-proxy of {self._node} cannot be asked: its pod does not run", code=NO_WAY)
            return self._forward.read(fact, sink, scope=scope)
        tried: list[str] = []
        code = NO_WAY
        for way in self._ways:
            if not way.can(fact):
                continue
            try:
                shell = self._shell(way, scope)
                if not shell.can(fact):
                    tried.append(f"{way.rung}: no tool for it")
                    continue
                reading = shell.read(fact, sink, scope=scope)
            except KdnsctlError as error:
                scope.check()
                tried.append(f"{way.rung}: {error}")
                code = error.code
                continue
            self._used[shell.rung] = None
            self._last = shell
            return reading
        why = "; ".join(dict.fromkeys(tried)) or "there is no way to it"
        raise KdnsctlError(f"{fact.title} of {self._node} cannot be read: {why}", code=code)

    def _shell(self, way: Way, scope: CancelScope) -> NodeShell:
        known = self._opened.get(way.rung)
        if known is None:
            try:
                known = way.open(scope)
            except KdnsctlError as error:
                scope.check()
                known = error
            self._opened[way.rung] = known
        if isinstance(known, KdnsctlError):
            raise known
        return known

    def close(self) -> None:
        """End what was opened."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
