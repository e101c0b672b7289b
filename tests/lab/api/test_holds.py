"""Holds against the managers of nodes, on objects as these write them: what is set, what is taken back, what is said.

And what must not happen: that another node's Machine is touched, or somebody's own hold taken away on release.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.lab.api.access import Rule
from kdnsctl.lab.api.faults import Fault, Respond
from kdnsctl.lab.api.server import ApiServer
from kdnsctl.lab.kinds import CONFIG_MAPS, DEPLOYMENTS, NODES, Kind
from kdnsctl.lab.store import Store
from tests.lab.api import managers
from tests.lab.api.managers import FLEET, MACHINE_API, NODE
from tests.lab.api.test_quarantine import document, grant
from tests.lab.conftest import Kdnsctl

CONTAIN = ("--yes", "--no-collect", "--no-drain", "--incident", "inc-1", "-o", "json")
RELEASE = ("--yes", "--unchecked", "-o", "json")
HOOK = "pre-terminate.delete.hook.machine.cluster.x-k8s.io/kdnsctl"
SKIP = "cluster.x-k8s.io/skip-remediation"
NotHeld = Callable[[], list[Any]]


@pytest.fixture(autouse=True)
def speaking_to_it(server: ApiServer, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    config = tmp_path / "kubeconfig"
    config.write_text(server.kubeconfig(), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def everything(store: Store, *kinds: Kind) -> list[Any]:
    """All nodes and objects of these kinds, without what every write changes."""
    found = [one for kind in (NODES, *kinds) for one in store.select(kind)]
    for one in found:
        one["metadata"].pop("resourceVersion")
        one["metadata"].pop("generation", None)
    return found


def held(kdnsctl: Kdnsctl, *words: str) -> dict[str, dict[str, Any]]:
    """Quarantine the node; what is said of each manager."""
    ran = kdnsctl("quarantine", NODE, *CONTAIN, *words)
    assert ran.code == 0, ran.err
    return {one["manager"]: one for one in document(ran)["nodes"][0]["holds"]}


def released(kdnsctl: Kdnsctl) -> list[str]:
    """Release it; what came of each step."""
    ran = kdnsctl("release", NODE, *RELEASE)
    return [step["outcome"] for step in document(ran)["nodes"][0]["steps"]]


def patched(server: ApiServer) -> set[str]:
    return {one.path for one in server.journal.entries() if one.method == "PATCH"}


class TestClusterApi:
    """A Machine in the cluster itself, and one in a management cluster."""

    @pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
    def test_its_machine_is_held_and_let_go_exactly(self, kdnsctl: Kdnsctl, store: Store, version: str) -> None:
        machines = managers.cluster_api(store, version)
        before = everything(store, machines)

        told = held(kdnsctl)["cluster-api"]

        assert (told["verdict"], told["keys"], told["run"]) == ("held", [HOOK, SKIP], None)
        annotations = store.select(machines)[0]["metadata"]["annotations"]
        assert annotations == {HOOK: "inc-1", SKIP: ""}
        shown = document(kdnsctl("status", "-o", "json"))["nodes"][0]
        assert {one["manager"]: one["inForce"] for one in shown["holds"]}["cluster-api"] is True
        assert set(released(kdnsctl)) == {"restored"}
        assert everything(store, machines) == before

    def test_what_somebody_had_set_on_it_stays(self, kdnsctl: Kdnsctl, store: Store) -> None:
        other = "pre-terminate.delete.hook.machine.cluster.x-k8s.io/backup"
        machines = managers.cluster_api(store, annotations={SKIP: "because", other: "velero"})
        before = everything(store, machines)

        held(kdnsctl)

        assert store.select(machines)[0]["metadata"]["annotations"] == {SKIP: "because", other: "velero", HOOK: "inc-1"}
        assert set(released(kdnsctl)) == {"restored"}
        assert everything(store, machines) == before

    def test_what_somebody_sets_meanwhile_stays(self, kdnsctl: Kdnsctl, store: Store) -> None:
        machines = managers.cluster_api(store)
        held(kdnsctl)
        name = store.select(machines)[0]["metadata"]["name"]

        def meddle(machine: dict[str, Any]) -> dict[str, Any]:
            machine["metadata"]["annotations"].update({SKIP: "ops-4711", "theirs": "x"})
            return machine

        store.change(machines, name, FLEET, meddle)

        assert sorted(released(kdnsctl)) == ["drift", *["restored"] * 5]
        assert store.select(machines)[0]["metadata"]["annotations"] == {SKIP: "ops-4711", "theirs": "x"}

    def test_another_nodes_machine_is_not_touched(self, kdnsctl: Kdnsctl, store: Store, server: ApiServer) -> None:
        machines = managers.cluster_api(store, of="knode2")  # a management cluster has Machines of many clusters
        before = store.select(machines)

        told = held(kdnsctl)["cluster-api"]

        assert told["verdict"] == "cannotBeHeldFromHere"
        assert "is not this node's: it is that of node knode2" in told["why"]
        assert store.select(machines) == before
        assert patched(server) == {f"/api/v1/nodes/{NODE}"}

    def test_the_same_name_in_another_cluster_is_another_instance(self, kdnsctl: Kdnsctl, store: Store) -> None:
        machines = managers.cluster_api(store)
        managers.mark(store, providerID="docker:////elsewhere")
        before = store.select(machines)

        assert "another instance" in held(kdnsctl)["cluster-api"]["why"]
        assert store.select(machines) == before

    def test_in_a_management_cluster_it_is_told_how(self, kdnsctl: Kdnsctl, store: Store) -> None:
        marks = {"cluster.x-k8s.io/machine": "m-1", "cluster.x-k8s.io/cluster-namespace": FLEET}
        managers.mark(store, annotations=marks)

        told = held(kdnsctl)["cluster-api"]

        begin = f"kubectl --context MANAGEMENT-CLUSTER -n {FLEET} annotate machines.cluster.x-k8s.io m-1 "
        assert told["verdict"] == "cannotBeHeldFromHere"
        assert told["run"] == f"{begin}{HOOK}=inc-1 {SKIP}="
        assert told["undo"] == f"{begin}{HOOK}- {SKIP}-"
        plan = document(kdnsctl("release", NODE, "--unchecked", "--dry-run", "client", "-o", "json"))
        assert plan["nodes"][0]["byHand"] == [f"{told['undo']}  # if cluster-api was held by hand"]

    def test_who_may_not_change_it_is_told_how(self, kdnsctl: Kdnsctl, store: Store, server: ApiServer) -> None:
        machines = managers.cluster_api(store)
        before = store.select(machines)
        manifests = json.loads(kdnsctl("rbac", "quarantine", "-o", "json").out)["items"]
        grant(server, manifests, "joe", without="patch machines")

        told = held(kdnsctl, "--as", "joe")["cluster-api"]

        assert (told["verdict"], told["why"]) == (
            "cannotBeHeldFromHere",
            f"Machine {FLEET}/{before[0]['metadata']['name']} may not be changed",
        )
        assert store.select(machines) == before

    def test_a_machine_that_cannot_be_read_is_not_taken_to_be_elsewhere(
        self, kdnsctl: Kdnsctl, store: Store, server: ApiServer
    ) -> None:
        managers.cluster_api(store)
        server.faults.add(Fault(Respond(500, "etcd is ill"), path="/machines/", times=100))

        told = held(kdnsctl)["cluster-api"]

        assert told["verdict"] == "cannotBeHeldFromHere"
        assert "cannot be read" in told["why"]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"deleted": True}, "is being deleted since"),
            ({"annotations": {"cluster.x-k8s.io/remediate-machine": ""}}, "marked to be remediated"),
            ({"condition": {"type": "OwnerRemediated", "status": "False"}}, "asked the owner of Machine"),
        ],
    )
    def test_one_that_goes_away_is_captured_first_and_hooked_all_the_same(
        self, kdnsctl: Kdnsctl, store: Store, change: dict[str, Any], words: str
    ) -> None:
        machines = managers.cluster_api(store, annotations=change.get("annotations", {}))
        machine = store.select(machines)[0]
        if "condition" in change:
            machine["status"]["conditions"].append(change["condition"])
            store.update(machines, machine, subresource="status")
        if "deleted" in change:
            store.delete(machines, machine["metadata"]["name"], FLEET)

        ran = kdnsctl("quarantine", NODE, *CONTAIN)

        node = document(ran)["nodes"][0]
        told = next(one for one in node["holds"] if one["manager"] == "cluster-api")
        assert told["verdict"] == "alreadyTerminating"
        assert words in told["why"]
        assert words in node["alreadyTerminating"]
        assert store.select(machines)[0]["metadata"]["annotations"][HOOK] == "inc-1"

    def test_a_record_cannot_lead_to_another_nodes_machine(
        self, kdnsctl: Kdnsctl, store: Store, server: ApiServer
    ) -> None:
        """Whoever may change nodes may write a record, and has perhaps no say about Machines."""
        machines = managers.cluster_api(store)
        held(kdnsctl)
        theirs = store.select(machines)[0]
        theirs["status"]["nodeRef"] = {"name": "knode2"}
        store.update(machines, theirs, subresource="status")
        already = patched(server)

        refused = kdnsctl("release", NODE, *RELEASE)

        assert refused.code == 5
        assert "that is not this node's" in refused.err
        assert patched(server) == already
        assert HOOK in store.select(machines)[0]["metadata"]["annotations"]

    @pytest.mark.parametrize("name", ["knode1; reboot", "$(reboot)", "../../../../api/v1/secrets"])
    def test_what_cannot_be_a_name_is_in_no_command(self, kdnsctl: Kdnsctl, store: Store, name: str) -> None:
        """A node's annotations may be written by its kubelet; the commands are there to be copied into a shell."""
        managers.mark(
            store,
            annotations={
                "cluster.x-k8s.io/machine": name,
                "cluster.x-k8s.io/cluster-namespace": "fleet",
                "machine.openshift.io/machine": f"openshift-machine-api/{name}",
                "machineconfiguration.openshift.io/currentConfig": f"rendered-{name}-1a2b",
                "machineconfiguration.openshift.io/desiredConfig": f"rendered-{name}-1a2b",
            },
            providerID=f"aws:///eu-west-1a/i-0{name}",
        )
        told = held(kdnsctl)
        assert list(told) == ["cluster-autoscaler"]


