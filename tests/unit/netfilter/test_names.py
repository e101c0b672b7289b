"""Chain names against examples that others computed: kube-proxy on a real node, its source, and public dumps."""

import pytest

from kdnsctl.netfilter import names

DNS = "kube-system/kube-dns:dns"


@pytest.mark.parametrize(
    ("service", "protocol", "chain"),
    [
        (DNS, "udp", "KUBE-SVC-TCOU7JCQXEZGVUNU"),
        (DNS, "UDP", "KUBE-SVC-TCOU7JCQXEZGVUNU"),
        ("kube-system/kube-dns:dns-tcp", "tcp", "KUBE-SVC-ERIFXISQEP7F7OF4"),
        ("kube-system/kube-dns:metrics", "tcp", "KUBE-SVC-JD5MR3NA4I4DYORP"),
        ("default/kubernetes:https", "tcp", "KUBE-SVC-NPX46M4PTMTKRN6Y"),
    ],
)
def test_chains_of_services(service: str, protocol: str, chain: str) -> None:
    assert names.service_chain(service, protocol) == chain
    suffix = names.service_hash(service, protocol)
    assert names.local_chain(service, protocol) == f"KUBE-SVL-{suffix}"
    assert names.external_chain(service, protocol) == f"KUBE-EXT-{suffix}"
    assert names.firewall_chain(service, protocol) == f"KUBE-FW-{suffix}"


@pytest.mark.parametrize(
    ("service", "protocol", "address", "port", "chain"),
    [
        (DNS, "udp", "10.244.1.5", 53, "KUBE-SEP-CEYPGFB7VCORONY3"),
        (DNS, "udp", "10.244.0.2", 53, "KUBE-SEP-YIL6JZP7A3QYXJU2"),
        (DNS, "udp", "10.244.1.2", 53, "KUBE-SEP-Z6M7ZHWCTBNMPLD7"),
        ("kube-system/kube-dns:dns-tcp", "tcp", "10.244.2.2", 53, "KUBE-SEP-H7FN6LU3RSH6CC2T"),
        ("default/kubernetes:https", "tcp", "10.88.0.1", 6443, "KUBE-SEP-W36FRA56OEZK7PPT"),
    ],
)
def test_chains_of_endpoints(service: str, protocol: str, address: str, port: int, chain: str) -> None:
    assert names.endpoint_chain(service, protocol, address, port) == chain


def test_ipv6_endpoints_are_hashed_with_brackets() -> None:
    assert names.host_port("fd00::a", 53) == "[fd00::a]:53"
    assert names.endpoint_chain(DNS, "udp", "fd00::a", 53) != names.endpoint_chain(DNS, "udp", "fd00::b", 53)


@pytest.mark.parametrize(
    ("service", "protocol", "chain"),
    [
        (DNS, "udp", "service-FY5PMXPG-kube-system/kube-dns/udp/dns"),
        ("kube-system/kube-dns:dns-tcp", "TCP", "service-NWBZK7IH-kube-system/kube-dns/tcp/dns-tcp"),
        ("default/kubernetes:https", "tcp", "service-2QRHZV4L-default/kubernetes/tcp/https"),
    ],
)
def test_chains_of_services_in_nftables_mode(service: str, protocol: str, chain: str) -> None:
    assert names.nft_service_chain(service, protocol) == chain
    assert names.service_of_nft_chain(chain) == service
    assert names.nft_chain_is_genuine(chain)
    assert not names.nft_chain_is_genuine(chain.replace("-", "-X", 1))


def test_chains_of_endpoints_in_nftables_mode() -> None:
    chain = "endpoint-5OQ6UJ5V-kube-system/kube-dns/udp/dns__10.244.1.5/53"
    assert names.nft_endpoint_chain(DNS, "udp", "10.244.1.5", 53) == chain
    assert names.nft_chain_is_genuine(chain)
    assert names.nft_endpoint_chain(DNS, "udp", "fd00::a", 53).endswith("__fd00..a/53")


def test_ports_without_a_name() -> None:
    chain = names.nft_service_chain("demo/unnamed", "udp", "external-")
    assert chain.startswith("external-")
    assert chain.endswith("-demo/unnamed/udp/")
    assert names.service_of_nft_chain(chain) == "demo/unnamed"


def test_names_that_are_too_long_are_cut_and_tell_no_service() -> None:
    long = f"{'n' * 63}/{'s' * 63}:{'p' * 63}"
    chain = names.nft_endpoint_chain(long, "sctp", "fd00:1111:2222:3333:4444:5555:6666:7777", 65535)
    assert len(chain) == len("endpoint-") + 240
    assert chain.endswith("...")
    assert names.nft_chain_is_genuine(chain)
    assert names.service_of_nft_chain("service-ABCDEFGH-" + "n" * 220 + "...") == ""


@pytest.mark.parametrize("chain", ["", "services", "service-", "service-FY5PMXPG-a/b/c", "nat-output"])
def test_chains_that_are_no_services(chain: str) -> None:
    assert names.service_of_nft_chain(chain) == ""
