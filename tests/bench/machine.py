"""The facts of a machine that a figure is worth nothing without."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

GIB = 1024**3


def facts() -> dict[str, str]:
    """What was measured on: processor, memory, kernel, Python, grep, mawk."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "grep": _first_line(["grep", "--version"]),
        "mawk": _first_line(["mawk", "-W", "version"]),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition("\n")[0]
