"""`kdnsctl collect`: words into options, one call, the report on the screen (kind `CollectReport`).

What is collected, and how, is known to `evidence`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from kdnsctl import __version__
from kdnsctl.cli import completing, values
from kdnsctl.cli.nextsteps import Caller, next_lines
from kdnsctl.cli.options import Answer, Common, Connection, Form, Record
from kdnsctl.cli.reaching import Pods, Rung, Ssh, check_via, pod_settings, ssh_ways
from kdnsctl.cli.terminal import put, tell
from kdnsctl.model import ExitCode, UsageError

if TYPE_CHECKING:
    from kdnsctl.cancel import CancelScope
    from kdnsctl.cluster.transport import Connection as Connected
    from kdnsctl.evidence.collect import CollectOptions
    from kdnsctl.evidence.collected import CollectReport
    from kdnsctl.evidence.sshways import SshWays
    from kdnsctl.model import Reporter

DEADLINE = timedelta(minutes=10)
HEADINGS = ("NODE", "STATUS", "VIA", "WHOLE", "MISSING", "REASON")
_STYLES = {"complete": "green", "partial": "yellow", "failed": "red"}


@dataclass(frozen=True, slots=True)
class Extent:
    """What is collected, and within which time."""

    TITLE: ClassVar = "How much, and within which time"

    item: Annotated[
        list[str], typer.Option("--item", metavar="ID", help="Collect this item of nodes only (repeatable).")
    ] = field(default_factory=list)
    skip: Annotated[
        list[str], typer.Option("--skip", metavar="ID", help="Leave this item of nodes out (repeatable).")
    ] = field(default_factory=list)
    timeout: Annotated[
        timedelta | None,
        typer.Option(
            "--timeout",
            metavar="DURATION",
            parser=values.duration,
            help="How long each command may take on a node. Default: 10s to 60s, by what it reads.",
        ),
    ] = None
    parallel: Annotated[
        int, typer.Option("--parallel", metavar="N", min=1, max=1000, help="Nodes that are read at once.")
    ] = 16
    deadline: Annotated[
        timedelta | None,
        typer.Option(
            "--deadline",
            metavar="DURATION",
            parser=values.duration,
            help="Stop after this time and keep what was had by then. Default: 10m.",
        ),
    ] = None


def collect(
    ctx: typer.Context,
    common: Common,
    connection: Connection,
    record: Record,
    answer: Answer,
    ssh: Ssh,
    pods: Pods,
    extent: Extent,
    nodes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE]...", parser=values.node, autocompletion=completing.complete_node, help="Nodes to read."
        ),
    ] = None,
    selector: Annotated[
        str | None, typer.Option("--selector", "-l", metavar="SELECTOR", help="The nodes with these labels.")
    ] = None,
    all_nodes: Annotated[bool, typer.Option("--all", help="All nodes.", show_default=False)] = False,  # noqa: FBT002  # typer's way
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory",
            "-O",
            metavar="DIR",
            help="Where to. Default: ./kdnsctl-evidence-TIME, or with --incident a directory of the incident's.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="DIR",
            help="Go on with the bundle in DIR: read those of its nodes that are not complete.",
        ),
    ] = None,
    again: Annotated[  # noqa: FBT002  # typer's way
        bool,
        typer.Option(
            "--again", help="With --resume: read all nodes anew, after a repair for example.", show_default=False
        ),
    ] = False,
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive", metavar="FILE", help="Pack the bundle into FILE (.tar.zst, .tar.gz). Default: DIR.tar.zst."
        ),
    ] = None,
    no_archive: Annotated[  # noqa: FBT002  # typer's way
        bool, typer.Option("--no-archive", help="Leave it at the directory.", show_default=False)
    ] = False,
    via: Annotated[
        Rung,
        typer.Option(
            "--via", help="How nodes are reached. auto: exec into kube-proxy, else pods of its own, else SSH."
        ),
    ] = Rung.AUTO,
    plan: Annotated[  # noqa: FBT002  # typer's way
        bool,
        typer.Option(
            "--plan", help="Only say by which way what would be read, and what is missing.", show_default=False
        ),
    ] = False,
) -> int:
    """Secure the evidence: nodes' tables and rules, kube-proxy's logs, and the cluster's side, in a bundle.

    Examples:
      # Before anything is repaired: two nodes, read through their kube-proxy's pods
      kdnsctl collect ip-10-0-0-1 ip-10-0-0-2 -O ./evidence
      # By which way would they be read, and what is not allowed?
      kdnsctl collect --all --plan
      # Where exec is forbidden, or kube-proxy is no pod
      kdnsctl collect ip-10-0-0-1 --via pod --image registry.example.com/kdnsctl-tools:1
      kdnsctl collect ip-10-0-0-1 --via ssh --ssh-user ec2-user --ssh-key ~/.ssh/nodes
      # It was interrupted, or nodes were missing: only those that are not complete are read
      kdnsctl collect --resume ./evidence
      # What does it prove?
      kdnsctl analyze ./evidence

    Nothing on a node is changed. Pods are made only for what exec into kube-proxy does not yield, and deleted again.

    Exit codes: 0 all of it was collected, 4 something is missing, 1 failed, 2 wrong usage, 130 interrupted.
    """
    same = resume is not None and not (nodes or all_nodes or selector is not None)
    chosen = [] if same else _chosen(ctx, nodes, selector, all_nodes=all_nodes)
    if archive and no_archive:
        raise UsageError("--archive and --no-archive exclude each other")
    if again and not resume:
        raise UsageError("--again needs --resume DIR: the bundle that has been collected already")
    if directory and resume:
        raise UsageError("-O and --resume exclude each other: a new bundle, or one that is there")
    if plan and (directory or resume or archive or record.incident):
        raise UsageError("--plan writes nothing: -O, --resume, --archive and --incident have no effect with it")
    check_via(ctx, via)

    # Late: what connects and collects is not needed for --help and TAB.
    from kdnsctl.cancel import INTERRUPTED, CancelScope  # noqa: PLC0415
    from kdnsctl.cli import output, progress  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.cli.ending import interruptible  # noqa: PLC0415
    from kdnsctl.cli.noting import grouped, noting  # noqa: PLC0415
    from kdnsctl.evidence import collect as collecting  # noqa: PLC0415
    from kdnsctl.evidence.collected import to_json  # noqa: PLC0415
    from kdnsctl.evidence.items import chosen as chosen_items  # noqa: PLC0415
    from kdnsctl.evidence.ways import Via  # noqa: PLC0415
    from kdnsctl.find.scope import Chosen  # noqa: PLC0415

    now = datetime.now(UTC)
    place = resume or directory or _default(record, now)
    target = None if no_archive else _target(archive, place, resumed=resume is not None)
    options = collecting.CollectOptions(
        directory=place,
        chosen=Chosen(tuple(dict.fromkeys(chosen)), selector),
        via=Via(via.value),
        pods=pod_settings(pods, via),
        items=chosen_items(extent.item, extent.skip) if extent.item or extent.skip else (),
        resume=resume is not None,
        again=again,
        same=same,
        packed=target is not None,
        seconds=None if extent.timeout is None else max(1, round(extent.timeout.total_seconds())),
        parallel=extent.parallel,
    )
    scope = CancelScope((extent.deadline or DEADLINE).total_seconds())
    about: dict[str, Any] = {"kdnsctl": __version__}
    with (
        interruptible(),
        progress.reporting(common.color) as reporter,
        connected(connection, common, scope, reporter) as cluster,
    ):
        ways = ssh_ways(ssh, via, common, reporter)
        if plan:
            return _planned(ctx, options, cluster, ways, scope, reporter, common, answer)
        with noting(cluster, record, "collect", scope) as noted:
            report = collecting.collect(options, cluster, ways, scope=scope, reporter=reporter, about=about)
            found = grouped((node.name, node.status.value) for node in report.nodes)
            noted(found, evidence=(report.bundle, report.sums_digest))
    packed = None if target is None or scope.reason is INTERRUPTED else _packed(place, target)
    for note in (*report.notes, *report.pods_left):
        tell(note)
    if answer.output is Form.TABLE:
        put("\n".join(_lines(report, packed, common, ctx.find_root().info_name or "kdnsctl")) + "\n")
    else:
        output.document(to_json(report, packed), answer.format)
    if scope.reason is INTERRUPTED:
        tell("interrupted; what was had by then is in the bundle")
        return ExitCode.INTERRUPTED
    return report.exit_code if target is None or packed is not None else ExitCode.INCOMPLETE


def _default(record: Record, now: datetime) -> Path:
    """Where a bundle goes when nobody said: into the incident's directory, else here. Raises as `checked_id`."""
    if record.incident is None:
        return Path(f"kdnsctl-evidence-{now:%Y%m%dT%H%M%SZ}")
    from kdnsctl.changes import incidents  # noqa: PLC0415

    of_incident = incidents.incidents_directory(os.environ) / incidents.checked_id(record.incident)
    return of_incident / f"evidence-{now:%Y%m%dT%H%M%SZ}"


