"""kdnsctl probe from this machine: an API and a DNS server on loopback, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from kdnsctl.cli import probeview
from kdnsctl.cli.terminal import Color
from kdnsctl.cluster.dns import Backend
from kdnsctl.model import Reason
from kdnsctl.probe.measure import Kind, Measured, Target
from kdnsctl.probe.queries import Attempt, Batch, Over
from tests.unit.cli.conftest import Run
from tests.unit.cli.terminals import on_terminal
from tests.unit.cluster.apiserver import Server as Api
from tests.unit.cluster.apiserver import reply, status
from tests.unit.cluster.conftest import Kubeconfig
from tests.unit.probe.servers import Server, serving

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs/schemas/ProbeReport.schema.json").read_text())
VIP = "127.77.0.1"  # loopback, where nobody listens on port 53
SLICES = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"
FAST = ("--for", "1s", "--queries", "2", "--source-port", "28530", "--rate", "100")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


@pytest.fixture(autouse=True)
def cluster(api: Api, kubeconfig: Kubeconfig, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DNS Service whose VIP answers nothing; the pod behind it does."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(api.url)))
    ports = [{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "dns-tcp", "protocol": "TCP", "port": 53}]
    spec = {"clusterIP": VIP, "clusterIPs": [VIP], "ports": ports}
    service = {"metadata": {"namespace": "kube-system", "name": "kube-dns", "uid": "u"}, "spec": spec}
    endpoint = {"addresses": ["127.0.0.1"], "conditions": {"ready": True}, "targetRef": {"name": "coredns-1"}}
    targets = [{**port, "port": server.port} for port in ports]
    api.on("/api/v1/services", reply({"items": [service]}))
    api.on(SLICES, reply({"items": [{"metadata": {}, "endpoints": [endpoint], "ports": targets}]}))
    api.on("/api/v1/namespaces/kube-system/pods", status(403, "Forbidden", "pods is forbidden"))


def test_a_service_that_does_not_answer_while_its_pod_does(run: Run, server: Server) -> None:
    ran = run("probe", *FAST)
    assert ran.code == 3, ran.err
    rows = {line.split("   ")[1].strip(): line.split() for line in ran.lines[1:6] if line.startswith("this machine")}
    assert "3/3" in rows["pod coredns-1 UDP"]
    assert any("this machine: notProgrammed: kube-system/kube-dns (127.77.0.1:53)" in line for line in ran.lines)
    assert "Connection refused" in ran.out
    assert "Whether nodes have a DNS cache of their own is not known" in ran.err
    assert "this machine: pod coredns-1 UDP: 3 of 3 answered" in ran.err
    assert [query.edns for _, query in server.asked] == [0, 0, 0, -1]


def test_for_programs_it_keeps_to_its_schema(run: Run, server: Server) -> None:
    server.over_tcp = lambda *_: []
    ran = run("probe", *FAST, "-o", "json")
    report = json.loads(ran.out)
    jsonschema.validate(report, SCHEMA)
    assert (report["here"]["result"], report["nodes"], report["coverage"]["inScope"]) == ("notProgrammed", [], 0)
    tcp = next(one for one in report["here"]["measurements"] if (one["target"], one["protocol"]) == ("pod", "TCP"))
    assert (tcp["lost"], tcp["errors"]) == (1, {"the server closed the connection": 1})


def test_where_nothing_answers_this_machine_proves_nothing_and_nodes_are_advised(run: Run, server: Server) -> None:
    server.reply = lambda *_: []
    server.over_tcp = lambda *_: []
    ran = run("probe", *FAST)
    assert ran.code == 4
    assert "unreachable" in ran.out
    assert ran.lines[-1] == "To ask from a node: kdnsctl probe --from NODE"


def test_a_service_that_is_none_of_dns_is_refused(run: Run, server: Server) -> None:
    ran = run("probe", "--service", "kube-system/other")
    assert (ran.code, ran.out) == (2, "")
    assert "no DNS Service kube-system/other: there are kube-system/kube-dns" in ran.err
    assert server.asked == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--image", "x"], "--image has no effect without --from NODE"),
        (["--ssh-user", "x"], "--ssh-user has no effect without --from NODE"),
        (["--via", "ssh"], "--via has no effect without --from NODE"),
        (["--from", "a", "--via", "exec"], "nothing to ask DNS with"),
        (["--from", "a", "--via", "pod", "--ssh-user", "x"], "--ssh-user has no effect with --via pod"),
        (["--from", "a", "--via", "ssh", "--image", "x"], "--image has no effect with --via ssh"),
        (["--name", "-x"], "is not a name"),
        (["--name", "a b"], "is not a name"),
        (["--for", "1h"], "no longer than 5m"),
        (["--timeout", "1m"], "up to 10s"),
        (["--queries", "1000"], "256"),
        (["--rate", "1000"], "100"),
        ([word for port in range(1, 40) for word in ("--source-port", str(port))], "no more than 32"),
        (["--from", "a/b/c"], "is not a node name"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(
    run: Run, api: Api, words: list[str], said: str
) -> None:
    ran = run("probe", *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert api.requests == []


def measured(address: str, lost: int = 0, *, ports: tuple[int, ...] = ()) -> Measured:
    backend = Backend(address, 53, "UDP", "dns", pod="coredns\x1b[31m")
    attempts = [Attempt(1, 1.0, 0, 1), *[Attempt(1, 9.0, error="timeout") for _ in range(lost)]]
    return Measured(Target(Kind.POD, "s", Batch(address, over=Over.UDP, ports=ports), backend), attempts)


def test_the_view_of_a_terminal_shows_what_is_lost_and_no_nodes_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")

    def call() -> int:
        with probeview.watching(Color.NEVER) as watch:
            for number in range(60):
                watch("n1", measured(f"10.0.0.{number}"), None)
            watch("n2", measured("10.0.1.1", lost=2), None)
            broken = measured("10.0.1.2")
            broken.attempts, broken.problem = [], Reason("x", "no \x1b[2Jway")
            watch("n3", broken, None)
        return 0

    screen = on_terminal(monkeypatch, call, columns=100)
    assert "n2" in screen.text
    assert "1 of 3 answered, 1.0 ms" in screen.text
    assert "not measured: no \\x1b[2Jway" in screen.text
    assert "coredns\\x1b[31m" in screen.text
    assert screen.text.count("n1 ") <= 2 * probeview.MOST_ROWS  # drawn once or twice, never all sixty rows
