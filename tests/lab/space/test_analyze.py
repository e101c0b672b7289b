"""analyze and find-affected --live in the kernel: exactly the broken node, and exactly the entries that it has.

What is counted here to compare with is conntrack's own list, read by a program of its own words: nothing of kdnsctl's
parsers or judgement is used for it.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import Any

import pytest

from kdnsctl.lab import incident
from kdnsctl.lab.incident import Incident, Mode
from kdnsctl.lab.spacedir import LabDir
from tests.lab.conftest import Kdnsctl
from tests.lab.space.machine import eventually
from tests.lab.space.test_incident import change_entries, on_node

NODES = ("knode1", "knode2", "knode3")
SETTLE = "2s"
FLOW = re.compile(
    r"^udp +17 .*?src=(\S+) dst=10\.96\.0\.10 sport=(\d+) dport=53 .*?src=(\S+) dst=\S+ sport=53 ", re.MULTILINE
)


def stale_flows(lab: LabDir, made: Incident) -> set[tuple[str, str, str]]:
    """Client, its port, and the dead pod, of every entry on the broken node that leads to a dead pod."""
    listed = on_node(lab, made.node, "conntrack", "-L", "-p", "udp", "--orig-dst", "10.96.0.10")
    return {flow for flow in FLOW.findall(listed) if flow[2] in made.dead}


def asked(kdnsctl: Kdnsctl, lab: LabDir, *words: str, code: int) -> dict[str, Any]:
    ran = kdnsctl(*words, "--settle", SETTLE, "-o", "json", "--kubeconfig", str(lab.kubeconfig))
    assert ran.code == code, ran.err
    report = json.loads(ran.out)
    assert isinstance(report, dict)
    return report


def nodes_of(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    nodes = {node["name"]: node for node in report["nodes"]}
    assert len(nodes) == len(report["nodes"])
    return nodes


def within(lab: LabDir, made: Incident, before: set[tuple[str, str, str]], count: int) -> None:
    """An entry that was there before and after was counted; one that was there neither before nor after was not."""
    after = stale_flows(lab, made)
    assert len(before & after) <= count <= len(before | after)
    assert before & after


@pytest.mark.parametrize(("mode", "node"), list(zip(Mode, NODES, strict=True)))
def test_the_broken_node_and_no_other_with_its_entries(
    healed_after: LabDir, kdnsctl: Kdnsctl, mode: Mode, node: str
) -> None:
    lab = healed_after
    made = incident.break_dns(mode, name=lab.name, node=node, root=lab.root.parent)

    before = stale_flows(lab, made)
    report = asked(kdnsctl, lab, "analyze", "--all", code=3)
    nodes = nodes_of(report)
    assert {name: one["verdict"] for name, one in nodes.items()} == {
        name: "affected" if name == node else "clean" for name in NODES
    }
    within(lab, made, before, nodes[node]["staleEntries"])
    found = {finding["id"]: finding for finding in nodes[node]["findings"]}
    assert {"C1", "C8", "C10"} <= found.keys()
    assert {backend.partition(":")[0] for backend in found["C1"]["backends"]} <= set(made.dead)
    assert ("R2" in found) is (mode is not Mode.DELETE_FAILS)
    assert {client["namespace"] for client in found["C8"]["clients"]} == {"kdnsctl-lab"}
    assert all(client["pod"].startswith("dns-client-") for client in found["C8"]["clients"])
    assert (nodes[node]["via"], nodes[node]["complete"]) == ("exec", True)
    assert report["coverage"] == {"inScope": 3, "judged": 3, "unknown": 0, "notApplicable": 0, "scope": "full"}
    program = f"kdnsctl --kubeconfig {lab.kubeconfig}"
    assert report["nextCommands"] == [f"{program} collect {node}", f"{program} quarantine {node}"]

    before = stale_flows(lab, made)
    report = asked(kdnsctl, lab, "find-affected", "--live", code=3)
    nodes = nodes_of(report)
    assert {name for name, one in nodes.items() if one["verdict"] == "affected"} == {node}
    assert {one["verdict"] for name, one in nodes.items() if name != node} == {"clean"}
    within(lab, made, before, nodes[node]["staleEntries"])
    # Of a kube-proxy that is down the log tells nothing: it proves neither health nor a fault.
    assert nodes[node]["basis"] == ("state" if mode is Mode.DOWN else "both")
    assert bool(nodes[node]["signatures"]) is (mode is not Mode.DOWN)
    assert report["nextCommands"][0] == f"{program} analyze {node}"


def test_the_count_is_exact_when_nothing_ends_meanwhile(healed_after: LabDir, kdnsctl: Kdnsctl) -> None:
    lab = healed_after
    made = incident.break_dns(Mode.DELETE_FAILS, name=lab.name, node="knode2", root=lab.root.parent)
    change_entries(lab, made.node, "-U", "-p", "udp", "--orig-dst", "10.96.0.10", "-t", "600")
    before = stale_flows(lab, made)
    analyzed = nodes_of(asked(kdnsctl, lab, "analyze", made.node, code=3))[made.node]["staleEntries"]
    live = nodes_of(asked(kdnsctl, lab, "find-affected", "--live", made.node, code=3))[made.node]["staleEntries"]
    assert stale_flows(lab, made) == before
    assert (analyzed, live) == (len(before), len(before))
    assert len(before) > 1


def test_healed_is_clean(lab: LabDir, kdnsctl: Kdnsctl) -> None:
    incident.break_dns(Mode.DOWN, name=lab.name, node="knode1", root=lab.root.parent)
    incident.heal(name=lab.name, root=lab.root.parent)
    nodes = nodes_of(asked(kdnsctl, lab, "analyze", "--all", code=0))
    assert {(one["verdict"], one["staleEntries"], one["complete"]) for one in nodes.values()} == {("clean", 0, True)}
    assert {one["verdict"] for one in nodes_of(asked(kdnsctl, lab, "find-affected", "--live", code=0)).values()} == {
        "clean"
    }


def test_flushed_by_hand_is_clean_though_the_failure_is_still_in_the_log(
    healed_after: LabDir, kdnsctl: Kdnsctl
) -> None:
    lab = healed_after
    made = incident.break_dns(Mode.DELETE_FAILS, name=lab.name, node="knode1", root=lab.root.parent)
    for dead in made.dead:
        change_entries(lab, made.node, "-D", "-p", "udp", "--orig-dst", "10.96.0.10", "--reply-src", dead)
    assert not stale_flows(lab, made)
    one = nodes_of(asked(kdnsctl, lab, "find-affected", "--live", code=0))[made.node]
    assert (one["verdict"], one["basis"], one["reasonCode"]) == ("clean", "both", "failureLoggedStateClean")
    assert re.fullmatch(r"failure logged at \S+Z, no stale entries at \S+Z", one["reason"])


def test_only_what_is_asked_for_is_touched(lab: LabDir, kdnsctl: Kdnsctl) -> None:
    """Reading leaves no process and no file behind, and does not look at other nodes."""
    processes = {node: on_node(lab, node, "ps", "-eo", "args=") for node in NODES}
    nodes = nodes_of(asked(kdnsctl, lab, "analyze", "node/knode3", "--service", "kube-system/kube-dns", code=0))
    assert list(nodes) == ["knode3"]

    def left(node: str) -> list[str]:
        more = set(on_node(lab, node, "ps", "-eo", "args=").splitlines()) - set(processes[node].splitlines())
        return [line for line in more if any(word in line for word in ("nf_conntrack", "iptables-save", "kdnsctl-end"))]

    for node in NODES:
        assert eventually(lambda: not left(node)), left(node)  # noqa: B023  # kube-proxy may be just at it


def test_a_table_that_an_operator_saved_gives_the_same_answer(
    healed_after: LabDir, kdnsctl: Kdnsctl, tmp_path: Any
) -> None:
    lab = healed_after
    made = incident.break_dns(Mode.DELETE_FAILS, name=lab.name, node="knode3", root=lab.root.parent)
    change_entries(lab, made.node, "-U", "-p", "udp", "--orig-dst", "10.96.0.10", "-t", "600")
    folder = tmp_path / "evidence" / made.node
    folder.mkdir(parents=True)
    before = stale_flows(lab, made)
    (folder / "ct").write_text(on_node(lab, made.node, "sh", "-c", "conntrack -L -o extended,id 2>&1"))
    (folder / "rules").write_text(on_node(lab, made.node, "iptables-save", "-c"))
    live = asked(kdnsctl, lab, "analyze", made.node, code=3)
    server = kdnsctl_get(lab, "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices", "/api/v1/nodes")
    for number, body in enumerate(server):
        (tmp_path / "evidence" / f"objects-{number}").write_text(body)
    ran = kdnsctl("analyze", str(tmp_path / "evidence"), "-o", "json")
    assert ran.code == 3, ran.err
    (saved,) = json.loads(ran.out)["nodes"]
    assert (saved["name"], saved["verdict"]) == (made.node, "affected")
    # The kernel walks the table while clients change it: one reading can lack an entry that the next one has.
    within(lab, made, before, saved["staleEntries"])
    within(lab, made, before, live["nodes"][0]["staleEntries"])


def kdnsctl_get(lab: LabDir, *paths: str) -> list[str]:
    """What the lab's API says, asked with a program that is not ours."""
    server = json.loads(lab.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    token = lab.token_file.read_text().strip()
    head = ["curl", "-sS", "--fail", "--cacert", str(lab.ca_file), "-H", f"Authorization: Bearer {token}"]
    return [subprocess.run([*head, server + path], check=True, capture_output=True, text=True).stdout for path in paths]


def test_ctrl_c_while_it_waits_for_a_second_look(
    healed_after: LabDir, as_process: tuple[list[str], dict[str, str]]
) -> None:
    lab = healed_after
    made = incident.break_dns(Mode.DELETE_FAILS, name=lab.name, node="knode1", root=lab.root.parent)
    command, environment = as_process
    process = subprocess.Popen(
        [*command, "analyze", "--all", "--settle", "1h", "-o", "json", "--kubeconfig", str(lab.kubeconfig)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "looking again" in line:
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    nodes = nodes_of(json.loads(out))
    assert nodes.keys() == set(NODES)
    assert nodes[made.node]["verdict"] == "unknown"  # never clean: there is something that nobody has confirmed
    assert {one["verdict"] for name, one in nodes.items() if name != made.node} == {"clean"}
