from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kdnsctl.lab.api.columns import layout_of
from kdnsctl.lab.api.durations import age, human
from kdnsctl.lab.api.pod_rows import completion, pod_cells
from kdnsctl.lab.kinds import DISRUPTION_BUDGETS, EVENTS, KINDS, LEASES, SECRETS, SERVICES
from tests.lab.api import recordings

NOW = datetime(2026, 11, 23, 4, 31, 17, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (130, "2m10s"), (599, "9m59s"),
        (600, "10m"), (10799, "179m"), (10800, "3h"), (11000, "3h3m"), (28799, "7h59m"), (28800, "8h"),
        (172799, "47h"), (172800, "2d"), (180000, "2d2h"), (691199, "7d23h"), (691200, "8d"), (63071999, "729d"),
        (63072000, "2y"), (70000000, "2y80d"), (252288000, "8y"),
    ],
)  # fmt: skip
def test_lengths_of_time(seconds: int, text: str) -> None:
    assert human(seconds) == text


def test_the_age_of_nothing_is_unknown() -> None:
    assert age(None, NOW) == "<unknown>"
    assert age("2026-11-23T04:31:00.5Z", NOW) == "16s"


def test_recorded_ages() -> None:
    for name in ("table-nodes", "table-pods"):
        for row in recordings.body(name)["rows"]:
            # The Table was asked for at 04:31:17, as its headers say.
            assert row["cells"][4 if name == "table-pods" else 3] == age(
                row["object"]["metadata"]["creationTimestamp"], NOW
            )


def test_every_kind_has_as_many_cells_as_columns() -> None:
    needed: dict[str, Any] = {
        "metadata": {"name": "x", "creationTimestamp": "2026-11-23T04:30:00Z"},
        "spec": {"type": "ClusterIP", "template": {"spec": {}}},
    }
    for kind in KINDS:
        layout = layout_of(kind)
        assert len(layout.row(needed, NOW)) == len(layout.columns), kind.plural
        assert layout.columns[0].name == ("Last Seen" if kind is EVENTS else "Name")


def pod(phase: str = "Running", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "creationTimestamp": "2026-11-23T04:30:17Z"},
        "spec": {"containers": [{"name": "c"}], "nodeName": "n"},
        "status": {"phase": phase, **status},
    }


def container(**state: Any) -> dict[str, Any]:
    return {"name": "c", "ready": False, "restartCount": 0, "state": state}


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (pod("Pending"), "Pending"),
        (pod(containerStatuses=[container(waiting={"reason": "CrashLoopBackOff"})]), "CrashLoopBackOff"),
        (pod(containerStatuses=[container(terminated={"reason": "Error", "exitCode": 1})]), "Error"),
        (pod(containerStatuses=[container(terminated={"exitCode": 3})]), "ExitCode:3"),
        (pod(containerStatuses=[container(terminated={"exitCode": 137, "signal": 9})]), "Signal:9"),
        (pod("Failed", reason="Evicted"), "Evicted"),
        (pod("Pending", initContainerStatuses=[container(running={})]), "Init:0/0"),
        (pod() | {"metadata": {"name": "p", "deletionTimestamp": "x"}}, "Terminating"),
        (pod(reason="NodeLost") | {"metadata": {"name": "p", "deletionTimestamp": "x"}}, "Unknown"),
    ],
)
def test_the_state_of_a_pod_in_a_word(given: dict[str, Any], word: str) -> None:
    assert pod_cells(given, NOW)[2] == word


def test_restarts_tell_how_long_ago() -> None:
    last = {"terminated": {"exitCode": 1, "finishedAt": "2026-11-23T04:30:47Z"}}
    running = container(running={}) | {"ready": True, "restartCount": 2, "lastState": last}
    cells = pod_cells(pod(containerStatuses=[running]), NOW)
    assert cells[1:5] == ["1/1", "Running", "2 (30s ago)", "60s"]


def test_pods_that_ended_are_marked() -> None:
    assert completion(pod()) is None
    ended = completion(pod("Succeeded"))
    assert ended is not None
    assert (ended[0]["type"], ended[0]["reason"]) == ("Completed", "Succeeded")


def test_cells_of_other_kinds() -> None:
    meta = {"metadata": {"name": "x", "creationTimestamp": "2026-11-23T04:30:17Z"}}
    ports = [{"port": 53, "protocol": "UDP", "nodePort": 30053}]
    service = meta | {"spec": {"type": "NodePort", "clusterIP": "10.96.0.1", "ports": ports}}
    assert layout_of(SERVICES).row(service, NOW) == [
        "x",
        "NodePort",
        "10.96.0.1",
        "<none>",
        "53:30053/UDP",
        "60s",
        "<none>",
    ]
    budget = meta | {"spec": {"minAvailable": 3}, "status": {"disruptionsAllowed": 1}}
    assert layout_of(DISRUPTION_BUDGETS).row(budget, NOW) == ["x", "3", "N/A", 1, "60s"]
    assert layout_of(LEASES).row(meta | {"spec": {"holderIdentity": "me"}}, NOW) == ["x", "me", "60s"]
    assert layout_of(SECRETS).row(meta | {"type": "Opaque", "data": {"a": "", "b": ""}}, NOW) == [
        "x",
        "Opaque",
        2,
        "60s",
    ]
    event = meta | {
        "involvedObject": {"kind": "Pod", "name": "p"},
        "reason": "Killing",
        "type": "Normal",
        "message": "m",
        "count": 3,
        "firstTimestamp": "2026-11-23T04:29:17Z",
        "lastTimestamp": "2026-11-23T04:31:12Z",
        "source": {"component": "kubelet"},
    }
    assert layout_of(EVENTS).row(event, NOW)[:7] == [
        "5s (x3 over 2m)",
        "Normal",
        "Killing",
        "pod/p",
        "",
        "kubelet",
        "m",
    ]
