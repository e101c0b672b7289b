"""The recorded node, whose kube-proxy was stopped while CoreDNS rolled, judged from each form of its dumps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.diagnosis.evidence import Evidence, Item, Missing, Terms
from kdnsctl.diagnosis.findings import Diagnosis, Severity
from kdnsctl.diagnosis.flows import Collector, Reading
from kdnsctl.diagnosis.index import Index
from kdnsctl.diagnosis.truth import Backend, PodRef, ServicePort, Truth
from kdnsctl.diagnosis.verdict import diagnose
from kdnsctl.model import Reason, Verdict
from kdnsctl.netfilter import iptables, nft
from kdnsctl.netfilter.conntrack import ConntrackReader
from kdnsctl.netfilter.rules import NodeRules
from kdnsctl.netfilter.trailer import Trailer
from tests.unit.diagnosis.nodes import of, the

RECORDINGS = Path(__file__).parents[2] / "recordings"
NODE = RECORDINGS / "node"
DNS = "kube-system/kube-dns"
COMMAND = "conntrack -D -p udp --orig-dst 10.96.0.10 --orig-port-dst 53 --reply-src {} --reply-port-src 53"


def serving(slices: dict[str, Any], protocol: str) -> tuple[Backend, ...]:
    return tuple(
        Backend(address, port["port"], endpoint["nodeName"], PodRef("kube-system", endpoint["targetRef"]["name"]))
        for one in slices["items"]
        for port in one["ports"]
        if port["protocol"] == protocol and port["name"].startswith("dns")
        for endpoint in one["endpoints"]
        if endpoint["conditions"]["serving"]
        for address in endpoint["addresses"]
    )


def dns_service(udp: tuple[Backend, ...], tcp: tuple[Backend, ...]) -> Truth:
    vip = ("10.96.0.10",)
    ports = [("dns", "udp", udp), ("dns-tcp", "tcp", tcp)]
    return Truth(
        tuple(
            ServicePort("kube-system", "kube-dns", name, protocol, 53, vip, 0, backends)
            for name, protocol, backends in ports
        ),
        pods={"10.244.2.3": PodRef("default", "client-1", "knode2")},
        services_known=False,
    )


@pytest.fixture
def after_rollout() -> Truth:
    slices = json.loads((RECORDINGS / "api" / "endpointslices-after-rollout.json").read_bytes())
    return dns_service(serving(slices, "UDP"), serving(slices, "TCP"))


def table(name: str, known: Truth, *, cut: int | None = None) -> Reading:
    data = (NODE / name).read_bytes()
    reader, collector = ConntrackReader(Index(known, "knode2").wanted), Collector()
    for start in range(0, len(data), 4096):
        collector.add_all(reader.feed(data[start : start + 4096][: None if cut is None else max(0, cut - start)]))
    counted = name == "conntrack-stale.txt"
    errors = (NODE / "conntrack-stale.err").read_bytes() if counted and cut is None else b""
    trailer = None if counted or name.endswith(".xml") or cut is not None else Trailer(0)
    summary = reader.finish(errors=errors, trailer=trailer)
    collector.add_all(summary.last)
    return collector.reading(summary.completeness, entries=summary.entries)


def rules(*files: str) -> tuple[NodeRules, ...]:
    return tuple(
        each
        for name in files
        for each in (nft if name.startswith("nft-") else iptables).parse([(NODE / name).read_bytes()])
    )


STALE_RULES = ("iptables-nft-save-stale.txt", "ip6tables-nft-save.txt", "iptables-legacy-save-empty.txt")
TABLES = (
    "conntrack-stale.txt",
    "conntrack-stale-extended-id.txt",
    "conntrack-stale.xml",
    "proc-nf_conntrack-stale.txt",
)


def judged(known: Truth, **more: Any) -> Diagnosis:
    return diagnose(Evidence(node="knode2", **more), known, Terms(services=(DNS,)))


@pytest.mark.parametrize("name", TABLES)
def test_sixty_entries_lead_to_the_two_dead_pods(name: str, after_rollout: Truth) -> None:
    diagnosis = judged(after_rollout, conntrack=table(name, after_rollout))
    assert (diagnosis.verdict, diagnosis.stale_entries) == (Verdict.AFFECTED, 60)
    finding = the(diagnosis, "C1")
    assert (finding.service, finding.port, finding.protocol, finding.count) == (f"{DNS}:dns", 53, "udp", 60)
    assert sorted(finding.backends) == ["10.244.1.2:53", "10.244.2.2:53"]
    (client,) = finding.clients
    assert (client.address, client.count, client.pod, client.namespace) == ("10.244.2.3", 60, "client-1", "default")
    assert [diagnosis.missing[0].code, len(diagnosis.missing)] == ["rulesNotRead", 1]
    assert sorted(finding.commands) == [COMMAND.format(dead) for dead in ("10.244.1.2", "10.244.2.2")]
    assert not [each for each in diagnosis.findings if each.id in ("C2", "C3", "C4", "C5", "C6")]


def test_the_rules_lead_there_too_so_that_deleting_would_not_help(after_rollout: Truth) -> None:
    diagnosis = judged(after_rollout, conntrack=table(TABLES[0], after_rollout), rules=rules(*STALE_RULES))
    assert (diagnosis.verdict, diagnosis.stale_entries, diagnosis.complete) == (Verdict.AFFECTED, 60, True)
    udp, tcp = of(diagnosis, "R2")
    assert (udp.service, tcp.service) == (f"{DNS}:dns", f"{DNS}:dns-tcp")
    assert sorted(udp.backends) == ["10.244.1.2:53", "10.244.2.2:53"]
    assert "100% of new flows" in udp.explanation
    assert the(diagnosis, "C1").commands == ()
    assert {each.severity for each in of(diagnosis, "R3")} == {Severity.WARNING}
    for absent in ("R1", "R4", "R5", "R6", "R7", "R8", "Q1"):
        assert not of(diagnosis, absent), absent


def test_the_rules_alone_prove_it(after_rollout: Truth) -> None:
    why = Missing(Item.CONNTRACK, Reason("noProcfs", "this kernel has no /proc/net/nf_conntrack"))
    diagnosis = judged(after_rollout, rules=rules(*STALE_RULES), missing=(why,))
    assert (diagnosis.verdict, diagnosis.reason.code) == (Verdict.AFFECTED, "staleRules")
    assert diagnosis.stale_entries is None
    assert [each.code for each in diagnosis.missing] == ["noProcfs"]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("cut", [0, 1, 100, 2_000, 5_000])
def test_a_dump_that_is_cut_off_is_never_clean(name: str, cut: int, after_rollout: Truth) -> None:
    reading = table(name, after_rollout, cut=cut)
    assert not reading.completeness.complete
    diagnosis = judged(after_rollout, conntrack=reading, rules=rules(*STALE_RULES[1:]))
    assert not diagnosis.complete
    if diagnosis.stale_entries:
        assert diagnosis.verdict is Verdict.AFFECTED
    else:
        assert diagnosis.verdict is Verdict.UNKNOWN


def test_before_the_rollout_the_same_table_was_healthy(after_rollout: Truth) -> None:
    alive = (Backend("10.244.1.2", 53), Backend("10.244.2.2", 53))
    before = dns_service(alive, alive)
    diagnosis = judged(before, conntrack=table(TABLES[0], before), rules=rules(*STALE_RULES))
    assert (diagnosis.verdict, diagnosis.stale_entries, diagnosis.findings) == (Verdict.CLEAN, 0, ())
    assert after_rollout.services != before.services


@pytest.mark.parametrize("form", ["nft-kube-proxy.json", "nft-kube-proxy.txt"])
def test_nftables_rules_and_what_the_iptables_mode_left_behind(form: str) -> None:
    alive = (Backend("10.244.2.5", 53), Backend("10.244.3.5", 53))
    known = dns_service(alive, alive)
    left = "iptables-nft-save-after-switch-to-nftables.txt"
    empty = table(TABLES[0], dns_service(alive, alive), cut=0)
    diagnosis = judged(known, conntrack=empty, rules=rules(form, left))
    assert not [each for each in diagnosis.findings if each.id in ("R1", "R2", "R3", "R5", "R6", "R8")]
    finding = the(diagnosis, "R7")
    assert finding.severity is Severity.INFO
    assert "iptables (nf_tables)" in finding.explanation
    assert "Services are in nftables" in finding.explanation
    assert diagnosis.verdict is Verdict.UNKNOWN


def test_the_text_of_nft_hides_nothing_that_would_be_stale() -> None:
    alive = (Backend("10.244.2.5", 53),)
    for form in ("nft-kube-proxy.json", "nft-kube-proxy.txt"):
        diagnosis = judged(dns_service(alive, alive), rules=rules(form))
        assert {each.backends for each in of(diagnosis, "R2")} == {("10.244.3.5:53",)}, form
