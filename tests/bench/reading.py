"""Nodes read over exec: one large table beside `kubectl exec … cat`, and many nodes in flat memory.

CPU time is that of whoever reads, whole processes, start-up included; beside it stands what the reading alone took.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measuring import RunError, Usage, measure
from tests.lab import kubectl

MANY = 300  # nodes
FEW = 30
PARALLEL = 8  # `--live-parallel`
LINE = (
    b"ipv4     2 udp      17 29 src=10.244.2.3 dst=10.96.0.10 sport=20034 dport=53 src=10.244.1.2 dst=10.244.2.3 "
    b"sport=53 dport=20034 [ASSURED] mark=0 zone=0 use=2\n"
)


@dataclass(frozen=True, slots=True)
class Exec:
    """One table of `size` bytes, by us and by kubectl; seconds of CPU. `own` is our reading without the start-up."""

    size: int
    cpu: float
    own: float
    peer_cpu: float

    @property
    def ratio(self) -> float:
        return self.own / self.peer_cpu


@dataclass(frozen=True, slots=True)
class Fleet:
    """Many nodes, a table of `size` bytes each; `anonymous` is the peak of memory in bytes."""

    nodes: int
    parallel: int
    size: int
    wall: float
    cpu: float
    anonymous: int


def run(
    size: int, *, rounds: int, tell: Callable[[str], None], many: int = MANY, few: int = FEW
) -> tuple[Exec, list[Fleet]]:
    """Raises RunError when anything that was read is not whole."""
    with tempfile.TemporaryDirectory() as directory, _server(Path(directory), many) as kubeconfig:
        table = _table(Path(directory, "table"), size)
        small = _table(Path(directory, "small"), size // 16)
        own, peer = [], []
        for number in range(rounds):
            tell(f"exec: round {number + 1} of {rounds}")
            own.append(_read(kubeconfig, table, 1, 1))
            peer.append(_kubectl(kubeconfig, table, Path(directory)))
        one = Exec(
            table.stat().st_size,
            min(usage.cpu for usage, _ in own),
            min(said["cpu"] for _, said in own),
            min(usage.cpu for usage in peer),
        )
        fleets = []
        for nodes in (few, many):
            tell(f"reading {nodes} nodes")
            usage, said = _read(kubeconfig, small, nodes, PARALLEL)
            fleets.append(Fleet(nodes, PARALLEL, small.stat().st_size, said["wall"], said["cpu"], usage.anonymous))
    return one, fleets


def _table(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        for _ in range(-(-size // (len(LINE) * 1000))):
            file.write(LINE * 1000)
    return path


@contextlib.contextmanager
def _server(directory: Path, nodes: int) -> Iterator[Path]:
    kubeconfig = directory / "kubeconfig"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.nodeserver", str(kubeconfig), str(nodes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RunError("the server of nodes did not start")
        try:
            yield kubeconfig
        finally:
            process.stdin.close()


def _read(kubeconfig: Path, table: Path, nodes: int, parallel: int) -> tuple[Usage, dict[str, float]]:
    command = [sys.executable, "-m", "tests.bench.noderead", str(kubeconfig), str(table), str(nodes), str(parallel)]
    usage = measure(command, sample=True)
    said: dict[str, float] = json.loads(usage.output)
    if said["complete"] != nodes or said["received"] != nodes * table.stat().st_size:
        raise RunError(f"of {nodes} nodes {said['complete']} were read whole: {usage.output!r}")
    return usage, said


def _kubectl(kubeconfig: Path, table: Path, home: Path) -> Usage:
    binary = str(kubectl.obtain())
    environment = {"KUBECONFIG": str(kubeconfig), "HOME": str(home), "PATH": os.environ["PATH"]}
    system = ["-n", "kube-system"]
    pods = subprocess.run(
        [binary, *system, "get", "pods", "-l", "k8s-app=kube-proxy", "-o", "name"],
        env=environment,
        capture_output=True,
        check=True,
    )
    pod = pods.stdout.decode().split()[0]
    usage = measure([binary, *system, "exec", pod, "--", "cat", str(table)], environment=environment)
    if usage.output != table.read_bytes():
        raise RunError(f"kubectl read {len(usage.output)} bytes, which are not the table")
    return usage
