"""Flushing nodes whose tables are written down: what goes, what never does, and what ends it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.changes import journal
from kdnsctl.changes.incidents import Actor, Incident
from kdnsctl.changes.journal import Journal
from kdnsctl.changes.plan import Plan
from kdnsctl.cluster.retries import NO_RETRIES
from kdnsctl.facts.pairs import MODE
from kdnsctl.find.live import LiveOptions, judging
from kdnsctl.find.scope import Chosen, InScope
from kdnsctl.model import Fact, NodeChange, Reason, Scope, SilentReporter, Toolset, Verdict
from kdnsctl.netfilter.dump import Completeness, Proof
from kdnsctl.reach.shell import Reading, Sink
from kdnsctl.repair.flushing import flush as flush_nodes
from kdnsctl.repair.flushplan import FlushOptions, Prepared
from kdnsctl.repair.hands import Hands
from kdnsctl.repair.proving import Prober
from kdnsctl.repair.report import NodeRepair, Probed, RepairReport, Result
from kdnsctl.repair.session import Session
from tests.unit.cluster.apiserver import Server
from tests.unit.cluster.conftest import Connect
from tests.unit.find.scripted import (
    NEW,
    OLD,
    RECORDINGS,
    RULES,
    STALE_RULES,
    STALE_TABLE,
    Shell,
    Slices,
    endpoint_slice,
    proxy,
)

DNS = ("kube-system/kube-dns",)
COUNT = b"conntrack v1.4.7 (conntrack-tools): %d flow entries have been deleted.\n"
ABORTED = b"conntrack v1.4.7 (conntrack-tools): Operation failed: such conntrack doesn't exist\n"
CUT = Reason("cutOff", "the connection broke off")


def is_stale(line: bytes) -> bool:
    return any(f"src={old} ".encode() in line.partition(b"dport=53 ")[2] for old in OLD)


NFT = (RECORDINGS / "node" / "nft-kube-proxy.json").read_bytes()
IPVS = b"""IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
UDP  0A60000A:0035 rr
  -> 0AF40105:0035      Masq    1      0          0
  -> 0AF40304:0035      Masq    1      0          0
TCP  0A60000A:0035 rr
  -> 0AF40105:0035      Masq    1      0          0
  -> 0AF40304:0035      Masq    1      0          0
