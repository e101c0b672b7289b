from __future__ import annotations

from kdnsctl.quarantine.budgets import Chance
from kdnsctl.quarantine.dnsguard import dns_pods
from kdnsctl.quarantine.drainplan import DNS_UNMANAGED, make_plan
from kdnsctl.quarantine.podfilters import DrainOptions
from tests.unit.quarantine.objects import budget, known, pod, slice_of

READY: dict[str, bool] = {"ready": True}


def test_pods_that_serve_dns_come_last_and_without_what_hurts() -> None:
    options = DrainOptions(force=True, grace_period=0, disable_eviction=True, timeout=9)
    pods = {"n1": [pod("dns-1"), pod("web-1")], "n2": [pod("dns-2", node="n2")]}
    slices = [slice_of(("uid-dns-1", "n1", READY), ("uid-dns-2", "n2", READY), ("uid-dns-3", "n3", READY))]
    plan = make_plan(pods, known(options), dns=[dns_pods("kube-system/kube-dns", slices)], affected=["n4"])
    assert [one.name for one in plan.pods] == ["default/web-1"]
    assert [one.name for one in plan.dns] == ["default/dns-1", "default/dns-2"]
    assert plan.dns_options == DrainOptions(timeout=9)
    assert [(floor.least, floor.excluded) for floor in plan.floors] == [(2, frozenset({"n1", "n2", "n4"}))]


def test_a_dns_pod_that_nobody_would_replace_stays_whatever_is_forced() -> None:
    pods = {"n1": [pod("dns-1", owner=None), pod("web-1", owner=None)]}
    dns = [dns_pods("dns", [slice_of(("uid-dns-1", "n1", READY))])]
    [node] = make_plan(pods, known(DrainOptions(force=True)), dns=dns).nodes
    assert [one.name for one in node.goes] == ["default/web-1"]
    assert [(one.pod.metadata.name, one.why) for one in node.kept] == [("dns-1", DNS_UNMANAGED)]


def test_a_dns_pod_without_an_address_yet_is_one_by_its_labels() -> None:
    labels = {"k8s-app": "kube-dns", "pod-template-hash": "1"}
    there = [pod("new", labels=labels), pod("ended", labels=labels, phase="Failed"), pod("web-1")]
    elsewhere = pod("namesake", labels=labels, namespace="other")
    dns = [dns_pods("default/kube-dns", [slice_of(("uid-dns-1", "n2", READY))], {"k8s-app": "kube-dns"})]
    plan = make_plan({"n1": [*there, elsewhere]}, known(), dns=dns)
    assert [one.name for one in plan.dns] == ["default/new"]
    assert [one.name for one in plan.pods] == ["default/ended", "default/web-1", "other/namesake"]
    without = make_plan({"n1": there}, known(), dns=[dns_pods("default/kube-dns", [])])
    assert without.dns == (), "a Service that selects nothing has no pods but those in its slices"


def test_budgets_are_used_up_across_nodes_and_not_by_those_that_refuse() -> None:
    pods = {"n1": [pod("a"), pod("x", owner=None)], "n2": [pod("b", node="n2")], "n3": [pod("c", node="n3")]}
    plan = make_plan(pods, known(), budgets=[budget(allowed=1)])
    assert plan.nodes[0].refusal
    chances = {one.pod.metadata.name: one.prospect.chance for node in plan.nodes for one in node.goes}
    assert chances == {"a": Chance.FREE, "b": Chance.NOW, "c": Chance.WAITS}
