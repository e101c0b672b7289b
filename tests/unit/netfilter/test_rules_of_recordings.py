"""What the recorded node's rules say, in each form they were taken in."""

from pathlib import Path

import pytest

from kdnsctl.netfilter import iptables, nft
from kdnsctl.netfilter.dump import Proof
from kdnsctl.netfilter.rules import Backing, Mode, NodeRules, ServiceRules

NODE = Path(__file__).parents[2] / "recordings" / "node"


def recorded(name: str) -> NodeRules:
    parse = nft.parse if name.startswith("nft-") else iptables.parse
    (rules,) = parse([(NODE / name).read_bytes()])
    return rules


def service(rules: NodeRules, protocol: str, address: str, port: int) -> ServiceRules:
    (found,) = (
        each for each in rules.services if (each.protocol, each.address, each.port) == (protocol, address, port)
    )
    return found


def test_the_stale_rules_lead_to_the_dead_pods() -> None:
    rules = recorded("iptables-nft-save-stale.txt")
    dns = service(rules, "udp", "10.96.0.10", 53)
    assert (dns.chain, dns.service) == ("KUBE-SVC-TCOU7JCQXEZGVUNU", "kube-system/kube-dns:dns")
    assert [(each.address, each.port, each.probability, each.chain, each.packets) for each in dns.targets] == [
        ("10.244.1.2", 53, 0.5, "KUBE-SEP-Z6M7ZHWCTBNMPLD7", 28),
        ("10.244.2.2", 53, 0.5, "KUBE-SEP-TCIZBYBD3WWXNWF5", 32),
    ]
    assert not dns.rejected
    assert not dns.affinity
    assert dns.problems == ()


def test_the_stale_dump_is_whole_and_its_services_are_reached() -> None:
    rules = recorded("iptables-nft-save-stale.txt")
    assert rules.completeness.complete
    assert rules.completeness.proof is Proof.COMMIT
    assert (rules.mode, rules.backing, rules.family) == (Mode.IPTABLES, Backing.NFT, 4)
    assert rules.jumps == ("PREROUTING", "OUTPUT")
    assert (rules.obstacles, rules.unreachable, rules.notrack, rules.problems) == ((), (), (), ())
    assert (rules.canary, rules.hint) == (True, True)
    assert {each.service for each in rules.services} == {
        "default/kubernetes:https",
        "kube-system/kube-dns:dns",
        "kube-system/kube-dns:dns-tcp",
    }


def test_the_other_family_has_no_services() -> None:
    rules = recorded("ip6tables-nft-save.txt")
    assert rules.completeness.complete
    assert (rules.family, rules.services, rules.canary) == (6, (), True)
    assert rules.jumps == ("PREROUTING", "OUTPUT")


def test_what_the_iptables_mode_leaves_behind_is_the_kubelets() -> None:
    rules = recorded("iptables-nft-save-after-switch-to-nftables.txt")
    assert rules.completeness.complete
    assert (rules.canary, rules.hint) == (False, True)
    assert (rules.services, rules.jumps, rules.unreachable) == ((), (), ())


def test_an_empty_dump_proves_nothing() -> None:
    rules = recorded("iptables-legacy-save-empty.txt")
    assert not rules.completeness.complete
    assert rules.completeness.problem
    assert rules.completeness.problem.code == "empty"


@pytest.mark.parametrize("name", ["nft-kube-proxy.json", "nft-kube-proxy.txt"])
def test_nftables_leads_to_the_live_pods(name: str) -> None:
    rules = recorded(name)
    assert rules.completeness.complete
    assert (rules.mode, rules.family) == (Mode.NFTABLES, 4)
    dns = service(rules, "udp", "10.96.0.10", 53)
    assert [(each.address, each.port, each.probability) for each in dns.targets] == [
        ("10.244.2.5", 53, 0.5),
        ("10.244.3.5", 53, 0.5),
    ]
    assert (dns.service, dns.problems) == ("kube-system/kube-dns:dns", ())
    assert rules.jumps == ("PREROUTING", "OUTPUT")
    assert (rules.obstacles, rules.unreachable, rules.problems) == ((), (), ())


def test_text_and_json_of_nft_say_the_same() -> None:
    assert recorded("nft-kube-proxy.json") == recorded("nft-kube-proxy.txt")
