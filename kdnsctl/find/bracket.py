"""Truth while nodes are read: EndpointSlices listed before the first reading, and watched until after the last.

A node's state is judged against the endpoints that served when it was read. So a `Bracket` keeps what serves now, and
since when what served before does not any more; `truth` puts the two together for one reading. In doubt an endpoint
counts as serving: one that went only after the reading, or came at any time, is not dead for it.

How long an endpoint has been gone that was never seen is told by the slices themselves: `managedFields` say when
anything in them was last changed (see `_unchanged`). Nothing is judged here, and nothing waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, Self

from kdnsctl.cancel import CancelScope, Clock
from kdnsctl.cluster.lists import list_all
from kdnsctl.cluster.objects import EndpointSlice, Service
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.watch import Change, Event, watch
from kdnsctl.diagnosis.truth import Backend, ServicePort, Truth
from kdnsctl.find.truths import grouped, handled, ports_of
from kdnsctl.model import KdnsctlError

SLICES: Final = "/apis/discovery.k8s.io/v1"
NEEDED: Final = (
    Permission("list", "endpointslices", group="discovery.k8s.io", without="no node's tables can be judged"),
)
HELPFUL: Final = (
    Permission(
        "watch", "endpointslices", group="discovery.k8s.io", without="endpoints that change meanwhile are noticed later"
    ),
)

Name = tuple[str, str]  # namespace and name, of a slice or of a Service
End = tuple[str, str, int]  # Service port as kube-proxy spells it, address, port


class WallClock:
    """The time of day without its jumps: read once, then counted on by a clock that never goes back."""

    def __init__(self, clock: Clock, now: datetime) -> None:
        self._clock = clock
        self._start = now - timedelta(seconds=clock.now())

    def now(self) -> datetime:
        """The time, UTC."""
        return self._start + timedelta(seconds=self._clock.now())


@dataclass(frozen=True, slots=True)
class View:
    """Which slices are watched: those of a namespace (None: of all), of one Service (None: of all)."""

    namespace: str | None = None
    service: str | None = None

    @property
    def path(self) -> str:
        """Where the API has them."""
        return f"{SLICES}/namespaces/{self.namespace}/endpointslices" if self.namespace else f"{SLICES}/endpointslices"

    @property
    def labels(self) -> str | None:
        """What narrows them down."""
        return f"kubernetes.io/service-name={self.service}" if self.service else None


class Bracket:
    """The serving endpoints of `services`, from `open` until `close`. Used from any number of threads.

    `ahead` is how far the API server's clock is before `clock`; None when that is not known, and slices tell nothing.
    """

    def __init__(
        self,
        connection: Connection,
        services: Iterable[Service],
        views: Sequence[View],
        *,
        scope: CancelScope,
        clock: WallClock,
        note: Callable[[str], None],
        ahead: timedelta | None = None,
    ) -> None:
        self._connection = connection
        self._services = {_name(service): service for service in services if handled(service)}
        self._views = views
        self._scope = scope.child()
        self._clock = clock
        self._note = note
        self._ahead = ahead
        self._lock = threading.Lock()
        self._slices: dict[Name, EndpointSlice] = {}
        self._ports: dict[Name, list[ServicePort]] = {name: ports_of(one, ()) for name, one in self._services.items()}
        self._gone: dict[End, tuple[datetime, Backend]] = {}
        self._failure: KdnsctlError | None = None
        self._listing = threading.Lock()
        self._listed: datetime | None = None
        self.since: datetime | None = None

    def open(self) -> Self:
        """List and begin to watch. Raises what listing raises; what fails later is raised by `truth`."""
        for view in self._views:
            events = self._events(view)
            self._take(view, next(events))
            threading.Thread(target=self._follow, args=(view, events), name="endpoints", daemon=True).start()
        self.since = self._listed = self._clock.now()
        return self

    def close(self) -> None:
        """End the watch."""
        self._scope.cancel()
        self._scope.release()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def confirm(self, ended: datetime, scope: CancelScope) -> None:
        """Make sure that all is known that was so when a reading `ended`: kube-proxy may hear of it before we do.

        A list that began later has it, as it is never older than its request.
        """
        with self._listing:
            if self._listed is not None and self._listed > ended:
                return
            began = self._clock.now()
            for view in self._views:
                found = list_all(self._connection, view.path, EndpointSlice, labels=view.labels, scope=scope)
                self._take(view, Event(Change.LISTED, tuple(found.items), found.resource_version))
            self._listed = began

    def truth(self, base: Truth, at: datetime) -> Truth:
        """`base` with the endpoints that are true for a reading that ended `at`. Raises why the watch has ended."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            alive: dict[str, list[Backend]] = {}
            gone: dict[End, datetime] = {}
            for end, (when, backend) in self._gone.items():
                if when > at:
                    alive.setdefault(end[0], []).append(backend)
                else:
                    gone[end] = when
            services = tuple(
                replace(port, backends=(*port.backends, *alive[str(port)])) if str(port) in alive else port
                for ports in self._ports.values()
                for port in ports
            )
            unchanged = dict(self._unchanged())
        return replace(base, services=services, gone=gone, at=at, since=self.since, unchanged=unchanged)

    # --- following

    def _events(self, view: View) -> Iterator[Event[EndpointSlice]]:
        return watch(self._connection, view.path, EndpointSlice, scope=self._scope, labels=view.labels, note=self._note)

    def _follow(self, view: View, events: Iterator[Event[EndpointSlice]]) -> None:
        why = KdnsctlError("the watch on EndpointSlices has ended", code="internalError")
        try:
            for event in events:
                self._take(view, event)
        except KdnsctlError as error:
            why = error
        finally:
            if self._scope.reason is None:
                lost = f"which endpoints serve is not known any more: {why}"
                self._failure = KdnsctlError(lost, hint=why.hint, code=why.code)

    def _take(self, view: View, event: Event[EndpointSlice]) -> None:
        now = self._clock.now()
        with self._lock:
            touched: set[Name] = set()
            if event.change is Change.LISTED:
                listed = {_name(one) for one in event.items}
                for name, one in list(self._slices.items()):
                    if _is_in(view, one) and name not in listed:
                        touched |= self._put(name, None)
            for one in event.items:
                touched |= self._put(_name(one), None if event.change is Change.DELETED else one)
            by_service = grouped(
                one for one in self._slices.values() if (one.metadata.namespace, one.service) in touched
            )
            for name in touched & self._services.keys():
                self._compare(name, by_service.get(name, ()), now)

    def _put(self, name: Name, one: EndpointSlice | None) -> set[Name]:
        """Replace one slice; returns the Services that are concerned."""
        before = self._slices.pop(name, None)
        if one is not None:
            self._slices[name] = one
        return {(each.metadata.namespace, each.service) for each in (before, one) if each is not None}

    def _compare(self, name: Name, slices: Iterable[EndpointSlice], now: datetime) -> None:
        before = {end: backend for port in self._ports[name] for end, backend in _ends(port)}
        self._ports[name] = ports_of(self._services[name], slices)
        after = {end for port in self._ports[name] for end, _ in _ends(port)}
        for end, backend in before.items():
            if end not in after:
                self._gone[end] = (now, backend)
        for end in after:
            self._gone.pop(end, None)

    def _unchanged(self) -> Iterator[tuple[str, datetime]]:
        """Services of which nothing has gone since a moment, by this side's clock.

        A manager's `time` changes whenever it changes a field, and endpoints are fields (meta/v1 ManagedFieldsEntry).
        A slice that was deleted cannot tell when. The controller deletes one of several, never the last of a family
        (k8s.io/endpointslice reconciler.go keeps a placeholder), so this holds where a family has one slice only, and
        that is not so full that there may have been a second: 100 endpoints, by default.
        """
        if self._ahead is None:
            return
        for name, slices in grouped(self._slices.values()).items():
            families = [one.address_type for one in slices]
            if len(set(families)) != len(families) or any(len(one.endpoints or ()) > _HALF for one in slices):
                continue
            times = [[field.time for field in one.metadata.managed_fields if field.time] for one in slices]
            if all(times):
                last = max(moment for each in times for moment in each)
                # The API's times are whole seconds, cut off.
                yield "/".join(name), last.astimezone(UTC) + timedelta(seconds=1) - self._ahead


_HALF: Final = 50


def server_ahead(connection: Connection, clock: WallClock, *, scope: CancelScope) -> timedelta | None:
    """How far the API server's clock is before ours, to a second or so; None when it does not say."""
    reply = connection.request("GET", "/version", scope=scope)
    try:
        said = parsedate_to_datetime(reply.date)
    except ValueError:
        return None
    return said - clock.now() if said.tzinfo else None


def _ends(port: ServicePort) -> Iterator[tuple[End, Backend]]:
    for backend in port.backends:
        yield (str(port), backend.address, backend.port), backend


def _name(one: Service | EndpointSlice) -> Name:
    return (one.metadata.namespace, one.metadata.name)


def _is_in(view: View, one: EndpointSlice) -> bool:
    return view.namespace in (None, one.metadata.namespace) and view.service in (None, one.service)
