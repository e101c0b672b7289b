"""One Service of every kind, from every form of dump: the kernel's own print, and text as kube-proxy writes it."""

import math
from pathlib import Path

import pytest

from kdnsctl.netfilter import iptables, nft
from kdnsctl.netfilter.rules import Backing, Mode, NodeRules
from tests.unit.netfilter.writing import Expected, Place, examples, expected, iptables_text

RULES = Path(__file__).parents[2] / "recordings" / "rules"
IPTABLES = [f"{ip}tables-{backing}-save.txt" for ip in ("ip", "ip6") for backing in ("nft", "legacy")]
NFT = [
    f"nft-{ip}-{generation}.{form}"
    for ip in ("ip", "ip6")
    for generation in ("endpoint-chains", "maps")
    for form in ("json", "txt")
]


def parsed(name: str) -> NodeRules:
    parse = nft.parse if name.startswith("nft-") else iptables.parse
    (rules,) = parse([(RULES / name).read_bytes()])
    return rules


def said(rules: NodeRules) -> dict[tuple[str, str | None, int], Expected]:
    found = {}
    for each in rules.services:
        shares: dict[Place, float | None] = {
            (target.address, target.port or 0): target.probability for target in each.targets
        }
        found[each.protocol, each.address, each.port] = Expected(each.service, shares, each.rejected, each.affinity)
    assert len(found) == len(rules.services)
    return found


def agree(
    found: dict[tuple[str, str | None, int], Expected], wanted: dict[tuple[str, str | None, int], Expected]
) -> None:
    assert found.keys() == wanted.keys()
    for key, want in wanted.items():
        have = found[key]
        assert (have.service, have.rejected, have.affinity) == (want.service, want.rejected, want.affinity), key
        assert have.shares.keys() == want.shares.keys(), key
        for place, share in want.shares.items():
            seen = have.shares[place]
            assert (seen is None) == (share is None), (key, place)
            assert share is None or seen is None or math.isclose(seen, share, rel_tol=1e-6), (key, place)


@pytest.mark.parametrize("name", [*IPTABLES, *NFT])
def test_every_kind_of_service_is_read_from_what_the_kernel_prints(name: str) -> None:
    rules = parsed(name)
    assert rules.completeness.complete
    assert rules.completeness.problem is None
    assert rules.problems == ()
    assert [each.problems for each in rules.services if each.problems] == []
    family = 6 if "6" in name.split(".", maxsplit=1)[0] else 4
    assert rules.family == family
    assert rules.jumps == ("PREROUTING", "OUTPUT")
    agree(said(rules), expected(examples(family)))


@pytest.mark.parametrize("name", NFT)
def test_a_pod_of_its_own_chain_is_named_with_it(name: str) -> None:
    rules = parsed(name)
    assert (rules.mode, rules.backing, rules.unreachable, rules.obstacles) == (Mode.NFTABLES, Backing.NATIVE, (), ())
    dns = rules.services[[each.service for each in rules.services].index("kube-system/kube-dns:dns")]
    chains = {target.chain.partition("-")[0] for target in dns.targets}
    assert chains == ({"endpoint"} if "endpoint" in name else {""})


@pytest.mark.parametrize("name", IPTABLES)
def test_marks_leftovers_and_obstacles_are_seen_in_the_kernels_print(name: str) -> None:
    rules = parsed(name)
    assert rules.mode is Mode.IPTABLES
    assert rules.backing is (Backing.LEGACY if "legacy" in name else Backing.NFT)
    assert (rules.canary, rules.hint) == (True, True)
    assert len(rules.unreachable) == 1
    assert rules.unreachable[0].startswith("KUBE-SEP-")
    if "6" in name.split("-", maxsplit=1)[0]:
        assert rules.notrack == ("fd00::a", "fd00:10:96::a")
    else:
        assert rules.notrack == ("169.254.20.10", "10.96.0.10")
    (obstacle,) = rules.obstacles
    assert obstacle.endswith(r'-m comment --comment "a -j \"b\" \\ c" -j RETURN')


@pytest.mark.parametrize("ip", ["ip", "ip6"])
@pytest.mark.parametrize("generation", ["endpoint-chains", "maps"])
def test_text_and_json_of_the_same_table_give_the_same_model(ip: str, generation: str) -> None:
    assert parsed(f"nft-{ip}-{generation}.json") == parsed(f"nft-{ip}-{generation}.txt")


@pytest.mark.parametrize("ip", ["ip", "ip6"])
def test_both_backings_differ_in_nothing_but_their_name(ip: str) -> None:
    one, other = parsed(f"{ip}tables-nft-save.txt"), parsed(f"{ip}tables-legacy-save.txt")
    agree(said(one), said(other))
    assert {target.packets for each in one.services for target in each.targets} == {0}
    assert {target.packets for each in other.services for target in each.targets} == {None}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("comments", [True, False])
def test_arguments_in_kube_proxys_own_order_are_read_alike(family: int, comments: bool) -> None:
    (rules,) = iptables.parse([iptables_text(examples(family), family=family, comments=comments).encode()])
    wanted = expected(examples(family))
    if not comments:
        wanted = {key: Expected("", each.shares, each.rejected, each.affinity) for key, each in wanted.items()}
    agree(said(rules), wanted)
    assert (rules.family, rules.unreachable, rules.obstacles) == (family, (), ())
    assert [each.problems for each in rules.services if each.problems] == []