class TestOpenShift:
    """Machine, MachineHealthCheck and MachineConfigPool."""

    BACKUP = {"name": "backup", "owner": "velero"}  # noqa: RUF012  # a fixture, not state

    @pytest.mark.parametrize("hooks", [[], [BACKUP]])
    def test_its_machine_gets_a_hook_and_loses_only_that(
        self, kdnsctl: Kdnsctl, store: Store, hooks: list[Any]
    ) -> None:
        machines, checks = managers.openshift(store, hooks=hooks)
        before = everything(store, machines, checks)

        told = held(kdnsctl)

        assert told["openshift-machine-api"]["verdict"] == "held"
        ours = {"name": "kdnsctl", "owner": "kdnsctl"}
        assert store.select(machines)[0]["spec"]["lifecycleHooks"] == {"preTerminate": [*hooks, ours]}
        health = told["openshift-health-check"]
        assert (health["verdict"], health["why"]) == ("cannotBeHeldFromHere", "it is paused for all its Machines")
        there = f"oc -n {MACHINE_API} annotate machinehealthchecks.machine.openshift.io workers cluster.x-k8s.io/paused"
        assert (health["run"], health["undo"]) == (f"{there}=inc-1", f"{there}-")
        assert set(released(kdnsctl)) == {"restored"}
        assert everything(store, machines, checks) == before  # with the empty object that it writes for no hooks

    def test_a_check_that_is_paused_already_stays_so(self, kdnsctl: Kdnsctl, store: Store) -> None:
        _, checks = managers.openshift(store)
        store.change(checks, "workers", MACHINE_API, lambda one: _annotated(one, "cluster.x-k8s.io/paused", ""))
        told = held(kdnsctl)["openshift-health-check"]
        assert (told["verdict"], told["run"], told["keys"]) == ("held", None, [])
        released(kdnsctl)
        assert store.select(checks)[0]["metadata"]["annotations"] == {"cluster.x-k8s.io/paused": ""}

    def test_a_check_that_does_not_select_it_is_none(self, kdnsctl: Kdnsctl, store: Store) -> None:
        _, checks = managers.openshift(store)
        check = store.select(checks)[0]
        check["spec"]["selector"]["matchLabels"] = {"machine.openshift.io/cluster-api-machine-role": "infra"}
        store.update(checks, check)
        assert "openshift-health-check" not in held(kdnsctl)

    def test_a_machine_that_is_being_deleted_takes_no_hook(self, kdnsctl: Kdnsctl, store: Store) -> None:
        machines, _ = managers.openshift(store, hooks=[self.BACKUP])
        store.delete(machines, "prod-worker-a-4zx9q", MACHINE_API)
        before = store.select(machines)

        told = held(kdnsctl)["openshift-machine-api"]

        assert told["verdict"] == "alreadyTerminating"
        assert "takes no more hooks; its hook backup keeps the instance" in told["why"]
        assert store.select(machines) == before

    def test_another_nodes_machine_is_not_touched(self, kdnsctl: Kdnsctl, store: Store) -> None:
        machines, _ = managers.openshift(store, of="knode2")
        before = store.select(machines)
        assert held(kdnsctl)["openshift-machine-api"]["verdict"] == "cannotBeHeldFromHere"
        assert store.select(machines) == before

    @pytest.mark.parametrize(
        ("pool", "verdict", "words"),
        [
            ({}, "cannotBeHeldFromHere", "whole pool"),
            ({"paused": True}, "held", "pool worker is paused already"),
            ({"desired": "4d5e6f"}, "alreadyTerminating", "reboots the node (Done, rendered-worker-4d5e6f)"),
            ({"state": "Working"}, "alreadyTerminating", "is at it"),
        ],
    )
    def test_a_pool_is_never_paused_by_us(
        self, kdnsctl: Kdnsctl, store: Store, pool: dict[str, Any], verdict: str, words: str
    ) -> None:
        kind = managers.machine_config(store, **pool)
        before = store.select(kind)
        told = held(kdnsctl)["machine-config"]
        assert told["verdict"] == verdict
        assert words in told["why"]
        paused = '{"spec":{"paused":true}}'
        run = f"oc patch machineconfigpools worker --type merge -p '{paused}'"
        assert told["run"] == (run if verdict == "cannotBeHeldFromHere" else None)
        assert store.select(kind) == before


