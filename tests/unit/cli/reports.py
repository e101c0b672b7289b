"""Reports to render: small, and with every field of the contract filled somewhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from kdnsctl.find.report import (
    CauseCount,
    EmbeddedEntries,
    FindReport,
    KubeProxy,
    NodeFinding,
    Peer,
    Problem,
    RaceWindow,
    SignatureCount,
    Span,
)
from kdnsctl.model import Basis, Coverage, Verdict

FIRST = datetime(2026, 11, 20, 0, 0, 12, 5, tzinfo=UTC)
LAST = datetime(2026, 11, 23, 3, 12, 9, 700_000, tzinfo=UTC)
SPAN = Span(FIRST, LAST)

HOSTILE = "evil\x1b]0;title\x07\x1b[31m\u202eabc\u2028[bold red]x[/]\x9b2J\ud800"
"""A title change, colour, a change of writing direction, a line separator, rich markup, a C1 control, half a pair."""


def failing(name: str, verdict: Verdict = Verdict.SUSPECT, **changes: Any) -> NodeFinding:
    """A node with a failure logged and everything known about it."""
    values: dict[str, Any] = {
        "basis": Basis.LOG,
        "reason": "a failure was logged",
        "name_from": "path",
        "signatures": (
            SignatureCount("CT_DEL_ENDPOINT", 41, FIRST, LAST, "E1123 …"),
            SignatureCount("IPT_RESTORE_FAIL", 2, FIRST, LAST - timedelta(hours=1)),
        ),
        "peers": (Peer("10.96.0.10:53", "10.0.1.2", "kube-system/kube-dns:dns", 41, FIRST, LAST),),
        "causes": (
            CauseCount("enoent", 41, "an entry ended while the table was walked", "such conntrack doesn't exist"),
        ),
        "embedded_entries": EmbeddedEntries(3, ("10.0.3.4",), complete=False),
        "other_services": {"default/web": 2},
        "race_window": RaceWindow(60, FIRST, LAST, 2, (FIRST,), 1),
        "kube_proxy": KubeProxy("v1.30.3", "1.30", "iptables", 2, ("kube-proxy-x7x2p",)),
        "restarts": (FIRST,),
        "restart_count": 1,
        "span": SPAN,
        "sources": ("logs/a.log",),
        "events": (SignatureCount("START_VERSION", 1, FIRST, FIRST),),
    }
    return NodeFinding(name=name, verdict=verdict, **{**values, **changes})


def unknown(name: str, reason: str = "no log", code: str = "noLog", **changes: Any) -> NodeFinding:
    return NodeFinding(name=name, verdict=Verdict.UNKNOWN, basis=None, reason=reason, reason_code=code, **changes)


def clean(name: str, **changes: Any) -> NodeFinding:
    return NodeFinding(name, Verdict.CLEAN, Basis.LOG, "no failure was logged", span=SPAN, **changes)


def report(*nodes: NodeFinding, **changes: Any) -> FindReport:
    """A report on `nodes`; without any, on one suspect, one unknown and one clean node."""
    chosen = nodes or (failing("node-a"), unknown("node-b"), clean("node-c"))
    coverage = Coverage.of(node.verdict for node in chosen)
    return FindReport(**{"generated_at": LAST, "nodes": chosen, "coverage": coverage, **changes})


def with_everything() -> FindReport:
    """A report in which no list is empty."""
    damaged = unknown("node-b", problems=(Problem("cut", "gzip ends early", "b.gz"),), complete=False)
    return report(
        failing("node-a"),
        damaged,
        clean("node-c"),
        services=("kube-system/kube-dns",),
        since=FIRST,
        skipped=(Problem("notALog", "no klog records", "metrics.txt"),),
        notes=("a note",),
        next_commands=("kdnsctl collect node-a",),
    )
