"""A made-up cluster to read logs from: nodes, a kube-proxy pod on each, and what the pods logged. `serve` serves it.

Objects are as large as recorded ones, images and managedFields included. Pods share a few different logs, so that a
thousand of them fit into memory.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from tests.bench.records import Failures, Record, noise_text, start

API: Final = Path(__file__).parents[1] / "recordings" / "api"
BEGIN: Final = datetime(2026, 11, 5, tzinfo=UTC)
SEED: Final = 20261128
DIFFERENT: Final = 8  # logs of each kind
BAD_EVERY: Final = 100  # one node in so many has failures in its log
FAILURES: Final = 5  # in such a log
IMAGES: Final = 50  # a node reports at most so many (kubelet, nodeStatusMaxImages)


@dataclass(frozen=True, slots=True)
class Log:
    """The lines of a log as the API gives it with timestamps."""

    lines: tuple[bytes, ...]


def node_name(number: int) -> str:
    """`node-00007`."""
    return f"node-{number:05}"


def pod_name(number: int) -> str:
    """`kube-proxy-00007`, on the node of the same number."""
    return f"kube-proxy-{number:05}"


def is_bad(number: int) -> bool:
    """Whether the node's kube-proxy has logged failures."""
    return number % BAD_EVERY == 7


def make_logs(size: int, *, syncs: bool, phrases: Sequence[str]) -> tuple[list[Log], list[Log]]:
    """Healthy and bad logs of about `size` bytes.

    With `syncs` a log is one at -v=2, of which every third line is the end of a sync, and a hit; else one at -v=4, in
    which hits are rare.
    """
    healthy = [_log(size, random.Random(f"{SEED}/{number}"), syncs, phrases, 0) for number in range(DIFFERENT)]
    bad = [_log(size, random.Random(f"{SEED}/bad/{number}"), syncs, phrases, FAILURES) for number in range(DIFFERENT)]
    return healthy, bad


def log_of(number: int, logs: tuple[list[Log], list[Log]]) -> Log:
    """The log of a node's kube-proxy."""
    healthy, bad = logs
    return (bad if is_bad(number) else healthy)[number % DIFFERENT]


def _log(size: int, random_: random.Random, syncs: bool, phrases: Sequence[str], failures: int) -> Log:
    noise = noise_text(phrases, random_)
    lines: list[bytes] = []
    now = BEGIN
    written = 0

    def add(severity: str, text: str) -> int:
        nonlocal now
        now += timedelta(milliseconds=random_.randint(1, 900))
        stamp = f"{now:%Y-%m-%dT%H:%M:%S.%f}123Z"
        lines.append(f"{stamp} {severity}{now:%m%d %H:%M:%S.%f}       1 {text}\n".encode())
        return len(lines[-1])

    for record in start("node", "v1.30.14"):
        written += add(record.severity, f"{_file(record)}] {record.text()}")
    while written < size:
        if syncs:
            for text in _sync(random_):
                written += add("I", text)
        else:
            severity, _, rest = random_.choice(noise).partition("|")
            written += add(severity, rest)
    maker = Failures(random_, structured=True)
    left = failures
    while left:
        for record in maker.burst():
            if left and record.id == "CT_DEL_ENDPOINT" and record.service == "kube-system/kube-dns":
                add(record.severity, f"{_file(record)}] {record.text()}")
                left -= 1
    return Log(tuple(lines))


def _file(record: Record) -> str:
    return record.place.rpartition("/")[2]


def _sync(random_: random.Random) -> list[str]:
    """What kube-proxy 1.30 says of one sync at -v=2."""
    counts = f"numServices={random_.randint(4, 900)} numEndpoints={random_.randint(4, 2000)} numFilterChains=6"
    rules = f"numFilterRules={random_.randint(3, 9)} numNATChains={random_.randint(16, 4000)} numNATRules=34"
    return [
        'proxier.go:808] "Syncing iptables rules"',
        f'proxier.go:1494] "Reloading service iptables data" {counts} {rules}',
        f'proxier.go:799] "SyncProxyRules complete" elapsed="{random_.uniform(5, 90):.6f}ms"',
    ]


def nodes(count: int) -> list[bytes]:
    """Node objects, in JSON."""
    node = _first("nodes.json")
    image = {"names": ["registry.example.org/some/team/service@sha256:" + "0" * 64], "sizeBytes": 123456789}
    node["status"]["images"] = [image] * IMAGES
    return _numbered(node, node["metadata"]["name"], count)


def pods(count: int) -> list[bytes]:
    """The kube-proxy pods, in JSON: of 1.30, on the nodes of `nodes`."""
    pod = next(
        each for each in _load("pods-kube-system.json")["items"] if each["metadata"]["name"].startswith("kube-proxy-")
    )
    text = json.dumps(pod).replace(pod["spec"]["nodeName"], "NODE").replace("v1.36.2", "v1.30.14")
    pod = json.loads(text)
    pod["metadata"]["uid"] = "00000000-0000-4000-8000-0000000NUMBER"
    pod["metadata"]["name"] = "POD"
    template = json.dumps(pod)
    return [
        template.replace("POD", pod_name(number), 1)
        .replace("NODE", node_name(number))
        .replace("NUMBER", f"{number:05}")
        .encode()
        for number in range(count)
    ]


def _numbered(node: dict[str, Any], name: str, count: int) -> list[bytes]:
    template = json.dumps(node)
    return [template.replace(name, node_name(number)).encode() for number in range(count)]


def _first(file: str) -> dict[str, Any]:
    found: dict[str, Any] = _load(file)["items"][0]
    return found


def _load(file: str) -> Any:
    return json.loads((API / file).read_text(encoding="utf-8"))
