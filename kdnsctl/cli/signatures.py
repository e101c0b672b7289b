"""`kdnsctl signatures`: the catalogue of what kube-proxy logs, as a list or one entry in full (kind `SignatureList`).

The catalogue is `logs.signatures`; here it is only printed.
"""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdnsctl.cli import values
from kdnsctl.cli.options import Common, Format, Rendering, check_rendering
from kdnsctl.model import API_VERSION

if TYPE_CHECKING:
    from kdnsctl.logs.signatures import Signature, Variant

HEADINGS = ("ID", "KIND", "SEVERITY", "VERSIONS", "SUMMARY")
WIDE_HEADINGS = (*HEADINGS, "MEANS", "DOES-NOT-MEAN", "SOURCE")
TEXT_WIDTH = 100  # cells; longer lines are hard to read


def signatures(
    ctx: typer.Context,
    common: Common,
    rendering: Rendering,
    signature: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            parser=values.signature,
            autocompletion=values.complete_signature,
            help="Show this one in full.",
        ),
    ] = None,
) -> int:
    """List what kube-proxy logs, and what each line means.

    Examples:
      # All of them
      kdnsctl signatures
      # What one of them means, what it does not, and what to grep for
      kdnsctl signatures CT_DEL_ENDPOINT
      # For a program
      kdnsctl signatures -o json

    Only the kind "failure" makes a node suspect.

    Exit codes: 0 listed, 1 failed, 2 wrong usage, 130 interrupted.
    """
    check_rendering(ctx, rendering)

    from kdnsctl.cli import output, table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color, put  # noqa: PLC0415
    from kdnsctl.logs.signatures import CATALOGUE  # noqa: PLC0415

    chosen = [entry for entry in CATALOGUE if signature in (None, entry.id)]
    form = rendering.output
    if form in (Format.JSON, Format.YAML):
        output.document(to_json(chosen), form)
    elif form is Format.NAME:
        put("".join(f"{entry.id}\n" for entry in chosen))
    elif signature is not None and form is Format.TABLE:
        put("\n".join(_in_full(chosen[0], columns(sys.stdout))) + "\n")
    else:
        wide = form is Format.WIDE
        rows = [[table.Cell.of(text) for text in _texts(entry, wide=wide)] for entry in chosen]
        lines = table.lay_out(
            WIDE_HEADINGS if wide else HEADINGS,
            rows,
            width=columns(sys.stdout),
            paint=table.painter(color=has_color(sys.stdout, common.color)),
            with_headings=not rendering.no_headers,
        )
        put("\n".join(lines) + "\n")
    return 0


def to_json(entries: list[Signature]) -> dict[str, Any]:
    """The catalogue as plain data, keys in their documented order (docs/schemas/SignatureList.schema.json)."""
    return {
        "apiVersion": API_VERSION,
        "kind": "SignatureList",
        "signatures": [
            {
                "id": entry.id,
                "kind": entry.kind.value,
                "severity": entry.severity,
                "versions": entry.versions,
                "summary": entry.summary,
                "means": entry.means,
                "notMeans": entry.not_means,
                "source": entry.source,
            }
            for entry in entries
        ],
    }


def _texts(entry: Signature, *, wide: bool) -> list[str]:
    texts = [entry.id, entry.kind.value, entry.severity, entry.versions, entry.summary]
    return [*texts, entry.means, entry.not_means, entry.source] if wide else texts


def _in_full(entry: Signature, width: int | None) -> list[str]:
    lines = [entry.id, f"  {entry.kind.value}, severity {entry.severity}, kube-proxy {entry.versions}"]
    paragraphs = (
        ("", entry.summary),
        ("Means: ", entry.means),
        ("Does not mean: ", entry.not_means),
        ("Source: ", entry.source),
    )
    width = min(width or TEXT_WIDTH, TEXT_WIDTH)
    for label, text in paragraphs:
        if text:
            lines += ["", *textwrap.wrap(label + text, width, break_on_hyphens=False)]
    one_of = "" if len(entry.phrases) == 1 else " one of"
    lines += ["", f"Every such line holds{one_of} (for grep -F):", *(f"  {phrase}" for phrase in entry.phrases)]
    lines += ["", "Wordings by release (in quotes: exact; else a pattern):"]
    for variant in entry.variants:
        said = f'"{variant.text}"' if variant.structured else variant.text
        lines += textwrap.wrap(
            said, width, initial_indent=f"  {_releases(variant):<9}  ", subsequent_indent=" " * 13,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    return lines


def _releases(variant: Variant) -> str:
    from kdnsctl.logs.signatures import LAST_MINOR  # noqa: PLC0415

    if variant.first == variant.last:
        return f"1.{variant.first}"
    return f"1.{variant.first}+" if variant.last >= LAST_MINOR else f"1.{variant.first}–1.{variant.last}"
