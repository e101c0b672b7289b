"""`kdnsctl find-affected`: words into options, one call on the cluster or on logs, the report on the screen.

What makes a node affected or suspect is not known here; see `find`.
"""

from __future__ import annotations

import enum
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from kdnsctl.cli import completing, nodenames, values
from kdnsctl.cli.nextsteps import caller_of
from kdnsctl.cli.options import (
    DEADLINE,
    Common,
    Connection,
    Deadline,
    Format,
    KubeProxyVersion,
    NodeChoice,
    Record,
    Rendering,
    Settle,
    check_rendering,
    said,
)
from kdnsctl.cli.standardinput import stdin_for
from kdnsctl.cli.terminal import tell
from kdnsctl.model import ExitCode, UsageError, Verdict, exit_code_of

ONLY_OFFLINE = ("node", "only_node", "year")

_OTHER_FORMATS_SHOW_ALL = "only -o name leaves suspects out"


class Included(enum.StrEnum):
    """What `-o name` may print besides affected nodes."""

    SUSPECT = "suspect"


@dataclass(frozen=True, slots=True)
class Reading:
    """How a cluster's logs are read."""

    parallel: Annotated[
        int, typer.Option("--parallel", metavar="N", min=1, max=1000, help="Nodes whose logs are read at once.")
    ] = 32
    deadline: Deadline = None
    kubelet_logs: Annotated[
        bool,
        typer.Option(
            "--kubelet-logs",
            help="Where a pod's log is empty, read kube-proxy.log through the kubelet (needs get nodes/proxy).",
            show_default=False,
        ),
    ] = False
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Read the nodes' connection tracking tables and rules too, through kube-proxy's pods, and judge by "
            "them: a log is a suspicion, the kernel's tables are the proof (needs pods/exec).",
            show_default=False,
        ),
    ] = False
    live_parallel: Annotated[
        int, typer.Option("--live-parallel", metavar="N", min=1, max=100, help="With --live: nodes read at once.")
    ] = 8
    settle: Settle = None


