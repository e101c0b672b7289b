"""What comes after a repair: nodes that are well are given back, and the incident is written down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from kdnsctl.cli.nextsteps import Caller, next_lines

if TYPE_CHECKING:
    from kdnsctl.repair.report import RepairReport

MOST_NAMED = 5


def after(report: RepairReport, caller: Caller) -> list[str]:
    """The lines that name the next commands, after an empty one; none when there is nothing to do."""
    lines = next_lines(_commands(report, caller))
    return ["", *lines] if lines else []


def _commands(report: RepairReport, caller: Caller) -> Iterable[str]:
    well = report.to_release[:MOST_NAMED]
    if well:  # a node's quarantine has an incident of its own, which need not be the one that was named here
        yield replace(caller, incident="").on_cluster("release", *well)
    if report.incident:
        yield caller.on_files("incident", "report", report.incident)
