"""`kdnsctl rbac`: manifests that can be applied as they are printed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from kdnsctl.cli import app
from kdnsctl.cli.needing import complete_command, needs_of
from kdnsctl.cli.options import Connection
from tests.unit.cli.conftest import Ran, Run


def manifests(ran: Ran) -> list[dict[str, Any]]:
    assert (ran.code, ran.err) == (0, "")
    return list(yaml.safe_load_all(ran.out))


def resources(manifest: dict[str, Any]) -> set[str]:
    return {resource for rule in manifest["rules"] for resource in rule["resources"]}


def test_the_least_roles_for_all_commands(run: Run) -> None:
    everywhere, of_nodes, local = manifests(run("rbac"))
    assert (of_nodes["metadata"]["namespace"], resources(of_nodes)) == ("default", {"events"})  # Events of Nodes
    assert (everywhere["kind"], everywhere["metadata"]) == ("ClusterRole", {"name": "kdnsctl"})
    assert (local["kind"], local["metadata"]) == ("Role", {"name": "kdnsctl", "namespace": "kube-system"})
    assert resources(everywhere) == {
        *("nodes", "pods", "services", "daemonsets", "endpointslices", "servicecidrs", "namespaces"),
        # what managers of nodes have for a node, which status looks at
        *("machines", "machinehealthchecks", "machineconfigpools"),
        *("nodeclaims", "nodepools", "nodehealthchecks", "plans"),
    }
    assert resources(local) == {
        *("leases", "configmaps", "deployments", "cronjobs", "events", "pods/log", "pods/exec", "pods/portforward")
    }
    assert "secrets" not in run("rbac").out
    verbs = {verb for one in (everywhere, local) for rule in one["rules"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch", "create"}
    assert "*" not in run("rbac").out


def test_what_is_nearly_root_only_when_asked_for(run: Run) -> None:
    assert "nodes/proxy" not in run("rbac").out
    ran = run("rbac", "find-affected", "--with-kubelet-logs")
    assert {"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]} in manifests(ran)[0]["rules"]
    assert "# For --kubelet-logs:\n#   get nodes/proxy" in ran.out


def test_what_is_merely_helpful_can_be_left_out(run: Run) -> None:
    everywhere, local = manifests(run("rbac", "find-affected", "--only-needed"))
    assert (resources(everywhere), resources(local)) == ({"nodes"}, {"pods", "pods/log"})
    everywhere, local = manifests(run("rbac", "analyze", "--only-needed"))
    assert (resources(everywhere), resources(local)) == (
        {"nodes", "services", "endpointslices"},
        {"pods", "pods/exec"},
    )


def test_running_commands_in_pods_only_for_what_does_it(run: Run) -> None:
    assert "pods/exec" not in run("rbac", "find-affected").out
    ran = run("rbac", "find-affected", "--with-live")
    assert {"apiGroups": [""], "resources": ["pods/exec", "pods/portforward"], "verbs": ["get", "create"]} in [
        rule for manifest in manifests(ran) for rule in manifest["rules"]
    ]
    assert "# For --live:" in ran.out
    assert "--with-live has no effect: analyze has no option --live" in run("rbac", "analyze", "--with-live").err


def test_roles_are_bound_to_those_named(run: Run) -> None:
    subjects = ["user:oidc:jane", "group:on-call", "serviceaccount:ops:kdnsctl"]
    words = [word for subject in subjects for word in ("--bind-to", subject)]
    printed = manifests(run("rbac", "analyze", *words, "--name", "dns-incident"))
    assert [one["kind"] for one in printed] == ["ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding"]
    assert {one["metadata"]["name"] for one in printed} == {"dns-incident"}
    assert printed[3]["metadata"]["namespace"] == "kube-system"
    assert printed[3]["roleRef"]["kind"] == "Role"
    group = {"apiGroup": "rbac.authorization.k8s.io"}
    assert printed[2]["subjects"] == [
        group | {"kind": "User", "name": "oidc:jane"},
        group | {"kind": "Group", "name": "on-call"},
        {"kind": "ServiceAccount", "name": "kdnsctl", "namespace": "ops"},
    ]


def test_as_json_they_are_a_list_that_kubectl_takes(run: Run) -> None:
    printed = json.loads(run("rbac", "-o", "json").out)
    assert (printed["apiVersion"], printed["kind"]) == ("v1", "List")
    assert printed["items"] == manifests(run("rbac"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["find-afected"], "no command 'find-afected'; did you mean 'find-affected'?"),
        (["signatures"], "'signatures' asks nothing of a cluster: it needs no permission"),
        (["--name", "a/b"], "--name: 'a/b' cannot be the name of a role"),
        (["--name", ""], "--name: '' cannot be the name of a role"),
        (
            ["--bind-to", "jane"],
            "--bind-to: 'jane' is nobody; write it like user:jane, group:on-call or serviceaccount:ops:kdnsctl",
        ),
        (["-o", "table"], "--output: 'table' is not one of 'yaml', 'json'"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, words: list[str], message: str) -> None:
    ran = run("rbac", *words)
    assert (ran.code, ran.out, ran.error) == (2, "", f"error: {message}")


@pytest.mark.parametrize("subject", ["user:", "group: ", "serviceaccount:ops", "serviceaccount:ops:A", "robot:x", ""])
def test_who_is_nobody_is_refused(run: Run, subject: str) -> None:
    assert run("rbac", "--bind-to", subject).code == 2


def test_every_command_that_connects_declares_what_it_needs() -> None:
    tree = app.build()
    connecting = {
        name
        for name in app.COMMANDS
        if any(parameter.name == "kubeconfig" and not parameter.hidden for parameter in tree.load(name).params)
    }
    # A group connects by the commands in it, which need no more than it says.
    connecting |= {name for name, entry in app.COMMANDS.items() if entry.partly}
    connecting |= {
        name for name in app.COMMANDS if any(entry.needs for entry in getattr(tree.load(name), "entries", {}).values())
    }
    assert "kubeconfig" in Connection.__dataclass_fields__
    assert connecting - {"doctor"} == {name for name, entry in app.COMMANDS.items() if entry.needs}
    reading = {name for name, entry in app.COMMANDS.items() if entry.needs and not (entry.changes or entry.partly)}
    assert set(needs_of(None)) == reading


def test_what_changes_something_only_when_it_is_named(run: Run) -> None:
    asked = run("rbac").out
    assert not any(verb in asked for verb in ("patch", "update", "delete", "pods/eviction"))
    everywhere, *local = manifests(run("rbac", "quarantine"))
    assert {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]} in everywhere["rules"]
    assert {one["metadata"]["namespace"] for one in local} == {"default", "kube-system"}
    assert "secrets" not in {resource for one in (everywhere, *local) for resource in resources(one)}


def test_tab_offers_commands() -> None:
    assert [name for name, _ in complete_command("fi")] == ["find-affected"]
    assert complete_command("sig") == []
