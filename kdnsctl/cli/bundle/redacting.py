"""`kdnsctl bundle redact`: a copy that says what is wrong, and not whose cluster it is (`evidence.redact`)."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from kdnsctl.cli.bundle.reading import Place
from kdnsctl.cli.nextsteps import caller_of, next_lines
from kdnsctl.cli.options import Answer, Common, Form
from kdnsctl.cli.terminal import put
from kdnsctl.model import API_VERSION, ExitCode, UsageError

KEY_SIZE: Final = 32  # bytes of a key that is made here
LEAST: Final = 16
MOST: Final = 4096


def redact(
    ctx: typer.Context,
    common: Common,
    answer: Answer,
    place: Place,
    directory: Annotated[
        Path,
        typer.Option(
            "--directory",
            "-O",
            metavar="PLACE",
            help="Where to: a directory that is new or empty, or a new archive (.tar.zst, .tar.gz).",
        ),
    ],
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", metavar="FILE", help="Make pseudonyms from this key. Default: a new one, not kept."),
    ] = None,
) -> int:
    """Copy a bundle, with pseudonyms for names and addresses; `analyze` finds the same in it.

    Examples:
      kdnsctl bundle redact ./evidence -O ./for-others
      # From one archive into another
      kdnsctl bundle redact evidence.tar.zst -O for-others.tar.zst
      # With the same key, several bundles get the same pseudonyms
      kdnsctl bundle redact ./evidence -O ./for-others --key-file ./redaction.key

    Addresses keep their prefixes and what they are (private, link-local, a Service's, a pod's). Of objects only known
    fields are kept, and files that are not known are left out. Logs are free text: look at them first.

    Exit codes: 0 written, 4 written and something was left out, 5 refused (the bundle is not sound), 1 failed,
    2 wrong usage, 130 interrupted.
    """
    from kdnsctl.cli import output, progress  # noqa: PLC0415
    from kdnsctl.evidence import packing  # noqa: PLC0415
    from kdnsctl.evidence import redact as work  # noqa: PLC0415

    key = secrets.token_bytes(KEY_SIZE) if key_file is None else _key(key_file)
    make = work.redact_to_archive if packing.is_named_as_one(directory) else work.redact
    with progress.reporting(common.color) as reporter:
        made = make(place, directory, key, reporter=reporter)
    if answer.output is Form.TABLE:
        from kdnsctl.cli import table  # noqa: PLC0415
        from kdnsctl.cli.terminal import columns, visible  # noqa: PLC0415

        width = columns(sys.stdout)
        lines = [line for path in made.left_out for line in table.wrapped(visible(f"left out: {path}"), width)]
        counts = f"{made.artefacts} artefacts redacted, {len(made.left_out)} left out, {len(made.withheld)} withheld"
        told = f"{counts}. Bundle: {made.place}"
        lines += table.wrapped(visible(told), width)
        lines += table.wrapped(f"SHA-256 of SHA256SUMS: {made.sums_digest}", width)
        again = caller_of(ctx).on_files("analyze", str(made.place))
        put("\n".join([*lines, "", *next_lines([again])]) + "\n")
    else:
        output.document(to_json(str(place), made), answer.format)
    return ExitCode.INCOMPLETE if made.left_out else ExitCode.OK


def to_json(place: str, made: Any) -> dict[str, Any]:
    """What was made as plain data (docs/schemas/RedactReport.schema.json)."""
    return {
        "apiVersion": API_VERSION,
        "kind": "RedactReport",
        "bundle": place,
        "redacted": str(made.place),
        "artefacts": made.artefacts,
        "leftOut": list(made.left_out),
        "withheld": list(made.withheld),
        "sumsSha256": made.sums_digest,
    }


def _key(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            key = opened.read(MOST + 1)
    except OSError as error:
        raise UsageError(f"the key {file} cannot be read: {error.strerror}; nothing was written") from error
    if not LEAST <= len(key) <= MOST:
        raise UsageError(
            f"the key {file} has to have {LEAST} to {MOST} bytes; nothing was written",
            hint=f"make one: head -c {KEY_SIZE} /dev/urandom > {file}",
        )
    return key
