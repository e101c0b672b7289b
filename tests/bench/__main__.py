"""Measure, print the figures as Markdown for docs/performance.md, and write them as JSON where --out says."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench import machine, reading, scanning, startup
from tests.bench.measuring import RunError

SCAN_GOAL = 1.5  # times grep's wall clock time
MEMORY_GOAL = 100e6  # bytes of anonymous memory


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    what = options.only or ["startup", "scan", "nodes"]
    facts = machine.facts()
    started: list[startup.Start] = []
    scanned: list[scanning.Scan] = []
    read: list[reading.Exec] = []
    fleets: list[reading.Fleet] = []
    try:
        if "startup" in what:
            started = startup.run(options.runs)
        if "scan" in what:
            under = os.environ.get("KDNSCTL_BENCH_DIR") or None
            scanned = scanning.run(options.megabytes * 1_000_000, rounds=options.rounds, under=under, tell=_tell)
        if "nodes" in what:
            one, fleets = reading.run(options.table_megabytes * 1_000_000, rounds=options.rounds, tell=_tell)
            read.append(one)
    except RunError as error:
        _tell(f"error: {error}")
        return 1
    print("\n".join(_machine_table(facts)))
    if started:
        print("\n".join(_startup_table(started, options.runs)))
    if scanned:
        print("\n".join(_scan_table(scanned, options.rounds)))
    if read:
        print("\n".join(_nodes_table(read, fleets, options.rounds)))
    if options.out:
        figures = {
            "machine": facts,
            "startup": [dataclasses.asdict(start) for start in started],
            "scan": [
                {**dataclasses.asdict(scan), "wall_ratio": scan.wall_ratio, "cpu_ratio": scan.cpu_ratio}
                for scan in scanned
            ],
            "nodes": {
                "exec": [{**dataclasses.asdict(one), "ratio": one.ratio} for one in read],
                "fleet": [dataclasses.asdict(fleet) for fleet in fleets],
            },
        }
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        epilog="Files to scan go into $KDNSCTL_BENCH_DIR, else into the system's temporary directory, and are removed.",
    )
    parser.add_argument(
        "--only", action="append", choices=["startup", "scan", "nodes"], help="measure only this (repeatable)"
    )
    parser.add_argument("--megabytes", type=int, default=600, help="size of the files to scan (default: %(default)s)")
    parser.add_argument(
        "--table-megabytes", type=int, default=32, help="size of a table to read over exec (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=scanning.ROUNDS, help="scans of each kind (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=startup.RUNS, help="starts of each kind (default: %(default)s)")
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


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
