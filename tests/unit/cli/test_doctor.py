"""`kdnsctl doctor` as people and programs see it; what is checked is tested with `access`."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys

import pytest
import yaml

from kdnsctl.__main__ import main
from kdnsctl.access.review import PATH as REVIEWS
from tests.unit.cli.conftest import Run
from tests.unit.cli.terminals import on_terminal
from tests.unit.cluster.apiserver import Answer, Exchange, Server, recorded
from tests.unit.cluster.conftest import Kubeconfig

pytestmark = pytest.mark.usefixtures("at_home")


@pytest.fixture
def cluster(api: Server, kubeconfig: Kubeconfig) -> Server:
    kubeconfig(api.url)
    api.on("/version", recorded("version"))
    api.on(REVIEWS, allowing("list"))
    return api


def allowing(*verbs: str) -> Answer:
    def answer(exchange: Exchange) -> None:
        asked = json.loads(exchange.seen.body)["spec"]["resourceAttributes"]
        exchange.send(201, json.dumps({"status": {"allowed": asked["verb"] in verbs}}).encode())

    return answer


def test_the_table_says_what_works_and_what_to_do(cluster: Server, run: Run) -> None:
    ran = run("doctor", "find-affected", "analyze", "collect")
    lines = [line.split() for line in ran.lines]
    assert (ran.code, ran.err) == (1, "")
    assert [line[:2] for line in lines[:3]] == [["CHECK", "STATE"], ["kubeconfig", "ok"], ["credential", "ok"]]
    assert re.search(r"get pods/log in kube-system +no +the logs of kube-proxy cannot be read", ran.out)
    assert re.search(r"list nodes +yes +-", ran.out)
    assert "find-affected   fails   without get pods/log in kube-system; not --kubelet-logs" in ran.out
    assert ran.out.endswith("\nNext:\n  kdnsctl rbac find-affected analyze collect --with-live\n")
    assert "kubectl kdns rbac find-affected" in run("doctor", "find-affected", program="/usr/bin/kubectl-kdns").out
    cluster.on(REVIEWS, allowing("list", "get", "watch", "create"))
    ran = run("doctor", "find-affected")
    assert (ran.code, "Next:" in ran.out, ran.lines[-1].split()) == (0, False, ["find-affected", "works", "-"])


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("whom", "bound"),
    [
        (["--as", "jane", "--as-group", "on call"], "--bind-to user:jane --bind-to 'group:on call'"),
        (["--as", "system:serviceaccount:ops:kdns"], "--bind-to serviceaccount:ops:kdns"),
    ],
)
def test_what_somebody_else_lacks_is_granted_to_them(run: Run, whom: list[str], bound: str) -> None:
    words = run("doctor", "find-affected", *whom).lines[-1].strip()
    assert words == f"kdnsctl rbac find-affected --with-live {bound}"
    granted = run(*shlex.split(words)[1:], "-o", "json")
    kinds = [item["kind"] for item in json.loads(granted.out)["items"]]
    assert granted.code == 0
    assert {"RoleBinding", "ClusterRoleBinding"} <= set(kinds)


@pytest.mark.usefixtures("cluster")
def test_json_and_yaml_say_the_same(run: Run) -> None:
    as_json, as_yaml = json.loads(run("doctor", "-o", "json").out), yaml.safe_load(run("doctor", "-o", "yaml").out)
    assert as_json["kind"] == "DoctorReport"
    assert as_json["commands"] == as_yaml["commands"]
    assert as_json["commands"][0]["lacking"] == [
        "get pods/log in kube-system",
        "get configmaps cilium-config in kube-system",
        "get namespaces kube-system",
    ]


@pytest.mark.usefixtures("cluster")
def test_it_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = on_terminal(
        monkeypatch, lambda: main(["doctor", "find-affected", "analyze", "--color", "never"]), columns=60
    )
    assert max(map(len, screen.lines)) <= 60
    assert "the logs of kube-proxy cannot be read" in " ".join(screen.text.split())


def test_wrong_usage_is_one_line(cluster: Server, run: Run) -> None:
    ran = run("doctor", "--context", "there")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: no context 'there' in ")
    assert run("doctor", "lab").error == "error: 'lab' asks nothing of a cluster: it needs no permission"
    assert cluster.requests == []


@pytest.mark.usefixtures("broken_dns")
def test_with_a_resolver_that_hangs_it_ends_in_time(api: Server, kubeconfig: Kubeconfig, run: Run) -> None:
    kubeconfig(f"https://api.cluster.test:{api.port}")
    api.on("/version", recorded("version"))
    api.on(REVIEWS, allowing("list", "get", "watch", "create"))
    ran = run("doctor", "--request-timeout", "1s")
    assert ran.code == 1
    assert "hint: name: the DNS of this machine does not work for it" in ran.out
    assert run("doctor", "--resolve", "api.cluster.test=127.0.0.1").code == 0
    ran = run("doctor", "--request-timeout", "6s")  # the address that answered is remembered
    assert (ran.code, "using 127.0.0.1, which answered last" in ran.out) == (0, True)


def test_ctrl_c_ends_at_once_with_what_is_known(
    api: Server, kubeconfig: Kubeconfig, environment: dict[str, str]
) -> None:
    running: list[subprocess.Popen[str]] = []

    def interrupting(exchange: Exchange) -> None:
        running[0].send_signal(signal.SIGINT)
        exchange.hang()

    kubeconfig(api.url)
    api.on("/version", interrupting)
    command = [sys.executable, "-m", "kdnsctl", "doctor", "-o", "json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        running.append(process)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "interrupted; what was known by then is above\n")
    assert {check["name"]: check["state"] for check in json.loads(out)["checks"]}["server"] == "skipped"
