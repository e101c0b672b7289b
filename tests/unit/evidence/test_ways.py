"""The ladder: which rungs there are to a node, and what each is opened for."""

from __future__ import annotations

import contextlib
from typing import cast

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.kubeproxy import Kind, KubeProxy, PodPlace
from kdnsctl.cluster.objects import Metadata, Node, NodeStatus, NodeSystemInfo
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence.sshways import SshWays
from kdnsctl.evidence.ways import OF_KUBE_PROXY, OF_TOOLS, Ladder, Via, on_the_node, rungs, yields_more
from kdnsctl.facts import conntrack, rules
from kdnsctl.find.scope import InScope
from kdnsctl.model import KdnsctlError, Scope
from kdnsctl.reach.podkeeper import PodKeeper, PodSettings
from kdnsctl.reach.podspec import PodRung
from kdnsctl.reach.shell import NodeShell

NOBODY = cast("Connection", None)
DIGEST = "registry.k8s.io/kube-proxy@sha256:" + "a" * 64
PLACE = PodPlace(
    "kube-system", "kube-proxy-1", "u", "kube-proxy", "kube-proxy:v1.36.2", 0, running=True, image_id=DIGEST
)


def ladder(via: Via, settings: PodSettings | None) -> Ladder:
    proxies = {"knode1": KubeProxy("knode1", Kind.DAEMON_SET, place=PLACE)}
    windows = NodeStatus(node_info=NodeSystemInfo(operating_system="windows"))
    nodes = (
        *(Node(metadata=Metadata(name=name, uid=f"uid-{name}")) for name in ("knode1", "knode2")),
        Node(metadata=Metadata(name="wnode1"), status=windows),
    )
    found = InScope(("knode1", "knode2"), proxies, Scope.FULL, (), nodes=nodes)
    keeper = None if settings is None else PodKeeper(NOBODY, settings)
    return Ladder(via, NOBODY, None, keeper, found)


def names(via: Via, settings: PodSettings | None, node: str = "knode1") -> list[str]:
    with contextlib.ExitStack() as opened:
        return [way.rung for way in ladder(via, settings).ways(node, opened)]


def test_the_rungs_are_in_order_and_the_privileged_one_only_if_allowed() -> None:
    assert names(Via.AUTO, PodSettings()) == ["exec", "pod", "pod-netadmin"]
    assert names(Via.AUTO, PodSettings(privileged=True)) == ["exec", "pod", "pod-netadmin", "pod-privileged"]
    assert names(Via.POD, PodSettings()) == ["pod", "pod-netadmin"]
    assert names(Via.EXEC, None) == ["exec"]
    assert names(Via.AUTO, PodSettings(), node="knode2") == ["pod", "pod-netadmin"]
    assert PodRung.PRIVILEGED not in rungs(PodSettings())


def test_a_pod_with_capabilities_is_only_for_what_one_without_does_not_read_alike() -> None:
    assert yields_more(conntrack.TABLE, PodRung.PLAIN, OF_KUBE_PROXY)
    assert not yields_more(conntrack.TABLE, PodRung.NET_ADMIN, OF_KUBE_PROXY)
    assert yields_more(conntrack.TABLE, PodRung.NET_ADMIN, OF_TOOLS)
    assert not yields_more(rules.IPTABLES[4], PodRung.PLAIN, OF_KUBE_PROXY)
    assert yields_more(rules.IPTABLES[4], PodRung.NET_ADMIN, OF_KUBE_PROXY)


def test_the_image_is_the_one_on_the_node_or_the_one_that_was_named() -> None:
    with CancelScope(100) as scope:
        settings = PodSettings()
        own = ladder(Via.POD, settings)
        order = own.order(PodKeeper(NOBODY, settings), PodRung.PLAIN, "knode1", scope)
        assert (order.image.reference, order.image.pull, order.node_uid) == (DIGEST, False, "uid-knode1")
        assert 100 < order.lifetime <= 160
        with pytest.raises(KdnsctlError, match=r"knode2 has no kube-proxy pod .*--image"):
            own.order(PodKeeper(NOBODY, settings), PodRung.PLAIN, "knode2", scope)
        with pytest.raises(KdnsctlError, match=r"nsenter.*--image"):
            own.order(PodKeeper(NOBODY, settings), PodRung.PRIVILEGED, "knode1", scope)
        named = PodKeeper(NOBODY, PodSettings(image="tools:1"))
        order = own.order(named, PodRung.PRIVILEGED, "knode2", scope)
        assert (order.image.reference, order.image.pull) == ("tools:1", True)
        with pytest.raises(KdnsctlError, match="wnode1 is a Windows node"):
            own.order(named, PodRung.PLAIN, "wnode1", scope)


@pytest.mark.parametrize(
    ("told", "taken"),
    [
        (DIGEST, DIGEST),
        ("docker-pullable://" + DIGEST, DIGEST),
        ("sha256:" + "b" * 64, "kube-proxy:v1.36.2"),  # names no repository: nothing could be found by it
        ("", "kube-proxy:v1.36.2"),
    ],
)
def test_the_digest_is_taken_where_the_runtime_tells_one(told: str, taken: str) -> None:
    place = PodPlace("n", "p", "u", "kube-proxy", "kube-proxy:v1.36.2", 0, running=True, image_id=told)
    assert on_the_node(place) == taken


def test_no_two_pods_have_the_same_name() -> None:
    keeper = PodKeeper(NOBODY, PodSettings(image="tools:1"))
    own = ladder(Via.POD, keeper.settings)
    with CancelScope() as scope:
        orders = [own.order(keeper, PodRung.PLAIN, "knode1", scope) for _ in range(50)]
    assert len({order.name for order in orders}) == 50
    assert {order.run for order in orders} == {keeper.settings.run}
    assert all(len(order.name) <= 63 for order in orders)


class Ssh:
    """Stands for SshWays: logging in fails for this reason."""

    def __init__(self, code: str, rung: str = "ssh") -> None:
        self.rung = rung
        self._code = code

    def by_openssh(self) -> Ssh:
        return Ssh("", "openssh")

    def open(self, node: str, *_: object) -> NodeShell:
        raise KdnsctlError(f"no login at {node}", code=self._code)


@pytest.mark.parametrize(
    ("code", "tried"),
    [("sshLogin", True), ("hostKeyUnknown", True), ("sshUnreachable", False), ("hostKeyChanged", False)],
)
def test_openssh_is_tried_only_where_a_login_failed_that_it_may_know_more_for(code: str, tried: bool) -> None:
    found = InScope(("knode1",), {}, Scope.FULL, ())
    with contextlib.ExitStack() as opened, CancelScope() as scope:
        ways = Ladder(Via.AUTO, NOBODY, cast("SshWays", Ssh(code)), None, found).ways("knode1", opened)
        assert [way.rung for way in ways] == ["ssh", "openssh"]
        first, other = ways
        assert not other.can(conntrack.TABLE)
        with pytest.raises(KdnsctlError):
            first.open(scope)
        assert other.can(conntrack.TABLE) is tried
        only = Ladder(Via.SSH, NOBODY, cast("SshWays", Ssh(code)), None, found).ways("knode1", opened)
        assert [way.rung for way in only] == ["ssh"]
