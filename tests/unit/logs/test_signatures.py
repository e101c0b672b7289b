"""The catalogue as data: complete, consistent with itself, and every wording found in each format it can have."""

import json
import re

import pytest

from kdnsctl.logs.signatures import (
    BY_ID,
    CATALOGUE,
    FIRST_MINOR,
    LAST_MINOR,
    PHRASES,
    Kind,
    Signature,
    Variant,
    recognise,
)
from tests.unit.logs.scanning import scan

STRUCTURED = [
    (signature, variant, file)
    for signature in CATALOGUE
    for variant in signature.variants
    for file in signature.files
    if variant.structured
]
IDS = [f"{signature.id}-{variant.text}-{file}" for signature, variant, file in STRUCTURED]
# What must follow a message for it to mean what its signature says.
VALUES = {"EXIT_CONFIG_CHANGED": "content of the proxy server's configuration file was updated"}


def test_ids_are_unique_and_found_by_name() -> None:
    assert len(BY_ID) == len(CATALOGUE)
    assert all(BY_ID[signature.id] is signature for signature in CATALOGUE)


@pytest.mark.parametrize("signature", CATALOGUE, ids=lambda signature: signature.id)
def test_a_signature_says_what_it_must(signature: Signature) -> None:
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", signature.id)
    assert signature.severity in ("I", "W", "E", "W, from 1.27 E")
    assert signature.summary
    assert signature.means.endswith(".")
    assert signature.source
    assert signature.variants
    for variant in signature.variants:
        assert FIRST_MINOR <= variant.first <= variant.last <= LAST_MINOR
    assert all(file.endswith(".go") for file in signature.files)
    assert not any(text.strip() != text for text in (signature.summary, signature.means, signature.not_means))
    if signature.kind is Kind.FAILURE:
        assert signature.not_means


@pytest.mark.parametrize("signature", CATALOGUE, ids=lambda signature: signature.id)
def test_a_structured_wording_holds_a_phrase_of_its_signature(signature: Signature) -> None:
    for variant in signature.variants:
        if variant.structured:
            said = variant.text + VALUES.get(signature.id, "")
            assert any(phrase in said for phrase in signature.phrases), variant.text


def test_no_two_signatures_share_a_structured_wording() -> None:
    texts = [variant.text for signature in CATALOGUE for variant in signature.variants if variant.structured]
    assert len(texts) == len(set(texts))


def test_the_phrases_to_grep_for_cover_all_and_none_covers_another() -> None:
    for signature in CATALOGUE:
        for phrase in signature.phrases:
            assert any(shorter in phrase for shorter in PHRASES)
    assert not any(one in other for one in PHRASES for other in PHRASES if one != other)


@pytest.mark.parametrize(("signature", "variant", "file"), STRUCTURED, ids=IDS)
def test_a_structured_wording_is_found_in_text_in_a_block_and_in_json(
    signature: Signature, variant: Variant, file: str
) -> None:
    err = VALUES.get(signature.id, "x")
    head = f"E0606 16:49:46.155398       1 {file}:7] "
    text = f'{head}"{variant.text}" err="{err}"'
    block = f'{head}"{variant.text}" err=<\n\t{err}\n > ipFamily="IPv4"'
    record = {"ts": 1795400883132.5, "caller": f"dir/{file}:7", "msg": variant.text, "v": 0, "err": err}
    in_any_order = (json.dumps(record), json.dumps(dict(reversed(record.items()))))
    for written in (text, json.dumps(record, separators=(",", ":")), *in_any_order):
        assert scan(written.encode() + b"\n").ids == [signature.id]
        assert scan(written.encode() + b"\n" + written.encode() + b"\n").ids == [signature.id] * 2
    if signature.id not in VALUES:
        assert scan(block.encode() + b"\n" + block.encode() + b"\n").ids == [signature.id] * 2


