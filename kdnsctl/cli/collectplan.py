"""A plan of collect on the screen: one row for each rung to a node, and below what no rung yields."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from kdnsctl.cli import table
from kdnsctl.cli.options import Common
from kdnsctl.cli.terminal import columns, has_color, visible
from kdnsctl.evidence.plan import CollectPlan, ItemPlan, NodePlan

HEADINGS = ("NODE", "RUNG", "STATE", "READS", "WHY")
_STYLES = {"works": "green", "untested": "yellow", "refused": "red", "missing": "red"}


def lines(plan: CollectPlan, common: Common, program: str) -> list[str]:
    """The plan, for a terminal of its width or for none."""
    width, paint = columns(sys.stdout), table.painter(color=has_color(sys.stdout, common.color))
    rows = [row for node in plan.nodes for row in _rows(node)]
    told = [*table.lay_out(HEADINGS, rows, width=width, paint=paint), ""]
    lacking: dict[tuple[str, str], list[str]] = {}
    for node in plan.nodes:
        for item in node.items:
            if not item.rung:
                lacking.setdefault((node.name, item.why), []).append(item.item)
    for (name, why), items in lacking.items():
        told += table.wrapped(visible(f"missing of {name}: {', '.join(items)}: {why}"), width)
    conditions: dict[str, dict[str, None]] = {}
    for node in plan.nodes:
        for item in node.items:
            if item.rung and item.only_if:
                conditions.setdefault(item.only_if, {})[item.item] = None
    for condition, names in conditions.items():
        told += table.wrapped(visible(f"only if {condition}: {', '.join(names)}"), width)
    for what, ways in (
        ("probe would ask DNS from", [(node.name, node.probe) for node in plan.nodes]),
        ("repair flush would run conntrack for", [(node.name, node.flush) for node in plan.nodes]),
    ):
        told += [line for said in _by_way(what, ways) for line in table.wrapped(visible(said), width)]
    whole = sum(all(item.rung for item in node.items) for node in plan.nodes)
    told += table.wrapped(f"{whole} of {len(plan.nodes)} nodes would be read whole. Nothing was made or read.", width)
    if any(answer.allowed is False for answer in plan.permissions):
        told += ["", "Next:", f"  {program} rbac collect --with-pods"]
    return told


def _by_way(what: str, ways: Iterable[tuple[str, ItemPlan]]) -> Iterator[str]:
    """Nodes that are reached in the same way, together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for name, one in ways:
        alike.setdefault((one.rung, one.why), []).append(name)
    for (rung, why), names in alike.items():
        yield f"{what} {', '.join(names)} " + (f"by {rung}, {why}" if rung else f"by no way: {why}")


def _rows(node: NodePlan) -> list[table.Row]:
    counts = {one.rung: 0 for one in node.rungs}
    for item in node.items:
        if item.rung:
            counts[item.rung] = counts.get(item.rung, 0) + 1
    known = {one.rung: one for one in node.rungs}
    rows: list[table.Row] = []
    for rung, count in counts.items():
        one = known.get(rung)
        state, why = (one.state.value, one.why) if one else ("works", "through the API")
        reads = f"{count} item{'' if count == 1 else 's'}" if count else "-"
        rows.append(
            [
                table.Cell.of(node.name),
                table.Cell.of(rung),
                table.Cell.of(state, style=_STYLES[state]),
                table.Cell.of(reads),
                table.Cell.of(why or "-"),
            ]
        )
    return rows or [[table.Cell.of(text) for text in (node.name, "-", "-", "-", "there is no way to it")]]
