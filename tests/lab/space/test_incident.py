"""The incident in the kernel: the three ways to fail show exactly what the design's table says, and heal again."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from kdnsctl.lab import control, incident, space
from kdnsctl.lab.clients import HELD_PORT
from kdnsctl.lab.incident import Mode
from kdnsctl.lab.kubeclient import KubeClient
from kdnsctl.lab.measure import Success, a_share_is_lost, measure
from kdnsctl.lab.spacedir import LabDir, LabError, lab_dir
from tests.lab.space.machine import ROOT, eventually

POST = re.compile(
    r'cleanup\.go:99\] "Failed to delete endpoint connections" err="error deleting conntrack entries for UDP peer '
    r"\{10\.96\.0\.10, (?P<dead>[\d.]+)\}, error: conntrack command returned: "
    r"\\\"conntrack v1\.4\.7 \(conntrack-tools\): Operation failed: such conntrack doesn't exist\\\\n\\\", "
    r'error message: exit status 1" servicePortName="kube-system/kube-dns:dns"$'
)


def on_node(lab: LabDir, node: str, *argv: str) -> str:
    output = control.ask(lab, {"op": "run", "node": node, "argv": list(argv)})["output"]
    assert isinstance(output, str)
    return output


def change_entries(lab: LabDir, node: str, *argv: str) -> None:
    """Run `conntrack -D` or `-U` to its end: up to 1.4.7 it stops where an entry expires under its hands."""

    def is_through() -> bool:
        try:
            on_node(lab, node, "conntrack", *argv)
        except LabError as error:
            if "such conntrack doesn't exist" in str(error):
                return False
            if " 0 flow entries have been " not in str(error):  # they all went, or were changed, the last time
                raise
        return True

    assert eventually(is_through)


def log_of(lab: LabDir, node: str, since: str = "") -> list[str]:
    """Lines of the node's kube-proxy log file, without the runtime's prefix, from the second after `since` on."""
    files = sorted((lab.node_log(node) / "pods").glob("kube-system_kube-proxy-*/kube-proxy/*.log"))
    lines = [line for file in files for line in file.read_text().splitlines()]
    return [line.split(" ", 3)[3] for line in lines if line > since]


def percents(successes: tuple[Success, ...]) -> dict[tuple[str, str], int]:
    return {(each.node, each.kind): each.percent for each in successes}


def assert_others_well(seen: dict[tuple[str, str], int], broken: str) -> None:
    assert {value for (node, _), value in seen.items() if node != broken} == {100}


def test_failed_deletion_kills_the_held_port_and_says_so(healed_after: LabDir) -> None:
    lab = healed_after
    made = incident.break_dns(Mode.DELETE_FAILS, name=lab.name, node="knode2", root=lab.root.parent)
    seen = percents(measure(lab, 3, 4))
    assert seen["knode2", "fixed"] == 0
    assert seen["knode2", "fresh"] == 100
    assert_others_well(seen, "knode2")
    assert {match["dead"] for line in log_of(lab, "knode2") if (match := POST.search(line))} == set(made.dead)
    for other in ("knode1", "knode3"):
        assert not any("Failed to delete" in line for line in log_of(lab, other))
    entries = on_node(
        lab, "knode2", "conntrack", "-L", "-p", "udp", "--orig-dst", "10.96.0.10", "--orig-port-src", str(HELD_PORT)
    )
    sources = re.findall(r"src=(\S+)", entries)
    assert sources[1] in made.dead
    rules = on_node(lab, "knode2", "iptables-save", "-t", "nat")
    assert not any(f"--to-destination {dead}:53" in rules for dead in made.dead)


def test_stopped_kube_proxy_kills_all_ports_in_silence(healed_after: LabDir, api: KubeClient) -> None:
    lab = healed_after
    made = incident.break_dns(Mode.DOWN, name=lab.name, node="knode3", root=lab.root.parent)
    seen = percents(measure(lab, 3, 4))
    assert (seen["knode3", "fixed"], seen["knode3", "fresh"]) == (0, 0)
    assert_others_well(seen, "knode3")
    assert log_of(lab, "knode3")
    # It was stopped before the first new pod was made. What it says until then is of the time before.
    pods = api.get("/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app%3Dkube-dns")["items"]
    assert log_of(lab, "knode3", min(pod["metadata"]["creationTimestamp"] for pod in pods)) == []
    rules = on_node(lab, "knode3", "iptables-save", "-t", "nat")
    assert all(f"--to-destination {dead}:53" in rules for dead in made.dead)


def test_failing_restore_kills_the_held_port_and_a_share_of_the_others(healed_after: LabDir) -> None:
    lab = healed_after
    made = incident.break_dns(Mode.RESTORE_FAILS, name=lab.name, node="knode1", root=lab.root.parent)
    seen = percents(measure(lab, 3, 6, 60, a_share_is_lost("knode1")))
    assert seen["knode1", "fixed"] == 0
    assert 0 < seen["knode1", "fresh"] < 100
    assert_others_well(seen, "knode1")
    said = "\n".join(log_of(lab, "knode1"))
    assert re.search(r'"Failed to execute iptables-restore" err=<\n\texit status 2: ', said)
    assert "Couldn't load match" in said
    assert '"Sync failed" retryingTime="30s"' in said
    rules = on_node(lab, "knode1", "iptables-save", "-t", "nat")
    assert f"--to-destination {made.dead[0]}:53" in rules


def test_healing_answers_again_and_leaves_no_stale_entry(lab: LabDir) -> None:
    made = incident.break_dns(Mode.DELETE_FAILS, name=lab.name, node="knode1", root=lab.root.parent)
    assert incident.current(lab) == made
    healed = incident.heal(name=lab.name, root=lab.root.parent)
    assert healed == made
    assert set(percents(measure(lab, 3, 4)).values()) == {100}
    entries = on_node(lab, "knode1", "conntrack", "-L", "-p", "udp", "--orig-dst", "10.96.0.10")
    assert not any(f"src={dead} " in entries for dead in made.dead)
    assert incident.heal(name=lab.name, root=lab.root.parent) is None


def test_a_node_that_meets_the_fault_by_chance_is_spared(healed_after: LabDir) -> None:
    lab = healed_after

    def fault(*, active: bool) -> None:
        control.ask(lab, {"op": "fault", "node": "knode3", "fault": "conntrack", "active": active})

    def end_with_the_moment() -> None:
        assert eventually(lambda: any("Failed to delete endpoint" in line for line in log_of(lab, "knode3")), 60)
        fault(active=False)

    moment = threading.Thread(target=end_with_the_moment)
    fault(active=True)
    moment.start()
    try:
        incident.break_dns(Mode.DELETE_FAILS, name=lab.name, node="knode2", root=lab.root.parent)
    finally:
        moment.join()
        fault(active=False)
    seen = percents(measure(lab, 3, 4))
    assert (seen["knode2", "fixed"], seen["knode2", "fresh"]) == (0, 100)
    assert_others_well(seen, "knode2")


def test_a_broken_lab_is_not_broken_twice(healed_after: LabDir) -> None:
    lab = healed_after
    incident.break_dns(Mode.DOWN, name=lab.name, node="knode1", root=lab.root.parent)
    with pytest.raises(LabError, match="broken already"):
        incident.break_dns(Mode.DELETE_FAILS, name=lab.name, node="knode2", root=lab.root.parent)


def test_chains_are_named_as_kube_proxy_names_them(lab: LabDir) -> None:
    def nat_chains(text: str) -> set[str]:
        table = text.partition("*nat\n")[2].partition("COMMIT")[0]
        return {line[1:].split()[0] for line in table.splitlines() if line.startswith(":")}

    recorded = nat_chains((ROOT / "tests/recordings/node/iptables-nft-save-stale.txt").read_text())
    ours = nat_chains(on_node(lab, "knode1", "iptables-save"))
    endpoints = {name for name in ours | recorded if name.startswith("KUBE-SEP-")}
    assert ours - endpoints == recorded - endpoints
    # The API's endpoint has the recorded cluster's address, so its chain has the recorded name.
    assert "KUBE-SEP-W36FRA56OEZK7PPT" in ours


@pytest.mark.parametrize("mode", list(Mode))
def test_kube_proxy_1_36_fails_in_its_own_words(labs: Path, mode: Mode) -> None:
    name = f"new-{mode.value}"
    try:
        space.up(space.UpOptions(name=name, nodes=2, kube_proxy_version="v1.36.2", root=labs))
        lab = lab_dir(name, labs)
        incident.break_dns(mode, name=name, root=labs)
        seen = percents(measure(lab, 2, 4))
        said = "\n".join(log_of(lab, "knode2"))
        assert seen["knode2", "fixed"] == 0
        assert_others_well(seen, "knode2")
        assert "Failed to delete endpoint connections" not in said
        failure = {
            Mode.DELETE_FAILS: 'cleanup.go:151] "Failed to clear all conntrack entries" err="error deleting conntrack ',
            Mode.RESTORE_FAILS: 'proxier.go:1406] "Failed to execute iptables-restore" err=<\n',
        }.get(mode)
        if failure is None:
            assert not any(line.startswith("E") for line in said.splitlines())
            assert seen["knode2", "fresh"] == 0
        else:
            assert failure in said
        incident.heal(name=name, root=labs)
        assert set(percents(measure(lab, 2, 4)).values()) == {100}
    finally:
        space.down(name, root=labs)


def test_kube_proxy_can_speak_json(labs: Path) -> None:
    try:
        space.up(space.UpOptions(name="json", nodes=1, kube_proxy_json=True, root=labs, ssh=False))
        made = incident.break_dns(Mode.DELETE_FAILS, name="json", root=labs)
        records = [json.loads(line) for line in log_of(lab_dir("json", labs), "knode1")]
    finally:
        space.down("json", root=labs)
    failures = [each for each in records if each["msg"] == "Failed to delete endpoint connections"]
    assert {each["caller"] for each in failures} == {"conntrack/cleanup.go:99"}
    assert {each["servicePortName"] for each in failures} == {"kube-system/kube-dns:dns"}
    assert {re.findall(r"10\.96\.0\.10, ([\d.]+)\}", each["err"])[0] for each in failures} == set(made.dead)


def test_the_clients_pods_survive_in_the_api(api: KubeClient) -> None:
    pods = api.get("/api/v1/namespaces/kdnsctl-lab/pods?labelSelector=app%3Ddns-client")["items"]
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["knode1", "knode2", "knode3"]
    assert {owner["kind"] for pod in pods for owner in pod["metadata"]["ownerReferences"]} == {"DaemonSet"}