"""
STALE = sum(is_stale(line) for line in STALE_TABLE.splitlines())


class Node(Shell):
    """A node with a table from which `change` deletes, as conntrack does: `most` entries a call, then it aborts.

    `mode` is what its kube-proxy says on /proxyMode; None: it cannot be asked, as by SSH.
    """

    def __init__(
        self,
        name: str,
        table: Any = STALE_TABLE,
        *,
        rules: bytes = RULES,
        nft: bytes | None = None,
        ipvs: bytes | None = None,
        most: int | None = None,
        mode: bytes | None = None,
    ) -> None:
        super().__init__(name, table, rules=rules, nft=nft, ipvs=ipvs)
        self.mode = mode
        self.changes: list[tuple[str, ...]] = []
        self.most = most
        self.before: Callable[[], None] = lambda: None

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        if fact.id != MODE.fact.id or self.mode is None:
            return super().read(fact, sink, scope=scope)
        sink(self.mode)
        now = dt.datetime.now(dt.UTC)
        return Reading(fact.id, self.node, self.rung, Completeness(Proof.TRAILER), now, now, 0.0, len(self.mode), 200)

    def can_change(self, change: NodeChange) -> bool:
        return bool(change.commands)

    def change(self, change: NodeChange, sink: Sink, *, scope: CancelScope) -> Reading:
        scope.check()
        command = change.commands[Toolset.KUBE_PROXY]
        self.changes.append(command)
        backend = command[command.index("--reply-src") + 1]
        table = self._tables[0]
        assert isinstance(table, bytes)
        lines = table.splitlines(keepends=True)
        matching = [line for line in lines if f"src={backend} ".encode() in line.partition(b"dport=53 ")[2]]
        gone = matching[: self.most]
        self._tables = [b"".join(line for line in lines if line not in gone)]
        self.before()
        for line in gone:
            sink(line[line.index(b"udp") :])
        aborted = len(gone) < len(matching)
        code = 0 if gone and not aborted else 1
        now = dt.datetime.now(dt.UTC)
        problem = Reason("commandFailed", "exit code 1") if code else None
        said = ABORTED if aborted else COUNT % len(gone)
        return Reading(
            *("conntrack.delete", self.node, self.rung, Completeness(Proof.TRAILER, problem), now, now, 0.0, 0, code),
            stderr=said,
        )


class FakeHands:
    """A way to a node that is there already."""

    def __init__(self, node: Node, opened: Callable[[], None] = lambda: None) -> None:
        self._node = node
        self._opened = opened

    def rung(self, _: CancelScope) -> str:
        return self._node.rung

    def shell(self, _: CancelScope) -> Node:
        self._opened()
        return self._node

    def close(self) -> None:
        pass


Flush = Callable[..., dict[str, NodeRepair]]


def _not_asked(_node: str, _scope: CancelScope) -> Probed:
    return Probed(None, "nothing here can ask DNS")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture
def flush(api: Server, connect_to: Connect, place: Path, scope: CancelScope) -> Iterator[Flush]:
    def run(
        *nodes: Node,
        opened: Callable[[], None] = lambda: None,
        probe: Prober = _not_asked,
        **options: Any,
    ) -> dict[str, NodeRepair]:
        by_name = {node.node: node for node in nodes}
        proxies = {name: proxy(name) for name in by_name}
        connection = connect_to(api, retry=NO_RETRIES)
        asked = LiveOptions(DNS, dt.timedelta(0), whole=False, thorough=False, keep=True)
        now = dt.datetime.now(dt.UTC)
        with (
            judging(
                connection,
                proxies.values(),
                (),
                asked,
                scope=scope,
                reporter=SilentReporter(),
                now=now,
                shell_of=lambda one: by_name[one.node],
            ) as judged,
            Journal.open(place) as written,
        ):
            prepared = Prepared(
                FlushOptions(Chosen(tuple(by_name)), **options),
                InScope(tuple(by_name), proxies, Scope.FULL, ()),
                DNS,
                Plan("repair flush", "test", ()),
                tuple(by_name),
                {},
                judged,
                {name: cast("Hands", FakeHands(node, opened)) for name, node in by_name.items()},
                {},
                None,
                probe,
            )
            incident = Incident("i", place.parent, "u", written, fresh=True)
            actor = Actor("me@here", "run")
            session = Session(connection, incident, actor, scope, SilentReporter(), lambda: now)
            report: RepairReport = flush_nodes(prepared, session)
        return {node.name: node for node in report.nodes}

    yield run
    scope.cancel()


def told(place: Path) -> list[journal.Record]:
    return list(journal.read(place).records)


def flows(place: Path) -> list[list[Any]]:
    return [flow for record in told(place) if record.kind == "stepPart" for flow in record.body["flows"]]


def test_all_that_is_stale_goes_group_by_group_and_each_entry_is_journaled(
    api: Server, flush: Flush, place: Path
) -> None:
    Slices(api, endpoint_slice(NEW))
    node = Node("a")
    answer = flush(node)["a"]
    assert (answer.result, answer.before, answer.after, answer.deleted) == (
        Result.REPAIRED,
        Verdict.AFFECTED,
        Verdict.CLEAN,
        STALE,
    )
    assert len(node.changes) == len(OLD)
    assert all(command[command.index("--reply-src") + 1] in OLD for command in node.changes)
    assert len({tuple(flow) for flow in flows(place)}) == STALE
    assert told(place)[-1].body["result"] == "repaired"


def test_a_conntrack_that_stops_at_an_entry_that_expired_is_run_again(api: Server, flush: Flush, place: Path) -> None:
    Slices(api, endpoint_slice(NEW))
    answer = flush(Node("a", most=17))["a"]
    assert (answer.result, answer.deleted, len(flows(place))) == (Result.REPAIRED, STALE, STALE)
    assert answer.rounds > 1
    assert not any(record.kind == "stepFailed" for record in told(place))


def test_entries_that_cannot_be_deleted_end_it_and_no_other_node_is_begun(api: Server, flush: Flush) -> None:
    Slices(api, endpoint_slice(NEW))
    first, second = Node("a", most=0), Node("b")
    answers = flush(first, second)
    assert (answers["a"].result, answers["a"].reason.code, answers["a"].changed) == (Result.FAILED, "notGone", False)
    assert answers["b"].result is Result.NOT_TRIED
    assert second.changes == []


def test_a_node_that_is_well_already_proves_nothing_for_the_others(api: Server, flush: Flush) -> None:
    Slices(api, endpoint_slice(NEW))
    well = Node("a", b"".join(line for line in STALE_TABLE.splitlines(keepends=True) if not is_stale(line)))
    second, third = Node("b", most=0), Node("c")
    answers = flush(well, second, third)
    assert [answers[name].result for name in "abc"] == [Result.NOTHING_TO_DO, Result.FAILED, Result.NOT_TRIED]
    assert third.changes == []


def test_rules_that_lead_to_the_dead_and_evidence_that_is_cut_change_nothing(api: Server, flush: Flush) -> None:
    Slices(api, endpoint_slice(NEW))
    stale, cut = Node("a", rules=STALE_RULES), Node("b", (STALE_TABLE, CUT))
    for node, code in ((stale, "rulesNotRight"), (cut, "incomplete")):
        (answer,) = flush(node).values()
        assert (answer.result, answer.reason.code, answer.before) == (Result.REFUSED, code, Verdict.AFFECTED)
        assert node.changes == []


@pytest.mark.parametrize(
    ("mode", "rules", "code"),
    [
        (b"ipvs", RULES, "ipvs"),
        (b"nftables", RULES, "incomplete"),  # what is left of another mode proves nothing
        (None, b"*nat\nCOMMIT\n", "incomplete"),
    ],
    ids=["ipvs", "rules-of-another-mode", "mode-unknown"],
)
def test_where_deleting_may_not_help_or_rules_are_not_proven_nothing_is_deleted(
    api: Server, flush: Flush, mode: bytes | None, rules: bytes, code: str
) -> None:
    Slices(api, endpoint_slice(NEW))
    node = Node("a", mode=mode, rules=rules)
    (answer,) = flush(node).values()
    assert (answer.result, answer.reason.code, node.changes) == (Result.REFUSED, code, [])
    assert ("ipvs mode" in answer.advice) is (code == "ipvs")


def test_right_rules_of_a_mode_that_kube_proxy_may_have_left_prove_nothing(api: Server, flush: Flush) -> None:
    Slices(api, endpoint_slice(NEW))
    wrong = Node("a", nft=NFT)  # kube-proxy cannot be asked for its mode, and these lead to endpoints of long ago
    right = Node("b", nft=NFT.replace(b"10.244.2.5", NEW[0].encode()).replace(b"10.244.3.5", NEW[1].encode()))
    cut = Node("c", nft=NFT[: len(NFT) // 2])
    (answer,) = flush(wrong).values()
    assert (answer.result, answer.reason.code, wrong.changes) == (Result.REFUSED, "rulesNotRight", [])
    (answer,) = flush(cut).values()
    assert (answer.result, answer.reason.code, cut.changes) == (Result.REFUSED, "incomplete", [])
    assert "nftables mode is not known" in answer.reason.message
    balanced = Node("d", ipvs=IPVS)
    (answer,) = flush(balanced).values()
    assert (answer.result, answer.reason.code, balanced.changes) == (Result.REFUSED, "ipvs", [])
    (answer,) = flush(right).values()
    assert answer.result is Result.REPAIRED


def test_an_endpoint_that_came_back_is_not_touched(api: Server, flush: Flush) -> None:
    slices = Slices(api, endpoint_slice(NEW))
    node = Node("a")

    def back() -> None:
        slices.now = [endpoint_slice((*NEW, *OLD))]

    answer = flush(node, opened=back)["a"]
    assert node.changes == []
    assert (answer.deleted, answer.changed) == (0, False)


def test_after_so_many_failures_no_further_node_is_begun(api: Server, flush: Flush) -> None:
    Slices(api, endpoint_slice(NEW))
    nodes = [Node("a"), *(Node(name, most=0) for name in "bcde")]
    answers = flush(*nodes, parallel=1, max_failures=2)
    assert [answers[name].result for name in "abcde"] == [
        *(Result.REPAIRED, Result.FAILED, Result.FAILED, Result.NOT_TRIED, Result.NOT_TRIED),
    ]
    assert nodes[3].changes == nodes[4].changes == []


def test_interrupted_while_a_group_goes_what_went_is_told(
    api: Server, flush: Flush, place: Path, scope: CancelScope
) -> None:
    Slices(api, endpoint_slice(NEW))
    first, second = Node("a"), Node("b")
    first.before = scope.cancel
    answers = flush(first, second)
    assert answers["a"].result is Result.FAILED
    assert answers["a"].changed
    assert len(flows(place)) == answers["a"].deleted > 0
    assert (answers["b"].result, second.changes) == (Result.NOT_TRIED, [])


def test_a_probe_that_fails_is_no_repair(api: Server, flush: Flush) -> None:
    Slices(api, endpoint_slice(NEW))
    answer = flush(Node("a"), probe=lambda node, _: Probed(False, f"3 of 8 lost on {node}"))["a"]
    assert (answer.result, answer.reason.code, answer.after) == (Result.FAILED, "probe", Verdict.CLEAN)
    assert answer.probed is not None
