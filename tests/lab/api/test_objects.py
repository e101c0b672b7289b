from __future__ import annotations

import contextlib
import gc
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kdnsctl.lab.api.server import ApiServer, listen
from kdnsctl.lab.kinds import CONFIG_MAPS, NODES, PODS
from kdnsctl.lab.store import Store
from tests.lab.api.client import Client
from tests.lab.api.memory_runtime import MemoryRuntime

MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = {"Content-Type": "application/merge-patch+json"}


def test_create_replace_delete(client: Client) -> None:
    made = client.send("POST", MAPS, {"metadata": {"name": "a"}, "data": {"k": "1"}})
    assert (made.code, made.json["metadata"]["namespace"]) == (201, "default")
    replaced = client.send("PUT", f"{MAPS}/a", made.json | {"data": {"k": "2"}})
    assert (replaced.code, replaced.json["data"]) == (200, {"k": "2"})
    deleted = client.send("DELETE", f"{MAPS}/a")
    assert deleted.json["status"] == "Success"
    assert deleted.json["details"] == {"name": "a", "kind": "configmaps", "uid": made.json["metadata"]["uid"]}
    assert client.get(f"{MAPS}/a").code == 404


def test_a_deletion_takes_its_options_from_the_body(client: Client, store: Store) -> None:
    path = "/api/v1/namespaces/default/pods/web"
    wrong = client.send("DELETE", path, {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}})
    assert (wrong.code, wrong.json["details"]) == (409, {"name": "web", "kind": "Pod"})
    tried = client.send("DELETE", path, {"dryRun": ["All"], "gracePeriodSeconds": 5})
    assert tried.json["metadata"]["deletionGracePeriodSeconds"] == 5
    assert "deletionTimestamp" not in store.get(PODS, "web", "default")["metadata"]
    assert client.send("DELETE", f"{path}?gracePeriodSeconds=7").json["metadata"]["deletionGracePeriodSeconds"] == 7
    assert client.send("DELETE", path, {"gracePeriodSeconds": 0}).code == 200
    assert store.find(PODS, "web", "default") is None


def test_a_collection_is_deleted_by_selector(client: Client, store: Store) -> None:
    for name, label in (("a", "x"), ("b", "x"), ("c", "y")):
        client.send("POST", MAPS, {"metadata": {"name": name, "labels": {"l": label}}})
    assert client.send("DELETE", f"{MAPS}?labelSelector=l%3Dx").code == 200
    assert [item["metadata"]["name"] for item in store.select(CONFIG_MAPS, "default")] == ["c"]


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "message"),
    [
        ("POST", MAPS, {"metadata": {"name": "a", "namespace": "other"}}, 400, "the namespace of the provided object"),
        ("POST", MAPS, {"kind": "Pod", "metadata": {"name": "a"}}, 400, "cannot be handled as a ConfigMap"),
        ("POST", MAPS, {"apiVersion": "v9", "metadata": {"name": "a"}}, 400, "does not match the expected API version"),
        ("POST", MAPS, {"metadata": {}}, 422, "name or generateName is required"),
        ("POST", f"{MAPS}?dryRun=Some", {"metadata": {"name": "a"}}, 422, 'supported values: "All"'),
        ("PUT", f"{MAPS}/a", {"metadata": {"name": "b"}}, 400, "does not match the name on the URL"),
        ("GET", "/api/v1/pods?fieldSelector=spec.color%3Dred", None, 400, "field label not supported: spec.color"),
        ("GET", "/api/v1/pods?labelSelector=a%20b", None, 400, "unable to parse requirement"),
        ("GET", "/api/v1/pods?continue=nonsense", None, 400, "continue key is not valid"),
        ("GET", "/api/v1/pods?resourceVersion=abc", None, 400, "invalid syntax"),
        ("GET", "/api/v1/pods?resourceVersionMatch=Exact", None, 422, "forbidden unless resourceVersion is provided"),
        ("GET", "/api/v1/pods?watch=true&sendInitialEvents=true", None, 422, "requires setting resourceVersionMatch"),
        ("GET", "/api/v1/pods?resourceVersion=999999&resourceVersionMatch=NotOlderThan", None, 504, "Too large"),
        ("DELETE", f"{MAPS}/a", {"propagationPolicy": "Sideways"}, 422, "propagationPolicy"),
        ("POST", "/api/v1/nodes/knode1", {}, 405, "does not allow this method"),
        ("DELETE", "/api/v1/namespaces/default/pods/web/log", None, 405, "does not allow this method"),
    ],
)
def test_requests_that_cannot_be(client: Client, method: str, path: str, body: Any, code: int, message: str) -> None:
    reply = client.send(method, path, body)
    assert reply.code == code
    assert message in reply.json["message"]


