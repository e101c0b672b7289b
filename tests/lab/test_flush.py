"""repair flush on a lab's kernel: exactly the stale entries go, DNS is whole again, and rules that are wrong refuse."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.changes import journal
from kdnsctl.changes.lock import lease_name
from kdnsctl.cluster import execs
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.errors import NotFoundError
from kdnsctl.cluster.transport import Connection
from kdnsctl.lab import control, incident, measure
from kdnsctl.lab.incident import Mode
from kdnsctl.lab.kubeproxyrules import ServicePort, service_chain
from kdnsctl.lab.spacedir import LabDir
from tests.lab.conftest import Kdnsctl, Ran, lab_up
from tests.lab.space.machine import eventually

NAME = "flush"
NODE = "knode2"
VIP = "10.96.0.10"
FLUSH = ("repair", "flush", NODE, "--settle", "1s", "--yes", "-o", "json")
TUPLE = re.compile(r"^(udp|tcp) .*?src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+) .*?src=(\S+) .*? id=(\d+)")
# A UDP Service of two families that has nothing to do with DNS, and one without any endpoint.
ECHO, ECHO6, EMPTY = "10.96.0.50", "fd00:10:96::50", "10.96.0.51"
SERVES, SERVES6, DEAD, DEAD6 = "10.244.1.9", "fd00:10:244:1::9", "10.244.1.66", "fd00:10:244:1::66"
# What kube-proxy would write for it in IPv6; the lab's writes IPv4 only.
RULES6 = f"""*nat
:KUBE-SERVICES - [0:0]
:{{svc}} - [0:0]
:{{sep}} - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d {ECHO6}/128 -p udp -m comment --comment "shop/echo:echo cluster IP" -m udp --dport 7 -j {{svc}}
-A {{svc}} -m comment --comment "shop/echo:echo -> [{SERVES6}]:7" -j {{sep}}
-A {{sep}} -p udp -m comment --comment "shop/echo:echo" -m udp -j DNAT --to-destination [{SERVES6}]:7
COMMIT
"""
STALE = 10_000
HEALTHY = 90_000
HANDFUL = 5  # calls of conntrack -D for the 10,000
# From now on the program in kube-proxy's container holds its end back, as long as there is /hold, when it has deleted.
HOLD = """
ln /usr/sbin/conntrack /usr/sbin/conntrack.real && rm /usr/sbin/conntrack && cat > /usr/sbin/conntrack <<'END'
#!/bin/sh
/usr/sbin/conntrack.real "$@"
code=$?
while [ "$1" = -D ] && [ -e /hold ]; do sleep 0.1; done
exit $code
END
chmod 755 /usr/sbin/conntrack && : > /hold
"""


@pytest.fixture(scope="module")
def lab(command_home: Path) -> Iterator[LabDir]:
    with lab_up(command_home, NAME) as where:
        yield where


@pytest.fixture(autouse=True)
def speaking_to_it(lab: LabDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(lab.kubeconfig))


def on_node(lab: LabDir, *arguments: str) -> str:
    return str(control.ask(lab, {"op": "run", "node": NODE, "argv": list(arguments)})["output"])


def table(lab: LabDir) -> dict[tuple[str, ...], str]:
    """(protocol, client, destination, source port, port, reply source) → the kernel's own id, read directly."""
    listed = (on_node(lab, "conntrack", "-L", "-f", family, "-o", "id") for family in ("ipv4", "ipv6"))
    found = (TUPLE.match(line) for text in listed for line in text.splitlines())
    return {match.groups()[:6]: match[7] for match in found if match}


def insert(lab: LabDir, protocol: str, source_port: int, destination: str, backend: str, port: int = 53) -> None:
    state = ["--state", "ESTABLISHED"] if protocol == "tcp" else []
    client = "fd00:10:244:2::99" if ":" in destination else "10.244.2.99"
    on_node(
        lab,
        *("conntrack", "-I", "-p", protocol, "-s", client, "-d", destination, "--sport", str(source_port)),
        *("--dport", str(port), "-r", backend, "-q", client, "--reply-port-src", str(port)),
        *("--reply-port-dst", str(source_port), "--timeout", "600", "-u", "SEEN_REPLY,ASSURED", *state),
    )
    assert [one for one in table(lab) if one[3] == str(source_port) and one[5] == backend]


def broken(lab: LabDir, mode: Mode) -> tuple[str, ...]:
    """Break the node; the addresses that are dead."""
    return incident.break_dns(mode, name=NAME, root=lab.root.parent).dead


