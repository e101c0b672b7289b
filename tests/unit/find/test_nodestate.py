"""What a bundle has of a node beside tables and rules, and what analyze makes of it: clock, counters, kernel log."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from kdnsctl.evidence.bundle import Bundle
from kdnsctl.find.analysis import AnalyzeReport
from kdnsctl.model import Verdict
from tests.unit.find.test_captures import START, Clock, analyze, cluster, node, write

NODE = "knode1"
TABLE_FULL = b"<4>[%d.000000] nf_conntrack: nf_conntrack: table full, dropping packet\n"


def counters(insert_failed: int) -> bytes:
    return b"entries clashres insert_failed\n00000092 00000000 %08x\n" % insert_failed


def collected(
    place: Path, *more: tuple[str, bytes], backends: tuple[str, ...] = ("10.244.1.5",), clock: Clock | None = None
) -> AnalyzeReport:
    """A bundle of one node with these files too, judged."""
    with Bundle.create(place, {"nodes": [NODE]}, (clock or Clock()).now) as bundle:
        cluster(bundle, "10.244.1.5")
        node(bundle, NODE, *backends)
        for name, content in more:
            write(bundle, NODE, name, name, content)
        bundle.finish({"nodes": {NODE: "complete"}})
    return analyze(place)


def told(report: AnalyzeReport, check: str) -> str:
    return " ".join(finding.explanation for finding in report.nodes[0].findings if finding.id == check)


def at(seconds: float) -> bytes:
    """A node's clock that many seconds after the start of the bundle, an hour after the node's own start."""
    return b"btime %d\n3600.50 0.00\n" % (START.timestamp() - 3601 + seconds)


def test_two_readings_of_counters_are_compared(tmp_path: Path) -> None:
    both = ("conntrack-counters.a.txt", counters(9)), ("conntrack-counters.b.txt", counters(12))
    assert "insert_failed 3" in told(collected(tmp_path / "both", *both), "T2")
    assert "between the two readings" in told(analyze(tmp_path / "both"), "T2")
    assert "since the node started" in told(collected(tmp_path / "one", both[0]), "T2")
    same = ("conntrack-counters.a.txt", counters(9)), ("conntrack-counters.b.txt", counters(9))
    assert not told(collected(tmp_path / "same", *same), "T2")


@pytest.mark.parametrize(("since", "said"), [(3000, True), (1, True), (0, False)])
def test_what_the_kernel_said_in_the_last_hour_is_told(tmp_path: Path, since: int, said: bool) -> None:
    report = collected(tmp_path / "evidence", ("kernel.log", TABLE_FULL % since), ("clock.txt", at(0)))
    assert bool(told(report, "T1")) is said
    assert report.nodes[0].verdict is Verdict.CLEAN


def test_what_the_kernel_said_long_ago_is_told_only_where_its_age_is_unknown(tmp_path: Path) -> None:
    clock = b"btime %d\n864000.00 0.00\n" % (START.timestamp() - 864_000)
    assert not told(collected(tmp_path / "old", ("kernel.log", TABLE_FULL % 10), ("clock.txt", clock)), "T1")
    assert told(collected(tmp_path / "unknown", ("kernel.log", TABLE_FULL % 10)), "T1")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, ""), (2.0, ""), (-2.0, ""), (300.0, "300 s ahead of"), (-300.0, "300 s behind")],
)
def test_a_wrong_clock_is_told_and_changes_no_verdict(tmp_path: Path, seconds: float, words: str) -> None:
    report = collected(tmp_path / "evidence", ("clock.txt", at(seconds)), backends=("10.244.1.5", "10.244.1.4"))
    assert report.nodes[0].verdict is Verdict.AFFECTED
    notes = [note for note in report.notes if "clock" in note]
    assert len(notes) == bool(words)
    assert words in "".join(notes)


def test_metrics_are_judged_by_the_node_s_own_clock(tmp_path: Path) -> None:
    """A sync that was asked for 100 s ago by the node's clock, which is an hour behind ours, and not been done."""
    queued = START.timestamp() - 3600 - 100
    metrics = (
        "# HELP kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds [ALPHA] The last time a sync was queued\n"
        f"kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds {queued}\n"
        f"kubeproxy_sync_proxy_rules_last_timestamp_seconds {queued - 50}\n"
    ).encode()
    report = collected(tmp_path / "known", ("metrics.txt", metrics), ("clock.txt", at(-3600)))
    assert "at least 100 s ago" in told(report, "P1")
    assert not told(collected(tmp_path / "unknown", ("metrics.txt", metrics)), "P1")


def test_the_configured_mode_and_the_ports_of_the_node_are_used(tmp_path: Path) -> None:
    config = ("configz.json", b'{"kubeproxy.config.k8s.io":{"Mode":"ipvs"}}')
    report = collected(
        tmp_path / "evidence",
        config,
        ("proxy-mode.txt", b"iptables"),
        ("local-port-range.txt", b"20000\t20999\n"),
        backends=("10.244.1.4",),
    )
    assert "configured for ipvs" in told(report, "P3")
    assert "from 20000 to 20999 (of this node" in told(report, "C9")


def table(*left: int) -> bytes:
    entries = "".join(
        f"ipv4     2 udp      17 {seconds} src=10.244.2.3 dst=10.96.0.10 sport={port} dport=53 src=10.244.1.4 "
        f"dst=10.244.2.3 sport=53 dport={port} mark=0 zone=0 use=2\n"
        for port, seconds in enumerate(left, 20_000)
    )
    return f"{entries}#kdnsctl-end 0123456789abcdef rc=0;\n".encode()


@pytest.mark.parametrize(
    ("apart", "left", "active"),
    [
        (20, 29, 1),  # renewed between the readings
        (20, 10, 0),
        (1, 28, 1),  # too short a time to see it renewed; but used in the last seconds
        (1, 10, 0),
        (-5, 28, 1),  # a clock that was set back
    ],
)
def test_two_tables_of_a_bundle_tell_whether_entries_are_in_use(
    tmp_path: Path, apart: int, left: int, active: int
) -> None:
    clock = Clock()
    with Bundle.create(tmp_path / "evidence", {"nodes": [NODE]}, clock.now) as bundle:
        cluster(bundle, "10.244.1.5")
        node(bundle, NODE, "10.244.1.5")
        (bundle.directory / "nodes/knode1/01/conntrack.a.txt").unlink()
        write(bundle, NODE, "conntrack.a", "conntrack.a.txt", table(29))
        clock.at += timedelta(seconds=apart)
        write(bundle, NODE, "conntrack.b", "conntrack.b.txt", table(left))
        bundle.finish({"nodes": {NODE: "complete"}})
    report = analyze(tmp_path / "evidence")
    assert report.nodes[0].verdict is Verdict.AFFECTED
    assert report.nodes[0].stale_entries == 1
    (finding,) = [one for one in report.nodes[0].findings if one.id == "C7"]
    assert finding.count == active
    assert ("between the two readings" in finding.explanation) is (apart >= 5)
