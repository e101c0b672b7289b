"""A quarantine that is interrupted while it captures: the node stays held and cordoned, nothing is drained, it is said,
and the next run goes on. On nodes that are played from recordings, of which knode2 really holds stale entries.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.changes import journal
from kdnsctl.changes.fields import RECORD
from kdnsctl.evidence import collect as collecting
from kdnsctl.evidence.items import ITEMS
from kdnsctl.lab.api.faults import Disturb, Fault
from kdnsctl.lab.api.journal import Entry
from kdnsctl.lab.api.server import ApiServer, listen
from kdnsctl.lab.kinds import LEASES, NODES, PODS
from kdnsctl.lab.newstore import new_store
from kdnsctl.lab.recorded import cluster
from kdnsctl.lab.recorded.playback import Playback
from kdnsctl.lab.store import Store
from kdnsctl.quarantine import capture as capturing
from kdnsctl.reach import kubeproxyexec
from kdnsctl.reach.podspec import OPERATOR, RUN
from tests.lab.api.test_quarantine import document, grant
from tests.lab.conftest import Kdnsctl

NODE = "knode2"
INCIDENT = "inc-1"
WORDS = ("quarantine", NODE, "--yes", "--via", "exec", "--incident", INCIDENT, "-o", "json")
Process = tuple[list[str], dict[str, str]]


@pytest.fixture
def store() -> Store:
    """The recorded cluster, with a pod on the bad node that is evicted as soon as anybody asks: it has ended."""
    store = new_store()
    cluster.fill(store)
    ended = {"metadata": {"name": "web"}, "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "i:1"}]}}
    pod = store.create(PODS, ended)
    store.update(PODS, {**pod, "status": {"phase": "Succeeded"}}, subresource="status")
    return store


@pytest.fixture
def server(store: Store) -> Iterator[ApiServer]:
    places, logs = {}, {}
    for pod in store.select(PODS, "kube-system"):
        name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
        places[name] = node
        if pod["metadata"]["labels"]["k8s-app"] == "kube-proxy":
            logs[name] = cluster.DATA / node / "kube-proxy.log"
    with ApiServer(store, Playback(places, logs), [listen()], bookmark_seconds=3600) as server:
        yield server


@pytest.fixture(autouse=True)
def state(server: ApiServer, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: ARG001
    """The incident's directory."""
    config = tmp_path / "kubeconfig"
    config.write_text(server.kubeconfig(), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/kdnsctl/incidents" / INCIDENT


def evictions(server: ApiServer) -> list[str]:
    return [one.path for one in server.journal.entries() if one.path.endswith("/eviction")]


def held_and_not_drained(store: Store, server: ApiServer, phase: str = "contained") -> None:
    """What must be so whatever broke off: as contained, and nothing evicted."""
    node = store.get(NODES, NODE)
    record = json.loads(node["metadata"]["annotations"][RECORD])
    assert record["phase"] == phase
    assert node["spec"]["unschedulable"] is True
    assert [taint["key"] for taint in node["spec"]["taints"] if taint["key"] == RECORD] == [RECORD]
    assert node["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/scale-down-disabled"] == "true"
    assert evictions(server) == []
    assert store.find(PODS, "web", "default") is not None


def goes_on(kdnsctl: Kdnsctl, store: Store) -> list[str]:
    """The next run captures anew, drains, and gives back exactly; its notes."""
    again = kdnsctl(*WORDS)
    assert again.code == 0, again.err
    report = document(again)
    assert (report["nodes"][0]["phase"], report["nodes"][0]["verdict"]) == ("drained", "affected")
    assert store.find(PODS, "web", "default") is None
    assert kdnsctl("bundle", "verify", report["bundle"]).code == 0
    assert store.select(LEASES, "kube-system") == []
    notes: list[str] = report["notes"]
    back = kdnsctl("release", NODE, "--yes", "--unchecked", "-o", "json")
    assert {step["outcome"] for step in document(back)["nodes"][0]["steps"]} == {"restored"}
    return notes


def test_uninterrupted_it_captures_and_drains(kdnsctl: Kdnsctl, store: Store) -> None:
    assert not any("interrupted" in note for note in goes_on(kdnsctl, store))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_it_ends_in_the_middle_of_a_capture(
    kdnsctl: Kdnsctl,
    store: Store,
    server: ApiServer,
    state: Path,
    as_process: Process,
    number: signal.Signals,
) -> None:
    before = store.get(NODES, NODE)
    command, environment = as_process
    own = {key: os.environ[key] for key in ("KUBECONFIG", "XDG_CACHE_HOME", "XDG_STATE_HOME")}
    server.faults.add(Fault(Disturb(delay=120, piece=512), path="/exec", times=None))

    def is_held(entry: Entry) -> bool:
        return entry.path.endswith("/exec") and entry.code is not None and not entry.finished

    restored = signal.signal(signal.SIGINT, signal.default_int_handler)  # or a child of a background job ignores it
    try:
        with subprocess.Popen(
            [*command, *WORDS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**environment, **own}
        ) as running:
            try:
                server.journal.wait_for(is_held, 120)
            finally:
                running.send_signal(number)
            out, err = running.communicate(timeout=120)
    finally:
        signal.signal(signal.SIGINT, restored)

    assert running.returncode == (-signal.SIGKILL if number is signal.SIGKILL else 130), err
    assert (out, "Traceback" in err) == ("", False)
    held_and_not_drained(store, server)
    bundles = [path.name for path in state.iterdir() if path.name.startswith("evidence-")]
    assert len(bundles) == 1
    kinds = [record.kind for record in journal.read(state / "journal.jsonl").records]
    assert ("captureBegun" in kinds, "captured" in kinds) == (True, False)
    if number is not signal.SIGKILL:
        assert "interrupted; what was done is on the nodes" in err
        assert kdnsctl("bundle", "verify", str(state / bundles[0])).code in (0, 3)  # whole as far as it goes
    shown = document(kdnsctl("status", "-o", "json"))["nodes"][0]
    assert (shown["quarantine"]["phase"], shown["quarantine"]["verdict"], shown["drift"]) == ("contained", None, [])

    server.faults.clear()
    notes = goes_on(kdnsctl, store)

    (note,) = [one for one in notes if "interrupted" in one]
    assert f"what it had is kept in {state / bundles[0]}; the nodes are captured anew" in note
    assert (state / bundles[0]).is_dir()
    after = store.get(NODES, NODE)
    for one in (before, after):
        one["metadata"].pop("resourceVersion")
    assert after == before
    assert f"capturing {NODE} into {bundles[0]}" in kdnsctl("incident", "report", INCIDENT).out
    assert not any("interrupted" in one for one in document(kdnsctl(*WORDS))["notes"])  # told once


@pytest.mark.parametrize(
    "fault", [Disturb(after_bytes=100), Disturb(after_bytes=100, reset=False)], ids=["reset", "cut"]
)
def test_streams_that_break_off_prove_nothing(
    kdnsctl: Kdnsctl, store: Store, server: ApiServer, fault: Disturb
) -> None:
    """A table that was cut off may still prove the fault, but these are cut before anything that would."""
    server.faults.add(Fault(fault, path="/exec", times=None))

    ran = kdnsctl(*WORDS)

    assert ran.code == 4, ran.err
    node = document(ran)["nodes"][0]
    assert (node["verdict"], node["drained"]) == ("unknown", False)
    assert "does not prove it affected" in node["notDrained"]
    record = json.loads(store.get(NODES, NODE)["metadata"]["annotations"][RECORD])
    assert record["verdict"] == "unknown"
    held_and_not_drained(store, server, record["phase"])
    server.faults.clear()
    goes_on(kdnsctl, store)


def test_a_stream_that_stands_still_is_ended_by_its_limit(
    kdnsctl: Kdnsctl, store: Store, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of each command is made short: that it ends the capture is what is shown."""
    shorter(monkeypatch)
    server.faults.add(Fault(Disturb(delay=600, piece=512), path="/exec", times=None))

    ran = kdnsctl(*WORDS)

    assert ran.code == 4, ran.err
    assert document(ran)["nodes"][0]["verdict"] == "unknown"
    record = json.loads(store.get(NODES, NODE)["metadata"]["annotations"][RECORD])
    held_and_not_drained(store, server, record["phase"])


def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    real = collecting.collect

    def collect(options: collecting.CollectOptions, *arguments: Any, **more: Any) -> Any:
        return real(replace(options, seconds=1, items=ITEMS[:4]), *arguments, **more)

    monkeypatch.setattr(capturing, "collect", collect)
    monkeypatch.setattr(kubeproxyexec, "SLACK", 1)


def test_a_full_disk_leaves_the_node_held_and_says_so(
    kdnsctl: Kdnsctl, store: Store, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the capture's first artefact on nothing can be written any more, as on a disk that it has filled."""
    with monkeypatch.context() as full:
        fill_up(full)
        ran = kdnsctl(*WORDS)

    assert ran.code in (1, 4), ran.err
    node = document(ran)["nodes"][0]
    assert (node["drained"], node["captured"]) == (False, False)
    assert "No space left" in json.dumps(node)
    held_and_not_drained(store, server)
    goes_on(kdnsctl, store)


def fill_up(full: pytest.MonkeyPatch) -> None:
    """Let every write fail once the bundle is begun."""
    real_write, real_create = os.write, collecting.collect
    begun: list[bool] = []

    def write(descriptor: int, data: Any) -> int:
        if begun and Path(f"/proc/self/fd/{descriptor}").readlink().suffix in (".jsonl", ".txt", ".gz", ".json"):
            raise OSError(28, "No space left on device")
        return real_write(descriptor, data)

    def collect(*arguments: Any, **more: Any) -> Any:
        begun.append(True)
        return real_create(*arguments, **more)

    full.setattr(os, "write", write)
    full.setattr(capturing, "collect", collect)


def test_pods_that_a_killed_capture_has_left_are_deleted_on_its_nodes_only(
    kdnsctl: Kdnsctl, store: Store, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(options: Any, *_: Any, **__: Any) -> Any:
        for name, node, run in (
            ("left", NODE, options.pods.run),
            ("other-node", "knode1", options.pods.run),
            ("other-run", NODE, "x"),
        ):
            labels = {"app.kubernetes.io/managed-by": "kdnsctl", RUN: run}
            meta = {"name": name, "namespace": "kube-system", "labels": labels, "annotations": {OPERATOR: "joe@desk"}}
            store.create(
                PODS, {"metadata": meta, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}}
            )
        raise KeyboardInterrupt

    with monkeypatch.context() as killing:
        killing.setattr(capturing, "collect", killed)
        assert kdnsctl(*WORDS[:3], "--incident", INCIDENT).code == 130

    notes = goes_on(kdnsctl, store)

    assert "1 pod of it still there: deleted" in notes
    going = {one["metadata"]["name"] for one in store.select(PODS) if "deletionTimestamp" in one["metadata"]}
    assert going == {"left"}
    begun = [one for one in journal.read(state / "journal.jsonl").records if one.kind == "captureBegun"]
    assert [bool(one.body["pods"]) for one in begun] == [True, False]  # the second run was by exec alone


@pytest.mark.parametrize("without", ["", "create pods/exec"])
def test_the_printed_role_is_enough_for_the_capture(
    kdnsctl: Kdnsctl, store: Store, server: ApiServer, without: str
) -> None:
    """Under impersonation, with the drain; and without exec nothing is proven, so nothing is drained."""
    manifests = json.loads(kdnsctl("rbac", "quarantine", "release", "status", "-o", "json").out)["items"]
    grant(server, manifests, "jane", without=without)

    ran = kdnsctl(*WORDS, "--as", "jane")
    assert ran.out, ran.err

    node = document(ran)["nodes"][0]
    if without:
        assert (ran.code, node["verdict"]) == (4, "unknown")
        held_and_not_drained(store, server, node["phase"])
        return
    assert ran.code == 0, ran.err
    assert (node["phase"], node["verdict"], node["captured"]) == ("drained", "affected", True)
    assert kdnsctl("status", "--as", "jane").code == 0
    back = kdnsctl("release", NODE, "--yes", "--unchecked", "--as", "jane")
    assert back.code == 0, back.err
    refused = [one for one in server.journal.entries() if one.user == "jane" and one.code == 403]
    assert [(one.method, one.path) for one in refused] == []
