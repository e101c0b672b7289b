"""The one interface to a node: `NodeShell.read` takes a fact, hands over its output in pieces, and tells how it went.

Who calls it does not know by which rung a node is reached. Nothing is parsed here, but whether the output was cut off
is always said: evidence that is not whole can prove a fault, never health.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from kdnsctl.cancel import CancelScope
from kdnsctl.model import Fact, NodeChange, Proof, Reason, Toolset
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.netfilter.trailer import Trailer

# Takes the next bytes of an output; pieces end anywhere. What it raises ends the reading.
Sink = Callable[[bytes], object]

MAX_STDERR = 16 << 10  # bytes kept of what a command complains; more is counted and dropped


@dataclass(frozen=True, slots=True)
class Reading:
    """How the reading of one fact went. What it read went to the sink, without the trailer.

    `exit_code` is that of the command itself (of an endpoint: HTTP's status), None when it is not known. `received`
    counts the bytes that went to the sink; `total` the lines before a filter on the node, None without one.
    `completeness` is of the output as a whole: `problem` says why it was cut off, or that the command failed. `stderr`
    is the beginning of what it complained, untrusted; `stderr_bytes` counts all of it. `started` and `ended` are of
    this machine's clock; `seconds` is the time between, by a clock that does not jump.
    """

    fact: str
    node: str
    rung: str
    completeness: Completeness
    started: dt.datetime
    ended: dt.datetime
    seconds: float
    received: int
    exit_code: int | None = None
    total: int | None = None
    stderr: bytes = b""
    stderr_bytes: int = 0

    @property
    def complete(self) -> bool:
        """Whether absence in the output proves absence on the node."""
        return self.completeness.complete

    @property
    def problem(self) -> Reason | None:
        """Why the output cannot be taken for whole; None when it can."""
        return self.completeness.problem

    @property
    def trailer(self) -> Trailer | None:
        """What the node said last; None when it did not, or when not all that was before it came here."""
        if self.completeness.proof is Proof.TRAILER and self.exit_code is not None:
            return Trailer(self.exit_code, self.total)
        return None


class NodeShell(Protocol):
    """One node, reached in one way. Readings of one node happen one after the other."""

    @property
    def node(self) -> str:
        """The node's name."""

    @property
    def rung(self) -> str:
        """By which way, in one word: `exec`."""

    @property
    def toolsets(self) -> tuple[Toolset, ...]:
        """Which programs commands are written for here, the first that fits."""

    def can(self, fact: Fact) -> bool:
        """Whether this rung has the tools to read it."""

    def command(self, fact: Fact) -> tuple[str, ...] | None:
        """What this rung runs to read it; None where it cannot, and for what is asked over HTTP."""

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        """Read one fact. Its output goes to `sink` as it comes.

        Returns also when the output broke off, was too long, or the command failed: the Reading says so. Raises
        KdnsctlError when nothing could be begun (no permission, no pod, no connection), and what ended `scope`.
        """


@runtime_checkable
class ChangingShell(NodeShell, Protocol):
    """A node on which steps can be taken, too. Which steps there are is not known here: a verb makes the `NodeChange`.

    Nothing is journaled here; `changes.executor` does that before and after, whatever the rung.
    """

    def can_change(self, change: NodeChange) -> bool:
        """Whether this rung has the tools and the privilege for it."""

    def change(self, change: NodeChange, sink: Sink, *, scope: CancelScope) -> Reading:
        """Take the step, once: nothing is repeated. What the command prints goes to `sink` as it comes.

        Returns also when the command failed or its output broke off, so that what was done is not known: the Reading
        says so. Raises KdnsctlError when nothing could be begun, and what ended `scope`.
        """
