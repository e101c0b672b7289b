"""What a drain of ours does otherwise than kubectl's, on purpose."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.journal import Journal, read
from kdnsctl.lab.api.faults import Disturb, Fault, internal_error, overloaded
from kdnsctl.lab.kinds import NAMESPACES, NODES, PODS, STATEFUL_SETS
from kdnsctl.quarantine.draining import NodeResult, PodResult, journaled, rehearse
from kdnsctl.quarantine.drainreading import read_plan
from kdnsctl.quarantine.evicting import Ending, Send
from kdnsctl.quarantine.podfilters import DrainOptions
from tests.lab.api.fake_kubelet import report_ready, run_pods
from tests.lab.drain.cluster import NODE, Lab, Notes, lab, utc_now, working
from tests.unit.manual_clock import ManualClock


class Reacting(Notes):
    """Does something once, when the operator is told something with these words."""

    def __init__(self, words: str, act: Callable[[], object]) -> None:
        super().__init__()
        self._words, self._act = words, act
        self._lock = threading.Lock()
        self._done = False

    def noted(self, message: str) -> None:
        super().noted(message)
        with self._lock:
            due = self._words in message and not self._done
            self._done = self._done or due
        if due:
            self._act()


def pods_of(results: list[NodeResult]) -> dict[str, PodResult]:
    return {pod.pod.metadata.name: pod for node in results for pod in node.pods}


def evictions(made: Lab) -> list[Any]:
    entries = made.server.journal.entries()
    return [entry.body for entry in entries if entry.path.endswith("/eviction") and entry.body is not None]


def frozen() -> CancelScope:
    """A scope whose time stands still: what only waits for time never ends in it."""
    return CancelScope(clock=ManualClock())


def test_a_pod_of_the_same_name_elsewhere_is_left_alone(tmp_path: Path) -> None:
    """kubectl evicts it (kubernetes#138229): it asks again by the name only."""
    with lab(tmp_path) as made:
        made.deploy("store", 1, STATEFUL_SETS)
        made.protect("store", "store", minAvailable=1)

        def outsider_moves_it() -> None:
            changes = made.store.subscribe([PODS])
            made.store.delete(PODS, "store-0", "default")
            while not any(is_new(change.obj) for change in changes.wait(30)):
                pass
            changes.close()

        def is_new(pod: Any) -> bool:
            elsewhere = pod["spec"].get("nodeName") not in (None, NODE)
            return pod["metadata"]["name"] == "store-0" and elsewhere

        with working(made):
            notes = Reacting("waits: The disruption budget store", outsider_moves_it)
            results = made.drain(DrainOptions(), notes=notes)
        assert pods_of(results)["store-0"].ending is Ending.MOVED
        now = made.store.get(PODS, "store-0", "default")
        assert "deletionTimestamp" not in now["metadata"]
        assert now["spec"]["nodeName"] != NODE


def test_every_eviction_names_the_pods_uid(tmp_path: Path) -> None:
    with lab(tmp_path) as made:
        before = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in made.deploy("web", 3)}
        with working(made):
            made.drain(DrainOptions())
        sent = {body["metadata"]["name"]: body["deleteOptions"]["preconditions"]["uid"] for body in evictions(made)}
        assert sent == before


def test_a_budget_that_frees_is_noticed_without_any_pause(tmp_path: Path) -> None:
    with lab(tmp_path) as made:
        made.deploy("web", 3)
        made.protect("web", "web", maxUnavailable=1)
        with working(made), frozen() as scope:
            [result] = made.drain(DrainOptions(), scope=scope)
        assert result.drained
        assert len(result.pods) == 3


def test_ctrl_c_ends_a_wait_at_once_and_says_what_is_left(tmp_path: Path) -> None:
    with lab(tmp_path) as made:
        made.deploy("web", 2)
        made.protect("web", "web", minAvailable=2)
        with working(made), frozen() as scope:
            notes = Reacting("waits: The disruption budget web needs 2", scope.cancel)
            [result] = made.drain(DrainOptions(), scope=scope, notes=notes)
        assert not result.drained
        assert {pod.reason.code for pod in result.pods if pod.reason} == {"cancelled"}
        assert all("deletionTimestamp" not in pod["metadata"] for pod in made.store.select(PODS, "default"))


