"""find-affected on log files: inputs → streams → one log a node → verdicts → a report, with nothing lost on the way.

What is in scope is fixed by the inputs: every stream of kube-proxy found in them, and every input that could not be
read. A file met in a directory that is no log of kube-proxy is not a node; it is listed as skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO

from kdnsctl.diagnosis.wording import count
from kdnsctl.find.advice import notes
from kdnsctl.find.commands import next_commands
from kdnsctl.find.grouping import group
from kdnsctl.find.judge import Question, checked_signatures, judge
from kdnsctl.find.releases import minor_of
from kdnsctl.find.report import FindReport, NodeFinding, in_order
from kdnsctl.find.services import checked
from kdnsctl.logs.sources.files import Inputs, ReadOptions, newest_record, read_all
from kdnsctl.logs.times import from_datetime, to_datetime
from kdnsctl.model import Coverage, Reporter, UsageError


@dataclass(frozen=True, slots=True)
class OfflineOptions:
    """What find-affected was asked. `paths` may hold "-" once; `since` counts from the newest record of all inputs.

    `since_time` is absolute and aware; give one of the two. `services` are "NAMESPACE/NAME" (none: DNS), `signatures`
    catalogue ids (none: all), `nodes` the only nodes to report (none: all). `year` dates klog lines without a year,
    `kube_proxy_version` ("v1.30.3", "1.30") stands in where a log does not tell its release, `node` where it does not
    tell its node.
    """

    paths: tuple[str, ...]
    node: str | None = None
    since: timedelta | None = None
    since_time: datetime | None = None
    services: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()
    year: int | None = None
    kube_proxy_version: str | None = None
    nodes: tuple[str, ...] = ()


def find_in_logs(options: OfflineOptions, *, stdin: BinaryIO, reporter: Reporter, now: datetime) -> FindReport:
    """Judge every node whose kube-proxy log is in `options.paths`.

    `now` dates the report, and year-less records of inputs without a time of their own. Raises UsageError when the
    options make no sense or a path names nothing; whatever else is wrong with an input is in the report.
    """
    services = checked(options.services)
    signatures = checked_signatures(options.signatures)
    if options.kube_proxy_version is not None:
        minor_of(options.kube_proxy_version)
    with closing(Inputs(options.paths, stdin, twice=options.since is not None)) as inputs:
        since = _window(options, inputs, now, reporter)
        reading = ReadOptions(since, options.year, absolute=options.since_time is not None)
        items = read_all(inputs, reading, now=now, reporter=reporter)
    question = Question(services, signatures, since, options.kube_proxy_version)
    grouped = group(items, node=options.node, arguments=options.paths)
    findings = _chosen([judge(log, question) for log in grouped.logs], options.nodes)
    if not findings:
        raise UsageError(
            f"no log of kube-proxy in {', '.join(options.paths)}",
            hint=f"{count(len(grouped.skipped), 'file was', 'files were')} looked at, and none is one"
            if grouped.skipped
            else "",
        )
    return FindReport(
        generated_at=now,
        nodes=in_order(findings),
        coverage=Coverage.of(finding.verdict for finding in findings),
        services=services,
        since=to_datetime(since),
        skipped=grouped.skipped,
        notes=tuple(notes(findings, grouped.notes)),
        next_commands=tuple(next_commands(findings, services)),
    )


def _window(options: OfflineOptions, inputs: Inputs, now: datetime, reporter: Reporter) -> int | None:
    if options.since is not None and options.since_time is not None:
        raise UsageError("--since and --since-time exclude each other")
    if options.since_time is not None:
        return from_datetime(options.since_time)
    if options.since is None:
        return None
    newest = newest_record(inputs, year=options.year, now=now, reporter=reporter)
    return from_datetime(now) if newest is None else newest - options.since // timedelta(microseconds=1)


def _chosen(findings: list[NodeFinding], nodes: Sequence[str]) -> list[NodeFinding]:
    if not nodes:
        return findings
    wanted = [node.removeprefix("node/") for node in nodes]
    present = {finding.name for finding in findings}
    missing = [node for node in wanted if node not in present]
    if missing:
        raise UsageError(
            f"no log of {', '.join(missing)} in what was given",
            hint=f"there are logs of {', '.join(sorted(present)[:10])}{' and others' if len(present) > 10 else ''}",
        )
    return [finding for finding in findings if finding.name in wanted]