class TestKarpenter:
    """The node's annotation, the NodeClaim, and what it does all the same."""

    KEY = "karpenter.sh/do-not-disrupt"

    def test_the_node_is_held_and_when_it_ends_is_told(self, kdnsctl: Kdnsctl, store: Store) -> None:
        claims = managers.karpenter(store)
        before = everything(store, claims)

        told = held(kdnsctl)["karpenter"]

        assert (told["verdict"], told["keys"]) == ("held", [self.KEY])
        assert "its end at 2026-12-23 12:00:00Z (expireAfter 720h0m0s)" in told["doesNotProtect"]
        assert "static" not in told["doesNotProtect"]
        assert store.get(NODES, NODE)["metadata"]["annotations"][self.KEY] == "true"
        assert self.KEY not in json.dumps(store.select(claims))  # it reads the node's, once that is registered
        assert set(released(kdnsctl)) == {"restored"}
        assert everything(store, claims) == before

    def test_a_node_that_is_not_registered_is_held_by_its_claim(self, kdnsctl: Kdnsctl, store: Store) -> None:
        claims = managers.karpenter(store, registered=False)
        before = everything(store, claims)

        assert held(kdnsctl)["karpenter"]["keys"] == [self.KEY, self.KEY]

        annotated = {one["metadata"]["name"]: one["metadata"].get("annotations") for one in store.select(claims)}
        assert annotated == {"default-x7k2p": {self.KEY: "true"}, "default-other": None}
        assert set(released(kdnsctl)) == {"restored"}
        assert everything(store, claims) == before

    @pytest.mark.parametrize(
        "way", [("release", NODE, *RELEASE), ("quarantine", NODE, *CONTAIN)], ids=lambda way: way[0]
    )
    def test_a_record_cannot_lead_to_another_nodes_claim(
        self, kdnsctl: Kdnsctl, store: Store, server: ApiServer, way: tuple[str, ...]
    ) -> None:
        claims = managers.karpenter(store, registered=False)
        held(kdnsctl)
        theirs = next(one for one in store.select(claims) if one["metadata"]["name"] == "default-other")
        theirs["metadata"]["annotations"] = {self.KEY: "true"}
        theirs = store.update(claims, theirs)

        def forge(node: Any) -> Any:
            record = json.loads(node["metadata"]["annotations"]["kdnsctl.io/quarantine"])
            step = next(one for one in record["steps"] if "nodeclaims" in one["args"]["path"])
            step["args"]["path"] = step["args"]["path"].replace("default-x7k2p", "default-other")
            step["uid"] = theirs["metadata"]["uid"]
            node["metadata"]["annotations"]["kdnsctl.io/quarantine"] = json.dumps(record)
            return node

        store.change(NODES, NODE, "", forge)
        before, already = everything(store, claims), patched(server)

        refused = kdnsctl(*way)

        assert refused.code == 5
        assert "is about NodeClaim default-other, and that is not this node's" in refused.err
        assert (everything(store, claims), patched(server)) == (before, already)

    @pytest.mark.parametrize("theirs", ["false", "4h"])
    def test_the_owners_value_comes_back(self, kdnsctl: Kdnsctl, store: Store, theirs: str) -> None:
        managers.karpenter(store)
        managers.mark(store, annotations={self.KEY: theirs})
        held(kdnsctl)
        assert store.get(NODES, NODE)["metadata"]["annotations"][self.KEY] == "true"
        released(kdnsctl)
        assert store.get(NODES, NODE)["metadata"]["annotations"][self.KEY] == theirs

    def test_what_it_does_all_the_same_is_told(self, kdnsctl: Kdnsctl, store: Store) -> None:
        managers.karpenter(store, expires="Never", static=True)
        risk = held(kdnsctl)["karpenter"]["doesNotProtect"]
        assert "the static NodePool default being scaled down" in risk
        assert "expireAfter" not in risk

    @pytest.mark.parametrize(
        ("state", "words"),
        [
            ({"conditions": [{"type": "DisruptionReason", "status": "True", "reason": "Drifted"}]}, "Drifted"),
            (
                {"annotations": {"karpenter.sh/nodeclaim-termination-timestamp": "2026-11-23T13:00:00Z"}},
                "its NodeClaim ends at 2026-11-23T13:00:00Z",
            ),
            ({"deleted": True}, "NodeClaim default-x7k2p is being deleted since"),
            ({"taint": "karpenter.sh/disrupted"}, "tainted the node to replace it"),
            ({"taint": "karpenter.sh/disruption"}, "tainted the node to replace it"),
        ],
    )
    def test_one_that_is_being_disrupted_is_captured_first(
        self, kdnsctl: Kdnsctl, store: Store, state: dict[str, Any], words: str
    ) -> None:
        taint, deleted = state.pop("taint", None), state.pop("deleted", False)
        claims = managers.karpenter(store, **state)
        if taint:
            managers.mark(store, taints=[{"key": taint, "effect": "NoSchedule"}])
        if deleted:
            store.delete(claims, "default-x7k2p")
        ran = kdnsctl("quarantine", NODE, *CONTAIN)
        node = document(ran)["nodes"][0]
        told = next(one for one in node["holds"] if one["manager"] == "karpenter")
        assert (told["verdict"], node["alreadyTerminating"] is None) == ("alreadyTerminating", False)
        assert words in told["why"]

    def test_an_old_one_is_told_how(self, kdnsctl: Kdnsctl, store: Store) -> None:
        managers.mark(store, labels={"karpenter.sh/provisioner-name": "default"})
        told = held(kdnsctl)["karpenter"]
        assert told["run"] == f"kubectl annotate node {NODE} karpenter.sh/do-not-consolidate=true"
        assert "do-not-consolidate" not in json.dumps(store.get(NODES, NODE))