def test_two_budgets_fail_one_pod_at_once_and_no_other(tmp_path: Path) -> None:
    with lab(tmp_path) as made:
        made.deploy("web", 1)
        made.deploy("other", 1)
        made.protect("one", "web", minAvailable=0)
        made.protect("two", "web", minAvailable=0)
        with working(made), frozen() as scope:
            [result] = made.drain(DrainOptions(), scope=scope)
        failed = [pod for pod in result.pods if pod.reason]
        assert [pod.pod.metadata.labels["app"] for pod in failed] == ["web"]
        assert failed[0].reason is not None
        assert failed[0].reason.code == "twoBudgets"
        assert "default/one, default/two" in failed[0].reason.message
        assert len(evictions(made)) == 2


@pytest.mark.parametrize("retry_after", [1, None])
def test_overload_is_waited_for_and_not_taken_for_a_budget(tmp_path: Path, retry_after: int | None) -> None:
    with lab(tmp_path) as made:
        made.deploy("web", 1)
        made.server.faults.add(Fault(overloaded(retry_after), method="POST", path="/eviction", times=3))
        notes = Notes()
        with working(made):
            [result] = made.drain(DrainOptions(), notes=notes)
        assert result.drained
        assert sum("trying again" in text for text in notes.texts) == 3
        assert not any("waits" in text for text in notes.texts)


def test_an_error_makes_no_pod_gone(tmp_path: Path) -> None:
    with lab(tmp_path) as made:
        made.deploy("web", 1)
        made.server.faults.add(Fault(internal_error(), method="GET", path=r"/pods/web-[^/]*$", times=None))
        with working(made):
            [result] = made.drain(DrainOptions())
        assert [pod.reason.code for pod in result.pods if pod.reason] == ["serverError"]
        assert evictions(made) == []


def test_a_watch_that_breaks_while_waiting_makes_no_pod_gone(tmp_path: Path) -> None:
    with lab(tmp_path) as made:
        made.bare("alone", finalizers=["example.com/hold"])
        made.server.faults.add(Fault(Disturb(after_bytes=1), method="GET", path="pods.*watch=true", times=2))

        def let_go(pod: Any) -> Any:
            del pod["metadata"]["finalizers"]
            return pod

        act = threading.Event()
        notes = Reacting("was interrupted", act.set)
        with working(made):
            thread = threading.Thread(
                target=lambda: act.wait(60) and made.store.change(PODS, "alone", "default", let_go)
            )
            thread.start()
            [result] = made.drain(DrainOptions(force=True), notes=notes)
            thread.join()
        assert result.drained
        assert made.store.find(PODS, "alone", "default") is None


def test_a_namespace_that_is_going_is_waited_for(tmp_path: Path) -> None:
    with lab(tmp_path) as made:
        made.manager.pause("namespace")
        made.deploy("web", 1)
        made.store.delete(NAMESPACES, "default")
        name = made.store.select(PODS, "default", labels="app=web")[0]["metadata"]["name"]
        notes = Reacting("because it is being terminated", lambda: made.store.delete(PODS, name, "default"))
        with working(made):
            [result] = made.drain(DrainOptions(), notes=notes)
        assert result.drained


def test_a_rehearsal_of_deletions_ends_and_changes_nothing(tmp_path: Path) -> None:
    """kubectl waits for ever (kubectl#1830)."""
    with lab(tmp_path) as made:
        made.deploy("web", 2)
        made.protect("web", "web", minAvailable=2)
        version = made.store.version
        with CancelScope() as scope:
            connection = made.connection(scope)
            for disable, endings in ((True, {Ending.GONE}), (False, {None})):
                options = DrainOptions(disable_eviction=disable)
                plan = read_plan(connection, (NODE,), options, scope, now=utc_now).plan
                said = rehearse(plan, connection, scope)
                assert {pod.ending for pod in said} == endings
                assert all("needs 2 healthy pods" in pod.reason.message for pod in said if pod.reason)
            connection.close()
        assert made.store.version == version


