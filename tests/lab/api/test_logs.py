from __future__ import annotations

import http.client

import pytest

from kdnsctl.lab.api.server import ApiServer
from kdnsctl.lab.kinds import PODS
from kdnsctl.lab.store import Store
from tests.lab.api.client import Client
from tests.lab.api.memory_runtime import MemoryRuntime

LOG = "/api/v1/namespaces/default/pods/web/log"


@pytest.fixture
def lines(runtime: MemoryRuntime) -> None:
    """Four lines, at 12:00:00, :01, :02 and :03."""
    runtime.log("default", "web", "main", "one", "two", "three", "four")


@pytest.mark.usefixtures("lines")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", b"one\ntwo\nthree\nfour\n"),
        ("?container=main", b"one\ntwo\nthree\nfour\n"),
        ("?tailLines=2", b"three\nfour\n"),
        ("?tailLines=0", b""),
        ("?sinceTime=2026-11-23T12:00:02Z", b"three\nfour\n"),
        ("?sinceTime=2026-11-23T13:00:02%2B01:00&tailLines=1", b"four\n"),
        ("?limitBytes=5", b"one\nt"),
        ("?timestamps=true&tailLines=1", b"2026-11-23T12:00:03.000000000Z four\n"),
    ],
)
def test_options_choose_from_the_log(client: Client, query: str, expected: bytes) -> None:
    reply = client.get(LOG + query)
    assert (reply.code, reply.body) == (200, expected)


@pytest.mark.usefixtures("lines")
def test_since_seconds_count_back_from_now(client: Client, runtime: MemoryRuntime) -> None:
    runtime.now = runtime.now.replace(second=4)
    assert client.get(f"{LOG}?sinceSeconds=2").body == b"three\nfour\n"


@pytest.mark.usefixtures("lines")
def test_the_log_before_the_restart(client: Client, runtime: MemoryRuntime) -> None:
    runtime.restart("default", "web", "main")
    runtime.log("default", "web", "main", "again")
    assert client.get(LOG).body == b"again\n"
    assert client.get(f"{LOG}?previous=true&tailLines=1").body == b"four\n"


def test_a_follower_gets_lines_as_they_are_written_and_the_end(client: Client, runtime: MemoryRuntime) -> None:
    runtime.log("default", "web", "main", "before")
    response = client.open("GET", f"{LOG}?follow=true")
    assert response.readline() == b"before\n"
    runtime.log("default", "web", "main", "after")
    assert response.readline() == b"after\n"
    runtime.end("default", "web", "main")
    assert response.readline() == b""


def test_a_follower_is_connected_before_there_is_a_line(client: Client, runtime: MemoryRuntime) -> None:
    response = client.open("GET", f"{LOG}?follow=true")
    assert response.status == 200
    runtime.log("default", "web", "main", "first")
    assert response.readline() == b"first\n"


def test_a_follower_that_hangs_up_lets_go_of_the_log(client: Client, runtime: MemoryRuntime, server: ApiServer) -> None:
    client.open("GET", f"{LOG}?follow=true")
    runtime.wait_for_followers(1)
    client.hang_up()
    assert server.journal.wait_for(lambda entry: entry.path == LOG and entry.finished).code == 200
    with runtime._condition:
        assert runtime._condition.wait_for(lambda: runtime.followers == 0, 30)


def test_stopping_the_server_ends_followers(runtime: MemoryRuntime, server: ApiServer) -> None:
    with Client(server) as client:
        response = client.open("GET", f"{LOG}?follow=true")
        runtime.wait_for_followers(1)
        server.stop()
        with pytest.raises(http.client.IncompleteRead):
            response.read()
    assert runtime.followers == 0


def test_what_only_the_kubelet_knows(client: Client, runtime: MemoryRuntime) -> None:
    runtime.waiting["default", "web", "main"] = "ContainerCreating"
    waiting = client.get(LOG)
    assert waiting.code == 400
    assert waiting.json["message"] == 'container "main" in pod "web" is waiting to start: ContainerCreating'
    runtime.unreachable["web"] = 'Get "https://10.88.0.11:10250/containerLogs": connect: connection refused'
    dead = client.get(LOG)
    assert dead.code == 500
    assert "reason" not in dead.json
    assert "connection refused" in dead.json["message"]


def test_a_pod_without_a_node_has_an_empty_log(client: Client, store: Store) -> None:
    store.create(PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    reply = client.get(LOG.replace("web", "p"))
    assert (reply.code, reply.body) == (200, b"")


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("tailLines=-1", 422, "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("limitBytes=0", 422, "limitBytes: Invalid value: 0: must be greater than 0"),
        ("sinceSeconds=1&sinceTime=2026-11-23T12:00:00Z", 422, "at most one of `sinceTime` or `sinceSeconds`"),
        ("tailLines=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("follow=perhaps", 400, "ParseBool"),
        ("sinceTime=yesterday", 400, 'parsing time "yesterday"'),
    ],
)
def test_options_that_cannot_be(client: Client, query: str, code: int, message: str) -> None:
    reply = client.get(f"{LOG}?{query}")
    assert reply.code == code
    assert message in reply.json["message"]
