"""find-affected on log files: inputs → streams → one log a node → verdicts → a report, with nothing lost on the way.

What is in scope is fixed by the inputs: every stream of kube-proxy found in them, and every input that could not be
read. A file met in a directory that is no log of kube-proxy is not a node; it is listed as skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO

from kdnsctl.find.judge import NodeLog, Question, judge, minor_of
from kdnsctl.find.report import FindReport, NodeFinding, Problem
from kdnsctl.find.services import checked
from kdnsctl.logs.signatures import BY_ID, Kind
from kdnsctl.logs.sources.files import FileStream, Inputs, ReadOptions, newest_record, read_all
from kdnsctl.logs.sources.naming import origin_of
from kdnsctl.logs.sources.walking import Unreadable
from kdnsctl.logs.tally import Tally
from kdnsctl.logs.times import from_datetime, to_datetime
from kdnsctl.model import Coverage, Reporter, UsageError, Verdict

_ORDER = (Verdict.AFFECTED, Verdict.SUSPECT, Verdict.UNKNOWN, Verdict.CLEAN, Verdict.NOT_APPLICABLE)


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
    signatures = _checked_signatures(options.signatures)
    if options.kube_proxy_version is not None:
        minor_of(options.kube_proxy_version)
    inputs = Inputs(options.paths, stdin, twice=options.since is not None)
    since = _window(options, inputs, now)
    question = Question(services, signatures, since, options.kube_proxy_version)

    logs = _Logs(options.node)
    skipped: list[Problem] = []
    for item in read_all(inputs, ReadOptions(since, options.year), now=now, reporter=reporter):
        if isinstance(item, Unreadable):
            logs.add_unreadable(item)
        elif (why := _not_a_log(item)) is not None:
            skipped.append(Problem("notALog", why, item.source))
        else:
            logs.add(item)
    findings = _chosen([judge(log, question) for log in logs.all()], options.nodes)
    if not findings:
        raise UsageError(
            f"no log of kube-proxy in {', '.join(options.paths)}",
            hint=f"{len(skipped)} files were looked at and none holds klog records" if skipped else "",
        )
    findings.sort(key=lambda finding: (_ORDER.index(finding.verdict), finding.name))
    return FindReport(
        generated_at=now,
        nodes=tuple(findings),
        coverage=Coverage.of(finding.verdict for finding in findings),
        services=services,
        since=to_datetime(since),
        skipped=tuple(skipped),
        notes=tuple(_notes(findings)),
        next_commands=tuple(_next_commands(findings)),
    )


def _checked_signatures(ids: Sequence[str]) -> frozenset[str]:
    failures = [signature.id for signature in BY_ID.values() if signature.kind is Kind.FAILURE]
    for wanted in ids:
        if wanted not in failures:
            known = "is not a failure" if wanted in BY_ID else "is not in the catalogue"
            raise UsageError(f"--signature {wanted!r} {known}", hint=f"one of {', '.join(failures)}")
    return frozenset(ids)


def _window(options: OfflineOptions, inputs: Inputs, now: datetime) -> int | None:
    if options.since is not None and options.since_time is not None:
        raise UsageError("--since and --since-time exclude each other")
    if options.since_time is not None:
        return from_datetime(options.since_time)
    if options.since is None:
        return None
    newest = newest_record(inputs, year=options.year, now=now)
    return from_datetime(now) if newest is None else newest - options.since // timedelta(microseconds=1)


def _not_a_log(stream: FileStream) -> str | None:
    """Why a file that was only met on the way is no log of kube-proxy, None when it is one or was asked for by name."""
    if stream.explicit or stream.damages or not stream.own:
        return None
    container = stream.origin.container
    if container and "kube-proxy" not in container and container != "sdn":
        return f"the log of container {container}"
    if not stream.records and stream.size:
        return "no klog records"
    return None


class _Logs:
    """Puts the streams of one node together, whichever inputs they came from."""

    def __init__(self, node: str | None) -> None:
        self._node = node
        self._logs: dict[str, NodeLog] = {}

    def add(self, stream: FileStream) -> None:
        """Count a stream to its node."""
        log = self._log(stream.origin.node, stream.origin.node_from, stream.origin.pod, stream.source, Tally())
        first_of_node = not log.sources
        if first_of_node:
            log.tally = stream.tally
        else:
            log.tally.merge(stream.tally)
        log.sources.append(stream.source)
        if stream.origin.pod:
            log.pods.append(stream.origin.pod)
        log.problems.extend(Problem(damage.code, damage.message, stream.source) for damage in stream.damages)
        log.size += stream.size
        log.records = log.records or stream.records

    def add_unreadable(self, item: Unreadable) -> None:
        """Count an input that could not be read: to its node if its path names one, else as an unknown of its own."""
        origin = origin_of(item.path)
        log = self._log(origin.node, origin.node_from, origin.pod, item.name, Tally())
        log.sources.append(item.name)
        log.problems.append(Problem(str(item.code), item.message, item.name))

    def all(self) -> Iterable[NodeLog]:
        """Every node's log."""
        return self._logs.values()

    def _log(self, node: str, node_from: str, pod: str, source: str, tally: Tally) -> NodeLog:
        if not node and self._node:
            node, node_from = self._node, "option"
        name = node or pod or source
        key = f"node/{node}" if node else f"other/{name}"
        log = self._logs.get(key)
        if log is None:
            log = self._logs[key] = NodeLog(name, tally, identified=bool(node), name_from=node_from)
        return log


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


def _notes(findings: Sequence[NodeFinding]) -> Iterable[str]:
    silent = sum(finding.reason_code == "logProvesNothing" for finding in findings)
    if silent:
        yield (
            f"{silent} node(s) run kube-proxy 1.32 or later, which can leave stale entries without logging anything: "
            "only the node's conntrack table can show that they are healthy."
        )
    mute = sum(finding.reason_code == "versionUnknown" for finding in findings)
    if mute:
        yield f"{mute} log(s) do not tell kube-proxy's version; give it with --kube-proxy-version."
    unnamed = sum(not finding.identified for finding in findings)
    if unnamed:
        yield f"{unnamed} log(s) do not tell their node; they go by pod or file name. Name the node with --node."
    others = sorted({service for finding in findings for service in finding.other_services})
    if others:
        yield (
            f"Failures were also logged for {', '.join(others[:5])}{' and others' if len(others) > 5 else ''}; "
            "judge them with --service NAMESPACE/NAME."
        )


def _next_commands(findings: Sequence[NodeFinding]) -> Iterable[str]:
    """What to run now on the first suspect node: a log line is a suspicion, the kernel's tables are the proof."""
    suspect = next((finding for finding in findings if finding.verdict is Verdict.SUSPECT), None)
    if suspect is None:
        return
    there = f"ssh {suspect.name} sudo " if suspect.identified else ""
    for vip in list(dict.fromkeys(peer.vip for peer in suspect.peers))[:2]:
        yield f"{there}conntrack -L -p udp --orig-dst {vip}"
    logged = {signature.id for signature in suspect.signatures}
    if logged & {"CT_RETURN_OLD", "CT_LIST_FAIL", "CT_CLEAR_FAIL", "CT_PARTIAL", "CT_DEL_PORT"} and not suspect.peers:
        yield f"{there}conntrack -L -p udp --orig-port-dst 53"
    if logged & {"IPT_RESTORE_FAIL", "IPT_CHAIN_FAIL", "IPT_SYNC_FAILED", "IPT_SAVE_FAIL"}:
        yield f"{there}iptables-save -t nat"
    if "NFT_SYNC_FAIL" in logged:
        yield f"{there}nft list table ip kube-proxy"