def heal(lab: LabDir) -> None:
    incident.heal(name=NAME, root=lab.root.parent)


def serving(lab: LabDir) -> str:
    """The address of a CoreDNS pod that the node's rules lead to."""
    found = re.search(r"--to-destination (\S+):53", on_node(lab, "iptables-save", "-t", "nat"))
    assert found is not None
    return found[1]


@contextlib.contextmanager
def connected(lab: LabDir) -> Iterator[tuple[Connection, CancelScope]]:
    with CancelScope(60) as scope:
        options = ConnectOptions(kubeconfig=str(lab.kubeconfig), environment={"PATH": os.environ["PATH"]})
        with contextlib.closing(connect(options, scope)) as connection:
            yield connection, scope


def in_kube_proxy(lab: LabDir, script: str) -> None:
    """Run a script in the container of the kube-proxy on the broken node."""
    made = incident.current(lab)
    assert made is not None
    said = bytearray()
    with connected(lab) as (connection, scope):
        request = execs.ExecRequest("kube-system", made.kube_proxy, "kube-proxy", ("sh", "-c", script))
        end = execs.run(connection, request, stdout=said.extend, stderr=said.extend, scope=scope)
    assert end.exit_code == 0, said


def create(lab: LabDir, path: str, body: Mapping[str, object]) -> None:
    with connected(lab) as (connection, scope):
        connection.request("POST", path, body=json.dumps(body).encode(), scope=scope)


def other_services(lab: LabDir, tmp_path: Path) -> None:
    """shop/echo, with an endpoint for each family and rules for both; shop/empty, with none."""
    create(lab, "/api/v1/namespaces", {"metadata": {"name": "shop"}})
    for name, addresses in (("echo", [ECHO, ECHO6]), ("empty", [EMPTY])):
        ports = [{"name": "echo", "protocol": "UDP", "port": 7}]
        spec = {"clusterIP": addresses[0], "clusterIPs": addresses, "ports": ports}
        create(lab, "/api/v1/namespaces/shop/services", {"metadata": {"name": name}, "spec": spec})
    for family, address in (("IPv4", SERVES), ("IPv6", SERVES6)):
        labels = {"kubernetes.io/service-name": "echo"}
        metadata = {"name": f"echo-{family.lower()}", "labels": labels}
        endpoints = [{"addresses": [address], "conditions": {"ready": True, "serving": True, "terminating": False}}]
        ports = [{"name": "echo", "protocol": "UDP", "port": 7}]
        body = {"metadata": metadata, "addressType": family, "endpoints": endpoints, "ports": ports}
        create(lab, "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices", body)
    port = ServicePort("shop/echo:echo", "UDP", ECHO6, 7)
    chains = {"svc": service_chain(port), "sep": "KUBE-SEP-AAAAAAAAAAAAAAAA"}
    rules = tmp_path / "rules6"
    rules.write_text(RULES6.format(**chains), encoding="ascii")
    on_node(lab, "sh", "-c", f"ip6tables-restore --noflush < {rules}")


