"""What a failure record says: peers, Services, causes and quoted entries, in every quoting that klog has had."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdnsctl.logs.details import (
    CAUSES,
    MOST_CLIENTS_OF_A_LINE,
    OTHER_CAUSE,
    Details,
    cause_of,
    details_of,
    endpoints_of,
    hostname_of,
    mode_of,
    port_address_of,
    service_of,
    verbosity_of,
    version_of,
)
from tests.unit.logs.scanning import examples
from tests.unit.logs.wrapping import bare

HEAD = "E0606 16:49:46.155398       1 cleanup.go:99] "
DNS = "kube-system/kube-dns:dns"


def text(message: str, err: str, **values: str) -> bytes:
    """A structured text record, quoted as klog does: Go's %q, which for these texts is JSON's."""
    quoted = [f'"{message}" err={json.dumps(err)}', *(f"{key}={json.dumps(value)}" for key, value in values.items())]
    return (HEAD + " ".join(quoted)).encode()


def block(message: str, err: str, **values: str) -> bytes:
    inside = "".join(f"\t{line}\n" for line in err.split("\n"))
    keys = "".join(f" {key}={json.dumps(value)}" for key, value in values.items())
    return f'{HEAD}"{message}" err=<\n{inside} >{keys}'.encode()


def record(message: str, err: str, **values: object) -> bytes:
    fields = {"ts": 1.5, "caller": "conntrack/cleanup.go:99", "msg": message, **values, "err": err}
    return json.dumps(fields, separators=(",", ":")).encode()


def prose(message: str, err: str) -> bytes:
    return f"{HEAD}{message}, error: {err}".encode()


def deletion(peer: str, output: str = "x", protocol: str = "UDP") -> str:
    """The inner error of a failed deletion, formatted as kube-proxy does."""
    return (
        f"error deleting conntrack entries for {protocol} peer {{{peer}}}, error: conntrack command returned: "
        f"{json.dumps(output)}, error message: exit status 1"
    )


ADDRESSES = [
    ("10.96.0.10", "10.244.1.5"),
    ("fd00:10:96::a", "fd00:10:244:1::5"),
    ("::ffff:10.96.0.10", "::1"),
    ("10.96.0.10", ""),
    ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::1"),
]


@pytest.mark.parametrize(("vip", "endpoint"), ADDRESSES)
@pytest.mark.parametrize("protocol", ["UDP", "udp", "sctp"])
def test_a_peer_is_read_in_every_quoting(vip: str, endpoint: str, protocol: str) -> None:
    err = deletion(f"{vip}, {endpoint}", "conntrack v1.4.7: Operation failed: such conntrack doesn't exist\n", protocol)
    message = "Failed to delete endpoint connections"
    expected = Details(DNS, vip, endpoint, "enoentRace")
    assert details_of(text(message, err, servicePortName=DNS)) == expected
    assert details_of(record(message, err, servicePortName=DNS)) == expected
    assert details_of(prose(f"Failed to delete {DNS} endpoint connections", err)) == expected
    assert details_of(block(message, err, servicePortName=DNS)) == expected


@pytest.mark.parametrize(
    "peer",
    [
        "",
        ",",
        "10.96.0.10 10.244.1.5",
        "not, addresses",
        "10.96.0.10, x",
        "${IP}, 1.1.1.1",
        "1" * 200 + ", 1.1.1.1",
        "<, >",
    ],
)
def test_a_peer_that_is_none_is_left_out(peer: str) -> None:
    found = details_of(prose("Failed to delete a/b:dns endpoint connections", deletion(peer)))
    assert (found.vip, found.endpoint, found.service) == ("", "", "a/b:dns")


def test_a_peer_without_its_end_is_left_out() -> None:
    assert details_of(b"x peer {10.96.0.10, 10.244.1.5").vip == ""


@pytest.mark.parametrize(
    ("payload", "vip"),
    [
        (prose("Failed to delete stale service IP 10.0.0.2 connections", "x"), "10.0.0.2"),
        (prose("Failed to delete stale service IP fd00::2 connections", "x"), "fd00::2"),
        (text("Failed to delete stale service connections", "for UDP service IP: 10.43.0.10, error: x"), "10.43.0.10"),
        (text("Failed to delete stale service connections", "for UDP service IP: fd00::a, error: x"), "fd00::a"),
        (text("Failed to delete stale service connections", "x", ip="10.43.0.10"), "10.43.0.10"),
        (text("Failed to delete stale service connections", "x", IP="fd00::a"), "fd00::a"),
        (record("Failed to delete stale service connections", "x", IP="10.43.0.10"), "10.43.0.10"),
        (prose("Failed to delete a/b:c endpoint connections for externalIP 1.2.3.4", "x"), "1.2.3.4"),
        (prose("Failed to delete a/b:c endpoint connections for LoabBalancerIP 1.2.3.4", "x"), "1.2.3.4"),
        (prose("Failed to delete a/b:c endpoint connections for LoadBalancerIP fd00::4", "x"), "fd00::4"),
        (text("Failed to delete endpoint connections for externalIP", "x", externalIP="1.2.3.4"), "1.2.3.4"),
        (text("Failed to delete endpoint connections for LoadBalancerIP", "x", loadBalancerIP="1.2.3.4"), "1.2.3.4"),
        (text("Failed to clear udp conntrack", "error deleting conntrack entries for UDP port: 30053, error: x"), ""),
        (b"", ""),
    ],
)
def test_the_address_of_a_service_is_read_where_there_is_no_peer(payload: bytes, vip: str) -> None:
    assert (details_of(payload).vip, details_of(payload).endpoint) == (vip, "")


@pytest.mark.parametrize("key", ["servicePortName", "svcPortName", "portName"])
def test_a_service_port_is_read_in_every_quoting(key: str) -> None:
    message = "Failed to delete endpoint connections"
    assert service_of(text(message, "x", **{key: DNS})) == DNS
    assert service_of(text(message, "x", **{key: DNS, "externalIP": "1.2.3.4"})) == DNS
    assert service_of(record(message, "x", **{key: DNS})) == DNS
    assert (
        service_of(record(message, "x", **{key: {"name": "kube-dns", "namespace": "kube-system"}}))
        == "kube-system/kube-dns"
    )
    assert (
        service_of(record(message, "x", **{key: {"namespace": "kube-system", "name": "kube-dns"}}))
        == "kube-system/kube-dns"
    )
    escaped = json.dumps({"log": text(message, "x", **{key: DNS}).decode()}).encode()
    assert service_of(escaped) == DNS
    escaped = json.dumps({"log": record(message, "x", **{key: DNS}).decode()}).encode()
    assert service_of(escaped) == DNS


@pytest.mark.parametrize(
    ("message", "service"),
    [
        (f"Failed to delete {DNS} endpoint connections, error: x", DNS),
        (f"Failed to delete nodeport-related {DNS} endpoint connections, error: x", DNS),
        (f"Failed to delete {DNS} endpoint connections for externalIP 1.2.3.4, error: x", DNS),
        (f"Stale udp service {DNS} -> 10.96.0.10", DNS),
        (f"Stale sctp service {DNS} -> 10.96.0.10", DNS),
        (f"Stale udp service NodePort {DNS} -> 30053", DNS),
        (f"Stale endpoint {DNS} -> 10.244.1.5:53", DNS),
        (f'Adding new service port "{DNS}" at 10.96.0.10:53/UDP', DNS),
        (f'Setting endpoints for "{DNS}" to [10.244.1.5:53]', DNS),
        ("Failed to delete stale service IP 10.0.0.2 connections, error: x", ""),
        ("Failed to delete endpoint connections", ""),
        ("", ""),
    ],
)
def test_a_service_port_is_read_from_prose(message: str, service: str) -> None:
    assert service_of((HEAD + message).encode()) == service


@pytest.mark.parametrize("value", ["{}", '{"name":"x"}', '{"namespace":"x"}', "5", "null", '""', "["])
def test_a_service_port_that_is_none_is_left_out(value: str) -> None:
    assert service_of(b'{"ts":1.5,"caller":"a/b.go:1","msg":"x","portName":' + value.encode() + b"}") == ""


CAUSE_TEXTS = sorted({(cause.id, said.decode()) for cause in CAUSES for said in cause.texts})


@pytest.mark.parametrize(("cause", "said"), CAUSE_TEXTS)
def test_every_cause_is_read_in_every_quoting(cause: str, said: str) -> None:
    err = f"exit status 1: {said}\nand more"
    message = "Failed to execute iptables-restore"
    for payload in (text(message, err), block(message, err), record(message, err), prose(message, err)):
        assert cause_of(payload) == cause
        assert details_of(payload).cause == cause


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        ("enoentRace", "conntrack v1.4.4 (conntrack-tools): Operation failed: such conntrack doesn't exist"),
        ("noBinary", 'error looking for path of conntrack: exec: "conntrack": executable file not found in $PATH'),
        ("noNetlinkModule", "conntrack v1.4.6 (conntrack-tools): Can't open handler"),
        ("familyMismatch", "conntrack v1.4.4 (conntrack-tools): mismatched address family"),
        ("badAddress", "conntrack v1.4.5 (conntrack-tools): Invalid IP address"),
        (
            "permission",
            "conntrack v1.4.5 (conntrack-tools): Operation failed: sorry, you must be root or get CAP_NET_ADMIN",
        ),
        ("permission", "error deleting conntrack entries, error: operation not permitted"),
        ("xtablesLock", "Another app is currently holding the xtables lock. Perhaps you want to use the -w option?"),
        ("xtablesLock", "failed to acquire new iptables lock: timed out waiting for the condition"),
        ("xtablesLock", "failed to acquire old iptables lock: timed out waiting for the condition"),
        ("xtablesLock", "timed out while checking rules"),
        ("interrupted", "interrupted system call"),
        ("interrupted", "results may be incomplete or inconsistent"),
        ("missingLibrary", "libm.so.6: cannot open shared object file: No such file or directory"),
        (
            "missingMatch",
            "iptables-restore v1.8.9 (nf_tables): Couldn't load match `statistic':No such file or directory",
        ),
        ("missingMatch", "iptables v1.8.7 (nf_tables): Couldn't load target `KUBE-X':No such file or directory"),
        ("parseError", "iptables-restore: line 12 failed"),
        (OTHER_CAUSE, "exit status 3"),
        (OTHER_CAUSE, ""),
    ],
)
def test_the_known_texts_are_their_causes(cause: str, said: str) -> None:
    for payload in (text("x", said), record("x", said), record("x", said).replace(b"'", b"\\u0027")):
        assert cause_of(payload) == cause


def entry(client: str, protocol: str = "udp", state: str = "") -> str:
    number = {"udp": 17, "sctp": 132}[protocol]
    return (
        f"{protocol}      {number} 23 {state}src={client} dst=10.96.0.10 sport=34152 dport=53 [UNREPLIED] "
        f"src=10.244.1.5 dst={client} sport=53 dport=34152 mark=0 use=1\n"
    )


@given(st.lists(st.integers(0, 400), max_size=700), st.sampled_from(["v4", "v6", "sctp"]))
@example(list(range(300)), "v4")
def test_quoted_entries_are_counted_and_their_clients_collected_up_to_a_limit(numbers: list[int], kind: str) -> None:
    address = "fd00::%x" if kind == "v6" else "10.244.2.%d"
    clients = [address % number for number in numbers]
    protocol, state = ("sctp", "ESTABLISHED ") if kind == "sctp" else ("udp", "")
    output = "".join(entry(client, protocol, state) for client in clients) + "conntrack v1.4.5: Operation failed"
    err = deletion("10.96.0.10, 10.244.1.5", output)
    for payload in (
        prose(f"Failed to delete {DNS} endpoint connections", err),
        text("Failed to delete endpoint connections", err, servicePortName=DNS),
        record("Failed to delete endpoint connections", err, servicePortName=DNS),
    ):
        found = details_of(payload)
        assert found.entries == len(clients)
        assert found.clients <= set(clients)
        assert len(found.clients) == min(len(set(clients)), MOST_CLIENTS_OF_A_LINE)


def test_the_reply_tuple_is_not_a_client() -> None:
    found = details_of(
        prose("Failed to delete a/b:c endpoint connections", deletion("1.1.1.1, 2.2.2.2", entry("3.3.3.3")))
    )
    assert (found.entries, found.clients) == (1, frozenset({"3.3.3.3"}))


@given(st.binary(max_size=300))
@example(b"portName")
@example(b"ortName=\xff peer {\xff} sport=")
def test_no_bytes_make_it_raise(payload: bytes) -> None:
    for data in (payload, b"portName=" + payload, b" peer {" + payload + b"}", b" sport=udp 17 1 src=" + payload):
        assert isinstance(details_of(data), Details)


def test_details_of_the_examples_name_dns_where_they_do() -> None:
    for signature, found in examples():
        payload = bare(found)
        if signature.startswith(("CT_DEL", "STALE")) and b"kube-dns" in payload:
            assert service_of(payload) == DNS, payload
        if signature == "CT_DEL_ENDPOINT":
            assert (details_of(payload).vip, details_of(payload).endpoint) == ("10.96.0.10", "10.244.1.5")


# --- what starts and endpoint changes say


@pytest.mark.parametrize(
    ("payload", "version"),
    [
        (b"I0104 03:56:46.318455       1 server.go:650] Version: v1.20.0", "v1.20.0"),
        (b'I0101 00:00:00.000000       1 server.go:872] "Version info" version="v1.30.3"', "v1.30.3"),
        (b'{"ts":1,"caller":"app/server.go:539","msg":"Version info","v":0,"version":"v1.36.2"}', "v1.36.2"),
        (b'"Version info" version="v1.30.3+k3s1"', "v1.30.3+k3s1"),
        (b"Version: v1.18.20-eks-8c49e2", "v1.18.20-eks-8c49e2"),
        (b'"Version info" version="unknown"', None),
        (b"Version: ", None),
    ],
)
def test_versions(payload: bytes, version: str | None) -> None:
    assert version_of(payload) == version


@pytest.mark.parametrize("mode", ["iptables", "ipvs", "nftables", "userspace"])
def test_modes(mode: str) -> None:
    for payload in (f"x] Using {mode} Proxier.", f'x] "Using {mode} Proxier"', f'{{"msg":"Using {mode} Proxier"}}'):
        assert mode_of(payload.encode()) == mode
    assert mode_of(b"Using nothing") is None


def test_verbosity_and_node_name_from_flags() -> None:
    for quote in ('"', '\\"', '\\\\\\"'):
        assert verbosity_of(f"FLAG: --v={quote}4{quote}".encode()) == 4
        assert hostname_of(f"FLAG: --hostname-override={quote}knode-1.a{quote}".encode()) == "knode-1.a"
        assert hostname_of(f"FLAG: --hostname-override={quote}{quote}".encode()) is None
    assert verbosity_of(b"FLAG: --v=x") is None
    assert hostname_of(b'FLAG: --hostname-override="a b"') is None
    assert hostname_of(b'FLAG: --hostname-override="' + b"a" * 300 + b'"') is None


@pytest.mark.parametrize(
    ("payload", "address"),
    [
        (b'"Adding new service port" portName="a/b:c" servicePort="10.96.0.10:53/UDP"', "10.96.0.10"),
        (b'"Adding new service port" portName="a/b:c" servicePort="[fd00::a]:53/UDP"', "fd00::a"),
        (b'{"msg":"Adding new service port","portName":{},"servicePort":"10.96.0.1:443/TCP"}', "10.96.0.1"),
        (b'{"log":"\\"servicePort\\":\\"10.96.0.1:443/SCTP\\""}', "10.96.0.1"),
        (b'Adding new service port "a/b:c" at 10.96.0.10:53/UDP', "10.96.0.10"),
        (b'Adding new service port "a/b:c" at [fd00::a]:53/UDP', "fd00::a"),
        (b'Adding new service port "a/b:c" at x', None),
    ],
)
def test_the_address_of_a_new_service_port(payload: bytes, address: str | None) -> None:
    assert port_address_of(payload) == address


@pytest.mark.parametrize(
    ("payload", "endpoints"),
    [
        (b'"x" portName="a/b:c" endpoints=["10.244.1.5:53","10.244.3.4:53"]', b'["10.244.1.5:53","10.244.3.4:53"]'),
        (b'"x" portName="a/b:c" endpoints=[10.244.1.5:53 10.244.3.4:53]', b"[10.244.1.5:53 10.244.3.4:53]"),
        (b'{"msg":"x","portName":{},"endpoints":["10.244.1.5:53"]}', b'["10.244.1.5:53"]'),
        (b'Setting endpoints for "a/b:c" to [10.244.1.5:53]', b"[10.244.1.5:53]"),
        (b'"x" portName="a/b:c" endpoints=[]', b"[]"),
        (b'"x" portName="a/b:c"', b""),
    ],
)
def test_endpoint_lists(payload: bytes, endpoints: bytes) -> None:
    assert endpoints_of(payload) == endpoints
