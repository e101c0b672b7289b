"""`kdnsctl lab doctor`: each thing that the lab needs of the machine, whether it is there, and how to get it.

The checks are the lab's; here they are shown, and turned into a refusal for commands that could not run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kdnsctl.cli.lab.shared import GET_PACKAGES, say
from kdnsctl.cli.options import Answer, Common, Form
from kdnsctl.model import API_VERSION, ExitCode, KdnsctlError

if TYPE_CHECKING:
    from kdnsctl.lab.doctor import Check

HEADINGS = ("CHECK", "STATE", "DETAIL")
_STYLES = {"ok": "green", "missing": "red", "optional": "yellow"}


def doctor(common: Common, answer: Answer) -> int:
    """Tell whether this machine can run a lab, and what is missing.

    Examples:
      # Before the first lab
      kdnsctl lab doctor
      # What to install, for a script
      kdnsctl lab doctor -o json

    Nothing is changed: namespaces are tried in a process that ends with them. Package names are Debian's.

    Exit codes: 0 a lab can run here, 1 it cannot.
    """
    checks = _examined()
    from kdnsctl.lab.doctor import can_run  # noqa: PLC0415  # see `shared`

    able = can_run(checks)
    if answer.output is not Form.TABLE:
        from kdnsctl.cli import output  # noqa: PLC0415

        output.document(to_json(checks, able=able), answer.format)
        return ExitCode.OK if able else ExitCode.FAILED
    say(*_table(checks, common))
    packages = _packages([check for check in checks if not check.ok])
    if packages:
        say("", f"To get what is missing: {packages}")
    if able:
        say("", "This machine can run the lab.")
        return ExitCode.OK
    raise _refusal(checks)


def require_machine() -> None:
    """Refuse, before anything is made, where the lab cannot run.

    Raises:
        KdnsctlError: it cannot, and why.
    """
    checks = _examined()
    from kdnsctl.lab.doctor import can_run  # noqa: PLC0415

    if not can_run(checks):
        raise _refusal(checks)


def to_json(checks: Sequence[Check], *, able: bool) -> dict[str, Any]:
    """The checks as plain data (docs/schemas/LabDoctorReport.schema.json)."""
    return {
        "apiVersion": API_VERSION,
        "kind": "LabDoctorReport",
        "canRun": able,
        "checks": [
            {
                "name": check.name,
                "ok": check.ok,
                "needed": check.needed,
                "detail": check.detail,
                "remedy": check.remedy,
            }
            for check in checks
        ],
    }


def _examined() -> tuple[Check, ...]:
    if not sys.platform.startswith("linux"):
        raise KdnsctlError(
            "the lab needs Linux: its nodes are made of the kernel's own namespaces",
            hint="run it in a virtual machine with Linux",
        )
    from kdnsctl.lab import doctor as lab_doctor  # noqa: PLC0415

    return lab_doctor.examine()


def _refusal(checks: Sequence[Check]) -> KdnsctlError:
    failing = [check for check in checks if check.needed and not check.ok]
    why = "; ".join(f"{check.name}: {check.detail}" for check in failing)
    advice = [_packages(failing), *(check.remedy for check in failing if not _package(check))]
    if not any(_is_python(check) for check in failing):  # recordings need those packages, too
        advice.append("play recordings instead: kdnsctl lab up --recorded")
    return KdnsctlError(f"this machine cannot run the lab: {why}", hint="; or ".join(text for text in advice if text))


def _is_python(check: Check) -> bool:
    return check.remedy.startswith("pip install ")


def _package(check: Check) -> str:
    """What a remedy installs, when it installs something."""
    for installer in ("apt-get install ", "pip install "):
        if check.remedy.startswith(installer):
            return check.remedy.removeprefix(installer)
    return ""


def _packages(checks: Sequence[Check]) -> str:
    """One command for the system's packages and one for Python's, instead of one for each package."""
    wanted = dict.fromkeys(_package(check) for check in checks if _package(check) and not _is_python(check))
    commands = [GET_PACKAGES] if any(_is_python(check) for check in checks) else []
    return " && ".join([*commands, *(["apt-get install " + " ".join(wanted)] if wanted else [])])


def _table(checks: Sequence[Check], common: Common) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color  # noqa: PLC0415

    rows = []
    for check in checks:
        state = "ok" if check.ok else "missing" if check.needed else "optional"
        detail = check.detail if check.ok or _package(check) or not check.remedy else f"{check.detail}; {check.remedy}"
        rows.append([table.Cell.of(check.name), table.Cell.of(state, style=_STYLES[state]), table.Cell.of(detail)])
    return table.lay_out(
        HEADINGS, rows, width=columns(sys.stdout), paint=table.painter(color=has_color(sys.stdout, common.color))
    )
