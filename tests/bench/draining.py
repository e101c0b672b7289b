"""Ten nodes with ten pods each, under budgets, drained in one call: by the library, and by a stock kubectl.

Each drains a cluster of its own in a process of its own, and both are counted with their start-up.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.drainserver import DRAINED
from tests.bench.measuring import RunError
from tests.lab.kubectl import obtain


@dataclass(frozen=True)
class Drain:
    """Seconds by the wall; `agrees`: both nodes' pods have all gone."""

    wall: float
    peer_wall: float
    agrees: bool

    @property
    def ratio(self) -> float:
        return self.wall / self.peer_wall


def run(*, rounds: int, tell: Callable[[str], None]) -> Drain:
    """Ours `rounds` times, of which the least counts; kubectl once, for it sleeps most of the time."""
    nodes = [f"knode{number}" for number in range(1, DRAINED + 1)]
    tell(f"kubectl drain of {DRAINED} nodes")
    peer, peer_left = _timed(
        lambda config: [str(obtain()), f"--kubeconfig={config}", "drain", "--ignore-daemonsets"], nodes
    )
    own, left = [], []
    for number in range(rounds):
        tell(f"our drain of {DRAINED} nodes, {number + 1} of {rounds}")
        wall, remaining = _timed(lambda config: [sys.executable, "-m", "tests.bench.drainrun", str(config)], nodes)
        own.append(wall)
        left.append(remaining)
    return Drain(min(own), peer, not any((peer_left, *left)))


def _timed(command: Callable[[Path], list[str]], nodes: list[str]) -> tuple[float, int]:
    """The seconds of one drain, and the number of pods that it left."""
    with _cluster() as (config, left):
        began = time.perf_counter()
        result = subprocess.run([*command(config), *nodes], capture_output=True, text=True, check=False)
        wall = time.perf_counter() - began
        if result.returncode:
            raise RunError(f"a drain failed: {result.stderr[-500:]}")
        return wall, left()


@contextmanager
def _cluster() -> Iterator[tuple[Path, Callable[[], int]]]:
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "kubeconfig")
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.drainserver", str(config)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with server:
            assert server.stdin is not None
            assert server.stdout is not None
            if server.stdout.readline() != "ready\n":
                raise RunError("the cluster to drain did not start")

            def left() -> int:
                assert server.stdin is not None
                assert server.stdout is not None
                print("left", file=server.stdin, flush=True)
                return int(server.stdout.readline())

            yield config, left
            server.stdin.close()
