"""find-affected on a cluster, as a process: what it asks, what it says, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import trustme

from tests.unit.cli.conftest import Judge, Run
from tests.unit.cluster.apiserver import Exchange, Server, recorded, reply, status
from tests.unit.cluster.conftest import Kubeconfig, encoded, server_tls
from tests.unit.find.clusters import container_log, log_path, proxied, set_up
from tests.unit.find.composing import bad, healthy

NOW = datetime.now(UTC)  # certificates are judged by the clock of this machine
ENDED_YESTERDAY: dict[str, Any] = {"not_before": NOW - timedelta(days=9), "not_after": NOW - timedelta(days=1)}
Ended = tuple[int, str, str]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(environment: dict[str, str]) -> Start:
    def start(*words: str, module: str = "kdnsctl", **variables: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", module, "find-affected", *words]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | variables,
        )

    return start


def ended(process: subprocess.Popen[str], stdin: str = "") -> Ended:
    out, err = process.communicate(stdin, timeout=120)
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


def test_the_deadline_ends_it_at_once_with_what_is_known(api: Server, kubeconfig: Kubeconfig, start: Start) -> None:
    running: list[subprocess.Popen[str]] = []

    def too_late(exchange: Exchange) -> None:
        running[0].send_signal(signal.SIGUSR1)
        exchange.hang()

    two_nodes(api, kubeconfig, proxy_b=too_late)
    words = ["-o", "json", "--parallel", "1", "--deadline", "6s"]
    running.append(start(*words, module="tests.unit.cli.with_a_deadline"))
    code, out, _ = ended(running[0])
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


def test_a_server_whose_certificate_has_expired(authority: trustme.CA, kubeconfig: Kubeconfig, start: Start) -> None:
    certificate = authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA, **ENDED_YESTERDAY)
    with Server(server_tls(certificate)) as server:
        kubeconfig(server.url)
        assert "has expired" in the_error(ended(start()))
        assert server.requests == []


def test_a_client_certificate_that_has_expired(
    api: Server, authority: trustme.CA, kubeconfig: Kubeconfig, start: Start
) -> None:
    leaf = authority.issue_cert(common_name="me", key_type=trustme.KeyType.ECDSA, **ENDED_YESTERDAY)
    certificate, key = leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()
    kubeconfig(api.url, {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)})
    api.on("/api/v1/nodes", status(401, "Unauthorized", "Unauthorized"))
    code, out, err = ended(start())
    assert (code, out) == (1, "")
    assert re.search(r"hint: the client certificate of user u in .* expired on .*; sign in again", err)


def test_a_credential_plug_in_that_hangs(api: Server, kubeconfig: Kubeconfig, start: Start, tmp_path: Path) -> None:
    fifo = tmp_path / "never-written"
    os.mkfifo(fifo)
    command = {"apiVersion": V1, "command": "cat", "args": [str(fifo)], "interactiveMode": "Never"}
    kubeconfig(api.url, {"exec": command})
    said = the_error(ended(start("--request-timeout", "1s")))
    assert re.match(r"error: the credential plug-in did not finish within \S+: cat ", said)
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
    command = {"apiVersion": V1, "command": str(plugin), "interactiveMode": "Never"}
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


# --- an operator machine whose resolver hangs


@pytest.mark.usefixtures("broken_dns")
def test_a_resolver_that_hangs(api: Server, kubeconfig: Kubeconfig, run: Run) -> None:
    two_nodes(api, kubeconfig)
    kubeconfig(f"https://api.cluster.test:{api.port}")
    ran = run("find-affected", "--request-timeout", "1s")
    assert (ran.code, ran.out, api.requests) == (1, "", [])
    said, hint = ran.err.splitlines()
    assert said.startswith("error: cannot resolve api.cluster.test: the resolver did not answer within ")
    assert hint == "hint: if you know its address: --resolve api.cluster.test=ADDRESS"
    given = run("find-affected", "--resolve", "api.cluster.test=127.0.0.1", "-o", "json")
    remembered = run("find-affected", "--request-timeout", "6s", "-o", "json")
    assert (given.code, remembered.code) == (3, 3)
    assert [node["verdict"] for node in json.loads(remembered.out)["nodes"]] == ["suspect", "clean"]
    assert "using 127.0.0.1, which answered last at" in remembered.err


# --- which nodes: from standard input


def test_names_from_standard_input_are_the_scope(api: Server, kubeconfig: Kubeconfig, start: Start) -> None:
    two_nodes(api, kubeconfig)
    code, out, _ = ended(start("-", "-o", "json"), "node/b\n\n")
    assert (code, [node["name"] for node in json.loads(out)["nodes"]]) == (0, ["b"])
    assert log_path("proxy-a") not in {request.path for request in api.requests}


def test_a_report_is_judged_again(api: Server, kubeconfig: Kubeconfig, start: Start) -> None:
    two_nodes(api, kubeconfig)
    _, report, _ = ended(start("-o", "json"))
    code, out, err = ended(start("-"), report)
    assert (code, out) == (0, "")
    assert err.splitlines() == [
        "note: 1 suspect node of the report left out; --include suspect takes it too",
        "nothing to do: standard input names no node",
    ]
    asked = len(api.requests)
    code, out, _ = ended(start("-", "--include", "suspect", "-o", "name"), report)
    assert (code, out) == (3, "node/a\n")
    assert len(api.requests) > asked


@pytest.mark.parametrize("form", ["table", "name", "json"])
def test_empty_standard_input_is_nothing_to_do(
    api: Server, kubeconfig: Kubeconfig, start: Start, pytestconfig: pytest.Config, form: str
) -> None:
    two_nodes(api, kubeconfig)
    code, out, err = ended(start("-", "-o", form))
    assert (code, err) == (0, "nothing to do: standard input names no node\n")
    assert api.requests == []
    if form != "json":
        assert out == ""
        return
    schema = json.loads((pytestconfig.rootpath / "docs/schemas/FindReport.schema.json").read_text())
    jsonschema.validate(json.loads(out), schema)


def test_a_name_that_no_node_has_is_an_error_before_anything_is_read(
    api: Server, kubeconfig: Kubeconfig, start: Start
) -> None:
    two_nodes(api, kubeconfig)
    code, out, err = ended(start("-"), "a\nnowhere\n")
    assert (code, out) == (2, "")
    assert err.startswith("error: no node nowhere in ")
    assert not any(request.path.endswith("/log") for request in api.requests)
    code, out, err = ended(start("-"), "a b\n")
    assert (code, out) == (2, "")
    assert err.startswith("error: line 1 of standard input: 'a b' is not a node name")


V1 = "client.authentication.k8s.io/v1"
ONLY_NAMES = "only -o name leaves suspects out"
NOT_A_NODE = (
    "'./logs' is not a node name; write it like ip-10-0-0-1 or node/ip-10-0-0-1 (to read logs from files: --logs PATH)"
)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only-node", "a"], "--only-node has no effect without --logs; name nodes as words: NODE..."),
        (["--node", "a"], "--node has no effect without --logs; name nodes as words: NODE..."),
        (["a", "--all"], "NODE and --all exclude each other: choose nodes in one way"),
        (["a", "-"], "NODE and - exclude each other: choose nodes in one way"),
        (["-", "--all"], "- and --all exclude each other: choose nodes in one way"),
        (["-o", "json", "--include", "suspect"], f"--include has no effect with -o json: {ONLY_NAMES}"),
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


@pytest.mark.parametrize("option", ["--live-parallel", "--settle"])
def test_options_of_live_need_it(run: Run, option: str) -> None:
    ran = run("find-affected", option, "3" if option == "--live-parallel" else "3s")
    assert (ran.code, f"{option} has no effect without --live" in ran.err) == (2, True)
    ran = run("find-affected", "--logs", ".", "--live")
    assert (ran.code, "--live has no effect with --logs" in ran.err) == (2, True)
