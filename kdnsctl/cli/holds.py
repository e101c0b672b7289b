"""The managers that may remove a node, for people: the verdict, the residual risk, and commands that can be copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdnsctl.quarantine.holdsbase import Hold


def lines(hold: Hold, width: int | None, *, in_force: bool = True) -> list[str]:
    """One manager. `in_force` False: it could be held, and is not now. A command is one line, however long."""
    from kdnsctl.cli.table import wrapped  # noqa: PLC0415
    from kdnsctl.cli.terminal import visible  # noqa: PLC0415
    from kdnsctl.quarantine.holdsbase import Held  # noqa: PLC0415
    from kdnsctl.quarantine.holdswords import risk, verdict  # noqa: PLC0415

    said = verdict(hold)
    if hold.verdict is Held.HELD and not in_force:
        said = "not held: it came later, or somebody took the hold away; quarantine the node again"
    found = wrapped(visible(f"{hold.manager}: {said}"), width, 2, 2)
    if hold.risk:
        found += wrapped(visible(risk(hold)), width, 4, 2)
    if hold.run:
        found.append(visible(f"    by hand: {hold.run}"))
    if hold.back:
        found.append(visible(f"    and back: {hold.back}"))
    return found