def forget_locks(lab: LabDir) -> None:
    """The lock of a run that was killed ends by itself, after a minute that no test should wait."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{lease_name(NODE)}"
    with connected(lab) as (connection, scope), contextlib.suppress(NotFoundError):
        connection.request("DELETE", path, scope=scope)


def node_of(ran: Ran) -> dict[str, object]:
    (node,) = json.loads(ran.out)["nodes"]
    assert isinstance(node, dict)
    return node


def steps(home: Path, name: str) -> list[journal.Record]:
    return list(journal.read(home / "kdnsctl" / "incidents" / name / "journal.jsonl").records)


def test_exactly_the_stale_entries_go_and_dns_is_whole_again(
    lab: LabDir, kdnsctl: Kdnsctl, home: Path, tmp_path: Path
) -> None:
    try:
        other_services(lab, tmp_path)  # before: kube-proxy cleans up once for a UDP Service that is new
        dead = broken(lab, Mode.DELETE_FAILS)
        before_dns = {(one.node, one.kind): one.percent for one in measure.measure(lab, 3, 4)}
        assert before_dns[NODE, "fixed"] == 0
        alive = serving(lab)
        insert(lab, "udp", 40000, VIP, alive)  # a flow that works
        insert(lab, "tcp", 40001, VIP, dead[0])  # healthy nodes have such
        insert(lab, "udp", 40002, "10.96.0.99", dead[0])  # the same endpoint, and another Service's address
        others = ((ECHO, SERVES), (ECHO6, SERVES6), (ECHO, DEAD), (ECHO6, DEAD6), (EMPTY, DEAD))
        for number, (destination, backend) in enumerate(others):
            insert(lab, "udp", 40100 + number, destination, backend, 7)
        before = table(lab)
        stale = {one for one in before if one[0] == "udp" and one[2] == VIP and one[5] in dead}
        assert stale

        ran = kdnsctl(*FLUSH)
        assert ran.code == 0, ran.err
        after = table(lab)
        assert {one for one in after if one[4] == "7"} == {one for one in before if one[4] == "7"}
        assert {one for one in after if one[0] == "udp" and one[2] == VIP and one[5] in dead} == set()
        for kept in (
            ("udp", VIP, alive, "40000"),
            ("tcp", VIP, dead[0], "40001"),
            ("udp", "10.96.0.99", dead[0], "40002"),
        ):
            (entry,) = [one for one in before if (one[0], one[2], one[5], one[3]) == kept]
            assert after[entry] == before[entry], kept

        node = node_of(ran)
        assert (node["result"], node["verdictBefore"], node["verdict"], node["via"]) == (
            "repaired",
            "affected",
            "clean",
            "exec",
        )
        records = steps(home, json.loads(ran.out)["incident"])
        begun = {record.number: record.body["step"]["args"] for record in records if record.kind == "stepBegun"}
        assert {args["replySource"] for args in begun.values()} <= set(dead)
        parts = [record.body for record in records if record.kind == "stepPart"]
        told = {(begun[part["of"]]["replySource"], *flow) for part in parts for flow in part["flows"]}
        assert len(told) == node["deletedEntries"]
        assert {(backend, client, int(port)) for _, client, _, port, _, backend in stale} & told
        assert ("tcp", 40001) not in {(flow[0], flow[2]) for flow in told}

        assert {one.percent for one in measure.measure(lab, 3, 4)} == {100}
        again = kdnsctl(*FLUSH)
        assert (again.code, node_of(again)["result"], json.loads(again.out)["incident"]) == (0, "nothingToDo", None)
        (plan,) = json.loads(kdnsctl(*FLUSH[:-3], "--dry-run=client", "-o", "json").out)["nodes"]
        assert (plan["steps"], plan["notes"][-1]) == ([], "conntrack would be run by exec")

        _another_service_is_flushed_by_its_name_in_both_families(lab, kdnsctl)
        refused = kdnsctl(*FLUSH, "--service", "shop/empty")
        assert (refused.code, node_of(refused)["reason"]["code"]) == (5, "noEndpoints")  # type: ignore[index]
        assert [one for one in table(lab) if one[2] == EMPTY]

        asked = kdnsctl(*FLUSH, "--tcp")
        assert (asked.code, node_of(asked)["deletedEntries"]) == (0, 1)
        assert not [one for one in table(lab) if one[0] == "tcp" and one[3] == "40001"]
    finally:
        heal(lab)


def _another_service_is_flushed_by_its_name_in_both_families(lab: LabDir, kdnsctl: Kdnsctl) -> None:
    before = {one: id_ for one, id_ in table(lab).items() if one[2] in (ECHO, ECHO6)}
    ran = kdnsctl(*FLUSH, "--service", "shop/echo")
    assert ran.code == 0, ran.err
    node = node_of(ran)
    assert (node["result"], node["deletedEntries"], json.loads(ran.out)["services"]) == ("repaired", 2, ["shop/echo"])
    assert node["probe"] == {"well": None, "message": "no DNS Service was repaired, so none was asked"}
    after = {one: id_ for one, id_ in table(lab).items() if one[2] in (ECHO, ECHO6)}
    assert after == {one: id_ for one, id_ in before.items() if one[5] in (SERVES, SERVES6)}
    assert len(after) == 2


@pytest.mark.parametrize(
    ("mode", "told", "advice"),
    [
        (Mode.DOWN, "every deleted entry would come back", f"kdnsctl repair restart-kube-proxy {NODE}"),
        (Mode.RESTORE_FAILS, "rules cannot be written: ", "Remove the cause first"),
    ],
    ids=["down", "restore-fails"],
)
def test_rules_that_lead_to_the_dead_refuse(lab: LabDir, kdnsctl: Kdnsctl, mode: Mode, told: str, advice: str) -> None:
    try:
        dead = broken(lab, mode)
        port = 40003 + list(Mode).index(mode)
        insert(lab, "udp", port, VIP, dead[0])
        ran = kdnsctl(*FLUSH)
        node = node_of(ran)
        assert (ran.code, node["result"], node["deletedEntries"], node["changed"]) == (5, "refused", 0, False)
        reason, advised = node["reason"], node["advice"]
        assert isinstance(reason, dict)
        assert told in reason["message"]
        assert advice in f"{advised} {node['commands']}"
        assert [one for one in table(lab) if one[3] == str(port) and one[5] == dead[0]]
    finally:
        heal(lab)


def filled(lab: LabDir, tmp_path: Path, dead: str, alive: str, stale: int, healthy: int) -> None:
    """Put entries into the node's table, by conntrack's own loading."""

    def line(number: int, destination: str, backend: str) -> str:
        client, port = f"10.244.{200 + number // 50_000}.7", 10_000 + number % 50_000
        return (
            f"-A -t 900 -u SEEN_REPLY,ASSURED -s {client} -d {destination} -r {backend} -q {client} -p udp "
            f"--sport {port} --dport 53 --reply-port-src 53 --reply-port-dst {port}\n"
        )

    lines = [line(number, VIP, dead) for number in range(stale)]
    lines += [line(stale + number, "10.96.0.77" if number % 2 else VIP, alive) for number in range(healthy)]
    entries = tmp_path / "entries"
    entries.write_text("".join(lines), encoding="ascii")
    on_node(lab, "conntrack", "-R", str(entries))


def test_ten_thousand_of_a_hundred_thousand_go_in_a_handful_of_calls(
    lab: LabDir, kdnsctl: Kdnsctl, home: Path, tmp_path: Path
) -> None:
    try:
        dead = broken(lab, Mode.DELETE_FAILS)
        filled(lab, tmp_path, dead[0], serving(lab), STALE, HEALTHY)
        total = int(on_node(lab, "cat", "/proc/sys/net/netfilter/nf_conntrack_count"))
        assert total >= STALE + HEALTHY
        ran = kdnsctl(*FLUSH)
        assert ran.code == 0, ran.err
        deleted = node_of(ran)["deletedEntries"]
        assert isinstance(deleted, int)
        assert deleted >= STALE
        records = steps(home, json.loads(ran.out)["incident"])
        assert len([one for one in records if one.kind == "stepBegun"]) <= HANDFUL
        flows = [tuple(flow) for one in records if one.kind == "stepPart" for flow in one.body["flows"]]
        assert len(flows) == deleted
        assert int(on_node(lab, "cat", "/proc/sys/net/netfilter/nf_conntrack_count")) >= HEALTHY
    finally:
        on_node(lab, "conntrack", "-F")
        heal(lab)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_ended_in_the_middle_the_journal_tells_what_went_and_a_second_run_goes_on(
    lab: LabDir,
    as_process: tuple[list[str], dict[str, str]],
    kdnsctl: Kdnsctl,
    home: Path,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    command, environment = as_process
    name = f"ended-{number.value}"
    place = home / "kdnsctl" / "incidents" / name / "journal.jsonl"

    def told() -> int:
        if not place.exists():
            return 0
        return sum(len(one.body["flows"]) for one in journal.read(place).records if one.kind == "stepPart")

    def of_the_first_group() -> list[tuple[str, ...]]:
        return [one for one in table(lab) if one[2] == VIP and one[5] == dead[0] and one[1].startswith("10.244.200.")]

    try:
        dead = broken(lab, Mode.DELETE_FAILS)
        filled(lab, tmp_path, dead[0], serving(lab), 2_500, 0)
        insert(lab, "udp", 40010, VIP, dead[1])
        in_kube_proxy(lab, HOLD)
        with subprocess.Popen(
            [*command, *FLUSH, "--incident", name],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            assert eventually(lambda: told() >= 2_000)
            # What conntrack has not yet deleted it would leave, when nobody reads any more what it says.
            assert eventually(lambda: not of_the_first_group())
            running.send_signal(number)
            out, _ = running.communicate(timeout=120)
        in_kube_proxy(lab, "rm /hold")
        if number is signal.SIGINT:
            assert running.returncode == 130
            (node,) = json.loads(out)["nodes"]
            assert (node["result"], node["changed"]) == ("failed", True)
        assert not of_the_first_group()
        assert [one for one in table(lab) if one[3] == "40010"]  # its group's turn had not come

        forget_locks(lab)
        ran = kdnsctl(*FLUSH, "--incident", name)
        assert ran.code == 0, ran.err
        assert node_of(ran)["result"] == "repaired"
        assert not [one for one in table(lab) if one[3] == "40010"]
    finally:
        heal(lab)