class TestOnTheNode:
    """Gardener, medik8s, the system upgrade controller."""

    def test_gardener(self, kdnsctl: Kdnsctl, store: Store) -> None:
        key = "node.machine.sapcloud.io/preserve"
        managers.mark(store, labels={"worker.gardener.cloud/pool": "a"}, annotations={key: "when-failed"})
        before = everything(store)
        told = held(kdnsctl)["gardener"]
        assert (told["verdict"], told["keys"]) == ("held", [key])
        assert store.get(NODES, NODE)["metadata"]["annotations"][key] == "now"
        released(kdnsctl)
        assert everything(store) == before

    def test_gardener_that_terminates_it(self, kdnsctl: Kdnsctl, store: Store) -> None:
        node = managers.mark(store, labels={"worker.gardener.cloud/pool": "a"})
        node["status"]["conditions"].append({"type": "Terminating", "status": "True", "reason": "ScaleDown"})
        store.update(NODES, node, subresource="status")
        assert held(kdnsctl)["gardener"]["verdict"] == "alreadyTerminating"

    @pytest.mark.parametrize("theirs", [None, "", "true"])
    def test_medik8s(self, kdnsctl: Kdnsctl, store: Store, theirs: str | None) -> None:
        """An empty value is not heeded by it."""
        managers.health_check(store)
        key = "remediation.medik8s.io/exclude-from-remediation"
        if theirs is not None:
            managers.mark(store, labels={key: theirs})
        before = everything(store)
        assert held(kdnsctl)["node-healthcheck"]["verdict"] == "held"
        assert store.get(NODES, NODE)["metadata"]["labels"][key] == "true"
        released(kdnsctl)
        assert everything(store) == before

    def test_medik8s_at_work_and_elsewhere(self, kdnsctl: Kdnsctl, store: Store) -> None:
        kind = managers.health_check(store, unhealthy=(NODE,))
        told = held(kdnsctl)["node-healthcheck"]
        assert (told["verdict"], told["why"]) == (
            "alreadyTerminating",
            "NodeHealthCheck workers has begun to remediate the node",
        )
        released(kdnsctl)
        check = store.select(kind)[0]
        check["spec"]["selector"]["matchExpressions"][0]["operator"] = "DoesNotExist"
        store.update(kind, check)
        assert "node-healthcheck" not in held(kdnsctl)

    def test_the_system_upgrade_controller(self, kdnsctl: Kdnsctl, store: Store) -> None:
        kind = managers.plans(store)
        before = everything(store, kind)
        told = held(kdnsctl)["system-upgrade"]
        assert (told["verdict"], told["keys"]) == ("held", ["plan.upgrade.cattle.io/agents"])
        labels = store.get(NODES, NODE)["metadata"]["labels"]
        assert labels["plan.upgrade.cattle.io/agents"] == "disabled"
        assert "plan.upgrade.cattle.io/servers" not in labels
        released(kdnsctl)
        assert everything(store, kind) == before  # the hash of what was applied is back, or it would be applied again

    def test_the_system_upgrade_controller_at_work(self, kdnsctl: Kdnsctl, store: Store) -> None:
        managers.plans(store, applying=(NODE,))
        told = held(kdnsctl)["system-upgrade"]
        assert (told["verdict"], told["why"]) == ("alreadyTerminating", "plan agents is being applied to the node")

    def test_plans_that_may_not_be_read(self, kdnsctl: Kdnsctl, store: Store, server: ApiServer) -> None:
        managers.plans(store)
        manifests = json.loads(kdnsctl("rbac", "quarantine", "-o", "json").out)["items"]
        grant(server, manifests, "joe", without="list plans")
        told = held(kdnsctl, "--as", "joe")["system-upgrade"]
        assert told["run"] == f"kubectl label node {NODE} --overwrite plan.upgrade.cattle.io/PLAN=disabled"


