"""What nft prints that could be taken for something else, cut documents, and shapes that other versions may have."""

import json
from typing import Any

import pytest

from kdnsctl.model import Reason
from kdnsctl.netfilter import nft, nftmodel, nfttext
from kdnsctl.netfilter.dump import Completeness, Proof
from kdnsctl.netfilter.rules import Mode, NodeRules
from tests.unit.netfilter.judging import DNS, WHOLE, code, dns_of, problems
from tests.unit.netfilter.writing import NftWriter, Service, nft_name

SVC = nft_name("service", DNS)
ENDS = [nft_name("endpoint", DNS, place) for place in DNS.endpoints]


def read(text: str, trailer: Completeness | None = None) -> NodeRules:
    (rules,) = nft.parse([text.encode()], trailer)
    return rules


def with_rules(*rules: tuple[str, list[dict[str, Any]]], chain: str = SVC) -> list[NodeRules]:
    """A table whose Service chain has these rules, each as text and as JSON; read from both forms."""
    writer = NftWriter([DNS], chains_for_endpoints=True)
    writer.chains[chain] = list(rules)
    return [read(writer.text()), read(writer.document())]


@pytest.mark.parametrize("text", ["", "\n", "Error: No such file or directory\nlist table ip kube-proxy\n"])
def test_output_without_the_table_proves_nothing(text: str) -> None:
    for trailer in (None, WHOLE):
        rules = read(text, trailer)
        assert code(rules) == "tableMissing"
        assert (rules.mode, rules.family, rules.services) == (Mode.NFTABLES, None, ())


def test_other_tables_are_not_kube_proxys() -> None:
    text = NftWriter([DNS]).text().replace("table ip kube-proxy", "table ip somebody")
    assert code(read(text)) == "tableMissing"
    assert code(read(NftWriter([DNS]).document().replace('"kube-proxy"', '"somebody"'))) == "tableMissing"
    both = NftWriter([DNS]).text() + text.replace("10.244.1.5", "10.244.9.9")
    assert {target.address for target in dns_of(read(both)).targets} == {"10.244.1.5", "10.244.1.7"}
    assert code(read(NftWriter([DNS]).text().replace("table ip ", "table inet "))) == "tableMissing"


@pytest.mark.parametrize("form", ["text", "document"])
def test_a_ruleset_with_both_families_gives_both(form: str) -> None:
    six = Service(DNS.name, "udp", 53, "fd00::10", (("fd00::a", 53), ("fd00::b", 53)))
    writers = NftWriter([DNS]), NftWriter([six], family=6)
    text = "\n".join(getattr(writer, form)() for writer in writers)
    found = nft.parse([text.encode()])
    assert [(each.family, each.services[0].address) for each in found] == [(4, "10.96.0.10"), (6, "fd00::10")]
    assert all(each.completeness.complete for each in found)


@pytest.mark.parametrize("family", [["ip"], {"ip": 4}, None, 4])
def test_a_family_that_is_no_word_is_nobodys(family: Any) -> None:
    document = json.dumps({"nftables": [{"table": {"family": family, "name": "kube-proxy"}}]})
    assert code(read(document)) == "tableMissing"


def test_a_warning_before_the_document_does_no_harm() -> None:
    text = "# Warning: table ip kube-proxy is managed by somebody, do not touch!\n"
    assert read(text + NftWriter([DNS]).document()).completeness.complete
    assert read(text + NftWriter([DNS]).text()).completeness.complete


def test_a_trailers_bad_news_wins_and_what_was_read_stays_evidence() -> None:
    failed = Completeness(Proof.TRAILER, Reason("commandFailed", "exit code 1"))
    rules = read(NftWriter([DNS]).document(), failed)
    assert code(rules) == "commandFailed"
    assert len(dns_of(rules).targets) == 2
    assert read(NftWriter([DNS]).document(), WHOLE).completeness == WHOLE


@pytest.mark.parametrize("form", ["text", "document"])
def test_no_cut_of_a_table_is_whole(form: str) -> None:
    text = getattr(NftWriter([DNS], chains_for_endpoints=True), form)().rstrip()
    for end in range(0, len(text), 7):
        rules = read(text[:end])
        assert not rules.completeness.complete, end
        assert rules.unreachable == ()
        assert {target.address for each in rules.services for target in each.targets} <= {"10.244.1.5", "10.244.1.7"}
    assert not read(text[:-1]).completeness.complete
    assert read(text).completeness.complete


