"""find-affected on a cluster, as a process: what it asks, what it says, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Judge, Run
from tests.unit.cluster.apiserver import Exchange, Server, hang, recorded, reply
from tests.unit.cluster.conftest import Kubeconfig
from tests.unit.find.clusters import container_log, log_path, proxied, set_up
from tests.unit.find.composing import bad, healthy

Ended = tuple[int, str, str]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(environment: dict[str, str]) -> Start:
    def start(*words: str, **variables: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "kdnsctl", "find-affected", *words]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment | variables
        )

    return start


def ended(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def two_nodes(api: Server, kubeconfig: Kubeconfig, **logs: Any) -> None:
    nodes, pods = proxied("a", "b")
    answers = {"proxy-a": container_log(bad()), "proxy-b": container_log(healthy())} | logs
    set_up(api, nodes, pods, {name.replace("_", "-"): answer for name, answer in answers.items()})
    kubeconfig(api.url)


def test_the_table_says_which_cluster_and_what_to_do_next(api: Server, kubeconfig: Kubeconfig, start: Start) -> None:
    two_nodes(api, kubeconfig)
    code, out, err = ended(start("--since-time", "2026-03-12T12:00:01Z"))
    assert (code, err) == (3, "")
    assert out.splitlines()[1].split()[:3] == ["a", "suspect", "CT_DEL_ENDPOINT(1)"]
    assert f"Cluster: here ({api.url})." in out
    assert "  ssh a sudo conntrack -L -p udp --orig-dst 10.96.0.10" in out
    log = next(request for request in api.requests if request.path == log_path("proxy-a"))
    assert log.header("Authorization") == "Bearer t0ken"


def test_options_reach_the_cluster(api: Server, kubeconfig: Kubeconfig, start: Start) -> None:
    two_nodes(api, kubeconfig, proxy_b=recorded("log-empty-window"))
    api.on("/api/v1/nodes/b/proxy/logs/kube-proxy.log", reply(b"no klog", content_type="text/plain"))
    whom = ["--as", "me", "--as-group", "ops"]
    code, out, _ = ended(start(*whom, "--since-time", "2026-03-12T12:30:00Z", "--kubelet-logs", "-o", "json", "node/b"))
    report = json.loads(out)
    assert (code, report["since"]) == (4, "2026-03-12T12:30:00.000000Z")
    assert [(node["name"], node["reasonCode"]) for node in report["nodes"]] == [("b", "noRecords")]
    assert {request.header("Impersonate-User") for request in api.requests} == {"me"}
    assert {request.header("Impersonate-Group") for request in api.requests} == {"ops"}


def test_names_for_another_command(api: Server, kubeconfig: Kubeconfig, start: Start) -> None:
    two_nodes(api, kubeconfig)
    assert ended(start("-o", "name", "--include", "suspect"))[:2] == (3, "node/a\n")


def test_ctrl_c_ends_at_once_with_what_is_known(api: Server, kubeconfig: Kubeconfig, start: Start) -> None:
    running: list[subprocess.Popen[str]] = []

    def interrupting(exchange: Exchange) -> None:
        running[0].send_signal(signal.SIGINT)
        exchange.hang()

    two_nodes(api, kubeconfig, proxy_b=interrupting)
    running.append(start("-o", "json", "--parallel", "1"))
    code, out, err = ended(running[0])
    assert code == 130
    assert err.splitlines()[-1] == "interrupted; what was known by then is above"
    verdicts = {node["name"]: (node["verdict"], node["reasonCode"]) for node in json.loads(out)["nodes"]}
    assert verdicts == {"a": ("suspect", "failureLogged"), "b": ("unknown", "cancelled")}


def test_ctrl_c_before_there_is_anything_to_know(api: Server, kubeconfig: Kubeconfig, start: Start) -> None:
    running: list[subprocess.Popen[str]] = []

    def interrupting(exchange: Exchange) -> None:
        running[0].send_signal(signal.SIGINT)
        exchange.hang()

    two_nodes(api, kubeconfig)
    api.on("/api/v1/nodes", interrupting)
    running.append(start())
    assert ended(running[0]) == (130, "", "interrupted\n")


def test_the_deadline_ends_it_with_what_is_known(api: Server, kubeconfig: Kubeconfig, start: Start) -> None:
    two_nodes(api, kubeconfig, proxy_b=hang)
    code, out, _ = ended(start("-o", "json", "--parallel", "1", "--deadline", "6s"))
    verdicts = {node["name"]: (node["verdict"], node["reasonCode"]) for node in json.loads(out)["nodes"]}
    assert (code, verdicts) == (3, {"a": ("suspect", "failureLogged"), "b": ("unknown", "deadline")})


# --- what goes wrong on the way to the cluster: one line each


def the_error(ran: Ended) -> str:
    code, out, err = ran
    first, *hints = err.splitlines()
    assert (code, out) in {(1, ""), (2, "")}, ran
    assert all(line.startswith("hint: ") for line in hints), err
    return first


def test_without_a_kubeconfig(start: Start) -> None:
    said = the_error(ended(start()))
    assert said.startswith("error: no kubeconfig: ")
    assert said.endswith("does not exist, and this is no pod")


def test_an_unreachable_server(kubeconfig: Kubeconfig, start: Start, silent_port: int) -> None:
    kubeconfig(f"https://127.0.0.1:{silent_port}")
    said = the_error(ended(start("--request-timeout", "1s")))
    assert f"127.0.0.1:{silent_port}" in said


def test_a_server_of_another_authority(api: Server, kubeconfig: Kubeconfig, start: Start, other_authority: str) -> None:
    kubeconfig(api.url, **{"certificate-authority-data": other_authority})
    assert "certificate" in the_error(ended(start()))
    assert api.requests == []


def test_a_wrong_context(api: Server, kubeconfig: Kubeconfig, start: Start) -> None:
    kubeconfig(api.url)
    said = the_error(ended(start("--context", "there")))
    assert "there" in said
    assert api.requests == []


def test_a_failing_credential_plug_in(api: Server, kubeconfig: Kubeconfig, start: Start, tmp_path: Path) -> None:
    plugin = tmp_path / "sign-in"
    plugin.write_text("#!/bin/sh\necho 'session expired' >&2\nexit 3\n")
    plugin.chmod(0o755)
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    kubeconfig(api.url, {"exec": command})
    said = the_error(ended(start()))
    assert "sign-in" in said
    assert "session expired" in said
    assert api.requests == []


def test_an_unknown_node(api: Server, kubeconfig: Kubeconfig, start: Start) -> None:
    two_nodes(api, kubeconfig)
    code, out, err = ended(start("nowhere"))
    assert (code, out) == (2, "")
    assert err.startswith("error: no node nowhere in ")
    assert not any(request.path.endswith("/log") for request in api.requests)


NOT_A_NODE = (
    "'./logs' is not a node name; write it like ip-10-0-0-1 or node/ip-10-0-0-1 (to read logs from files: --logs PATH)"
)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only-node", "a"], "--only-node has no effect without --logs; name nodes as words: NODE..."),
        (["--node", "a"], "--node has no effect without --logs; name nodes as words: NODE..."),
        (["a", "--all"], "NODE and --all exclude each other: choose nodes in one way"),
        (["-l", "x", "--all"], "--selector and --all exclude each other: choose nodes in one way"),
        (["--logs", "x", "--parallel", "3"], "--parallel has no effect with --logs"),
        (["--logs", "x", "-l", "a=b", "--deadline", "1m"], "--selector, --deadline has no effect with --logs"),
        (
            ["./logs"],
            NOT_A_NODE,
        ),
    ],
)
def test_what_does_not_go_together_is_refused(run: Run, judge: Judge, words: list[str], message: str) -> None:
    ran = run("find-affected", *words)
    assert (ran.code, ran.error) == (2, f"error: {message}")
    assert judge.asked == []
