"""Why a node's rules are not right: what kube-proxy itself says of it in its log of the last minutes.

A restart writes the rules anew where kube-proxy was stopped or missed something. Where writing them fails, it fails
after a restart as well: then the cause has to go first. Nothing is changed here.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.kubeproxy import KubeProxy
from kdnsctl.cluster.transport import Connection
from kdnsctl.diagnosis import wording
from kdnsctl.logs.sources.pods import read_pod
from kdnsctl.logs.times import from_datetime

RECENT: Final = timedelta(minutes=5)  # a failed sync is tried again every 30 s (syncPeriod), or sooner
WRITING: Final = ("IPT_RESTORE_FAIL", "NFT_SYNC_FAIL", "IPT_CHAIN_FAIL", "IPT_SAVE_FAIL")


def why_not_written(connection: Connection, proxy: KubeProxy | None, *, scope: CancelScope, now: datetime) -> str:
    """What fails when kube-proxy writes its rules, in its own words; "" when its log tells of no such thing."""
    if proxy is None or proxy.place is None:
        return ""
    since = from_datetime(now - RECENT)
    tally = read_pod(connection, proxy.node, proxy.place, scope, since=since, now=now).tally
    for signature in WRITING:
        found = tally.counts.get(signature)
        if found is not None and found.count:
            # Without the header of the line, and on one line: errors of programs have several.
            return wording.clean(" ".join(found.example.partition("] ")[2].split()) or found.example)
    return ""