@pytest.mark.parametrize("form", ["text", "document"])
def test_a_document_that_closes_too_often_or_is_damaged_is_not_whole(form: str) -> None:
    text = getattr(NftWriter([DNS]), form)()
    damaged = text.replace("\tchain services {", "\t} chain services {").replace('{"chain": {', '{"chain": {{', 1)
    assert damaged != text
    assert not read(damaged).completeness.complete


def test_a_reference_in_a_rule_to_a_map_of_addresses_is_unreadable() -> None:
    body = {"dnat": {"family": "ip", "addr": {"map": {"key": {"numgen": {"mode": "random", "mod": 2}}, "data": "@x"}}}}
    for rules in with_rules(("dnat ip to numgen random mod 2 map @x", [body])):
        assert (dns_of(rules).targets, problems(dns_of(rules))) == ((), ["unreadable"])


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("dnat to 10.1.1.1-10.1.1.9:53", {"addr": {"range": ["10.1.1.1", "10.1.1.9"]}, "port": 53}),
        ("dnat to 10.1.1.1:53-99", {"addr": "10.1.1.1", "port": {"range": [53, 99]}}),
        ("dnat ip to 10.1.1.1 . 53 . 7", {"addr": {"concat": ["10.1.1.1", 53, 7]}}),
        ("dnat ip to numgen random mod 1 map { 0 : 10.1.1.1 . 53 . 7 }", None),
        ("dnat ip to numgen random mod 1 map { 0 : 10.1.1.1-10.1.1.9 . 53 }", None),
        ("dnat ip to numgen random mod 1 map { 0 : 10.1.1.1 . high }", None),
        ("dnat ip to numgen random mod 1 map", None),
        ("dnat ip to numgen random mod 1", None),
        ("dnat", None),
        ("dnat to host:53", {"addr": "host", "port": 53}),
        ("dnat to 10.1.1.1:99999", {"addr": "10.1.1.1", "port": 99999}),
    ],
)
def test_a_destination_that_is_no_single_place_is_unreadable(text: str, body: dict[str, Any] | None) -> None:
    text_read, json_read = with_rules((text, [{"dnat": body if body is not None else "odd"}]))
    for rules in (text_read, json_read):
        dns = dns_of(rules)
        if text == "dnat ip to 10.1.1.1 . 53 . 7" and rules is text_read:
            continue  # nft does not print this; the address alone is read
        assert (dns.targets, problems(dns)) == ((), ["unreadable"])


def test_a_destination_without_port_keeps_the_port() -> None:
    for rules in with_rules(("dnat to 10.1.1.1", [{"dnat": {"addr": "10.1.1.1"}}])):
        assert [(target.address, target.port) for target in dns_of(rules).targets] == [("10.1.1.1", None)]
    data = {"set": [[0, "10.1.1.1"], [1, "10.1.1.2"]]}
    addr = {"map": {"key": {"numgen": {"mode": "random", "mod": 2, "offset": 0}}, "data": data}}
    for rules in with_rules(
        ("dnat to numgen random mod 2 map { 0 : 10.1.1.1, 1 : 10.1.1.2 }", [{"dnat": {"addr": addr}}])
    ):
        assert [(target.address, target.port, target.probability) for target in dns_of(rules).targets] == [
            ("10.1.1.1", None, 0.5),
            ("10.1.1.2", None, 0.5),
        ]


def test_more_than_all_flows_is_no_share() -> None:
    """No kernel holds a map that has a number twice: who is in it is told, but not how often it is taken."""
    key = {"numgen": {"mode": "random", "mod": 2, "offset": 0}}
    data = {"set": [[{"range": [0, 1]}, {"concat": ["10.1.1.1", 53]}], [1, {"concat": ["10.1.1.2", 53]}]]}
    text = "dnat ip to numgen random mod 2 map { 0-1 : 10.1.1.1 . 53, 1 : 10.1.1.2 . 53 }"
    for rules in with_rules((text, [{"dnat": {"addr": {"map": {"key": key, "data": data}}}}])):
        found = {target.address: target.probability for target in dns_of(rules).targets}
        assert found == {"10.1.1.1": None, "10.1.1.2": None}
    goto = [[{"range": [0, 1]}, {"goto": {"target": SVC}}], [0, {"goto": {"target": SVC}}]]
    twice = "numgen random mod 2 vmap { 0-1 : goto " + SVC + ", 0 : goto " + SVC + " }"
    for rules in with_rules((twice, [{"vmap": {"key": key, "data": {"set": goto}}}])):
        assert all(target.probability is None for target in dns_of(rules).targets)


