"""`kdnsctl lab status`: every lab of this user, its nodes, and what the DNS clients on them see now."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdnsctl.cli.lab.incident import to_json as incident_to_json
from kdnsctl.cli.lab.shared import (
    complete_lab,
    contained,
    each_of,
    lab_name,
    named,
    say,
    say_filled,
    shown_path,
)
from kdnsctl.cli.options import Answer, Common, Form
from kdnsctl.model import API_VERSION, ExitCode, KdnsctlError

if TYPE_CHECKING:
    from kdnsctl.cli.table import Cell
    from kdnsctl.lab.incident import Incident
    from kdnsctl.lab.space import Status

HEADINGS = ("LAB", "NODE", "ADDRESS", "HELD-PORT", "FRESH-PORTS", "FAULTS")
NONE = "<none>"


def status(
    common: Common,
    answer: Answer,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", parser=lab_name, autocompletion=complete_lab, help="This lab only. Default: all."
        ),
    ] = None,
) -> int:
    """Show the labs of this user, and what their DNS clients see.

    Examples:
      kdnsctl lab status
      # For a program
      kdnsctl lab status demo -o json

    On every node one client keeps its source port and one takes a fresh port for each query. Shown is how their last
    queries ended, and how many in a row ended so.
    """
    from kdnsctl.lab import space  # noqa: PLC0415

    if name:
        with contained():
            labs, failed = [space.status(name)], False
        if not labs[0].exists:
            raise KdnsctlError(f"there is no lab '{name}'", hint=f"make one with: kdnsctl lab up{named(name)}")
    else:
        labs, failed = each_of(names(), space.status)
    if answer.output is not Form.TABLE:
        from kdnsctl.cli import output  # noqa: PLC0415

        output.document(to_json(labs), answer.format)
    elif not labs and not failed:
        say("there is no lab; make one with: kdnsctl lab up")
    elif labs:
        say(*_table(labs, common), "")  # laid out for the terminal already
        say_filled(*_told(labs))
    return ExitCode.FAILED if failed else ExitCode.OK


def names() -> list[str]:
    """The labs of this user, running or not."""
    from kdnsctl.lab.spacedir import labs_root  # noqa: PLC0415

    root = labs_root()
    return sorted(each.name for each in root.iterdir() if each.is_dir()) if root.is_dir() else []


def to_json(labs: list[Status]) -> dict[str, Any]:
    """The labs as plain data (docs/schemas/LabStatus.schema.json)."""
    return {"apiVersion": API_VERSION, "kind": "LabStatus", "labs": [_lab(each) for each in labs]}


def _lab(lab: Status) -> dict[str, Any]:
    made = _incident(lab)
    return {
        "name": lab.name,
        "running": lab.running,
        "kind": "recorded" if lab.recorded else "kernel",
        "rootless": lab.rootless,
        "directory": str(lab.directory),
        "server": lab.server or None,
        "incident": None if made is None else incident_to_json(made),
        "nodes": [
            {
                "name": node["name"],
                "address": node["address"],
                "faults": list(node["faults"]),
                "clients": [_client(kind, node["clients"][kind]) for kind in sorted(node["clients"])],
            }
            for node in lab.nodes
        ],
    }


def _client(kind: str, counts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": kind,
        "answered": counts["answered"],
        "lost": counts["lost"],
        "lastAnswered": counts["last_answered"],
        "inARow": counts["in_a_row"],
    }


def _incident(lab: Status) -> Incident | None:
    from kdnsctl.lab.spacedir import LabDir  # noqa: PLC0415

    where = LabDir(lab.directory)
    if not where.incident_file.exists():
        return None
    from kdnsctl.lab import incident  # noqa: PLC0415  # needs packages that looking at a lab does not

    return incident.current(where)


def _table(labs: list[Status], common: Common) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color  # noqa: PLC0415

    paint = table.painter(color=has_color(sys.stdout, common.color))
    rows = [row for lab in labs for row in _rows(lab)]
    return table.lay_out(HEADINGS, rows, width=columns(sys.stdout), paint=paint)


def _told(labs: list[Status]) -> list[str]:
    lines = []
    for lab in labs:
        kind = "plays recordings" if lab.recorded else "without root" if lab.rootless else "as root"
        if not lab.running:
            lines.append(f"{lab.name}: not running any more; clear it away with: kdnsctl lab down{named(lab.name)}")
        elif not lab.server:
            lines.append(
                f"{lab.name}: running, but not answering (yet); its log is {shown_path(lab.directory / 'lab.log')}"
            )
        else:
            lines.append(f"{lab.name}: {kind}, API {lab.server}, files {shown_path(lab.directory)}")
        made = _incident(lab)
        if made is not None and lab.running:
            lines.append(
                f"  broken since {made.began} on {made.node} ({made.mode}); undo: kdnsctl lab heal{named(lab.name)}"
            )
    return lines


def _rows(lab: Status) -> list[list[Cell]]:
    from kdnsctl.cli.table import Cell  # noqa: PLC0415

    made = _incident(lab)
    broken = {} if made is None else {made.node: [made.mode]}  # what stands when the fault itself was a moment's
    rows = [
        [
            Cell.of(lab.name),
            Cell.of(node["name"]),
            Cell.of(node["address"]),
            _seen(node["clients"].get("fixed")),
            _seen(node["clients"].get("fresh")),
            Cell.of(*(node["faults"] or broken.get(node["name"]) or [NONE])),
        ]
        for node in lab.nodes
    ]
    return rows or [[Cell.of(lab.name), *(Cell.of(NONE) for _ in HEADINGS[1:])]]


def _seen(counts: Mapping[str, Any] | None) -> Cell:
    from kdnsctl.cli.table import Cell  # noqa: PLC0415

    if not counts:
        return Cell.of(NONE)
    word, style = ("answered", "green") if counts["last_answered"] else ("lost", "red")
    return Cell.of(f"{word} ({counts['in_a_row']})", style=style)
