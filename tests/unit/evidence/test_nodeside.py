"""Collecting one node: what is whole, what is a gap, which way is taken, and what is never written down."""

from __future__ import annotations

import dataclasses
import datetime as dt
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.kubeproxy import PodPlace
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence.bundle import Bundle
from kdnsctl.evidence.clusterside import without_secrets
from kdnsctl.evidence.items import ITEMS, chosen
from kdnsctl.evidence.nodeside import NodeCollector, NodeSide, Way
from kdnsctl.evidence.resuming import Gap
from kdnsctl.evidence.verify import verify
from kdnsctl.model import Fact, KdnsctlError, Proof, Reason, Toolset, UsageError
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.netfilter.trailer import MARKER
from kdnsctl.reach.shell import NodeShell, Reading, Sink

NODE = "knode1"
TABLE = b"ipv4     2 udp      17 29 src=10.244.2.3 dst=10.96.0.10 sport=20034 dport=53\n"
CUT = Reason("noTrailer", "it was cut off")


class Shell:
    """Every fact has the same output; those in `broken` break off, those in `absent` fail and have none."""

    node = NODE

    def __init__(self, rung: str = "exec", broken: Sequence[str] = (), absent: Sequence[str] = ()) -> None:
        self.rung = rung
        self.asked: list[str] = []
        self._broken = broken
        self._absent = absent
        self.answers: dict[str, bytes] = {}
        self.problem = CUT

    @property
    def toolsets(self) -> tuple[Toolset, ...]:
        return (Toolset.HOST, Toolset.KUBE_PROXY) if self.rung == "ssh" else (Toolset.KUBE_PROXY,)

    def command(self, fact: Fact) -> tuple[str, ...] | None:
        return fact.command(self.toolsets)

    def can(self, fact: Fact) -> bool:
        return fact.endpoint is not None or fact.command(self.toolsets) is not None

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        scope.check()
        self.asked.append(fact.id)
        now = dt.datetime.now(dt.UTC)
        if fact.id in self._absent:
            failed = Completeness(Proof.TRAILER, Reason("commandFailed", "the command ended with exit code 1"))
            return Reading(fact.id, NODE, self.rung, failed, now, now, 0.1, 0, 1, None, b"cat: no such file\n", 18)
        sink(self.answers.get(fact.id, TABLE))
        broke = fact.id in self._broken
        done = Completeness(problem=self.problem) if broke else Completeness(Proof.TRAILER)
        return Reading(
            fact.id, NODE, self.rung, done, now, now, 0.1, len(TABLE), None if broke else 0, None, b"oh\n", 3
        )


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    with Bundle.create(tmp_path / "evidence", {}) as made:
        yield made


PLACE = PodPlace("kube-system", "kube-proxy-x", "u", "kube-proxy", "i", 0, running=True)


def collect(bundle: Bundle, *ways: Way, only: Sequence[str] = (), forward: NodeShell | None = None) -> NodeSide:
    """Without `forward` there is no pod of kube-proxy, and nothing is asked of it; logs are not read."""
    nobody = cast("Connection", None)
    place = PLACE if forward else None
    items = [item for item in chosen(only, ()) if item.fact]
    return NodeCollector(bundle, nobody, NODE, place, ways, forward).collect(items, CancelScope())


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


class Losing(Shell):
    """Breaks off in the middle of one fact with that code; then nothing can be begun any more."""

    def __init__(self, code: str, broken: Sequence[str] = ("conntrack",)) -> None:
        super().__init__("ssh", broken)
        self._code = code
        self._lost = False

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        if self._lost:
            raise KdnsctlError("no SSH connection", code="sshUnreachable")
        reading = super().read(fact, sink, scope=scope)
        if reading.problem is None:
            return reading
        self._lost = True
        return dataclasses.replace(reading, completeness=Completeness(problem=Reason(self._code, "it broke")))