def test_shares_are_those_of_the_numbers() -> None:
    """Intervals, a number without element, and the same pod twice."""
    key = {"numgen": {"mode": "random", "mod": 10, "offset": 0}}
    data = {"set": [[{"range": [0, 5]}, {"concat": ["10.1.1.1", 53]}], [6, {"concat": ["10.1.1.2", 53]}]]}
    data["set"].append([7, {"concat": ["10.1.1.1", 53]}])
    text = "dnat ip to numgen random mod 10 map { 0-5 : 10.1.1.1 . 53, 6 : 10.1.1.2 . 53, 7 : 10.1.1.1 . 53 }"
    for rules in with_rules((text, [{"dnat": {"addr": {"map": {"key": key, "data": data}}}}])):
        found = {target.address: round(target.probability or 0, 9) for target in dns_of(rules).targets}
        assert found == {"10.1.1.1": 0.7, "10.1.1.2": 0.1}


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("ip saddr 10.0.0.0/8", {"match": {"op": "==", "left": {"payload": {}}, "right": "10.0.0.0"}}),
        ("meta l4proto != udp", {"match": {"op": "!=", "left": {"meta": {"key": "l4proto"}}, "right": "udp"}}),
        ("limit rate 5/second", {"limit": {"rate": 5, "per": "second"}}),
        ("ct state new", {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}),
    ],
)
def test_a_condition_that_is_not_known_makes_odds_unknown_and_hides_no_target(text: str, body: dict[str, Any]) -> None:
    rules_of_chain: list[tuple[str, list[dict[str, Any]]]] = [
        (f"{text} goto {ENDS[0]}", [body, {"goto": {"target": ENDS[0]}}]),
        (f"goto {ENDS[1]}", [{"goto": {"target": ENDS[1]}}]),
    ]
    for rules in with_rules(*rules_of_chain):
        assert [(target.address, target.probability) for target in dns_of(rules).targets] == [
            ("10.244.1.5", None),
            ("10.244.1.7", None),
        ]


def test_counters_are_no_condition() -> None:
    text = "counter packets 5 bytes 300 meta l4proto udp dnat to 10.244.1.5:53"
    body: list[dict[str, Any]] = [
        {"counter": {"packets": 5, "bytes": 300}},
        {"dnat": {"addr": "10.244.1.5", "port": 53}},
    ]
    for rules in with_rules((text, body)):
        assert [(target.address, target.probability) for target in dns_of(rules).targets] == [("10.244.1.5", 1.0)]


@pytest.mark.parametrize("verdict", ["accept", "drop", "reject"])
def test_a_verdict_before_the_endpoints_is_told(verdict: str) -> None:
    stop: tuple[str, list[dict[str, Any]]] = (verdict, [{verdict: None}])
    for rules in with_rules(stop, (f"goto {ENDS[0]}", [{"goto": {"target": ENDS[0]}}])):
        assert (dns_of(rules).targets, problems(dns_of(rules))) == ((), ["stopped"])


def test_flows_that_no_rule_takes_are_told_unless_the_dump_is_cut() -> None:
    for rules in with_rules(("return", [{"return": None}])):
        assert (dns_of(rules).targets, problems(dns_of(rules))) == ((), ["fallThrough"])
    for rules in with_rules(('comment "nothing"', [])):
        assert problems(dns_of(rules)) == ["fallThrough"]
    text = NftWriter([DNS]).text().replace("1 : 10.244.1.7 . 53", "")
    assert problems(dns_of(read(text))) == ["fallThrough"]
    assert problems(dns_of(read(text.rstrip()[:-1]))) == []


def test_an_address_whose_verdict_is_no_chain_leads_nowhere() -> None:
    writer = NftWriter([DNS])
    writer.maps["service-ips"] = [(["10.96.0.10", "udp", 53], "drop", "")]
    for text in (writer.text(), writer.document()):
        dns = dns_of(read(text))
        assert (dns.targets, dns.chain, problems(dns)) == ((), "", ["fallThrough"])


@pytest.mark.parametrize(
    "key", [["10.96.0.0/16", "udp", 53], ["10.96.0.10", "udp"], ["10.96.0.10", "udp", "domain"], ["x", "udp", 53], [""]]
)
def test_elements_that_are_no_service_are_counted_and_told(key: list[Any]) -> None:
    writer = NftWriter([DNS])
    writer.maps["service-ips"].append((key, f"goto {SVC}", ""))
    for text in (writer.text(), writer.document()):
        rules = read(text)
        assert len(rules.services) == 1
        assert [each.code for each in rules.problems] == ["unreadable"]
        assert "service-ips" in rules.problems[0].message


