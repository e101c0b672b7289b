"""Steps, their journal and the way back, on the lab's API: what others wrote stays, what is ours goes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.changes import incidents, journal, runs
from kdnsctl.changes.executor import BEGUN, DONE, FAILED, Undone, take, take_all, to_undo, undo
from kdnsctl.changes.fields import node_path
from kdnsctl.changes.incidents import Actor
from kdnsctl.changes.journal import Journal
from kdnsctl.changes.lock import LockedError, lease_name, locked
from kdnsctl.changes.plan import NodePlan, Plan, rehearsed
from kdnsctl.changes.verbs import DriftError, Means
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.errors import ForbiddenError, ServerError
from kdnsctl.cluster.transport import Connection
from kdnsctl.lab.api.faults import Disturb, Fault, Respond
from kdnsctl.lab.api.server import ApiServer
from kdnsctl.lab.kinds import LEASES, NODES
from kdnsctl.lab.replies import Refused
from kdnsctl.lab.store import Store
from kdnsctl.model import KdnsctlError, RefusedError, Step, UsageError
from tests.unit.manual_clock import ManualClock

NODE = "knode1"
TAINT = {"key": "kdnsctl.io/quarantine", "value": "inc-1", "effect": "NoSchedule"}


def connection_to(server: ApiServer, directory: Path, scope: CancelScope, incident: str = "inc-1") -> Connection:
    config = directory / "kubeconfig"
    config.write_text(server.kubeconfig(), encoding="utf-8")
    environment = {"HOME": str(directory), "XDG_CACHE_HOME": str(directory)}
    return connect(ConnectOptions(kubeconfig=str(config), incident=incident, environment=environment), scope)


@pytest.fixture
def scope() -> Iterator[CancelScope]:
    with CancelScope(60) as scope:
        yield scope


@pytest.fixture
def connection(server: ApiServer, tmp_path: Path, scope: CancelScope) -> Iterator[Connection]:
    connection = connection_to(server, tmp_path, scope)
    yield connection
    connection.close()


@pytest.fixture
def means(connection: Connection, scope: CancelScope) -> Means:
    return Means(connection, scope)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "journal.jsonl") as log:
        yield log


def node_of(store: Store) -> dict[str, Any]:
    return store.get(NODES, NODE)


def uid_of(store: Store) -> str:
    return str(node_of(store)["metadata"]["uid"])


def steps_for(store: Store) -> list[Step]:
    path, uid = node_path(NODE), uid_of(store)
    return [
        Step("object.annotate", {"path": path, "key": "example.com/hold"}, uid, None, "true"),
        Step("object.label", {"path": path, "key": "example.com/held"}, uid, None, "yes"),
        Step("node.cordon", {"path": path}, uid, None, True),
        Step("node.taint", {"path": path, "key": TAINT["key"], "effect": TAINT["effect"]}, uid, None, TAINT),
    ]


def plain(node: dict[str, Any]) -> dict[str, Any]:
    """A node without what changes by itself."""
    metadata = {
        key: value for key, value in node["metadata"].items() if key not in ("resourceVersion", "managedFields")
    }
    return {**node, "metadata": metadata, "status": None}


def by_outsider(store: Store, change: Any) -> None:
    node = node_of(store)
    change(node)
    store.update(NODES, node)


def test_steps_are_taken_journaled_and_taken_back_exactly(
    server: ApiServer, store: Store, means: Means, log: Journal
) -> None:
    by_outsider(store, lambda node: node["spec"].update(taints=[{"key": "other", "effect": "NoSchedule"}]))
    before = node_of(store)

    effects = take_all(steps_for(store), log, means, "run-1")

    assert [effect.changed for effect in effects] == [True] * 4
    after = node_of(store)
    assert after["spec"]["unschedulable"] is True
    assert after["spec"]["taints"] == [{"key": "other", "effect": "NoSchedule"}, TAINT]
    assert after["metadata"]["annotations"]["example.com/hold"] == "true"
    assert after["metadata"]["labels"]["example.com/held"] == "yes"
    records = journal.read(log.path).records
    assert [record.kind for record in records] == [BEGUN, DONE] * 4
    patches = [entry for entry in server.journal.entries() if entry.method == "PATCH"]
    assert [record.body["auditId"] for record in records if record.kind == DONE] == [one.audit_id for one in patches]
    assert all("incident inc-1" in entry.user_agent for entry in patches)

    undone = undo(to_undo(records), log, means, "run-2")

    assert [one.outcome for one in undone] == [Undone.RESTORED] * 4
    assert undone[0].taken.step.verb == "node.taint"
    assert plain(node_of(store)) == plain(before)
    assert to_undo(journal.read(log.path).records) == []


def test_maps_and_lists_that_were_not_there_are_gone_again(store: Store, means: Means, log: Journal) -> None:
    def bare(node: dict[str, Any]) -> None:
        node["metadata"].pop("annotations", None)
        node["spec"].pop("taints", None)

    by_outsider(store, bare)

    take_all(steps_for(store), log, means, "run-1")
    undo(to_undo(journal.read(log.path).records), log, means, "run-2")

    assert "annotations" not in node_of(store)["metadata"]
    assert "taints" not in node_of(store)["spec"]


def test_what_somebody_else_changed_since_is_drift_and_stays(store: Store, means: Means, log: Journal) -> None:
    take_all(steps_for(store), log, means, "run-1")
    by_outsider(store, lambda node: node["metadata"]["annotations"].update({"example.com/hold": "mine"}))
    by_outsider(store, lambda node: node["spec"].pop("unschedulable"))

    outcomes = {
        one.taken.step.verb: one.outcome for one in undo(to_undo(journal.read(log.path).records), log, means, "run-2")
    }

    assert outcomes == {
        "node.taint": Undone.RESTORED,
        "node.cordon": Undone.ALREADY,
        "object.label": Undone.RESTORED,
        "object.annotate": Undone.DRIFT,
    }
    assert node_of(store)["metadata"]["annotations"]["example.com/hold"] == "mine"
    left = to_undo(journal.read(log.path).records)
    assert [one.step.verb for one in left] == ["object.annotate"]


def test_what_was_so_before_is_not_ours_and_is_not_taken_back(store: Store, means: Means, log: Journal) -> None:
    by_outsider(store, lambda node: node["spec"].update(unschedulable=True))

    effect = take(steps_for(store)[2], log, means, "run-1")

    assert not effect.changed
    assert to_undo(journal.read(log.path).records) == []


def test_a_node_that_was_replaced_under_its_name_is_left_alone(
    server: ApiServer, store: Store, means: Means, log: Journal
) -> None:
    step = Step("node.cordon", {"path": node_path(NODE)}, "another-uid", None, True)

    with pytest.raises(DriftError, match="another object of that name"):
        take(step, log, means, "run-1")

    assert "unschedulable" not in node_of(store)["spec"]
    assert [entry for entry in server.journal.entries() if entry.method == "PATCH"] == []
    assert to_undo(journal.read(log.path).records) == []


class TestAnswers:
    def test_a_failed_test_is_read_again_and_tried_again(
        self, server: ApiServer, store: Store, means: Means, log: Journal
    ) -> None:
        """The recorded reply of a test on the resourceVersion that failed; meanwhile somebody else wrote."""
        invalid = Refused(422, "Invalid", "the server rejected our request due to an error in our request", details={})
        server.faults.add(Fault(Respond(422, status=invalid.status()), method="PATCH"))
        gets = 0

        class Meddled:
            """Writes to the node between two readings of it, as a kubelet does."""

            def append(self, kind: str, body: Any) -> Any:
                return log.append(kind, body)

        original = means.connection.get

        def get(*args: Any, **more: Any) -> Any:
            nonlocal gets
            gets += 1
            if gets == 2:
                by_outsider(store, lambda node: node["metadata"]["labels"].update(tick="2"))
            return original(*args, **more)

        means.connection.get = get  # type: ignore[method-assign]
        effect = take(steps_for(store)[2], Meddled(), means, "run-1")

        assert effect.changed
        assert node_of(store)["spec"]["unschedulable"] is True

    def test_content_that_the_server_refuses_is_said_and_not_repeated(
        self, server: ApiServer, store: Store, means: Means, log: Journal
    ) -> None:
        bad = Step("object.label", {"path": node_path(NODE), "key": "example.com/held"}, uid_of(store), None, "no good")

        with pytest.raises(KdnsctlError, match="422"):
            take(bad, log, means, "run-1")

        assert len([entry for entry in server.journal.entries() if entry.method == "PATCH"]) == 1
        last = journal.read(log.path).records[-1]
        assert (last.kind, last.body["certain"]) == (FAILED, True)

    def test_an_answer_that_got_lost_counts_as_ours_when_it_was_done(
        self, server: ApiServer, store: Store, means: Means, log: Journal
    ) -> None:
        server.faults.add(Fault(Disturb(after_bytes=10), method="PATCH"))

        effect = take(steps_for(store)[2], log, means, "run-1")

        assert effect.changed
        assert [one.step.verb for one in to_undo(journal.read(log.path).records)] == ["node.cordon"]

    def test_a_step_whose_end_is_unknown_is_undone_if_it_was_taken(
        self, server: ApiServer, store: Store, means: Means, log: Journal
    ) -> None:
        server.faults.add(Fault(Respond(500, "boom"), method="PATCH"))
        with pytest.raises(ServerError):
            take(steps_for(store)[2], log, means, "run-1")
        by_outsider(store, lambda node: node["spec"].update(unschedulable=True))  # it was done after all

        taken = to_undo(journal.read(log.path).records)

        assert [(one.step.verb, one.certain) for one in taken] == [("node.cordon", False)]
        assert [one.outcome for one in undo(taken, log, means, "run-2")] == [Undone.RESTORED]


def test_what_came_later_tells_what_had_been_done(server: ApiServer, store: Store, means: Means, log: Journal) -> None:
    """A step and its way back, each with an end that is not known at first: nothing is done a third time."""
    cordon = steps_for(store)[2]
    back = Step(cordon.verb, cordon.args, cordon.uid, cordon.after, cordon.before)
    for step in (cordon, back):
        server.faults.add(Fault(Respond(500, "boom"), method="PATCH"))
        with pytest.raises(ServerError):
            take(step, log, means, "run-1")
        if step is cordon:
            take(step, log, means, "run-1")
            assert [one.certain for one in to_undo(journal.read(log.path).records)] == [True]
    # Whether it was taken back is not known: what there is to undo is the cordon, and no cordon is made anew for it.
    assert [(one.step.before, one.step.after) for one in to_undo(journal.read(log.path).records)] == [(None, True)]

    take(back, log, means, "run-2")

    assert to_undo(journal.read(log.path).records) == []


def test_a_step_may_not_lead_anywhere_else(means: Means, log: Journal) -> None:
    forged = Step("object.annotate", {"path": "/api/v1/namespaces/kube-system/secrets/x", "key": "k"}, "u", None, "v")

    with pytest.raises(KdnsctlError, match="which no step changes"):
        take(forged, log, means, "run-1")

    assert journal.read(log.path).records == ()


def test_a_server_dry_run_asks_for_every_step_and_changes_nothing(
    server: ApiServer, store: Store, means: Means
) -> None:
    before = node_of(store)
    bad = Step("object.label", {"path": node_path(NODE), "key": "example.com/held"}, uid_of(store), None, "no good")
    plan = Plan("quarantine", "lab", (NodePlan(NODE, (*steps_for(store), bad)),))

    answered = rehearsed(plan, means)

    assert set(answered.refused or {}) == {(NODE, 4)}
    assert node_of(store) == before
    patches = [entry for entry in server.journal.entries() if entry.method == "PATCH"]
    assert len(patches) == 5
    assert all("dryRun=All" in entry.path or "dryRun" in str(entry.query) for entry in patches)


class TestIncidents:
    def test_an_incident_belongs_to_one_cluster(
        self, connection: Connection, scope: CancelScope, tmp_path: Path
    ) -> None:
        uid = incidents.cluster_uid(connection, scope=scope)
        actor = Actor("jane@laptop", "1-ab")
        made = incidents.open_incident(tmp_path / "i", "inc-1", uid, "lab", actor)
        made.journal.close()
        again = incidents.open_incident(tmp_path / "i", "inc-1", uid, "lab", actor)
        again.journal.close()

        assert (made.fresh, again.fresh) == (True, False)
        assert (made.directory.stat().st_mode & 0o777, (tmp_path / "i").stat().st_mode & 0o777) == (0o700, 0o700)
        with pytest.raises(RefusedError, match="belongs to another cluster"):
            incidents.open_incident(tmp_path / "i", "inc-1", "other-uid", "other", actor)
        assert [one.id for one in incidents.summaries(tmp_path / "i")] == ["inc-1"]

    @pytest.mark.parametrize("name", ["..", ".", "a/b", "", "x" * 64, "a b", "-x"])
    def test_a_name_that_is_none_is_refused(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(UsageError):
            incidents.open_incident(tmp_path, name, "u", "lab", Actor("jane@laptop", "1-ab"))
        assert list(tmp_path.iterdir()) == []

    def test_no_place_to_write_means_no_change(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RefusedError, match="nothing was changed"):
            incidents.open_incident(tmp_path / "file", "inc-1", "u", "lab", Actor("jane@laptop", "1-ab"))


class TestLocks:
    JANE = Actor("jane@laptop", "1-ab")
    JOE = Actor("joe@desk", "2-cd")

    def lease(self, store: Store) -> dict[str, Any]:
        return store.get(LEASES, lease_name(NODE), "kube-system")

    def test_a_second_operator_is_told_who_holds_it(
        self, connection: Connection, scope: CancelScope, store: Store
    ) -> None:
        with (
            locked(connection, [NODE], self.JANE, scope=scope),
            pytest.raises(LockedError, match="knode1 is being worked on by jane@laptop/1-ab since") as refused,
            locked(connection, [NODE], self.JOE, scope=scope),
        ):
            pass
        assert refused.value.exit_code == 5
        assert store.select(LEASES) == []  # given back

    def test_one_that_has_expired_is_taken_over(self, connection: Connection, scope: CancelScope, store: Store) -> None:
        old = (datetime.now(UTC) - timedelta(seconds=61)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": str(self.JANE), "leaseDurationSeconds": 60, "acquireTime": old, "renewTime": old}
        store.create(LEASES, {"metadata": {"name": lease_name(NODE), "namespace": "kube-system"}, "spec": spec})

        with locked(connection, [NODE], self.JOE, scope=scope):
            held = self.lease(store)["spec"]

        assert (held["holderIdentity"], held["leaseTransitions"]) == (str(self.JOE), 1)

    def test_only_what_a_run_left_that_is_over_for_sure_is_taken_over(
        self, connection: Connection, scope: CancelScope, store: Store, tmp_path: Path
    ) -> None:
        old, new = Actor("jane@laptop", "1-abcdef"), Actor("jane@laptop", "2-abcdef")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": str(old), "leaseDurationSeconds": 60, "acquireTime": now, "renewTime": now}
        store.create(LEASES, {"metadata": {"name": lease_name(NODE), "namespace": "kube-system"}, "spec": spec})

        def is_over(run: str) -> bool:
            return runs.is_over(tmp_path / "runs", run)

        with (  # nothing is known of it here: it may go on on another machine with the same name
            pytest.raises(LockedError, match="jane@laptop/1-abcdef"),
            locked(connection, [NODE], new, scope=scope, is_over=is_over),
        ):
            pass
        with (
            runs.running(tmp_path / "runs", old),
            pytest.raises(LockedError, match="jane@laptop/1-abcdef"),
            locked(connection, [NODE], new, scope=scope, is_over=is_over),
        ):
            pass
        with locked(connection, [NODE], new, scope=scope, is_over=is_over) as held:
            assert self.lease(store)["spec"]["holderIdentity"] == str(new)
        assert (held.left, store.select(LEASES)) == ([], [])
        assert not runs.is_over(tmp_path / "runs", "../runs/1-abcdef")

    def test_a_lock_that_became_anothers_ends_the_work(
        self, connection: Connection, scope: CancelScope, store: Store
    ) -> None:
        turn = threading.Event()

        def wait(stop: threading.Event, _: float) -> bool:
            turn.wait(30)
            turn.clear()
            return stop.is_set()

        with locked(connection, [NODE], self.JANE, scope=scope, wait=wait) as held:
            lease = self.lease(store)
            lease["spec"]["holderIdentity"] = str(self.JOE)
            store.update(LEASES, lease)
            turn.set()
            assert held.scope.cancelled.wait(30)
            assert held.scope.reason is not None
            assert "joe@desk/2-cd" in held.scope.reason.message
        assert self.lease(store)["spec"]["holderIdentity"] == str(self.JOE)  # another's is not given back

    def test_it_is_renewed(self, connection: Connection, scope: CancelScope, store: Store) -> None:
        turn, waiting = threading.Event(), threading.Semaphore(0)

        def wait(stop: threading.Event, _: float) -> bool:
            waiting.release()
            turn.wait(30)
            turn.clear()
            return stop.is_set()

        with locked(connection, [NODE], self.JANE, scope=scope, wait=wait):
            assert waiting.acquire(timeout=30)
            first = self.lease(store)["spec"]["renewTime"]
            turn.set()
            assert waiting.acquire(timeout=30)  # the renewal is over when it waits again
            assert self.lease(store)["spec"]["renewTime"] > first
            turn.set()

    def test_a_lock_that_cannot_be_renewed_as_long_as_it_lasts_ends_the_work(
        self, server: ApiServer, connection: Connection
    ) -> None:
        clock, turn, waiting = ManualClock(), threading.Event(), threading.Semaphore(0)

        def wait(stop: threading.Event, _: float) -> bool:
            waiting.release()
            turn.wait(30)
            turn.clear()
            return stop.is_set()

        with (
            CancelScope(clock=clock) as scope,
            locked(connection, [NODE], self.JANE, scope=scope, wait=wait) as held,
        ):
            assert waiting.acquire(timeout=30)
            clock.advance(20)
            turn.set()
            assert waiting.acquire(timeout=30)  # renewed when 20 s had passed
            clock.advance(59)
            assert not held.scope.cancelled.is_set()
            refusal = Refused(403, "Forbidden", "leases is forbidden: no more", details={}).status()
            server.faults.add(Fault(Respond(403, status=refusal), path="/leases", times=None))
            turn.set()
            assert waiting.acquire(timeout=30)  # not renewed
            clock.advance(1)
            assert [one.code for one in (held.scope.reason, scope.reason) if one] == ["lockLost"]
            turn.set()
        assert held.left == [NODE]
        assert clock.pending == 0

    def test_without_leases_the_record_on_the_node_is_the_lock(
        self, server: ApiServer, connection: Connection, scope: CancelScope
    ) -> None:
        refusal = Refused(403, "Forbidden", "leases is forbidden: you may not", details={}).status()
        server.faults.add(Fault(Respond(403, status=refusal), path="/leases", times=None))
        told: list[str] = []

        with locked(connection, [NODE], self.JANE, scope=scope, note=told.append) as held:
            assert held.without == [NODE]

        assert len(told) == 1
        assert "the record on the node is the lock instead" in told[0]
        assert "not another run in the same one; see that nobody else works on it" in told[0]


def test_who_may_not_patch_changes_nothing(server: ApiServer, store: Store, means: Means, log: Journal) -> None:
    refusal = Refused(403, "Forbidden", "nodes is forbidden: you may not", details={}).status()
    server.faults.add(Fault(Respond(403, status=refusal), method="PATCH", times=None))
    before = node_of(store)

    with pytest.raises(ForbiddenError):
        take_all(steps_for(store), log, means, "run-1")

    assert node_of(store) == before
    assert [record.kind for record in journal.read(log.path).records] == [BEGUN, FAILED]