class TestToldOnly:
    """Managers without a switch for one node: looked for, never touched."""

    def test_kured(self, kdnsctl: Kdnsctl, store: Store, server: ApiServer) -> None:
        managers.kured(store)
        told = held(kdnsctl)["kured"]
        lock = '{"nodeID":"manual"}'
        there = "kubectl -n kube-system annotate daemonset kured weave.works/kured-node-lock"
        assert (told["run"], told["undo"]) == (f"{there}='{lock}'", f"{there}-")
        assert patched(server) == {f"/api/v1/nodes/{NODE}"}

    def test_kured_with_several_owners_of_its_lock(self, kdnsctl: Kdnsctl, store: Store) -> None:
        managers.kured(store, "--concurrency=2", lock='{"maxOwners":2,"locks":[{"nodeID":"knode3","TTL":0}]}')
        told = held(kdnsctl)["kured"]
        assert "its lock is held for knode3: wait for that" in told["why"]
        lock = json.loads(told["run"].split("'")[1])
        assert lock == {"maxOwners": 2, "locks": [{"nodeID": "manual"}, {"nodeID": "manual"}]}

    @pytest.mark.parametrize(
        ("lock", "verdict"),
        [
            ('{"nodeID":"manual"}', "held"),
            (f'{{"nodeID":"{NODE}","metadata":{{"unschedulable":false}}}}', "alreadyTerminating"),
            ("no JSON", "cannotBeHeldFromHere"),
            ("[1]", "cannotBeHeldFromHere"),
        ],
    )
    def test_kureds_lock(self, kdnsctl: Kdnsctl, store: Store, lock: str, verdict: str) -> None:
        managers.kured(store, lock=lock)
        assert held(kdnsctl)["kured"]["verdict"] == verdict

    def test_draino_and_the_descheduler(self, kdnsctl: Kdnsctl, store: Store, server: ApiServer) -> None:
        for name in ("draino", "descheduler"):
            template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": name, "image": "i:1"}]}}
            spec = {"selector": {"matchLabels": {"app": name}}, "template": template, "replicas": 1}
            store.create(DEPLOYMENTS, {"metadata": {"name": name, "namespace": "kube-system"}, "spec": spec})
        told = held(kdnsctl)
        assert told["draino"]["run"] == "kubectl -n kube-system scale deployment draino --replicas=0"
        assert "its policy cannot be read" in told["descheduler"]["why"]
        assert "RemovePodsViolatingNodeTaints" in told["descheduler"]["doesNotProtect"]
        assert patched(server) == {f"/api/v1/nodes/{NODE}"}
        released(kdnsctl)

        policy = {"metadata": {"name": "descheduler-policy-configmap", "namespace": "kube-system"}}
        store.create(CONFIG_MAPS, {**policy, "data": {"policy.yaml": "profiles: [{plugins: {}}]"}})
        assert "descheduler" not in held(kdnsctl)

    def test_pools_of_providers(self, kdnsctl: Kdnsctl, store: Store) -> None:
        labels = {"eks.amazonaws.com/nodegroup": "workers", "topology.kubernetes.io/region": "eu-west-1"}
        managers.mark(store, labels=labels, providerID="aws:///eu-west-1a/i-0abc")
        told = held(kdnsctl)
        assert "--nodegroup-name workers --node-repair-config enabled=false" in told["eks"]["run"]
        assert told["ec2"]["run"] == (
            "aws autoscaling enter-standby --region eu-west-1 --instance-ids i-0abc --auto-scaling-group-name GROUP "
            "--should-decrement-desired-capacity"
        )

    def test_one_that_is_named_and_nowhere_to_be_seen_is_told(self, kdnsctl: Kdnsctl) -> None:
        told = held(kdnsctl, "--hold", "cluster-api")
        assert told["cluster-api"]["verdict"] == "cannotBeHeldFromHere"
        assert set(told) == {"cluster-autoscaler", "cluster-api"}


