"""The race window: what else kube-proxy did around the moments at which endpoints went away. Pure.

A restart of kube-proxy, or a failed write of its rules, within one sync period of an endpoint removal is how a
conntrack clean-up gets lost (kubernetes/kubernetes#125467, #112604).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from kdnsctl.find.report import RaceWindow
from kdnsctl.logs.klog import SECOND
from kdnsctl.logs.times import to_datetime

SYNC_PERIOD_SECONDS = 30
"""kube-proxy's default syncPeriod (pkg/proxy/apis/config, 1.20–1.36)."""


def race_window(removals: Sequence[int], starts: Sequence[int], syncs_failed: Sequence[int]) -> RaceWindow | None:
    """What happened within a sync period of `removals`; None without any. All are microseconds since the epoch."""
    if not removals:
        return None
    moments = sorted(removals)
    first, last = to_datetime(moments[0]), to_datetime(moments[-1])
    if first is None or last is None:
        return None
    return RaceWindow(
        seconds=SYNC_PERIOD_SECONDS,
        first=first,
        last=last,
        endpoint_changes=len(moments),
        restarts=tuple(moment for start in starts if _near(start, moments) and (moment := to_datetime(start))),
        sync_failures=_syncs([failed for failed in syncs_failed if _near(failed, moments)]),
    )


def _syncs(failures: Sequence[int]) -> int:
    """How many syncs failed: one that does is logged as an error and again as "Sync failed", within microseconds."""
    count = 0
    before: int | None = None
    for failed in sorted(failures):
        count += before is None or failed - before >= SECOND
        before = failed
    return count


def _near(moment: int, moments: Sequence[int]) -> bool:
    index = bisect_left(moments, moment)
    reach = SYNC_PERIOD_SECONDS * SECOND
    return any(abs(other - moment) <= reach for other in moments[max(index - 1, 0) : index + 1])
