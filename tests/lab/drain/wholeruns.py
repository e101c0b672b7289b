"""One quarantine with seeded misfortune, from the lock to the release: servers that fail, a second operator, outsiders.

The cluster's own history is the witness: at every write, no more nodes may be in quarantine than allowed, and no pod
may be evicted that `faultruns.Witness` forbids, nor from a node that no capture proves affected. In the end every node
must be as its owners left it.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from unittest import mock

from kdnsctl.cancel import CancelScope
from kdnsctl.changes import incidents, runs
from kdnsctl.changes.fields import RECORD
from kdnsctl.changes.incidents import Actor
from kdnsctl.changes.lock import locked
from kdnsctl.cluster.errors import UnreachableError
from kdnsctl.cluster.transport import Connection
from kdnsctl.find.scope import Chosen
from kdnsctl.lab.api.faults import Fault
from kdnsctl.lab.changes import Change
from kdnsctl.lab.kinds import DISRUPTION_BUDGETS, LEASES, NODES, PODS
from kdnsctl.lab.replies import JSON
from kdnsctl.model import KdnsctlError, RefusedError, SilentReporter, Verdict
from kdnsctl.quarantine import quarantine as work
from kdnsctl.quarantine import release as back
from kdnsctl.quarantine import securing
from kdnsctl.quarantine.capture import Captured, capture
from kdnsctl.quarantine.guards import Most
from kdnsctl.quarantine.holdsnodes import AUTOSCALER_KEY
from kdnsctl.quarantine.outcome import NodeResult, QuarantineReport
from kdnsctl.quarantine.podfilters import DrainOptions
from kdnsctl.quarantine.record import Phase
from kdnsctl.quarantine.release import ReleaseReport
from tests.lab.api.fake_kubelet import Cluster, settle
from tests.lab.drain.cluster import Answering, Lab, lab
from tests.lab.drain.faultruns import Witness, actions, set_up, witness_of
from tests.lab.drain.tables import Tables

INCIDENT: Final = "inc-1"
WHERE: Final = (
    ("PATCH", "/nodes/"),
    ("PATCH", "/nodes/"),
    ("GET", r"/nodes/[^/?]+$"),
    ("GET", r"/nodes\?"),
    ("POST", "/leases"),
    ("GET", "/leases/"),
    ("DELETE", "/leases/"),
    ("POST", "/eviction"),
    ("POST", "/events"),
    ("GET", "watch=true"),
    ("GET", r"/pods(\?|/)"),
)


@dataclass
class Operator:
    """Somebody with a machine of their own, who quarantines and releases."""

    made: Lab
    name: str
    directory: Path
    runs: int = 0
    scope: CancelScope | None = None

    def _actor(self) -> Actor:
        self.runs += 1
        return Actor(f"{self.name}@desk", f"{self.runs}-{abs(hash(self.name)) % 16**6:06x}")

    @contextlib.contextmanager
    def _at_work(
        self, connection: Connection, incident: str, names: list[str], actor: Actor, scope: CancelScope
    ) -> Iterator[tuple[incidents.Incident, CancelScope]]:
        alive = self.directory / "runs"
        uid = incidents.cluster_uid(connection, scope=scope)
        with (
            runs.running(alive, actor),
            locked(
                connection,
                names,
                actor,
                scope=scope,
                wait=self.made.clock.wait,
                is_over=lambda run: runs.is_over(alive, run),
            ) as held,
        ):
            opened = incidents.open_incident(self.directory / "incidents", incident, uid, "lab", actor)
            with opened.journal:
                yield opened, held.scope

    def quarantine(self, targets: list[str], most: int, incident: str) -> QuarantineReport | KdnsctlError:
        """The command, but for the words."""
        options = work.QuarantineOptions(
            Chosen(tuple(targets)), incident, incident=incident, most=Most(most, percent=False),
            drain=DrainOptions(timeout=3000),
        )  # fmt: skip
        actor = self._actor()
        try:
            with CancelScope(5000, clock=self.made.clock) as scope, self._connected(scope) as connection:
                self.scope = scope
                prepared = work.prepare(options, connection, actor, scope=scope, now=now)
                with self._at_work(connection, incident, targets, actor, scope) as (opened, held):
                    return work.quarantine(
                        prepared, connection, opened, actor, options,
                        scope=held, reporter=SilentReporter(), now=self.made.today, probe=Answering(),
                    )  # fmt: skip
        except KdnsctlError as error:
            return error

    def release(self) -> ReleaseReport | KdnsctlError:
        """Of the first incident that has nodes in quarantine."""
        found = next(iter(sorted(in_quarantine(self.made).values())), None)
        actor = self._actor()
        try:
            with CancelScope(5000, clock=self.made.clock) as scope, self._connected(scope) as connection:
                prepared = back.prepare(
                    (), connection, incident=found, unchecked=True, scope=scope, reporter=SilentReporter(), now=now()
                )
                if prepared.incident is None:
                    return back.nothing(prepared, now())
                names = [one.name for one in prepared.nodes]
                with self._at_work(connection, prepared.incident, names, actor, scope) as (opened, held):
                    return back.release(prepared, connection, opened, actor, scope=held, now=self.made.today)
        except KdnsctlError as error:
            return error

    @contextlib.contextmanager
    def _connected(self, scope: CancelScope) -> Iterator[Connection]:
        connection = self.made.connection(scope)
        try:
            yield connection
        finally:
            connection.close()


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Outsider:
    """Somebody who knows nothing of it: `done` is what has to be different in the end because of them."""

    made: Lab
    done: list[Callable[[JSON], None]] = field(default_factory=list)

    def change(self, name: str, edit: Callable[[JSON], None]) -> None:
        def changed(node: JSON) -> JSON:
            edit(node)
            return node

        self.made.store.change(NODES, name, "", changed)
        self.done.append(lambda node: edit(node) if node["metadata"]["name"] == name else None)

    def uncordon(self, name: str) -> None:
        self.change(name, lambda node: node["spec"].pop("unschedulable", None))

    def cordon(self, name: str) -> None:
        """It is theirs if it was not cordoned: whether before the quarantine's own, or after a release."""
        theirs = []

        def cordoned(node: JSON) -> JSON:
            theirs.append(not node["spec"].get("unschedulable"))
            return node | {"spec": node["spec"] | {"unschedulable": True}}

        self.made.store.change(NODES, name, "", cordoned)
        if theirs[-1]:
            self.done.append(
                lambda node: node["spec"].update(unschedulable=True) if node["metadata"]["name"] == name else None
            )

    def label(self, names: list[str], times: int) -> None:
        for number in range(times):
            for name in names:
                self._beat(name, str(number))

    def _beat(self, name: str, value: str) -> None:
        self.change(name, lambda node: node["metadata"]["labels"].update(beat=value))


