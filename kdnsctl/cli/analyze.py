"""`kdnsctl analyze`: words into options, one call on nodes or on files, the explanation on the screen.

What is wrong with a node is not known here; see `find` and `diagnosis`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Annotated

import typer

from kdnsctl.cli import completing, values
from kdnsctl.cli.nextsteps import caller_of
from kdnsctl.cli.options import (
    DEADLINE,
    Common,
    Connection,
    Deadline,
    KubeProxyVersion,
    NodeChoice,
    Record,
    Rendering,
    Settle,
    check_rendering,
    said,
)
from kdnsctl.cli.standardinput import STDIN, stdin_for
from kdnsctl.cli.terminal import tell
from kdnsctl.model import ExitCode, UsageError, exit_code_of

ONLY_OFFLINE = ("node", "at")
# How files of dumps, logs and bundles are called, and hardly a node.
OF_FILES = tuple(
    ".txt .log .out .json .yaml .yml .xml .nft .rules .dump .tar .tgz .gz .zst .xz .bz2 .zip".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Reading:
    """How live nodes are read."""

    settle: Settle = None
    parallel: Annotated[
        int, typer.Option("--parallel", metavar="N", min=1, max=1000, help="Nodes that are read at once.")
    ] = 8
    deadline: Deadline = None


def analyze(
    ctx: typer.Context,
    common: Common,
    connection: Connection,
    record: Record,
    rendering: Rendering,
    choice: NodeChoice,
    reading: Reading,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE|PATH]...",
            parser=values.path,
            autocompletion=completing.complete_node,
            help="Nodes to read, as NAME or node/NAME, or files to judge. A word is a PATH if there is a file or "
            "directory of that name, or if it has a slash, or is -.",
        ),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option("--node", metavar="NODE", parser=values.node, help="The node that files are of which do not say."),
    ] = None,
    at: Annotated[
        datetime | None,
        typer.Option("--at", metavar="TIME", parser=values.moment, help="When the files were read on the node."),
    ] = None,
    kube_proxy_version: KubeProxyVersion = None,
    service: Annotated[
        list[str] | None,
        typer.Option(
            "--service",
            metavar="NS/NAME",
            parser=values.service,
            help="Judge this Service only (repeatable). Default: all.",
        ),
    ] = None,
) -> int:
    """Prove what is wrong with a node, from its connection tracking table and its rules.

    Examples:
      # One node of the cluster, read through its kube-proxy's pod; nothing on it is changed
      kdnsctl analyze ip-10-0-0-1
      # DNS only, on all nodes
      kdnsctl analyze --all --service kube-system/kube-dns
      # What was saved: tables, rules, and the cluster's Services and EndpointSlices, in one directory or archive
      kdnsctl analyze evidence.tar.gz
      # One table, and the truth to judge it by
      kdnsctl analyze conntrack.txt services.json endpointslices.json --node ip-10-0-0-1

    Files are known by what they hold, not by their names. Cut-off evidence can prove a fault, but never health.

    Exit codes: 0 nothing found, 3 affected nodes found, 4 nothing found but some nodes are unknown, 1 failed,
    2 wrong usage, 130 interrupted.
    """
    paths = _check(ctx, rendering, words)

    # Late: judging needs modules that --help and TAB do not.
    from kdnsctl.cancel import INTERRUPTED, CancelScope  # noqa: PLC0415
    from kdnsctl.cli import explain, progress  # noqa: PLC0415

    scope = CancelScope()
    with progress.reporting(common.color) as reporter:
        if paths:
            from kdnsctl.find.analyze_files import FileOptions, analyze_files  # noqa: PLC0415

            files = FileOptions(tuple(paths), node, at, kube_proxy_version, tuple(service or ()))
            report = analyze_files(files, stdin=stdin_for(paths, "a dump"), reporter=reporter, now=datetime.now(UTC))
        else:
            from kdnsctl.cli.connecting import connected  # noqa: PLC0415
            from kdnsctl.cli.noting import by_verdict, noting  # noqa: PLC0415
            from kdnsctl.diagnosis.evidence import SETTLE  # noqa: PLC0415
            from kdnsctl.find.analyze_nodes import NodeOptions, analyze_nodes  # noqa: PLC0415
            from kdnsctl.find.scope import Chosen  # noqa: PLC0415

            asked = NodeOptions(
                chosen=Chosen(_nodes(words or ()), choice.selector),
                services=tuple(service or ()),
                settle=reading.settle or SETTLE,
                version=kube_proxy_version,
                parallel=reading.parallel,
            )
            scope = CancelScope((reading.deadline or DEADLINE).total_seconds())
            with (
                connected(connection, common, scope, reporter) as cluster,
                noting(cluster, record, "analyze", scope) as note,
            ):
                report = analyze_nodes(asked, cluster, scope=scope, reporter=reporter, now=datetime.now(UTC))
                note(by_verdict((one.name, one.verdict) for one in report.nodes), report.coverage)
    explain.analyze_report(
        report,
        rendering.output,
        headers=not rendering.no_headers,
        color=common.color,
        verbose=common.verbose > 0,
        caller=caller_of(ctx),
    )
    if scope.reason is INTERRUPTED:
        tell("interrupted; what was known by then is above")
        return ExitCode.INTERRUPTED
    return exit_code_of([one.verdict for one in report.nodes], report.coverage)


def is_path(word: str) -> bool:
    """Whether a word names files: there is something of that name, or it has a slash and is no node/NAME, or is -."""
    if word == STDIN or os.path.lexists(word):
        return True
    return os.sep in word and not (word.startswith("node/") and values.is_node_name(word.removeprefix("node/")))


def _check(ctx: typer.Context, rendering: Rendering, words: list[str] | None) -> list[str]:
    """Refuse what does not go together, rather than ignore a part of it; returns the words if they are paths."""
    paths = [word for word in words or () if is_path(word)]
    if paths and len(paths) < len(words or ()):
        other = next(word for word in words or () if not is_path(word))
        raise UsageError(
            f"{paths[0]} is a path, and {other} is not: nodes and files cannot be judged in one run",
            hint=f"is there no file {other}? A node that is called like a file is written node/{paths[0]}",
        )
    if paths:
        useless = said(
            ctx, *(field.name for group in (Connection, Record, NodeChoice, Reading) for field in fields(group))
        )
        if useless:
            raise UsageError(f"{', '.join(useless)} has no effect on files ({paths[0]} is a path)")
    else:
        useless = said(ctx, *ONLY_OFFLINE)
        if useless:
            raise UsageError(f"{', '.join(useless)} has no effect on live nodes; it is for files")
        ways = [*(["NODE"] if words else []), *said(ctx, "selector", "all_nodes")]
        if len(ways) > 1:
            raise UsageError(f"{' and '.join(ways)} exclude each other: choose nodes in one way")
        if not ways:
            raise UsageError(
                "which nodes? Name them, or --all, or -l SELECTOR; or name files", hint="see kdnsctl analyze --help"
            )
    check_rendering(ctx, rendering)
    return paths


def _nodes(words: Sequence[str]) -> tuple[str, ...]:
    missing = next((word for word in words if word.lower().endswith(OF_FILES)), None)
    if missing is not None:
        raise UsageError(f"there is no file {missing}", hint=f"if a node is called so: node/{missing}")
    try:
        return tuple(values.node(word) for word in words)
    except typer.BadParameter as error:
        raise UsageError(f"there is no file of that name, and {error.message}") from error
