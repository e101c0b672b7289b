"""`kdnsctl probe`: words into options, one call, the report on the screen (kind `ProbeReport`).

What is asked, and what answers mean, is known to the room `probe`; how nodes are reached, to `evidence.probing`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from kdnsctl.cli import completing, values
from kdnsctl.cli.nextsteps import Caller, caller_of, next_lines
from kdnsctl.cli.options import Answer, Common, Connection, Form, Record, said
from kdnsctl.cli.reaching import Pods, Rung, Ssh, check_via, pod_settings, said_of_ways, ssh_ways
from kdnsctl.cli.terminal import put, tell
from kdnsctl.model import ExitCode, UsageError

if TYPE_CHECKING:
    from kdnsctl.cli import table
    from kdnsctl.evidence.probing import ProbeReport
    from kdnsctl.probe.measure import Measured, Options, Place

DEADLINE = timedelta(minutes=10)
LONGEST = timedelta(minutes=5)  # that ports are held: each query keeps an entry alive, a stale one too
HEADINGS = ("FROM", "ASKED", "PORTS", "ANSWERED", "P50", "P99", "SAID")


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked, and how gently."""

    service: Annotated[
        list[str] | None,
        typer.Option(
            "--service", metavar="NS/NAME", parser=values.service, help="DNS Service to ask (repeatable). Default: all."
        ),
    ] = None
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The name that is asked for.")] = (
        "kubernetes.default.svc.cluster.local."
    )
    queries: Annotated[
        int | None,
        typer.Option(
            "--queries",
            metavar="N",
            min=1,
            max=256,
            help="Queries from fresh source ports. Default: as many as meet one dead pod among all at 99 %.",
        ),
    ] = None
    source_port: Annotated[
        list[int],
        typer.Option(
            "--source-port",
            metavar="PORT",
            min=1,
            max=65535,
            help="Source port to hold (repeatable, 32 at most). Default: 28530 to 28533.",
        ),
    ] = field(default_factory=list)
    period: Annotated[
        timedelta | None,
        typer.Option(
            "--for",
            metavar="DURATION",
            parser=values.duration,
            help="How long the held ports are asked, up to 5m. Default: 4s.",
        ),
    ] = None
    timeout: Annotated[
        timedelta | None,
        typer.Option(
            "--timeout",
            metavar="DURATION",
            parser=values.duration,
            help="How long an answer is waited for, up to 10s. Default: 1s.",
        ),
    ] = None
    rate: Annotated[
        int,
        typer.Option("--rate", metavar="N", min=1, max=100, help="Queries in a second from each place, at most."),
    ] = 20
    parallel: Annotated[int, typer.Option("--parallel", metavar="N", min=1, max=64, help="Nodes that ask at once.")] = 4
    deadline: Annotated[
        timedelta | None,
        typer.Option(
            "--deadline",
            metavar="DURATION",
            parser=values.duration,
            help="Stop after this time and tell what is known by then. Default: 10m.",
        ),
    ] = None


