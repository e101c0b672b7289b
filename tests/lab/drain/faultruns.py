"""One drain with seeded misfortune: a cluster, workloads, budgets, faults of the server, and others who meddle.

The cluster's own history is the witness: every write is looked at, in order, for what must never happen. Nothing here
knows how the drain works.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.lab.api.faults import Disturb, Fault, Respond, internal_error, overloaded
from kdnsctl.lab.changes import Change, ChangeType
from kdnsctl.lab.kinds import DAEMON_SETS, DEPLOYMENTS, DISRUPTION_BUDGETS, NODES, PODS, STATEFUL_SETS
from kdnsctl.lab.replies import JSON, Refused
from kdnsctl.model import KdnsctlError
from kdnsctl.quarantine.draining import NodeResult
from kdnsctl.quarantine.evicting import Ending
from kdnsctl.quarantine.podfilters import DrainOptions
from tests.lab.api.fake_kubelet import Cluster, settle
from tests.lab.drain.cluster import Answering, Lab, lab

DNS: Final = "k8s-app=kube-dns"
EVICTION: Final = r"/eviction"
POD: Final = r"/pods/[^/?]+$"


@dataclass
class Witness:
    """The pods and budgets as they were at each write, and what was wrong then."""

    targets: frozenset[str]
    affected: frozenset[str]
    floor: int
    pods: dict[str, JSON]
    budgets: dict[str, JSON]
    planned: frozenset[str]
    wrong: list[str] = field(default_factory=list)

    def see(self, change: Change) -> None:
        metadata = change.obj["metadata"]
        if change.kind is DISRUPTION_BUDGETS:
            self.budgets[metadata["uid"]] = change.obj
            if change.obj.get("status", {}).get("disruptionsAllowed", 0) < 0:
                self.wrong.append(f"budget {metadata['name']} is overdrawn")
        elif change.kind is PODS and change.type is ChangeType.DELETED:
            self.pods.pop(metadata["uid"], None)
        elif change.kind is PODS:
            before = self.pods.get(metadata["uid"])
            self.pods[metadata["uid"]] = change.obj
            if is_evicted(change.obj) and (before is None or not is_evicted(before)):
                self._evicted(change.obj)

    def _evicted(self, pod: JSON) -> None:
        name, node = pod["metadata"]["name"], pod["spec"].get("nodeName", "")
        if node not in self.targets or pod["metadata"]["uid"] not in self.planned:
            self.wrong.append(
                f"{name} was evicted from {node}, which is none of {sorted(self.targets)}, or is new there"
            )
        if pod["metadata"]["labels"].get("k8s-app") == "kube-dns":
            safe = [one for one in self.pods.values() if self._serves_safely(one)]
            if len(safe) < self.floor:
                self.wrong.append(f"{name} was evicted with {len(safe)} DNS pods serving, not {self.floor}")
        for budget in self.budgets.values():
            least = budget["spec"]["minAvailable"]
            chosen = budget["spec"]["selector"]["matchLabels"]["app"]
            if pod["metadata"]["labels"].get("app") == chosen and is_healthy(pod):
                healthy = [
                    one
                    for one in self.pods.values()
                    if one["metadata"]["labels"].get("app") == chosen and is_healthy(one) and not is_evicted(one)
                ]
                if len(healthy) < least:
                    self.wrong.append(f"{name} was evicted: {len(healthy)} of {chosen} are left, not {least}")

    def _serves_safely(self, pod: JSON) -> bool:
        return (
            pod["metadata"]["labels"].get("k8s-app") == "kube-dns"
            and is_healthy(pod)
            and pod["spec"].get("nodeName") not in self.targets | self.affected
        )


def is_evicted(pod: JSON) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(one["type"] == "DisruptionTarget" for one in conditions)


def is_healthy(pod: JSON) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def set_up(made: Lab, dice: random.Random) -> None:
    """Workloads spread over all nodes, some of them under budgets that can be met."""
    names = [node["metadata"]["name"] for node in made.store.select(NODES)]
    made.cordon(*names[1:], on=False)

    def scheduled_like_others(obj: JSON) -> JSON:
        del obj["spec"]["template"]["spec"]["tolerations"]
        obj["spec"]["replicas"] = dice.randint(2, 5)
        return obj

    made.store.change(DEPLOYMENTS, "coredns", "kube-system", scheduled_like_others)
    made.deploy("agent", kind=DAEMON_SETS)
    for number in range(dice.randint(1, 3)):
        app, replicas = f"app{number}", dice.randint(2, 5)
        made.deploy(app, replicas, dice.choice((DEPLOYMENTS, STATEFUL_SETS)))
        if dice.random() < 0.7:
            made.protect(app, app, minAvailable=dice.randint(0, replicas - 1))
    settle(made.store, made.manager)


def actions() -> tuple[Respond | Disturb, ...]:
    """What servers do to a request."""
    status = Refused(409, "Conflict", "Operation cannot be fulfilled", details={}).status()
    late = Refused(504, "Timeout", "couldn't update PodDisruptionBudget due to conflicts", details={}).status()
    return (
        overloaded(1),
        overloaded(None),
        internal_error(),
        Respond(409, status=status),
        Respond(504, status=late),
        Respond(503, "unavailable\n"),
        Disturb(after_bytes=0),
        Disturb(after_bytes=9),
        Disturb(after_bytes=9, reset=False),
        Disturb(delay=0.02, piece=64),
    )


def misfortunes(dice: random.Random) -> Iterator[Fault]:
    """Between one and six kinds of trouble, each for a few requests."""
    for _ in range(dice.randint(1, 6)):
        action = dice.choice(actions())
        method, path = dice.choice((("POST", EVICTION), ("POST", EVICTION), ("GET", POD), ("GET", "watch=true")))
        yield Fault(action, method=method, path=path, times=dice.randint(1, 4), after=dice.randint(0, 6))


def run(seed: int, directory: Path) -> list[str]:
    """What went wrong in the run of this seed: nothing, if all is well."""
    dice = random.Random(seed)
    with lab(directory, dns=3, seed=seed, nodes=4) as made:
        made.hurry()
        set_up(made, dice)
        targets = dice.sample(["knode1", "knode2", "knode3"], dice.randint(1, 2))
        affected = [node for node in ("knode3", "knode4") if node not in targets and dice.random() < 0.3]
        witness = witness_of(made, targets, affected)
        changes = made.store.subscribe([PODS, DISRUPTION_BUDGETS])
        made.cordon(*targets)
        with Cluster(made.store, made.manager):
            meddlers = dice.choice(("nobody", "nobody", "uncordon", "compact", "second operator", "interrupt"))
            for fault in misfortunes(dice):
                made.server.faults.add(fault)
            with meddling(made, meddlers, targets, tuple(affected), dice):
                first = attempt(made, targets, affected, seed, interrupt=meddlers == "interrupt")
            made.server.faults.clear()
            _watch_history(witness, changes.take())
            made.cordon(*targets)
            # Run again, by an undisturbed second run: whatever was left is finished.
            witness.planned |= frozenset(uid for node in targets for uid in made.on(node))
            second = attempt(made, targets, affected, seed + 1)
        _watch_history(witness, changes.take())
        changes.close()
        return [*witness.wrong, *_unfinished(made, targets, second), *_unsaid(made, first)]


def attempt(
    made: Lab, targets: list[str], affected: list[str], seed: int, *, interrupt: bool = False
) -> list[NodeResult] | KdnsctlError:
    try:
        with CancelScope(5000, clock=made.clock) as scope:
            if interrupt:
                made.clock.call_at(made.clock.now() + random.Random(seed).uniform(1, 15), scope.cancel)
            options = DrainOptions(timeout=3000)
            return made.drain(options, *targets, affected=tuple(affected), probe=Answering(), seed=seed, scope=scope)
    except KdnsctlError as error:
        return error


@contextmanager
def meddling(made: Lab, who: str, targets: list[str], affected: tuple[str, ...], dice: random.Random) -> Iterator[None]:
    """Somebody else at work on the same cluster meanwhile."""
    work = {
        "uncordon": lambda: made.store.change(NODES, targets[0], "", lambda node: node | {"spec": {}}),
        "compact": made.store.compact,
        "second operator": lambda: attempt(made, targets, list(affected), dice.randint(1, 10**6)),
    }.get(who, lambda: None)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def witness_of(made: Lab, targets: list[str], affected: list[str]) -> Witness:
    """A witness who knows all that is there now, before a drain of `targets`."""
    pods = {pod["metadata"]["uid"]: pod for pod in made.store.select(PODS)}
    serving = [pod for pod in made.store.select(PODS, labels=DNS) if is_healthy(pod)]
    budgets = {one["metadata"]["uid"]: one for one in made.store.select(DISRUPTION_BUDGETS)}
    planned = frozenset(uid for uid, pod in pods.items() if pod["spec"].get("nodeName") in targets)
    floor = max(1, -(-len(serving) // 2))
    return Witness(frozenset(targets), frozenset(affected), floor, pods, budgets, planned)


def _watch_history(witness: Witness, changes: list[Change]) -> None:
    for change in changes:
        witness.see(change)


def _unfinished(made: Lab, targets: list[str], results: list[NodeResult] | KdnsctlError) -> list[str]:
    """What the undisturbed run left although nothing forbade it."""
    if isinstance(results, KdnsctlError):
        return [f"the second run failed: {results}"]
    kept = {pod.pod.metadata.uid for node in results for pod in node.pods if pod.ending is Ending.KEPT}
    wrong = [
        f"{pod.pod.metadata.name} stayed: {pod.reason}"
        for node in results
        for pod in node.pods
        if not pod.left and pod.ending is not Ending.KEPT
    ]
    for node in targets:
        for pod in made.store.select(PODS, fields=f"spec.nodeName={node}"):
            owner = pod["metadata"]["ownerReferences"][0]["kind"]
            if owner != "DaemonSet" and pod["metadata"]["uid"] not in kept:
                wrong.append(f"{pod['metadata']['name']} is still on {node}")
    return wrong


def _unsaid(made: Lab, results: list[NodeResult] | KdnsctlError) -> list[str]:
    """Pods that were said to be gone and are not."""
    if isinstance(results, KdnsctlError):
        return []
    living = {pod["metadata"]["uid"] for pod in made.store.select(PODS)}
    return [
        f"{pod.pod.metadata.name} was said to be gone"
        for node in results
        for pod in node.pods
        if pod.ending is Ending.GONE and pod.pod.metadata.uid in living
    ]
