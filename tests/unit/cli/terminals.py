"""A terminal to look at: a pseudo-terminal of a given size whose screen a test can read."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import sys
import termios
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

COLOR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Screen:
    """What came through, with colours and without."""

    code: int
    raw: str

    @property
    def lines(self) -> list[str]:
        return COLOR.sub("", self.raw).splitlines()

    @property
    def text(self) -> str:
        return COLOR.sub("", self.raw)


def on_terminal(monkeypatch: pytest.MonkeyPatch, call: Callable[[], int], *, columns: int) -> Screen:
    """Call `call` with stdout and stderr on a new terminal that is `columns` wide."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    received = bytearray()

    def read() -> None:
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # EIO: the last writer closed the terminal
                return
            if not chunk:
                return
            received.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        terminal = os.fdopen(slave, "w", encoding="utf-8", errors="backslashreplace")
        with terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setattr(sys, "stderr", terminal)
            code = call()
    finally:
        reader.join()
        os.close(master)
    return Screen(code, received.decode().replace("\r\n", "\n"))
