"""`kdnsctl bundle show` and `kdnsctl bundle verify`: what is in a bundle, and whether it is as it was collected.

Both read all of it (`evidence.verify`), and both say what is not right; here it is only printed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from kdnsctl.cli.options import Answer, Common, Form
from kdnsctl.cli.terminal import put
from kdnsctl.model import API_VERSION, ExitCode

if TYPE_CHECKING:
    from kdnsctl.cli.table import Row
    from kdnsctl.evidence.artefacts import Artefact
    from kdnsctl.evidence.verify import Verification

HEADINGS: Final = ("ITEM", "NODE", "CAPTURE", "VIA", "BYTES", "WHOLE", "PATH")
SPARE: Final = ("PATH",)  # what it says is in the item and the node, too
FLAW_HEADINGS: Final = ("FLAW", "PATH", "DETAIL")
OF_CLUSTER: Final = "<cluster>"  # a spelling that no node can have

Place = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="The directory of a bundle, or a tar archive of it, packed or not.")
]


def show(common: Common, answer: Answer, place: Place) -> int:
    """List what is in a bundle, and what of it is whole.

    Examples:
      kdnsctl bundle show ./evidence
      kdnsctl bundle show evidence.tar.zst -o json

    WHOLE is "yes" where it is proven that nothing was cut off; else it says why not.

    Exit codes: 0 listed, 3 something in it is not as it was collected, 1 failed, 2 wrong usage, 130 interrupted.
    """
    return _report(place, common, answer, artefacts=True)


def verify(common: Common, answer: Answer, place: Place) -> int:
    """Tell whether a bundle is what was collected: every file there, unchanged, nothing added, the journal unbroken.

    Examples:
      kdnsctl bundle verify ./evidence
      kdnsctl bundle verify evidence.tar.gz -o json

    Who makes all of a bundle anew can make it fit. Against that helps the SHA-256 of SHA256SUMS, if it is kept
    elsewhere: it is printed here, and at the end of collect.

    Exit codes: 0 it is, 3 it is not, 1 failed, 2 wrong usage, 130 interrupted.
    """
    return _report(place, common, answer, artefacts=False)


def _report(place: Path, common: Common, answer: Answer, *, artefacts: bool) -> int:
    from kdnsctl.evidence.verify import verify as examine  # noqa: PLC0415

    found = examine(place)
    if answer.output is Form.TABLE:
        put("\n".join(_lines(place, found, common, artefacts=artefacts)) + "\n")
    else:
        from kdnsctl.cli import output  # noqa: PLC0415

        output.document(to_json(place, found), answer.format)
    return ExitCode.OK if found.sound else ExitCode.FOUND


def to_json(place: Path, found: Verification) -> dict[str, Any]:
    """What was found as plain data (docs/schemas/BundleReport.schema.json)."""
    return {
        "apiVersion": API_VERSION,
        "kind": "BundleReport",
        "bundle": str(place),
        "sound": found.sound,
        "finished": found.finished,
        "sumsSha256": found.sums_digest or None,
        "flaws": [{"code": one.code, "path": one.path or None, "message": one.message} for one in found.flaws],
        "artefacts": [_artefact(one) for one in found.artefacts],
    }


def _artefact(one: Artefact) -> dict[str, Any]:
    said = one.to_json()
    return {**said, "node": said["node"] or None, "errors": said["errors"] or None, "proof": said["proof"] or None}


def _lines(place: Path, found: Verification, common: Common, *, artefacts: bool) -> Iterable[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.coverage import count  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color, visible  # noqa: PLC0415

    width, paint = columns(sys.stdout), table.painter(color=has_color(sys.stdout, common.color))
    if artefacts and found.artefacts:
        yield from table.lay_out(
            HEADINGS, [_row(one) for one in found.artefacts], width=width, paint=paint, spare=SPARE
        )
        yield ""
    if found.flaws:
        flaws = [[table.Cell.of(text) for text in (one.code, one.path or "-", one.message)] for one in found.flaws]
        yield from table.lay_out(FLAW_HEADINGS, flaws, width=width, paint=paint)
        yield ""
    cut = sum(not one.complete for one in found.artefacts)
    nodes = len({one.node for one in found.artefacts if one.node})
    verdict = "sound" if found.sound else f"BROKEN: {count(len(found.flaws), 'flaw')}"
    artefacts_of = f"{count(len(found.artefacts), 'artefact')} of {count(nodes, 'node')}"
    whole = f"{cut} of them cut off or failed (bundle show: WHOLE)" if cut else "all of them whole"
    told = f"{place}: {verdict}. {artefacts_of}, {whole}."
    yield from table.wrapped(visible(told), width)
    if not found.finished:
        yield from table.wrapped("Its last capture has not ended: collect --resume goes on with it.", width)
    if found.sums_digest:
        yield from table.wrapped(f"SHA-256 of SHA256SUMS: {found.sums_digest}", width)


def _row(one: Artefact) -> Row:
    from kdnsctl.cli.table import Cell  # noqa: PLC0415

    whole = Cell.of("yes", style="green") if one.problem is None else Cell.of(one.problem.message, style="yellow")
    texts = (one.item or "-", one.node or OF_CLUSTER, str(one.capture), one.via or "-", str(one.size))
    return [*(Cell.of(text) for text in texts), whole, Cell.of(one.path)]
