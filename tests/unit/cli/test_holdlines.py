"""Holds on the screen: sentences fill the width, a command that is to be copied is one line, whatever the width."""

from __future__ import annotations

import pytest

from kdnsctl.changes.plan import NodePlan, Plan
from kdnsctl.cli import holds
from kdnsctl.cli.changing import plan_lines
from kdnsctl.cluster.target import Target
from kdnsctl.model import Step
from kdnsctl.quarantine.holdsbase import Held, Hold

RUN = "kubectl --context MANAGEMENT-CLUSTER -n fleet annotate machines.cluster.x-k8s.io workers-abcde-x7k2p a=b c="
HOLD = Hold(
    "cluster-api",
    Held.NOT_FROM_HERE,
    run=RUN,
    back=RUN.replace("a=b c=", "a- c-"),
    risk="the instance being deleted in the cloud, and a drain by Cluster API, which comes before this hook",
    why="Machine fleet/workers-abcde-x7k2p is not in this cluster",
)


@pytest.mark.parametrize("width", [60, 80, 200, None])
def test_sentences_fit_and_commands_are_whole(width: int | None) -> None:
    lines = holds.lines(HOLD, width)
    assert lines[0].startswith("  cluster-api: cannot be held from here: Machine")
    commands = [line for line in lines if "kubectl" in line]
    assert commands == [f"    by hand: {HOLD.run}", f"    and back: {HOLD.back}"]
    assert all(width is None or len(line) <= width for line in lines if line not in commands)
    assert HOLD.risk.split() == " ".join(lines).split("not protected from: ")[1].split("by hand")[0].split()


def test_one_that_came_later_is_not_called_held() -> None:
    step = Step("object.annotate", {"path": "/api/v1/nodes/n", "key": "k"}, "u", None, "true")
    hold = Hold("karpenter", Held.HELD, (step,))
    assert not hold.in_force
    assert "not held: it came later" in holds.lines(hold, 200, in_force=hold.in_force)[0]
    assert holds.lines(hold, 200) == ["  karpenter: held"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_plan_fills_the_width_and_keeps_commands_whole(width: int) -> None:
    node = NodePlan("knode1", (), ("capture the evidence, and judge it",), (f"{HOLD.manager}: {HOLD.risk}",), (RUN,))
    target = Target("https://10.0.0.1:6443", "prod", "jane")
    lines = plan_lines(Plan("quarantine", "prod", (node,)), target, width)
    assert f"    by hand: {RUN}" in lines
    assert all(len(line) <= width for line in lines if RUN not in line)