@pytest.mark.parametrize(
    "element",
    [
        [{"concat": [{"prefix": {"addr": "10.96.0.0", "len": 16}}, "udp", 53]}, {"goto": {"target": SVC}}],
        [{"range": [1, 2]}, {"goto": {"target": SVC}}],
        ["one"],
        "x",
        None,
        [{"elem": {"comment": "no value"}}, {"drop": None}],
        [{"elem": "x"}, {"drop": None}],
    ],
)
def test_elements_of_unknown_shape_are_counted_and_told(element: Any) -> None:
    document = json.loads(NftWriter([DNS]).document())
    (vips,) = (item["map"] for item in document["nftables"] if item.get("map", {}).get("name") == "service-ips")
    vips["elem"].append(element)
    rules = read(json.dumps(document))
    assert len(rules.services) == 1
    assert [each.code for each in rules.problems] == ["unreadable"]


@pytest.mark.parametrize(
    "key", [": goto x", ". udp . 53 : goto x", "10.96.0.11 udp 53 : goto x", "10.96.0.11 . udp . 53 :"]
)
def test_elements_of_unknown_text_are_counted_and_told(key: str) -> None:
    text = NftWriter([DNS]).text().replace("elements = { ", f"elements = {{ {key}, ", 1)
    assert [each.code for each in read(text).problems] == ["unreadable"]


def test_options_of_elements_are_no_part_of_the_key() -> None:
    text = (
        NftWriter([DNS])
        .text()
        .replace(". 53 : goto", '. 53 counter packets 3 bytes 7 timeout 3h expires 2h comment "a : , { b" : goto')
    )
    rules = read(text)
    assert [(each.address, each.port, each.service) for each in rules.services] == [("10.96.0.10", 53, DNS.name)]
    assert rules.problems == ()


@pytest.mark.parametrize(
    "item",
    [
        None, 7, "x", [], {}, {"rule": None}, {"rule": {"family": "ip", "table": "kube-proxy"}},
        {"rule": {"family": "ip", "table": "kube-proxy", "chain": 7, "expr": []}},
        {"rule": {"family": "ip", "table": "kube-proxy", "chain": "x", "expr": 7}},
        {"rule": {"family": "ip", "table": "kube-proxy", "chain": "x", "expr": [None, 7, {"vmap": 7}, {"dnat": []}]}},
        {"rule": {"family": "ip", "table": "kube-proxy", "chain": "x", "expr": [
            {"vmap": {"key": 7, "data": 7}}, {"goto": 7}, {"jump": {"target": 7}}, {"match": 7},
            {"vmap": {"key": {"numgen": 7}, "data": {"set": [7, [1, 2], ["a", {"goto": {"target": "x"}}]]}}},
            {"vmap": {"key": {"numgen": {"mod": "x"}}, "data": [[{"x": 1}, {"jump": {"target": "x"}}]]}},
            {"dnat": {"addr": 7}}, {"dnat": {"addr": {"map": 7}}}, {"dnat": {"addr": "10.0.0.1", "port": []}},
            {"dnat": {"addr": {"map": {"key": {"numgen": {"mod": 2}}, "data": {"set": [[0, 7], [1, {"concat": 7}]]}}}}},
        ]}},
        {"chain": {"family": "ip", "table": "kube-proxy", "name": 7}},
        {"chain": {"family": "ip", "table": "kube-proxy", "name": "x", "type": 7, "hook": 7}},
        {"chain": {"family": "ip", "table": "kube-proxy", "name": "y", "type": "nat", "hook": "input"}},
        {"map": {"family": "ip", "table": "kube-proxy", "name": "service-ips", "map": "ipv4_addr", "elem": [7]}},
        {"map": {"family": "ip", "table": "kube-proxy", "name": "other", "map": "verdict", "elem": 7}},
        {"xt": {"type": "target", "name": "DNAT"}},
    ],
)  # fmt: skip
def test_objects_of_unknown_shape_change_nothing_else(item: Any) -> None:
    document = json.loads(NftWriter([DNS]).document())
    usual = read(json.dumps(document))
    document["nftables"].append(item)
    assert read(json.dumps(document)) == usual


