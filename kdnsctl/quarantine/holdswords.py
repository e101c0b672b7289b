"""Holds in words: the verdict, what stays a risk, and the commands for somebody with access. Nothing is decided."""

from __future__ import annotations

from collections.abc import Iterable

from kdnsctl.quarantine.holdsbase import Held, Hold


def verdict(hold: Hold) -> str:
    """What can be said of one manager, and why."""
    match hold.verdict:
        case Held.HELD:
            return "held" + (f" ({hold.why})" if hold.why else "")
        case Held.NOT_FROM_HERE:
            return f"cannot be held from here: {hold.why}"
        case Held.TERMINATING:
            at_all = "; what would hold it is set all the same" if hold.steps else ""
            return f"too late to hold: {hold.why}{at_all}"


def risk(hold: Hold) -> str:
    """What the hold does not protect from; empty when nothing is known."""
    return f"not protected from: {hold.risk}" if hold.risk else ""


def told(hold: Hold) -> str:
    """One manager's verdict and its residual risk, in one line."""
    return "; ".join(part for part in (f"{hold.manager}: {verdict(hold)}", risk(hold)) if part)


def by_hand(holds: Iterable[Hold]) -> tuple[str, ...]:
    """What somebody with access can run, for all that cannot be held from here."""
    return tuple(hold.run for hold in holds if hold.run)
