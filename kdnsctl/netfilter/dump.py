"""Whether a dump is all there was, and how that is known.

Incomplete evidence can prove a fault, never health, so every parser of this room ends with a `Completeness`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from kdnsctl.model import Reason


class Proof(enum.StrEnum):
    """What shows that a dump was not cut off."""

    NONE = "none"
    TRAILER = "trailer"  # the node wrote a last line after it, with the exit code; see `trailer`
    COUNT_LINE = "countLine"  # `conntrack -L` on stderr: N flow entries have been shown
    COMMIT = "commit"  # every table of iptables-save ends with COMMIT
    CLOSED = "closed"  # the document's own end: `</conntrack>`, the last bracket of JSON


@dataclass(frozen=True, slots=True)
class Completeness:
    """`proof` says how it is known that a dump is whole, `problem` why it cannot be taken for whole."""

    proof: Proof = Proof.NONE
    problem: Reason | None = None

    @property
    def complete(self) -> bool:
        """Whether absence in the dump proves absence on the node."""
        return self.proof is not Proof.NONE and self.problem is None
