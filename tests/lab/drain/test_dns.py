"""Pods that serve DNS: last, one at a time, never below the floor, and only while DNS answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.errors import UnreachableError
from kdnsctl.cluster.objects import Pod
from kdnsctl.lab.api.faults import Fault, Respond
from kdnsctl.lab.kinds import DEPLOYMENTS, PODS
from kdnsctl.lab.replies import forbidden
from kdnsctl.model import KdnsctlError
from kdnsctl.probe.queries import Batch, Take
from kdnsctl.quarantine import dnsdrain, dnsprobe
from kdnsctl.quarantine.dnsguard import Floor
from kdnsctl.quarantine.draining import NodeResult
from kdnsctl.quarantine.evicting import Ending, Send
from kdnsctl.quarantine.podfilters import DrainOptions
from tests.lab.api.fake_kubelet import Cluster, settle
from tests.lab.conftest import Kdnsctl
from tests.lab.drain.cluster import NODE, Answering, Lab, Notes, lab, working

DNS = "k8s-app=kube-dns"


def dns_as_usual(made: Lab, here: int, elsewhere: int) -> None:
    """DNS pods on the node to drain, and on others, without the tolerations that would let them come back."""

    def edit(replicas: int) -> None:
        def change(obj: Any) -> Any:
            obj["spec"]["template"]["spec"].pop("tolerations", None)
            obj["spec"]["replicas"] = replicas
            return obj

        made.store.change(DEPLOYMENTS, "coredns", "kube-system", change)
        settle(made.store, made.manager)

    edit(here)
    if elsewhere:
        made.cordon("knode2", "knode3", on=False)
        made.cordon(NODE)
        edit(here + elsewhere)
        made.cordon(NODE, on=False)
    nodes = [pod["spec"]["nodeName"] for pod in made.store.select(PODS, "kube-system", labels=DNS)]
    assert nodes.count(NODE) == here
    assert len(nodes) == here + elsewhere


def endings(result: NodeResult) -> list[Ending | None]:
    return [pod.ending for pod in result.pods if pod.pod.metadata.labels.get("k8s-app") == "kube-dns"]


def test_they_go_last_and_dns_is_measured_after_each(tmp_path: Path) -> None:
    with lab(tmp_path, dns=1) as made:
        dns_as_usual(made, here=2, elsewhere=2)
        made.deploy("web", 3)
        probe = Answering()
        with working(made):
            [result] = made.drain(DrainOptions(), probe=probe)
        assert result.drained
        assert endings(result) == [Ending.GONE, Ending.GONE]
        assert probe.asked == ["kube-system/kube-dns"] * 2
        sent = [entry.path for entry in made.server.journal.entries() if entry.path.endswith("/eviction")]
        assert len(sent) > 2
        assert ["coredns" in path for path in sent] == [False] * (len(sent) - 2) + [True, True]


def test_the_last_ones_stay_and_the_rest_goes(tmp_path: Path) -> None:
    with lab(tmp_path, dns=1) as made:
        dns_as_usual(made, here=2, elsewhere=0)
        made.deploy("web", 2)
        with working(made):
            [result] = made.drain(DrainOptions())
        assert endings(result) == [Ending.KEPT, Ending.KEPT]
        assert not result.drained
        assert made.store.select(PODS, "default", fields=f"spec.nodeName={NODE}") == []
        reasons = [pod.reason.message for pod in result.pods if pod.reason]
        assert all("needs 1 serving on nodes neither drained nor affected, and has 0" in text for text in reasons)


def test_those_on_affected_nodes_hold_nothing_up(tmp_path: Path) -> None:
    with lab(tmp_path, dns=1) as made:
        dns_as_usual(made, here=1, elsewhere=2)
        with working(made):
            [result] = made.drain(DrainOptions(), affected=("knode2", "knode3"))
        assert endings(result) == [Ending.KEPT]


def test_trouble_after_one_keeps_the_others(tmp_path: Path) -> None:
    with lab(tmp_path, dns=1) as made:
        dns_as_usual(made, here=3, elsewhere=3)
        notes = Notes()
        with working(made):
            [result] = made.drain(DrainOptions(), probe=Answering("", "3 of 10 queries got no answer"), notes=notes)
        assert endings(result) == [Ending.GONE, Ending.GONE, Ending.KEPT]
        assert any("3 of 10 queries got no answer; no further DNS pod is touched" in text for text in notes.texts)


def test_they_stay_when_it_cannot_be_seen_who_serves(tmp_path: Path) -> None:
    with lab(tmp_path, dns=1) as made:
        dns_as_usual(made, here=1, elsewhere=2)
        made.deploy("web", 3)
        refusal = forbidden("endpointslices", "discovery.k8s.io", "", "not any more").status()
        made.server.faults.add(Fault(Respond(403, status=refusal), path="endpointslices", after=2, times=None))
        with working(made):
            [result] = made.drain(DrainOptions())
        failed = [pod for pod in result.pods if pod.reason]
        assert [(pod.reason.code, pod.ending) for pod in failed if pod.reason] == [("forbidden", None)]
        assert all(pod.left for pod in result.pods if pod not in failed)
        assert not result.drained


def test_without_a_replacement_no_other_goes(tmp_path: Path) -> None:
    with lab(tmp_path, dns=1) as made:
        dns_as_usual(made, here=2, elsewhere=2)
        probe = Answering()
        with working(made):
            made.manager.pause("scheduler")
            [result] = made.drain(DrainOptions(), probe=probe)
        assert endings(result) == [Ending.GONE, Ending.KEPT]
        assert probe.asked == [], "there is nothing to measure yet"


@pytest.mark.parametrize("options", [DrainOptions(force=True, grace_period=0, disable_eviction=True)])
def test_what_hurts_is_not_done_to_them(tmp_path: Path, options: DrainOptions) -> None:
    with lab(tmp_path, dns=1) as made:
        dns_as_usual(made, here=1, elsewhere=2)
        made.deploy("web", 1)
        made.bare("dns-by-hand", labels={"k8s-app": "kube-dns"})
        made.store.create(
            PODS,
            {
                "metadata": {"name": "by-hand", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
                "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "i"}]},
            },
        )
        settle(made.store, made.manager)
        with working(made):
            [result] = made.drain(options)
        entries = made.server.journal.entries()
        deleted = [entry.path for entry in entries if entry.method == "DELETE"]
        evicted: list[Any] = [entry.body for entry in entries if entry.path.endswith("/eviction")]
        assert not any("coredns" in path or "/by-hand" in path for path in deleted)
        assert len(evicted) == 1
        assert "gracePeriodSeconds" not in evicted[0]["deleteOptions"]
        kept = [pod for pod in result.pods if pod.ending is Ending.KEPT]
        assert [pod.pod.metadata.name for pod in kept] == ["by-hand"]


def test_the_floor_is_looked_at_before_each_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget may be waited for, or a server, for long; here the first attempt fails, and by then too few serve."""
    answers = iter(["", "", "too few serve now"])
    monkeypatch.setattr(Floor, "shortage", lambda *_: next(answers))
    with lab(tmp_path, dns=1) as made:
        dns_as_usual(made, here=1, elsewhere=2)
        made.server.faults.add(Fault(Respond(500, "boom"), method="POST", path="/eviction"))
        with working(made):
            [result] = made.drain(DrainOptions())
        assert endings(result) == [Ending.KEPT]
        assert [(pod.reason.code, pod.reason.message.partition(": ")[2]) for pod in result.pods if pod.reason] == [
            ("dnsFloor", "too few serve now")
        ]
        assert sum(entry.path.endswith("/eviction") for entry in made.server.journal.entries()) == 1
        assert next(answers, None) is None


