"""A small client of the Kubernetes API for the lab's own node components: get, list, watch, write, and an informer.

JSON over HTTPS with a bearer token or a client certificate, as kubelet and kube-proxy speak to a real API server. It
knows no kinds and no paths. Refusals are raised as ApiError with the server's own status; an informer never gives up,
it lists again.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

JSON = dict[str, Any]
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
_RETRY_SECONDS = 0.5


class ApiError(Exception):
    """The API server refused or could not be asked; `code` is the HTTP status, 0 without an answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API is and who asks. Plain http:// is accepted for an API on loopback in tests."""

    server: str
    ca_file: str | None = None
    token: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class KubeClient:
    """Blocking calls; safe to share between threads (each has a connection of its own)."""

    def __init__(self, access: Access, user_agent: str) -> None:
        parts = urlsplit(access.server)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._headers = {"Accept": "application/json", "User-Agent": user_agent}
        if access.token:
            self._headers["Authorization"] = f"Bearer {access.token}"
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context(cafile=access.ca_file)
            if access.cert_file:
                self._tls.load_cert_chain(access.cert_file, access.key_file)
        self._local = threading.local()
        self._links: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close the kept connections of all threads. Streams end with their iteration."""
        while self._links:
            self._links.pop().close()

    def _connect(self, timeout: float | None) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._tls)

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> JSON:
        """One call; the decoded answer. Raises ApiError for every status from 400 on and when nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers if data is None else {**self._headers, "Content-Type": content_type}
        # A kept connection may have been closed meanwhile; only a read is repeated, on a new one.
        for fresh in (False, True):
            link: http.client.HTTPConnection | None = None if fresh else getattr(self._local, "link", None)
            reused = link is not None
            if link is None:
                link = self._connect(30.0)
                self._links.append(link)
            try:
                link.request(method, path, data, headers)
                reply = link.getresponse()
                text = reply.read()
            except (OSError, http.client.HTTPException) as error:
                link.close()
                self._links.remove(link)
                self._local.link = None
                if reused:
                    continue
                raise ApiError(0, f"{method} {path}: {str(error) or type(error).__name__}") from None
            self._local.link = link
            try:
                answer: JSON = json.loads(text) if text else {}
            except ValueError:
                answer = {"message": text.decode(errors="replace")}
            if reply.status >= 400:
                raise ApiError(reply.status, str(answer.get("message", reply.reason)))
            return answer
        raise ApiError(0, f"{method} {path}: the connection ended before an answer came")

    def get(self, path: str) -> JSON:
        return self.request("GET", path)

    def create(self, path: str, body: JSON) -> JSON:
        return self.request("POST", path, body)

    def patch(self, path: str, body: Any, content_type: str = STRATEGIC_PATCH) -> JSON:
        return self.request("PATCH", path, body, content_type)

    def delete(self, path: str, body: JSON | None = None) -> JSON:
        return self.request("DELETE", path, body)

    def watch(
        self, path: str, query: Mapping[str, str], on_open: Callable[[socket.socket], None] | None = None
    ) -> Iterator[JSON]:
        """Events from `query["resourceVersion"]` on until the server ends the stream. Raises ApiError.

        `on_open` receives the socket; shutting it down from another thread ends the iteration.
        """
        parameters = {"watch": "true", "allowWatchBookmarks": "true", **query}
        for line in self.lines(f"{path}?{urlencode(parameters)}", on_open):
            if line.strip():
                yield json.loads(line)

    def lines(
        self, path: str, on_open: Callable[[socket.socket], None] | None = None, timeout: float | None = None
    ) -> Iterator[bytes]:
        """The lines of an answer as they come: a watch or a followed log. Raises ApiError, also after `timeout` seconds
        without a line.
        """
        link = self._connect(timeout)
        reply: http.client.HTTPResponse | None = None
        try:
            link.request("GET", path, headers=self._headers)
            if on_open is not None and link.sock is not None:
                on_open(link.sock)
            reply = link.getresponse()
            if reply.status >= 400:
                raise ApiError(reply.status, reply.read().decode(errors="replace"))
            yield from reply
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ApiError(0, f"{path}: {str(error) or type(error).__name__}") from None
        finally:
            if reply is not None:
                reply.close()
            link.close()


def key_of(obj: JSON) -> str:
    """`namespace/name`, or the name of a cluster-scoped object."""
    metadata = obj["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])


class Informer:
    """A copy of one collection, kept current by list and watch in a thread of its own.

    `on_change(key, object or None)` is called in that thread for every object that is new, changed or (None) gone;
    `synced` is set once the first list was handed over. The objects are shared and must not be changed.
    """

    def __init__(
        self, client: KubeClient, path: str, on_change: Callable[[str, JSON | None], None], selector: str = ""
    ) -> None:
        self._client = client
        self._path = path
        self._on_change = on_change
        self._query = {"fieldSelector": selector} if selector else {}
        self._items: dict[str, JSON] = {}
        self._stop = threading.Event()
        self._socket: socket.socket | None = None
        self.synced = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"informer {path}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the watch; the thread ends soon after."""
        self._stop.set()
        link = self._socket
        if link is not None:
            try:
                link.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it had ended by itself

    def _remember(self, link: socket.socket) -> None:
        self._socket = link
        if self._stop.is_set():
            self.stop()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                version = self._list()
                self.synced.set()
                self._follow(version)
            except ApiError:
                # Whatever it was (410, a server that restarts, no server yet), the remedy is to list again.
                self._stop.wait(_RETRY_SECONDS)

    def _list(self) -> str:
        query = f"?{urlencode(self._query)}" if self._query else ""
        answer = self._client.get(f"{self._path}{query}")
        present = {key_of(item): item for item in answer.get("items") or ()}
        # Handed over first and remembered then: what could not be handed over is, with the next list.
        for key in [key for key in self._items if key not in present]:
            self._on_change(key, None)
            del self._items[key]
        for key, item in present.items():
            old = self._items.get(key)
            if old is None or old["metadata"].get("resourceVersion") != item["metadata"].get("resourceVersion"):
                self._on_change(key, item)
            self._items[key] = item
        return str(answer["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> None:
        while not self._stop.is_set():
            query = {**self._query, "resourceVersion": version}
            for event in self._client.watch(self._path, query, self._remember):
                obj = event["object"]
                if event["type"] == "ERROR":
                    raise ApiError(int(obj.get("code", 0)), str(obj.get("message", "")))
                version = str(obj["metadata"]["resourceVersion"])
                if event["type"] == "BOOKMARK":
                    continue
                key = key_of(obj)
                if event["type"] == "DELETED":
                    self._on_change(key, None)
                    self._items.pop(key, None)
                else:
                    self._on_change(key, obj)
                    self._items[key] = obj
                if self._stop.is_set():
                    return