def _target(archive: Path | None, place: Path, *, resumed: bool) -> Path:
    """What the bundle in `place` is packed into. Raises UsageError for a file that is there and is no such archive."""
    from kdnsctl.evidence import packing  # noqa: PLC0415

    target = archive or packing.archive_name(place, packing.Compression.ZSTD)
    packing.compression_of(target)
    if target.exists() and not (resumed and packing.is_bundle(target)):
        if archive is None and packing.is_bundle(target):
            hint = "name another place with -O DIR, or go on with that bundle: --resume DIR"
        else:
            hint = "name another with --archive FILE"
        raise UsageError(f"{target} is there already; nothing was collected", hint=hint)
    return target


def _packed(place: Path, target: Path) -> Path | None:
    """The archive, None where it could not be written: the bundle is whole without it."""
    from kdnsctl.evidence import packing  # noqa: PLC0415
    from kdnsctl.evidence.artefactfile import BundleWriteError  # noqa: PLC0415

    try:
        packing.pack(place, target, packing.compression_of(target), replace=True)
    except BundleWriteError as error:
        tell(f"the bundle is in {place}, and is not packed: {error}")
        return None
    return target


def _chosen(ctx: typer.Context, nodes: list[str] | None, selector: str | None, *, all_nodes: bool) -> list[str]:
    ways = [*(["NODE"] if nodes else []), *(["--selector"] if selector is not None else [])]
    ways += ["--all"] if all_nodes else []
    if len(ways) > 1:
        raise UsageError(f"{' and '.join(ways)} exclude each other: choose nodes in one way")
    if not ways:
        raise UsageError("which nodes? Name them, or --all, or -l SELECTOR", hint=f"see {ctx.command_path} --help")
    return nodes or []


