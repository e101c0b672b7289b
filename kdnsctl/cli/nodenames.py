"""Names of nodes on standard input, for the word `-`: one on each line, or the report of a command that found some.

Names are only read and checked here. Whether there are such nodes is found out on the cluster, and a report's verdicts
are a choice of nodes, never a judgement: whoever acts on them judges again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, BinaryIO

import typer

from kdnsctl.cli import values
from kdnsctl.cli.terminal import tell
from kdnsctl.model import UsageError, Verdict

STDIN = "-"
MAX_INPUT = 256 << 20  # bytes: a FindReport of 5,000 nodes, each with all it can hold, is far smaller
REPORTS = ("FindReport",)  # kinds whose nodes have a verdict


@dataclass(frozen=True, slots=True)
class Named:
    """The nodes, each once, in the order given; and for people, which nodes of a report were left out."""

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def from_stdin(stream: BinaryIO | None, *, include: Collection[Verdict] = ()) -> Named:
    """Read all of `stream`. Of a report: the affected nodes, and those with a verdict in `include`.

    Empty input names no node, and is no error. Raises UsageError, naming the line, for anything that is neither.
    """
    if stream is None:
        raise UsageError("- reads names of nodes from standard input, but it is closed")
    content = stream.read(MAX_INPUT + 1)
    if len(content) > MAX_INPUT:
        raise UsageError(f"standard input is larger than {MAX_INPUT >> 20} MiB; these are not names of nodes")
    try:
        text = content.decode("utf-8-sig")  # PowerShell begins what it writes into a file or a pipe with a BOM
    except UnicodeDecodeError:
        raise UsageError("standard input is no text: names of nodes are expected, or a report of -o json") from None
    return _of_report(text, include) if text.lstrip().startswith("{") else _of_lines(text)


def stdin() -> BinaryIO | None:
    """Standard input; said when it is a terminal that waits for somebody to type names."""
    if sys.stdin is None:
        return None
    if sys.stdin.isatty():
        tell("reading names of nodes from the terminal, one on each line; Ctrl-D ends it")
    return sys.stdin.buffer


def _of_lines(text: str) -> Named:
    names = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word:
            continue
        try:
            names.append(values.node(word))
        except typer.BadParameter as error:
            raise UsageError(f"line {number} of standard input: {error.message}") from error
    return Named(tuple(dict.fromkeys(names)))


def _of_report(text: str, include: Collection[Verdict]) -> Named:
    try:
        report = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"standard input is not the JSON of a report: {error}", hint="was the command before it interrupted?"
        ) from error
    kind = report.get("kind")
    if kind not in REPORTS or not str(report.get("apiVersion", "")).startswith("kdnsctl.io/"):
        raise UsageError(
            f"standard input is JSON, but no report of nodes: its kind is {kind!r}", hint="pipe -o json or -o name"
        )
    names: list[str] = []
    nameless = suspects = 0
    for node in _nodes(report):
        verdict, name = str(node.get("verdict")), node.get("name")
        if verdict != Verdict.AFFECTED and verdict not in include:
            suspects += verdict == Verdict.SUSPECT
        elif node.get("identified", True) is not True:
            nameless += 1
        elif isinstance(name, str) and values.is_node_name(name):
            names.append(name)
        else:
            raise UsageError(f"the report on standard input has a node whose name is none: {name!r}")
    notes = []
    if suspects:
        nodes, them = ("node", "it") if suspects == 1 else ("nodes", "them")
        notes.append(f"{suspects} suspect {nodes} of the report left out; --include suspect takes {them} too")
    if nameless:
        notes.append(f"{nameless} of the report left out, because its logs did not say which node they are from")
    return Named(tuple(dict.fromkeys(names)), tuple(notes))


def _nodes(report: dict[str, Any]) -> list[dict[str, Any]]:
    nodes = report.get("nodes")
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise UsageError("the report on standard input has no list of nodes")
    return nodes