def test_what_came_to_an_uncordoned_node_is_told_and_not_touched(tmp_path: Path) -> None:
    with lab(tmp_path) as made:
        made.deploy("web", 1)

        def uncordon(send: Send) -> Send:
            def first(*arguments: Any) -> None:
                made.store.change(NODES, NODE, "", lambda node: node | {"spec": {}})
                made.bare("newcomer")
                send(*arguments)

            return first

        with working(made):
            [result] = made.drain(DrainOptions(force=True), wrap=uncordon)
        assert "default/newcomer" in result.arrived
        assert not result.drained
        assert "deletionTimestamp" not in made.store.get(PODS, "newcomer", "default")["metadata"]


def test_a_pod_that_does_not_end_is_called_stuck_and_can_be_skipped(tmp_path: Path) -> None:
    with lab(tmp_path) as made:
        made.bare("alone", finalizers=["example.com/hold"], spec={"terminationGracePeriodSeconds": 1})
        made.store.clock = lambda: utc_now().replace(year=2020)
        notes = Notes()
        with working(made):
            [result] = made.drain(DrainOptions(force=True, skip_wait=60), notes=notes)
        assert [pod.ending for pod in result.pods] == [Ending.SKIPPED]
        assert any("has DeletionTimestamp older than 60 seconds, skipping" in text for text in notes.texts)


def test_each_eviction_is_in_the_journal(tmp_path: Path) -> None:
    with lab(tmp_path / "lab") as made:
        made.deploy("web", 2)
        journal_file = tmp_path / "journal.jsonl"
        with working(made), CancelScope() as scope, Journal.open(journal_file) as journal:
            connection = made.connection(scope)
            [result] = made.drain(DrainOptions(), wrap=lambda _: journaled(connection, journal, "run-1"), scope=scope)
            connection.close()
        assert result.drained
        records = read(journal_file).records
        begun = [record.body for record in records if record.kind == "stepBegun"]
        assert {body["step"]["verb"] for body in begun} == {"pod.evict"}
        assert {body["step"]["uid"] for body in begun} == {pod.pod.metadata.uid for pod in result.pods}
        assert [record.kind for record in records].count("stepDone") == 2


def test_a_replacement_that_is_slow_holds_the_next_eviction(tmp_path: Path) -> None:
    """The budget is never overdrawn, and the drain goes on when, and only when, the replacement is ready."""
    with lab(tmp_path) as made:
        made.deploy("web", 2)
        made.protect("web", "web", minAvailable=1)
        with working(made):
            pass  # the nodes are as they should be; kubelets work by hand from here on
        made.manager.start()
        healthy: list[int] = []

        def kubelets() -> None:
            ready = [pod for pod in made.store.select(PODS, "default") if is_ready(pod)]
            healthy.append(len(ready))
            run_pods(made.store)

        stop = threading.Event()

        def work() -> None:
            changes = made.store.subscribe([PODS])
            while not stop.is_set():
                changes.wait(0.05)
                kubelets()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            [result] = made.drain(DrainOptions())
        finally:
            stop.set()
            thread.join()
        assert result.drained
        assert min(healthy) >= 1


def is_ready(pod: Any) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def test_pods_that_are_ready_again_are_counted(tmp_path: Path) -> None:
    with lab(tmp_path) as made:
        pods = made.deploy("web", 2)
        made.protect("web", "web", minAvailable=2)
        report_ready(made.store, "default", pods[0]["metadata"]["name"], ready=False)
        with working(made), frozen() as scope:
            notes = Reacting("waits", scope.cancel)
            [result] = made.drain(DrainOptions(), scope=scope, notes=notes)
        assert not result.drained
        assert any("needs 2 healthy pods and has 1 currently" in text for text in notes.texts)
