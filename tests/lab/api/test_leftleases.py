"""cleanup of the locks of nodes: what ended runs have left goes, and nothing that somebody works under."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.changes import runs
from kdnsctl.changes.incidents import this_actor
from kdnsctl.changes.lock import NODE, lease_name
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.evidence import leftleases
from kdnsctl.evidence.leftovers import Fate
from kdnsctl.lab.api.access import Rule
from kdnsctl.lab.api.server import ApiServer
from kdnsctl.lab.kinds import LEASES
from kdnsctl.lab.store import Store
from tests.lab.api.test_quarantine import document
from tests.lab.conftest import Kdnsctl

LONG_AGO = timedelta(hours=2)
Put = Callable[..., str]


@pytest.fixture(autouse=True)
def alive(server: ApiServer, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: ARG001
    """Where this machine keeps which runs go on."""
    config = tmp_path / "kubeconfig"
    config.write_text(server.kubeconfig(), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return runs.runs_directory({"XDG_STATE_HOME": str(tmp_path / "state")})


@pytest.fixture
def put(store: Store) -> Put:
    """A lock of a node, renewed that long ago; its name."""

    def lease(node: str, holder: str, age: timedelta = LONG_AGO, name: str = "", marked: bool = True) -> str:
        renewed = (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 60, "acquireTime": renewed, "renewTime": renewed}
        metadata: dict[str, Any] = {"name": name or lease_name(node), "namespace": "kube-system"}
        if marked:
            metadata["annotations"] = {NODE: node}
        store.create(LEASES, {"metadata": metadata, "spec": spec})
        return str(metadata["name"])

    return lease


def left(store: Store) -> set[str]:
    return {one["metadata"]["name"] for one in store.select(LEASES, "kube-system")}


def fates(kdnsctl: Kdnsctl, *words: str, code: int = 0) -> dict[str, str]:
    ran = kdnsctl("cleanup", *words, "-o", "json")
    assert ran.code == code, ran.err
    return {one["node"]: one["fate"] for one in document(ran)["leases"]}


def test_expired_ones_go_and_held_ones_stay(kdnsctl: Kdnsctl, store: Store, put: Put) -> None:
    put("knode1", "joe@desk/7-abcdef")
    held = put("knode2", "jane@laptop/8-abcdef", timedelta(seconds=5))
    foreign = [
        put("knode3", "someone", name="kube-controller-manager"),
        put("knode3", "someone", name="kdnsctl-0123456789abcdef"),  # not the name that its node gives
        put("knode3", "someone", marked=False),
    ]

    assert fates(kdnsctl, "--dry-run", "client") == {"knode1": "found", "knode2": "kept"}
    assert fates(kdnsctl, "--dry-run", "server") == {"knode1": "wouldDelete", "knode2": "kept"}
    assert len(left(store)) == 5
    refused = kdnsctl("cleanup", "--no-input")
    assert (refused.code, len(left(store))) == (5, 5)
    assert "it is held by jane@laptop/8-abcdef" in refused.err
    assert fates(kdnsctl, "--yes") == {"knode1": "deleted", "knode2": "kept"}

    assert left(store) == {held, *foreign}
    shown = kdnsctl("cleanup", "--yes")
    assert shown.lines[0].split() == ["LEASE", "NODE", "HOLDER", "ENDED", "FATE", "WHY"]


def test_the_lock_of_a_run_that_goes_on_here_stays_even_expired(
    kdnsctl: Kdnsctl, store: Store, put: Put, alive: Path
) -> None:
    """A laptop that slept: its run wakes up, and renews."""
    actor = this_actor()
    with runs.running(alive, actor):
        name = put("knode1", str(actor))
        assert fates(kdnsctl, "--yes") == {"knode1": "kept"}
        assert fates(kdnsctl, "--yes", "--run", actor.run, "--older-than", "1m") == {"knode1": "kept"}
        assert left(store) == {name}
    assert fates(kdnsctl, "--yes") == {"knode1": "deleted"}


def test_the_lock_of_a_run_that_was_killed_here_goes_before_it_expires(
    kdnsctl: Kdnsctl, store: Store, put: Put, alive: Path
) -> None:
    actor = this_actor()
    with runs.running(alive, actor):
        put("knode1", str(actor), timedelta(seconds=1))
    assert fates(kdnsctl, "--yes", "--run", actor.run) == {"knode1": "deleted"}
    assert left(store) == set()


def test_a_run_or_an_age_is_that_only(kdnsctl: Kdnsctl, store: Store, put: Put) -> None:
    put("knode1", "joe@desk/7-abcdef")
    put("knode2", "joe@desk/9-abcdef")
    assert fates(kdnsctl, "--yes", "--older-than", "3h") == {"knode1": "kept", "knode2": "kept"}
    assert fates(kdnsctl, "--yes", "--run", "7-abcdef") == {"knode1": "deleted"}
    assert left(store) == {lease_name("knode2")}


def test_one_that_is_taken_meanwhile_stays(store: Store, put: Put, tmp_path: Path) -> None:
    name = put("knode1", "joe@desk/7-abcdef")
    options = ConnectOptions(kubeconfig=str(tmp_path / "kubeconfig"), environment={"HOME": str(tmp_path)})
    nobody: Callable[[str], bool] = lambda _: False  # noqa: E731  # as the others
    with CancelScope() as scope:
        connection = connect(options, scope)
        found = leftleases.find(
            connection, "kube-system", run=None, older_than=None, is_over=nobody, goes_on=nobody, scope=scope
        )
        assert [one.fate for one in found.leases] == [Fate.FOUND]
        lease = store.get(LEASES, name, "kube-system")
        lease["spec"]["holderIdentity"] = "jane@laptop/8-abcdef"
        store.update(LEASES, lease)

        done = leftleases.delete(connection, found, server_dry_run=False, scope=scope)

    assert [(one.fate, one.why) for one in done.leases] == [(Fate.KEPT, "somebody has taken or renewed it meanwhile")]
    assert left(store) == {name}


def test_where_they_may_not_be_seen_that_is_said(kdnsctl: Kdnsctl, server: ApiServer, put: Put) -> None:
    put("knode1", "joe@desk/7-abcdef")
    server.policy.grant_user("joe", Rule(("list",), ("",), ("pods",)))
    assert fates(kdnsctl, "--yes", "--as", "joe", code=4) == {}
    assert "locks of nodes cannot be seen in kube-system" in kdnsctl("cleanup", "--yes", "--as", "joe").err
