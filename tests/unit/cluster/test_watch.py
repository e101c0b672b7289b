from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from kdnsctl.cancel import INTERRUPTED, CancelScope
from kdnsctl.cluster.errors import ForbiddenError, ServerError
from kdnsctl.cluster.objects import Node
from kdnsctl.cluster.retries import RetryPolicy
from kdnsctl.cluster.watch import Change, Event, watch
from kdnsctl.model import CancelledError
from tests.unit.cluster import apiserver
from tests.unit.cluster.apiserver import API, Answer, Exchange, Server, recorded, status
from tests.unit.cluster.conftest import Connect

QUICK = RetryPolicy(attempts=2, first=0.001, longest=0.01)
NODES = "/api/v1/nodes"


class Nodes:
    """Answers lists and watches of nodes apart: watches by the script, lists with the versions given."""

    def __init__(self, api: Server, versions: list[str], watches: list[Answer]) -> None:
        self.watched_from: list[str] = []
        self._versions = versions
        self._watches = watches
        api.on(NODES, self.answer)

    def answer(self, exchange: Exchange) -> None:
        query = exchange.seen.query
        if "watch" not in query:
            version = self._versions.pop(0) if len(self._versions) > 1 else self._versions[0]
            items = [{"metadata": {"name": f"n{version}", "resourceVersion": version}}]
            exchange.send(200, json.dumps({"metadata": {"resourceVersion": version}, "items": items}).encode())
            return
        self.watched_from.append(query["resourceVersion"][0])
        assert query["allowWatchBookmarks"] == ["true"]
        (self._watches.pop(0) if self._watches else apiserver.hang)(exchange)


def line(change: str, name: str, version: str) -> bytes:
    node = {"metadata": {"name": name, "resourceVersion": version}}
    return json.dumps({"type": change, "object": node}).encode() + b"\n"


def events(*lines: bytes, ended: bool = True) -> Answer:
    return lambda exchange: exchange.send_chunks(lines, content_type="application/json", ended=ended)


def take(source: Iterator[Event[Node]], count: int) -> list[tuple[str, str, str]]:
    return [
        (event.change.value, ",".join(node.metadata.name for node in event.items), event.resource_version)
        for _, event in zip(range(count), source, strict=False)
    ]


@pytest.fixture
def scope() -> Iterator[CancelScope]:
    with CancelScope(60) as whole:
        yield whole
        whole.cancel(INTERRUPTED)  # whatever a watch still holds open


