"""Fuzz targets of rules: iptables, nft and ipvs dumps, and kube-proxy's own words."""

from __future__ import annotations

import random

from kdnsctl.netfilter import iptables, ipvs, kubeproxy, nft
from kdnsctl.netfilter.dump import Completeness, Proof
from kdnsctl.netfilter.recognise import PARSERS, Form, RulesParser, recognise
from kdnsctl.netfilter.rules import NodeRules
from tests.fuzz.target import Target, in_blocks, recorded

WHOLE = Completeness(Proof.TRAILER)


def _check_rules(parse: RulesParser, data: bytes, random_: random.Random) -> None:
    found = parse([data], None)
    assert parse(in_blocks(data, random_), None) == found, "blocks matter"
    assert found, "no result at all"
    with_trailer = parse([data], WHOLE)
    for rules, trailed in zip(found, with_trailer, strict=True):
        assert rules.services == trailed.services, "what is read depends on what the node said"
        assert not (rules.completeness.complete and not trailed.completeness.complete), "a trailer made it worse"
        _check_model(rules)
    form = recognise(data[:4096])
    assert form is None or form in Form


def _check_model(rules: NodeRules) -> None:
    keys = [(each.protocol, each.address, each.port) for each in rules.services]
    assert len(keys) == len(set(keys)) or rules.mode == "ipvs", "one address twice"
    for service in rules.services:
        assert 0 <= service.port <= 65_535
        known = [target.probability for target in service.targets if target.probability is not None]
        assert all(-1e-6 <= share <= 1 + 1e-6 for share in known), "no probability"
        assert sum(known) <= 1 + 1e-3, "more than all flows"
    assert len(rules.obstacles) <= 20
    assert all(len(each) <= 300 for each in rules.obstacles)


def _check_iptables(data: bytes, random_: random.Random) -> None:
    _check_rules(iptables.parse, data, random_)


def _check_nft(data: bytes, random_: random.Random) -> None:
    _check_rules(nft.parse, data, random_)


def _check_ipvs(data: bytes, random_: random.Random) -> None:
    _check_rules(ipvs.parse, data, random_)


def _check_words(data: bytes, random_: random.Random) -> None:
    metrics = kubeproxy.parse_metrics([data])
    assert kubeproxy.parse_metrics(in_blocks(data, random_)) == metrics, "blocks matter"
    assert {each.name for each in metrics.samples} <= kubeproxy.KEPT
    for sample in metrics.samples:
        metrics.value(sample.name, sample.family)
    kubeproxy.parse_health(data)
    kubeproxy.parse_proxy_mode(data)


SAVED = b"""\
-A -u 10.96.0.10:53 -s rr -p 10800
-a -u 10.96.0.10:53 -r 10.244.1.5:53 -m -w 1
-A -t [fd00::10]:53 -s wrr
-a -t [fd00::10]:53 -r [fd00::a]:53 -m -w 0
-A -f 7 -s rr
"""
PROC = b"""\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
UDP  0A60000A:0035 rr persistent 10800 FFFFFFFF
  -> 0AF40105:0035      Masq    1      0          0
TCP  [fd00:0000:0000:0000:0000:0000:0000:0010]:0035 rr
"""
METRICS = b"""\
kubeproxy_proxy_healthz_total{code="200",ip_family="IPv4"} 1
kubeproxy_proxy_livez_total 1 1795402960000
# EOF
"""
HEALTH = b"""\
{"lastUpdated": "2026-11-23 03:02:39.5 +0000 UTC m=+1.2", "currentTime": "2026-11-23T03:02:39Z", "healthy": true,
"nodeEligible": true, "status": {"IPv4": {"lastUpdated": "2026-11-23T03:02:39+01:00", "healthy": false}}}
"""
TARGETS = (
    Target("rules-iptables", recorded("rules/*tables-*.txt", "node/*tables-*.txt"), _check_iptables),
    Target("rules-nft", recorded("rules/nft-*", "node/nft-*"), _check_nft),
    Target("rules-ipvs", (SAVED, PROC), _check_ipvs),
    Target("rules-kube-proxy", (METRICS, HEALTH, b"iptables"), _check_words),
)
assert set(PARSERS.values()) == {iptables.parse, nft.parse, ipvs.parse}, "a parser without a target"
