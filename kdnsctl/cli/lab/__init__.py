"""`kdnsctl lab …`: one module a command (or a pair that belongs together), listed here and imported when it runs.

This is the only part of kdnsctl that knows `kdnsctl.lab`. It turns words into calls and results into text; what a lab
is, how it breaks and what its clients see is the business of that room.
"""

from __future__ import annotations

from typing import Annotated

from kdnsctl.cli.commands import Entry, Group, Hidden
from kdnsctl.cli.options import Common, Connection, Record

COMMANDS = {
    "demo": Entry(
        "kdnsctl.cli.lab.demo:demo",
        "Play the whole incident: up, break, find-affected, quarantine, collect, analyze, repair, release, down",
    ),
    "up": Entry("kdnsctl.cli.lab.up:up", "Build a lab and wait until its DNS answers"),
    "down": Entry("kdnsctl.cli.lab.down:down", "Remove a lab and everything of it"),
    "status": Entry("kdnsctl.cli.lab.status:status", "Show the labs of this user, and what their DNS clients see"),
    "shell": Entry("kdnsctl.cli.lab.shell:shell", "Run a command, or a shell, inside a lab"),
    "env": Entry("kdnsctl.cli.lab.env:env", "Print what makes kubectl and kdnsctl in this shell speak to a lab"),
    "break": Entry("kdnsctl.cli.lab.incident:break_dns", "Make DNS fail on one node of a lab"),
    "heal": Entry("kdnsctl.cli.lab.incident:heal", "Undo what break did, and wait until DNS answers"),
    "doctor": Entry("kdnsctl.cli.lab.doctor:doctor", "Tell whether this machine can run a lab, and what is missing"),
}


def lab(
    common: Common,
    connection: Annotated[Connection, Hidden],
    record: Annotated[Record, Hidden],
) -> None:
    """Rehearse the incident: a cluster on this machine in which DNS really fails.

    Nodes are network namespaces with their own iptables and conntrack tables; a stand-in for kube-proxy writes the
    rules and fails as kube-proxy does. No container runtime, no image and no network is needed, and nothing is left.

    Examples:
      # See all of it, in less than a minute
      kdnsctl lab demo
      # Step by step
      kdnsctl lab up
      kdnsctl lab break --mode delete-fails
      kdnsctl lab status
      kdnsctl lab heal
      kdnsctl lab down
      # What is missing on this machine?
      kdnsctl lab doctor
    """


LAB = Group(lab, COMMANDS)
