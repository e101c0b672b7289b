from __future__ import annotations

from datetime import timedelta

import pytest

from kdnsctl.quarantine.podfilters import DAEMON_SET as DAEMON_SET_STAYS
from kdnsctl.quarantine.podfilters import (
    LOCAL_STORAGE,
    LOCAL_STORAGE_GOES,
    OUR_OWN,
    UNMANAGED,
    UNMANAGED_GOES,
    DrainOptions,
    Fate,
    decide,
    refusal,
)
from tests.unit.quarantine.objects import DAEMON_SET, NOW, known, pod

AGENT = ("default", "agent")
SCRATCH = [{"name": "s", "emptyDir": {}}]
STATIC = "static pod: it comes from a file on the node"
OURS = {"app.kubernetes.io/managed-by": "kdnsctl", "kdnsctl.io/run": "20261128-064900-1a2b3c"}
MIRROR = {"kubernetes.io/config.mirror": "x"}


@pytest.mark.parametrize(
    ("given", "options", "fate", "why"),
    [
        (pod(), DrainOptions(), Fate.GOES, ""),
        (pod(owner=DAEMON_SET), DrainOptions(force=True), Fate.STAYS, DAEMON_SET_STAYS),
        (pod(owner=DAEMON_SET, volumes=SCRATCH), DrainOptions(), Fate.STAYS, DAEMON_SET_STAYS),
        (pod(owner=DAEMON_SET, phase="Failed"), DrainOptions(), Fate.GOES, ""),
        (pod(owner=DAEMON_SET | {"apiVersion": "x/v1"}), DrainOptions(), Fate.GOES, ""),
        (pod(owner=DAEMON_SET | {"name": "lost"}), DrainOptions(), Fate.FORBIDS, 'daemonsets.apps "lost" not found'),
        (pod(owner=DAEMON_SET | {"name": "lost"}), DrainOptions(force=True), Fate.GOES, ""),
        (pod(owner=None, annotations=MIRROR, volumes=SCRATCH), DrainOptions(), Fate.STAYS, STATIC),
        (pod(volumes=SCRATCH), DrainOptions(force=True), Fate.FORBIDS, LOCAL_STORAGE),
        (pod(volumes=SCRATCH), DrainOptions(delete_emptydir_data=True), Fate.GOES, ""),
        (pod(volumes=[{"name": "h", "hostPath": {"path": "/"}}]), DrainOptions(), Fate.GOES, ""),
        (pod(volumes=SCRATCH, phase="Succeeded", owner=None), DrainOptions(), Fate.GOES, ""),
        (pod(owner=None), DrainOptions(delete_emptydir_data=True), Fate.FORBIDS, UNMANAGED),
        (pod(owner={"kind": "ConfigMap", "name": "x", "uid": "1"}), DrainOptions(), Fate.FORBIDS, UNMANAGED),
        (pod(owner=None), DrainOptions(force=True), Fate.GOES, ""),
        (pod(owner=None, labels=OURS, volumes=SCRATCH), DrainOptions(force=True), Fate.STAYS, OUR_OWN),
        (pod(labels=OURS), DrainOptions(), Fate.GOES, ""),  # it only says so: ours are nobody's
    ],
)  # fmt: skip
def test_who_goes(given, options, fate, why) -> None:  # type: ignore[no-untyped-def]
    [decision] = decide([given], known(options, AGENT))
    assert (decision.fate, decision.why) == (fate, why)


def test_every_warning_is_kept() -> None:
    options = DrainOptions(force=True, delete_emptydir_data=True)
    [decision] = decide([pod(owner=None, volumes=SCRATCH)], known(options))
    assert decision.warnings == (LOCAL_STORAGE_GOES, UNMANAGED_GOES)


@pytest.mark.parametrize(("late", "fate"), [(59, Fate.GOES), (60, Fate.GOES), (61, Fate.STAYS)])
def test_a_pod_that_should_be_gone_for_long_is_skipped(late: int, fate: Fate) -> None:
    ending = pod(deletionTimestamp=(NOW - timedelta(seconds=late)).isoformat())
    assert [one.fate for one in decide([ending], known(DrainOptions(skip_wait=60)))] == [fate]
    assert [one.fate for one in decide([ending], known(DrainOptions(skip_wait=0)))] == [Fate.GOES]


def test_all_refusals_are_said_together() -> None:
    decisions = decide([pod("a", owner=None), pod("b", volumes=SCRATCH), pod("c"), pod("d", owner=None)], known())
    assert refusal(decisions) == (
        f"cannot delete {UNMANAGED}: default/a, default/d; cannot delete {LOCAL_STORAGE}: default/b"
    )
    assert refusal(decide([pod("c")], known())) == ""
