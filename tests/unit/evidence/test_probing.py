"""Asking from nodes: the first rung that has a prober, and why the others have none."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import cast

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.dns import DnsPort, DnsService
from kdnsctl.evidence.nodeside import Way
from kdnsctl.evidence.probing import LadderAsker, ProbeReport, needs_of, to_json
from kdnsctl.evidence.ways import Ladder
from kdnsctl.model import ExitCode, Fact, KdnsctlError, Reason, Scope, Toolset
from kdnsctl.probe.measure import Kind, Measured, Options, Place, Target, conclude
from kdnsctl.probe.queries import Attempt, Batch
from kdnsctl.probe.verdict import Finding, Result
from kdnsctl.reach.shell import NodeShell
from tests.unit.probe.servers import LocalShell, Server, serving

PYTHON = {"python3": sys.executable}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Rungs:
    """A ladder of these ways; `closed` tells that what was opened was closed."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self._ways = ways
        self.closed = False

    def ways(self, node: str, opened: contextlib.ExitStack) -> list[Way]:
        assert node == "n1"
        opened.callback(lambda: setattr(self, "closed", True))
        return list(self._ways)


def way(rung: str, shell: LocalShell | KdnsctlError, opened: list[str]) -> Way:
    def open_(_: CancelScope) -> NodeShell:
        opened.append(rung)
        if isinstance(shell, KdnsctlError):
            raise shell
        return shell

    can: Callable[[Fact], bool] = shell.can if isinstance(shell, LocalShell) else lambda _: True
    return Way(rung, open_, can)


def ask(rungs: Rungs, batches: Sequence[Batch]) -> tuple[LadderAsker, list[Attempt]]:
    told: list[Attempt] = []
    with CancelScope() as scope, LadderAsker(cast("Ladder", rungs), "n1") as asker:
        for batch in batches:
            asker.ask(batch, told.append, scope=scope)
    return asker, told


def test_the_first_rung_that_has_a_prober_is_taken_and_kept() -> None:
    opened: list[str] = []
    rungs = Rungs(
        [
            way("exec", LocalShell(Toolset.KUBE_PROXY), opened),
            way("pod", KdnsctlError("the pod is refused"), opened),
            way("ssh", LocalShell(Toolset.HOST, programs={"python3": "/nonexistent"}), opened),
            way("openssh", LocalShell(Toolset.HOST, programs=PYTHON), opened),
        ]
    )
    with serving() as server:
        batch = Batch("127.0.0.1", server.port, count=2, interval=0)
        asker, told = ask(rungs, [batch, batch])
        assert [port for port, _ in server.asked] == [one.port for one in told]
    assert len(told) == 4
    assert all(one.answered for one in told)
    assert opened == ["pod", "ssh", "openssh"]
    assert (asker.where, asker.via, rungs.closed) == ("n1", "ssh", True)  # as the shell of the last calls itself


def test_where_none_has_one_each_reason_is_told_once() -> None:
    opened: list[str] = []
    rungs = Rungs(
        [
            way("exec", LocalShell(Toolset.KUBE_PROXY), opened),
            way("pod", LocalShell(Toolset.KUBE_PROXY), opened),
            way("ssh", KdnsctlError("nobody answers at 192.0.2.1:22"), opened),
        ]
    )
    with pytest.raises(KdnsctlError) as error:
        ask(rungs, [Batch("127.0.0.1")])
    assert str(error.value) == (
        "DNS cannot be asked from n1: exec: kube-proxy's image has nothing to ask DNS with; "
        "pod: no image with a prober is named (--image); ssh: nobody answers at 192.0.2.1:22"
    )
    assert "--image" in error.value.hint
    assert (opened, rungs.closed) == (["ssh"], True)
    with pytest.raises(KdnsctlError, match="there is no way to it"):
        ask(Rungs([]), [Batch("127.0.0.1")])


def test_what_broke_off_after_an_answer_is_not_asked_again_by_another_rung(server: Server) -> None:
    class Breaking(LocalShell):
        def command(self, fact: Fact) -> tuple[str, ...] | None:
            ended = 'import sys; print(\'{"sourcePort": 1, "ms": 1, "rcode": 0, "answers": 1}\'); sys.exit(9)'
            return (sys.executable, "-c", ended) if super().command(fact) else None

    opened: list[str] = []
    second = LocalShell(Toolset.HOST, programs=PYTHON)
    rungs = Rungs([way("pod", Breaking(Toolset.HOST), opened), way("ssh", second, opened)])
    with pytest.raises(KdnsctlError, match="broke off"):
        ask(rungs, [Batch("127.0.0.1", server.port, count=2)])
    assert opened == ["pod"]
    assert server.asked == []


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


SERVICE = DnsService("kube-system", "kube-dns", "u", ("10.96.0.10",), (DnsPort("dns", "UDP", 53),))


def place(name: str, result: Result, *measured: Measured) -> Place:
    return Place(name, "pod", measured, (Finding(result, "x", "as it is"),))


def report(*places: Place, here: Place | None = None, left: tuple[str, ...] = ()) -> ProbeReport:
    return ProbeReport("c", NOW, Options(), (SERVICE,), here, places, Scope.FULL, (), left)


def test_the_exit_code_tells_trouble_before_what_is_not_known_and_that_before_all_is_well() -> None:
    well, bad = place("a", Result.ANSWERS), place("b", Result.STALE_ENTRIES)
    unknown, unreachable = place("c", Result.UNKNOWN), place("", Result.UNREACHABLE)
    assert report(well).exit_code is ExitCode.OK
    assert report(well, bad, unknown).exit_code is ExitCode.FOUND
    assert report(well, unknown).exit_code is ExitCode.INCOMPLETE
    assert report(here=unreachable).exit_code is ExitCode.INCOMPLETE
    assert report(well, left=("a pod may be left",)).exit_code is ExitCode.INCOMPLETE
    broken = Measured(Target(Kind.POD, "s", Batch("10.0.0.1")))
    broken.problem = Reason("brokeOff", "broke off")
    assert report(place("a", Result.ANSWERS, broken)).exit_code is ExitCode.INCOMPLETE


def test_every_node_is_counted() -> None:
    told = to_json(report(place("a", Result.ANSWERS), place("b", Result.UNKNOWN)))
    assert told["coverage"] == {"inScope": 2, "judged": 1, "unknown": 1, "notApplicable": 0, "scope": "full"}
    assert conclude("n", "", [], [], None).result is Result.UNKNOWN


def test_a_rung_says_with_what_it_would_ask() -> None:
    assert "dnsprobe" in needs_of("pod")
    assert "python3" in needs_of("ssh")
    assert "python3" in needs_of("pod-privileged")
