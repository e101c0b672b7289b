from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote

import pytest
import websocket

from kdnsctl.lab.api.execs import V4, V5
from kdnsctl.lab.api.server import ApiServer
from kdnsctl.lab.kinds import PODS
from kdnsctl.lab.store import Store
from tests.lab.api.client import Client
from tests.lab.api.memory_runtime import MemoryRuntime
from tests.lab.api.websockets import WebSocket

POD = "/api/v1/namespaces/default/pods/web"


def path(*command: str, stdin: bool = False, stderr: bool = True) -> str:
    query = "&".join(f"command={quote(part)}" for part in command)
    return f"{POD}/exec?{query}&stdout=true" + ("&stdin=true" if stdin else "") + ("&stderr=true" if stderr else "")


@pytest.mark.parametrize("protocol", [V5, V4])
def test_output_and_success_come_on_their_channels(client: Client, protocol: str) -> None:
    with WebSocket(client, path("sh", "-c", "echo out; echo err >&2"), [protocol]) as socket:
        assert socket.protocol == protocol
        channels = socket.receive_all()
    assert channels[1] == b"out\n"
    assert channels[2] == b"err\n"
    assert json.loads(channels[3]) == {"metadata": {}, "status": "Success"}


def test_v5_wins_when_both_are_offered(client: Client) -> None:
    with WebSocket(client, path("true"), [V5, V4]) as socket:
        assert socket.protocol == V5
        assert socket.receive() == (1, b"")


def test_the_exit_code_is_a_cause_of_the_status(client: Client) -> None:
    with WebSocket(client, path("sh", "-c", "exit 3"), [V5]) as socket:
        status = json.loads(socket.receive_all()[3])
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


def test_a_signal_counts_from_128(client: Client) -> None:
    with WebSocket(client, path("sh", "-c", "kill -9 $$"), [V5]) as socket:
        assert json.loads(socket.receive_all()[3])["details"]["causes"][0]["message"] == "137"


def test_a_command_that_is_not_there_is_an_internal_error_without_an_exit_code(client: Client) -> None:
    with WebSocket(client, path("no-such-command"), [V5]) as socket:
        status = json.loads(socket.receive_all()[3])
    assert (status["reason"], status["code"]) == ("InternalError", 500)
    assert "executable file not found in $PATH" in status["message"]
    assert "ExitCode" not in json.dumps(status)


def test_v5_ends_the_standard_input_by_message(client: Client) -> None:
    with WebSocket(client, path("cat", stdin=True), [V5]) as socket:
        socket.send(0, b"one ")
        socket.send(0, b"two")
        socket.send(255, b"\0")
        channels = socket.receive_all()
    assert channels[1] == b"one two"
    assert json.loads(channels[3])["status"] == "Success"


def test_a_command_that_stops_reading_still_ends_in_good_order(client: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with WebSocket(client, path("sh", "-c", f"exec <&-; echo closed; cat {gate}; exit 4", stdin=True), [V5]) as socket:
        assert socket.receive() == (1, b"")
        assert socket.receive() == (1, b"closed\n")
        socket.send(0, b"x" * 100_000)
        gate.write_text("open")
        channels = socket.receive_all()
    assert channels[1] == b"open"
    assert json.loads(channels[3])["details"]["causes"][0]["message"] == "4"


def test_a_client_that_hangs_up_ends_the_session(client: Client, server: ApiServer, runtime: MemoryRuntime) -> None:
    with WebSocket(client, path("cat", stdin=True), [V5]) as socket:
        assert socket.receive() == (1, b"")
    entry = server.journal.wait_for(lambda entry: entry.path.endswith("/exec") and entry.finished)
    assert entry.code == 101
    assert runtime.commands == [("cat",)]


@pytest.mark.parametrize(
    ("wanted", "code", "message"),
    [
        (f"{POD}/exec?stdout=true", 400, "you must specify at least 1 command"),
        (f"{POD}/exec?command=true", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        (f"{POD}/exec?command=true&stdout=true&container=x", 400, "container x is not valid for pod web"),
        (f"{POD}/exec?command=true&stdout=true", 400, "Upgrade request required"),
        ("/api/v1/namespaces/default/pods/no/exec?command=true&stdout=true", 404, 'pods "no" not found'),
    ],
)
def test_what_is_refused_before_the_upgrade(client: Client, wanted: str, code: int, message: str) -> None:
    for method in ("GET", "POST"):
        reply = client.send(method, wanted)
        assert reply.code == code
        assert message in reply.json["message"]


def test_a_pod_that_has_ended_or_has_no_node_takes_no_commands(client: Client, store: Store) -> None:
    pod = store.get(PODS, "web", "default")
    pod["status"]["phase"] = "Succeeded"
    store.update(PODS, pod, subresource="status")
    assert "current phase is Succeeded" in client.get(path("true")).json["message"]
    fresh = {"metadata": {"name": "fresh"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    store.create(PODS, fresh)
    reply = client.get(path("true").replace("web", "fresh"))
    assert (reply.code, reply.json["message"]) == (400, "pod fresh does not have a host assigned")


def test_the_only_container_need_not_be_named_but_one_of_several_must(client: Client, store: Store) -> None:
    containers = [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]
    store.create(PODS, {"metadata": {"name": "two"}, "spec": {"nodeName": "knode1", "containers": containers}})
    reply = client.get(path("true").replace("web", "two"))
    assert reply.json["message"] == "a container name must be specified for pod two, choose one of: [a b]"


def test_a_node_that_cannot_be_reached_is_told_on_the_error_channel(client: Client, runtime: MemoryRuntime) -> None:
    runtime.unreachable["web"] = "dial tcp 10.88.0.11:10250: connect: connection refused"
    with WebSocket(client, path("true"), [V5]) as socket:
        assert "connection refused" in json.loads(socket.receive_all()[3])["message"]


def test_binary_output_of_several_megabytes_arrives_whole(client: Client) -> None:
    with WebSocket(client, path("head", "-c", "5000000", "/dev/urandom"), [V5]) as socket:
        channels = socket.receive_all()
    assert len(channels[1]) == 5_000_000
    assert json.loads(channels[3])["status"] == "Success"


def test_the_connection_lasts_until_the_client_has_read_everything(client: Client, server: ApiServer) -> None:
    with WebSocket(client, path("echo", "out"), [V5]) as socket:
        while (opcode := socket.receive_opcode()) != websocket.ABNF.OPCODE_CLOSE:
            assert opcode == websocket.ABNF.OPCODE_BINARY
        assert client.get("/healthz").code == 200  # the server has had its turn to hang up
        (entry,) = server.journal.entries(lambda entry: entry.path.endswith("/exec"))
        assert not entry.finished
        socket.send_close()
        server.journal.wait_for(lambda entry: entry.path.endswith("/exec") and entry.finished)


def test_a_protocol_that_is_not_spoken_is_refused(client: Client) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        WebSocket(client, path("true"), ["v9.channel.k8s.io"])
    assert refusal.value.status_code == 403


def test_refusals_reach_a_websocket_client_as_the_status_of_the_handshake(client: Client) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        WebSocket(client, "/api/v1/namespaces/default/pods/no/exec?command=true&stdout=true", [V5])
    assert refusal.value.status_code == 404
