"""Tables in plain text: aligned as kubectl's when there is room, and still whole when there is not.

Nothing is ever cut off. Without a width (a pipe) or when it fits, each row is one line. On a narrower terminal columns
that say the same in every row are said once below, the parts of a cell go under each other, the column with the longest
sentences is filled as a paragraph, the first column gets a line of its own, and at last each row becomes a list of
"heading value" lines. Only columns that the caller calls spare are left out, where they would cost the table its rows.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from kdnsctl.cli.terminal import visible, width_of

GAP = 3  # spaces between columns, as kubectl has it
NARROW_GAP = 2
LEAST_PROSE = 20  # cells; a sentence in a narrower column is harder to read than below its heading
LEAST_WIDTH = 10  # cells; for less nothing can be laid out, and the terminal wraps by itself

_STYLES = {"bold": "1", "red": "1;31", "yellow": "33", "green": "32", "magenta": "35"}


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in one place: one or several short texts, and a colour that repeats what the words say."""

    parts: tuple[str, ...]
    style: str = ""

    @classmethod
    def of(cls, *parts: str, style: str = "") -> Cell:
        """Texts from anywhere, made safe to show."""
        return cls(tuple(visible(part) for part in parts), style)

    @property
    def joined(self) -> str:
        """All parts on one line, without spaces: `awk` sees one column."""
        return ",".join(self.parts)


Row = Sequence[Cell]
Paint = Callable[[str, str], str]


