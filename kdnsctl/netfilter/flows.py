"""Where flows end that enter a chain, and with what probability: the arithmetic of chains, for any kind of rules.

The parsers bring rules into `Step`s; `Spreads` follows them from a chain to the addresses that packets are sent to.
Nothing is parsed here, and a packet is not simulated: a condition that depends on the packet makes probabilities
unknown, never false. Chains that a stranger wrote can be circular or multiply without
end, so depth and work are bounded.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kdnsctl.model import Reason
from kdnsctl.netfilter.lines import shown
from kdnsctl.netfilter.rules import Target

DEEPEST = 16  # chains; the kernel allows 16 jumps deep in nf_tables (NFT_JUMP_STACK_SIZE)
MOST_TARGETS = 4_000_000
"""Targets of all chains of a dump together; 50,000 endpoints behind a handful of chains each are far below."""

TOLERANCE = 1e-6
"""Probabilities are k/2^31 in the kernel and `%0.10f` in kube-proxy; a thousand of them in a row add up."""


class Action(enum.Enum):
    """What a rule does with the packets it applies to."""

    JUMP = "jump"  # and come back when the chain ends
    GOTO = "goto"  # and do not come back
    SEND = "send"  # to a new destination; the end of the way
    RETURN = "return"
    STOP = "stop"  # accepted, dropped or otherwise taken away
    UNREADABLE = "unreadable"  # sent somewhere, but the dump does not say where


class Step(NamedTuple):
    """One rule, as far as it decides where packets go.

    `chance` is the probability that it applies to a packet which reaches it, None when that depends on the packet.
    `chains` of a jump are (name, share) with shares that add up to 1; `targets` of a SEND carry their share as
    `probability`. `sticky` is a rule for clients that were here before (session affinity).
    """

    action: Action
    chance: float | None = 1.0
    chains: tuple[tuple[str, float], ...] = ()
    targets: tuple[Target, ...] = ()
    sticky: bool = False


class Spread(NamedTuple):
    """What becomes of packets that enter a chain. `rest` is the share that comes out at its end, None if unknown."""

    targets: tuple[Target, ...] = ()
    rest: float | None = 1.0
    sticky: bool = False
    problems: tuple[Reason, ...] = ()


def times(one: float | None, other: float | None) -> float | None:
    """The product of two shares, either of which may be unknown."""
    if one is None or other is None:
        return 0.0 if 0.0 in (one, other) else None
    return one * other


def plus(one: float | None, other: float | None) -> float | None:
    """The sum of two shares, either of which may be unknown."""
    return None if one is None or other is None else one + other


class Spreads:
    """The spread of each chain, computed once. `flaws` are what the parser found wrong with single chains."""

    def __init__(self, chains: Mapping[str, Sequence[Step]], flaws: Mapping[str, Reason]) -> None:
        self._chains = chains
        self._flaws = flaws
        self._known: dict[str, Spread] = {}
        self._entered: list[str] = []
        self._left = MOST_TARGETS

    def of(self, chain: str) -> Spread:
        """Follow all packets that enter `chain`; `probability` of the targets is of those packets."""
        known = self._known.get(chain)
        if known is not None:
            return known
        steps = self._chains.get(chain)
        if steps is None:
            return _lost("chainMissing", f"{shown(chain)} is not in the dump")
        if chain in self._entered:
            return _lost("circular", f"{shown(chain)} leads back to itself")
        if len(self._entered) >= DEEPEST:
            return _lost("tooDeep", f"{shown(chain)} is more than {DEEPEST} chains deep")
        if self._left <= 0:
            return _lost("tooMany", f"the chains lead to more than {MOST_TARGETS} targets in all")
        self._entered.append(chain)
        try:
            spread = self.follow(chain, steps)
        finally:
            self._entered.pop()
        self._left -= len(spread.targets) + 1
        self._known[chain] = spread
        return spread

    def follow(self, chain: str, steps: Sequence[Step]) -> Spread:
        """The spread of some steps, as if they were all that `chain` has."""
        sum_up = _Sum()
        if (flaw := self._flaws.get(chain)) is not None:
            sum_up.problems[flaw] = None
        remaining: float | None = 1.0
        for step in steps:
            if step.action is Action.JUMP and all(self.of(name).rest == 1.0 for name, _ in step.chains):
                continue  # it marks or counts, and comes back
            # A rule for returning clients takes nothing from new ones; what it leads to is reached all the same.
            share = 0.0 if step.sticky else times(remaining, step.chance)
            passed = self._apply(chain, step, share, sum_up)
            if step.sticky:
                sum_up.sticky = True
                continue
            if step.chance == 1.0:
                remaining = 0.0
            else:
                remaining = None if remaining is None or share is None else remaining - share
            if step.action is Action.JUMP:
                remaining = plus(remaining, passed)
            else:
                sum_up.rest = plus(sum_up.rest, passed)
            if remaining == 0.0:
                break  # nothing reaches what follows
        return sum_up.spread(plus(sum_up.rest, remaining))

    def _apply(self, chain: str, step: Step, share: float | None, sum_up: _Sum) -> float | None:
        """Add what one rule does with its share of the packets; returns the share that comes out of it again."""
        match step.action:
            case Action.JUMP | Action.GOTO:
                return self._branch(step, share, sum_up)
            case Action.SEND:
                sum_up.add(step.targets, share)
            case Action.RETURN:
                return share
            case Action.STOP:
                sum_up.problem("stopped", f"a rule of {shown(chain)} takes packets away before they reach an endpoint")
            case Action.UNREADABLE:
                sum_up.problem("unreadable", f"the dump does not say where a rule of {shown(chain)} sends packets")
        return 0.0

    def _branch(self, step: Step, share: float | None, sum_up: _Sum) -> float | None:
        """Add what the chains of a jump lead to; returns the share that comes out of them again."""
        passed: float | None = 0.0
        for name, portion in step.chains:
            inner = self.of(name)
            part = times(share, portion)
            sum_up.add(inner.targets, part)
            sum_up.sticky |= inner.sticky
            sum_up.problems.update(dict.fromkeys(inner.problems))
            passed = plus(passed, times(part, inner.rest))
        return passed


class _Sum:
    """The spread of one chain while it is being added up."""

    def __init__(self) -> None:
        self.rest: float | None = 0.0
        self.sticky = False
        self.problems: dict[Reason, None] = {}
        self._only: tuple[Target, ...] | None = None
        self._merged: dict[tuple[str, int | None, str], Target] = {}

    def problem(self, code: str, message: str) -> None:
        self.problems[Reason(code, message)] = None

    def add(self, targets: tuple[Target, ...], share: float | None) -> None:
        if self._only is None and not self._merged and share == 1.0:
            self._only = targets  # a chain that only leads on shares what it leads to, and is not copied
            return
        if self._only is not None:
            self._merge(self._only, 1.0)
            self._only = None
        self._merge(targets, share)

    def _merge(self, targets: tuple[Target, ...], share: float | None) -> None:
        for target in targets:
            key = (target.address, target.port, target.chain)
            probability = times(target.probability, share)
            if (before := self._merged.get(key)) is not None:
                probability = plus(before.probability, probability)
            self._merged[key] = Target(target.address, target.port, probability, target.chain, packets=target.packets)

    def spread(self, rest: float | None) -> Spread:
        targets = self._only if self._only is not None else tuple(self._merged.values())
        return Spread(targets, rest, self.sticky, tuple(self.problems)[:20])


def _lost(code: str, message: str) -> Spread:
    return Spread(rest=None, problems=(Reason(code, message),))


def reachable(chains: Mapping[str, Sequence[Step]], starts: Iterable[str]) -> set[str]:
    """All chains that packets can come to from `starts`, these included."""
    seen: set[str] = set()
    waiting = [start for start in starts if start in chains]
    while waiting:
        chain = waiting.pop()
        if chain in seen:
            continue
        seen.add(chain)
        for step in chains[chain]:
            waiting.extend(name for name, _ in step.chains if name in chains and name not in seen)
    return seen
