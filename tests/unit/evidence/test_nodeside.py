"""Collecting one node: what is whole, what is a gap, which way is taken, and what is never written down."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence.bundle import Bundle
from kdnsctl.evidence.clusterside import without_secrets
from kdnsctl.evidence.items import ITEMS, chosen
from kdnsctl.evidence.nodeside import NodeCollector, NodeSide, Way
from kdnsctl.evidence.verify import verify
from kdnsctl.model import Fact, KdnsctlError, Proof, Reason, Toolset, UsageError
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.netfilter.trailer import MARKER
from kdnsctl.reach.shell import NodeShell, Reading, Sink

NODE = "knode1"
TABLE = b"ipv4     2 udp      17 29 src=10.244.2.3 dst=10.96.0.10 sport=20034 dport=53\n"
CUT = Reason("noTrailer", "it was cut off")


class Shell:
    """Every fact has the same output; those in `broken` break off."""

    node = NODE

    def __init__(self, rung: str = "exec", broken: Sequence[str] = ()) -> None:
        self.rung = rung
        self.asked: list[str] = []
        self._broken = broken
        self.problem = CUT

    @property
    def toolsets(self) -> tuple[Toolset, ...]:
        return (Toolset.KUBE_PROXY,)

    def command(self, fact: Fact) -> tuple[str, ...] | None:
        return fact.command(self.toolsets)

    def can(self, fact: Fact) -> bool:
        return fact.endpoint is None

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        scope.check()
        self.asked.append(fact.id)
        sink(TABLE)
        now = dt.datetime.now(dt.UTC)
        broke = fact.id in self._broken
        done = Completeness(problem=self.problem) if broke else Completeness(Proof.TRAILER)
        return Reading(
            fact.id, NODE, self.rung, done, now, now, 0.1, len(TABLE), None if broke else 0, None, b"oh\n", 3
        )


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    with Bundle.create(tmp_path / "evidence", {}) as made:
        yield made


def collect(bundle: Bundle, *ways: Way, only: Sequence[str] = ()) -> NodeSide:
    nobody = cast("Connection", None)  # without a pod of kube-proxy, nothing is asked of the API
    return NodeCollector(bundle, nobody, NODE, None, ways, None).collect(chosen(only, ()), CancelScope())


def way(shell: NodeShell) -> Way:
    return Way(shell.rung, lambda _: shell)


def refused(rung: str) -> Way:
    def open_(_: CancelScope) -> NodeShell:
        raise KdnsctlError(f"{rung} is forbidden", code="forbidden")

    return Way(rung, open_)


def test_a_whole_table_keeps_the_trailer_that_proves_it(bundle: Bundle) -> None:
    side = collect(bundle, way(Shell()), only=["conntrack.a"])
    assert (side.via, side.whole, side.gaps) == ("exec", 1, [])
    content = gzip.decompress((bundle.directory / "nodes/knode1/01/conntrack.a.txt.gz").read_bytes())
    assert content.startswith(TABLE + MARKER.encode())
    assert (bundle.directory / "nodes/knode1/01/conntrack.a.txt.gz.err").read_bytes() == b"oh\n"


def test_a_table_that_was_cut_off_is_kept_without_a_trailer_and_is_a_gap(bundle: Bundle) -> None:
    side = collect(bundle, way(Shell(broken=["conntrack"])), only=["conntrack.a", "conntrack.fill"])
    assert [(gap.item, gap.reason.code) for gap in side.gaps] == [("conntrack.a", "noTrailer")]
    assert side.whole == 1
    content = gzip.decompress((bundle.directory / "nodes/knode1/01/conntrack.a.txt.gz").read_bytes())
    assert content == TABLE
    assert not bundle.has(NODE, "conntrack.a")
    bundle.finish({})
    assert verify(bundle.directory).sound


def test_the_next_way_is_taken_where_one_does_not_work(bundle: Bundle) -> None:
    side = collect(bundle, refused("exec"), way(Shell("ssh")), only=["conntrack.a"])
    assert (side.via, side.gaps) == ("ssh", [])


def test_a_node_that_no_way_leads_to_has_each_gap_with_every_reason(bundle: Bundle) -> None:
    side = collect(bundle, refused("exec"), refused("ssh"), only=["conntrack.a", "iptables.v4"])
    assert (side.via, side.whole) == ("", 0)
    assert {gap.reason.message for gap in side.gaps} == {"exec is forbidden; ssh is forbidden"}
    assert [gap.item for gap in side.gaps] == ["conntrack.a", "iptables.v4"]
    assert bundle.artefacts == ()


def test_rules_of_modes_are_all_tried_where_the_mode_is_not_known_and_are_no_gaps(bundle: Bundle) -> None:
    shell = Shell(broken=["nft.v4", "nft.v6", "ipvs"])
    side = collect(bundle, way(shell))
    assert {"nft.v4", "nft.v4.text", "nft.v6.text", "ipvs", "iptables.v4"} <= set(shell.asked)
    assert side.gaps == []
    assert shell.asked.index("conntrack") < shell.asked.index("iptables.v4")
    assert shell.asked.count("conntrack") == 2


def test_rules_as_text_are_not_read_where_there_is_json(bundle: Bundle) -> None:
    shell = Shell()
    collect(bundle, way(shell))
    assert "nft.v4" in shell.asked
    assert "nft.v4.text" not in shell.asked


def test_items_are_chosen_by_id() -> None:
    assert [item.id for item in chosen(["conntrack.b", "conntrack.a"], [])] == ["conntrack.a", "conntrack.b"]
    assert "ipvs" not in [item.id for item in chosen([], ["ipvs"])]
    with pytest.raises(UsageError, match="no item 'conntrak'"):
        chosen(["conntrak"], [])
    with pytest.raises(UsageError, match="no item is left"):
        chosen(["ipvs"], ["ipvs"])


def test_ids_and_names_of_items_are_each_there_once() -> None:
    assert len({item.id for item in ITEMS}) == len(ITEMS) == len({item.name for item in ITEMS})


def test_what_can_hold_secrets_is_left_out_of_objects() -> None:
    pod: dict[str, Any] = {
        "metadata": {
            "name": "p",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "hunter2", "kept": "yes"},
        },
        "spec": {
            "nodeName": NODE,
            "containers": [{"name": "c", "image": "i", "env": [{"name": "TOKEN", "value": "hunter2"}]}],
            "initContainers": [{"name": "d", "env": [{"name": "TOKEN", "value": "hunter2"}]}],
        },
    }
    left = without_secrets(json.dumps(pod).encode())
    assert b"hunter2" not in left
    assert json.loads(left)["spec"]["containers"] == [{"name": "c", "image": "i"}]
    assert json.loads(left)["metadata"]["annotations"] == {"kept": "yes"}


def failing(rung: str, *facts: str) -> Shell:
    """Where these commands run and fail."""
    shell = Shell(rung, broken=facts)
    shell.problem = Reason("commandFailed", f"the command ended with exit code 1 by {rung}")
    return shell


def test_what_one_rung_does_not_yield_is_read_by_the_next_and_the_rest_is_not(bundle: Bundle) -> None:
    first, second = failing("exec", "conntrack"), Shell("pod-netadmin")
    side = collect(bundle, way(first), way(second), only=["conntrack.a", "conntrack.fill"])
    assert (side.via, side.whole, side.gaps) == ("exec, pod-netadmin", 2, [])
    assert second.asked == ["conntrack"]
    assert bundle.has(NODE, "conntrack.a")


def test_each_rung_that_failed_is_named(bundle: Bundle) -> None:
    side = collect(bundle, way(failing("exec", "conntrack")), refused("pod"), only=["conntrack.a"])
    (gap,) = side.gaps
    assert gap.reason.message == "the command ended with exit code 1 by exec; pod is forbidden"


def test_what_was_cut_off_is_not_tried_by_a_rung_that_costs_more(bundle: Bundle) -> None:
    second = Shell("pod")
    side = collect(bundle, way(Shell("exec", broken=["conntrack"])), way(second), only=["conntrack.a"])
    assert [gap.reason.code for gap in side.gaps] == ["noTrailer"]
    assert second.asked == []


def test_rules_that_are_not_there_are_not_looked_for_by_other_rungs(bundle: Bundle) -> None:
    second = Shell("pod-netadmin")
    collect(bundle, way(failing("exec", "nft.v4", "ipvs")), way(second), only=["nft.v4", "ipvs"])
    assert second.asked == []


def test_a_rung_that_cannot_read_a_fact_is_not_opened_for_it(bundle: Bundle) -> None:
    def open_(_: CancelScope) -> NodeShell:
        raise AssertionError("it was opened")

    closed = Way("pod", open_, lambda fact: fact.id != "conntrack")
    side = collect(bundle, closed, way(Shell("ssh")), only=["conntrack.a"])
    assert (side.via, side.gaps) == ("ssh", [])
