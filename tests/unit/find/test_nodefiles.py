"""Whose a file is, by where it lies; and what it is, by what is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdnsctl.find.nodefiles import Artefact, by_node, is_second
from kdnsctl.find.recognise import Sort, sort_of

HEALTH = Sort.HEALTH
FILTERED = (
    b"12:ipv4     2 udp      17 29 src=10.0.0.1 dst=10.96.0.10 sport=1 dport=53 src=10.0.0.2 dst=10.0.0.1 "
    b"sport=53 dport=1 mark=0 zone=0 use=2\n"
)
RECORDINGS = Path(__file__).parents[2] / "recordings"


def grouped(
    *paths: str, given: tuple[str, ...], node: str | None = None, known: tuple[str, ...] = ()
) -> dict[str, str]:
    files = [Artefact(Sort.CONNTRACK, path or "<stdin>", path, number) for number, path in enumerate(paths)]
    groups = by_node(files, given, node=node, known=known)
    assert sorted(file.path for group in groups for file in group.files) == sorted(paths)
    assert len({group.name for group in groups}) == len(groups)
    return {group.name: group.name_from if group.identified else "guess" for group in groups}


@pytest.mark.parametrize(
    ("paths", "given", "expected"),
    [
        (["d/n1/ct", "d/n2/ct"], ("d",), {"n1": "path", "n2": "path"}),
        (["d/n1/conntrack/ct", "d/n1/rules/x"], ("d",), {"n1": "path"}),  # folders that sort files are no nodes
        (["b/nodes/n1/ct", "b/nodes/n2/kubeproxy/metrics"], ("b",), {"n1": "path", "n2": "path"}),
        (["/tmp/work/n1/ct"], ("/tmp/work/n1",), {"n1": "guess"}),
        (["/tmp/work/n1/ct"], ("/tmp/work/*/ct",), {"n1": "path"}),
        (["dump/n1/ct"], ("dump.tar.gz",), {"n1": "path"}),
        (["ct", "rules"], ("ct", "rules"), {"ct": "guess"}),
        ([""], ("-",), {"<stdin>": "guess"}),
        (["d/Not A Node/ct"], ("d",), {"Not A Node": "guess"}),
    ],
)
def test_the_folder_below_what_was_given_is_the_node(
    paths: list[str], given: tuple[str, ...], expected: dict[str, str]
) -> None:
    assert grouped(*paths, given=given) == expected


def test_a_guess_that_the_cluster_knows_is_none() -> None:
    assert grouped("/tmp/work/n1/ct", given=("/tmp/work/n1",), known=("n1",)) == {"n1": "path"}


def test_the_option_names_what_nothing_else_does() -> None:
    assert grouped("ct", "rules", given=("ct", "rules"), node="n7") == {"n7": "option"}
    assert grouped("d/n1/ct", given=("d",), node="n7") == {"n7": "option"}  # all are of one node
    assert grouped("d/n1/ct", "d/n2/ct", "ct", given=("d", "ct"), node="n7") == {
        "n1": "path",
        "n2": "path",
        "n7": "option",
    }
    assert grouped("d/n1/ct", "d/n2/ct", given=("d",), node="n7") == {"n1": "path", "n2": "path"}


def test_the_later_of_two_readings() -> None:
    assert is_second("d/conntrack.b.txt", {"d/conntrack.a.txt"})
    assert not is_second("d/conntrack.b.txt", {"e/conntrack.a.txt"})
    assert not is_second("d/web-b.txt", {"d/conntrack.a.txt"})
    assert not is_second("d/conntrack.a.txt", {"d/conntrack.a.txt"})


@pytest.mark.parametrize(
    ("name", "sort"),
    [
        ("node/conntrack-stale.txt", Sort.CONNTRACK),
        ("node/conntrack-stale-extended-id.txt", Sort.CONNTRACK),
        ("node/conntrack-stale.xml", Sort.CONNTRACK),
        ("node/proc-nf_conntrack-stale.txt", Sort.CONNTRACK),
        ("node/conntrack-stale.err", Sort.CONNTRACK_COUNT),
        ("node/iptables-nft-save-stale.txt", Sort.IPTABLES),
        ("node/ip6tables-nft-save.txt", Sort.IPTABLES),
        ("node/nft-kube-proxy.json", Sort.NFT_JSON),
        ("node/nft-kube-proxy.txt", Sort.NFT_TEXT),
        ("node/conntrack-stats.txt", Sort.COUNTERS),
        ("node/proc-stat-nf_conntrack.txt", Sort.COUNTERS),
        ("node/iptables-legacy-save-empty.txt", Sort.EMPTY),
        ("kube-proxy-1.36/metrics.txt", Sort.METRICS),
        ("api/endpointslices-after-rollout.json", Sort.OBJECTS_JSON),
        ("api/service-kube-dns.json", Sort.OBJECTS_JSON),
        ("api/configmap-kube-proxy.json", Sort.OBJECTS_JSON),
        ("kube-proxy-1.36/v4-stopped-then-healed.log", Sort.OTHER),
        ("README.md", Sort.OTHER),
    ],
)
def test_every_recording_is_known_for_what_it_is(name: str, sort: Sort) -> None:
    assert sort_of((RECORDINGS / name).read_bytes()[: 64 << 10]) is sort


@pytest.mark.parametrize(
    ("head", "sort"),
    [
        (FILTERED, Sort.CONNTRACK),
        (b"iptables", Sort.MODE),
        (b"/proc/sys/net/netfilter/nf_conntrack_count:146\n", Sort.SETTINGS),
        (b"net.netfilter.nf_conntrack_max = 262144\n", Sort.SETTINGS),
        (b'{"lastUpdated": "2026-11-23 03:05:00 +0000 UTC","currentTime": "2026-11-23 03:05:00 +0000 UTC"}', HEALTH),
        (b"btime 1795829762\n19086.47 25816.65\n", Sort.CLOCK),
        (b"btime 1795829762\n", Sort.OTHER),
        (b"32768\t60999\n", Sort.PORTS),
        (b"net.ipv4.ip_local_port_range = 32768\t60999\n", Sort.PORTS),
        (b"32768\t60999\t1\n", Sort.OTHER),
        (b"<6>[18792.822982] cni0: port 1 entered blocking state\n", Sort.KERNEL_LOG),
        (b"[    0.000000] Linux version 6.18\n", Sort.KERNEL_LOG),
        (b"2026-11-23T03:02:39,123456+00:00 Linux version 6.18\n", Sort.KERNEL_LOG),
        (b"Nov 23 03:02:39 knode2 kernel: cni0\n", Sort.KERNEL_LOG),
        (b"Nov 23 03:02:39 knode2 k3s[812]: I1123\n", Sort.OTHER),
        (b"2026-11-23T03:02:39.123456789Z I1123 03:02:39.1 1 x.go:1] y\n", Sort.OTHER),
        (b'{"kubeproxy.config.k8s.io":{"Mode":"iptables"}}', Sort.CONFIG),
        (b"apiVersion: v1\nitems:\n- apiVersion: v1\n", Sort.OBJECTS_YAML),
        (b"\xef\xbb\xbf \n", Sort.EMPTY),
        (b"#!/bin/sh\n", Sort.OTHER),
    ],
)  # fmt: skip
def test_other_beginnings(head: bytes, sort: Sort) -> None:
    assert sort_of(head) is sort