def probe(
    ctx: typer.Context,
    common: Common,
    connection: Connection,
    record: Record,
    answer: Answer,
    ssh: Ssh,
    pods: Pods,
    asking: Asking,
    named: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE]...",
            parser=values.node,
            autocompletion=completing.complete_node,
            help="Ask from these nodes, as with --from.",
        ),
    ] = None,
    nodes: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="NODE",
            parser=values.node,
            autocompletion=completing.complete_node,
            help="Ask from this node (repeatable). Default: from this machine.",
        ),
    ] = None,
    via: Annotated[
        Rung,
        typer.Option("--via", help="How nodes are reached. auto: a pod of the tools image (--image), else SSH."),
    ] = Rung.AUTO,
) -> int:
    """Measure whether DNS works: the Service, each pod behind it, and nodes' own caches.

    Examples:
      # From this machine, if it is in the cluster's network
      kdnsctl probe
      # From two nodes, in a pod of the tools image, or with the nodes' python3
      kdnsctl probe --from ip-10-0-0-1 --from ip-10-0-0-2 --image registry.example.com/kdnsctl-tools:1
      kdnsctl probe ip-10-0-0-1 --via ssh --ssh-user ec2-user
      # While CoreDNS is rolled: do the same source ports go on being answered?
      kdnsctl probe --from ip-10-0-0-1 --via ssh --for 2m

    Fresh source ports meet the rules as they are, held ones the entries that are there. Held ports that answer do not
    prove that no entry is stale: pods have entries of their own, which `kdnsctl analyze NODE` reads.

    Exit codes: 0 DNS answers, 3 it fails somewhere, 4 something could not be measured, 1 failed, 2 wrong usage,
    130 interrupted.
    """
    from_nodes = tuple(dict.fromkeys((*(nodes or ()), *(named or ()))))
    _check(ctx, via, from_nodes)

    # Late: what connects and asks is not needed for --help and TAB.
    from kdnsctl.cancel import INTERRUPTED, CancelScope  # noqa: PLC0415
    from kdnsctl.cli import output, probeview  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.cli.ending import interruptible  # noqa: PLC0415
    from kdnsctl.cli.noting import grouped, noting  # noqa: PLC0415
    from kdnsctl.cli.progress import LineReporter  # noqa: PLC0415
    from kdnsctl.evidence import probing  # noqa: PLC0415
    from kdnsctl.evidence.ways import Via  # noqa: PLC0415

    question = probing.Question(
        nodes=from_nodes,
        services=tuple(dict.fromkeys(asking.service or ())),
        options=_options(asking),
        via=Via(via.value),
        pods=pod_settings(pods, via),
        parallel=asking.parallel,
    )
    scope = CancelScope((asking.deadline or DEADLINE).total_seconds())
    reporter = LineReporter()  # the view shows how far it is
    with (
        interruptible(),
        connected(connection, common, scope, reporter) as cluster,
        noting(cluster, record, "probe", scope) as noted,
        probeview.watching(common.color) as watch,
    ):
        ways = ssh_ways(ssh, via, common, reporter) if from_nodes else None
        report = probing.probe(question, cluster, ways, scope=scope, reporter=reporter, watch=watch)
        noted(grouped((place.name or "this machine", place.result.value) for place in report.places))
    for note in (*report.notes, *report.pods_left):
        tell(note)
    if answer.output is Form.TABLE:
        put("\n".join(_lines(report, common, caller_of(ctx))) + "\n")
    else:
        output.document(probing.to_json(report), answer.format)
    if scope.reason is INTERRUPTED:
        tell("interrupted; what was measured by then is above")
        return ExitCode.INTERRUPTED
    return report.exit_code


def _check(ctx: typer.Context, via: Rung, nodes: tuple[str, ...]) -> None:
    if not nodes:
        useless = [*said_of_ways(ctx), *said(ctx, "via", "parallel")]
        if useless:
            raise UsageError(f"{', '.join(useless)} has no effect without --from NODE")
    if via is Rung.EXEC:
        raise UsageError("--via exec: kube-proxy's image has nothing to ask DNS with; use pod (--image) or ssh")
    check_via(ctx, via)


def _options(asking: Asking) -> Options:
    from kdnsctl.probe.measure import Options  # noqa: PLC0415
    from kdnsctl.probe.queries import FIXED_PORTS, is_name  # noqa: PLC0415

    if not is_name(asking.name):
        raise UsageError(f"--name: '{asking.name}' is not a name that DNS can be asked for")
    if len(asking.source_port) > 32:
        raise UsageError("--source-port: no more than 32 are held")
    period = timedelta(seconds=4) if asking.period is None else asking.period
    if period > LONGEST:
        raise UsageError("--for: no longer than 5m, for every query keeps the entry of its port alive, a stale one too")
    timeout = timedelta(seconds=1) if asking.timeout is None else asking.timeout
    if not timedelta(milliseconds=1) <= timeout <= timedelta(seconds=10):
        raise UsageError("--timeout: up to 10s")
    return Options(
        name=asking.name,
        held=tuple(dict.fromkeys(asking.source_port)) or FIXED_PORTS,
        period=period.total_seconds(),
        wait=round(timeout.total_seconds() * 1000),
        rate=asking.rate,
        queries=asking.queries,
    )


