"""`kdnsctl find-affected`: words into `OfflineOptions`, one call, the report on the screen.

What makes a node affected or suspect is not known here; see `find`.
"""

from __future__ import annotations

import enum
import io
import os
import shlex
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Annotated, BinaryIO

import typer

from kdnsctl.cli import values
from kdnsctl.cli.commands import Hidden
from kdnsctl.cli.options import Common, Connection, Format, Rendering, check_rendering, said
from kdnsctl.cli.terminal import tell
from kdnsctl.model import UsageError, Verdict, exit_code_of

_OTHER_FORMATS_SHOW_ALL = "only -o name leaves suspects out"


class Included(enum.StrEnum):
    """What `-o name` may print besides affected nodes."""

    SUSPECT = "suspect"


def find_affected(
    ctx: typer.Context,
    common: Common,
    connection: Annotated[Connection, Hidden],  # noqa: ARG001  # accepted, to say that it has no effect on logs
    rendering: Rendering,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...",
            parser=values.path,
            help="With --logs: further paths, so that --logs DIR/*.log works. --only-node chooses nodes.",
        ),
    ] = None,
    logs: Annotated[
        list[str] | None,
        typer.Option(
            "--logs",
            metavar="PATH",
            parser=values.path,
            help="kube-proxy logs: a file, a directory, a glob, an archive, or - for stdin (repeatable).",
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
            help="Judge this long before the newest record: 90s, 10m, 24h, 1h30m, 2d. Default: all of the logs.",
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
    kube_proxy_version: Annotated[
        str | None,
        typer.Option(
            "--kube-proxy-version",
            metavar="VERSION",
            parser=values.kube_proxy_version,
            help="The release of kube-proxy, such as v1.30, for logs that do not say it.",
        ),
    ] = None,
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
        list[Included] | None, typer.Option("--include", help="With -o name: print suspect nodes too.")
    ] = None,
) -> int:
    """Tell which nodes have the DNS blackhole, from kube-proxy's logs.

    Examples:
      # Logs that were saved from a cluster, one file for each pod
      kdnsctl find-affected --logs logs/*.log
      # What a support bundle holds, packed as it is
      kdnsctl find-affected --logs bundle.tar.gz --since 24h
      # One node's log, through a pipe
      kubectl -n kube-system logs kube-proxy-x7x2p | kdnsctl find-affected --logs - --node ip-10-0-0-1
      # The names only, for another command
      kdnsctl find-affected --logs logs/ -o name --include suspect

    A failure in the log makes a node suspect. A log proves health only where kube-proxy would have logged the
    failure; where it would not, the node is unknown.

    Exit codes: 0 nothing found, 3 affected or suspect nodes found, 4 nothing found but some nodes are unknown,
    1 failed, 2 wrong usage.
    """
    paths = (*(logs or ()), *(words or ()))
    _check(ctx, rendering, logs=logs, words=words, since=since, since_time=since_time)

    # Late: reading logs needs modules that --help and TAB do not.
    from kdnsctl.cli import progress, render  # noqa: PLC0415
    from kdnsctl.find.offline import OfflineOptions, find_in_logs  # noqa: PLC0415

    options = OfflineOptions(
        paths=paths,
        node=node,
        since=since,
        since_time=since_time,
        services=tuple(service or ()),
        signatures=tuple(signature or ()),
        year=year,
        kube_proxy_version=kube_proxy_version,
        nodes=tuple(only_node or ()),
    )
    with progress.reporting(common.color) as reporter:
        report = find_in_logs(options, stdin=_stdin(paths), reporter=reporter, now=datetime.now(UTC))
    render.find_report(
        report,
        rendering.output,
        headers=not rendering.no_headers,
        include=frozenset(Verdict(extra.value) for extra in include or ()),
        color=common.color,
        verbose=common.verbose > 0,
        program=ctx.find_root().info_name or "kdnsctl",
    )
    return exit_code_of([finding.verdict for finding in report.nodes], report.coverage)


def _stdin(paths: tuple[str, ...]) -> BinaryIO:
    """Standard input, for the path "-"; said when it is a terminal that waits for somebody to type a log."""
    if sys.stdin is None:
        if "-" in paths:
            raise UsageError("--logs - reads standard input, but it is closed")
        return io.BytesIO()
    if "-" in paths and sys.stdin.isatty():
        tell("reading a log from the terminal; Ctrl-D ends it")
    return sys.stdin.buffer


def _check(
    ctx: typer.Context,
    rendering: Rendering,
    *,
    logs: list[str] | None,
    words: list[str] | None,
    since: timedelta | None,
    since_time: datetime | None,
) -> None:
    """Refuse what does not go together, rather than ignore a part of it."""
    if not logs:
        file = next((word for word in words or () if word == "-" or os.path.lexists(word)), None)
        how = (
            "give kube-proxy's logs with --logs PATH (a file, a directory, an archive, or - for stdin)"
            if file is None
            else f"did you mean --logs {shlex.quote(file)}?"
        )
        raise UsageError(f"reading from a cluster is not in this version; {how}")
    useless = said(ctx, *(field.name for field in fields(Connection)))
    if useless:
        raise UsageError(f"{', '.join(useless)} has no effect with --logs")
    if since is not None and since_time is not None:
        raise UsageError("--since and --since-time exclude each other")
    if rendering.output is not Format.NAME and said(ctx, "include"):
        raise UsageError(f"--include has no effect with -o {rendering.output}: {_OTHER_FORMATS_SHOW_ALL}")
    check_rendering(ctx, rendering)
