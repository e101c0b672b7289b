"""Bundles with several captures: each node is judged by its own, and by what was true when it was read."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.evidence.artefactfile import Source
from kdnsctl.evidence.artefacts import CLUSTER
from kdnsctl.evidence.bundle import Bundle
from kdnsctl.find.analysis import AnalyzeReport
from kdnsctl.find.analyze_files import FileOptions, analyze_files
from kdnsctl.model import SilentReporter, UsageError, Verdict
from kdnsctl.netfilter.trailer import MARKER

START = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
API = Source("api")
EXEC = Source("exec")


@dataclass
class Clock:
    """The time, moved on by hand."""

    at: datetime = START

    def now(self) -> datetime:
        return self.at

    def later(self, seconds: int) -> None:
        self.at += timedelta(seconds=seconds)


SERVICE = {
    "metadata": {"namespace": "kube-system", "name": "kube-dns", "uid": "u"},
    "spec": {"clusterIP": "10.96.0.10", "ports": [{"name": "dns", "protocol": "UDP", "port": 53}]},
}
EVERY = {
    "metadata": {"namespace": "default", "name": "kubernetes"},
    "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]},
}


def slice_of(*addresses: str) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "kube-system",
            "name": "kube-dns-x",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "dns", "protocol": "UDP", "port": 53}],
        "endpoints": [{"addresses": [address]} for address in addresses],
    }


def write(bundle: Bundle, node: str, item: str, name: str, content: bytes) -> None:
    file = bundle.begin(node, item, name, API if node == CLUSTER else EXEC)
    file.write(content)
    file.close(proof="trailer")


def cluster(bundle: Bundle, *addresses: str) -> None:
    services = {"apiVersion": "v1", "kind": "ServiceList", "items": [SERVICE, EVERY]}
    slices = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList", "items": [slice_of(*addresses)]}
    write(bundle, CLUSTER, "services", "services.json", json.dumps(services).encode())
    write(bundle, CLUSTER, "endpointslices", "endpointslices.json", json.dumps(slices).encode())


def rules(*addresses: str) -> bytes:
    lines = ["*nat", ":KUBE-SERVICES - [0:0]", ":KUBE-SVC-TCOU7JCQXEZGVUNU - [0:0]"]
    lines += [f":KUBE-SEP-{number:016} - [0:0]" for number, _ in enumerate(addresses)]
    lines += ["-A PREROUTING -j KUBE-SERVICES", "-A OUTPUT -j KUBE-SERVICES"]
    lines += ["-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m udp --dport 53 -j KUBE-SVC-TCOU7JCQXEZGVUNU"]
    lines += [f"-A KUBE-SVC-TCOU7JCQXEZGVUNU -j KUBE-SEP-{number:016}" for number, _ in enumerate(addresses)]
    lines += [
        f"-A KUBE-SEP-{number:016} -p udp -m udp -j DNAT --to-destination {address}:53"
        for number, address in enumerate(addresses)
    ]
    return "\n".join([*lines, "COMMIT", ""]).encode()


def node(bundle: Bundle, name: str, *backends: str) -> None:
    entries = b"".join(
        f"ipv4     2 udp      17 29 src=10.244.2.3 dst=10.96.0.10 sport={number} dport=53 src={backend} dst=10.244.2.3 "
        f"sport=53 dport={number} mark=0 zone=0 use=2\n".encode()
        for number, backend in enumerate(backends, 20_000)
    )
    write(bundle, name, "conntrack.a", "conntrack.a.txt", entries + f"{MARKER} 0123456789abcdef rc=0;\n".encode())
    write(bundle, name, "rules.iptables4", "iptables-save.txt", rules(*dict.fromkeys(backends)))


def changed(bundle: Bundle, *lines: tuple[datetime, str, dict[str, Any] | None]) -> None:
    written = [{"type": kind, "time": at.isoformat(), **({"object": one} if one else {})} for at, kind, one in lines]
    content = b"".join(json.dumps(line).encode() + b"\n" for line in written)
    write(bundle, CLUSTER, "endpointslices.watch", "endpointslices-watch.jsonl", content)


def analyze(*paths: Path) -> AnalyzeReport:
    options = FileOptions(tuple(str(path) for path in paths), version="v1.33.0")
    return analyze_files(options, stdin=io.BytesIO(), reporter=SilentReporter(), now=START)


def verdicts(report: AnalyzeReport) -> dict[str, Verdict]:
    return {one.name: one.verdict for one in report.nodes}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def joined(tmp_path: Path, clock: Clock) -> Path:
    """knode1 was read while .5 served, knode2 only after a rollout to .7; each is clean by its own time."""
    place = tmp_path / "evidence"
    with Bundle.create(place, {"nodes": ["knode1", "knode2"]}, clock.now) as first:
        cluster(first, "10.244.1.5")
        node(first, "knode1", "10.244.1.5")
        node(first, "knode2", "10.244.1.5", "10.244.1.4")  # half of it: it will be read again
    clock.later(600)
    about = {"nodes": ["knode2", "knode1"], "kept": {"knode1": 1}}
    with Bundle.resume(place, about, again=True, now=clock.now) as second:
        cluster(second, "10.244.1.7")
        node(second, "knode2", "10.244.1.7")
        second.finish({"nodes": {"knode1": "complete", "knode2": "complete"}, "kept": {"knode1": 1}})
    return place


def in_its_folder(place: Path) -> Path:
    archive = place.with_name("evidence.tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(place, "evidence")
    return archive


def without_a_folder(place: Path) -> Path:
    archive = place.with_name("other.tar")
    with tarfile.open(archive, "w") as tar:
        tar.add(place, ".")
    return archive


@pytest.mark.parametrize("form", [Path, in_its_folder, without_a_folder, Path.resolve, lambda place: place.parent])
def test_each_node_is_judged_by_its_own_capture_in_every_form(joined: Path, form: Callable[[Path], Path]) -> None:
    report = analyze(form(joined))
    assert verdicts(report) == {"knode1": Verdict.CLEAN, "knode2": Verdict.CLEAN}
    assert {one.name: one.read_at for one in report.nodes} == {
        "knode1": START,
        "knode2": START + timedelta(seconds=600),
    }
    assert {one.code for one in report.skipped} == {"earlierCapture", "notEvidence"}


def test_a_capture_that_is_joined_with_nothing_stands_for_itself(joined: Path, clock: Clock) -> None:
    clock.later(60)
    with Bundle.resume(joined, {"nodes": ["knode1"]}, again=True, now=clock.now) as third:
        cluster(third, "10.244.1.9")
        node(third, "knode1", "10.244.1.7")
        third.finish({"nodes": {"knode1": "complete"}})
    assert verdicts(analyze(joined)) == {"knode1": Verdict.AFFECTED}


def test_a_node_of_which_there_is_nothing_is_in_scope_and_unknown(tmp_path: Path, clock: Clock) -> None:
    with Bundle.create(tmp_path / "evidence", {"nodes": ["knode1", "knode2"]}, clock.now) as bundle:
        cluster(bundle, "10.244.1.5")
        node(bundle, "knode1", "10.244.1.5")
        bundle.finish({"nodes": {"knode1": "complete", "knode2": "failed"}})
    report = analyze(tmp_path / "evidence")
    assert verdicts(report) == {"knode1": Verdict.CLEAN, "knode2": Verdict.UNKNOWN}
    assert (report.coverage.in_scope, report.coverage.unknown) == (2, 1)


def test_two_bundles_do_not_contradict_each_other(joined: Path, tmp_path: Path, clock: Clock) -> None:
    with Bundle.create(tmp_path / "other", {"nodes": ["knode3"]}, clock.now) as bundle:
        cluster(bundle, "10.244.1.9")
        node(bundle, "knode3", "10.244.1.9")
        bundle.finish({})
    assert set(verdicts(analyze(joined, tmp_path / "other")).values()) == {Verdict.CLEAN}


MOMENTS: list[tuple[str, list[tuple[int, str, dict[str, Any] | None]], Verdict]] = [
    ("it went before the node was read", [(-5, "MODIFIED", slice_of("10.244.1.7"))], Verdict.AFFECTED),
    ("it went afterwards", [(5, "MODIFIED", slice_of("10.244.1.7"))], Verdict.CLEAN),
    ("all went, by a new list", [(-5, "LISTED", None), (-5, "LISTED", slice_of("10.244.1.7"))], Verdict.AFFECTED),
    ("the slice was replaced", [(-5, "DELETED", slice_of("10.244.1.5"))], Verdict.AFFECTED),
    ("nothing changed", [(-5, "BOOKMARK", None)], Verdict.CLEAN),
]


@pytest.mark.parametrize(("lines", "verdict"), [one[1:] for one in MOMENTS], ids=[one[0] for one in MOMENTS])
def test_a_dump_is_judged_by_what_served_when_it_was_read(
    tmp_path: Path, clock: Clock, lines: list[tuple[int, str, dict[str, Any] | None]], verdict: Verdict
) -> None:
    with Bundle.create(tmp_path / "evidence", {"nodes": ["knode1"]}, clock.now) as bundle:
        cluster(bundle, "10.244.1.5")
        clock.later(10)
        read = clock.now()
        node(bundle, "knode1", "10.244.1.5")
        changed(bundle, *[(read + timedelta(seconds=after), kind, one) for after, kind, one in lines])
        bundle.finish({})
    assert verdicts(analyze(tmp_path / "evidence")) == {"knode1": verdict}


def test_an_endpoint_that_came_meanwhile_is_not_dead(tmp_path: Path, clock: Clock) -> None:
    with Bundle.create(tmp_path / "evidence", {"nodes": ["knode1"]}, clock.now) as bundle:
        cluster(bundle, "10.244.1.5")
        node(bundle, "knode1", "10.244.1.5", "10.244.1.7")
        clock.later(10)
        changed(bundle, (clock.now(), "MODIFIED", slice_of("10.244.1.5", "10.244.1.7")))
        bundle.finish({})
    assert verdicts(analyze(tmp_path / "evidence")) == {"knode1": Verdict.CLEAN}


HOSTILE: list[dict[str, Any]] = [
    {"kept": {"knode1": 9}},
    {"kept": {"knode1": -1}},
    {"kept": [], "nodes": 5},
    {"nodes": ["../../etc", "\x1b[31m"]},
]


@pytest.mark.parametrize("about", HOSTILE)
def test_what_a_strangers_journal_says_of_captures_gives_no_false_health(
    tmp_path: Path, clock: Clock, about: dict[str, Any]
) -> None:
    with Bundle.create(tmp_path / "evidence", about, clock.now) as bundle:
        cluster(bundle, "10.244.1.7")
        node(bundle, "knode1", "10.244.1.5")
        bundle.finish({})
    try:
        found = verdicts(analyze(tmp_path / "evidence"))
    except UsageError as error:  # where no file is of a capture that counts
        assert "no dump of a node" in str(error) or "objects of the cluster" in str(error)  # noqa: PT017
    else:
        assert found == {"knode1": Verdict.AFFECTED}
