"""A cluster in memory for drains: three nodes, controllers and kubelets that work by themselves, and a connection."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.retries import RetryPolicy
from kdnsctl.cluster.transport import Connection
from kdnsctl.lab.api.server import ApiServer, listen
from kdnsctl.lab.controllers.manager import ControllerManager
from kdnsctl.lab.kinds import (
    DAEMON_SETS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    NODES,
    PODS,
    STATEFUL_SETS,
    Kind,
)
from kdnsctl.lab.newstore import new_store
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.seed import numbered_nodes, seed_cluster
from kdnsctl.lab.store import Store
from kdnsctl.model import SilentReporter
from kdnsctl.quarantine.draining import NodeResult, drain, sender
from kdnsctl.quarantine.drainplan import PodPlan
from kdnsctl.quarantine.drainreading import read_plan
from kdnsctl.quarantine.evicting import Send
from kdnsctl.quarantine.podfilters import DrainOptions
from tests.lab.api.fake_kubelet import Cluster, report_ready, settle
from tests.lab.api.memory_runtime import MemoryRuntime

NODE: Final = "knode1"
QUICK: Final = RetryPolicy(attempts=4, first=0.001, longest=0.01)


class FastClock:
    """The scope's clock, `factor` times as fast: pauses pass, and their order stays.

    It goes by the ticks of a thread: where this process does not get to run, or has much to do, its time is late as
    well. What is given two minutes would otherwise have two seconds of the machine's, however busy that is.
    """

    TICK = 0.005

    def __init__(self, factor: float) -> None:
        self._step = factor * self.TICK
        self._now = 0.0
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        self._start()
        return self._now

    def call_at(self, when: float, callback: Callable[[], None], /) -> Callable[[], None]:
        self._start()
        call = (when, next(self._numbers), callback)
        with self._lock:
            self._calls.append(call)

        def revoke() -> None:
            with self._lock, contextlib.suppress(ValueError):  # it has been made
                self._calls.remove(call)

        return revoke

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for `event`, so many seconds of this clock at most; whether it is set."""
        over = self.now() + seconds
        while not event.wait(self.TICK):
            if self.now() >= over:
                return False
        return True

    def stop(self) -> None:
        """Let time stand still for good: nobody goes by it any more."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="fast clock", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self.TICK):
            with self._lock:
                self._now += self._step
                due = sorted(call for call in self._calls if call[0] <= self._now)
                self._calls = [call for call in self._calls if call[0] > self._now]
            for _, _, callback in due:
                callback()


class Answering:
    """A probe that DNS always answers; it counts how often it was asked."""

    def __init__(self, *troubles: str) -> None:
        self.asked: list[str] = []
        self._troubles = list(troubles)

    def trouble(self, service: str, scope: CancelScope) -> str:
        scope.check()
        self.asked.append(service)
        return self._troubles.pop(0) if self._troubles else ""


class Notes(SilentReporter):
    """Keeps what the operator would be told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def noted(self, message: str) -> None:
        self.texts.append(message)


