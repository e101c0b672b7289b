"""What the lab's DNS clients saw, as values, and waiting for what they see next."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kdnsctl.lab import control
from kdnsctl.lab.spacedir import LabDir, LabError

Readings = Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Success:
    """DNS queries of one client on one node during one measurement. `kind`: fixed or fresh."""

    node: str
    kind: str
    answered: int
    lost: int

    @property
    def asked(self) -> int:
        return self.answered + self.lost

    @property
    def percent(self) -> int:
        """Answered, of a hundred asked: 100 only when nothing was lost, 0 only when nothing was answered."""
        if not self.answered:
            return 0
        return max(1, 100 * self.answered // self.asked)


Until = Callable[[tuple[Success, ...]], bool]


def wait_for_clients(where: LabDir, condition: Callable[[Readings], bool], timeout: float, what: str) -> Readings:
    """Read the clients' counters as they change until they meet `condition`; the readings then.

    Raises LabError that says `what` did not happen within `timeout` seconds.
    """
    readings: dict[tuple[str, str], Mapping[str, Any]] = {}
    deadline = time.monotonic() + timeout
    for reading in control.stream(where, {"op": "follow-clients"}, timeout):
        readings[reading["node"], reading["kind"]] = reading
        if condition(readings):
            return readings
        if time.monotonic() > deadline:
            break
    else:
        raise LabError(f"the lab {where.name!r} ended while this was waited for: {what}")
    raise LabError(f"{what}: this did not happen within {timeout:.0f} s; the last counts are {_short(readings)}")


def _short(readings: Readings) -> str:
    return ", ".join(
        f"{node} {kind} {each['answered']}/{each['lost']}" for (node, kind), each in sorted(readings.items())
    )


def in_a_row(reading: Mapping[str, Any] | None, count: int, *, answered: bool) -> bool:
    """Whether the last `count` queries of a client all were answered (or all lost)."""
    return reading is not None and reading["last_answered"] is answered and reading["in_a_row"] >= count


def a_share_is_lost(node: str) -> Until:
    """Enough to see of a node of whose rules only some lead to a dead pod: fresh ports that were answered, and lost."""

    def seen(successes: tuple[Success, ...]) -> bool:
        return any(each.node == node and each.kind == "fresh" and 0 < each.lost < each.asked for each in successes)

    return seen


def measure(
    where: LabDir, nodes: int, results: int = 10, timeout: float = 120.0, until: Until | None = None
) -> tuple[Success, ...]:
    """Count from now until every client on all `nodes` nodes has `results` more results, answers or losses.

    The first result of each client is of a query that was sent before, so it tells of before, and is left out. With
    `until` the counting goes on until that is true of what was counted. Raises LabError after `timeout` seconds.
    """
    before: dict[tuple[str, str], tuple[int, int]] = {}
    start: dict[tuple[str, str], tuple[int, int]] = {}
    counted: tuple[Success, ...] = ()

    def enough(readings: Readings) -> bool:
        nonlocal counted
        for key, reading in readings.items():
            counts = (reading["answered"], reading["lost"])
            if counts != before.setdefault(key, counts):
                start.setdefault(key, counts)
        counted = tuple(
            Success(node, kind, reading["answered"] - start[node, kind][0], reading["lost"] - start[node, kind][1])
            for (node, kind), reading in sorted(readings.items())
            if (node, kind) in start
        )
        return (
            len(counted) == 2 * nodes
            and all(each.asked >= results for each in counted)
            and (until is None or until(counted))
        )

    wait_for_clients(where, enough, timeout, f"{results} more DNS queries on every node")
    return counted