def find_affected(
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
            metavar="[NODE]...",
            parser=values.path,
            autocompletion=completing.complete_node,
            help="Nodes to judge, as NAME or node/NAME; - reads them from standard input, one on each line or as "
            "-o json printed them; default: all. With --logs: further paths, so that --logs DIR/*.log works, and "
            "--only-node chooses nodes.",
        ),
    ] = None,
    logs: Annotated[
        list[str] | None,
        typer.Option(
            "--logs",
            metavar="PATH",
            parser=values.path,
            help="Read kube-proxy logs from here, no cluster: a file, a directory, a glob, an archive, - (repeatable).",
        ),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(
            "--node", metavar="NODE", parser=values.node, help="The node that logs are from which do not say it."
        ),
    ] = None,
    only_node: Annotated[
        list[str] | None,
        typer.Option(
            "--only-node", metavar="NODE", parser=values.node, help="Judge this node and no other (repeatable)."
        ),
    ] = None,
    since: Annotated[
        timedelta | None,
        typer.Option(
            "--since",
            metavar="DURATION",
            parser=values.duration,
            help="Judge the last 90s, 10m, 24h, 1h30m, 2d; with --logs counted from their newest record. Default: "
            "all of the logs.",
        ),
    ] = None,
    since_time: Annotated[
        datetime | None,
        typer.Option(
            "--since-time",
            metavar="TIME",
            parser=values.moment,
            help="Judge from this moment on: 2026-11-23T03:00:00Z.",
        ),
    ] = None,
    year: Annotated[
        int | None,
        typer.Option(
            "--year", metavar="YEAR", parser=values.year, help="The year of klog lines when nothing else tells it."
        ),
    ] = None,
    kube_proxy_version: KubeProxyVersion = None,
    service: Annotated[
        list[str] | None,
        typer.Option(
            "--service",
            metavar="NS/NAME",
            parser=values.service,
            help="The Service to look for (repeatable). Default: the DNS Services.",
        ),
    ] = None,
    signature: Annotated[
        list[str] | None,
        typer.Option(
            "--signature",
            metavar="ID",
            parser=values.signature,
            autocompletion=values.complete_signature,
            help="Look for this signature only (repeatable); 'kdnsctl signatures' lists them.",
        ),
    ] = None,
    include: Annotated[
        list[Included] | None,
        typer.Option("--include", help="With -o name: print suspect nodes too. With -: take a report's suspects too."),
    ] = None,
) -> int:
    """Tell which nodes have the DNS blackhole, from kube-proxy's logs.

    Examples:
      # Every node of the cluster that the kubeconfig points to, by its kube-proxy's log
      kdnsctl find-affected
      # Two nodes, the last day; the log has to reach back that far
      kdnsctl find-affected --since 24h ip-10-0-0-1 ip-10-0-0-2
      # Logs that were saved from a cluster, one file for each pod
      kdnsctl find-affected --logs logs/*.log
      # All nodes, by their own tables too; on 1.32 and later nothing else proves that a node is healthy
      kdnsctl find-affected --live
      # What a support bundle holds, packed as it is
      kdnsctl find-affected --logs bundle.tar.gz --since 24h
      # One node's log, through a pipe
      kubectl -n kube-system logs kube-proxy-x7x2p | kdnsctl find-affected --logs - --node ip-10-0-0-1
      # The names only, for another command
      kdnsctl find-affected -o name --include suspect
      # The suspects of an earlier report, once more
      kdnsctl find-affected - --include suspect < report.json

    A failure in the log makes a node suspect. A log proves health only where kube-proxy would have logged the
    failure; where it would not, the node is unknown. With --live the node's own tables decide.

    Exit codes: 0 nothing found, 3 affected or suspect nodes found, 4 nothing found but some nodes are unknown,
    1 failed, 2 wrong usage, 130 interrupted.
    """
    _check(ctx, rendering, reading, logs=logs, words=words, since=since, since_time=since_time)

    # Late: reading logs needs modules that --help and TAB do not.
    from kdnsctl.cancel import INTERRUPTED, CancelScope  # noqa: PLC0415
    from kdnsctl.cli import progress, render  # noqa: PLC0415

    scope = CancelScope()
    with progress.reporting(common.color) as reporter:
        if logs:
            from kdnsctl.find.offline import OfflineOptions, find_in_logs  # noqa: PLC0415

            offline = OfflineOptions(
                paths=(*logs, *(words or ())),
                node=node,
                since=since,
                since_time=since_time,
                services=tuple(service or ()),
                signatures=tuple(signature or ()),
                year=year,
                kube_proxy_version=kube_proxy_version,
                nodes=tuple(only_node or ()),
            )
            report = find_in_logs(
                offline, stdin=stdin_for(offline.paths, "a log", "--logs -"), reporter=reporter, now=datetime.now(UTC)
            )
        else:
            from kdnsctl.cli.connecting import connected  # noqa: PLC0415
            from kdnsctl.cli.noting import by_verdict, noting  # noqa: PLC0415
            from kdnsctl.find import online  # noqa: PLC0415
            from kdnsctl.find.scope import Chosen  # noqa: PLC0415

            named = _nodes(words or (), frozenset(Verdict(extra.value) for extra in include or ()))
            if named == () and words:
                return _nothing_to_do(rendering.output)
            options = online.OnlineOptions(
                chosen=Chosen(named, choice.selector),
                since=since,
                since_time=since_time,
                services=tuple(service or ()),
                signatures=tuple(signature or ()),
                kube_proxy_version=kube_proxy_version,
                parallel=reading.parallel,
                kubelet_logs=reading.kubelet_logs,
                live=reading.live,
                live_parallel=reading.live_parallel,
                **({"settle": reading.settle} if reading.settle else {}),
            )
            scope = CancelScope((reading.deadline or DEADLINE).total_seconds())
            with (
                connected(connection, common, scope, reporter) as cluster,
                noting(cluster, record, "find-affected", scope) as note,
            ):
                report = online.find_in_cluster(options, cluster, scope=scope, reporter=reporter, now=datetime.now(UTC))
                note(by_verdict((one.name, one.verdict) for one in report.nodes), report.coverage)
    render.find_report(
        report,
        rendering.output,
        headers=not rendering.no_headers,
        include=frozenset(Verdict(extra.value) for extra in include or ()),
        color=common.color,
        verbose=common.verbose > 0,
        caller=caller_of(ctx),
    )
    if scope.reason is INTERRUPTED:
        tell("interrupted; what was known by then is above")
        return ExitCode.INTERRUPTED
    return exit_code_of([finding.verdict for finding in report.nodes], report.coverage)