def painter(*, color: bool) -> Paint:
    """A function that wraps a text in the style's escape sequence, or leaves it alone."""

    def paint(text: str, style: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if color and style and text else text

    return paint


def wrapped(text: str, width: int | None, indent: int = 0, hanging: int = 0) -> list[str]:
    """The lines of a sentence at most `width` cells wide (None: one line); the first hangs out by `hanging`.

    A word that is longer is a line of its own, and whole.
    """
    margin = " " * indent
    if width is None:
        return [margin + text]
    lines = textwrap.wrap(
        text,
        max(width, LEAST_WIDTH),
        initial_indent=margin,
        subsequent_indent=margin + " " * hanging,
        break_on_hyphens=False,
        break_long_words=False,  # a path that is broken cannot be copied; the terminal goes on by itself
    )
    return lines or [""]


def lay_out(
    headings: Sequence[str],
    rows: Sequence[Row],
    *,
    width: int | None,
    paint: Paint,
    with_headings: bool = True,
    spare: Sequence[str] = (),
) -> list[str]:
    """The lines of a table at most `width` cells wide (None: as wide as it comes).

    `spare` are headings of columns that may be left out so that the rest keeps its columns, the first of them last.
    """
    heads: Row = [Cell((heading,)) for heading in headings]
    whole = [heads, *rows]
    if width is None or not with_headings:  # rows for a script: a terminal may wrap them, we do not
        return _aligned(_one_line(whole if with_headings else rows), GAP, paint)
    choices = list(_choices(whole, spare))
    for chosen in choices:
        lines = _side_by_side(chosen, width, paint)
        if lines is not None:
            return lines
    for chosen in choices:
        lines = _filled(chosen, width, paint)
        if lines is not None:
            return lines
    least, footer = _factored(choices[-1], width)
    if len(least[0]) > 1 and _natural_width([[Cell(("",)), *row[1:]] for row in least], NARROW_GAP) <= width:
        return _hanging(least, paint) + footer
    factored, footer = _factored(whole, width)
    return _records(factored[0], factored[1:], width, paint) + footer


def _choices(table: Sequence[Row], spare: Sequence[str]) -> Iterator[Sequence[Row]]:
    """The table with ever fewer of its spare columns."""
    places = [index for heading in reversed(spare) for index, head in enumerate(table[0]) if head.joined == heading]
    for count in range(len(places) + 1):
        for dropped in combinations(places, count):
            yield [[cell for index, cell in enumerate(row) if index not in dropped] for row in table]


def _side_by_side(table: Sequence[Row], width: int, paint: Paint) -> list[str] | None:
    """The table with its cells beside each other, None when it is too wide for that."""
    one_line = _one_line(table)
    if _natural_width(one_line, GAP) <= width:
        return _aligned(one_line, GAP, paint)
    factored, footer = _factored(table, width)
    return _aligned(factored, NARROW_GAP, paint) + footer if _natural_width(factored, NARROW_GAP) <= width else None


def _filled(table: Sequence[Row], width: int, paint: Paint) -> list[str] | None:
    """The table with the sentences of its widest column broken at spaces, None where that does not make it fit."""
    factored, footer = _factored(table, width)
    widths = _column_widths(factored)
    if len(widths) < 2:
        return None
    widest = max(range(1, len(widths)), key=widths.__getitem__)
    room = width - (_natural_width(factored, NARROW_GAP) - widths[widest])
    if room < LEAST_PROSE:
        return None
    filled = [
        [
            Cell(tuple(piece for part in cell.parts for piece in _broken(part, room)), cell.style)
            if index == widest
            else cell
            for index, cell in enumerate(row)
        ]
        for row in factored
    ]
    words = (word for row in factored for part in row[widest].parts for word in part.split())
    if max(map(width_of, words), default=0) > room or _natural_width(filled, NARROW_GAP) > width:
        return None  # a path or a hash would be broken, and could not be copied
    return _aligned(filled, NARROW_GAP, paint) + footer


def _one_line(table: Sequence[Row]) -> Sequence[Row]:
    return [[Cell((cell.joined,), cell.style) for cell in row] for row in table]


def _factored(table: Sequence[Row], width: int) -> tuple[Sequence[Row], list[str]]:
    heads, rows, everywhere = _factor_out(table[0], table[1:])
    return [heads, *rows], textwrap.wrap(everywhere, max(width, LEAST_WIDTH)) if everywhere else []


def _natural_width(rows: Sequence[Row], gap: int) -> int:
    return sum(_column_widths(rows)) + gap * (len(rows[0]) - 1) if rows else 0


def _column_widths(rows: Sequence[Row]) -> list[int]:
    return [
        max((width_of(part) for cell in column for part in cell.parts), default=0) for column in zip(*rows, strict=True)
    ]


def _aligned(rows: Sequence[Row], gap: int, paint: Paint, indent: int = 0) -> list[str]:
    if not rows:
        return []
    widths = _column_widths(rows)
    lines = []
    for row in rows:
        for index in range(max(1, *(len(cell.parts) for cell in row))):
            line, behind = " " * indent, 0
            for cell, width in zip(row, widths, strict=True):
                part = cell.parts[index] if index < len(cell.parts) else ""
                if part:
                    line += " " * behind + paint(part, cell.style)
                    behind = 0
                behind += width - width_of(part) + gap
            lines.append(line)
    return lines


def _factor_out(heads: Row, rows: Sequence[Row]) -> tuple[Row, Sequence[Row], str]:
    """Take out the columns, but the first, that say the same in every row; and the sentence that says them once.

    A column in which nothing is said goes without a word.
    """
    if len(rows) < 2:
        return heads, rows, ""
    same = [
        index > 0 and len({row[index].joined for row in rows}) == 1 and not rows[0][index].style
        for index in range(len(heads))
    ]
    told = [(heads[index].joined, rows[0][index].joined) for index, is_same in enumerate(same) if is_same]
    said = [f"{heading} {text}" for heading, text in told if text != "-"]

    def keep(row: Row) -> Row:
        return [cell for cell, is_same in zip(row, same, strict=True) if not is_same]

    return keep(heads), [keep(row) for row in rows], f"In every row: {'; '.join(said)}." if said else ""


def _hanging(rows: Sequence[Row], paint: Paint) -> list[str]:
    """Each row's first cell on a line of its own, the others below it, aligned."""
    lines: list[str] = []
    blocks = [[Cell(("",)), *row[1:]] for row in rows]
    rest = [block[1:] for block in blocks]
    heights = [max(1, *(len(cell.parts) for cell in row)) for row in rest]
    aligned = iter(_aligned(rest, NARROW_GAP, paint, indent=NARROW_GAP))
    for row, height in zip(rows, heights, strict=True):
        lines.append(paint(row[0].joined, row[0].style))
        lines += [next(aligned) for _ in range(height)]
    return lines


def _records(heads: Row, rows: Sequence[Row], width: int, paint: Paint) -> list[str]:
    """Each row as lines of "heading value", for a terminal with no room for columns."""
    label = max((width_of(head.joined) for head in heads[1:]), default=0)
    room = max(LEAST_WIDTH, width - label - 2 * NARROW_GAP)
    lines: list[str] = []
    for row in rows:
        lines += [paint(piece, row[0].style or "bold") for piece in _broken(row[0].joined, max(LEAST_WIDTH, width))]
        for head, cell in zip(heads[1:], row[1:], strict=True):
            words = [word for part in cell.parts for word in part.split()]
            if max(map(width_of, words), default=0) > room:  # it has more room below its heading than beside it
                margin, below = " " * (2 * NARROW_GAP), max(LEAST_WIDTH, width - 2 * NARROW_GAP)
                lines.append(" " * NARROW_GAP + head.joined)
                lines += [margin + paint(piece, cell.style) for part in cell.parts for piece in _broken(part, below)]
                continue
            pieces = [piece for part in cell.parts for piece in _broken(part, room)] or [""]
            for index, piece in enumerate(pieces):
                name = head.joined if index == 0 else ""
                lines.append(" " * NARROW_GAP + name.ljust(label + NARROW_GAP) + paint(piece, cell.style))
    return lines


def _broken(text: str, width: int) -> list[str]:
    """`text` in pieces of at most `width` characters, at spaces where there are any."""
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]
