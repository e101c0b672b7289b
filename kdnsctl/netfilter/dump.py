"""Whether a dump is all there was, and how that is known.

Incomplete evidence can prove a fault, never health, so every parser of this room ends with a `Completeness`.
"""

from __future__ import annotations

from dataclasses import dataclass

from kdnsctl.model import Proof, Reason

__all__ = ["Completeness", "Proof"]


@dataclass(frozen=True, slots=True)
class Completeness:
    """`proof` says how it is known that a dump is whole, `problem` why it cannot be taken for whole."""

    proof: Proof = Proof.NONE
    problem: Reason | None = None

    @property
    def complete(self) -> bool:
        """Whether absence in the dump proves absence on the node."""
        return self.proof is not Proof.NONE and self.problem is None
