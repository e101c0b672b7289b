"""find-affected on a live cluster, whatever its state: every node once, alike in every format, no more than is proven.

What a node's log says is read a second time with kubectl, and searched for two messages word by word.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final

import jsonschema
import pytest
import yaml

from tests.e2e.cluster import ROOT, Cluster, Ran

NOBODY: Final = "kdnsctl-e2e-nobody"
JUDGED: Final = ("affected", "suspect", "clean")
FOUND: Final = ("affected", "suspect")
UNDELETED: Final = "Failed to delete endpoint connections"
UNWRITTEN: Final = "Failed to execute iptables-restore"


def find(cluster: Cluster, *words: str) -> dict[str, Any]:
    """The report, held to its schema, and the exit code to the report."""
    ran = cluster.kdnsctl("find-affected", *words, "-o", "json")
    report: dict[str, Any] = ran.json
    jsonschema.Draft202012Validator(
        json.loads((ROOT / "docs/schemas/FindReport.schema.json").read_text("utf-8"))
    ).validate(report)
    assert ran.code == expected_code(report), ran
    return report


def expected_code(report: dict[str, Any]) -> int:
    if any(node["verdict"] in FOUND for node in report["nodes"]):
        return 3
    return 4 if report["coverage"]["unknown"] or report["coverage"]["scope"] == "partial" else 0


def names(report: dict[str, Any]) -> list[str]:
    return [node["name"] for node in report["nodes"]]


def the_error(ran: Ran) -> str:
    """The one line that says what is wrong; nothing is on standard output, and no traceback anywhere."""
    first, *hints = [line for line in ran.err.splitlines() if not line.startswith(("note: ", "not allowed: "))]
    assert ran.out == "", ran
    assert first.startswith("error: "), ran
    assert all(line.startswith("hint: ") for line in hints), ran
    return first


def test_every_node_is_in_the_report_once(cluster: Cluster) -> None:
    report = find(cluster)
    assert sorted(names(report)) == sorted(cluster.nodes())
    counted = Counter(node["verdict"] for node in report["nodes"])
    coverage = report["coverage"]
    assert coverage == {
        "inScope": len(report["nodes"]),
        "judged": sum(counted[verdict] for verdict in JUDGED),
        "unknown": counted["unknown"],
        "notApplicable": counted["notApplicable"],
        "scope": "full",
    }
    assert report["cluster"]


def test_verdicts_agree_with_what_kubectl_reads_in_the_same_logs(cluster: Cluster) -> None:
    report = find(cluster)
    dns = set(report["services"])
    where = {pod["metadata"]["name"]: pod for pod in cluster.read("pods", "-A")["items"]}
    looked_at = 0
    for finding in report["nodes"]:
        log = ""
        for name in finding["kubeProxy"]["pods"]:
            pod = where[name]
            assert pod["spec"]["nodeName"] == finding["name"]
            log += cluster.kubectl("-n", pod["metadata"]["namespace"], "logs", name).well().out
            log += cluster.kubectl("-n", pod["metadata"]["namespace"], "logs", name, "--previous").out
            looked_at += 1
        undeleted = [line for line in log.splitlines() if UNDELETED in line and any(name in line for name in dns)]
        if undeleted or UNWRITTEN in log:
            assert finding["verdict"] == "suspect", finding
        counted = {each["id"]: each["count"] for each in finding["signatures"]}
        assert counted.get("CT_DEL_ENDPOINT", 0) <= log.count(UNDELETED) + log.count("endpoint connections, error")
        if finding["verdict"] == "clean":
            assert (finding["basis"], finding["complete"], finding["signatures"]) == ("log", True, [])
    assert looked_at, "this cluster has no kube-proxy pod"


def test_a_log_alone_proves_no_stale_entry(cluster: Cluster) -> None:
    for finding in find(cluster)["nodes"]:
        assert finding["verdict"] != "affected"
        assert finding["staleEntries"] is None
        assert finding["basis"] in {"log", None}


def test_every_format_tells_of_the_same_nodes(cluster: Cluster) -> None:
    report = find(cluster)
    verdicts = {node["name"]: node["verdict"] for node in report["nodes"]}

    as_yaml = yaml.safe_load(cluster.kdnsctl("find-affected", "-o", "yaml").out)
    assert {node["name"]: node["verdict"] for node in as_yaml["nodes"]} == verdicts

    wide = cluster.kdnsctl("find-affected", "-o", "wide").out
    assert wide.startswith("NODE ")
    for name, verdict in verdicts.items():
        assert any(line.split()[0] == name and verdict in line for line in wide.splitlines() if line.strip()), wide

    table = cluster.kdnsctl("find-affected").out
    words = table.split()
    assert all(name in words for name, verdict in verdicts.items() if verdict not in {"clean", "notApplicable"})
    assert f"{len(verdicts)} node{'s' if len(verdicts) > 1 else ''} in scope" in table
    assert "\x1b" not in table + wide

    assert cluster.kdnsctl("find-affected", "-o", "name").out == ""
    suspects = [f"node/{name}" for name, verdict in verdicts.items() if verdict == "suspect"]
    assert cluster.kdnsctl("find-affected", "-o", "name", "--include", "suspect").out.splitlines() == suspects


def test_names_pipe_into_other_commands(cluster: Cluster) -> None:
    suspects = sorted(node["name"] for node in find(cluster)["nodes"] if node["verdict"] == "suspect")
    code = 3 if suspects else expected_code(find(cluster))
    piped = cluster.shell(
        "$kdnsctl find-affected -o name --include suspect | xargs -r $kubectl get --no-headers -o name"
    )
    assert piped.code == code, piped
    assert sorted(piped.out.split()) == [f"node/{name}" for name in suspects]


def test_nodes_are_chosen_by_name(cluster: Cluster, node: str) -> None:
    assert names(find(cluster, node)) == [node]
    assert names(find(cluster, f"node/{node}", node)) == [node]


def test_nodes_are_chosen_by_label(cluster: Cluster, node: str) -> None:
    labels = cluster.read("node", node)["metadata"]["labels"]
    hostname = f"kubernetes.io/hostname={labels['kubernetes.io/hostname']}"
    assert sorted(names(find(cluster, "-l", hostname))) == sorted(cluster.nodes("-l", hostname)) == [node]
    rest = f"kubernetes.io/hostname!={labels['kubernetes.io/hostname']}"
    others = sorted(cluster.nodes("-l", rest))
    if others:
        assert sorted(names(find(cluster, "-l", rest))) == others
    none = cluster.kdnsctl("find-affected", "-l", "kdnsctl.io/e2e=nowhere")
    assert "no node has kdnsctl.io/e2e=nowhere" in the_error(none)
    assert none.code == 2


def test_an_unknown_node_ends_it_before_anything_is_read(cluster: Cluster, node: str) -> None:
    ran = cluster.kdnsctl("find-affected", node, f"{node}-no-such")
    assert f"no node {node}-no-such in " in the_error(ran)
    assert ran.code == 2


def test_no_log_covers_a_window_that_is_older_than_the_cluster(cluster: Cluster) -> None:
    report = find(cluster, "--since-time", "2015-01-01T00:00:00Z")
    assert report["since"].startswith("2015-01-01T00:00:00")
    assert {node["verdict"] for node in report["nodes"]} <= {"suspect", "unknown", "notApplicable"}
    for finding in report["nodes"]:
        if finding["reasonCode"] == "logBegins":
            assert finding["span"]["first"][:4] in finding["reason"]


def test_a_short_window_proves_no_more_than_the_whole_log(cluster: Cluster) -> None:
    whole = {node["name"]: node for node in find(cluster)["nodes"]}
    for finding in find(cluster, "--since", "1s")["nodes"]:
        if finding["verdict"] == "clean":
            assert whole[finding["name"]]["verdict"] in {"clean", "suspect"}
        if whole[finding["name"]]["verdict"] == "notApplicable":
            assert finding["verdict"] == "notApplicable"


def test_who_may_nothing_is_told_what_is_missing(cluster: Cluster, node: str) -> None:
    ran = cluster.kdnsctl("find-affected", "--as", NOBODY)
    said = the_error(ran)
    assert ran.code == 1
    assert NOBODY in said
    assert "forbidden" in said
    assert "list nodes" in ran.err

    named = find(cluster, node, "--as", NOBODY)
    assert [(each["name"], each["verdict"], each["reasonCode"]) for each in named["nodes"]] == [
        (node, "unknown", "forbidden")
    ]
    assert named["coverage"]["scope"] == "partial"


def test_a_wrong_context_and_an_unreachable_server_are_one_line_each(cluster: Cluster) -> None:
    context = cluster.kdnsctl("find-affected", "--context", "kdnsctl-e2e-no-such")
    assert "kdnsctl-e2e-no-such" in the_error(context)
    assert context.code == 2
    server = cluster.kdnsctl("find-affected", "--server", "https://127.0.0.1:1", "--request-timeout", "5s")
    assert "127.0.0.1:1" in the_error(server)
    assert server.code == 1


@pytest.mark.disruptive
def test_the_log_of_a_replaced_kube_proxy_begins_anew(cluster: Cluster, node: str) -> None:
    """The window begins with the old pod's log, and that is gone with it: nobody can call the node clean any more."""
    (before,) = find(cluster, node)["nodes"]
    (name,) = before["kubeProxy"]["pods"]
    pod = next(each for each in cluster.read("pods", "-A")["items"] if each["metadata"]["name"] == name)
    (owner,) = pod["metadata"]["ownerReferences"]
    assert owner["kind"] == "DaemonSet", "this test replaces a pod of kube-proxy's DaemonSet, and there is none"
    namespace = pod["metadata"]["namespace"]
    cluster.kubectl("-n", namespace, "delete", "pod", name, "--timeout=180s").well()
    cluster.kubectl("-n", namespace, "rollout", "status", f"daemonset/{owner['name']}", "--timeout=180s").well()

    (after,) = find(cluster, node, "--since-time", before["span"]["first"])["nodes"]
    assert after["kubeProxy"]["pods"] != [name]
    assert after["span"]["first"] > before["span"]["first"]
    assert after["verdict"] == "unknown"
    assert after["reasonCode"] in {"logBegins", "logProvesNothing"}