def _planned(
    ctx: typer.Context,
    options: CollectOptions,
    cluster: Connected,
    ways: SshWays | None,
    scope: CancelScope,
    reporter: Reporter,
    common: Common,
    answer: Answer,
) -> int:
    """--plan: find out and say, and do nothing."""
    from kdnsctl.cli import collectplan, output  # noqa: PLC0415
    from kdnsctl.evidence import plan  # noqa: PLC0415
    from kdnsctl.evidence.items import ITEMS  # noqa: PLC0415

    question = plan.Question(options.chosen, options.via, options.items or ITEMS, options.pods)
    made = plan.make(question, cluster, ways, scope=scope, reporter=reporter)
    for note in made.notes:
        tell(note)
    if answer.output is Form.TABLE:
        put("\n".join(collectplan.lines(made, common, ctx.find_root().info_name or "kdnsctl")) + "\n")
    else:
        output.document(plan.to_json(made), answer.format)
    return made.exit_code


def _lines(report: CollectReport, packed: Path | None, common: Common, program: str) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.coverage import count  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color, visible  # noqa: PLC0415
    from kdnsctl.evidence.collected import Status  # noqa: PLC0415

    width, paint = columns(sys.stdout), table.painter(color=has_color(sys.stdout, common.color))
    rows: list[table.Row] = []
    for node in report.nodes:
        missing = [gap.item for gap in node.missing if gap.item]
        texts = (node.via or "-", str(node.whole), ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "") or "-")
        cells = [table.Cell.of(text) for text in (*texts, node.reason or "-")]
        rows.append([table.Cell.of(node.name), table.Cell.of(node.status, style=_STYLES[node.status]), *cells])
    lines = [*table.lay_out(HEADINGS, rows, width=width, paint=paint), ""]
    for gap in report.cluster_missing:
        lines += table.wrapped(visible(f"missing of the cluster: {gap.item}: {gap.reason.message}"), width)
    lines += [line for text in _lacking(report) for line in table.wrapped(visible(text), width)]
    counts = {status: sum(node.status is status for node in report.nodes) for status in Status}
    told = ", ".join(f"{number} {status.value}" for status, number in counts.items() if number)
    lines += table.wrapped(visible(f"{count(len(report.nodes), 'node')}: {told}. Bundle: {report.bundle}"), width)
    if packed is not None:
        lines += table.wrapped(visible(f"Packed, to be passed on: {packed}"), width)
    lines += table.wrapped(f"SHA-256 of SHA256SUMS: {report.sums_digest}", width)
    return [*lines, "", *next_lines([Caller(program).on_files("analyze", str(report.bundle))])]


def _lacking(report: CollectReport) -> Iterator[str]:
    """What could not be had and is no gap: of the cluster with the reasons, of nodes by how many have it not."""
    for gap in report.cluster_lacking:
        yield f"left out of the cluster: {gap.item}: {gap.reason.message}"
    nodes: dict[tuple[str, ...], int] = {}
    for node in report.nodes:
        items = tuple(gap.item for gap in node.lacking)
        if items:
            nodes[items] = nodes.get(items, 0) + 1
    for items, number in nodes.items():
        yield (
            f"left out on {number} of {len(report.nodes)} nodes, for want of a file, a tool or a permission there: "
            f"{', '.join(items)}"
        )
