"""collect from a lab in which DNS really fails: by every rung, with a node that is not reached, and killed midway."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kdnsctl.facts.catalogue import allowed
from kdnsctl.lab import control, space
from kdnsctl.lab.spacedir import LabDir
from tests.lab.conftest import ROOT, Kdnsctl, lab_of

NAME = "collect"
BROKEN = "knode2"
SCHEMA = json.loads((ROOT / "docs/schemas/CollectReport.schema.json").read_text())


@pytest.fixture(scope="module")
def lab(command_home: Path) -> Iterator[LabDir]:
    """Three nodes with sshd, kube-proxy 1.30, one of them with stale entries."""
    where = lab_of(command_home, NAME)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(command_home)}
    for words in (["up", NAME], ["break", NAME, "--mode", "delete-fails", "--node", BROKEN]):
        command = [sys.executable, "-P", "-m", "kdnsctl", "lab", *words]
        made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
    yield where
    space.down(NAME, root=where.root.parent)


@pytest.fixture(autouse=True)
def speaking_to_it(lab: LabDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(lab.kubeconfig))


def verdicts(kdnsctl: Kdnsctl, bundle: Path) -> dict[str, str]:
    ran = kdnsctl("analyze", str(bundle), "-o", "json")
    return {node["name"]: node["verdict"] for node in json.loads(ran.out)["nodes"]}


EXPECTED = {"knode1": "clean", BROKEN: "affected", "knode3": "clean"}


def report_of(out: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(out)
    jsonschema.validate(report, SCHEMA)
    return report


@pytest.mark.parametrize("via", ["exec", "ssh", "openssh", "auto"])
def test_what_was_collected_is_sound_and_names_the_broken_node(
    kdnsctl: Kdnsctl, lab: LabDir, tmp_path: Path, via: str
) -> None:
    bundle = tmp_path / "evidence"
    how = [] if via == "exec" else ["--ssh-config", str(lab.ssh / "config")]
    ran = kdnsctl("collect", "--all", "-O", str(bundle), "--via", via, *how, "-o", "json")
    assert ran.code == 0, ran.err + ran.out
    report = report_of(ran.out)
    assert [(node["name"], node["status"], node["missing"]) for node in report["nodes"]] == [
        (name, "complete", []) for name in EXPECTED
    ]
    assert {node["via"] for node in report["nodes"]} == {"exec" if via == "auto" else via}
    verified = kdnsctl("bundle", "verify", str(bundle), "-o", "json")
    assert verified.code == 0, verified.out
    assert json.loads(verified.out)["sumsSha256"] == report["sumsSha256"]
    assert verdicts(kdnsctl, bundle) == EXPECTED


@pytest.mark.parametrize("via", ["exec", "ssh"])
def test_no_secret_of_the_cluster_or_the_operator_is_in_a_bundle(
    kdnsctl: Kdnsctl, lab: LabDir, tmp_path: Path, via: str
) -> None:
    bundle = tmp_path / "evidence"
    how = ["--via", via, *(["--ssh-config", str(lab.ssh / "config")] if via == "ssh" else [])]
    assert kdnsctl("collect", BROKEN, "-O", str(bundle), *how).code == 0
    files = [path for path in bundle.rglob("*") if path.is_file()]
    assert any(path.suffix == ".gz" for path in files)
    content = b"\n".join(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in files
    )
    token = lab.token_file.read_bytes().strip()
    key = "".join((lab.ssh / "id_lab").read_text().splitlines()[1:-1])
    mine = [value.encode() for value in json.loads(lab.kubeconfig.read_text())["users"][0]["user"].values()]
    secrets = {
        "the operator's token": token,
        "the same, encoded": base64.b64encode(token),
        "a private key": b"PRIVATE KEY",
        "the operator's key": key[-60:].encode(),
        "a kubeconfig": b"current-context",
        "a token's field": b"token:",
        "a bearer": b"Bearer ",
    }
    assert mine
    assert not [secret for secret in mine if secret in content or base64.b64encode(secret) in content]
    assert [what for what, secret in secrets.items() if secret in content] == []
    pods = json.loads((bundle / "cluster/01/pods.json").read_text())["items"]
    assert {pod["metadata"]["namespace"] for pod in pods} > {"kube-system"}  # the clients on the node, by name
    assert len({(pod["metadata"]["namespace"], pod["metadata"]["name"]) for pod in pods}) == len(pods)
    assert {pod["spec"]["nodeName"] for pod in pods if pod["metadata"]["namespace"] != "kube-system"} == {BROKEN}
    assert not any("env" in container for pod in pods for container in pod["spec"]["containers"])
    modes = {path.stat().st_mode & 0o777 for path in bundle.rglob("*") if path.is_file()}
    assert modes == {0o600}


FILES = "find /run /tmp /dev/shm {space} -xdev -printf '%p %y %m %s %T@\\n'"
# Between the readings traffic goes on: only what it does not touch can be compared.
SYSCTLS = "grep -rs '' /proc/sys/net/netfilter /proc/sys/net/ipv4 | grep -v nf_conntrack_count; true"
SAVES = ("iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save")
LOADED = "cut -d' ' -f1 /proc/modules | sort; cat /proc/net/ip_tables_names /proc/net/ip6_tables_names; nft list tables"
MARKERS = ("-d", "198.51.100.53", "-o", "id")


def on_node(lab: LabDir, *argv: str) -> str:
    return str(control.ask(lab, {"op": "run", "node": BROKEN, "argv": list(argv)})["output"])


def state_of(kdnsctl: Kdnsctl, lab: LabDir) -> dict[str, list[str]]:
    """What collecting must leave as it is: rules of every backend, modules, settings, files, entries that are ours."""
    script = FILES.format(space=lab.space)
    files = kdnsctl("lab", "shell", NAME, "--node", BROKEN, "--", "sh", "-c", script)
    rules = [line for each in SAVES for line in (each, *on_node(lab, each).splitlines()) if not line.startswith("#")]
    return {
        "rules": [line.partition(" [")[0] for line in rules],
        "loaded": on_node(lab, "sh", "-c", f"({LOADED}) 2>/dev/null; true").splitlines(),
        "sysctls": sorted(on_node(lab, "sh", "-c", SYSCTLS).splitlines()),
        "files": sorted(files.lines),
        # Without the seconds that are left.
        "entries": sorted(
            " ".join(line.split()[3:]) for line in on_node(lab, "conntrack", "-L", *MARKERS).splitlines()
        ),
    }


def not_the_kubelets(files: list[str], lab: LabDir) -> list[str]:
    """Without the directories of pods and images, whose times change with what is in them."""
    return [line for line in files if not re.match(rf"{re.escape(str(lab.space))}/(?:pods|images)[ /]", line)]


TOOLS = ["--image", "kdnsctl.io/lab/tools:1"]
# Facts that only the node's own programs tell: alone, for a pod that nothing else needs is not made for them.
OF_HOST = ["ip.neighbours", "ip.routes.v4", "ip.rules.v6", "node.netns", "node.release", "kernel.modules"]
RUNGS = {
    "exec": [],
    "ssh": ["--ssh-config"],
    "openssh": ["--ssh-config"],
    "pod": [],
    "pod-netadmin": TOOLS,
    "pod-privileged": [*TOOLS, "--allow-privileged", *(word for item in OF_HOST for word in ("--item", item))],
}


@pytest.mark.parametrize("rung", RUNGS)
def test_collecting_leaves_a_node_as_it_was(kdnsctl: Kdnsctl, lab: LabDir, tmp_path: Path, rung: str) -> None:
    for port in ("1001", "1002"):
        words = f"-I -p udp -s 198.51.100.9 -d 198.51.100.53 --sport {port} --dport 53 -t 3000"
        on_node(lab, "sh", "-c", f"conntrack {words} 2>/dev/null; true")  # there it is from the rung before
    bundle = tmp_path / "evidence"
    how = [*RUNGS[rung], *([str(lab.ssh / "config")] if "ssh" in rung else [])]
    before = state_of(kdnsctl, lab)
    assert all(len(before[part]) > 20 for part in ("rules", "sysctls", "files"))
    assert len(before["entries"]) == 2
    assert kdnsctl("collect", BROKEN, "-O", str(bundle), "--via", rung.partition("-")[0], *how).code == 0
    after = state_of(kdnsctl, lab)
    if rung.startswith("pod"):  # a kubelet keeps what a pod is made of, and its image, in places of its own
        before["files"], after["files"] = (not_the_kubelets(one["files"], lab) for one in (before, after))
    assert {part: sorted(set(after[part]) ^ set(before[part])) for part in before} == {part: [] for part in before}
    assert after == before
    artefacts = json.loads((bundle / "manifest.json").read_text())["artefacts"]
    ran = [tuple(one["command"]) for one in artefacts if one["via"] == rung and one["command"][0] != "GET"]
    expected = {"pod": "cat", "pod-privileged": "readlink"}.get(rung, "iptables-save")
    assert expected in {words[0] for words in ran}
    assert all(allowed(words) for words in ran)


def test_a_node_that_is_not_reached_has_its_row_and_the_rest_is_complete(
    kdnsctl: Kdnsctl, lab: LabDir, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("Host knode3\n    ProxyCommand false\n\n" + (lab.ssh / "config").read_text())
    bundle = tmp_path / "evidence"
    ran = kdnsctl("collect", "--all", "-O", str(bundle), "--via", "ssh", "--ssh-config", str(config), "-o", "json")
    assert ran.code == 4
    rows = {node["name"]: node for node in report_of(ran.out)["nodes"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "knode1": "complete",
        BROKEN: "complete",
        "knode3": "failed",
    }
    assert {gap["code"] for gap in rows["knode3"]["missing"]} == {"sshUnreachable"}
    assert kdnsctl("bundle", "verify", str(bundle)).code == 0
    assert verdicts(kdnsctl, bundle) == {"knode1": "clean", BROKEN: "affected", "knode3": "unknown"}
    table = kdnsctl("analyze", str(bundle))
    assert table.code == 3


def killed_after_a_node(as_process: tuple[list[str], dict[str, str]], lab: LabDir, bundle: Path) -> bool:
    """Collect, and kill it when the first node is finished; False when it was over by then."""
    command, environment = as_process
    running = subprocess.Popen(
        [*command, "collect", "--all", "-O", str(bundle), "--via", "exec", "--parallel", "1"],
        env={**environment, "KUBECONFIG": str(lab.kubeconfig)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    journal = bundle / "journal.jsonl"
    while running.poll() is None and not (journal.is_file() and b'"kind":"node"' in journal.read_bytes()):
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(0.02)
    running.kill()
    return running.wait() < 0 and journal.read_bytes().count(b'"kind":"node"') < len(EXPECTED)


def test_a_run_that_is_killed_leaves_what_resume_finishes(
    kdnsctl: Kdnsctl, as_process: tuple[list[str], dict[str, str]], lab: LabDir, tmp_path: Path
) -> None:
    places = (tmp_path / f"evidence{attempt}" for attempt in range(5))
    bundle = next(
        place for place in places if killed_after_a_node(as_process, lab, place)
    )  # unless it was over by then
    lines = (bundle / "journal.jsonl").read_bytes().splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith(b"\n")]
    done = {record["node"] for record in records if record["kind"] == "node"}
    assert 0 < len(done) < len(EXPECTED)
    assert not (bundle / "SHA256SUMS").exists()
    assert kdnsctl("bundle", "verify", str(bundle)).code == 3
    refused = kdnsctl("collect", "--all", "-O", str(bundle), "--via", "exec")
    assert refused.code == 2
    ran = kdnsctl("collect", "--resume", str(bundle), "--via", "exec", "-o", "json")
    assert ran.code == 0, ran.err
    report = report_of(ran.out)
    assert report["capture"] == 2
    assert {node["name"]: node["capture"] for node in report["nodes"]} == {
        name: 1 if name in done else 2 for name in EXPECTED
    }
    assert {node["status"] for node in report["nodes"]} == {"complete"}
    assert not any((bundle / "nodes" / name / "02").exists() for name in done)
    verified = kdnsctl("bundle", "verify", str(bundle))
    assert verified.code == 0, verified.out
    assert verdicts(kdnsctl, bundle) == EXPECTED
    again = kdnsctl("collect", "--resume", str(bundle), "--via", "exec", "-o", "json")
    assert (again.code, report_of(again.out)["capture"]) == (0, 2)
    assert report_of(again.out)["sumsSha256"] == report["sumsSha256"]
    assert not list(bundle.glob("nodes/*/03"))
    assert verdicts(kdnsctl, bundle) == EXPECTED


def test_probe_asks_with_the_nodes_own_python_over_ssh_and_does_not_call_a_node_well(
    lab: LabDir, kdnsctl: Kdnsctl
) -> None:
    how = ["--via", "ssh", "--ssh-config", str(lab.ssh / "config"), "--source-port", "28540", "--for", "1s"]
    ran = kdnsctl("probe", "--from", BROKEN, *how, "-o", "json")
    assert ran.code == 0, ran.err
    (node,) = json.loads(ran.out)["nodes"]
    assert (node["via"], node["result"]) == ("ssh", "answers")
    # Its pods have stale entries; the ports that were held here have none. That has to be said.
    assert "Those of pods are not asked for here." in kdnsctl("probe", "--from", BROKEN, *how).out
