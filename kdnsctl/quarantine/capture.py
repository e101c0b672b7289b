"""The evidence gate: nodes are captured into a bundle, and what the bundle proves is their verdict.

A capture that failed, or cannot be judged, is `unknown`: nothing may follow from it. How things are collected is known
to `evidence`, how they are judged to `find`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kdnsctl import __version__
from kdnsctl.cancel import INTERRUPTED, CancelScope
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence.collect import CollectOptions, collect
from kdnsctl.evidence.collected import CollectReport, Status
from kdnsctl.find.analyze_files import FileOptions, analyze_files
from kdnsctl.find.scope import Chosen
from kdnsctl.model import KdnsctlError, Reporter, UsageError, Verdict
from kdnsctl.quarantine.reaching import BY_EXEC, Reach


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the capture of one node says of it. `captured`: whether anything of the node itself is in the bundle."""

    verdict: Verdict
    reason: str
    captured: bool
    stale_entries: int | None = None


@dataclass(frozen=True, slots=True)
class Captured:
    """A bundle, its digest, and a judgement on each node that was to be captured."""

    bundle: Path
    digest: str
    nodes: Mapping[str, Judgement]
    notes: tuple[str, ...] = ()


def capture(
    connection: Connection,
    nodes: Sequence[str],
    directory: Path,
    *,
    scope: CancelScope,
    reporter: Reporter,
    now: Callable[[], datetime],
    reach: Reach = BY_EXEC,
    seconds: float | None = None,
    begins: Callable[[str], object] = lambda _: None,
) -> Captured:
    """Capture nodes into a new bundle `directory`, for `seconds` at most, and judge them by what was had by then.

    `begins` is told the run of its pods before. A capture that fails, as on a full disk, is one that proves nothing.
    Raises what ended the scope: the bundle then has what was had.
    """
    options = CollectOptions(directory, Chosen(tuple(nodes)), via=reach.via, pods=reach.pods_anew)
    about = {"kdnsctl": __version__}
    begins("" if options.pods is None else options.pods.run)
    try:
        with scope.child(seconds) as limit:
            try:
                report = collect(options, connection, reach.ssh, scope=limit, reporter=reporter, about=about, now=now)
            finally:
                if limit.reason is INTERRUPTED:  # Ctrl-C ends the command, and not the capture alone
                    scope.cancel()
    except KdnsctlError as error:
        scope.check()
        failed = Judgement(Verdict.UNKNOWN, f"the capture failed: {error}", captured=False)
        return Captured(directory, "", dict.fromkeys(nodes, failed))
    scope.check()
    judged = _judged(report, reporter, now())
    return Captured(directory, report.sums_digest, judged, (*report.notes, *report.pods_left))


def _judged(report: CollectReport, reporter: Reporter, now: datetime) -> dict[str, Judgement]:
    analyses = {}
    why = "nothing of it is in the bundle"
    try:
        found = analyze_files(FileOptions((str(report.bundle),)), stdin=io.BytesIO(), reporter=reporter, now=now)
        analyses = {one.name: one for one in found.nodes if one.identified}
    except UsageError as error:  # no node's dump is in it
        why = str(error)
    except KdnsctlError as error:
        why = f"the bundle cannot be judged: {error}"
    judgements = {}
    for row in report.nodes:
        captured = row.status is not Status.FAILED
        analysis = analyses.get(row.name)
        if analysis is None:
            judgements[row.name] = Judgement(Verdict.UNKNOWN, row.reason or why, captured)
        else:
            judgements[row.name] = Judgement(analysis.verdict, analysis.reason, captured, analysis.stale_entries)
    return judgements