@dataclass
class Guarding(Witness):
    """Which nodes are in quarantine at each write, those that have our taint: not too many, and no other is drained."""

    most: int = 1
    broken: frozenset[str] = frozenset()
    tainted: set[str] = field(default_factory=set)

    def see(self, change: Change) -> None:
        if change.kind is NODES:
            self._node(change.obj)
        else:
            self.targets = frozenset(self.tainted & self.broken)
            self.planned = frozenset((*self.pods, change.obj["metadata"]["uid"]))  # by whichever run
            super().see(change)

    def _node(self, node: JSON) -> None:
        name = node["metadata"]["name"]
        self.tainted.discard(name)
        if any(taint["key"] == RECORD for taint in node["spec"].get("taints") or []):
            self.tainted.add(name)
            if RECORD not in node["metadata"].get("annotations", {}):
                self.wrong.append(f"{name} is tainted, and has no record")
        if len(self.tainted) > self.most:
            self.wrong.append(f"{sorted(self.tainted)} are in quarantine; {self.most} may be")


def run(seed: int, directory: Path) -> list[str]:
    """What went wrong in the run of this seed: nothing, if all is well."""
    dice = random.Random(seed)
    tables = Tables()
    with lab(directory, dns=3, seed=seed, nodes=4, runtime=tables) as made, patient_captures():
        tables.node_of = lambda namespace, pod: str(made.store.get(PODS, pod, namespace)["spec"].get("nodeName", ""))
        made.hurry()
        set_up(made, dice)
        most = dice.randint(1, 2)
        targets = dice.sample(["knode1", "knode2", "knode3"], dice.randint(1, most))
        tables.broken = frozenset(name for name in (*targets, "knode4") if dice.random() < 0.7)
        for name in targets:
            owned(made, name, dice)
        settle(made.store, made.manager)
        before = {node["metadata"]["name"]: node for node in made.store.select(NODES)}
        seen = witness_of(made, [*targets, "knode4"], [])
        witness = Guarding(
            seen.targets, seen.affected, 1, seen.pods, seen.budgets, seen.planned, most=most, broken=tables.broken
        )
        changes = made.store.subscribe([PODS, DISRUPTION_BUDGETS, NODES])
        jane, joe = (Operator(made, name, directory / name) for name in ("jane", "joe"))
        outsider = Outsider(made)
        with Cluster(made.store, made.manager):
            for fault in misfortunes(dice):
                made.server.faults.add(fault)
            with meddling(jane, joe, outsider, targets, most, dice):
                jane.quarantine(targets, most, INCIDENT)
            if dice.random() < 0.5:
                jane.release()  # under what is left of the misfortune
            made.server.faults.clear()
            wrong = finished(made, jane, targets, most, tables.broken)
            wrong += released(made, jane)
        for change in changes.take():
            witness.see(change)
        changes.close()
        return [*wrong, *witness.wrong, *differences(made, before, outsider)]