def test_dns_is_measured_also_after_an_eviction_whose_answer_was_lost(tmp_path: Path) -> None:
    """Whether the pod is still ending when it is looked at again, or gone already."""

    def lost(send: Send) -> Send:
        def sent(pod: Pod, options: DrainOptions, scope: CancelScope) -> None:
            send(pod, options, scope)
            while made.store.find(PODS, pod.metadata.name, pod.metadata.namespace) is not None:
                scope.pause(0.01)
                scope.check()
            raise UnreachableError("the answer was lost")

        return sent

    with lab(tmp_path, dns=1) as made:
        dns_as_usual(made, here=1, elsewhere=2)
        probe = Answering()
        with working(made):
            [result] = made.drain(DrainOptions(), probe=probe, wrap=lost)
        assert endings(result) == [Ending.MOVED]
        assert probe.asked == ["kube-system/kube-dns"]


def test_after_a_run_that_took_one_dns_has_to_answer_first(tmp_path: Path) -> None:
    with lab(tmp_path, dns=1) as made:
        dns_as_usual(made, here=2, elsewhere=2)
        made.deploy("web", 1)
        service, taken, notes = "kube-system/kube-dns", list[str](), Notes()
        with working(made):
            deaf = Answering("nothing can ask it")
            [result] = made.drain(DrainOptions(), probe=deaf, unproven=(service,), notes=notes)
            assert endings(result) == [Ending.KEPT, Ending.KEPT]
            assert deaf.asked == [service], "once, and the rest of the pods are gone"
            assert made.store.select(PODS, "default", fields=f"spec.nodeName={NODE}") == []
            assert any("an earlier run has taken a pod" in text for text in notes.texts)

            probe = Answering()
            [result] = made.drain(
                DrainOptions(), probe=probe, unproven=(service,), taking=lambda one: taken.append(one.service)
            )
        assert endings(result) == [Ending.GONE, Ending.GONE]
        assert probe.asked == [service] * 3
        assert taken == [service] * 2


def test_where_nothing_can_ask_runs_again_take_no_further_one(
    tmp_path: Path, kdnsctl: Kdnsctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As typed, with the incident's journal as the memory; from another machine it is not known."""
    for name, value in {"XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": "state", "KUBECONFIG": "kubeconfig"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setattr(dnsdrain, "SETTLE", 0.0)
    monkeypatch.setattr(dnsprobe, "Here", NoAsker)
    words = ("quarantine", NODE, "--yes", "--no-collect", "--drain-anyway", "--via", "exec", "--incident", "inc-1")

    def evicted() -> int:
        return sum(entry.path.endswith("/eviction") for entry in made.server.journal.entries())

    with lab(tmp_path, dns=1) as made:
        dns_as_usual(made, here=3, elsewhere=3)
        made.cordon("knode2", "knode3", on=False)
        with Cluster(made.store, made.manager):
            first = kdnsctl(*words)
            assert (first.code, evicted()) == (4, 1), first.err
            again = kdnsctl(*words)
            assert (again.code, evicted()) == (4, 1), again.err
        assert "an earlier run has taken a pod of kube-system/kube-dns" in again.out
        assert "name the tools image (--image)" in " ".join(again.out.split())


class NoAsker:
    """A machine from which DNS cannot be asked."""

    where = ""

    def ask(self, batch: Batch, take: Take, *, scope: CancelScope) -> None:
        del batch, take, scope
        raise KdnsctlError("no way to the cluster's network")
