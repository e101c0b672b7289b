"""Forms of rules are told apart by content, and nothing else is taken for one."""

from pathlib import Path

import pytest

from kdnsctl.netfilter import conntrack
from kdnsctl.netfilter.recognise import PARSERS, Form, recognise
from kdnsctl.netfilter.rules import Mode
from tests.unit.netfilter.test_ipvs import PROC, SAVED
from tests.unit.netfilter.test_kubeproxy import GO_NOW

RECORDINGS = Path(__file__).parents[2] / "recordings"
RECORDED = {
    "node/iptables-nft-save-stale.txt": Form.IPTABLES,
    "node/ip6tables-nft-save.txt": Form.IPTABLES,
    "node/iptables-nft-save-after-switch-to-nftables.txt": Form.IPTABLES,
    "node/nft-kube-proxy.json": Form.NFT_JSON,
    "node/nft-kube-proxy.txt": Form.NFT_TEXT,
    "kube-proxy-1.36/metrics.txt": Form.METRICS,
    **{f"rules/{ip}tables-{each}-save.txt": Form.IPTABLES for ip in ("ip", "ip6") for each in ("nft", "legacy")},
    **{f"rules/nft-{ip}-maps.json": Form.NFT_JSON for ip in ("ip", "ip6")},
    **{f"rules/nft-{ip}-endpoint-chains.txt": Form.NFT_TEXT for ip in ("ip", "ip6")},
}


@pytest.mark.parametrize(("name", "form"), RECORDED.items())
def test_recordings(name: str, form: Form) -> None:
    data = (RECORDINGS / name).read_bytes()
    assert recognise(data) is form
    assert conntrack.recognise(data) is None
    if form is not Form.METRICS:
        (rules,) = PARSERS[form]([data], None)
        assert rules.completeness.complete


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (SAVED, Form.IPVSADM),
        ("-A -f 7 -s rr\n", Form.IPVSADM),
        (PROC, Form.PROC_IP_VS),
        ("# Table `nat' is incompatible, use 'nft' tool.\n", Form.IPTABLES),
        ("# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n", Form.IPTABLES),
        ("some warning\n*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n", Form.IPTABLES),
        ("*nat\r\n:PREROUTING ACCEPT [0:0]\r\n", Form.IPTABLES),
        ('warning\n{ "nftables" : [', Form.NFT_JSON),
        ("table inet filter {\n}\ntable ip kube-proxy {\n", Form.NFT_TEXT),
        ("# TYPE kubeproxy_proxy_healthz_total counter\n", Form.METRICS),
        (f'{{"lastUpdated": "{GO_NOW}","currentTime": "{GO_NOW}"}}', Form.HEALTH),
        ("nftables\n", Form.PROXY_MODE),
    ],
)
def test_texts(text: str, form: Form) -> None:
    assert recognise(text.encode()) is form


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", b"ok", b"\x00\xff", b"userspace", b"# a comment\n", b"# HELP me\n", b"*bold*\ntext\n",
        b'{"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "items": []}',
        b"-A -t 119 -u SEEN_REPLY,ASSURED -s 10.244.1.9 -d 10.96.0.10 -g 10.244.1.5 -q 10.244.1.9 -p udp\n",
        b'I1123 03:02:39.123456       1 proxier.go:822] "SyncProxyRules complete" elapsed="1s"\n',
        b"table tennis {", b"a table ip x {",
    ],
)  # fmt: skip
def test_what_is_none_of_them(data: bytes) -> None:
    assert recognise(data) is None


@pytest.mark.parametrize("path", sorted((RECORDINGS / "conntrack").iterdir()), ids=lambda path: path.name)
def test_tables_of_connection_tracking_are_left_alone(path: Path) -> None:
    assert recognise(path.read_bytes()) is None


def test_only_the_beginning_decides() -> None:
    assert recognise(b"x" * 70_000 + b"\n*nat\n:PREROUTING ACCEPT [0:0]\n") is None


def test_every_form_of_rules_has_a_parser_that_takes_nothing_for_nothing() -> None:
    modes = {form: parse([], None)[0] for form, parse in PARSERS.items()}
    assert {form: rules.mode for form, rules in modes.items()} == {
        Form.IPTABLES: Mode.IPTABLES,
        Form.NFT_JSON: Mode.NFTABLES,
        Form.NFT_TEXT: Mode.NFTABLES,
        Form.IPVSADM: Mode.IPVS,
        Form.PROC_IP_VS: Mode.IPVS,
    }
    assert not any(rules.completeness.complete for rules in modes.values())
