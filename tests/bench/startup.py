"""Start-up: CPU time of `--version`, `--help` and one TAB, as multiples of what starting Python alone takes.

The minimum of many runs, taken in turns: whatever else the machine does only ever adds.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measuring import RunError, measure

RUNS = 20


@dataclass(frozen=True, slots=True)
class Start:
    """One way to start: `cpu` in seconds, `ratio` to Python's own, `goal` for that ratio."""

    name: str
    cpu: float
    ratio: float
    goal: float


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    expect: bytes
    goal: float


CASES = (
    _Case("kdnsctl --version", ("--version",), {}, b"kdnsctl ", 2),
    _Case("kdnsctl --help", ("--help",), {}, b"find-affected", 12),
    _Case(
        "TAB after `kdnsctl find-`",
        (),
        {"_KDNSCTL_COMPLETE": "complete_bash", "COMP_WORDS": "kdnsctl find-", "COMP_CWORD": "1"},
        b"find-affected",
        15,
    ),
)


def console_script() -> str:
    """The installed `kdnsctl`: what operators start. Raises RunError when this environment has none."""
    script = Path(sys.executable).with_name("kdnsctl")
    if not script.exists():
        raise RunError(f"{script} does not exist: install the package into this environment (pip install -e .)")
    return str(script)


def run(runs: int = RUNS) -> list[Start]:
    """Measure every case `runs` times; the first entry is Python's own start-up."""
    script = console_script()
    python = [sys.executable, "-c", "pass"]
    least = dict.fromkeys(["", *(case.name for case in CASES)], float("inf"))
    for _ in range(runs):
        least[""] = min(least[""], measure(python).cpu)
        for case in CASES:
            usage = measure([script, *case.arguments], environment=case.environment)
            if case.expect not in usage.output:
                raise RunError(f"{case.name} did not print {case.expect!r}, but {usage.output[:500]!r}")
            least[case.name] = min(least[case.name], usage.cpu)
    own = least[""]
    return [
        Start("python -c pass", own, 1, 1),
        *(Start(case.name, least[case.name], least[case.name] / own, case.goal) for case in CASES),
    ]