def test_a_connection_that_is_lost_is_made_anew_for_the_next_item(bundle: Bundle) -> None:
    opened: list[Shell] = []

    def open_(_: CancelScope) -> NodeShell:
        opened.append(Losing("cutOff"))
        return opened[-1]

    side = collect(bundle, Way("ssh", open_), only=["conntrack.a", "conntrack.fill", "iptables.v4", "conntrack.b"])
    assert [(gap.item, gap.reason.code) for gap in side.gaps] == [("conntrack.a", "cutOff"), ("conntrack.b", "cutOff")]
    assert side.whole == 2
    assert [shell.asked for shell in opened] == [["conntrack"], ["conntrack.fill", "iptables.v4", "conntrack"]]


def test_what_could_not_be_begun_over_a_lost_connection_is_begun_anew(bundle: Bundle) -> None:
    class Dead(Shell):
        def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
            if self.asked:
                raise KdnsctlError("session not active", code="sshUnreachable")
            return super().read(fact, sink, scope=scope)

    opened: list[Shell] = []

    def open_(_: CancelScope) -> NodeShell:
        opened.append(Dead("ssh"))
        return opened[-1]

    side = collect(bundle, Way("ssh", open_), only=["conntrack.a", "conntrack.fill"])
    assert (side.gaps, side.whole, len(opened)) == ([], 2, 2)


def test_a_node_that_does_not_answer_is_given_up_and_not_waited_for_again_and_again(bundle: Bundle) -> None:
    opened: list[Shell] = []

    def open_(_: CancelScope) -> NodeShell:
        opened.append(Losing("deadline", [item.id for item in ITEMS] + ["conntrack"]))
        return opened[-1]

    side = collect(bundle, Way("ssh", open_), only=["conntrack.a", "conntrack.fill", "iptables.v4", "iptables.v6"])
    assert len(opened) == 2
    assert {gap.reason.code for gap in side.gaps} == {"deadline"}
    assert "no further one was tried" in side.gaps[-1].reason.message
    assert side.whole == 0


def test_why_a_command_failed_is_told_in_its_own_words(bundle: Bundle) -> None:
    class Failing(Shell):
        def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
            reading = super().read(fact, sink, scope=scope)
            failed = Completeness(Proof.TRAILER, Reason("commandFailed", "the command ended with exit code 1"))
            return dataclasses.replace(reading, exit_code=1, completeness=failed, stderr=b"cat: no such \x1b[1m file\n")

    side = collect(bundle, way(Failing()), only=["conntrack.a"])
    assert side.gaps[0].reason.message == "the command ended with exit code 1: cat: no such ?[1m file"


def test_rules_of_modes_are_all_tried_where_the_mode_is_not_known_and_are_no_gaps(bundle: Bundle) -> None:
    shell = Shell(broken=["nft.v4", "nft.v6", "ipvs"])
    side = collect(bundle, way(shell))
    assert {"nft.v4", "nft.v4.text", "nft.v6.text", "ipvs", "iptables.v4"} <= set(shell.asked)
    assert side.gaps == []
    assert shell.asked.index("conntrack") < shell.asked.index("iptables.v4")
    assert shell.asked.count("conntrack") == 2


def ids(gaps: Sequence[Gap]) -> list[str]:
    return [gap.item for gap in gaps]


def test_what_is_extra_and_not_there_on_the_node_is_lacking_and_no_gap(bundle: Bundle) -> None:
    side = collect(bundle, way(Shell(absent=["dns.resolver", "conntrack.fill"])))
    assert ids(side.gaps) == ["conntrack.fill"]
    assert "dns.resolver" in ids(side.lacking)
    assert {gap.reason.code for gap in side.lacking if gap.item.startswith(("ip.", "kernel.log"))} == {"noTool"}
    assert not (bundle.directory / "nodes/knode1/01/kernel.log.gz").exists()
    bundle.finish({})
    assert verify(bundle.directory).sound