@pytest.mark.parametrize(
    "path", ["/api/v1/unknowns", "/apis/batch/v1/jobs", "/nothing", "/api/v1/nodes/knode1/nothing"]
)
def test_what_is_not_served_is_not_found_in_plain_text(client: Client, path: str) -> None:
    reply = client.get(path)
    assert (reply.code, reply.body) == (404, b"404 page not found\n")


def test_media_types_that_are_not_spoken(client: Client) -> None:
    assert client.get("/api/v1/nodes", {"Accept": "application/vnd.kubernetes.protobuf"}).code == 406
    assert client.send("POST", MAPS, {}, {"Content-Type": "application/yaml"}).code == 415
    apply = {"Content-Type": "application/apply-patch+yaml"}
    assert client.send("PATCH", "/api/v1/nodes/knode1", {}, apply).code == 415
    both = {"Accept": "application/vnd.kubernetes.protobuf, application/json"}
    assert client.get("/api/v1/nodes", both).headers["content-type"] == "application/json"


def test_a_body_that_is_no_json(client: Client) -> None:
    for data, code in ((b"{", 400), (b" " * (3 * 1024 * 1024 + 1), 413)):
        connection = client.connect()
        connection.request("POST", MAPS, data, {"Content-Type": "application/json"})
        assert connection.getresponse().status == code


def test_writers_at_the_same_time_never_lose_a_write(client: Client, server: ApiServer, store: Store) -> None:
    client.send("POST", MAPS, {"metadata": {"name": "count"}, "data": {"n": "0"}})

    def count_up(_: int) -> None:
        with Client(server) as own:
            while True:
                current = own.get(f"{MAPS}/count").json
                current["data"]["n"] = str(int(current["data"]["n"]) + 1)
                if own.send("PUT", f"{MAPS}/count", current).code == 200:
                    return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count_up, range(12)))
    assert store.get(CONFIG_MAPS, "count", "default")["data"] == {"n": "12"}


def test_pages_over_http_until_the_end(client: Client) -> None:
    names, token = [], ""
    for _ in range(3):
        page = client.get(f"/api/v1/nodes?limit=1&continue={token}").json
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
    assert names == ["knode1", "knode2", "knode3"]
    assert token == ""


def test_an_exact_version_shows_the_past(client: Client, store: Store) -> None:
    version = store.version
    store.delete(NODES, "knode3")
    past = client.get(f"/api/v1/nodes?resourceVersion={version}&resourceVersionMatch=Exact").json
    assert len(past["items"]) == 3
    assert past["metadata"]["resourceVersion"] == str(version)
    assert len(client.get(f"/api/v1/nodes?resourceVersion={version}").json["items"]) == 2


def test_tables_of_watches_send_their_columns_once(client: Client) -> None:
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    events = client.events("/api/v1/nodes?watch=true", accept)
    tables = [next(events)["object"] for _ in range(3)]
    assert len(tables[0]["columnDefinitions"]) == 10
    assert [table["columnDefinitions"] for table in tables[1:]] == [None, None]
    assert [table["rows"][0]["cells"][0] for table in tables] == ["knode1", "knode2", "knode3"]
    client.send("PATCH", "/api/v1/nodes/knode2", {"spec": {"unschedulable": True}}, MERGE)
    changed = next(events)
    assert changed["type"] == "MODIFIED"
    assert changed["object"]["rows"][0]["cells"][1] == "Ready,SchedulingDisabled"


