from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.diagnosis.evidence import Fill
from kdnsctl.facts import conntrack, pairs, rules
from kdnsctl.model import Fact, Proof, Reason, Toolset
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.netfilter.entries import Entry
from kdnsctl.netfilter.rules import Mode, NodeRules
from kdnsctl.reach.shell import Reading, Sink

RECORDED = Path(__file__).parents[2] / "recordings"
CUT = Completeness(problem=Reason("noTrailer", "cut"))
WHOLE = Completeness(Proof.TRAILER)


class Recorded:
    """A `NodeShell` that plays outputs, by fact, in small pieces."""

    node = "knode2"
    rung = "recorded"

    def __init__(self, outputs: dict[str, bytes], completeness: Completeness, code: int = 0, err: bytes = b"") -> None:
        self.outputs = outputs
        self.completeness = completeness
        self.code = code
        self.err = err
        self.asked: list[str] = []

    @property
    def toolsets(self) -> tuple[Toolset, ...]:
        return (Toolset.KUBE_PROXY,)

    def command(self, fact: Fact) -> tuple[str, ...] | None:
        return fact.command(self.toolsets)

    def can(self, fact: Fact) -> bool:
        return fact.id in self.outputs

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        scope.check()
        self.asked.append(fact.id)
        output = self.outputs[fact.id]
        for start in range(0, len(output), 100):
            sink(output[start : start + 100])
        now = dt.datetime.now(dt.UTC)
        err = self.err if len(self.asked) == 1 else b""
        return Reading(
            fact.id, self.node, self.rung, self.completeness, now, now, 0.0, len(output), self.code, stderr=err
        )


def test_a_table_streams_its_wanted_entries_and_ends_with_a_summary() -> None:
    data = (RECORDED / "node" / "proc-nf_conntrack-stale.txt").read_bytes()
    entries: list[Entry] = []
    pair = pairs.table(conntrack.TABLE, lambda key: key.destination == "10.96.0.10", entries.append)
    with CancelScope() as scope:
        answer = pairs.read(Recorded({"conntrack": data}, WHOLE), pair, scope=scope)
    assert len(entries) == 60
    assert {entry.reply.source for entry in entries} == {"10.244.1.2", "10.244.2.2"}
    assert answer.value.completeness.complete
    assert answer.value.entries == len(data.splitlines())


@pytest.mark.parametrize("kept", [0, 1, 500, 10_000, 24_238])
def test_a_table_that_was_cut_is_never_whole(kept: int) -> None:
    data = (RECORDED / "node" / "proc-nf_conntrack-stale.txt").read_bytes()[:kept]
    entries: list[Entry] = []
    with CancelScope() as scope:
        pair = pairs.table(conntrack.TABLE, lambda key: key.destination == "10.96.0.10", entries.append)
        summary = pairs.read(Recorded({"conntrack": data}, CUT, code=0), pair, scope=scope).value
    assert not summary.completeness.complete
    assert len(entries) <= 60


def dumps(value: tuple[NodeRules, ...]) -> list[tuple[Mode, bool]]:
    return [(each.mode, each.completeness.complete) for each in value]


def test_rules_of_each_mode() -> None:
    recorded = Recorded(
        {
            "iptables.v4": (RECORDED / "node" / "iptables-nft-save-stale.txt").read_bytes(),
            "nft.v4": (RECORDED / "node" / "nft-kube-proxy.json").read_bytes(),
            "ipvs": b"IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n"
            b"  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\nUDP  0A60000A:0035 rr\n"
            b"  -> 0AF40105:0035      Masq    1      0          0\n",
        },
        WHOLE,
    )
    with CancelScope() as scope:
        iptables = pairs.read(recorded, pairs.IPTABLES[4], scope=scope).value
        nft = pairs.read_nft(recorded, 4, scope=scope).value
        ipvs = pairs.read(recorded, pairs.IPVS, scope=scope).value
    assert dumps(iptables) == [(Mode.IPTABLES, True)]
    assert dumps(nft) == [(Mode.NFTABLES, True)]
    assert dumps(ipvs) == [(Mode.IPVS, True)]
    assert [target.address for service in ipvs[0].services for target in service.targets] == ["10.244.1.5"]
    assert recorded.asked == ["iptables.v4", "nft.v4", "ipvs"]


def test_an_nft_without_json_is_asked_for_text() -> None:
    text = (RECORDED / "node" / "nft-kube-proxy.txt").read_bytes()
    recorded = Recorded({"nft.v4": b"", "nft.v4.text": text}, WHOLE, err=b"JSON support not compiled-in\n")
    with CancelScope() as scope:
        assert dumps(pairs.read_nft(recorded, 4, scope=scope).value) == [(Mode.NFTABLES, True)]
    assert recorded.asked == ["nft.v4", "nft.v4.text"]
    assert rules.NO_JSON in recorded.err


def test_numbers() -> None:
    settings = b"/proc/sys/net/netfilter/nf_conntrack_"
    recorded = Recorded(
        {
            "conntrack.fill": settings + b"count:1\n" + settings + b"max:2\n",
            "conntrack.counters": (RECORDED / "node" / "proc-stat-nf_conntrack.txt").read_bytes(),
            "conntrack.timeouts": b"nothing",
            "conntrack.ports": b"32768\t60999\n",
        },
        WHOLE,
    )
    with CancelScope() as scope:
        assert pairs.read(recorded, pairs.FILL, scope=scope).value == Fill(1, 2)
        counters = pairs.read(recorded, pairs.COUNTERS, scope=scope).value
        assert counters is not None
        assert counters["entries"] == 146
        assert pairs.read(recorded, pairs.TIMEOUTS, scope=scope).value is None
        assert pairs.read(recorded, pairs.LOCAL_PORTS, scope=scope).value == (32768, 60999)


@pytest.mark.parametrize(
    ("body", "status", "healthy"),
    [
        (b'{"lastUpdated": "x", "currentTime": "y"}', 200, True),
        (b'{"lastUpdated": "x", "currentTime": "y"}', 503, False),
        (b'{"lastUpdated": "x", "currentTime": "y"}', 404, None),
        (b'{"currentTime": "y", "healthy": false}', 200, False),
    ],
)
def test_health_is_in_the_body_or_in_the_status(body: bytes, status: int, healthy: bool | None) -> None:
    recorded = Recorded({"kubeProxy.health": body}, Completeness(Proof.CLOSED), code=status)
    with CancelScope() as scope:
        health = pairs.read(recorded, pairs.HEALTH, scope=scope).value
    assert health is not None
    assert health.healthy is healthy


def test_kube_proxy_in_its_own_words() -> None:
    metrics = (RECORDED / "kube-proxy-1.36" / "metrics.txt").read_bytes()
    recorded = Recorded({"kubeProxy.metrics": metrics, "kubeProxy.mode": b"iptables"}, Completeness(Proof.CLOSED), 200)
    with CancelScope() as scope:
        assert pairs.read(recorded, pairs.MODE, scope=scope).value is Mode.IPTABLES
        said = pairs.read(recorded, pairs.METRICS, scope=scope).value
    assert said.value("conntrack_reconciler_deleted_entries_total", 4) == 60
    assert said.completeness.complete


def test_a_reading_without_a_proven_trailer_has_none() -> None:
    now = dt.datetime.now(dt.UTC)
    too_long = Completeness(problem=Reason("tooLong", "x"))
    assert Reading("x", "n", "exec", too_long, now, now, 0.0, 5, exit_code=0).trailer is None
    assert Reading("x", "n", "exec", WHOLE, now, now, 0.0, 5, exit_code=0).trailer is not None
