"""A quarantine that is killed, or interrupted, at every moment: it goes on at once, and goes back exactly.

The command runs in a process of its own, which ends while the answer to one of its writes is held back: the server has
done it, and nobody knows. A few moments here; `nox -s faults` takes all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kdnsctl.lab.api.faults import Disturb, Fault
from kdnsctl.lab.api.journal import Entry
from kdnsctl.lab.kinds import LEASES, NODES
from kdnsctl.quarantine import events
from tests.lab.api.fake_kubelet import Cluster
from tests.lab.api.test_quarantine import grant
from tests.lab.conftest import Kdnsctl, Ran
from tests.lab.drain.cluster import NODE, Lab, lab

WORDS = ("quarantine", NODE, "--yes", "--no-collect", "--drain-anyway")
INCIDENT = ("--incident", "inc-1")


class Moment(NamedTuple):
    """The write after which the command ends: the `after`-th (from 0) of this method and end of path."""

    method: str
    path: str
    after: int = 0


MOMENTS = {
    "lock": Moment("POST", "/leases"),
    "record": Moment("PATCH", NODE, 0),
    "hold": Moment("PATCH", NODE, 1),
    "cordon": Moment("PATCH", NODE, 2),
    "taint": Moment("PATCH", NODE, 3),
    "contained": Moment("PATCH", NODE, 4),
    "event": Moment("POST", "/events"),
    "eviction": Moment("POST", "/eviction", 0),
    "second eviction": Moment("POST", "/eviction", 1),
    "drained": Moment("PATCH", NODE, 5),
    "unlock": Moment("DELETE", "/leases/", 0),
}
QUICK = [
    ("lock", signal.SIGKILL),
    ("cordon", signal.SIGKILL),
    ("eviction", signal.SIGKILL),
    ("taint", signal.SIGINT),
    ("second eviction", signal.SIGINT),
]
EVERY = [(name, number) for name in MOMENTS for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)]
CASES = EVERY if os.environ.get("KDNSCTL_FAULTS") == "all" else QUICK


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Lab]:  # noqa: ARG001  # set before
    """A cluster with two pods to evict, and this machine's state."""
    with lab(tmp_path) as made:
        made.deploy("web", 2)
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        made.cordon("knode2", "knode3", on=False)
        yield made


def node(made: Lab) -> dict[str, Any]:
    """The node without what changes by itself."""
    found = made.store.get(NODES, NODE)
    return {**found, "metadata": {**found["metadata"], "resourceVersion": ""}}


def ended_at(made: Lab, as_process: tuple[list[str], dict[str, str]], moment: Moment, number: signal.Signals) -> int:
    """Run the command, and end it by a signal while the answer to that write is held back. Its exit code."""
    command, environment = as_process
    environment = {
        **environment,
        **{key: os.environ[key] for key in ("KUBECONFIG", "XDG_CACHE_HOME", "XDG_STATE_HOME")},
    }
    made.server.faults.add(Fault(Disturb(delay=180), method=moment.method, path=moment.path, after=moment.after))

    def is_held(entry: Entry) -> bool:
        same = entry.method == moment.method and moment.path in entry.path
        return same and entry.code is not None and not entry.finished

    words = [*command, *WORDS, *INCIDENT]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as running:
        try:
            made.server.journal.wait_for(is_held, 120)
        finally:
            running.send_signal(number)
        running.communicate(timeout=120)
    return running.returncode


def elsewhere(kdnsctl: Kdnsctl, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """The same on another machine: one that knows nothing of this one's runs."""
    with monkeypatch.context() as other:
        other.setenv("XDG_STATE_HOME", str(directory / "other"))
        return kdnsctl(*WORDS, *INCIDENT)


@pytest.mark.parametrize(("name", "number"), CASES)
def test_it_goes_on_at_once_and_back_exactly(
    made: Lab,
    kdnsctl: Kdnsctl,
    as_process: tuple[list[str], dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    number: signal.Signals,
) -> None:
    before = node(made)
    with Cluster(made.store, made.manager):
        code = ended_at(made, as_process, MOMENTS[name], number)

        assert code == (-signal.SIGKILL if number is signal.SIGKILL else 130)
        if number is signal.SIGKILL and name != "unlock":  # the Lease stays, and others are told whose it is
            assert len(made.store.select(LEASES)) == 1
            other = elsewhere(kdnsctl, tmp_path, monkeypatch)
            assert other.code == 5
            assert f"{NODE} is being worked on by" in other.err
        else:
            assert made.store.select(LEASES) == []

        again = kdnsctl(*WORDS, *INCIDENT, "-o", "json")

        assert again.code == 0, again.err
        assert json.loads(again.out)["nodes"][0]["phase"] == "drained"
        assert "web" not in "".join(made.on().values())
        assert made.store.select(LEASES) == []
        back = kdnsctl("release", NODE, "--yes", "--unchecked", "-o", "json")
        assert back.code == 0, back.err
        assert node(made) == before
    assert json.loads(kdnsctl("incident", "list", "-o", "json").out)["items"][0]["stepsToUndo"] == 0


def test_who_uncordons_a_node_meanwhile_is_respected(
    made: Lab, kdnsctl: Kdnsctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between cordon and drain: nothing is evicted, and it is said; run again, it is contained anew."""
    before = node(made)
    told = events.emit

    def emit(connection: Any, about: Any, reason: str, *more: Any, **rest: Any) -> str:
        if reason == "Quarantined":
            made.store.change(NODES, NODE, "", lambda found: {**found, "spec": uncordoned(found["spec"])})
        return told(connection, about, reason, *more, **rest)

    with Cluster(made.store, made.manager):
        with monkeypatch.context() as meddling:
            meddling.setattr(events, "emit", emit)
            ran = kdnsctl(*WORDS, *INCIDENT, "-o", "json")

        assert ran.code == 1
        assert json.loads(ran.out)["nodes"][0]["failed"]["code"] == "drift"
        assert not [one for one in made.server.journal.entries() if one.path.endswith("/eviction")]
        again = kdnsctl(*WORDS, *INCIDENT, "-o", "json")
        assert json.loads(again.out)["nodes"][0]["phase"] == "drained", again.err
        assert kdnsctl("release", NODE, "--yes", "--unchecked").code == 0
        assert node(made) == before


def uncordoned(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "unschedulable"}


def test_the_printed_role_is_enough_for_the_drain(made: Lab, kdnsctl: Kdnsctl) -> None:
    manifests = json.loads(kdnsctl("rbac", "quarantine", "release", "-o", "json").out)["items"]
    grant(made.server, manifests, "jane")
    grant(made.server, manifests, "joe", without="create pods/eviction")
    with Cluster(made.store, made.manager):
        before = node(made)
        refused = kdnsctl(*WORDS, *INCIDENT, "--as", "joe")
        assert refused.code == 5
        assert "not allowed: create pods/eviction" in refused.err
        assert node(made) == before

        ran = kdnsctl(*WORDS, *INCIDENT, "--as", "jane", "-o", "json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["nodes"][0]["phase"] == "drained"
        assert json.loads(ran.out)["notes"] == []
        assert kdnsctl("release", NODE, "--yes", "--unchecked", "--as", "jane").code == 0