def _nodes(words: Sequence[str], include: frozenset[Verdict]) -> tuple[str, ...]:
    """The words as names of nodes; here, as with --logs they are paths. Those on standard input for the word `-`."""
    if nodenames.STDIN in words:
        try:
            named = nodenames.from_stdin(nodenames.stdin(), include=include)
        except UsageError as error:
            raise UsageError(str(error), hint=error.hint or "to read a log from standard input: --logs -") from error
        for note in named.notes:
            tell(f"note: {note}")
        return named.names
    try:
        return tuple(values.node(word) for word in words)
    except typer.BadParameter as error:
        file = next((word for word in words if os.path.lexists(word)), None)
        how = "to read logs from files: --logs PATH" if file is None else f"did you mean --logs {shlex.quote(file)}?"
        raise UsageError(f"{error.message} ({how})") from error


def _nothing_to_do(form: Format) -> int:
    """Standard input named no node: said, and for a program a report without nodes."""
    from kdnsctl.cli import output  # noqa: PLC0415
    from kdnsctl.find.report import FindReport, to_json  # noqa: PLC0415
    from kdnsctl.model import Coverage  # noqa: PLC0415

    if form in (Format.JSON, Format.YAML):
        output.document(to_json(FindReport(datetime.now(UTC), (), Coverage.of(()))), form)
    tell("nothing to do: standard input names no node")
    return ExitCode.OK


def _check(
    ctx: typer.Context,
    rendering: Rendering,
    reading: Reading,
    *,
    logs: list[str] | None,
    words: list[str] | None,
    since: timedelta | None,
    since_time: datetime | None,
) -> None:
    """Refuse what does not go together, rather than ignore a part of it."""
    if logs:
        online = [field.name for group in (Connection, Record, NodeChoice, Reading) for field in fields(group)]
        useless = said(ctx, *online)
        if useless:
            raise UsageError(f"{', '.join(useless)} has no effect with --logs")
    else:
        useless = said(ctx, *ONLY_OFFLINE)
        if useless:
            raise UsageError(f"{', '.join(useless)} has no effect without --logs; name nodes as words: NODE...")
        typed = [word for word in words or () if word != nodenames.STDIN]
        ways = [*(["NODE"] if typed else []), *(["-"] if len(typed) != len(words or ()) else [])]
        ways += said(ctx, "selector", "all_nodes")
        if len(ways) > 1:
            raise UsageError(f"{' and '.join(ways)} exclude each other: choose nodes in one way")
        if not reading.live and (useless := said(ctx, "live_parallel", "settle")):
            raise UsageError(f"{', '.join(useless)} has no effect without --live")
    if since is not None and since_time is not None:
        raise UsageError("--since and --since-time exclude each other")
    from_stdin = not logs and nodenames.STDIN in (words or ())
    if rendering.output is not Format.NAME and not from_stdin and said(ctx, "include"):
        raise UsageError(f"--include has no effect with -o {rendering.output}: {_OTHER_FORMATS_SHOW_ALL}")
    check_rendering(ctx, rendering)
