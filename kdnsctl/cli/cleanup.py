"""`kdnsctl cleanup`: what earlier runs have left on the cluster, told and then deleted (kind `CleanupReport`).

What counts as left, and what is never touched, is known to `evidence.leftovers`.
"""

from __future__ import annotations

import enum
import re
import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from kdnsctl.cli import values
from kdnsctl.cli.options import Answer, Common, Connection, Form
from kdnsctl.cli.terminal import put, tell
from kdnsctl.model import ExitCode

if TYPE_CHECKING:
    from kdnsctl.evidence.leftovers import Found

HEADINGS = ("POD", "NODE", "RUN", "OPERATOR", "PHASE", "AGE", "FATE", "WHY")
_STYLES = {"deleted": "green", "gone": "green", "failed": "red", "kept": "yellow"}
_RUN = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", re.ASCII)  # a label's value


class DryRun(enum.StrEnum):
    """Whether anything is done, as `evidence.leftovers.DryRun`."""

    NONE = "none"
    CLIENT = "client"
    SERVER = "server"


def _run(word: str) -> str:
    if not _RUN.fullmatch(word):
        raise typer.BadParameter(f"'{word}' is not the name of a run; `kdnsctl cleanup --dry-run=client` lists them")
    return word


def cleanup(
    ctx: typer.Context,
    common: Common,
    connection: Connection,
    answer: Answer,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="ID", parser=_run, help="Only what this run has left, whoever made it."),
    ] = None,
    older_than: Annotated[
        timedelta | None,
        typer.Option(
            "--older-than",
            metavar="DURATION",
            parser=values.duration,
            help="Only what is older than this, such as 1h, whoever made it.",
        ),
    ] = None,
    pod_namespace: Annotated[
        str,
        typer.Option(
            "--pod-namespace",
            metavar="NS",
            parser=values.namespace,
            help="Where to look if pods may not be listed in all namespaces.",
        ),
    ] = "kube-system",
    dry_run: Annotated[
        DryRun,
        typer.Option("--dry-run", help="client: only say what would be done. server: have the server check it, too."),
    ] = DryRun.NONE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)] = False,  # noqa: FBT002  # typer's way
) -> int:
    """Delete the pods that interrupted runs have left on the cluster.

    Examples:
      # What is there?
      kdnsctl cleanup --dry-run=client
      # What the run has left that was killed
      kdnsctl cleanup --run 20261128-064900-1a2b3c
      # In a job that looks after it
      kdnsctl cleanup --older-than 1h --yes

    A pod that still runs and is somebody else's is only deleted when its run, or an age, is named. Every pod of kdnsctl
    ends by itself; this takes away what is left of it.

    Exit codes: 0 nothing is left, 4 something could not be deleted or seen, 5 not confirmed and nothing changed,
    1 failed, 2 wrong usage, 130 interrupted.
    """
    from kdnsctl.cancel import INTERRUPTED, CancelScope  # noqa: PLC0415
    from kdnsctl.changes.reminding import reminded  # noqa: PLC0415
    from kdnsctl.cli import output, progress  # noqa: PLC0415
    from kdnsctl.cli.confirming import confirm  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.evidence import leftovers  # noqa: PLC0415
    from kdnsctl.reach.podkeeper import operator  # noqa: PLC0415

    scope = CancelScope()
    with progress.reporting(common.color) as reporter, connected(connection, common, scope, reporter) as cluster:
        wanted = leftovers.Wanted(operator(), run, older_than)
        found = leftovers.find(cluster, wanted, pod_namespace, scope=scope)
        if found.note:
            tell(found.note)
        if found.to_delete and dry_run is DryRun.NONE:
            if not yes:
                for line in _lines(found, common, sys.stderr):
                    tell(line)
                tell(f"on {cluster.target}")
            number = len(found.to_delete)
            what = "this pod" if number == 1 else f"these {number} pods"
            confirm(f"Delete {what}?", yes=yes, no_input=common.no_input)
        if found.to_delete and dry_run is not DryRun.CLIENT:
            server = dry_run is DryRun.SERVER
            found = leftovers.delete(cluster, found, server_dry_run=server, scope=scope, reporter=reporter)
        raised = reminded(cluster, found.generated_at, scope=scope) if scope.reason is None else []
    if answer.output is not Form.TABLE:
        output.document(leftovers.to_json(found, leftovers.DryRun(dry_run.value)), answer.format)
    elif found.pods:
        put("\n".join(_lines(found, common, sys.stdout)) + "\n")
    else:
        put("Nothing is left.\n" if not found.note else f"Nothing is left in {pod_namespace}.\n")
    for note in raised:  # it is no pod, and is not put back here
        tell(note)
    if scope.reason is INTERRUPTED:
        program = ctx.find_root().info_name or "kdnsctl"
        tell(f"interrupted; what was not deleted is still there: {program} cleanup")
        return ExitCode.INTERRUPTED
    return found.exit_code


def _lines(found: Found, common: Common, stream: TextIO) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color  # noqa: PLC0415

    rows: list[table.Row] = []
    for one in found.pods:
        phase = "Terminating" if one.terminating else one.phase or "-"
        cells = [one.place, one.node or "-", one.run or "-", one.operator or "-", phase]
        cells += [_age(one.made, found.generated_at)]
        row = [table.Cell.of(text) for text in cells]
        row += [table.Cell.of(one.fate.value, style=_STYLES.get(one.fate.value, "")), table.Cell.of(one.why or "-")]
        rows.append(row)
    paint = table.painter(color=has_color(stream, common.color))
    return list(table.lay_out(HEADINGS, rows, width=columns(stream), paint=paint))


def _age(made: datetime | None, now: datetime) -> str:
    """As kubectl shows it, roughly: the two largest units."""
    if made is None:
        return "-"
    seconds = max(0, int((now - made).total_seconds()))
    for size, unit, smaller, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            return f"{seconds // size}{unit}{seconds % size // smaller}{small_unit}"
    return f"{seconds}s"
