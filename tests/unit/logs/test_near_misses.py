"""What looks like a failure of kube-proxy and is none: the same words elsewhere, and news."""

import json

import pytest

from kdnsctl.logs.signatures import BY_ID, CATALOGUE, PHRASES, Kind
from tests.unit.logs.scanning import examples, scan
from tests.unit.logs.wrapping import STAMP, WRAPPINGS, bare

DELETE_ERR = "error deleting conntrack entries for UDP peer {10.96.0.10, 10.244.1.5}, error: exit status 1"


def klog(place: str, message: str, severity: str = "E") -> str:
    return f"{severity}0606 16:49:46.155398       1 {place}] {message}"


def record(caller: str, message: str, **values: object) -> str:
    return fields(ts=1795400883132.6384, caller=caller, msg=message, **values)


def fields(**values: object) -> str:
    return json.dumps(values, separators=(",", ":"))


LIST = "Failed to list conntrack entries"
OTHERS = {
    # the kubelet, in the words that kube-proxy also uses
    "kubelet chain": klog("kubelet_network_linux.go:63", '"Failed to ensure chain exists" err="x" table="nat"'),
    "kubelet chain, old": klog(
        "kubelet_network_linux.go:83", "Failed to ensure that nat chain KUBE-MARK-DROP exists: exit status 4"
    ),
    "kubelet canary": klog(
        "iptables.go:607", '"Could not check for iptables canary" err="x" table="mangle" chain="KUBE-KUBELET-CANARY"'
    ),
    "kubelet canary, set up": klog(
        "iptables.go:593", '"Could not set up iptables canary" err="x" table="mangle" chain="KUBE-KUBELET-CANARY"'
    ),
    "kubelet canary, old": klog(
        "iptables.go:576", "Could not check for iptables canary mangle/KUBE-KUBELET-CANARY: exit status 4", "W"
    ),
    "kubelet canary deleted": klog("iptables.go:598", '"IPTables canary deleted" chain="KUBE-KUBELET-CANARY"', "I"),
    "kubelet canary deleted, old": klog("iptables.go:555", "iptables canary nat/KUBE-KUBELET-CANARY deleted", "I"),
    "kubelet canary, JSON": record(
        "iptables/iptables.go:607", "Could not check for iptables canary", chain="KUBE-KUBELET-CANARY", err="x"
    ),
    # other components
    "wrong file": klog("gc.go:53", '"Failed to list conntrack entries" err="x"'),
    "wrong file, old": klog("endpoints.go:958", f"Failed to delete a/b:dns endpoint connections, error: {DELETE_ERR}"),
    "wrong file, JSON": record("metrics/gc.go:53", "Failed to list conntrack entries", err="x"),
    "file that ends like ours": klog("my-cleanup.go:53", '"Failed to list conntrack entries" err="x"'),
    "no file": "E0606 16:49:46.155398       1 Failed to delete kube-system/kube-dns:dns endpoint connections, error: x",
    "no header": f'"Failed to delete endpoint connections" err="{DELETE_ERR}"',
    "no header, old": f"Failed to delete kube-system/kube-dns:dns endpoint connections, error: {DELETE_ERR}",
    "half a header": '16:49:46.155398       1 cleanup.go:53] "Failed to list conntrack entries" err="x"',
    "header not at the beginning": "saw: " + klog("cleanup.go:53", '"Failed to list conntrack entries" err="x"'),
    "severity of no klog": klog("cleanup.go:53", '"Failed to list conntrack entries" err="x"', "D"),
    "CoreDNS": "[ERROR] plugin/errors: 2 a. A: read udp: Failed to list conntrack entries",
    "cilium text": 'level=error msg="Failed to list conntrack entries" subsys=ct error="Failed to delete endpoint"',
    "cilium JSON": fields(level="error", msg=LIST, subsys="ct", time=STAMP),
    "zap JSON with a level": fields(level="error", ts=1795403011.2, caller="conntrack/cleanup.go:9", msg=LIST),
    "zap JSON without a caller": fields(ts=1795403011238.2, msg=LIST),
    "JSON caller of no Go file": fields(ts=1795403011238.2, caller="conntrack/cleanup.py:9", msg=LIST),
    "JSON time of no number": fields(ts="2026", caller="conntrack/cleanup.go:9", msg=LIST),
    "JSON time true": fields(ts=True, caller="conntrack/cleanup.go:9", msg=LIST),
    "JSON message of no text": fields(ts=1795403011238.2, caller="conntrack/cleanup.go:9", msg=[LIST]),
    "shell": "+ grep 'Failed to delete endpoint connections' /var/log/kube-proxy.log",
    "shell history": "kubectl logs kube-proxy-x | grep -c 'nodeport-related endpoint connections'",
    "kubectl event": "3m  Warning  Failed  pod/x  Failed to clear udp conntrack for port 3, error: x",
    "configuration, quoted": 'time="x" msg="content of the proxy server\'s configuration file was updated"',
    # quoted inside something else of kube-proxy's or of others
    "quoted in klog prose": klog("server.go:558", 'retrying after "Failed to list conntrack entries" err="x"'),
    "quoted in a klog value": klog(
        "cleanup.go:60", '"Health check" last="Failed to list conntrack entries" err="Failed to delete x"'
    ),
    "quoted in a klog record of our file": klog("proxier.go:60", '"Retry" error="nftables sync failed"', "I"),
    "quoted record in JSON": record(
        "conntrack/cleanup.go:1", "Seen", last='"Failed to list conntrack entries" err="x"'
    ),
    "message of another key": fields(ts=1795403011238.2, caller="conntrack/cleanup.go:9", msg="x", log2=LIST),
    "JSON of another component": json.dumps({"audit": klog("cleanup.go:53", '"Failed to list conntrack entries"')}),
    # a message that begins the same, or ends the same
    "longer message": klog("cleanup.go:53", '"Failed to list conntrack entries for metrics" err="x"'),
    "longer message, JSON": record("conntrack/cleanup.go:53", "Failed to list conntrack entries for metrics", err="x"),
    "longer in front": klog("cleanup.go:53", '"Not: Failed to list conntrack entries" err="x"'),
    "quote runs on": klog("cleanup.go:53", '"Failed to list conntrack entries"s err="x"'),
    "prose of a structured message": klog("cleanup.go:53", "Failed to list conntrack entries: x"),
    "other verb": klog("proxier.go:770", '"Deleting stale endpoint connections" endpoints=[]', "I"),
    "started reconciling": klog("cleanup.go:49", '"Started to reconcile conntrack entries" ipFamily="IPv4"', "I"),
    "cleanup at the start": klog("proxier.go:512", 'Error removing iptables rules in "iptables" proxier: x'),
    "trace of another step": klog("trace.go:236", 'Trace[15919]: "List" url:/api (total time: 5013ms):', "I"),
    "trace quotes": klog("trace.go:236", 'Trace[15919]: "DeltaFIFO Pop" "iptables restore" (total time: 1ms):', "I"),
    "mode in prose": klog("server_others.go:206", "Using iptables Proxier for node x", "I"),
    "mode of another": klog("server_linux.go:165", '"Using foo Proxier"', "I"),
    "other flag": klog("flags.go:64", 'FLAG: --vmodule=""', "I"),
    "ProxyServer with another error": klog("server.go:558", '"Error running ProxyServer" err="bind: address in use"'),
    "ProxyServer with the words of another": klog("server.go:558", '"Error running ProxyServer" err="Sync failed"'),
    "caches of others, old": klog("shared_informer.go:320", "Caches are synced for garbage collector", "I"),
    # names that contain the words
    "pod name": klog("kubelet.go:1", '"SyncLoop ADD" pods=["x/failed-to-list-conntrack-entries"]', "I"),
    "service name": klog("proxier.go:1", '"Adding" svcPortName="x/Failed to list conntrack entries:dns"', "I"),
    "host": klog("server.go:1", '"Node" node="Failed to delete endpoint connections"', "I"),
}


