"""Measure, print the figures as Markdown for docs/performance.md, and write them as JSON where --out says."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench import draining, machine, online, reading, scanning, sshfleet, startup, tablereading
from tests.bench.measuring import RunError

SCAN_GOAL = 1.5  # times grep's wall clock time
MEMORY_GOAL = 100e6  # bytes of anonymous memory
ONLINE_MEMORY_GOAL = 150e6
READER_GOAL = 0.5  # of the bare reader's bytes a second
KUBECTL_GOAL = 3  # times as fast
TABLE_GOAL = 2.0  # times mawk's wall clock time
TABLE_MEMORY_GOAL = 200e6
DRAIN_GOAL = 0.4  # of kubectl's wall clock time
SSH_GOAL = 1.5  # times the wall clock time of ssh and gzip
SSH_MEMORY_GOAL = 300e6


PARTS = ("startup", "scan", "online", "kubectl", "memory", "nodes", "table", "ssh", "drain")


@dataclasses.dataclass(slots=True)
class Figures:
    """What was measured; what was not asked for is empty."""

    started: list[startup.Start] = dataclasses.field(default_factory=list)
    scanned: list[scanning.Scan] = dataclasses.field(default_factory=list)
    read: list[online.Online] = dataclasses.field(default_factory=list)
    kubectl: online.Kubectl | None = None
    memory: online.Memory | None = None
    execs: list[reading.Exec] = dataclasses.field(default_factory=list)
    fleets: list[reading.Fleet] = dataclasses.field(default_factory=list)
    tables: list[tablereading.TableRun] = dataclasses.field(default_factory=list)
    drained: draining.Drain | None = None
    ssh: list[sshfleet.SshFleet] = dataclasses.field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    facts = machine.facts()
    try:
        figures = _measured(options, options.only or PARTS)
    except RunError as error:
        _tell(f"error: {error}")
        return 1
    print("\n".join([*_machine_table(facts), *_tables(figures, options)]))
    if options.out:
        written = {
            "machine": facts,
            "startup": [dataclasses.asdict(start) for start in figures.started],
            "scan": [
                {**dataclasses.asdict(scan), "wall_ratio": scan.wall_ratio, "cpu_ratio": scan.cpu_ratio}
                for scan in figures.scanned
            ],
            "online": [dataclasses.asdict(one) for one in figures.read],
            "kubectl": dataclasses.asdict(figures.kubectl) if figures.kubectl else None,
            "memory": dataclasses.asdict(figures.memory) if figures.memory else None,
            "nodes": {
                "exec": [{**dataclasses.asdict(one), "ratio": one.ratio} for one in figures.execs],
                "fleet": [dataclasses.asdict(fleet) for fleet in figures.fleets],
            },
            "table": [
                {**dataclasses.asdict(run), "wall_ratio": run.wall_ratio, "cpu_ratio": run.cpu_ratio}
                for run in figures.tables
            ],
            "drain": dataclasses.asdict(figures.drained) | {"ratio": figures.drained.ratio}
            if figures.drained
            else None,
            "ssh": [{**dataclasses.asdict(one), "ratio": one.ratio} for one in figures.ssh],
        }
        options.out.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return 0


def _measured(options: argparse.Namespace, what: Sequence[str]) -> Figures:
    figures = Figures()
    under = os.environ.get("KDNSCTL_BENCH_DIR") or None
    if "startup" in what:
        figures.started = startup.run(options.runs)
    if "scan" in what:
        figures.scanned = scanning.run(options.megabytes * 1_000_000, rounds=options.rounds, under=under, tell=_tell)
    if "online" in what:
        figures.read = online.compare(online.SHAPES, pods=options.pods, rounds=options.rounds, tell=_tell)
    if "kubectl" in what:
        figures.kubectl = online.kubectl(pods=options.pods, rounds=options.rounds, tell=_tell)
    if "memory" in what:
        figures.memory = online.memory(pods=options.pods, large=options.large, nodes=options.nodes, tell=_tell)
    if "nodes" in what:
        size = options.table_megabytes * 1_000_000
        one, figures.fleets = reading.run(size, rounds=options.rounds, tell=_tell)
        figures.execs.append(one)
    if "table" in what:
        figures.tables.append(tablereading.run(options.entries, rounds=options.rounds, under=under, tell=_tell))
    if "drain" in what:
        figures.drained = draining.run(rounds=options.rounds, tell=_tell)
    if "ssh" in what:
        size = options.ssh_megabytes * 1_000_000
        figures.ssh = sshfleet.run(size, nodes=options.ssh_nodes, rounds=options.rounds, under=under, tell=_tell)
    return figures


def _tables(figures: Figures, options: argparse.Namespace) -> list[str]:
    return [
        *(_startup_table(figures.started, options.runs) if figures.started else ()),
        *(_scan_table(figures.scanned, options.rounds) if figures.scanned else ()),
        *(_online_table(figures.read, options.rounds) if figures.read else ()),
        *(_kubectl_table(figures.kubectl) if figures.kubectl else ()),
        *(_memory_table(figures.memory, options.large) if figures.memory else ()),
        *(_nodes_table(figures.execs, figures.fleets, options.rounds) if figures.execs else ()),
        *(_reading_table(figures.tables, options.rounds) if figures.tables else ()),
        *(_drain_table(figures.drained, options.rounds) if figures.drained else ()),
        *(_ssh_table(figures.ssh, options.rounds) if figures.ssh else ()),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        epilog="Files to read go into $KDNSCTL_BENCH_DIR, else into the system's temporary directory, and are removed.",
    )
    parser.add_argument("--only", action="append", choices=PARTS, help="measure only this (repeatable)")
    parser.add_argument("--megabytes", type=int, default=600, help="size of the files to scan (default: %(default)s)")
    parser.add_argument(
        "--table-megabytes", type=int, default=32, help="size of a table to read over exec (default: %(default)s)"
    )
    parser.add_argument("--entries", type=int, default=1_000_000, help="of the table to read (default: %(default)s)")
    parser.add_argument(
        "--ssh-nodes", type=int, default=sshfleet.NODES, help="SSH servers to read from (default: %(default)s)"
    )
    parser.add_argument(
        "--ssh-megabytes", type=int, default=20, help="size of the table on each of them (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=scanning.ROUNDS, help="runs of each kind (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=startup.RUNS, help="starts of each kind (default: %(default)s)")
    parser.add_argument("--pods", type=int, default=online.PODS, help="logs to read over TLS (default: %(default)s)")
    parser.add_argument("--large", type=int, default=online.LARGE, help="bytes of a large log (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=online.MANY, help="nodes to list (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the figures as JSON")
    return parser


def _machine_table(facts: dict[str, str]) -> list[str]:
    return ["| machine | |", "|---|---|", *(f"| {name} | {fact} |" for name, fact in facts.items()), ""]


def _startup_table(started: Sequence[startup.Start], runs: int) -> list[str]:
    rows = []
    for start in started:
        goal = f"≤ {start.goal:g}×" if start.goal > 1 else ""
        rows.append(f"| {start.name} | {start.cpu * 1000:.0f} ms | {start.ratio:.1f}× | {goal} |")
    return [f"| start-up, least of {runs} | CPU | of Python's | goal |", "|---|--:|--:|--:|", *rows, ""]


def _scan_table(scanned: Sequence[scanning.Scan], rounds: int) -> list[str]:
    rows = [
        f"| {scan.size / 1e6:.0f} MB, {scan.lines:,} lines, {scan.hits / scan.lines:.1%} hits "
        f"| {scan.wall:.2f} s / {scan.peer_wall:.2f} s = {scan.wall_ratio:.2f}× "
        f"| {scan.cpu:.2f} s / {scan.peer_cpu:.2f} s = {scan.cpu_ratio:.2f}× "
        f"| {scan.anonymous / 1e6:.0f} MB | {'yes' if scan.agrees else 'NO'} |"
        for scan in scanned
    ]
    columns = (
        f"find-affected / grep, least of {rounds}",
        f"wall (goal ≤ {SCAN_GOAL:g}×)",
        "CPU",
        f"anonymous memory (goal < {MEMORY_GOAL / 1e6:.0f} MB)",
        "counts right",
    )
    return [
        f"| {' | '.join(columns)} |",
        "|---|--:|--:|--:|---|",
        *rows,
        "",
    ]


def _nodes_table(read: Sequence[reading.Exec], fleets: Sequence[reading.Fleet], rounds: int) -> list[str]:
    execs = [
        f"| {one.size / 1e6:.0f} MB | {one.own:.2f} s / {one.peer_cpu:.2f} s = {one.ratio:.2f}× | {one.cpu:.2f} s |"
        for one in read
    ]
    many = [
        f"| {fleet.nodes} nodes, {fleet.size / 1e6:.1f} MB each, {fleet.parallel} at once | {fleet.wall:.1f} s "
        f"| {fleet.cpu:.1f} s | {fleet.anonymous / 1e6:.0f} MB |"
        for fleet in fleets
    ]
    return [
        f"| a table over exec / kubectl exec, least of {rounds} | CPU of the reading / of kubectl | of our process |",
        "|---|--:|--:|",
        *execs,
        "",
        "| tables of many nodes | wall | CPU | anonymous memory |",
        "|---|--:|--:|--:|",
        *many,
        "",
    ]


def _online_table(read: Sequence[online.Online], rounds: int) -> list[str]:
    rows = [
        f"| {one.pods:,} logs, {one.bytes / 1e6:.0f} MB, {one.shape} "
        f"| {one.bytes / one.wall / 1e6:.0f} / {one.bytes / one.reader_wall / 1e6:.0f} MB/s "
        f"= {one.reader_wall / one.wall:.2f}× "
        f"| {one.cpu:.2f} s / {one.reader_cpu:.2f} s: {one.reader_cpu / one.cpu:.2f}× "
        f"| {'yes' if one.agrees else 'NO'} |"
        for one in read
    ]
    columns = (
        f"find-affected / bare reader, least of {rounds}",
        f"by the wall (goal ≥ {READER_GOAL:g}×)",
        "CPU, and the rate by it",
        "counts right",
    )
    return [f"| {' | '.join(columns)} |", "|---|--:|--:|---|", *rows, ""]


def _kubectl_table(one: online.Kubectl) -> list[str]:
    right = "yes" if one.agrees else "NO"
    return [
        f"| {one.pods:,} logs | find-affected | kubectl and grep | factor (goal ≥ {KUBECTL_GOAL}×) | both right |",
        "|---|--:|--:|--:|---|",
        f"| by the wall | {one.own_wall:.2f} s | {one.wall:.2f} s | {one.wall / one.own_wall:.1f}× | {right} |",
        f"| CPU | {one.own_cpu:.2f} s | {one.cpu:.2f} s | {one.cpu / one.own_cpu:.1f}× | |",
        "",
    ]


def _memory_table(one: online.Memory, large: int) -> list[str]:
    reading = f"< {ONLINE_MEMORY_GOAL / 1e6:.0f} MB"
    return [
        "| anonymous memory | peak | goal |",
        "|---|--:|--:|",
        f"| {one.pods:,} logs of {online.SIZE / 1e6:g} MB | {one.small / 1e6:.0f} MB | {reading} |",
        f"| {one.pods:,} logs of {large / 1e6:g} MB | {one.large / 1e6:.0f} MB | {reading}, and flat |",
        f"| {one.listed:,} nodes and pods listed | {one.listing / 1e6:.0f} MB | < {MEMORY_GOAL / 1e6:.0f} MB |",
        "",
    ]


def _reading_table(read: Sequence[tablereading.TableRun], rounds: int) -> list[str]:
    rows = [
        f"| {run.size / 1e6:.0f} MB, {run.entries:,} entries, {run.stale / run.entries:.1%} stale "
        f"| {run.wall:.2f} s / {run.peer_wall:.2f} s = {run.wall_ratio:.2f}× "
        f"| {run.cpu:.2f} s / {run.peer_cpu:.2f} s = {run.cpu_ratio:.2f}× "
        f"| {run.anonymous / 1e6:.0f} MB | {'yes' if run.agrees else 'NO'} |"
        for run in read
    ]
    columns = (
        f"table read and judged / mawk, least of {rounds}",
        f"wall (goal ≤ {TABLE_GOAL:g}×)",
        "CPU",
        f"anonymous memory (goal < {TABLE_MEMORY_GOAL / 1e6:.0f} MB)",
        "counts right",
    )
    return [f"| {' | '.join(columns)} |", "|---|--:|--:|--:|---|", *rows, ""]


def _drain_table(one: draining.Drain, rounds: int) -> list[str]:
    return [
        f"| ten nodes drained / kubectl drain, least of {rounds} | wall (goal ≤ {DRAIN_GOAL:g}×) | all pods gone |",
        "|---|--:|---|",
        (
            f"| ten pods each, under budgets | {one.wall:.2f} s / {one.peer_wall:.2f} s = {one.ratio:.2f}× "
            f"| {'yes' if one.agrees else 'NO'} |"
        ),
        "",
    ]


def _ssh_table(measured: Sequence[sshfleet.SshFleet], rounds: int) -> list[str]:
    rows = [
        f"| {one.nodes} nodes, {one.size / 1e6:.0f} MB each, --via {one.via} / ssh and {one.gzip} "
        f"| {one.wall:.1f} s / {one.peer_wall:.1f} s = {one.ratio:.2f}× "
        f"| {one.cpu:.1f} s / {one.peer_cpu:.1f} s | {one.anonymous / 1e6:.0f} MB |"
        for one in measured
    ]
    columns = (
        f"collect over SSH, least of {rounds}",
        f"wall (goal ≤ {SSH_GOAL:g}×)",
        "CPU, without the servers'",
        f"anonymous memory (goal < {SSH_MEMORY_GOAL / 1e6:.0f} MB)",
    )
    return [f"| {' | '.join(columns)} |", "|---|--:|--:|--:|", *rows, ""]


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
