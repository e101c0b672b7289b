"""Evidence that is not all there was never gives a clean node, wherever it broke off and however that shows."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdnsctl.evidence import clusterside
from kdnsctl.evidence.artefactfile import Source
from kdnsctl.evidence.artefacts import CLUSTER
from kdnsctl.evidence.bundle import Bundle
from kdnsctl.evidence.items import ITEMS, Item
from kdnsctl.evidence.nodeside import LACKING
from kdnsctl.evidence.resuming import node_record
from kdnsctl.find import brokenoff
from kdnsctl.find.analysis import NodeAnalysis
from kdnsctl.find.analyze_files import FileOptions, analyze_files
from kdnsctl.model import Reason, SilentReporter, UsageError, Verdict
from kdnsctl.netfilter.trailer import MARKER
from tests.unit.find.test_captures import EVERY, SERVICE, rules, slice_of

NODE: Final = "knode1"
ALIVE: Final = "10.244.1.5"
START: Final = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
END: Final = f"{MARKER} 0123456789abcdef rc=0;\n"
ENTRY: Final = (
    f"ipv4     2 udp      17 29 src=10.244.2.3 dst=10.96.0.10 sport=20000 dport=53 src={ALIVE} dst=10.244.2.3 "
    "sport=53 dport=20000 mark=0 zone=0 use=2\n"
)
SETTING: Final = "/proc/sys/net/netfilter/nf_conntrack_"
RULES: Final = rules(ALIVE).decode()
AFTER_NAT: Final = f"{RULES}*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n"
METRICS: Final = (
    "# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge\n"
    "kubeproxy_sync_proxy_rules_last_timestamp_seconds 1.7638e+09\n"
    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds 1.7638e+09\n"
)
HEALTH: Final = '{"lastUpdated": "2026-11-23 03:00:01 +0000 UTC", "currentTime": "2026-11-23 03:00:01 +0000 UTC"}'
OF_NODE: Final[dict[str, str]] = {
    "kubeProxy.mode": "iptables",
    "conntrack.a": ENTRY * 3 + END,
    "conntrack.counters": "entries  clashres found new\n00000003  00000000 00000000 00000000\n",
    "conntrack.fill": f"{SETTING}count:3\n{SETTING}max:262144\n{SETTING}buckets:65536\n",
    "iptables.v4": AFTER_NAT,
    "iptables.v6": AFTER_NAT.replace("-d 10.96.0.10/32", "-d fd00::10/128").replace(f"{ALIVE}:53", "[fd00::5]:53"),
    "kubeProxy.health": HEALTH,
    "kubeProxy.metrics": METRICS,
    "ip.routes.v4": "[]\n",
    "conntrack.b": ENTRY * 2 + END,
    "conntrack.counters.b": "entries  clashres found new\n00000003  00000000 00000000 00000000\n",
    "conntrack.timeouts": f"{SETTING}udp_timeout:30\n{SETTING}udp_timeout_stream:120\n",
    "conntrack.ports": "32768\t60999\n",
}
KNODE: Final = {
    "metadata": {"name": NODE},
    "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
}
POD: Final = {
    "metadata": {"namespace": "kube-system", "name": "coredns-x"},
    "spec": {"nodeName": NODE},
    "status": {"podIP": ALIVE},
}
FILES: Final = {item.id: item for item in ITEMS}
EXTRA: Final = "ip.routes.v4"


def listed(kind: str, version: str, *items: dict[str, Any]) -> str:
    return json.dumps({"apiVersion": version, "kind": f"{kind}List", "metadata": {}, "items": items})


OF_CLUSTER: Final[dict[str, str]] = {
    "services": listed("Service", "v1", SERVICE, EVERY),
    "nodes": listed("Node", "v1", KNODE),
    "pods": listed("Pod", "v1", POD),
    "endpointslices": listed("EndpointSlice", "discovery.k8s.io/v1", slice_of("10.244.1.4", ALIVE)),
}


def changes(*lines: tuple[float, str, dict[str, Any] | None]) -> str:
    written = (
        {"type": kind, "time": (START + timedelta(seconds=at)).isoformat(), **({"object": one} if one else {})}
        for at, kind, one in lines
    )
    return "".join(f"{json.dumps(line)}\n" for line in written)


WATCHED: Final = changes((-5, "BOOKMARK", None), (-4, "MODIFIED", slice_of(ALIVE)), (30, "BOOKMARK", None))


@dataclass(frozen=True)
class Cut:
    """What of a bundle broke off while it was collected: of which item only so many bytes came, and why."""

    item: str
    keep: int
    code: str = "cutOff"


def put(bundle: Bundle, node: str, item: str, name: str, content: str, cut: Cut | None, *, compress: bool) -> None:
    file = bundle.begin(node, item, name, Source("exec"), compress=compress)
    broken = cut is not None and cut.item == item
    file.write(content.encode()[: cut.keep] if broken and cut else content.encode())
    file.close(proof="trailer", problem=Reason(cut.code, "it broke off") if broken and cut else None)


def collected(
    place: Path,
    cut: Cut | None = None,
    *,
    watched: str = WATCHED,
    without: frozenset[str] = frozenset(),
    over: bool = True,
    back: float = 0.0,
) -> Path:
    """A bundle of one healthy node, read a second after the other; `over` tells whether collecting came to its end.

    `back` is how many seconds the clock goes back while the node is read.
    """
    seconds = [-10.0]

    def now() -> datetime:
        seconds[0] += 0.25
        return START + timedelta(seconds=seconds[0])

    with Bundle.create(place, {"nodes": [NODE]}, now) as bundle:
        for item, content in OF_CLUSTER.items():
            put(bundle, CLUSTER, item, f"{item}.json", content, cut, compress=False)
        seconds[0] = 0.0
        for item, content in OF_NODE.items():
            about = FILES[item]
            if item in without:
                missing = {"node": NODE, "item": item, "problem": {"code": "unreachable", "message": "no answer"}}
                bundle.record("missing", missing)
                continue
            seconds[0] -= back if item == "iptables.v4" else 0.0
            put(bundle, NODE, item, about.name, content, cut, compress=about.compress)
        if over:
            bundle.record("node", node_record(NODE, "complete", "exec", 12, [], list(OF_NODE)))
        put(bundle, CLUSTER, clusterside.WATCH, "endpointslices-watch.jsonl", watched, cut, compress=False)
        if over:
            bundle.finish({"nodes": {NODE: "complete"}})
    return place


def analyzed(place: Path) -> NodeAnalysis:
    options = FileOptions((str(place),), version="v1.33.0")
    (node,) = analyze_files(options, stdin=io.BytesIO(), reporter=SilentReporter(), now=START).nodes
    return node


def verdict(place: Path) -> Verdict:
    try:
        return analyzed(place).verdict
    except UsageError as error:
        assert "no dump of a node" in str(error)  # noqa: PT017 - with nothing left there is no verdict, and no health
        return Verdict.UNKNOWN


@pytest.fixture(scope="module", autouse=True)
def without_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return collected(tmp_path_factory.mktemp("healthy") / "evidence")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


def path_of(item: str) -> str:
    """Where the one attempt at an item lies in a bundle."""
    if item in FILES:
        about = FILES[item]
        return f"nodes/{NODE}/01/{about.name}{'.gz' if about.compress else ''}"
    return "cluster/01/endpointslices-watch.jsonl" if item == clusterside.WATCH else f"cluster/01/{item}.json"


JUDGED: Final = sorted({*OF_NODE, *OF_CLUSTER, clusterside.WATCH} - {EXTRA})


def test_the_bundle_is_a_healthy_nodes(healthy: Path) -> None:
    node = analyzed(healthy)
    assert (node.verdict, node.reason_code) == (Verdict.CLEAN, "noStaleEntries")
    assert node.diagnosis is not None
    assert node.diagnosis.complete


@pytest.mark.parametrize("item", JUDGED)
def test_a_file_that_was_cut_afterwards(healthy: Path, tmp_path: Path, item: str) -> None:
    """At its ends and in its middle; nothing but the bytes themselves tells of it."""
    size = (healthy / path_of(item)).stat().st_size
    assert size > 1
    for keep in sorted({0, 1, size // 2, size - 1}):
        place = tmp_path / str(keep)
        shutil.copytree(healthy, place)
        os.truncate(place / path_of(item), keep)
        assert verdict(place) is not Verdict.CLEAN, keep
    place = tmp_path / "taken away"
    shutil.copytree(healthy, place)
    (place / path_of(item)).unlink()
    assert verdict(place) is not Verdict.CLEAN


@settings(max_examples=80)
@given(item=st.sampled_from(JUDGED), share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_anywhere(healthy: Path, scratch: Path, item: str, share: float) -> None:
    place = scratch / "cut"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(healthy, place)
    victim = place / path_of(item)
    os.truncate(victim, int(victim.stat().st_size * share))
    assert verdict(place) is not Verdict.CLEAN


@settings(max_examples=80)
@given(item=st.sampled_from(JUDGED), share=st.floats(0, 1), code=st.sampled_from(["cutOff", "noTrailer", "deadline"]))
def test_an_output_that_broke_off_anywhere(scratch: Path, item: str, share: float, code: str) -> None:
    """Also one of which all came before: where a connection broke, nobody knows that it was all."""
    place = scratch / "broken"
    shutil.rmtree(place, ignore_errors=True)
    content = {**OF_NODE, **OF_CLUSTER, clusterside.WATCH: WATCHED}[item]
    collected(place, Cut(item, int(len(content) * share), code))
    if item == clusterside.WATCH:  # it ended after the node had been read: all that matters for it is there
        assert verdict(place) is Verdict.CLEAN or share < 1
    else:
        assert verdict(place) is not Verdict.CLEAN


def test_rules_that_end_with_a_commit_and_are_not_all(tmp_path: Path) -> None:
    node = analyzed(collected(tmp_path / "evidence", Cut("iptables.v4", len(RULES))))
    assert (node.verdict, node.reason_code) == (Verdict.UNKNOWN, "cutOff")


@pytest.mark.parametrize("item", ["conntrack.a", "conntrack.b"])
def test_a_table_that_was_never_begun(tmp_path: Path, item: str) -> None:
    node = analyzed(collected(tmp_path / "evidence", without=frozenset({item})))
    assert (node.verdict, node.reason_code) == (Verdict.UNKNOWN, "unreachable")


def test_what_no_verdict_hangs_on_may_be_cut(tmp_path: Path) -> None:
    assert verdict(collected(tmp_path / "evidence", Cut(EXTRA, 1))) is Verdict.CLEAN


def test_what_is_not_there_on_a_node_is_not_broken_off(tmp_path: Path) -> None:
    """Rules of a family that the node does not have: whether they are needed is asked of Services."""
    assert verdict(collected(tmp_path / "evidence", Cut("iptables.v6", 0, "commandFailed"))) is Verdict.CLEAN


def test_a_process_that_was_killed_before_it_had_all(tmp_path: Path) -> None:
    node = analyzed(collected(tmp_path / "evidence", over=False))
    assert (node.verdict, node.reason_code) == (Verdict.UNKNOWN, "interrupted")


def test_an_attempt_that_failed_is_no_loss_when_another_did_not(tmp_path: Path) -> None:
    with Bundle.create(tmp_path / "evidence", {"nodes": [NODE]}) as bundle:
        for item, content in OF_CLUSTER.items():
            put(bundle, CLUSTER, item, f"{item}.json", content, None, compress=False)
        for item, content in OF_NODE.items():
            for cut in (Cut(item, len(content) // 2), None):
                put(bundle, NODE, item, FILES[item].name, content, cut, compress=FILES[item].compress)
        bundle.finish({"nodes": {NODE: "complete"}})
    assert verdict(tmp_path / "evidence") is Verdict.CLEAN


class TestEndpointsThatChangeMeanwhile:
    def test_a_watch_that_ended_before_the_node_was_read(self, tmp_path: Path) -> None:
        place = tmp_path / "evidence"
        watch = Cut(clusterside.WATCH, len(WATCHED), "unreachable")
        with Bundle.create(place, {"nodes": [NODE]}, lambda: START) as bundle:
            put(bundle, CLUSTER, clusterside.WATCH, "endpointslices-watch.jsonl", WATCHED, watch, compress=False)
            for item, content in OF_CLUSTER.items():
                put(bundle, CLUSTER, item, f"{item}.json", content, None, compress=False)
        with Bundle.resume(place, {}, again=False, now=lambda: START + timedelta(seconds=9)) as bundle:
            for item, content in OF_NODE.items():
                put(bundle, NODE, item, FILES[item].name, content, None, compress=FILES[item].compress)
            bundle.finish({"nodes": {NODE: "complete"}})
        node = analyzed(place)
        assert (node.verdict, node.reason_code) == (Verdict.UNKNOWN, "watchEnded")

    def test_an_endpoint_that_went_while_the_node_was_read(self, tmp_path: Path) -> None:
        """The table still leads to it, as that of every healthy node does for a moment: neither stale nor clean."""
        watched = changes((-5, "BOOKMARK", None), (4, "MODIFIED", slice_of("10.244.1.9")), (30, "BOOKMARK", None))
        node = analyzed(collected(tmp_path / "evidence", watched=watched))
        assert (node.verdict, node.reason_code) == (Verdict.UNKNOWN, "notSettled")
        assert node.diagnosis is not None
        assert not node.diagnosis.complete

    def test_one_that_went_when_all_had_been_read(self, tmp_path: Path) -> None:
        watched = changes((-4, "MODIFIED", slice_of(ALIVE)), (20, "MODIFIED", slice_of("10.244.1.9")))
        assert verdict(collected(tmp_path / "evidence", watched=watched)) is Verdict.CLEAN

    def test_a_clock_that_went_back(self, tmp_path: Path) -> None:
        node = analyzed(collected(tmp_path / "evidence", back=60.0))
        assert (node.verdict, node.reason_code) == (Verdict.UNKNOWN, "clockUnsteady")


def is_judged(item: Item) -> bool:
    return item.fact is not None and not item.extra and not item.instead


def test_the_names_are_those_that_collecting_gives() -> None:
    assert set(brokenoff.OF_NODE) == {item.id for item in ITEMS if is_judged(item)}
    instead: dict[str, list[str]] = {}
    for item in ITEMS:
        if item.instead:
            instead.setdefault(item.instead, []).append(item.id)
    assert {one: list(others) for one, others in brokenoff.INSTEAD.items()} == instead
    kinds = {one.id for one in (*clusterside.KINDS, clusterside.PODS) if not one.extra}
    assert set(brokenoff.OF_CLUSTER) == kinds
    assert brokenoff.NOT_THERE == LACKING
