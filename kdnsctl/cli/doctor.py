"""`kdnsctl doctor`: the checks of a cluster as a table or a document (kind `DoctorReport`).

What is checked, and what follows from it for a command, is known to `access.doctor`.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

import typer

from kdnsctl.cli import needing
from kdnsctl.cli.options import Answer, Common, Connection, Form
from kdnsctl.cli.terminal import put, tell
from kdnsctl.model import ExitCode

if TYPE_CHECKING:
    from kdnsctl.access.checkup import CommandState, DoctorReport
    from kdnsctl.access.review import Access
    from kdnsctl.cli.table import Paint, Row

LIVE = "--live"  # the option of find-affected, as it names what it needs
SERVICE_ACCOUNT = "system:serviceaccount:"  # how the user of one begins, before its namespace and name

_STYLES = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "magenta"}
_STYLES |= {"yes": "green", "no": "red", "unknown": "magenta", "works": "green", "limited": "yellow", "fails": "red"}


def doctor(
    ctx: typer.Context,
    common: Common,
    connection: Connection,
    answer: Answer,
    commands: needing.Commands = None,
) -> int:
    """Tell whether the cluster answers, and which commands may work on it.

    Examples:
      # Before it matters: does everything work from this machine?
      kdnsctl doctor
      # May somebody else use find-affected?
      kdnsctl doctor find-affected --as jane --as-group on-call
      # When this machine's DNS is broken too
      kdnsctl doctor --resolve api.example.com=192.0.2.10 --request-timeout 10s

    Nothing is changed, and all of it is over within --request-timeout.

    Exit codes: 0 every command works, 1 a command will not work, 4 a command knows less or it could not be found out,
    2 wrong usage, 130 interrupted.
    """
    # Late: --help and TAB do without what connects.
    from kdnsctl.access.checkup import exit_code, to_json  # noqa: PLC0415
    from kdnsctl.access.doctor import examine  # noqa: PLC0415
    from kdnsctl.cancel import INTERRUPTED, CancelScope  # noqa: PLC0415
    from kdnsctl.cli import output, progress  # noqa: PLC0415
    from kdnsctl.cli.connecting import connect_options  # noqa: PLC0415
    from kdnsctl.evidence.reachable import ways_to_nodes  # noqa: PLC0415

    scope = CancelScope()
    with progress.reporting(common.color) as reporter:
        options = connect_options(connection, common)
        rungs, beside = ways_to_nodes(os.environ)
        needs = needing.needs_of(commands)
        report = examine(options, needs, rungs=rungs, beside=beside, scope=scope, reporter=reporter)
    if answer.output is Form.TABLE:
        put("\n".join(_lines(report, common, ctx.find_root().info_name or "kdnsctl")) + "\n")
    else:
        output.document(to_json(report), answer.format)
    if scope.reason is INTERRUPTED:
        tell("interrupted; what was known by then is above")
        return ExitCode.INTERRUPTED
    return exit_code(report)


def _lines(report: DoctorReport, common: Common, program: str) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color  # noqa: PLC0415

    width, paint = columns(sys.stdout), table.painter(color=has_color(sys.stdout, common.color))

    def laid_out(headings: tuple[str, ...], rows: list[Row], paint: Paint = paint) -> list[str]:
        return table.lay_out(headings, rows, width=width, paint=paint)

    def cells(*texts: str) -> Row:
        return [table.Cell.of(text, style=_STYLES.get(text, "")) for text in texts]

    lines = laid_out(("CHECK", "STATE", "DETAIL"), [cells(one.name, one.state, one.detail) for one in report.checks])
    for check in report.checks:
        if check.hint:
            lines += table.wrapped(f"hint: {check.name}: {check.hint}", width)
    if report.permissions:
        rows = [cells(str(one.permission), _allowed(one.allowed), _consequence(one)) for one in report.permissions]
        lines += ["", *laid_out(("PERMISSION", "ALLOWED", "WITHOUT-IT"), rows)]
    rows = [cells(one.name, one.ability, _why(one)) for one in report.rungs]
    lines += ["", *laid_out(("WAY-TO-NODES", "STATE", "WHY"), rows)]
    rows = [cells(one.name, one.ability, _why(one)) for one in report.commands]
    lines += ["", *laid_out(("COMMAND", "STATE", "WHY"), rows)]
    if grant := _grant(report):
        lines += ["", "Next:", *_continued([program, *map(shlex.quote, grant)], width)]
    return lines


def _continued(words: list[str], width: int | None) -> list[str]:
    """A command line, in several that a shell takes for one where it is too wide."""
    lines = ["  " + words[0]]
    for word in words[1:]:
        if width is not None and len(lines[-1]) + 1 + len(word) + 2 > width:
            lines[-1] += " \\"
            lines.append("    " + word)
        else:
            lines[-1] += " " + word
    return lines


def _grant(report: DoctorReport) -> list[str]:
    """The command that prints what is refused, to whom it is to be allowed where that is known; nothing if all is."""
    refused = [one for one in report.commands if any(access.allowed is False for access in one.lacking)]
    if not refused:
        return []
    live = any((LIVE, False) in one.options for one in refused)
    whom = report.target.impersonation if report.target else None
    subjects = [f"user:{whom.user}", *(f"group:{group}" for group in whom.groups)] if whom else []
    if whom and whom.user.startswith(SERVICE_ACCOUNT):
        subjects = [f"serviceaccount:{whom.user.removeprefix(SERVICE_ACCOUNT)}"]
    bound = [word for subject in subjects for word in ("--bind-to", subject)]
    return ["rbac", *(one.name for one in refused), *(["--with-live"] if live else []), *bound]


def _allowed(allowed: bool | None) -> str:  # noqa: FBT001  # the value itself
    return "unknown" if allowed is None else "yes" if allowed else "no"


def _consequence(answer: Access) -> str:
    """What is lost without it; nothing while it is there."""
    if answer.allowed:
        return "-"
    said = f" ({answer.why})" if answer.why else ""
    return answer.permission.without + said


def _why(command: CommandState) -> str:
    """Why it does not simply work, and which of its options do not."""
    lacking = ", ".join(str(answer.permission) for answer in command.decisive)
    refused = [option for option, allowed in command.options if not allowed]
    parts = [command.why, f"without {lacking}" if lacking else "", f"not {', '.join(refused)}" if refused else ""]
    return "; ".join(part for part in parts if part) or "-"
