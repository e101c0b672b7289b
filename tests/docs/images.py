"""Draws docs/images: what commands print in a lab in which a node is broken, as pictures of a terminal.

    nox -s images

Nothing in them is made by hand: each is one command's own output, drawn. Its text stands in the picture's description
as well, for those who cannot see it, and for the test that holds it to what the command prints today.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import xml.sax.saxutils
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from kdnsctl.lab import space
from tests.docs import places
from tests.docs.blocks import ROOT
from tests.lab import kubectl

PLACE = ROOT / "docs" / "images"
WIDTH = 110
# As rich draws it, without its fonts: a reader's own will do, and no page waits for someone else's server.
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" role="img" xmlns="http://www.w3.org/2000/svg">
<title>TITLE</title>
<desc>DESCRIPTION</desc>
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture: its file's name, the command, and which lines the test compares.

    Sentences are broken where a line ends, which numbers in them move; so of an explanation only its headings are
    compared. Of permissions there may be one more tomorrow.
    """

    name: str
    command: str
    compared: str = r""


SHOTS = (
    Shot("find-affected", "kdnsctl find-affected --live"),
    Shot("analyze", "kdnsctl analyze knode2", compared=r"  [A-Z]|knode2: affected|1 node in scope|Next:|  kdnsctl "),
    Shot("doctor", "kdnsctl doctor find-affected", compared=r"[A-Za-z]+ +(ok|STATE|works) "),
)


def take(shot: Shot, variables: Mapping[str, str]) -> str:
    """What a command prints on a terminal, colours among it; what goes to standard error is left out."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 60, WIDTH, 0, 0))
    with subprocess.Popen(
        ["bash", "--norc", "-c", shot.command],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        env={**variables, "TERM": "xterm-256color", "COLUMNS": str(WIDTH)},
    ):
        os.close(terminal)
        printed = b""
        try:
            while piece := os.read(screen, 65536):
                printed += piece
        except OSError:  # EIO: the last writer has closed the terminal
            pass
        finally:
            os.close(screen)
    return printed.decode().replace("\r\n", "\n").replace(variables["HOME"], "~").rstrip("\n")


def draw(shot: Shot, printed: str) -> str:
    """The picture."""
    text = Text.from_ansi(printed)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123  # a device
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(text, soft_wrap=True)
        svg = console.export_svg(title=f"$ {shot.command}", code_format=FORMAT, unique_id=shot.name)
    for mark, words in (("TITLE", f"$ {shot.command}"), ("DESCRIPTION", text.plain)):
        svg = svg.replace(mark, xml.sax.saxutils.escape(words), 1)
    return svg


def described(path: Path) -> list[str]:
    """The lines that a picture shows."""
    found = re.search(r"<desc>(.*?)</desc>", path.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, path
    return xml.sax.saxutils.unescape(found[1]).splitlines()


def compared(shot: Shot, lines: Sequence[str]) -> list[str]:
    """Those of them that have to be printed today, too."""
    return [line for line in lines if re.match(shot.compared, line)]


def main() -> int:
    """Build a lab, take the pictures, and remove it."""
    PLACE.mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="kdnsctl-images-"))
    try:
        variables = places.broken_lab(home, kubectl.obtain())
        for shot in SHOTS:
            (PLACE / f"{shot.name}.svg").write_text(draw(shot, take(shot, variables)), encoding="utf-8")
    finally:
        space.down("default", root=places.labs_of(home))
        shutil.rmtree(home)
    return 0


if __name__ == "__main__":
    sys.exit(main())
