"""Pods that serve DNS leave last, one at a time, and only while enough others serve elsewhere.

Between two of them a replacement must serve on a node that is neither drained nor affected, and DNS must answer. When
one of these fails, no further DNS pod is touched: it is kept where it is, and said. What measures DNS is a `DnsProbe`;
how it does that, and from where, is not known here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import Final, Protocol, Self

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.objects import EndpointSlice
from kdnsctl.cluster.watch import watch
from kdnsctl.model import KdnsctlError, Reason
from kdnsctl.quarantine.boards import Board
from kdnsctl.quarantine.dnsguard import DnsPods, dns_pods
from kdnsctl.quarantine.drainplan import DrainPlan, PodPlan
from kdnsctl.quarantine.evicting import Ending, Surroundings, remove

REPLACEMENT: Final = 120.0  # seconds that a replacement gets to serve
SETTLE: Final = 10.0  # seconds until kube-proxies know of it: endpoint changes take 1 to 10 s (EKS best practices)
SERVICE_LABEL: Final = "kubernetes.io/service-name"


class DnsProbe(Protocol):
    """Measures whether DNS answers now."""

    def trouble(self, service: str, scope: CancelScope) -> str:
        """Why the Service (`kube-system/kube-dns`) does not answer as it should; empty when it does.

        What could not be measured is trouble, too: no further DNS pod is taken on a guess.
        """


class _ShortError(KdnsctlError):
    """No DNS pod may go now."""


class DnsDrain:
    """The state of this part of a drain: who serves, as a watch shows it, and whether to go on.

    `unproven` are Services of which an earlier run took a pod, and DNS was not seen to answer since: they are asked
    before the next pod goes. `taking` is told of a pod before it is evicted. `kept` has why pods were kept, by UID.
    """

    def __init__(
        self,
        plan: DrainPlan,
        around: Surroundings,
        scope: CancelScope,
        probe: DnsProbe,
        *,
        unproven: Collection[str] = (),
        taking: Callable[[PodPlan], object] = lambda _: None,
    ) -> None:
        self._floors = {floor.service: floor for floor in plan.floors}
        self._options = plan.dns_options
        self._around = around
        self._scope = scope
        self._probe = probe
        self._unproven = set(unproven)
        self._taking = taking
        self._boards: dict[str, Board[EndpointSlice]] = {}
        self._stack = contextlib.ExitStack()
        self._halted: Reason | None = None
        self.kept: dict[str, Reason] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for service in self._floors:
                self._boards[service] = stack.enter_context(self._slices(service))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _slices(self, service: str) -> Board[EndpointSlice]:
        namespace, _, name = service.partition("/")
        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        around = self._around
        return Board(
            lambda inner: watch(
                around.connection, path, EndpointSlice, labels=f"{SERVICE_LABEL}={name}", scope=inner, note=around.note
            ),
            self._scope,
        )

    def _now(self, service: str) -> DnsPods:
        return dns_pods(service, self._boards[service].items())

    def remove(self, one: PodPlan, scope: CancelScope) -> Ending:
        """Evict a DNS pod if that is safe now, and see to it that DNS is well afterwards. Raises as `evicting.remove`.

        An eviction that fails halts the rest, too: what is true of DNS then is not known.
        """
        uid, service = one.pod.metadata.uid, one.service
        attempts = 0

        def attempt() -> None:
            nonlocal attempts
            self._check_floors()
            attempts += 1

        try:
            if self._halted is None:
                self._check_floors()
            reason = self._halted or self._left_unproven(service, scope)
            if reason is not None:
                self.kept[uid] = reason
                return Ending.KEPT
            before = self._now(service)
            self._halted = Reason("dnsUncertain", "the DNS pod before it did not leave in good order")
            self._taking(one)
            ending = remove(one.pod, self._options, self._around, scope, attempt)
        except _ShortError as error:
            self._halted = None
            self.kept[uid] = Reason("dnsFloor", f"{one.name} stays: {error}")
            return Ending.KEPT
        # Not there any more after an attempt whose answer was lost: it may have gone by that.
        untouched = ending is Ending.MOVED and not attempts
        trouble = "" if untouched else self._trouble(service, before, scope)
        self._halted = Reason("dnsTrouble", f"after {one.name} had left, {trouble}") if trouble else None
        if trouble:
            self._around.note(f"{service}: after {one.name} had left, {trouble}; no further DNS pod is touched")
        return ending

    def _left_unproven(self, service: str, scope: CancelScope) -> Reason | None:
        """Why the next pod stays, after one that another run has taken."""
        if service not in self._unproven:
            return None
        trouble = self._probe.trouble(service, scope)
        if not trouble:
            self._unproven.discard(service)
            return None
        self._halted = Reason("dnsTrouble", f"an earlier run has taken a pod of {service}, and since then {trouble}")
        self._around.note(f"{self._halted.message}; no further DNS pod is touched")
        return self._halted

    def _check_floors(self) -> None:
        """Raise when too few serve. Under one roof the floors of all Services must hold: two may share nodes, pods."""
        short = next((text for text in map(self._shortage, self._floors) if text), "")
        if short:
            raise _ShortError(short)

    def _shortage(self, service: str) -> str:
        return self._floors[service].shortage(self._now(service))

    def _trouble(self, service: str, before: DnsPods, scope: CancelScope) -> str:
        excluded = self._floors[service].excluded

        def is_replaced() -> bool:
            return bool(self._now(service).serving_on(excluded) - before.nodes.keys())

        if not self._boards[service].wait(is_replaced, scope, REPLACEMENT):
            return f"no replacement served within {REPLACEMENT:g}s on a node neither drained nor affected"
        scope.pause(SETTLE)
        scope.check()
        return self._probe.trouble(service, scope)