@pytest.mark.parametrize("line", OTHERS.values(), ids=OTHERS)
def test_the_same_words_elsewhere_are_not_found_in_any_wrapping(line: str) -> None:
    for wrapping in WRAPPINGS:
        if not wrapping.json_only:
            assert scan(wrapping.wrap([line.encode()]) * 3).ids == [], wrapping.name


CANNOT_BE_TOLD = {
    "no header",
    "no header, old",
    "half a header",
    "header not at the beginning",
    "severity of no klog",
    "zap JSON with a level",
    "JSON time of no number",
    "JSON time true",
    "JSON message of no text",
    "JSON of another component",
}
"""No failures, but so like ones in a form we do not know that the log is not called clean either."""


@pytest.mark.parametrize("name", OTHERS)
def test_a_near_miss_beside_the_real_thing_changes_nothing(name: str) -> None:
    line = OTHERS[name]
    cuts = ["a failure in a form that is not understood"] * 2 if name in CANNOT_BE_TOLD else []
    for signature, example in examples():
        real = bare(example)
        found = scan(b"\n".join([real, line.encode(), real, line.encode()]) + b"\n")
        assert found.hits == scan(real + b"\n").hits * 2, signature
        assert found.cuts == cuts


def test_most_near_misses_do_hold_a_phrase() -> None:
    # Else the tests above would only show that the search finds nothing where there is nothing.
    holding = [line for line in OTHERS.values() if any(phrase in line for phrase in PHRASES)]
    assert len(holding) > 0.75 * len(OTHERS)


@pytest.mark.parametrize(
    "prefix",
    [
        "[pod/failed-to-list-conntrack-entries/kube-proxy] ",
        f"{STAMP} stderr F ",
        "Nov 23 03:03:31 host-Stale-endpoint k3s[1]: ",
        '{"podName":"Failed to list conntrack entries","containerName":"kube-proxy","message":"',
        '{"nodeName":"Failed to delete endpoint connections","message":"',
    ],
)
def test_a_name_around_a_record_that_contains_the_words_finds_nothing(prefix: str) -> None:
    line = prefix + "I0606 16:49:46.155398       1 proxier.go:1] Syncing"
    line += '"}' if prefix.startswith("{") else ""
    assert scan((line + "\n").encode() * 2).ids == []


INFORMATIONAL = {
    "START_VERSION",
    "START_MODE",
    "START_CTRL",
    "CACHES_SYNCED",
    "START_FLAG_V",
    "START_NODE",
    "START_NOT_SYNCED",
    "EXIT_CONFIG_CHANGED",
    "STALE_SVC",
    "STALE_EP",
    "V4_CT_CMD",
    "V4_CT_OUT",
    "SYNC_DONE",
    "CT_RECONCILED",
    "TRACE_SLOW",
    "IPT_FLUSHED",
    "SVC_PORT",
    "EP_SET",
}


def test_news_about_starts_stale_entries_and_syncs_are_never_failures() -> None:
    assert {signature.id for signature in CATALOGUE if signature.kind is not Kind.FAILURE} == INFORMATIONAL
    for signature, example in examples():
        for found in scan(example + b"\n").ids:
            assert (BY_ID[found].kind is Kind.FAILURE) == (signature not in INFORMATIONAL)