@pytest.mark.parametrize(("signature", "variant", "file"), STRUCTURED, ids=IDS)
def test_a_structured_wording_from_another_file_is_not_found(signature: Signature, variant: Variant, file: str) -> None:
    assert signature is not None
    text = f'E0606 16:49:46.155398       1 x{file}:7] "{variant.text}" err="{VALUES.get(signature.id, "x")}"\n'
    assert scan(text.encode() * 2).ids == []


PROSE = [
    ("CT_DEL_ENDPOINT", "proxier.go", "Failed to delete kube-system/kube-dns:dns endpoint connections, error: x"),
    (
        "CT_DEL_ENDPOINT_NODEPORT",
        "proxier.go",
        "Failed to delete nodeport-related a/b:c endpoint connections, error: x",
    ),
    (
        "CT_DEL_ENDPOINT_EXT",
        "proxier.go",
        "Failed to delete a/b:c endpoint connections for externalIP 1.2.3.4, error: x",
    ),
    (
        "CT_DEL_ENDPOINT_LB",
        "proxier.go",
        "Failed to delete a/b:c endpoint connections for LoabBalancerIP 1.2.3.4, error: x",
    ),
    (
        "CT_DEL_ENDPOINT_LB",
        "proxier.go",
        "Failed to delete a/b:c endpoint connections for LoadBalancerIP 1.2.3.4, error: x",
    ),
    ("CT_DEL_SVC", "proxier.go", "Failed to delete stale service IP 10.0.0.2 connections, error: x"),
    ("CT_DEL_PORT", "proxier.go", "Failed to clear udp conntrack for port 30053, error: x"),
    ("CT_DEL_PORT", "proxier.go", "Failed to clear udp conntrack on port 30053: x"),
    ("CT_RETURN_OLD", "proxier.go", "conntrack return with error: x"),
    ("CT_RETURN_OLD", "conntrack.go", "conntrack returned error: x"),
    ("IPT_RESTORE_FAIL", "proxier.go", "Failed to execute iptables-restore: exit status 1 (x)"),
    ("IPT_RESTORE_FAIL", "proxier.go", "Failed to execute iptables-restore for nat: exit status 1 (x)"),
    ("IPT_CHAIN_FAIL", "proxier.go", "Failed to ensure that nat chain KUBE-SERVICES exists: x"),
    ("IPT_CHAIN_FAIL", "proxier.go", "Failed to ensure that filter chain INPUT jumps to KUBE-EXTERNAL-SERVICES: x"),
    ("IPT_SYNC_FAILED", "proxier.go", "Sync failed; retrying in 30s"),
    ("IPT_SAVE_FAIL", "proxier.go", "Failed to execute iptables-save, syncing all rules: x"),
    ("IPT_CANARY_FAIL", "iptables.go", "Could not check for iptables canary mangle/KUBE-PROXY-CANARY: exit status 4"),
    ("IPT_CANARY_FAIL", "iptables.go", "Could not set up iptables canary mangle/KUBE-PROXY-CANARY: exit status 4"),
    ("IPT_FLUSHED", "iptables.go", "iptables canary mangle/KUBE-PROXY-CANARY deleted"),
    ("IPT_FLUSHED", "iptables.go", "Reloading after iptables flush"),
    ("SYNC_DONE", "proxier.go", "syncProxyRules took 297.594535ms"),
    ("TRACE_SLOW", "trace.go", 'Trace[409041330]: "iptables restore" (started: x) (total time: 2.000481866s):'),
    ("TRACE_SLOW", "trace.go", 'Trace[409041330]: "iptables ChainExists" (started: x) (total time: 2.000481866s):'),
    ("START_VERSION", "server.go", "Version: v1.9.0"),
    *(("START_MODE", "server_others.go", f"Using {mode} Proxier.") for mode in ("iptables", "ipvs", "userspace")),
    *(
        ("START_CTRL", "config.go", f"Starting {what} config controller")
        for what in ("service", "endpoints", "endpoint slice", "node")
    ),
    ("CACHES_SYNCED", "controller_utils.go", "Caches are synced for service config controller"),
    ("CACHES_SYNCED", "shared_informer.go", "Caches are synced for endpoint slice config"),
    ("START_FLAG_V", "flags.go", 'FLAG: --v="2"'),
    ("START_NODE", "flags.go", 'FLAG: --hostname-override="knode2"'),
    (
        "START_NOT_SYNCED",
        "proxier.go",
        "Not syncing iptables until Services and Endpoints have been received from master",
    ),
    ("EXIT_CONFIG_CHANGED", "server.go", "content of the proxy server's configuration file was updated"),
    ("STALE_SVC", "proxier.go", "Stale udp service kube-system/kube-dns:dns -> 10.96.0.10"),
    ("STALE_SVC", "proxier.go", "Stale sctp service a/b:c -> 10.96.0.10"),
    ("STALE_SVC", "proxier.go", "Stale udp service NodePort a/b:c -> 30053"),
    ("STALE_EP", "endpoints.go", "Stale endpoint a/b:c -> 10.244.1.5:53"),
    ("V4_CT_CMD", "conntrack.go", "Clearing conntrack entries [-D --orig-dst 10.96.0.10 -p udp]"),
    ("V4_CT_OUT", "conntrack.go", "Conntrack entries deleted conntrack v1.4.5 (conntrack-tools): 0 flow entries"),
    ("SVC_PORT", "service.go", 'Adding new service port "a/b:c" at 10.96.0.10:53/UDP'),
    ("EP_SET", "endpoints.go", 'Setting endpoints for "a/b:c" to [10.244.1.5:53]'),
]


