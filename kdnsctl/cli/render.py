"""A FindReport as people and programs read it. Nothing is judged or left out here that the report holds.

The table and the summary below it are the answer and go to stdout; notes, and what could not be read, go to stderr
before it, so that the verdict is the last thing on the screen. The default table has a row for each affected and
suspect node, groups the unknown by reason and counts the rest; `wide`, JSON and YAML show every node. Rows without
headings are for scripts: their columns are always the same ones.
"""

from __future__ import annotations

import sys

from kdnsctl.cli import output, table
from kdnsctl.cli.coverage import (
    MOST_NAMES,
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
from kdnsctl.find.joined import basis_counts
from kdnsctl.find.report import FindReport, NodeFinding, to_json
from kdnsctl.model import Basis, Verdict

HEADINGS = ("NODE", "VERDICT", "BASIS", "STALE", "SIGNATURES", "LAST-SEEN", "KUBE-PROXY", "STARTS")
WIDE_HEADINGS = (*HEADINGS, "POD", "PEERS", "CAUSES", "RACE", "SPAN", "REASON")
SPARE_HEADINGS = ("PEERS", "CAUSES")  # in the default table where there is room

MOST_PEERS = 3  # of a node, in the default table
NOT_A_LOG = "notALog"  # the code of what is skipped because it is no log of kube-proxy

_BASIS = {Basis.BOTH: "log and state", Basis.STATE: "state alone", Basis.LOG: "log alone"}
_WITHOUT_STATE = {"BASIS": Basis.LOG.value, "STALE": UNREAD}  # what these columns hold when only logs were read


def find_report(
    report: FindReport,
    form: Format,
    *,
    headers: bool = True,
    include: frozenset[Verdict] = frozenset(),
    color: Color = Color.AUTO,
    verbose: bool = False,
    caller: Caller = ASKED_PLAINLY,
) -> None:
    """Print `report`.

    Args:
        report: what was found.
        form: how to print it.
        headers: False leaves rows only on stdout; the summary then goes to stderr.
        include: verdicts that `-o name` prints besides `affected`.
        color: the operator's choice.
        verbose: tell every problem on stderr, not only the first few.
        caller: how the operator calls us, for the commands suggested.
    """
    tell_notes(
        report.notes,
        report.skipped,
        [(node.name, problem) for node in report.nodes for problem in node.problems],
        nothing=(NOT_A_LOG, "no log of kube-proxy", "is"),
        verbose=verbose,
    )
    if form in (Format.JSON, Format.YAML):
        output.document(caller.spelled_in(to_json(report)), form)
    elif form is Format.NAME:
        _put_names(report, include)
    else:
        lines, summary = _table(report, form, headers=headers, color=color), _summary(report, caller)
        if headers:
            put("\n".join([*lines, *([""] if lines else []), *summary]) + "\n")
        else:
            put("".join(line + "\n" for line in lines))
            for line in summary:
                tell(line)


def _put_names(report: FindReport, include: frozenset[Verdict]) -> None:
    """The nodes that another command may be given; then, on stderr, a word about those it may not."""
    wanted = [node for node in report.nodes if node.verdict is Verdict.AFFECTED or node.verdict in include]
    named = [node.name for node in wanted if node.identified and is_node_name(node.name)]
    put("".join(f"node/{name}\n" for name in named))
    flush()  # what is told comes last on a screen that shows both
    if len(named) < len(wanted):
        tell(
            f"warning: {len(wanted) - len(named)} left out, because the logs do not say which node they are from; "
            "say it with --node NODE, one node's logs at a time"
        )
    suspects = sum(node.verdict is Verdict.SUSPECT for node in report.nodes)
    if suspects and Verdict.SUSPECT not in include:
        tell(f"note: {count(suspects, 'suspect node')} not printed; --include suspect adds them")


def _table(report: FindReport, form: Format, *, headers: bool, color: Color) -> list[str]:
    width = columns(sys.stdout)
    paint = table.painter(color=has_color(sys.stdout, color))
    found = (Verdict.AFFECTED, Verdict.SUSPECT)
    in_rows = tuple(Verdict) if form is Format.WIDE else found if headers else (*found, Verdict.UNKNOWN)
    nodes = sorted((node for node in report.nodes if node.verdict in in_rows), key=lambda node: RANK[node.verdict])
    wide = form is Format.WIDE
    cap = None if width is None else MOST_NAMES
    lines: list[str] = []
    if nodes:
        heads: tuple[str, ...] = WIDE_HEADINGS if wide else HEADINGS
        rows = [[*_row(node), *(_more(node, cap) if wide else ())] for node in nodes]
        if not wide and headers:
            heads, rows = (*heads, *SPARE_HEADINGS), [[*_row(node), *_spare(node)] for node in nodes]
            heads, rows = _saying_something(heads, rows)
        lines = table.lay_out(
            heads, rows, width=width, paint=paint, with_headings=headers, spare=() if wide else SPARE_HEADINGS
        )
    if headers:
        verdicts = [node.verdict for node in report.nodes]
        rest = [] if wide else [*unknown_groups(report.nodes, width, paint, _name), *not_listed(verdicts, width)]
        lines += [*([""] if lines and rest else []), *rest]
        if any(
            _name(node) != node.name and (wide or node.verdict in (*found, Verdict.UNKNOWN)) for node in report.nodes
        ):
            lines += wrapped("pod:… and file:… are not nodes: the log does not say which node it is from.", width)
    return lines


def _saying_something(heads: tuple[str, ...], rows: list[list[Cell]]) -> tuple[tuple[str, ...], list[list[Cell]]]:
    """Without the columns of the node's state when only logs were read, and without spare columns that are empty."""
    silent = {**_WITHOUT_STATE, **dict.fromkeys(SPARE_HEADINGS, NONE)}
    kept = [
        index
        for index, heading in enumerate(heads)
        if heading not in silent or any(row[index].joined != silent[heading] for row in rows)
    ]
    return tuple(heads[index] for index in kept), [[row[index] for index in kept] for row in rows]


def _spare(node: NodeFinding) -> list[Cell]:
    """Which dead endpoints, and why, in short; in the order of `SPARE_HEADINGS`."""
    return [
        several((f"{peer.vip}->{peer.endpoint or '?'}" for peer in node.peers), MOST_PEERS),
        several(cause.id for cause in node.causes),
    ]


def _row(node: NodeFinding) -> list[Cell]:
    proxy = node.kube_proxy
    seen = [signature.last_seen for signature in node.signatures if signature.last_seen]
    return [
        Cell.of(_name(node)),
        Cell.of(node.verdict.value, style=STYLES.get(node.verdict, "")),
        Cell.of(node.basis.value if node.basis else NONE),
        Cell.of(stale(node.stale_entries, node.state.diagnosis.verdict if node.state else node.verdict)),
        several(f"{signature.id}({signature.count})" for signature in node.signatures),
        Cell.of(clock(max(seen)) if seen else UNREAD if node.signatures else NONE),
        Cell.of(proxy.version or proxy.versions or UNREAD, *([proxy.mode] if proxy.mode else [])),
        Cell.of(str(node.restart_count)),
    ]


def _more(node: NodeFinding, cap: int | None) -> list[Cell]:
    race, span = node.race_window, node.span
    return [
        several(node.kube_proxy.pods, cap),
        several((f"{peer.vip}->{peer.endpoint or '?'}({peer.count})" for peer in node.peers), cap),
        several(f"{cause.id}({cause.count})" for cause in node.causes),
        Cell.of(f"starts={len(race.restarts)}", f"sync-failures={race.sync_failures}", f"within={race.seconds}s")
        if race
        else Cell.of(NONE),
        Cell.of(f"{clock(span.first)}/{clock(span.last)}" if span else NONE),
        Cell.of(node.reason or NONE),
    ]


def _name(node: NodeFinding) -> str:
    """What stands for the node; a pod or file in its place says so, in a spelling that no node can have."""
    if node.identified or node.name.startswith("<"):  # "<stdin>"
        return node.name
    return f"{'pod' if node.name in node.kube_proxy.pods else 'file'}:{node.name}"


def _is_judged(node: NodeFinding) -> bool:
    return node.verdict not in (Verdict.UNKNOWN, Verdict.NOT_APPLICABLE)


def _summary(report: FindReport, caller: Caller) -> list[str]:
    """Coverage, the time covered, and what to run next."""
    width = columns(sys.stdout)
    lines = coverage_lines(report.coverage, [node.verdict for node in report.nodes], width)
    if any(node.state for node in report.nodes):
        by = ", ".join(f"{number} by {_BASIS[basis]}" for basis, number in basis_counts(report.nodes).items())
        undecided = sum(node.state is not None and node.basis is Basis.LOG for node in report.nodes if _is_judged(node))
        more = f" (the state of {undecided} was read, and decides nothing yet)" if undecided else ""
        lines += wrapped(f"Judged {by or 'none'}{more}.", width)
    if report.cluster:
        lines += wrapped(visible(f"Cluster: {report.cluster}."), width)
    spans = [node.span for node in report.nodes if node.span]
    if spans:
        first, last = min(span.first for span in spans), max(span.last for span in spans)
        differ = len({(span.first, span.last) for span in spans}) > 1
        each = "; it differs by node (-o wide)" if differ else ""
        lines += wrapped(f"Time covered by the logs: {clock(first)} to {clock(last)}{each}.", width)
    if report.since:
        lines += wrapped(f"Window judged: since {clock(report.since)}.", width)
    if report.services:
        lines += wrapped(visible(f"Services: {', '.join(report.services)}."), width)
    lines += next_lines(map(caller.spelled, report.next_commands))
    return lines
