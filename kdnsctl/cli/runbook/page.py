"""A step of a runbook as an operator reads it on a terminal: paragraphs filled, tables laid out, code as it stands.

Only what runbooks are made of is understood; what is not, is shown as it is written. The block of commands is left out:
it is shown afterwards, with the variables' values in their places. Nothing is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kdnsctl.cli import table
from kdnsctl.cli.terminal import visible

_FENCE = re.compile(r"(?P<ticks>`{3,}|~{3,})\s*(?P<language>[\w+-]*)\s*")
_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)")
_LABEL = re.compile(r"^\*\*(?P<label>[^*]+)\*\*")
_RULE = re.compile(r":?-+:?")
_ITEM = re.compile(r"(?:[*-]|\d+\.) ")


def lines_of(text: str, *, commands: bool, width: int | None, paint: table.Paint) -> list[str]:
    """The lines of a step whose Markdown is `text`, at most `width` cells wide (None: as long as they are).

    `commands`: the step has some, so its first block of code marked `sh` is left out. Safe to show.
    """
    found: list[str] = []
    for block in _blocks(text):
        first = block[0]
        fence = _FENCE.fullmatch(first.strip())
        if fence and commands and fence["language"] == "sh":
            commands = False
            continue
        if found:
            found.append("")
        if fence:
            found += [f"    {visible(line)}" for line in block[1:-1]]
        elif first.startswith("#"):
            found.append(paint(visible(first.lstrip("#").strip()), "bold"))
        elif first.lstrip().startswith("|"):
            found += _table(block, width, paint)
        elif _ITEM.match(first):
            for item in _items(block):
                found += _filled(item, width, paint, hanging=2)
        else:
            found += _filled(" ".join(line.strip() for line in block), width, paint)
    return found


def _blocks(text: str) -> Iterator[list[str]]:
    """Paragraphs, tables and headings, which empty lines part, and blocks of code whole."""
    block: list[str] = []
    fence = ""
    for line in text.splitlines():
        match = _FENCE.fullmatch(line.strip())
        if fence:
            block.append(line)
            if match and match["ticks"].startswith(fence) and not match["language"]:
                yield block
                block, fence = [], ""
        elif match or not line.strip():
            if block:
                yield block
            block, fence = ([line], match["ticks"]) if match else ([], "")
        else:
            block.append(line)
    if block:
        yield block


def _items(block: Sequence[str]) -> Iterator[str]:
    item: list[str] = []
    for line in block:
        if _ITEM.match(line) and item:
            yield " ".join(item)
            item = []
        item.append(line.strip())
    yield " ".join(item)


def _filled(text: str, width: int | None, paint: table.Paint, hanging: int = 0) -> list[str]:
    """A paragraph. A label at its beginning (`**Reads:**`) is painted after the lines were broken."""
    label = _LABEL.match(text)
    plain = label["label"] + text[label.end() :] if label else text
    lines = table.wrapped(visible(_linked(plain)), width, hanging=hanging)
    if label and lines[0].startswith(label["label"]):
        lines[0] = paint(label["label"], "bold") + lines[0][len(label["label"]) :]
    return lines


def _table(block: Sequence[str], width: int | None, paint: table.Paint) -> list[str]:
    rows = [[_linked(cell.strip()) for cell in line.strip().strip("|").split("|")] for line in block]
    headings, *rest = rows
    body = [row for row in rest if not all(_RULE.fullmatch(cell) for cell in row)]
    if any(len(row) != len(headings) for row in body):
        return [visible(line) for line in block]
    titles = [heading.upper() for heading in headings]
    return table.lay_out(titles, [[table.Cell.of(cell) for cell in row] for row in body], width=width, paint=paint)


def _linked(text: str) -> str:
    """Links in words: the name of what is beside the runbook, and the address of what is elsewhere."""
    return _LINK.sub(
        lambda match: f"{match['text']} ({match['target']})" if "://" in match["target"] else match["text"], text
    )