def _lines(report: ProbeReport, common: Common, caller: Caller) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color, visible  # noqa: PLC0415
    from kdnsctl.probe.verdict import UNTOLD, Result  # noqa: PLC0415

    width, paint = columns(sys.stdout), table.painter(color=has_color(sys.stdout, common.color))
    rows = [_row(place, one) for place in report.places for one in place.measured]
    lines = [*table.lay_out(HEADINGS, rows, width=width, paint=paint), ""] if rows else []
    for place in report.places:
        style = "green" if place.result is Result.ANSWERS else "yellow" if place.result in UNTOLD else "red"
        where = place.name or "this machine"
        head = place.result.value
        found = place.findings if place.result is not Result.ANSWERS else ()
        others = dict.fromkeys(one.message for one in found if one.message != place.message)
        for number, line in enumerate(table.wrapped(visible(f"{where}: {head}: {place.message}"), width, hanging=2)):
            lines.append(line.replace(f": {head}:", f": {paint(head, style)}:", 1) if number == 0 else line)
        for other in others:
            lines += table.wrapped(visible(f"also: {other}"), width, indent=2)
        problems = dict.fromkeys(f"{_title(one)}: {one.problem.message}" for one in place.measured if one.problem)
        for problem in problems if place.measured else ():
            lines += table.wrapped(visible(f"not measured: {problem}"), width, indent=2)
        if place.measured and place.problem is not None:
            lines += table.wrapped(visible(f"not all of it was measured: {place.problem.message}"), width, indent=2)
    return [*lines, *_advice(report, caller, width)]


def _advice(report: ProbeReport, caller: Caller, width: int | None) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.probe.verdict import UNTOLD, WELL_ON_THE_NODE, Result  # noqa: PLC0415

    results = {place.result for place in report.places}
    names = [place.name for place in report.nodes if place.result is not Result.ANSWERS and place.measured]
    lines: list[str] = []
    if results == {Result.ANSWERS}:
        lines += table.wrapped(
            "Ports that were held answer: their own entries are well. Those of pods are not asked for here.", width
        )
    if names and results - UNTOLD - WELL_ON_THE_NODE:
        lines += ["", *next_lines([caller.on_cluster("analyze", *names)])]
    elif report.here is not None and results <= UNTOLD:
        lines += ["", f"To ask from a node: {caller.on_cluster('probe', '--from', 'NODE')}"]
    return lines


def _row(place: Place, one: Measured) -> table.Row:
    from kdnsctl.cli.table import Cell  # noqa: PLC0415

    told, batch = one.told, one.target.batch
    style = "red" if told.sent and not told.answered else "yellow" if told.lost else ""
    return [
        Cell.of(place.name or "this machine"),
        Cell.of(_title(one)),
        Cell.of(f"{len(batch.ports)} held" if batch.ports else "fresh"),
        Cell.of(f"{told.answered}/{told.sent}", style=style),
        Cell.of(_ms(told.percentile(0.5))),
        Cell.of(_ms(told.percentile(0.99))),
        Cell.of(*_said(one)),
    ]


def _title(one: Measured) -> str:
    from kdnsctl.cli import probeview  # noqa: PLC0415

    return probeview.title(one).partition(",")[0]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}ms"


def _said(one: Measured) -> list[str]:
    """What is worth a word: other answers than NOERROR, why there was none, which ports died."""
    from kdnsctl.probe.queries import rcode_name  # noqa: PLC0415
    from kdnsctl.probe.verdict import Held, held_state  # noqa: PLC0415

    told = one.told
    words = [f"{count} {rcode_name(rcode)}" for rcode, count in told.rcodes if rcode]
    words += [f"{count} {why}" for why, count in told.errors]
    words += [f"{told.truncated} truncated"] if told.truncated else []
    if one.target.batch.edns and told.answered and not told.edns:
        words.append("no EDNS")
    for port, attempts in one.by_port().items():
        state = held_state(attempts)
        if state in (Held.DEAD, Held.DIED):
            words.append(f"{port} {state.value}")
    return words or ["-"]