def test_a_list_and_then_every_change(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    recording = (API / "watch-node-modified.jsonl").read_bytes()
    server = Nodes(api, ["9128"], [apiserver.chunks_then_hang(recording[:5000], recording[5000:])])
    source = watch(connect_to(api), NODES, Node, scope=scope)
    expected = [
        ("LISTED", "n9128", "9128"),
        ("ADDED", "knode3", "9129"),
        ("MODIFIED", "knode3", "9132"),
        ("MODIFIED", "knode3", "9133"),
    ]
    assert take(source, 4) == expected
    assert server.watched_from == ["9128"]


def test_a_bookmark_moves_on_without_an_object(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    recording = (API / "watch-initial-events-and-bookmark.jsonl").read_bytes()
    bookmark = recording.splitlines(keepends=True)[-1]

    def second(_: Exchange) -> None:
        scope.cancel(INTERRUPTED)

    server = Nodes(api, ["1"], [events(bookmark), second])
    source = watch(connect_to(api), NODES, Node, scope=scope, backoff=QUICK)
    assert take(source, 2) == [("LISTED", "n1", "1"), ("BOOKMARK", "", "9124")]
    with pytest.raises(CancelledError):
        take(source, 1)
    assert server.watched_from == ["1", "9124"]


def test_a_watch_is_resumed_where_it_broke_off(
    api: Server, connect_to: Connect, scope: CancelScope, notes: list[str]
) -> None:
    broken = events(line("ADDED", "a", "5"), b'{"type":"ADDED","obj', ended=False)
    server = Nodes(
        api, ["4"], [broken, status(500, "InternalError", "etcd is away"), events(line("DELETED", "a", "6"))]
    )
    source = watch(connect_to(api), NODES, Node, scope=scope, note=notes.append, backoff=QUICK)
    assert take(source, 3) == [("LISTED", "n4", "4"), ("ADDED", "a", "5"), ("DELETED", "a", "6")]
    assert server.watched_from == ["4", "5", "5"]
    assert "closed the connection" in notes[0]
    assert "etcd is away" in notes[1]
    assert all("; resuming in 0.0s" in note for note in notes)


@pytest.mark.parametrize("how", ["inside a 200", "as a status"])
def test_a_version_that_is_too_old_means_a_new_list(
    api: Server, connect_to: Connect, scope: CancelScope, how: str
) -> None:
    too_old = json.dumps(json.loads((API / "watch-expired.json").read_text())).encode() + b"\n"
    gone = events(too_old) if how == "inside a 200" else status(410, "Expired", "too old resource version")
    server = Nodes(api, ["4", "8"], [gone, events(line("MODIFIED", "a", "9"))])
    source = watch(connect_to(api), NODES, Node, scope=scope, backoff=QUICK)
    assert take(source, 3) == [("LISTED", "n4", "4"), ("LISTED", "n8", "8"), ("MODIFIED", "a", "9")]
    assert server.watched_from == ["4", "8"]


def test_where_watching_is_refused_the_list_is_polled(
    api: Server, connect_to: Connect, scope: CancelScope, notes: list[str]
) -> None:
    refused = status(403, "Forbidden", "nodes is forbidden: cannot watch")
    Nodes(api, ["4", "4", "4", "7", "9"], [refused])
    source = watch(connect_to(api), NODES, Node, scope=scope, note=notes.append, poll=0.001, backoff=QUICK)
    assert take(source, 3) == [("LISTED", "n4", "4"), ("LISTED", "n7", "7"), ("LISTED", "n9", "9")]
    (note,) = notes
    assert note.startswith(f"{NODES} cannot be watched (nodes is forbidden: cannot watch (HTTP 403")
    assert note.endswith("; it is listed every 0.001s instead")


def test_the_first_list_has_to_succeed(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on(NODES, recorded("forbidden-list-nodes"))
    with pytest.raises(ForbiddenError):
        next(watch(connect_to(api), NODES, Node, scope=scope))
    api.on(NODES, status(500, "InternalError", "broken"))
    with pytest.raises(ServerError):
        next(watch(connect_to(api), NODES, Node, scope=scope))


def test_a_server_that_ends_every_watch_at_once_is_not_asked_in_a_circle(
    api: Server, connect_to: Connect, scope: CancelScope, notes: list[str]
) -> None:
    Nodes(api, ["4"], [events(), events(), events(line("ADDED", "a", "5"))])
    source = watch(connect_to(api), NODES, Node, scope=scope, note=notes.append, backoff=QUICK)
    assert take(source, 2)[1] == ("ADDED", "a", "5")
    assert len(notes) == 2
    assert "the server ended it at once" in notes[0]


def test_cancelling_ends_a_silent_watch(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    watched = threading.Event()

    def silent(exchange: Exchange) -> None:
        exchange.send_chunks([line("ADDED", "a", "5")], ended=False)
        watched.set()
        exchange.hang()

    Nodes(api, ["4"], [silent])
    source = watch(connect_to(api), NODES, Node, scope=scope)
    take(source, 2)
    assert watched.wait(30)
    threading.Thread(target=scope.cancel).start()
    with pytest.raises(CancelledError):
        next(source)


def test_a_watch_that_falls_silent_is_begun_anew(
    api: Server, connect_to: Connect, scope: CancelScope, notes: list[str]
) -> None:
    server = Nodes(api, ["4"], [apiserver.chunks_then_hang(line("ADDED", "a", "5")), events(line("ADDED", "b", "6"))])
    source = watch(connect_to(api), NODES, Node, scope=scope, note=notes.append, backoff=QUICK, silence=1)
    assert take(source, 3)[2] == ("ADDED", "b", "6")
    assert server.watched_from == ["4", "5"]
    assert "fell silent" in notes[0]


def test_events_of_an_unknown_kind_are_passed_over(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    Nodes(api, ["4"], [events(line("RENAMED", "a", "5"), b"\n", line("ADDED", "b", "6"))])
    source = watch(connect_to(api), NODES, Node, scope=scope, backoff=QUICK)
    assert [event[0] for event in take(source, 2)] == [Change.LISTED, Change.ADDED]
