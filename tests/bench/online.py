"""find-affected on a cluster: a thousand logs over TLS, beside whoever only reads them, and beside kubectl and grep.

A server of our own (`serve`) runs beside what is measured and takes its part of the processor from each alike. What is
compared takes turns; figures are the minimum. find-affected's report is checked against what the logs hold.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import fleet
from tests.bench.measuring import RunError, Usage, measure
from tests.bench.peers import kubectl_logs
from tests.bench.startup import console_script

ROUNDS = 3
PODS = 1000
SIZE = 200_000  # bytes of a log
LARGE = 2_000_000
MANY = 5000  # nodes, to list
# An installed package has its byte code; a checkout that is told to write none would compile itself each time.
BYTE_CODE = {"PYTHONDONTWRITEBYTECODE": ""}


@dataclass(frozen=True, slots=True)
class Shape:
    """How the logs look: bytes of a chunk (0: one for each line), and whether every third line is a hit."""

    name: str
    chunk: int
    syncs: bool = False


SHAPES = (
    Shape("a chunk for each line", 0),
    Shape("chunks of 2 KiB", 2048),
    Shape("chunks of 32 KiB", 32768),
    Shape("chunks of 2 KiB, kube-proxy at -v=2", 2048, syncs=True),
)


@dataclass(frozen=True, slots=True)
class Online:
    """One shape: seconds of find-affected and of the reader, and whether the report was right."""

    shape: str
    pods: int
    bytes: int
    wall: float
    cpu: float
    reader_wall: float
    reader_cpu: float
    agrees: bool


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl and grep on the first shape but one, beside find-affected; wall clock and CPU, in seconds."""

    pods: int
    wall: float
    cpu: float
    own_wall: float
    own_cpu: float
    agrees: bool


@dataclass(frozen=True, slots=True)
class Memory:
    """Peaks of anonymous memory, in bytes: of reading logs of two sizes, and of listing alone."""

    pods: int
    small: int
    large: int
    listed: int
    listing: int


@contextlib.contextmanager
def served(pods: int, size: int, shape: Shape) -> Iterator[Path]:
    """A server for the length of the block; the directory of its kubeconfig."""
    with tempfile.TemporaryDirectory(prefix="kdnsctl-bench-") as name:
        directory = Path(name)
        options = ["--nodes", str(pods), "--size", str(size), "--chunk", str(shape.chunk)]
        command = [sys.executable, "-m", "tests.bench.serve", name, *options, *(["--syncs"] if shape.syncs else [])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            if server.stdout.readline() != b"ready\n":
                raise RunError("the server did not start")
            try:
                yield directory
            finally:
                server.kill()


def compare(shapes: Sequence[Shape], *, pods: int, rounds: int, tell: Callable[[str], None]) -> list[Online]:
    """find-affected beside the bare reader, for each shape."""
    found = []
    for shape in shapes:
        tell(f"reading {pods} logs of {SIZE / 1000:.0f} KB: {shape.name}")
        with served(pods, SIZE, shape) as directory:
            own: list[Usage] = []
            reader: list[Usage] = []
            for _ in range(rounds):
                reader.append(measure(_reader(directory, pods)))
                own.append(_find(directory))
            sizes = {int(usage.output) for usage in reader}
            if len(sizes) != 1:
                raise RunError(f"the reader read {sizes} bytes")
            found.append(
                Online(
                    shape.name,
                    pods,
                    sizes.pop(),
                    min(usage.wall for usage in own),
                    min(usage.cpu for usage in own),
                    min(usage.wall for usage in reader),
                    min(usage.cpu for usage in reader),
                    all(is_right(usage.output, pods) for usage in own),
                )
            )
    return found


def kubectl(*, pods: int, rounds: int, tell: Callable[[str], None]) -> Kubectl:
    """kubectl and grep once (it takes minutes), find-affected `rounds` times."""
    tell(f"kubectl logs and grep for {pods} pods")
    with served(pods, SIZE, SHAPES[1]) as directory:
        variables = kubectl_logs.environment(directory / "kubeconfig", 1, directory / "cache")
        measure(kubectl_logs.command(), environment=variables)  # it has met the server before, as at home
        variables |= kubectl_logs.environment(directory / "kubeconfig", pods, directory / "cache")
        peer = measure(kubectl_logs.command(), environment=variables)
        own = [_find(directory) for _ in range(rounds)]
    bad = {fleet.pod_name(number) for number in range(pods) if fleet.is_bad(number)}
    named = {line.partition(b":")[0].decode() for line in peer.output.splitlines()}
    return Kubectl(
        pods,
        peer.wall,
        peer.cpu,
        min(usage.wall for usage in own),
        min(usage.cpu for usage in own),
        named == bad and all(is_right(usage.output, pods) for usage in own),
    )


def memory(*, pods: int, large: int, nodes: int, tell: Callable[[str], None]) -> Memory:
    """Peaks, each in a run of its own."""
    peaks = []
    for size in (SIZE, large):
        tell(f"memory for {pods} logs of {size / 1000:.0f} KB")
        with served(pods, size, SHAPES[1]) as directory:
            peaks.append(_find(directory, sample=True).anonymous)
    tell(f"memory for listing {nodes} nodes")
    with served(nodes, 1000, SHAPES[1]) as directory:
        command = [sys.executable, "-m", "tests.bench.list_scope", str(directory / "kubeconfig")]
        listed = measure(command, sample=True, environment=BYTE_CODE)
    if listed.output.split() != [str(nodes).encode()] * 2:
        raise RunError(f"{nodes} nodes and pods were to be listed, and {listed.output!r} were")
    return Memory(pods, peaks[0], peaks[1], nodes, listed.anonymous)


def is_right(report: bytes, pods: int) -> bool:
    """Whether a FindReport says of every node what its log holds."""
    nodes = {node["name"]: node for node in json.loads(report)["nodes"]}
    expected = {fleet.node_name(number): fleet.is_bad(number) for number in range(pods)}
    return nodes.keys() == expected.keys() and all(
        (
            nodes[name]["verdict"],
            [(each["id"], each["count"]) for each in nodes[name]["signatures"]],
        )
        == (("suspect", [("CT_DEL_ENDPOINT", fleet.FAILURES)]) if bad else ("clean", []))
        for name, bad in expected.items()
    )


def _reader(directory: Path, pods: int) -> list[str]:
    return [sys.executable, "-m", "tests.bench.peers.read_logs", str(directory / "kubeconfig"), str(pods)]


def _find(directory: Path, *, sample: bool = False) -> Usage:
    command = [console_script(), "find-affected", "--kubeconfig", str(directory / "kubeconfig"), "-o", "json"]
    environment = {**BYTE_CODE, "XDG_CACHE_HOME": str(directory / "ours")}
    return measure(command, exit_codes=[3], environment=environment, sample=sample)
