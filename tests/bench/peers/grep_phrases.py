"""GNU grep, looking for every phrase of the catalogue: counts the lines that hold one, and does nothing else.

    python -m tests.bench.peers.grep_phrases FILE...

kdnsctl has more to do in the same bytes: which signature, which node, which Service and endpoint, when first and last.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kdnsctl.logs.signatures import PHRASES

ENVIRONMENT = {"LC_ALL": "C"}  # bytes, not characters: what makes grep fast


def write_phrases(path: Path) -> Path:
    """All phrases, one a line, as `grep -f` takes them."""
    path.write_text("".join(f"{phrase}\n" for phrase in PHRASES), encoding="utf-8")
    return path


def command(phrases: Path, files: Sequence[Path]) -> list[str]:
    """The command line; it prints `FILE:COUNT` for each file."""
    return ["grep", "-F", "-c", "-H", "-f", str(phrases), *map(str, files)]


def main(arguments: Sequence[str]) -> None:
    """Become grep, so that what is measured from outside is grep from here on."""
    handle, name = tempfile.mkstemp(prefix="kdnsctl-phrases-", text=True)
    os.close(handle)
    line = command(write_phrases(Path(name)), [Path(argument) for argument in arguments])
    os.execvpe(line[0], line, {**os.environ, **ENVIRONMENT})


if __name__ == "__main__":
    main(sys.argv[1:])
