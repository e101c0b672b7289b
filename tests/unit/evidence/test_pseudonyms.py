import ipaddress
import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.evidence.pseudonyms import COMMON, KEPT, ROLES_V4, ROLES_V6, Pseudonyms

PSEUDONYMS = Pseudonyms(b"0123456789abcdef")
OTHERS = Pseudonyms(b"fedcba9876543210")

v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6)
ROLES = [ipaddress.ip_network(network) for network in (*ROLES_V4, *ROLES_V6)]
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def near(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> st.SearchStrategy[str]:
    """Addresses that share any number of leading bits with one."""
    bits = address.max_prefixlen
    kind = type(address)
    return st.integers(0, bits).flatmap(
        lambda left: st.integers(0, (1 << left) - 1).map(lambda tail: str(kind((int(address) >> left << left) | tail)))
    )


def shared_bits(one: str, other: str) -> int:
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    return first.max_prefixlen - (int(first) ^ int(second)).bit_length()


class TestAddresses:
    @given(data=st.data())
    def test_two_share_afterwards_what_they_shared_before(self, data: st.DataObject) -> None:
        one = data.draw(v4 | v6 | st.sampled_from([ipaddress.ip_network(kept)[0] for kept in KEPT]))
        other = data.draw(near(one))
        assert shared_bits(PSEUDONYMS.address(str(one)), PSEUDONYMS.address(other)) == shared_bits(str(one), other)

    @given(address=v4 | v6)
    def test_roles_are_kept_and_nobody_gets_one(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
        pseudonym = ipaddress.ip_address(PSEUDONYMS.address(str(address)))
        assert [network for network in ROLES if address in network] == [
            network for network in ROLES if pseudonym in network
        ]

    @pytest.mark.parametrize("network", [*ROLES_V4, *ROLES_V6])
    @given(data=st.data())
    def test_each_role_is_kept(self, network: str, data: st.DataObject) -> None:
        of_it = ipaddress.ip_network(network)
        address = of_it[data.draw(st.integers(0, of_it.num_addresses - 1))]
        assert ipaddress.ip_address(PSEUDONYMS.address(str(address))) in of_it

    @given(address=v6)
    def test_any_spelling_is_the_same_address(self, address: ipaddress.IPv6Address) -> None:
        assert PSEUDONYMS.address(address.exploded.upper()) == PSEUDONYMS.address(address.compressed)

    @pytest.mark.parametrize(
        "address", ["0.0.0.0", "127.0.0.1", "169.254.20.10", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"]
    )
    def test_what_is_nobodys_stays(self, address: str) -> None:
        assert PSEUDONYMS.address(address) == address

    def test_an_address_changes_with_the_key_only(self) -> None:
        addresses = [f"10.244.{a}.{b}" for a in range(16) for b in range(16)]
        mine = [PSEUDONYMS.address(address) for address in addresses]
        assert mine == [Pseudonyms(b"0123456789abcdef").address(address) for address in addresses]
        assert len(set(mine)) == len(addresses)
        assert sum(before == after for before, after in zip(addresses, mine, strict=True)) < 16
        assert mine != [OTHERS.address(address) for address in addresses]

    def test_ipv4_inside_ipv6_is_the_same_ipv4(self) -> None:
        assert PSEUDONYMS.address("::ffff:10.244.1.2") == f"::ffff:{PSEUDONYMS.address('10.244.1.2')}"

    @pytest.mark.parametrize("text", ["", "10.244.1", "knode1", "10.244.1.2/32", "1.2.3.4.5"])
    def test_what_is_no_address_is_an_error(self, text: str) -> None:
        with pytest.raises(ValueError) as caught:
            PSEUDONYMS.address(text)
        assert "address" in str(caught.value)


class TestNames:
    @given(kind=st.sampled_from(["node", "pod", "namespace", "service"]), name=st.text(min_size=1, max_size=60))
    def test_a_pseudonym_is_a_name_that_tells_nothing(self, kind: str, name: str) -> None:
        pseudonym = PSEUDONYMS.name(kind, name)
        if name in COMMON:
            assert pseudonym == name
        else:
            assert LABEL.fullmatch(pseudonym)
            assert pseudonym != name
            assert pseudonym == PSEUDONYMS.name(kind, name)
            assert pseudonym != OTHERS.name(kind, name)

    def test_different_names_get_different_ones(self) -> None:
        names = [f"ip-10-0-{a}-{b}.ec2.internal" for a in range(50) for b in range(50)]
        assert len({PSEUDONYMS.name("node", name) for name in names}) == len(names)

    def test_one_name_of_two_kinds_is_not_told_to_be_one(self) -> None:
        assert PSEUDONYMS.name("node", "web").removeprefix("node-") != PSEUDONYMS.name("service", "web").removeprefix(
            "service-"
        )

    @pytest.mark.parametrize("name", sorted(COMMON))
    def test_what_every_cluster_has_stays(self, name: str) -> None:
        assert PSEUDONYMS.name("service", name) == name

    def test_pods_of_one_workload_stay_together(self) -> None:
        first = PSEUDONYMS.name("pod", "shop-web-7d4b9c6f5b-x7x2p")
        second = PSEUDONYMS.name("pod", "shop-web-7d4b9c6f5b-abcde")
        assert first != second
        assert first.rpartition("-")[0] == second.rpartition("-")[0]
        assert "shop" not in first

    def test_pods_of_the_systems_own_workloads_are_still_known(self) -> None:
        assert PSEUDONYMS.name("pod", "coredns-7d764666f9-h7x2p").startswith("coredns-")
        assert PSEUDONYMS.name("pod", "kube-proxy-x7x2p").startswith("kube-proxy-")


class TestTheRest:
    def test_a_uid_stays_one(self) -> None:
        before = "9D5B3C1A-0000-4000-8000-1234567890ab"
        assert str(uuid.UUID(PSEUDONYMS.uid(before))) == PSEUDONYMS.uid(before.lower())
        assert PSEUDONYMS.uid(before) != before.lower()

    def test_a_token_looks_like_a_chains_hash(self) -> None:
        assert re.fullmatch(r"[A-Z2-7]{16}", PSEUDONYMS.token("TCOU7JCQXEZGVUNU"))

    def test_a_short_key_is_no_key(self) -> None:
        with pytest.raises(ValueError) as caught:
            Pseudonyms(b"short")
        assert "16 bytes" in str(caught.value)