@dataclass
class Lab:
    """What a test works with. Everything lives in this process."""

    store: Store
    manager: ControllerManager
    server: ApiServer
    kubeconfig: Path
    clock: FastClock = field(default_factory=lambda: FastClock(50))
    today: Callable[[], datetime] = lambda: datetime.now(UTC)

    def hurry(self) -> None:
        """Let the whole cluster live by the fast clock: what takes two minutes is over in seconds."""
        began = datetime.now(UTC)
        self.today = self.store.clock = lambda: began + timedelta(seconds=self.clock.now())

    def deploy(self, name: str, replicas: int = 2, kind: Kind = DEPLOYMENTS, **spec: Any) -> list[JSON]:
        """Pods of a workload on the node that is going to be drained."""
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i:1"}], **spec}}
        body: JSON = {"selector": {"matchLabels": labels}, "template": template}
        if kind is not DAEMON_SETS:
            body["replicas"] = replicas
        if kind is STATEFUL_SETS:
            body["podManagementPolicy"] = "Parallel"
        self.store.create(kind, {"metadata": {"name": name, "namespace": "default"}, "spec": body})
        settle(self.store, self.manager)
        return self.store.select(PODS, "default", labels=f"app={name}")

    def bare(self, name: str, *, node: str = NODE, phase: str = "Running", **metadata: Any) -> JSON:
        """A pod that nobody controls."""
        spec = {"nodeName": node, "containers": [{"name": "c", "image": "i:1"}]}
        spec.update(metadata.pop("spec", {}))
        self.store.create(PODS, {"metadata": {"name": name, "namespace": "default", **metadata}, "spec": spec})
        if phase == "Running":
            report_ready(self.store, "default", name)
        else:
            self.set_phase(name, phase)
        return self.store.get(PODS, name, "default")

    def set_phase(self, name: str, phase: str) -> None:
        self.store.change(
            PODS, name, "default", lambda pod: pod | {"status": pod["status"] | {"phase": phase}}, subresource="status"
        )

    def protect(self, name: str, app: str, **spec: Any) -> None:
        """A budget over the pods of a workload."""
        selector = {"matchLabels": {"app": app}}
        body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"selector": selector, **spec}}
        self.store.create(DISRUPTION_BUDGETS, body)
        settle(self.store, self.manager)

    def cordon(self, *names: str, on: bool = True) -> None:
        for name in names:
            self.store.change(NODES, name, "", lambda node: node | {"spec": {"unschedulable": True} if on else {}})
        settle(self.store, self.manager)

    def on(self, node: str = NODE) -> dict[str, str]:
        """Names of the pods on a node, by UID."""
        pods = self.store.select(PODS, fields=f"spec.nodeName={node}")
        return {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in pods}

    def connection(self, scope: CancelScope) -> Connection:
        options = ConnectOptions(
            kubeconfig=str(self.kubeconfig),
            environment={"HOME": str(self.kubeconfig.parent)},
            request_timeout=1000,  # by the fast clock; servers that fail here never fall silent
        )
        return connect(options, scope, retry=QUICK)

    def drain(
        self,
        options: DrainOptions,
        *nodes: str,
        affected: tuple[str, ...] = (),
        probe: Answering | None = None,
        unproven: tuple[str, ...] = (),
        taking: Callable[[PodPlan], object] = lambda _: None,
        notes: Notes | None = None,
        wrap: Callable[[Send], Send] = lambda send: send,
        scope: CancelScope | None = None,
        seed: int = 1,
    ) -> list[NodeResult]:
        """Plan and carry out, with the cluster working meanwhile."""
        with CancelScope(3000, clock=self.clock) if scope is None else contextlib.nullcontext(scope) as whole:
            connection = self.connection(whole)
            names = nodes or (NODE,)
            plan = read_plan(connection, names, options, whole, now=self.today, affected=affected).plan
            try:
                return drain(
                    plan, connection, whole, notes or Notes(), send=wrap(sender(connection)),
                    probe=probe or Answering(), unproven=unproven, taking=taking, now=self.today,
                    dice=random.Random(seed),
                )  # fmt: skip
            finally:
                connection.close()


def utc_now() -> datetime:
    return datetime.now(UTC)


@contextlib.contextmanager
def lab(
    directory: Path, *, dns: int = 0, seed: int = 7, nodes: int = 3, runtime: MemoryRuntime | None = None
) -> Iterator[Lab]:
    """A settled cluster of which only the first node takes pods, until `working` begins."""
    store = new_store(seed=seed)
    seed_cluster(store, numbered_nodes(nodes), dns_replicas=dns)
    manager = ControllerManager(store)
    directory.mkdir(parents=True, exist_ok=True)
    with ApiServer(store, runtime or MemoryRuntime(), [listen()], bookmark_seconds=3600) as server:
        path = directory / "kubeconfig"
        path.write_text(server.kubeconfig(), encoding="utf-8")
        made = Lab(store, manager, server, path)
        made.cordon(*(node.name for node in numbered_nodes(nodes)[1:]))
        settle(store, manager)
        try:
            yield made
        finally:
            manager.stop()
            made.clock.stop()
    assert server.errors == []


@contextlib.contextmanager
def working(made: Lab) -> Iterator[None]:
    """The other nodes take pods, the first does not, and controllers and kubelets work."""
    names = [node["metadata"]["name"] for node in made.store.select(NODES)]
    made.cordon(*names[1:], on=False)
    made.cordon(names[0])
    with Cluster(made.store, made.manager):
        yield