def test_the_printed_role_is_enough_for_all_managers(kdnsctl: Kdnsctl, store: Store, server: ApiServer) -> None:
    machines = managers.cluster_api(store)
    openshift, checks = managers.openshift(store)
    others = [managers.karpenter(store, registered=False), managers.health_check(store), managers.plans(store)]
    managers.machine_config(store)
    managers.kured(store)
    managers.mark(store, providerID="")  # no cluster has all of them
    kinds = (machines, openshift, checks, *others)
    before = everything(store, *kinds)
    manifests = json.loads(kdnsctl("rbac", "quarantine", "release", "status", "-o", "json").out)["items"]
    grant(server, manifests, "jane")
    server.policy.grant_user("jane", Rule(("get",), (), (), paths=("/apis",)))  # system:discovery, as everybody has it

    told = held(kdnsctl, "--as", "jane")

    assert {name for name, one in told.items() if one["verdict"] == "held"} == {
        "cluster-autoscaler", "karpenter", "cluster-api", "openshift-machine-api", "node-healthcheck", "system-upgrade",
    }  # fmt: skip
    assert not any("may not" in one["why"] or "cannot be read" in one["why"] for one in told.values())
    shown = document(kdnsctl("status", "--as", "jane", "-o", "json"))["nodes"][0]
    assert (shown["drift"], shown["notLookedAt"]) == ([], [])
    assert {one["manager"] for one in shown["holds"] if one["inForce"]} == {
        name for name, one in told.items() if one["verdict"] == "held"
    }
    back = kdnsctl("release", NODE, *RELEASE, "--as", "jane")
    assert back.code == 0, back.err
    assert everything(store, *kinds) == before


def test_status_tells_what_came_later_and_what_was_taken_away(kdnsctl: Kdnsctl, store: Store) -> None:
    managers.health_check(store)
    held(kdnsctl)
    managers.karpenter(store)
    key = "remediation.medik8s.io/exclude-from-remediation"
    store.change(NODES, NODE, "", lambda node: _without_label(node, key))

    shown = document(kdnsctl("status", "-o", "json"))["nodes"][0]

    force = {one["manager"]: one["inForce"] for one in shown["holds"]}
    assert force == {"cluster-autoscaler": True, "karpenter": False, "node-healthcheck": False}
    assert "not held: it came later" in kdnsctl("status").out
    assert held(kdnsctl)["karpenter"]["verdict"] == "held"  # run again: it goes on with what is missing
    assert store.get(NODES, NODE)["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"


def _annotated(found: dict[str, Any], key: str, value: str) -> dict[str, Any]:
    found["metadata"].setdefault("annotations", {})[key] = value
    return found


def _without_label(found: dict[str, Any], key: str) -> dict[str, Any]:
    del found["metadata"]["labels"][key]
    return found
