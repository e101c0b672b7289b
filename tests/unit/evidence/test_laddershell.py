"""A node read by whichever rung can begin: what fails to open is passed over once, and what was used is told."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import cast

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.evidence.laddershell import LadderShell
from kdnsctl.evidence.nodeside import Way
from kdnsctl.evidence.ways import Ladder
from kdnsctl.facts import conntrack, pairs
from kdnsctl.model import KdnsctlError, Toolset
from kdnsctl.reach.shell import NodeShell
from tests.unit.probe.servers import LocalShell


class Rungs:
    """A ladder of these ways, without a kube-proxy to ask; `closed` tells that what was opened was closed."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self._ways = ways
        self.closed = False

    def ways(self, node: str, opened: contextlib.ExitStack) -> list[Way]:
        assert node == "n1"
        opened.callback(lambda: setattr(self, "closed", True))
        return list(self._ways)

    def kube_proxy(self, node: str) -> None:
        assert node == "n1"


def way(rung: str, shell: LocalShell | KdnsctlError, opened: list[str]) -> Way:
    def open_(_: CancelScope) -> NodeShell:
        opened.append(rung)
        if isinstance(shell, KdnsctlError):
            raise shell
        return shell

    return Way(rung, open_)


def test_the_first_that_opens_reads_and_what_failed_is_not_opened_again() -> None:
    opened: list[str] = []
    local = LocalShell(Toolset.KUBE_PROXY)
    rungs = Rungs([way("exec", KdnsctlError("it is forbidden"), opened), way("ssh", local, opened)])
    with CancelScope(60) as scope, LadderShell(cast("Ladder", rungs), "n1") as shell:
        for _ in range(2):
            shell.read(conntrack.PORT_RANGE, lambda _: None, scope=scope)
        assert shell.can(conntrack.PORT_RANGE)
        assert shell.rung == local.rung
    assert opened == ["exec", "ssh"]
    assert rungs.closed


def test_every_reason_is_told_when_no_rung_can() -> None:
    opened: list[str] = []
    rungs = Rungs([way(name, KdnsctlError(f"no {name}"), opened) for name in ("exec", "pod")])
    with CancelScope(60) as scope, LadderShell(cast("Ladder", rungs), "n1") as shell:
        with pytest.raises(KdnsctlError, match="of n1 cannot be read: exec: no exec; pod: no pod"):
            shell.read(conntrack.PORT_RANGE, lambda _: None, scope=scope)
        with pytest.raises(KdnsctlError, match="its pod does not run"):
            shell.read(pairs.MODE.fact, lambda _: None, scope=scope)
        assert not shell.can(pairs.MODE.fact)
        assert shell.rung == ""
