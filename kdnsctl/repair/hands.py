"""The way to change a node's connection tracking: the first rung of the ladder on which there is a `conntrack`.

    exec into kube-proxy → own pod with NET_ADMIN → privileged pod (if allowed) → SSH

kube-proxy's image has the program up to about 1.31 only, so whether it is there is asked and not supposed. Looking for
it makes no pod: of a pod it is known when it is needed. Which entries are deleted is no business of this module.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.evidence.nodeside import Way
from kdnsctl.evidence.ways import Ladder
from kdnsctl.facts import conntrack, pairs
from kdnsctl.model import Fact, KdnsctlError, Toolset
from kdnsctl.reach.kubeproxyexec import RUNG as EXEC
from kdnsctl.reach.podspec import PodRung
from kdnsctl.reach.shell import ChangingShell, NodeShell, Reading, Sink

NOT_FOUND: Final = 127  # a shell's exit code for a program that is not there
PODS: Final = frozenset(rung.value for rung in PodRung)


class NoToolError(KdnsctlError):
    """On no rung to a node there is a `conntrack` that may be used."""

    code = "noTool"


class Hands:
    """The rungs to one node that may change it. What they open is closed by `close`; used from any thread."""

    def __init__(self, node: str, ladder: Ladder, *, image_named: bool) -> None:
        self.node = node
        self._opened = contextlib.ExitStack()
        self._ways = [way for way in ladder.ways(node, self._opened) if way.can(conntrack.TOOL)]
        self._kube_proxy = ladder.kube_proxy(node)
        self._image_named = image_named
        self._lock = threading.RLock()
        self._shell: ChangingShell | None = None
        self._missing: list[str] = []

    def rung(self, scope: CancelScope) -> str:
        """The rung that will be used, without making a pod to find out. Raises NoToolError, and what ended `scope`."""
        with self._lock:
            while self._shell is None and self._ways and self._ways[0].rung not in PODS:
                self._try_next(scope)
            if self._shell is not None:
                return self._shell.rung
            if not self._ways:
                raise self._none()
            return self._ways[0].rung

    def shell(self, scope: CancelScope) -> ChangingShell:
        """The shell to change the node by, opened now if it is not yet. Raises as `rung`."""
        with self._lock:
            while self._shell is None:
                if not self._ways:
                    raise self._none()
                self._try_next(scope)
            return self._shell

    def close(self) -> None:
        """End what was opened."""
        self._opened.close()

    def _try_next(self, scope: CancelScope) -> None:
        way = self._ways.pop(0)
        try:
            self._shell = self._with_tool(way, scope)
        except KdnsctlError as error:
            scope.check()
            self._missing.append(f"{way.rung}: {error}")
            if way.rung == EXEC and error.code == NoToolError.code and not self._image_named:
                # A pod of our own would run the same image.
                self._ways = [other for other in self._ways if other.rung not in PODS]
                self._missing.append("own pod: no tools image is named (--image)")

    def _with_tool(self, way: Way, scope: CancelScope) -> ChangingShell:
        shell = way.open(scope)
        if not isinstance(shell, ChangingShell):
            raise NoToolError("nothing can be changed by this way")
        answer = pairs.read(shell, pairs.TOOL, scope=scope)
        if answer.value is None:
            if answer.reading.exit_code == NOT_FOUND:
                raise NoToolError(
                    "there is no conntrack in this image" if way.rung == EXEC else "there is no conntrack"
                )
            problem = answer.reading.problem
            raise KdnsctlError(f"conntrack does not run: {problem.message if problem else 'it names no release'}")
        return shell

    def _none(self) -> NoToolError:
        tried = "; ".join(self._missing) or "there is no way to it (no running kube-proxy pod, no --image, no SSH)"
        return NoToolError(
            f"no conntrack can be run for {self.node}: {tried}",
            hint="name the tools image with --image, or allow SSH; or have somebody on the node run this:",
        )


class Reader:
    """A `NodeShell` that is opened when it is first read: kube-proxy's container, else the way to change the node."""

    def __init__(self, hands: Hands, first: NodeShell | None) -> None:
        self._hands = hands
        self._first = first
        self._shell: NodeShell | None = None

    @property
    def node(self) -> str:
        return self._hands.node

    @property
    def rung(self) -> str:
        return self._shell.rung if self._shell else ""

    @property
    def toolsets(self) -> tuple[Toolset, ...]:
        return self._shell.toolsets if self._shell else ()

    def can(self, fact: Fact) -> bool:
        return self._shell is None or self._shell.can(fact)

    def command(self, fact: Fact) -> tuple[str, ...] | None:
        return self._shell.command(fact) if self._shell else None

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        if self._shell is None:
            self._shell = self._open(scope)
        return self._shell.read(fact, sink, scope=scope)

    def _open(self, scope: CancelScope) -> NodeShell:
        if self._first is None:
            return self._hands.shell(scope)
        try:
            self._first.read(conntrack.PORT_RANGE, lambda _: None, scope=scope)
        except KdnsctlError as error:
            scope.check()
            try:
                return self._hands.shell(scope)
            except NoToolError:
                raise error from None
        return self._first


def shells(hands: dict[str, Hands], scope: CancelScope) -> Callable[[str], ChangingShell]:
    """What verbs open a node with."""
    return lambda node: hands[node].shell(scope)
