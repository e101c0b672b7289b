"""Pods of our own: what each may do, and what none ever has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kdnsctl.facts import conntrack, rules
from kdnsctl.model import Privilege, Toolset
from kdnsctl.reach.ownpod import command_of
from kdnsctl.reach.podspec import GRACE, MANAGED_BY, RUN, Image, PodOrder, PodRung, manifest, may

IMAGE = Image("registry.k8s.io/kube-proxy@sha256:" + "0" * 64, (Toolset.KUBE_PROXY,))
ORDER = PodOrder(
    PodRung.PLAIN, "kdnsctl-1", "kube-system", "knode1", "uid-of-knode1", IMAGE, "run-1", "jane@laptop", 630.2
)
BOTH = (Toolset.TOOLS, Toolset.KUBE_PROXY)


def made(rung: PodRung) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod, and its only container."""
    pod = manifest(replace(ORDER, rung=rung))
    (container,) = pod["spec"]["containers"]
    return pod, container


@pytest.mark.parametrize("rung", PodRung)
def test_every_pod_is_found_again_ends_by_itself_and_needs_nothing(rung: PodRung) -> None:
    pod, container = made(rung)
    metadata, spec = pod["metadata"], pod["spec"]
    assert metadata["labels"] == {MANAGED_BY: "kdnsctl", RUN: "run-1"}
    assert metadata["annotations"]["kdnsctl.io/operator"] == "jane@laptop"
    assert metadata["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "knode1", "uid": "uid-of-knode1"}
    ]
    assert spec["activeDeadlineSeconds"] == 631
    assert container["command"] == ["sleep", "631"]
    assert spec["terminationGracePeriodSeconds"] == GRACE > 0
    assert (spec["nodeName"], spec["hostNetwork"], spec["dnsPolicy"]) == ("knode1", True, "Default")
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["restartPolicy"] == "Never"
    assert spec["automountServiceAccountToken"] is False
    assert container["resources"]["requests"] == {"cpu": "0", "memory": "0"}
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert not {"volumes", "priorityClassName", "hostIPC", "serviceAccountName"} & spec.keys()


def test_without_the_node_there_is_no_owner() -> None:
    assert "ownerReferences" not in manifest(replace(ORDER, node_uid=""))["metadata"]


def test_only_an_image_that_was_named_may_be_fetched() -> None:
    assert made(PodRung.PLAIN)[1]["imagePullPolicy"] == "Never"
    named = manifest(replace(ORDER, image=Image("tools:1", BOTH, pull=True)))["spec"]["containers"][0]
    assert (named["image"], named["imagePullPolicy"]) == ("tools:1", "IfNotPresent")


def test_each_rung_has_the_least_that_it_needs() -> None:
    security = {rung: made(rung)[1]["securityContext"] for rung in PodRung}
    for rung in (PodRung.PLAIN, PodRung.NET_ADMIN):
        assert security[rung]["privileged"] is False
        assert security[rung]["allowPrivilegeEscalation"] is False
        assert security[rung]["capabilities"]["drop"] == ["ALL"]
        assert "hostPID" not in made(rung)[0]["spec"]
    assert "add" not in security[PodRung.PLAIN]["capabilities"]
    assert security[PodRung.PLAIN]["readOnlyRootFilesystem"] is True
    assert security[PodRung.NET_ADMIN]["capabilities"]["add"] == ["NET_ADMIN", "NET_RAW"]
    assert security[PodRung.PRIVILEGED]["privileged"] is True
    assert made(PodRung.PRIVILEGED)[0]["spec"]["hostPID"] is True


def test_what_a_rung_reads_follows_from_what_it_may() -> None:
    assert [may(PodRung.PLAIN, one) for one in Privilege] == [True, True, False, False]
    assert all(may(PodRung.NET_ADMIN, one) for one in Privilege)
    table, saved = conntrack.TABLE, rules.IPTABLES[4]
    assert command_of(table, PodRung.PLAIN, BOTH) == ("cat", "/proc/net/nf_conntrack")
    assert command_of(table, PodRung.NET_ADMIN, BOTH) == ("conntrack", "-L", "-o", "extended,id")
    assert command_of(table, PodRung.NET_ADMIN, (Toolset.KUBE_PROXY,)) == ("cat", "/proc/net/nf_conntrack")
    assert command_of(saved, PodRung.PLAIN, BOTH) is None
    assert command_of(saved, PodRung.NET_ADMIN, BOTH) == ("iptables-save", "-c")
    host = replace(saved, commands={Toolset.HOST: ("iptables-nft-save", "-c")})
    assert command_of(host, PodRung.NET_ADMIN, BOTH) is None
    assert command_of(host, PodRung.PRIVILEGED, BOTH) == ("iptables-nft-save", "-c")
