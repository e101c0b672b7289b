"""quarantine, status, release and incident as typed, on the lab's API: what is refused, goes on, and is taken back.

Nothing runs on these nodes, so they cannot be captured or judged; tests/lab/test_quarantine.py does that in the kernel.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kdnsctl.changes import journal
from kdnsctl.changes.fields import RECORD
from kdnsctl.changes.lock import lease_name
from kdnsctl.lab.api.access import Rule
from kdnsctl.lab.api.faults import Disturb, Fault, Respond
from kdnsctl.lab.api.server import ApiServer
from kdnsctl.lab.kinds import EVENTS, LEASES, NODES
from kdnsctl.lab.replies import Refused
from kdnsctl.lab.store import Store
from tests.lab.conftest import ROOT, Kdnsctl, Ran

NODE = "knode1"
HOLD = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
CONTAIN = ("--yes", "--no-collect", "--no-drain")
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(autouse=True)
def speaking_to_it(server: ApiServer, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    config = tmp_path / "kubeconfig"
    config.write_text(server.kubeconfig(), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def node(store: Store) -> Callable[[], dict[str, Any]]:
    """knode1 without what changes by itself."""

    def get(name: str = NODE) -> dict[str, Any]:
        found = store.get(NODES, name)
        metadata = {key: value for key, value in found["metadata"].items() if key != "resourceVersion"}
        return {"metadata": metadata, "spec": found["spec"]}

    return get


def changed(store: Store, change: Change, name: str = NODE) -> None:
    found = store.get(NODES, name)
    change(found)
    store.update(NODES, found)


def document(ran: Ran) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(ran.out)
    schema = json.loads((ROOT / "docs/schemas" / f"{data['kind']}.schema.json").read_text("utf-8"))
    jsonschema.validate(data, schema)
    return data


def writes(server: ApiServer) -> list[str]:
    reviews = "selfsubject"
    return [
        f"{one.method} {one.path}"
        for one in server.journal.entries()
        if one.method != "GET" and reviews not in one.path
    ]


def test_there_and_back_is_the_same_node(kdnsctl: Kdnsctl, store: Store, node: Callable[[], Any]) -> None:
    before = node()

    ran = kdnsctl("quarantine", NODE, *CONTAIN, "--reason", "stale entries", "-o", "json")

    assert ran.code == 0, ran.err
    report = document(ran)
    assert [(one["name"], one["phase"], one["failed"]) for one in report["nodes"]] == [(NODE, "contained", None)]
    there = node()
    assert there["spec"]["unschedulable"] is True
    assert there["metadata"]["annotations"][HOLD] == "true"
    taints = [one for one in there["spec"]["taints"] if one["key"] == RECORD]
    assert taints == [{"key": RECORD, "value": report["incident"], "effect": "NoSchedule"}]
    record = json.loads(there["metadata"]["annotations"][RECORD])
    assert (record["incident"], record["reason"], record["phase"]) == (report["incident"], "stale entries", "contained")
    assert store.select(LEASES) == []

    shown = document(kdnsctl("status", "-o", "json"))["nodes"]
    assert [(one["name"], one["drift"], len(one["inForce"])) for one in shown] == [(NODE, [], 3)]

    back = kdnsctl("release", "--yes", "--unchecked", "-o", "json")

    assert back.code == 0, back.err
    assert {step["outcome"] for step in document(back)["nodes"][0]["steps"]} == {"restored"}
    assert node() == before
    assert sorted(one["reason"] for one in store.select(EVENTS)) == ["Quarantined", "Released"]
    assert document(kdnsctl("status", "-o", "json"))["nodes"] == []
    assert kdnsctl("release", "--yes").code == 0
    listed = json.loads(kdnsctl("incident", "list", "-o", "json").out)["items"]
    assert [(one["incident"], one["stepsToUndo"]) for one in listed] == [(report["incident"], 0)]


def test_cleanup_names_a_node_in_quarantine_and_how_to_end_it_on_this_cluster(
    kdnsctl: Kdnsctl, node: Callable[[], Any], tmp_path: Path
) -> None:
    assert kdnsctl("quarantine", NODE, *CONTAIN).code == 0
    there = node()
    said = ("--kubeconfig", str(tmp_path / "kubeconfig"))
    ran = kdnsctl("cleanup", "--yes", *said)
    assert ran.code == 0, ran.err
    assert ran.lines[0] == "No pod and no lock is left."
    assert ran.lines[1].startswith(f"{NODE} is in quarantine since ")
    assert ran.lines[-1] == f"  kdnsctl {' '.join(said)} release {NODE}"
    report = document(kdnsctl("cleanup", "--yes", "-o", "json", *said))
    assert [(one["node"], one["kind"], one["overdue"]) for one in report["onNodes"]] == [(NODE, "quarantine", False)]
    assert report["nextCommands"] == [ran.lines[-1].strip()]
    assert document(kdnsctl("cleanup", "--yes", "--run", "some-run", "-o", "json"))["onNodes"] == []
    assert node() == there  # which is not for cleanup to end


def test_what_the_owner_had_set_stays(kdnsctl: Kdnsctl, store: Store, node: Callable[[], Any]) -> None:
    def own(found: dict[str, Any]) -> None:
        found["spec"]["unschedulable"] = True
        found["metadata"].setdefault("annotations", {})[HOLD] = "true"
        found["spec"]["taints"] = [{"key": "mine", "effect": "NoSchedule"}]

    changed(store, own)
    before = node()

    assert kdnsctl("quarantine", NODE, *CONTAIN).code == 0
    assert kdnsctl("release", NODE, "--yes", "--unchecked").code == 0

    assert node() == before


def test_drift_is_shown_reported_and_left(kdnsctl: Kdnsctl, store: Store, node: Callable[[], Any]) -> None:
    assert kdnsctl("quarantine", NODE, *CONTAIN).code == 0
    changed(store, lambda found: found["metadata"]["annotations"].update({HOLD: "false"}))
    changed(store, lambda found: found["spec"].pop("unschedulable"))

    shown = document(kdnsctl("status", "-o", "json"))["nodes"][0]
    assert [one["found"] for one in shown["drift"]] == ['"false"', "absent"]
    back = kdnsctl("release", NODE, "--yes", "--unchecked", "-o", "json")

    assert back.code == 4
    outcomes = [step["outcome"] for step in document(back)["nodes"][0]["steps"]]
    assert outcomes == ["restored", "already", "drift", "restored"]
    assert node()["metadata"]["annotations"][HOLD] == "false"
    assert RECORD not in node()["metadata"]["annotations"]


def test_incident_undo_takes_it_back_by_the_journal(kdnsctl: Kdnsctl, node: Callable[[], Any]) -> None:
    before = node()
    assert kdnsctl("quarantine", NODE, *CONTAIN, "--incident", "inc-7").code == 0

    planned = document(kdnsctl("incident", "undo", "inc-7", "--dry-run", "server", "-o", "json"))
    assert len(planned["nodes"][0]["steps"]) == 4
    undone = kdnsctl("incident", "undo", "inc-7", "--yes", "-o", "json")

    assert undone.code == 0, undone.err
    assert [step["outcome"] for step in document(undone)["steps"]] == ["restored"] * 4
    assert node() == before
    assert "nothing to take back" in kdnsctl("incident", "undo", "inc-7", "--yes").out
    told = kdnsctl("incident", "report", "inc-7").out
    assert "Nothing is left that can be taken back." in told
    shown = document(kdnsctl("incident", "show", "inc-7", "-o", "json"))
    assert all(one["auditId"] for one in shown["records"] if one["kind"] == "stepDone")


def grant(server: ApiServer, manifests: list[dict[str, Any]], user: str, without: str = "") -> None:
    """Allow a user what printed roles allow, as RBAC would; but for the verb and resource `without`."""
    for role in manifests:
        namespace = role["metadata"].get("namespace")
        for rule in role["rules"]:
            verbs = [verb for verb in rule["verbs"] if f"{verb} {rule['resources'][0]}" != without]
            names = tuple(rule.get("resourceNames", ()))
            places = (namespace,) if namespace else ()
            server.policy.grant_user(
                user, Rule(tuple(verbs), tuple(rule["apiGroups"]), tuple(rule["resources"]), names, places)
            )


def test_the_printed_role_is_enough_and_without_it_nothing_is_changed(
    kdnsctl: Kdnsctl, server: ApiServer, node: Callable[[], Any]
) -> None:
    before = node()
    manifests = json.loads(kdnsctl("rbac", "quarantine", "release", "status", "-o", "json").out)["items"]
    grant(server, manifests, "jane")
    grant(server, manifests, "joe", without="patch nodes")

    refused = kdnsctl("quarantine", NODE, "--yes", "--as", "joe")
    assert refused.code == 5
    assert "not allowed: patch nodes" in refused.err
    assert (writes(server), node()) == ([], before)

    ran = kdnsctl("quarantine", NODE, *CONTAIN, "--as", "jane")
    assert ran.code == 0, ran.err
    assert f"\n{NODE} " in kdnsctl("status", "--as", "jane").out
    back = kdnsctl("release", NODE, "--yes", "--unchecked", "--as", "jane")
    assert back.code == 0, back.err
    assert node() == before


class TestRefusals:
    """Exit code 5, and not one write."""

    def refused(self, ran: Ran, server: ApiServer, words: str) -> None:
        assert ran.code == 5
        assert words in ran.err
        assert writes(server) == []

    def test_nobody_to_ask(self, kdnsctl: Kdnsctl, server: ApiServer) -> None:
        self.refused(kdnsctl("quarantine", NODE, "--no-collect", "--no-input"), server, "nothing was changed")

    def test_too_many(self, kdnsctl: Kdnsctl, server: ApiServer) -> None:
        ran = kdnsctl("quarantine", NODE, "knode2", *CONTAIN)
        self.refused(ran, server, "2 of 3 nodes affected: this is a cluster fault; collect, then flush")

    def test_those_in_quarantine_already_count(self, kdnsctl: Kdnsctl, server: ApiServer) -> None:
        assert kdnsctl("quarantine", NODE, *CONTAIN).code == 0
        already = writes(server)
        ran = kdnsctl("quarantine", "knode2", *CONTAIN)
        assert (ran.code, writes(server)) == (5, already)
        assert "1 of them in quarantine already" in ran.err
        assert kdnsctl("quarantine", "knode2", *CONTAIN, "--max-nodes", "2").code == 0

    def test_the_control_plane(self, kdnsctl: Kdnsctl, server: ApiServer, store: Store) -> None:
        changed(store, lambda one: one["metadata"]["labels"].update({"node-role.kubernetes.io/control-plane": ""}))
        self.refused(kdnsctl("quarantine", NODE, *CONTAIN), server, "part of the control plane")

    def test_no_place_for_the_journal(
        self, kdnsctl: Kdnsctl, server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "full").write_text("")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "full"))
        before = [one for one in writes(server) if "leases" not in one]
        ran = kdnsctl("quarantine", NODE, *CONTAIN)
        assert ran.code == 5
        assert [one for one in writes(server) if "leases" not in one] == before == []

    def test_the_taint_without_a_record_is_somebody_elses(
        self, kdnsctl: Kdnsctl, server: ApiServer, store: Store
    ) -> None:
        taint = {"key": RECORD, "value": "x", "effect": "NoSchedule"}
        changed(store, lambda one: one["spec"].update(taints=[taint]))
        self.refused(kdnsctl("quarantine", NODE, *CONTAIN), server, "no record of a quarantine")

    def test_another_incident(self, kdnsctl: Kdnsctl, server: ApiServer) -> None:
        assert kdnsctl("quarantine", NODE, *CONTAIN, "--incident", "inc-1").code == 0
        already = writes(server)
        ran = kdnsctl("quarantine", NODE, *CONTAIN, "--incident", "inc-2")
        assert (ran.code, writes(server)) == (5, already)
        assert "in incident inc-1" in ran.err

    def test_a_node_that_is_not_proven_healthy_is_not_released(self, kdnsctl: Kdnsctl, server: ApiServer) -> None:
        assert kdnsctl("quarantine", NODE, *CONTAIN).code == 0
        already = writes(server)
        ran = kdnsctl("release", NODE, "--yes")
        assert (ran.code, [one for one in writes(server) if "exec" not in one]) == (5, already)
        assert "not proven healthy" in ran.err

    @pytest.mark.parametrize(
        "spoil",
        [
            {"path": "/api/v1/nodes/knode2"},
            {"path": f"/api/v1/nodes/{NODE}", "key": "kubernetes.io/hostname"},
        ],
    )
    def test_a_forged_record_is_not_acted_on(
        self, kdnsctl: Kdnsctl, server: ApiServer, store: Store, spoil: dict[str, str]
    ) -> None:
        assert kdnsctl("quarantine", NODE, *CONTAIN).code == 0

        def forge(found: dict[str, Any]) -> None:
            record = json.loads(found["metadata"]["annotations"][RECORD])
            record["steps"][0]["args"].update(spoil)
            found["metadata"]["annotations"][RECORD] = json.dumps(record)

        changed(store, forge)
        already = writes(server)
        ran = kdnsctl("release", NODE, "--yes", "--unchecked")
        assert (ran.code, writes(server)) == (1, already)
        assert "is no record of kdnsctl" in ran.err

    def test_somebody_else_works_on_it(self, kdnsctl: Kdnsctl, server: ApiServer, store: Store) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": "joe@desk/1-a", "leaseDurationSeconds": 60, "acquireTime": now, "renewTime": now}
        store.create(LEASES, {"metadata": {"name": lease_name(NODE), "namespace": "kube-system"}, "spec": spec})
        self.refused(kdnsctl("quarantine", NODE, *CONTAIN), server, "knode1 is being worked on by joe@desk/1-a")


def test_a_failed_cordon_stops_the_node_and_a_rerun_goes_on(
    kdnsctl: Kdnsctl, server: ApiServer, node: Callable[[], Any]
) -> None:
    before = node()
    refusal = Refused(403, "Forbidden", "an admission rule says no", details={}).status()
    server.faults.add(Fault(Respond(403, status=refusal), method="PATCH", path=NODE, after=2))

    ran = kdnsctl("quarantine", NODE, *CONTAIN, "-o", "json")

    assert ran.code == 1
    failed = document(ran)["nodes"][0]
    assert (failed["phase"], failed["failed"]["code"]) == ("begun", "forbidden")
    assert "unschedulable" not in node()["spec"]
    assert not [one for one in node()["spec"].get("taints", []) if one["key"] == RECORD]  # it stopped there

    again = kdnsctl("quarantine", NODE, *CONTAIN, "-o", "json")

    assert again.code == 0, again.err
    assert document(again)["nodes"][0]["phase"] == "contained"
    assert kdnsctl("release", NODE, "--yes", "--unchecked").code == 0
    assert node() == before


def cordon(found: dict[str, Any]) -> None:
    found["spec"]["unschedulable"] = True


@pytest.mark.parametrize(
    "way", [("release", NODE, "--unchecked"), ("incident", "undo", "inc-1")], ids=["release", "undo"]
)
def test_who_cordons_after_the_record_and_before_us_keeps_the_cordon(
    kdnsctl: Kdnsctl, server: ApiServer, store: Store, node: Callable[[], Any], way: tuple[str, ...]
) -> None:
    """Whether the quarantine has gone on meanwhile or not."""
    before = node()
    refusal = Refused(403, "Forbidden", "an admission rule says no", details={}).status()
    server.faults.add(Fault(Respond(403, status=refusal), method="PATCH", path=NODE, after=2))
    assert kdnsctl("quarantine", NODE, *CONTAIN, "--incident", "inc-1").code == 1
    changed(store, cordon)
    if way[0] == "release":
        assert kdnsctl("quarantine", NODE, *CONTAIN, "--incident", "inc-1").code == 0
        steps = json.loads(node()["metadata"]["annotations"][RECORD])["steps"]
        assert [step["verb"] for step in steps] == ["object.annotate", "node.taint"]

    back = kdnsctl(*way, "--yes")

    assert back.code == 0, back.err
    before["spec"]["unschedulable"] = True
    assert node() == before


def test_who_cordons_after_a_release_that_broke_off_keeps_the_cordon(
    kdnsctl: Kdnsctl, server: ApiServer, store: Store, node: Callable[[], Any]
) -> None:
    before = node()
    assert kdnsctl("quarantine", NODE, *CONTAIN).code == 0
    refusal = Refused(403, "Forbidden", "an admission rule says no", details={}).status()
    server.faults.add(Fault(Respond(403, status=refusal), method="PATCH", path=NODE, after=2))  # taint, cordon, hold
    assert kdnsctl("release", NODE, "--yes", "--unchecked").code == 1
    assert "unschedulable" not in node()["spec"]
    changed(store, cordon)

    back = kdnsctl("release", NODE, "--yes", "--unchecked", "-o", "json")

    assert back.code == 4
    steps = document(back)["nodes"][0]["steps"]
    assert [step["outcome"] for step in steps] == ["already", "drift", "restored", "restored"]
    assert "which somebody else has set" in steps[1]["reason"]["message"]
    before["spec"]["unschedulable"] = True
    assert node() == before


@pytest.mark.parametrize("fault", [Respond(500, "boom"), Disturb(after_bytes=10), Respond(409, "no")], ids=str)
@pytest.mark.parametrize("place", range(5))
def test_wherever_it_breaks_off_it_goes_on_or_back_exactly(
    kdnsctl: Kdnsctl, server: ApiServer, node: Callable[[], Any], place: int, fault: Respond | Disturb
) -> None:
    """Record, hold, cordon, taint, record again: each is refused, or done and its answer lost."""
    before = node()
    server.faults.add(Fault(fault, method="PATCH", after=place))
    kdnsctl("quarantine", NODE, *CONTAIN, "--incident", "inc-1")

    again = kdnsctl("quarantine", NODE, *CONTAIN, "--incident", "inc-1", "-o", "json")
    assert again.code == 0, again.err
    assert document(again)["nodes"][0]["phase"] == "contained"
    server.faults.add(Fault(fault, method="PATCH", after=place % 4))
    kdnsctl("release", NODE, "--yes", "--unchecked")
    back = kdnsctl("release", NODE, "--yes", "--unchecked")

    assert back.code == 0, back.err
    assert node() == before
    assert "Nothing is left that can be taken back." in kdnsctl("incident", "report", "inc-1").out


def test_nothing_is_drained_without_proof(kdnsctl: Kdnsctl, server: ApiServer) -> None:
    ran = kdnsctl("quarantine", NODE, "--yes", "--via", "exec", "-o", "json")

    assert ran.code == 4
    one = document(ran)["nodes"][0]
    assert (one["verdict"], one["drained"], one["phase"]) == ("unknown", False, "contained")
    assert "does not prove it affected" in one["notDrained"]
    assert not any("eviction" in write for write in writes(server))


def test_a_node_that_goes_away_is_captured_first(kdnsctl: Kdnsctl, store: Store, tmp_path: Path) -> None:
    taint = {"key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule"}
    changed(store, lambda one: one["spec"].update(taints=[taint]))

    ran = kdnsctl("quarantine", NODE, "--yes", "--no-drain", "--via", "exec", "--incident", "inc-9", "-o", "json")

    assert document(ran)["nodes"][0]["alreadyTerminating"] == "cluster-autoscaler is removing it"
    records = journal.read(tmp_path / "state/kdnsctl/incidents/inc-9/journal.jsonl").records
    kinds = [record.kind for record in records]
    assert kinds.index("captured") < kinds.index("stepBegun")


def test_names_and_reports_come_from_standard_input(
    kdnsctl: Kdnsctl, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    ran = kdnsctl("quarantine", "-", "--yes")
    assert (ran.code, writes(server)) == (0, [])
    found = [{"name": NODE, "verdict": "affected"}, {"name": "knode2", "verdict": "suspect"}]
    report = json.dumps({"apiVersion": "kdnsctl.io/v1", "kind": "FindReport", "nodes": found}).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(report)))
    plan = document(kdnsctl("quarantine", "-", "--dry-run", "client", "-o", "json"))
    assert [one["name"] for one in plan["nodes"]] == [NODE]
    assert writes(server) == []