@pytest.mark.parametrize(
    ("signature", "file", "message"), PROSE, ids=[message[:50] + f"-{n}" for n, (_, _, message) in enumerate(PROSE)]
)
def test_an_old_wording_is_found_from_its_files_only(signature: str, file: str, message: str) -> None:
    line = f"E0606 16:49:46.155398       1 {file}:7] {message}\n".encode()
    assert scan(line).ids == [signature]
    assert scan(line * 3).ids == [signature] * 3
    assert scan(line.replace(b" " + file.encode(), b" x" + file.encode()) * 3).ids == []


def test_every_unstructured_variant_is_reached_by_an_example_above() -> None:
    reached = {
        known.variant
        for _, file, message in PROSE
        if (known := recognise(file.encode(), message.encode(), structured=False)) is not None
    }
    every = {variant for signature in CATALOGUE for variant in signature.variants if not variant.structured}
    assert every == reached


@pytest.mark.parametrize(
    ("signature", "versions"),
    [
        ("CT_DEL_ENDPOINT", "1.9–1.31"),
        ("CT_DEL_ENDPOINT_NODEPORT", "1.20–1.31"),
        ("CT_DEL_ENDPOINT_EXT", "1.10–1.31"),
        ("CT_DEL_ENDPOINT_LB", "1.14–1.31"),
        ("CT_DEL_SVC", "1.9–1.31"),
        ("CT_RETURN_OLD", "1.2–1.8"),
        ("CT_LIST_FAIL", "1.32+"),
        ("CT_PARTIAL", "1.33+"),
        ("NFT_SYNC_FAIL", "1.29+"),
        ("IPT_RESTORE_FAIL", "1.6+"),
        ("IPT_SYNC_FAILED", "1.17+"),
        ("STALE_SVC", "1.7–1.31"),
    ],
)
def test_the_releases_that_can_log_it(signature: str, versions: str) -> None:
    assert BY_ID[signature].versions == versions


def test_the_wording_tells_the_releases_that_have_it() -> None:
    def releases(file: str, message: str, *, structured: bool) -> tuple[int, int]:
        known = recognise(file.encode(), message.encode(), structured=structured)
        assert known is not None
        return known.variant.first, known.variant.last

    assert releases("proxier.go", "Failed to delete a/b:c endpoint connections, error: x", structured=False) == (9, 20)
    assert releases("cleanup.go", "Failed to delete endpoint connections", structured=True) == (21, 31)
    assert releases("cleanup.go", "Failed to clear all conntrack entries", structured=True) == (32, LAST_MINOR)
    assert releases("proxier.go", "Stale service", structured=True) == (21, 26)
