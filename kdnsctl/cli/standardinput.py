"""Standard input as one of the paths of a command: the word `-`. Nothing is read here."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import BinaryIO

from kdnsctl.cli.terminal import tell
from kdnsctl.model import UsageError

STDIN = "-"


def stdin_for(paths: Sequence[str], what: str, said: str = STDIN) -> BinaryIO:
    """Standard input, if it is among `paths`; said when it is a terminal that waits for somebody to type `what`."""
    if sys.stdin is None:
        if STDIN in paths:
            raise UsageError(f"{said} reads standard input, but it is closed")
        return io.BytesIO()
    if STDIN in paths and sys.stdin.isatty():
        tell(f"reading {what} from the terminal; Ctrl-D ends it")
    return sys.stdin.buffer