def owned(made: Lab, name: str, dice: random.Random) -> None:
    """What owners have set before: it must be there afterwards."""

    def edit(node: JSON) -> JSON:
        if dice.random() < 0.3:
            node["spec"]["unschedulable"] = True
        if dice.random() < 0.3:
            node["spec"]["taints"] = [{"key": "mine", "value": "1", "effect": "NoSchedule"}]
        if dice.random() < 0.5:
            value = dice.choice(("true", "false"))
            node["metadata"].setdefault("annotations", {})[AUTOSCALER_KEY] = value
        return node

    made.store.change(NODES, name, "", edit)


def misfortunes(dice: random.Random) -> Iterator[Fault]:
    """Between one and six kinds of trouble, each for a few requests."""
    for _ in range(dice.randint(1, 6)):
        action = dice.choice(actions())
        method, path = dice.choice(WHERE)
        yield Fault(action, method=method, path=path, times=dice.randint(1, 4), after=dice.randint(0, 6))


@contextlib.contextmanager
def meddling(
    jane: Operator, joe: Operator, outsider: Outsider, targets: list[str], most: int, dice: random.Random
) -> Iterator[None]:
    """Somebody else at work on the same cluster meanwhile, or Ctrl-C."""

    def interrupt() -> None:
        pause = threading.Event()
        pause.wait(dice.random() * 0.3)
        if jane.scope is not None:
            jane.scope.cancel()

    work: dict[str, Callable[[], Any]] = {
        "uncordon": lambda: outsider.uncordon(targets[0]),
        "cordon": lambda: outsider.cordon(targets[0]),
        "beats": lambda: outsider.label(targets, 30),
        "compact": jane.made.store.compact,
        "same nodes": lambda: joe.quarantine(targets, most, dice.choice((INCIDENT, "inc-2"))),
        "another node": lambda: joe.quarantine(["knode4"], most, "inc-2"),
        "interrupt": interrupt,
        "nobody": lambda: None,
    }
    thread = threading.Thread(target=work[dice.choice(tuple(work))])
    thread.start()
    try:
        yield
    finally:
        thread.join()


