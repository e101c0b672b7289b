"""The API server of the lab: one thread, one event loop, TLS on sockets that somebody else bound.

It lets requests in (who, may they, is there a fault for them), hands them to the handler of their path and turns
refusals into Status replies. Everything it answers comes from the store and the runtime it is given.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import traceback
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final, Self

import msgspec
from aiohttp import web

from kdnsctl.lab import replies
from kdnsctl.lab.api import resources
from kdnsctl.lab.api.access import MASTERS, REVIEW, Identity, Policy, access_review, rules_review, self_review
from kdnsctl.lab.api.certificates import Authority, kubeconfig
from kdnsctl.lab.api.discovery import answer
from kdnsctl.lab.api.evictions import pod_eviction
from kdnsctl.lab.api.exchange import Backend, Exchange, SpoiledError, common_headers, reset, status_headers
from kdnsctl.lab.api.execs import pod_exec
from kdnsctl.lab.api.faults import Disturb, Faults, Respond
from kdnsctl.lab.api.journal import Entry, Journal
from kdnsctl.lab.api.logs import pod_log
from kdnsctl.lab.api.portforward import pod_portforward
from kdnsctl.lab.api.requests import Target, parse_target
from kdnsctl.lab.api.watching import watch
from kdnsctl.lab.customkinds import custom_kinds, served_kind
from kdnsctl.lab.kinds import Kind
from kdnsctl.lab.replies import Refused
from kdnsctl.lab.runtime import PodRuntime
from kdnsctl.lab.shapes import check_types
from kdnsctl.lab.store import Store

_BODY_LIMIT: Final = 3 * 1024 * 1024
# Seconds to wait for a client to answer the end of its TLS session; one that was killed never does, and only after that
# does its handler learn that it is gone.
_FAREWELL: Final = 0.5
# Turns of the event loop until an aborted TLS connection has told everybody; three are needed.
_ROUNDS_TO_CLOSE: Final = 10
_HEALTH: Final = ("/healthz", "/livez", "/readyz")
_UPGRADES: Final = ("exec", "portforward")

_VERBS: Final[dict[str, Callable[[Exchange, Kind], Awaitable[web.StreamResponse]]]] = {
    "get": resources.get,
    "list": resources.list_objects,
    "watch": watch,
    "create": resources.create,
    "update": resources.update,
    "patch": resources.patch,
    "delete": resources.delete,
    "deletecollection": resources.delete_collection,
}
_SUBRESOURCES: Final[dict[str, Callable[[Exchange], Awaitable[web.StreamResponse]]]] = {
    "eviction": pod_eviction,
    "log": pod_log,
    "exec": pod_exec,
    "portforward": pod_portforward,
}


class ApiServer:
    """Serves a store and a runtime on the given sockets from `start` to `stop`.

    `sockets` are bound, listening or not, and are closed by `stop`. `names` are the host names and addresses that the
    server's certificate is for. `policy`, `faults` and `journal` may be used from other threads while it runs.
    """

    def __init__(
        self,
        store: Store,
        runtime: PodRuntime,
        sockets: Sequence[socket.socket],
        *,
        names: Sequence[str] = ("127.0.0.1", "localhost"),
        authority: Authority | None = None,
        policy: Policy | None = None,
        bookmark_seconds: float = 60.0,
    ) -> None:
        self.authority = authority or Authority()
        self.policy = policy or Policy()
        self.faults = Faults()
        self.journal = Journal()
        host, port = sockets[0].getsockname()[:2]
        self._backend = Backend(
            store, runtime, self.policy, self.faults, self.journal, f"{host}:{port}", bookmark_seconds
        )
        self._sockets = list(sockets)
        self._context = self.authority.server_context(names)
        self._thread = threading.Thread(target=self._run, name="lab-api-server", daemon=True)
        self._started: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self.errors: list[str] = []
        """Tracebacks of answers that failed through a fault of the server's own; a test expects none."""

    @property
    def url(self) -> str:
        """The server as seen from the first socket."""
        return f"https://{self._backend.address}"

    def kubeconfig(
        self,
        user: str = "kubernetes-admin",
        groups: Sequence[str] = (MASTERS,),
        url: str = "",
        name: str = "kdnsctl-lab",
    ) -> str:
        """A kubeconfig with a new client certificate for the user; `name` is that of its context."""
        return kubeconfig(url or self.url, self.authority.pem, self.authority.client(user, groups), name=name)

    def start(self) -> None:
        """Return once requests are answered. Raises OSError when a socket cannot be used."""
        self._thread.start()
        self._started.result()

    def stop(self) -> None:
        """End every stream, then the thread. Idempotent."""
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        application = web.Application(client_max_size=_BODY_LIMIT)
        application.router.add_route("*", "/{path:.*}", self._answer)
        application.on_response_prepare.append(_without_server_header)
        runner = web.AppRunner(
            application, handler_cancellation=True, access_log=None, shutdown_timeout=0.1, keepalive_timeout=3600
        )
        await runner.setup()
        protocol = runner.server
        if protocol is None:
            raise RuntimeError("aiohttp's runner has no server after its setup")
        listeners: list[asyncio.Server] = []
        try:
            for listener in self._sockets:
                server = await self._loop.create_server(
                    protocol, sock=listener, ssl=self._context, ssl_shutdown_timeout=_FAREWELL
                )
                listeners += [server]
        except OSError as error:
            self._started.set_exception(error)
            await runner.cleanup()
            return
        self._started.set_result(None)
        await self._stopping.wait()
        await _stop_accepting(self._sockets)
        # First the listeners and handlers, so that nobody opens a new stream, then what is still open.
        for server in listeners:
            server.close()
        transports = [handler.transport for handler in protocol.connections]
        await runner.cleanup()
        await self._loop.run_in_executor(None, self._backend.close)
        for transport in transports:
            # Closing politely would wait for every client to answer the end of its TLS session.
            if transport is not None:
                transport.abort()
        for _ in range(_ROUNDS_TO_CLOSE):
            await asyncio.sleep(0)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        entry = self._record(request)
        try:
            return await self._admit(request, entry)
        except Refused as refusal:
            return self._refuse(entry, refusal)
        except SpoiledError as spoiled:
            return spoiled.response or web.Response()
        except web.HTTPRequestEntityTooLarge:
            message = f"Request entity too large: limit is {_BODY_LIMIT}"
            return self._refuse(entry, Refused(413, "RequestEntityTooLarge", message, details={}))
        except ConnectionError:
            # The client hung up in the middle of its answer.
            raise
        except Exception as error:  # noqa: BLE001 - the outermost frame of a request: kept for the tests, told the client
            self.errors.append(traceback.format_exc())
            why = f"the lab's API failed: {type(error).__name__}: {error}"
            message = f"Internal error occurred: {why}"
            return self._refuse(entry, Refused(500, "InternalError", message, details={"causes": [{"message": why}]}))
        finally:
            entry.finished = True
            self.journal.changed()

    def _record(self, request: web.Request) -> Entry:
        impersonation: dict[str, tuple[str, ...]] = {}
        for name, value in request.headers.items():
            if name.lower().startswith("impersonate-"):
                impersonation[name] = (*impersonation.get(name, ()), value)
        entry = Entry(
            moment=self._backend.store.clock(),
            method=request.method,
            path=request.path,
            query=dict(request.query),
            user_agent=request.headers.get("User-Agent", ""),
            impersonation=impersonation,
            audit_id=request.headers.get("Audit-Id") or str(uuid.uuid4()),
            headers=dict(request.headers),
        )
        self.journal.add(entry)
        return entry

    async def _admit(self, request: web.Request, entry: Entry) -> web.StreamResponse:
        action = self.faults.pick(request.method, request.path_qs, entry.user_agent)
        if isinstance(action, Respond):
            return self._spoken_fault(entry, action)
        if isinstance(action, Disturb) and action.after_bytes == 0 and action.reset:
            reset(request)
            return web.Response()
        certificate = request.get_extra_info("peercert")
        sender = self.policy.authenticate(request.headers.get("Authorization"), certificate)
        entry.sender = entry.user = sender.user
        identity = self.policy.impersonated(sender, request.headers.items())
        entry.user, entry.groups = identity.user, identity.groups
        store = self._backend.store
        target = parse_target(request.method, request.path, request.query, partial(served_kind, store))
        if target is None or target.plural == "":
            return await self._outside(request, entry, identity, action)
        self.policy.check(identity, target)
        upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        if target.subresource in _UPGRADES and target.verb == "get" and upgrade:
            # Since 1.35 a websocket, which is a GET, needs what a POST needs
            # (feature gate AuthorizePodWebsocketUpgradeCreatePermission).
            self.policy.check(identity, target, "create")
        exchange = Exchange(self._backend, request, target, identity, entry, action)
        return await self._dispatch(exchange)

    async def _dispatch(self, exchange: Exchange) -> web.StreamResponse:
        target, kind = exchange.target, exchange.target.kind
        if kind is None:
            return await self._review(exchange)
        if target.subresource:
            sub = next((sub for sub in kind.subresources if sub.name == target.subresource), None)
            if sub is None:
                return self._nothing(exchange.entry)
            if target.verb not in sub.verbs:
                raise replies.no_such_method()
            if sub.name in _SUBRESOURCES:
                return await _SUBRESOURCES[sub.name](exchange)
        elif target.verb not in kind.verbs or (target.verb == "create" and target.name):
            raise replies.no_such_method()
        if not kind.namespaced and target.namespace:
            return self._nothing(exchange.entry)
        if kind.namespaced and not target.namespace and target.verb not in ("list", "watch", "deletecollection"):
            return self._nothing(exchange.entry)
        return await _VERBS[target.verb](exchange, kind)

    async def _review(self, exchange: Exchange) -> web.StreamResponse:
        """Resources that store nothing: questions about oneself."""
        target, identity = exchange.target, exchange.identity
        if target.verb != "create" or target.version != "v1" or target.name:
            return self._nothing(exchange.entry)
        if (target.group, target.plural) == ("authentication.k8s.io", "selfsubjectreviews"):
            return await exchange.json(201, self_review(identity))
        body = await resources.read_body(exchange)
        check_types("SelfSubjectReview", body, REVIEW)
        if (target.group, target.plural) == ("authorization.k8s.io", "selfsubjectaccessreviews"):
            return await exchange.json(201, access_review(self.policy, identity, body))
        if (target.group, target.plural) == ("authorization.k8s.io", "selfsubjectrulesreviews"):
            return await exchange.json(201, rules_review(self.policy, identity, body))
        return self._nothing(exchange.entry)

    async def _outside(
        self, request: web.Request, entry: Entry, identity: Identity, disturbance: Disturb | None
    ) -> web.StreamResponse:
        """Paths that are no resources: discovery, health, version."""
        self.policy.check_path(identity, request.method.lower().replace("head", "get"), request.path)
        if request.path.rstrip("/") in _HEALTH:
            entry.code = 200
            return web.Response(text="ok", headers=common_headers(entry.audit_id, identity))
        body = answer(request.path, self._backend.address, custom_kinds(self._backend.store))
        if body is None or request.method not in ("GET", "HEAD"):
            return self._nothing(entry)
        exchange = Exchange(self._backend, request, Target("get", "", "", ""), identity, entry, disturbance)
        return await exchange.json(200, body)

    def _nothing(self, entry: Entry) -> web.Response:
        """What a real server says about a path that nobody serves: plain text."""
        entry.code = 404
        headers = common_headers(entry.audit_id, None) | {
            "Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff",
        }  # fmt: skip
        return web.Response(status=404, body=b"404 page not found\n", headers=headers)

    def _refuse(self, entry: Entry, refusal: Refused) -> web.Response:
        entry.code = refusal.code
        fair = not entry.path.endswith(("/log", "/exec", "/portforward"))
        identity = Identity(entry.user, entry.groups) if fair and entry.user else None
        headers = common_headers(entry.audit_id, identity) | status_headers(refusal)
        return web.Response(status=refusal.code, body=msgspec.json.encode(refusal.status()), headers=headers)

    def _spoken_fault(self, entry: Entry, action: Respond) -> web.Response:
        entry.code = action.code
        headers: dict[str, str] = common_headers(entry.audit_id, None)
        if action.retry_after is not None:
            headers["Retry-After"] = str(action.retry_after)
        if action.status is not None:
            headers["Content-Type"] = "application/json"
            return web.Response(status=action.code, body=msgspec.json.encode(action.status), headers=headers)
        headers |= {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
        return web.Response(status=action.code, body=action.text.encode(), headers=headers)


async def _stop_accepting(listeners: Sequence[socket.socket]) -> None:
    """Take no more connections, and end those whose TLS handshake is under way; call it while the servers are open.

    One that was accepted just before its server is closed is never closed itself (python/cpython#109564), and one that
    gets ready while aiohttp shuts its connections down is forgotten by it.
    """
    for listener in listeners:
        asyncio.get_running_loop().remove_reader(listener.fileno())
    for _ in range(_ROUNDS_TO_CLOSE):  # what was accepted has begun then, and hears that it is over
        await asyncio.sleep(0)
    for task in asyncio.all_tasks():
        if "_accept_connection" in getattr(task.get_coro(), "__qualname__", ""):
            task.cancel()
    for _ in range(_ROUNDS_TO_CLOSE):
        await asyncio.sleep(0)


async def _without_server_header(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A listening socket for an `ApiServer`, in the network namespace of the caller."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(512)
    return listener