def test_a_jump_that_comes_back_is_not_an_end() -> None:
    mark = "mark-for-masquerade"
    writer = NftWriter([DNS])
    writer.chains[mark] = [("meta mark set meta mark | 0x00004000", [{"mangle": {}}])]
    condition = {"match": {"op": "!=", "left": {"payload": {}}, "right": "10.244.0.0"}}
    writer.chains[SVC].insert(0, (f"ip saddr != 10.244.0.0/16 jump {mark}", [condition, {"jump": {"target": mark}}]))
    for text in (writer.text(), writer.document()):
        assert [target.probability for target in dns_of(read(text)).targets] == [0.5, 0.5]


def test_unreachable_endpoint_chains_are_listed() -> None:
    gone = nft_name("endpoint", DNS, ("10.244.9.9", 53))
    writer = NftWriter([DNS])
    writer.chains[gone] = [("meta l4proto udp dnat to 10.244.9.9:53", [{"dnat": {"addr": "10.244.9.9", "port": 53}}])]
    for text in (writer.text(), writer.document()):
        assert read(text).unreachable == (gone,)


def test_names_that_do_not_fit_are_told() -> None:
    text = NftWriter([DNS], chains_for_endpoints=True).text()
    moved = text.replace("dnat to 10.244.1.7:53", "dnat to 10.244.9.9:53")
    assert problems(dns_of(read(moved))) == ["nameMismatch"]
    assert problems(dns_of(read(text.replace("FY5PMXPG", "AAAAAAAA")))) == ["nameMismatch"]


def test_hooks_that_do_not_lead_to_services_are_missing() -> None:
    writer = NftWriter([DNS])
    writer.chains["nat-output"] = []
    for text in (writer.text(), writer.document()):
        assert read(text).jumps == ("PREROUTING",)
    writer.chains["services"] = []
    for text in (writer.text(), writer.document()):
        assert read(text).jumps == ()


def test_what_stands_before_the_jump_is_an_obstacle() -> None:
    writer = NftWriter([DNS])
    condition = {"match": {"op": "==", "left": {"payload": {}}, "right": "192.0.2.1"}}
    writer.chains["nat-prerouting"].insert(0, ("ip daddr 192.0.2.1 accept", [condition, {"accept": None}]))
    writer.chains["nat-prerouting"].append(("drop", [{"drop": None}]))
    writer.chains["nat-output"].insert(0, ("jump elsewhere", [{"jump": {"target": "elsewhere"}}]))
    assert read(writer.text()).obstacles == ("ip daddr 192.0.2.1 accept",)
    (obstacle,) = read(writer.document()).obstacles
    assert '"accept"' in obstacle


def test_rules_in_chains_of_the_hooks_own_table_may_ask_for_addresses_themselves() -> None:
    writer = NftWriter([DNS])
    writer.chains["nat-output"] = writer.chains["services"]
    for text in (writer.text(), writer.document()):
        assert read(text).jumps == ("PREROUTING", "OUTPUT")
        assert read(text).obstacles == ()


def test_verdict_maps_without_a_random_number_make_odds_unknown() -> None:
    data = {"set": [["10.0.0.1", {"goto": {"target": ENDS[0]}}]]}
    body = [{"vmap": {"key": {"payload": {}}, "data": data}}]
    for rules in with_rules((f"ip saddr vmap {{ 10.0.0.1 : goto {ENDS[0]} }}", body)):
        assert [(target.address, target.probability) for target in dns_of(rules).targets] == [("10.244.1.5", None)]


def test_output_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    text = NftWriter([DNS]).text()
    monkeypatch.setattr(nfttext, "MOST_WORDS", 10)
    assert code(read(text)) == "noEnd"
    monkeypatch.setattr(nft, "MOST_VALUES", 3)
    assert code(read(NftWriter([DNS]).document())) == "tooLarge"
    monkeypatch.setattr(nft, "LARGEST", 100)
    (rules,) = nft.parse([b"table ip kube-proxy {\n", b"x" * 100])
    assert code(rules) == "tooLarge"


def test_nesting_without_end_is_not_followed() -> None:
    assert code(read('{"nftables": [' + "[" * 200_000)) == "noEnd"
    assert not read("table ip kube-proxy { chain x { " + "{ " * 200_000).completeness.complete


@pytest.mark.parametrize(
    ("key", "modulus", "share"),
    [("0", 4, 0.25), ("0-1", 4, 0.5), ("0-9", 4, 1.0), ("2-1", 4, 0.0), ("x", 4, 0.0), ("1-", 4, 0.0), ("0", 0, 0.0)],
)
def test_shares_of_keys(key: str, modulus: int, share: float) -> None:
    assert nftmodel.share_of(key, modulus) == share
