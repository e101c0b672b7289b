from __future__ import annotations

import http.client
import json

import pytest

from kdnsctl.lab.api.execs import V5
from kdnsctl.lab.api.faults import Disturb, Fault, internal_error, overloaded
from kdnsctl.lab.api.server import ApiServer
from tests.lab.api.client import Client
from tests.lab.api.memory_runtime import MemoryRuntime
from tests.lab.api.websockets import WebSocket

EXEC = "/api/v1/namespaces/default/pods/web/exec?command=echo&command=0123456789&stdout=true"
LOG = "/api/v1/namespaces/default/pods/web/log"


@pytest.mark.parametrize("retry_after", [None, 3])
def test_overload_is_plain_text_and_says_when_to_come_back_or_not(
    server: ApiServer, client: Client, retry_after: int | None
) -> None:
    fault = server.faults.add(Fault(overloaded(retry_after), path="/nodes", times=2))
    for _ in range(2):
        reply = client.get("/api/v1/nodes")
        assert reply.code == 429
        assert reply.body == b"Too many requests, please try again later.\n"
        assert reply.headers.get("retry-after") == (str(retry_after) if retry_after else None)
    assert client.get("/api/v1/nodes").code == 200
    assert fault.met == 2


def test_an_internal_error_is_a_status(server: ApiServer, client: Client) -> None:
    server.faults.add(Fault(internal_error(), method="GET"))
    reply = client.get("/api/v1/nodes")
    assert (reply.code, reply.json["reason"]) == (500, "InternalError")


def test_a_fault_meets_only_whom_it_names(server: ApiServer, client: Client) -> None:
    server.faults.add(Fault(internal_error(), method="POST", times=None))
    server.faults.add(Fault(internal_error(), path="/pods", times=None))
    server.faults.add(Fault(internal_error(), user_agent="kubectl", times=None))
    server.faults.add(Fault(internal_error(), path="/nodes", after=1))
    assert client.get("/api/v1/nodes").code == 200
    assert client.get("/api/v1/nodes").code == 500
    assert client.get("/api/v1/nodes").code == 200
    assert client.get("/api/v1/nodes", {"User-Agent": "kubectl/v1"}).code == 500
    server.faults.clear()
    assert client.get("/api/v1/pods").code == 200


def test_a_reset_before_the_answer(server: ApiServer, client: Client) -> None:
    server.faults.add(Fault(Disturb(after_bytes=0)))
    with pytest.raises(OSError):
        client.get("/api/v1/nodes")
    assert client.get("/api/v1/nodes").code == 200


def test_a_reset_in_the_middle_of_the_answer(server: ApiServer, client: Client) -> None:
    server.faults.add(Fault(Disturb(after_bytes=100)))
    response = client.open("GET", "/api/v1/nodes")
    assert response.status == 200
    with pytest.raises((OSError, http.client.IncompleteRead)):
        response.read()


def test_an_answer_that_ends_too_early_looks_complete(server: ApiServer, client: Client) -> None:
    server.faults.add(Fault(Disturb(after_bytes=100, reset=False)))
    reply = client.get("/api/v1/nodes")
    assert len(reply.body) == 100
    with pytest.raises(json.JSONDecodeError):
        _ = reply.json


def test_a_log_that_breaks_off(server: ApiServer, client: Client, runtime: MemoryRuntime) -> None:
    runtime.log("default", "web", "main", "one", "two")
    server.faults.add(Fault(Disturb(after_bytes=6, reset=False), path="/log"))
    assert client.get(LOG).body == b"one\ntw"


def test_a_slow_answer_comes_in_pieces_and_whole(server: ApiServer, client: Client, runtime: MemoryRuntime) -> None:
    runtime.log("default", "web", "main", "0123456789")
    server.faults.add(Fault(Disturb(delay=0.001, piece=3)))
    assert client.get(LOG).body == b"0123456789\n"


def test_an_exec_cut_off_has_no_status(server: ApiServer, client: Client) -> None:
    server.faults.add(Fault(Disturb(after_bytes=4, reset=False), path="/exec"))
    with WebSocket(client, EXEC, [V5]) as socket:
        channels = socket.receive_all()
    assert channels == {1: b"0123"}


def test_an_exec_that_is_reset(server: ApiServer, client: Client) -> None:
    server.faults.add(Fault(Disturb(after_bytes=4), path="/exec"))
    with WebSocket(client, EXEC, [V5]) as socket, pytest.raises(Exception, match=r"(?i)reset|closed|lost|eof"):
        socket.receive_all()