def test_for_what_is_extra_no_further_way_is_opened(bundle: Bundle) -> None:
    opened: list[str] = []

    def open_(_: CancelScope) -> NodeShell:
        opened.append("ssh")
        return Shell("ssh")

    further = replace(way(Shell("ssh")), open=open_)
    side = collect(bundle, way(Shell(absent=["kernel.modules"])), further)
    assert (opened, side.via, side.gaps) == ([], "exec", [])
    assert {"kernel.log", "kernel.modules"} <= set(ids(side.lacking))


def test_what_is_extra_and_breaks_off_is_a_gap(bundle: Bundle) -> None:
    side = collect(bundle, way(Shell(broken=["net.counters"])))
    assert ids(side.gaps) == ["net.counters"]


def test_the_node_s_own_tools_are_used_where_there_are_any(bundle: Bundle) -> None:
    side = collect(bundle, way(Shell("ssh")))
    assert (side.gaps, side.lacking) == ([], [])
    commands = {one.item: one.command for one in bundle.artefacts}
    assert commands["kernel.log"] == ("dmesg", "-r")
    assert commands["conntrack.a"] == ("cat", "/proc/net/nf_conntrack")


def test_where_there_is_no_table_in_proc_conntrack_lists_it(bundle: Bundle) -> None:
    side = collect(bundle, way(Shell("ssh", absent=["conntrack"])))
    assert side.gaps == []
    commands = {one.item: one.command for one in bundle.artefacts if one.complete}
    assert commands["conntrack.b.v6"] == ("conntrack", "-L", "-f", "ipv6", "-o", "extended,id")
    content = gzip.decompress((bundle.directory / "nodes/knode1/01/conntrack.a.v4.txt.gz").read_bytes())
    assert content.startswith(TABLE + MARKER.encode())


@pytest.mark.parametrize("absent", [["conntrack", "conntrack.tool.v6"], ["conntrack", "conntrack.tool.v4"]])
def test_one_address_family_alone_does_not_stand_in_for_the_table(bundle: Bundle, absent: list[str]) -> None:
    assert ids(collect(bundle, way(Shell("ssh", absent=absent))).gaps) == ["conntrack.a", "conntrack.b"]


def test_a_table_that_was_cut_off_is_not_read_again_in_another_way(bundle: Bundle) -> None:
    shell = Shell("ssh", broken=["conntrack"])
    assert ids(collect(bundle, way(shell)).gaps) == ["conntrack.a", "conntrack.b"]
    assert not [one for one in shell.asked if one.startswith("conntrack.tool")]


def test_rules_as_text_make_up_for_those_that_could_not_be_had_as_json(bundle: Bundle) -> None:
    shell = Shell(absent=["nft.v4", "nft.v6"])
    shell.answers = {"kubeProxy.mode": b"nftables"}
    side = collect(bundle, way(shell), forward=shell)
    assert ids(side.gaps) == []
    assert "nft.v4.text" in shell.asked


def test_what_would_load_a_module_is_only_asked_where_the_mode_is_known(bundle: Bundle) -> None:
    shell = Shell()
    side = collect(bundle, way(shell))
    assert "ipvs" in shell.asked
    assert "ipvs.sets" not in shell.asked
    assert side.why_no_mode


def test_in_a_known_mode_only_its_rules_are_read_and_iptables_for_leftovers(tmp_path: Path) -> None:
    for mode, wanted in (("ipvs", {"ipvs", "ipvs.sets"}), ("nftables", {"nft.v4"}), ("iptables", set())):
        shell = Shell()
        shell.answers = {"kubeProxy.mode": mode.encode()}
        with Bundle.create(tmp_path / mode, {}) as made:
            side = collect(made, way(shell), forward=shell)
        assert side.why_no_mode == ""
        assert set(shell.asked) & {"ipvs", "ipvs.sets", "nft.v4", "iptables.v4"} == wanted | {"iptables.v4"}


def test_times_of_an_artefact_are_those_of_the_reading(bundle: Bundle) -> None:
    collect(bundle, way(Shell()), only=["conntrack.a"])
    (table,) = bundle.artefacts
    assert table.started == table.ended  # as the reading says, and not as long as the file was open


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
