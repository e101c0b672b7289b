"""What the operator should know of a report as a whole, and what to run now. Pure; nothing is judged here.

Commands are made to be pasted into a shell, and names come from logs: only a name that can be a node's gets into one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from kdnsctl.find.report import NodeFinding
from kdnsctl.model import Verdict

MOST_NAMED = 5

_NODE_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_NODE_PORT = re.compile(r'udp conntrack (?:for|on) port (\d{1,5})[,:]|"?\b(?:port|nodePort)"?[=:](\d{1,5})\b')
_RULES = {"IPT_RESTORE_FAIL", "IPT_CHAIN_FAIL", "IPT_SYNC_FAILED", "IPT_SAVE_FAIL"}
_NO_ADDRESS = {"CT_RETURN_OLD", "CT_LIST_FAIL", "CT_CLEAR_FAIL", "CT_PARTIAL"}


def notes(findings: Sequence[NodeFinding], counting: Sequence[tuple[str, str]]) -> Iterable[str]:
    """Notes on the run; `counting` are (node, note) on how its logs were counted."""
    silent = sum(finding.reason_code == "logProvesNothing" for finding in findings)
    if silent:
        yield (
            f"{silent} node(s) run a release of kube-proxy that can leave stale entries without logging anything (1.32 "
            "and later, and some before it): only the node's conntrack table can show that they are healthy."
        )
    mute = sum(finding.reason_code == "versionUnknown" for finding in findings)
    if mute:
        yield f"{mute} log(s) do not tell kube-proxy's version; give it (v1.30.8, not 1.30) with --kube-proxy-version."
    unnamed = sum(not finding.identified for finding in findings)
    if unnamed:
        yield f"{unnamed} log(s) do not tell their node; they go by pod or file name. Name the node with --node."
    others = sorted({service for finding in findings for service in finding.other_services})
    if others:
        yield f"Failures were also logged for {_some(others)}; judge them with --service NAMESPACE/NAME."
    judged = {finding.name for finding in findings}
    said = [f"{node}: {note}." for node, note in counting if node in judged]
    yield from said[:MOST_NAMED]
    if len(said) > MOST_NAMED:
        yield f"The same is so for {len(said) - MOST_NAMED} more logs that repeat others."


def next_commands(findings: Sequence[NodeFinding]) -> Iterable[str]:
    """What to run now on the first suspect node: a log line is a suspicion, the kernel's tables are the proof."""
    suspect = next((finding for finding in findings if finding.verdict is Verdict.SUSPECT), None)
    if suspect is None:
        return
    there = f"ssh {suspect.name} sudo " if suspect.identified and _NODE_NAME.fullmatch(suspect.name) else ""
    logged = {signature.id: signature for signature in suspect.signatures}
    vips = list(dict.fromkeys(peer.vip for peer in suspect.peers))[:2]
    for vip in vips:
        yield f"{there}conntrack -L -p udp --orig-dst {vip}"
    if "CT_DEL_PORT" in logged and (port := _NODE_PORT.search(logged["CT_DEL_PORT"].example)):
        yield f"{there}conntrack -L -p udp --orig-port-dst {port[1] or port[2]}"
    if not vips and logged.keys() & _NO_ADDRESS:
        yield f"{there}conntrack -L -p udp --orig-port-dst 53"
    if logged.keys() & _RULES:
        yield f"{there}iptables-save -t nat"
    if "NFT_SYNC_FAIL" in logged:
        yield f"{there}nft list table ip kube-proxy"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (" and others" if len(names) > MOST_NAMED else "")
