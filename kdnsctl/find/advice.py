"""What the operator should know of a report as a whole, in notes. Pure; nothing is judged here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from kdnsctl.cluster.kubeproxy import KubeProxy
from kdnsctl.find.commands import MOST_NODES, NODE_NAME, suspects_of
from kdnsctl.find.report import NodeFinding
from kdnsctl.model import Basis, Verdict

MOST_NAMED = 5
TOO_EARLY = ("notSettled", "cancelled", "deadline")
"""Reasons for which a node's state was not judged, though it can be."""
TABLES_TELL = ("logProvesNothing", "failureBeforeWindow", "justChanged", "notFollowing")
"""Reasons for which a log proves nothing, and the node's tables do."""
COST = (
    "it runs `cat` and `grep` in the kube-proxy pod of each node (pods/exec), 8 nodes at a time, sends the entries of "
    "the DNS Services and the rules through the API server, and changes nothing"
)
"""What find-affected --live costs a cluster."""


def notes(findings: Sequence[NodeFinding], counting: Sequence[tuple[str, str]]) -> Iterable[str]:
    """Notes on the run; `counting` are (node, note) on how its logs were counted."""
    silent = sum(finding.reason_code == "logProvesNothing" for finding in findings)
    if silent:
        yield (
            f"{_count(silent, 'node')} {'runs' if silent == 1 else 'run'} a release of kube-proxy that can leave "
            "stale entries without logging anything (1.32 and later, and some before it): only the node's conntrack "
            f"table can show that they are healthy. --live reads it: {COST}."
        )
    yield from _unlogged(findings)
    mute = sum(finding.reason_code == "versionUnknown" for finding in findings)
    if mute:
        logs = f"{_count(mute, 'log')} {'does' if mute == 1 else 'do'}"
        yield f"{logs} not tell kube-proxy's version; give it (v1.30.8, not 1.30) with --kube-proxy-version."
    yield from _young(findings)
    unnamed = sum(not finding.identified for finding in findings)
    if unnamed:
        logs = (
            "1 log does not tell its node; it goes"
            if unnamed == 1
            else f"{unnamed} logs do not tell their node; they go"
        )
        yield f"{logs} by pod or file name. Name the node with --node."
    healed = [finding.name for finding in findings if finding.verdict is Verdict.CLEAN and finding.earlier_failures]
    if healed:
        yield (
            f"{_count(len(healed), 'clean node')} failed before the window ({_some(healed)}); kube-proxy started again "
            "since, which normally removes what was left. Without --since the failures are shown."
        )
    others = sorted({service for finding in findings for service in finding.other_services})
    if others:
        yield f"Failures were also logged for {_some(others)}; judge them with --service NAMESPACE/NAME."
    suspects = suspects_of(findings)
    if len(suspects) > MOST_NODES:
        yield (
            f"Commands are given for {MOST_NODES} of {len(suspects)} suspect nodes; those for the others are the same, "
            "with their own name and addresses (-o wide)."
        )
    judged = {finding.name for finding in findings}
    said = [f"{node}: {note}." for node, note in counting if node in judged]
    yield from said[:MOST_NAMED]
    if len(said) > MOST_NAMED:
        yield f"The same is so for {len(said) - MOST_NAMED} more logs that repeat others."


def _young(findings: Sequence[NodeFinding]) -> Iterable[str]:
    """What to do about logs that begin inside the window."""
    young = [one for one in findings if one.reason_code == "logBegins"]
    begins = max((one.span.first for one in young if one.span), default=None)
    if begins is not None:
        yield (
            f"{_count(len(young), 'log')} begin{'s' if len(young) == 1 else ''} inside the window: what was before is "
            "not in it, with a pod that was replaced or a file that was rotated. All that there is: without --since. "
            f"A window that they cover: --since-time {begins + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}."
        )


def _unlogged(findings: Sequence[NodeFinding]) -> Iterable[str]:
    """What no log shows, where nothing was found and somebody may take that for health (kubernetes#125467)."""
    verdicts = {finding.verdict for finding in findings if finding.basis is not Basis.STATE and finding.state is None}
    if Verdict.CLEAN in verdicts and not verdicts & {Verdict.AFFECTED, Verdict.SUSPECT}:
        yield (
            "Clean is what the logs say: they do not show what kube-proxy left undone while it was down. If DNS still "
            "times out on a clean node, look at its conntrack table."
        )


def next_looks(findings: Sequence[NodeFinding], *, live: bool) -> Iterable[str]:
    """How to prove with kdnsctl itself what a log only tells, or what an affected node suffers from."""
    if live:
        unsettled = [
            one.name
            for one in findings
            if one.verdict in (Verdict.SUSPECT, Verdict.UNKNOWN)
            and NODE_NAME.fullmatch(one.name)
            and any(problem.code in TOO_EARLY for problem in one.problems)
        ]
        affected = [one.name for one in findings if one.verdict is Verdict.AFFECTED and NODE_NAME.fullmatch(one.name)]
        if affected:
            yield f"kdnsctl analyze {' '.join(affected[:MOST_NAMED])}"
            yield f"kdnsctl repair flush {' '.join(affected[:MOST_NAMED])} --dry-run=client"
        if unsettled:
            yield f"kdnsctl find-affected --live {' '.join(unsettled[:MOST_NAMED])}"
        return
    suspects = [one.name for one in suspects_of(findings) if one.identified and NODE_NAME.fullmatch(one.name)]
    silent = any(one.reason_code in TABLES_TELL for one in findings)
    if silent:
        yield "kdnsctl find-affected --live"
    elif suspects:
        yield f"kdnsctl find-affected --live {' '.join(suspects[:MOST_NAMED])}"


def next_readings(
    findings: Sequence[NodeFinding], proxies: Mapping[str, KubeProxy], *, kubelet_logs: bool
) -> Iterable[str]:
    """How to get at a log that the API does not have, for the first node of each sort."""
    unread = {
        finding.reason_code: finding.name
        for finding in reversed(findings)
        if finding.verdict is Verdict.UNKNOWN and NODE_NAME.fullmatch(finding.name)
    }
    if (node := unread.get("emptyLog")) and not kubelet_logs:
        yield f"kdnsctl find-affected {node} --kubelet-logs"
    if node := unread.get("embedded"):
        journal = f"ssh {node} sudo journalctl -o short-iso -u {proxies[node].unit}"
        yield f"{journal} | kdnsctl find-affected --logs - --node {node}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (" and others" if len(names) > MOST_NAMED else "")
