"""What a command that only reads notes in an incident: with --incident, and never without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.changes import incidents, journal, timeline
from kdnsctl.changes.incidents import Actor
from kdnsctl.cli.noting import noting
from kdnsctl.cli.options import Record
from kdnsctl.model import Coverage, RefusedError, Verdict
from tests.unit.cluster.apiserver import Server, reply, status
from tests.unit.cluster.conftest import Kubeconfig
from tests.unit.find.clusters import container_log, proxied, set_up
from tests.unit.find.composing import bad, healthy

KUBE_SYSTEM = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system", "uid": "the-cluster"}}
Find = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def find(api: Server, kubeconfig: Kubeconfig, environment: dict[str, str], state: Path) -> Find:
    nodes, pods = proxied("a", "b")
    set_up(api, nodes, pods, {"proxy-a": container_log(bad()), "proxy-b": container_log(healthy())})
    api.on("/api/v1/namespaces/kube-system", reply(KUBE_SYSTEM))
    kubeconfig(api.url)

    def find(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kdnsctl", "find-affected", *words]
        return subprocess.run(
            command,
            env=environment | {"XDG_STATE_HOME": str(state)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return find


def journal_of(state: Path, name: str) -> journal.Reading:
    return journal.read(state / "kdnsctl" / "incidents" / name / "journal.jsonl")


def test_what_was_found_is_in_the_journal_and_every_request_names_the_incident(
    find: Find, api: Server, state: Path
) -> None:
    ran = find("--incident", "inc-1")
    assert (ran.returncode, ran.stderr.splitlines()[0]) == (3, "incident inc-1 (new)")
    reading = journal_of(state, "inc-1")
    opened, found = reading.records
    assert opened.body["clusterUid"] == "the-cluster"
    assert (found.kind, found.body["nodes"], found.body["judged"]) == ("found", {"suspect": ["a"]}, 2)
    assert all("incident inc-1" in (one.header("User-Agent") or "") for one in api.requests)
    told = timeline.told(found)
    assert told.endswith("ran find-affected: suspect: a; 2 of 2 nodes judged")


def test_without_an_incident_nothing_is_written(find: Find, api: Server, state: Path) -> None:
    assert find().returncode == 3
    assert not state.exists()
    assert "/api/v1/namespaces/kube-system" not in {one.path for one in api.requests}


def test_another_clusters_incident_is_refused_before_anything_is_read(find: Find, api: Server, state: Path) -> None:
    assert find("--incident", "inc-1").returncode == 3
    api.on("/api/v1/namespaces/kube-system", reply(KUBE_SYSTEM | {"metadata": {"uid": "another-cluster"}}))
    api.requests.clear()
    ran = find("--incident", "inc-1")
    assert (ran.returncode, ran.stdout) == (5, "")
    assert "belongs to another cluster" in ran.stderr
    assert len(journal_of(state, "inc-1").records) == 2
    assert not [one for one in api.requests if one.path.endswith("/log")]


def test_who_may_not_tell_clusters_apart_is_told_so(find: Find, api: Server, state: Path) -> None:
    api.on("/api/v1/namespaces/kube-system", status(403, "Forbidden", "namespaces is forbidden"))
    ran = find("--incident", "inc-1")
    assert (ran.returncode, ran.stdout, state.exists()) == (1, "", False)
    assert "namespaces is forbidden" in ran.stderr


def test_files_belong_to_no_cluster(find: Find, tmp_path: Path) -> None:
    ran = find("--logs", str(tmp_path), "--incident", "inc-1")
    assert ran.returncode == 2
    assert "--incident has no effect with --logs" in ran.stderr


def test_of_many_nodes_a_hundred_are_named_and_all_are_counted(tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(15_000)]
    actor = Actor("me@here", "1-abc")
    incident = incidents.open_incident(tmp_path, "big", "uid", "here", actor, lambda: datetime.now(UTC))
    with incident.journal:
        verdicts = [Verdict.AFFECTED] * len(names)
        incident.found("find-affected", actor, {"affected": names}, Coverage.of(verdicts))
    record = incidents.summary(tmp_path, "big").reading.records[-1]
    assert (len(record.body["nodes"]["affected"]), record.body["counts"]) == (100, {"affected": 15_000})
    told = timeline.told(record)
    assert told == (
        "me@here ran find-affected: affected: n0, n1, n2, n3, n4 and 14995 more; 15000 of 15000 nodes judged"
    )


def test_a_journal_that_cannot_be_written_any_more_does_not_cost_the_answer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = Actor("me@here", "1-abc")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    class Cluster:
        user_agent = ""
        target = None

    monkeypatch.setattr(incidents, "cluster_uid", lambda *_, **__: "uid")
    monkeypatch.setattr(incidents, "this_actor", lambda: actor)
    monkeypatch.setattr("kdnsctl.find.online.identity_of", lambda _: "here")
    cluster: Any = Cluster()
    with CancelScope() as scope, noting(cluster, Record("inc-1"), "probe", scope) as note:

        def full(*_: object) -> None:
            raise RefusedError("no space left on device")

        monkeypatch.setattr(journal.Journal, "append", full)
        note({"answers": ["this machine"]})
    assert capsys.readouterr().err.splitlines()[-1] == "not noted in incident inc-1: no space left on device"


def test_evidence_that_was_collected_is_in_the_timeline(tmp_path: Path) -> None:
    actor = Actor("me@here", "1-abc")
    incident = incidents.open_incident(tmp_path, "inc", "uid", "here", actor)
    with incident.journal:
        incident.found("collect", actor, {"complete": ["a"]}, evidence=(Path("/e/bundle"), "ab12"))
    told = timeline.told(incidents.summary(tmp_path, "inc").reading.records[-1])
    assert told == "me@here ran collect: complete: a; evidence in /e/bundle (SHA256SUMS ab12)"