def in_quarantine(made: Lab) -> dict[str, str]:
    """The nodes with a record, and their incidents."""
    return {
        node["metadata"]["name"]: json.loads(record)["incident"]
        for node in made.store.select(NODES)
        if (record := node["metadata"].get("annotations", {}).get(RECORD)) is not None
    }


@contextlib.contextmanager
def patient_captures() -> Iterator[None]:
    """Captures live by the machine's clock: by the fast one, a busy machine has no time to answer a command."""

    def patient(*args: Any, scope: CancelScope, **rest: Any) -> Captured:
        with CancelScope(120) as slow, scope.closing(slow.cancel):
            found = capture(*args, scope=slow, **rest)
        scope.check()
        return found

    with mock.patch.object(securing, "capture", patient):
        yield


def finished(made: Lab, jane: Operator, targets: list[str], most: int, broken: frozenset[str]) -> list[str]:
    """Run again, undisturbed: it must go on to the end, whoever had begun, unless it would be too many."""
    for lease in made.store.select(LEASES):  # of who could not give it back: not waited for here, but expired
        made.store.delete(LEASES, lease["metadata"]["name"], "kube-system")
    there = in_quarantine(made)
    incident = next((there[name] for name in targets if name in there), INCIDENT)
    report = jane.quarantine(targets, most, incident)
    for _ in range(4):
        if not isinstance(report, UnreachableError):
            break  # by the fast clock, a busy machine answers too late
        report = jane.quarantine(targets, most, incident)
    if isinstance(report, RefusedError) and (there.keys() - set(targets) or len(set(there.values())) > 1):
        return []
    if isinstance(report, KdnsctlError):
        return [f"run again, it failed: {report}"]
    return [
        f"run again, {node.name} is {node.phase}: {node.failed}"
        for node in report.nodes
        if node.failed or (node.name in broken and node.phase is not Phase.DRAINED and not _kept(node))
    ] + [
        f"{node.name} is {node.judgement and node.judgement.verdict}, and nothing proves it affected"
        for node in report.nodes
        if (node.name in broken) is not bool(node.judgement and node.judgement.verdict is Verdict.AFFECTED)
    ]


def _kept(node: NodeResult) -> bool:
    """Whether DNS pods stayed that had to."""
    return node.drained is not None and any(not pod.left and pod.reason for pod in node.drained.pods)


def released(made: Lab, jane: Operator) -> list[str]:
    """Release everything, undisturbed."""
    wrong = []
    for _ in range(6):
        if not in_quarantine(made):
            break
        report = jane.release()
        if isinstance(report, KdnsctlError) and not isinstance(report, UnreachableError):
            wrong.append(f"release failed: {report}")
    return wrong + [f"{name} is in quarantine still" for name in in_quarantine(made)]


def own_spec(node: JSON) -> JSON:
    """Without the taint that a controller of the cluster sets and removes as the node is cordoned and uncordoned."""
    taints = [one for one in node["spec"].get("taints") or [] if one["key"] != "node.kubernetes.io/unschedulable"]
    return {**node["spec"], "taints": taints}


def differences(made: Lab, before: dict[str, JSON], outsider: Outsider) -> list[str]:
    """What is not as owners and outsiders have left it."""
    wrong = []
    for node in made.store.select(NODES):
        name, was = node["metadata"]["name"], before[node["metadata"]["name"]]
        for done in outsider.done:
            done(was)
        for part, one, other in (
            ("spec", own_spec(node), own_spec(was)),
            ("labels", node["metadata"].get("labels"), was["metadata"].get("labels")),
            ("annotations", node["metadata"].get("annotations"), was["metadata"].get("annotations")),
        ):
            if one != other:
                wrong.append(f"{name}: {part} is {one}, and was {other}")
    return wrong
