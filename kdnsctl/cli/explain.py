"""An AnalyzeReport as people and programs read it: first what it means, then what it rests on. Nothing is judged here.

The default form explains each affected and suspect node: what is wrong, who is hurt, whether it heals by itself, what
to do, and the evidence below; then the unknown by reason, and counts of the rest. `wide` has a row for each node, and
the evidence of every one. The answer goes to stdout; notes, and what could not be read, go to stderr before it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from kdnsctl.cli import output, table
from kdnsctl.cli.coverage import (
    NONE,
    RANK,
    STYLES,
    UNREAD,
    clock,
    count,
    coverage_lines,
    not_listed,
    several,
    stale,
    tell_notes,
    unknown_groups,
)
from kdnsctl.cli.nextsteps import ASKED_PLAINLY, Caller, next_lines
from kdnsctl.cli.options import Format
from kdnsctl.cli.table import Cell, wrapped
from kdnsctl.cli.terminal import Color, columns, flush, has_color, put, tell, visible
from kdnsctl.cli.values import is_node_name
from kdnsctl.diagnosis.catalogue import CHECKS
from kdnsctl.diagnosis.findings import Client, Finding, Severity
from kdnsctl.diagnosis.plan import plan
from kdnsctl.diagnosis.wording import BY_HAND
from kdnsctl.find.analysis import AnalyzeReport, NodeAnalysis, to_json
from kdnsctl.model import Verdict

HEADINGS = ("NODE", "VERDICT", "STALE", "FINDINGS", "KUBE-PROXY", "READ")
WIDE_HEADINGS = (*HEADINGS, "READS", "VIA", "COMPLETE", "POD", "REASON")
MOST_EXPLAINED = 5  # nodes, in the default form
MOST_SHOWN = 5  # clients and backends of a finding, in the default form
NOT_EVIDENCE = "notEvidence"  # the code of what is skipped because it is nothing that is looked for

WHO = frozenset({"C8", "C9"})  # findings that say who is hurt, and how likely
HEALS = frozenset({"C10"})  # findings that say whether it heals by itself
TITLES = {check.id: check.title for check in CHECKS}
FOUND = (Verdict.AFFECTED, Verdict.SUSPECT)


def analyze_report(
    report: AnalyzeReport,
    form: Format,
    *,
    headers: bool = True,
    color: Color = Color.AUTO,
    verbose: bool = False,
    caller: Caller = ASKED_PLAINLY,
) -> None:
    """Print `report`; the arguments are those of `render.find_report`."""
    tell_notes(
        report.notes,
        report.skipped,
        [(node.name, problem) for node in report.nodes for problem in node.problems],
        nothing=(NOT_EVIDENCE, "nothing that is looked for", "holds"),
        verbose=verbose,
    )
    if form in (Format.JSON, Format.YAML):
        output.document(caller.spelled_in(to_json(report)), form)
    elif form is Format.NAME:
        _put_names(report)
    elif not headers:
        lines = _rows(report, form, color=color, headers=False)
        put("".join(line + "\n" for line in lines))
        for line in _summary(report, caller):
            tell(line)
    else:
        blocks = [_rows(report, form, color=color, headers=True), *_blocks(report, form, color, caller)]
        blocks += [_rest(report, form, color), _summary(report, caller)]
        put("\n\n".join("\n".join(block) for block in blocks if block) + "\n")


def _put_names(report: AnalyzeReport) -> None:
    wanted = [node for node in report.nodes if node.verdict is Verdict.AFFECTED]
    named = [node.name for node in wanted if node.identified and is_node_name(node.name)]
    put("".join(f"node/{name}\n" for name in named))
    flush()
    if len(named) < len(wanted):
        tell(f"warning: {len(wanted) - len(named)} left out: whose state it is, is not said; say it with --node NODE")


# --- rows


def _rows(report: AnalyzeReport, form: Format, *, color: Color, headers: bool) -> list[str]:
    """A row for each node: with `wide` all of them; else those found, where there are several in scope."""
    wide = form is Format.WIDE
    verdicts = tuple(Verdict) if wide else FOUND if headers else (*FOUND, Verdict.UNKNOWN)
    nodes = sorted((node for node in report.nodes if node.verdict in verdicts), key=lambda node: RANK[node.verdict])
    if not nodes or (headers and not wide and len(report.nodes) == 1):
        return []
    rows = [[*_row(node), *(_more(node) if wide else ())] for node in nodes]
    return table.lay_out(
        WIDE_HEADINGS if wide else HEADINGS,
        rows,
        width=columns(sys.stdout),
        paint=table.painter(color=has_color(sys.stdout, color)),
        with_headings=headers,
    )


def _row(node: NodeAnalysis) -> list[Cell]:
    proxy = node.kube_proxy
    ids = dict.fromkeys(finding.id for finding in node.findings)
    return [
        Cell.of(_name(node)),
        Cell.of(node.verdict.value, style=STYLES.get(node.verdict, "")),
        Cell.of(stale(node.stale_entries, node.verdict)),
        several(ids),
        Cell.of(proxy.version or UNREAD, *([proxy.mode] if proxy.mode else [])),
        Cell.of(clock(node.read_at) if node.read_at else UNREAD),
    ]


def _more(node: NodeAnalysis) -> list[Cell]:
    return [
        Cell.of(str(node.diagnosis.reads if node.diagnosis else 0)),
        Cell.of(node.via or NONE),
        Cell.of("yes" if node.complete else "no"),
        several(node.kube_proxy.pods),
        Cell.of(node.reason or NONE),
    ]


def _name(node: NodeAnalysis) -> str:
    """What stands for the node; a file or folder in its place says so, in a spelling that no node can have."""
    return node.name if node.identified or node.name.startswith("<") else f"file:{node.name}"


# --- explanations


def _blocks(report: AnalyzeReport, form: Format, color: Color, caller: Caller) -> Iterable[list[str]]:
    """What is to be said of each node that needs somebody; with `wide` of every node of which there is anything."""
    width = columns(sys.stdout)
    paint = table.painter(color=has_color(sys.stdout, color))
    wide = form is Format.WIDE
    nodes = [node for node in report.nodes if node.verdict in FOUND or _has_news(node) or (wide and node.findings)]
    shown = nodes if wide else nodes[:MOST_EXPLAINED]
    for node in shown:
        yield _explained(node, width, paint, None if wide else MOST_SHOWN, caller)
    if len(nodes) > len(shown):
        yield wrapped(f"{len(nodes) - len(shown)} more nodes are not explained (-o wide explains all)", width)


def _has_news(node: NodeAnalysis) -> bool:
    """Whether something was found that somebody should know, though it makes the node neither affected nor suspect."""
    return any(finding.severity is not Severity.INFO for finding in node.findings)


def _explained(node: NodeAnalysis, width: int | None, paint: table.Paint, cap: int | None, caller: Caller) -> list[str]:
    head = f"{_name(node)}: {node.verdict.value}"
    first, *rest = wrapped(visible(f"{head}: {node.reason}" if node.reason else head), width, hanging=2)
    style = STYLES.get(node.verdict, "")
    lines = [paint(head, style) + first.removeprefix(head) if first.startswith(head) else first, *rest]
    found = sorted(node.findings, key=lambda finding: list(Severity).index(finding.severity))
    who = [finding for finding in found if finding.id in WHO]
    heals = [finding for finding in found if finding.id in HEALS]
    wrong = [finding for finding in found if finding.id not in WHO | HEALS and finding.severity is not Severity.INFO]
    known = [finding for finding in found if finding.id not in WHO | HEALS and finding.severity is Severity.INFO]
    for title, findings in (("What is wrong", wrong), ("Who is hurt", who), ("Will it heal by itself?", heals)):
        lines += _section(title, [finding.explanation for finding in findings], width, paint)
    lines += _what_to_do(found, width, paint, caller)
    lines += _section("Also known", [finding.explanation for finding in known], width, paint)
    missing = [reason.message for reason in (node.diagnosis.missing if node.diagnosis else ())]
    lines += _section("Not known", missing, width, paint)
    lines += _section("Evidence", list(_evidence(node, found, cap)), width, paint)
    return lines


def _section(title: str, texts: Sequence[str], width: int | None, paint: table.Paint) -> list[str]:
    if not texts:
        return []
    lines = [f"  {paint(title, 'bold')}"]
    for text in texts:
        lines += wrapped(f"- {visible(text)}", width, indent=4, hanging=2)
    return lines


def _what_to_do(findings: Iterable[Finding], width: int | None, paint: table.Paint, caller: Caller) -> list[str]:
    """The plan, its commands on lines of their own however long they are: they are to be copied."""
    lines: list[str] = []
    for number, measure in enumerate(plan(findings), 1):
        head = f"{number}. "
        lines += wrapped(head + visible(measure.text), width, indent=4, hanging=len(head))
        lines += [f"       {visible(caller.spelled(command))}" for command in measure.repair]
        if measure.commands:
            lines += wrapped(BY_HAND, width, indent=4 + len(head))
        lines += [f"       {visible(command)}" for command in measure.commands]
    return [f"  {paint('What to do', 'bold')}", *lines] if lines else []


def _evidence(node: NodeAnalysis, findings: Sequence[Finding], cap: int | None) -> Iterable[str]:
    for finding in findings:
        about = [f"{finding.id} ({TITLES[finding.id]})", finding.severity.value]
        if finding.service:
            port = f" {finding.port}/{finding.protocol}" if finding.port is not None else ""
            about.append(f"{finding.service}{port}")
        if finding.family is not None:
            about.append(f"IPv{finding.family}")
        if finding.count is not None:
            about.append(f"count {finding.count}")
        if finding.backends:
            about.append(f"backends {_capped(finding.backends, cap)}")
        if finding.clients:
            about.append(f"clients {_capped([_client(client) for client in finding.clients], cap)}")
        yield ", ".join(about)
    if node.read_at:
        reads = count(node.diagnosis.reads, "read") if node.diagnosis else "not read"
        via = f", via {node.via}" if node.via else ""
        yield f"read at {clock(node.read_at)}, {reads}{via}"
    if node.sources:
        yield f"from {_capped(node.sources, cap)}"


def _client(client: Client) -> str:
    pod = f"{client.namespace}/{client.pod}" if client.namespace else client.pod
    return f"{client.address}({client.count}){' ' + pod if client.pod else ''}"


def _capped(texts: Sequence[str], cap: int | None) -> str:
    more = [] if cap is None or len(texts) <= cap else [f"+{len(texts) - cap} more"]
    return ", ".join([*texts[:cap], *more])


# --- the rest


def _rest(report: AnalyzeReport, form: Format, color: Color) -> list[str]:
    if form is Format.WIDE:
        return []
    width = columns(sys.stdout)
    paint = table.painter(color=has_color(sys.stdout, color))
    lines = unknown_groups(report.nodes, width, paint, _name)
    return [*lines, *not_listed([node.verdict for node in report.nodes], width)]


def _summary(report: AnalyzeReport, caller: Caller) -> list[str]:
    width = columns(sys.stdout)
    lines = coverage_lines(report.coverage, [node.verdict for node in report.nodes], width)
    if report.cluster:
        lines += wrapped(visible(f"Cluster: {report.cluster}."), width)
    if report.services:
        lines += wrapped(visible(f"Services: {', '.join(report.services)}."), width)
    return [*lines, *next_lines(map(caller.spelled, report.next_commands))]
