"""What a plan promises of an item before the node has been asked anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdnsctl.cluster.kubeproxy import PodPlace
from kdnsctl.evidence.items import ITEMS
from kdnsctl.evidence.plan import can_exist, only_if

PLACE = PodPlace("kube-system", "kube-proxy-x7x2p", "uid", "kube-proxy", "kube-proxy:v1.36.2", 0, running=True)
BY_ID = {item.id: item for item in ITEMS}


def test_without_a_running_kube_proxy_nothing_is_asked_of_it() -> None:
    planned = {item.id for item in ITEMS if can_exist(item, None)}
    asked = {item.id for item in ITEMS if item.fact is None or item.fact.endpoint is not None}
    assert planned.isdisjoint(asked)
    assert {"conntrack.a", "iptables.v4", "nft.v4", "ipvs"} <= planned
    assert "ipvs.sets" not in planned  # asking would load a module
    assert "nobody tells its mode" in only_if(BY_ID["nft.v4"], None)


def test_a_log_of_an_earlier_run_is_there_after_a_restart() -> None:
    previous = BY_ID["kubeProxy.log.previous"]
    assert not can_exist(previous, PLACE)
    assert can_exist(previous, replace(PLACE, restarts=1))


@pytest.mark.parametrize(
    ("item", "condition"),
    [
        ("conntrack.a", ""),
        ("iptables.v4", ""),
        ("nft.v6", "kube-proxy runs in nftables mode, or does not tell its mode"),
        ("ipvs.sets", "kube-proxy runs in ipvs mode"),
        ("nft.v4.text", "nft.v4 cannot be read"),
    ],
)
def test_what_only_the_node_can_tell_is_said(item: str, condition: str) -> None:
    assert only_if(BY_ID[item], PLACE) == condition
