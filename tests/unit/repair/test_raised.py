"""What a raised verbosity is recorded as, how a command line is raised, and who else looks after a DaemonSet."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kdnsctl.changes.proxies import ANNOTATION, level_of, with_level
from kdnsctl.changes.raised import Raised, RaisedTemplate, RecordError, Way, of_daemon_set, of_node, reminders
from kdnsctl.cluster.kubeproxy import Kind, KubeProxy
from kdnsctl.cluster.objects import Metadata, Node
from kdnsctl.repair.owners import by_hand, owner_of

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
RAISED = Raised("inc-1", "jane@laptop", "1-ab", NOW, NOW + timedelta(minutes=30), Way.RUNTIME, 4, 2, "uid-1")


def node(text: str, name: str = "knode1") -> Node:
    return Node(metadata=Metadata(name=name, annotations={ANNOTATION: text}))


@pytest.mark.parametrize(
    ("words", "level"),
    [
        (["--v=2"], 2),
        (["-v", "3"], 3),
        (["-v=4", "--v=1"], 1),
        (["--v", "5", "--config=x"], 5),
        (["--vmodule=a=9"], None),
        ([], None),
        (["--v=all"], None),
    ],
)
def test_the_level_on_a_command_line(words: list[str], level: int | None) -> None:
    assert level_of(words) == level


@pytest.mark.parametrize(
    ("command", "args", "raised"),
    [
        (["kube-proxy", "--v=2", "--config=c"], None, {"command": ["kube-proxy", "--config=c", "--v=4"], "args": None}),
        (["kube-proxy"], ["-v", "2", "--a"], {"command": ["kube-proxy"], "args": ["--a", "--v=4"]}),
        (["kube-proxy"], ["--v=2"], {"command": ["kube-proxy"], "args": ["--v=4"]}),
        (None, ["--config=c"], {"command": None, "args": ["--config=c", "--v=4"]}),
        (["/bin/sh", "-c", "exec kube-proxy --v=2"], None, None),
        (None, None, None),
    ],
)
def test_a_command_line_with_another_level(command: Any, args: Any, raised: Any) -> None:
    assert with_level({"command": command, "args": args}, 4) == raised


def test_a_record_is_read_as_it_was_written() -> None:
    assert of_node(node(json.dumps(RAISED.to_json()))) == RAISED
    assert of_node(Node()) is None
    line = {"command": ["kube-proxy"], "args": None}
    template = RaisedTemplate(RAISED, "kube-proxy", {"type": "RollingUpdate"}, line, {**line, "args": ["--v=4"]})
    found = {"metadata": {"name": "kube-proxy", "annotations": {ANNOTATION: json.dumps(template.to_json())}}}
    assert of_daemon_set(found) == template


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"incident": "../../elsewhere"},
        {"incident": "i\r\nImpersonate-User: root"},
        {"operator": "x" * 401},
        {"level": 11},
        {"level": True},
        {"before": -1},
        {"since": "2026-11-23"},
        {"way": "rm"},
        {"uid": 1},
    ],
)
def test_a_record_that_is_none_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="is no record of kdnsctl"):
        of_node(node(json.dumps({**RAISED.to_json(), **change})))
    with pytest.raises(RecordError):
        of_node(node("not JSON"))


def test_what_is_overdue_comes_first_and_the_rest_is_counted() -> None:
    late = Raised("inc-1", "jane@laptop", "1-ab", NOW, NOW, Way.RUNTIME, 4, 2, "uid-1")
    nodes = [node(json.dumps(RAISED.to_json()), f"knode{number}") for number in range(5)]
    told = reminders([*nodes, node(json.dumps(late.to_json()), "late")], NOW + timedelta(seconds=1))
    assert told[0].startswith("OVERDUE: late: ")
    assert told[-2:] == ["and 3 more are raised", "kdnsctl verbosity restore puts it back"]
    assert reminders([Node()], NOW) == []


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"labels": {"kubernetes.azure.com/managedby": "aks"}}, "AKS"),
        ({"managedFields": [{"manager": "eks", "operation": "Apply"}]}, "the EKS add-on"),
        ({"managedFields": [{"manager": "talos", "operation": "Update"}]}, "Talos"),
        ({"managedFields": [{"manager": "ourtool", "operation": "Apply"}]}, "ourtool"),
        (
            {"annotations": {"meta.helm.sh/release-name": "x"}, "labels": {"argocd.argoproj.io/instance": "y"}},
            "Argo CD",
        ),
        ({"ownerReferences": [{"kind": "Network", "name": "cluster"}]}, "Network cluster"),
        ({"managedFields": [{"manager": "octopus", "operation": "Apply"}]}, "octopus"),
        ({"managedFields": [{"manager": "kubectl-edit", "operation": "Apply"}]}, None),
        ({"managedFields": [{"manager": "kubeadm", "operation": "Update"}]}, None),
        ({"managedFields": [{"manager": "kubectl", "operation": "Apply"}]}, None),
        ({"managedFields": [{"manager": "eks", "operation": "Update", "subresource": "status"}]}, None),
        ({}, None),
    ],
)
def test_who_else_looks_after_it(metadata: dict[str, Any], name: str | None) -> None:
    owner = owner_of({"metadata": {"namespace": "kube-system", **metadata}})
    assert (owner.name if owner else None) == name
    assert owner is None or (owner.way and owner.sign)


@pytest.mark.parametrize(
    ("kind", "unit", "kubelet", "what", "words"),
    [
        (Kind.EMBEDDED, "k3s-agent", "v1.30.1+k3s1", "set it", "--kube-proxy-arg=v=4"),
        (Kind.EMBEDDED, "k3s", "v1.30.1+k3s1", "restart it", "systemctl restart k3s"),
        (Kind.STATIC_POD, "", "v1.30.1+rke2r1", "set it", "/etc/rancher/rke2/config.yaml"),
        (Kind.STATIC_POD, "", "v1.30.1", "set it", "manifest on the node"),
        (Kind.STATIC_POD, "", "v1.30.1", "restart it", "Deleting its mirror pod in the API restarts nothing"),
    ],
)
def test_what_to_do_where_nothing_in_the_api_does_it(
    kind: Kind, unit: str, kubelet: str, what: str, words: str
) -> None:
    assert words in by_hand(KubeProxy("knode1", kind, "part of k3s", unit=unit), kubelet, what)