def test_a_watch_goes_on_from_a_version_and_ends_in_time(client: Client, store: Store) -> None:
    version = store.version
    client.send("POST", MAPS, {"metadata": {"name": "a"}})
    client.send("DELETE", f"{MAPS}/a")
    path = f"{MAPS}?watch=true&resourceVersion={version}&timeoutSeconds=1&allowWatchBookmarks=true"
    events = list(client.events(path))
    assert [event["type"] for event in events] == ["ADDED", "DELETED", "BOOKMARK"]
    assert events[2]["object"]["metadata"]["resourceVersion"] == str(store.version)


def test_without_being_asked_a_watch_sends_no_bookmarks(client: Client) -> None:
    path = "/api/v1/nodes?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1"
    assert [event["type"] for event in client.events(path)] == ["ADDED"] * 3


def test_quiet_watches_get_bookmarks(store: Store, runtime: MemoryRuntime) -> None:
    with ApiServer(store, runtime, [listen()], bookmark_seconds=0.01) as server, Client(server) as client:
        path = f"/api/v1/nodes?watch=true&allowWatchBookmarks=true&resourceVersion={store.version}"
        event = next(client.events(path))
    assert event["type"] == "BOOKMARK"
    assert event["object"]["kind"] == "Node"


def test_a_selector_on_a_watch_sees_objects_come_and_go(client: Client, store: Store) -> None:
    events = client.events(f"/api/v1/nodes?watch=true&labelSelector=role&resourceVersion={store.version}")
    for value in ("x", "y", None):
        client.send("PATCH", "/api/v1/nodes/knode1", {"metadata": {"labels": {"role": value}}}, MERGE)
    assert [next(events)["type"] for _ in range(3)] == ["ADDED", "MODIFIED", "DELETED"]


def test_stopping_the_server_ends_watches_and_threads(server: ApiServer) -> None:
    with Client(server) as client:
        events = client.events("/api/v1/nodes?watch=true")
        next(events)
        server.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lab-api")]


def test_stopping_the_server_ends_connections_that_are_only_being_made(server: ApiServer) -> None:
    with Client(server) as client:
        silent = [socket.create_connection(client.address) for _ in range(3)]

        def knock() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with (
                        socket.create_connection(client.address, 60) as link,
                        client.context.wrap_socket(link, server_hostname=client.address[0]),
                    ):
                        came.release()

        came = threading.Semaphore(0)
        knocking = [threading.Thread(target=knock) for _ in range(4)]
        for thread in knocking:
            thread.start()
        for _ in knocking:
            assert came.acquire(timeout=120)
        server.stop()
        for thread in knocking:
            thread.join()
        for link in silent:
            with link, contextlib.suppress(ConnectionResetError):
                assert link.recv(1) == b""
    gc.collect()  # what was left open would be complained of here


def test_the_journal_keeps_what_was_sent(client: Client, server: ApiServer) -> None:
    body = {"metadata": {"labels": {"a": "b"}}}
    headers = MERGE | {"User-Agent": "kdnsctl/0.1 incident/inc-1", "Audit-ID": "11111111-2222-3333-4444-555555555555"}
    reply = client.send("PATCH", "/api/v1/nodes/knode1?fieldManager=kdnsctl", body, headers)
    entry = server.journal.wait_for(lambda entry: entry.method == "PATCH" and entry.finished)
    assert (entry.path, dict(entry.query), entry.body, entry.code) == (
        "/api/v1/nodes/knode1", {"fieldManager": "kdnsctl"}, body, 200,
    )  # fmt: skip
    assert entry.user_agent == "kdnsctl/0.1 incident/inc-1"
    assert reply.headers["audit-id"] == entry.audit_id == headers["Audit-ID"]
    with pytest.raises(TimeoutError):
        server.journal.wait_for(lambda entry: entry.method == "TRACE", timeout=0)
