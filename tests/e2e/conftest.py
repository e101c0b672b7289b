"""Which cluster: the one that the environment names, or else a lab that lives as long as the session.

Only the fixture that starts the lab knows of labs; a test that needs something a cluster need not have carries a mark,
and is left out where it is missing.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.cluster import KDNSCTL, ROOT, Cluster
from tests.e2e.seeding import Scene, seeded

# Read now: no test sees its variables, whatever they say (tests/conftest.py).
KUBECONFIG: Final = os.environ.get("KDNSCTL_E2E_KUBECONFIG")
SSH_CONFIG: Final = os.environ.get("KDNSCTL_E2E_SSH_CONFIG")
DISRUPTIVE: Final = os.environ.get("KDNSCTL_E2E_DISRUPTIVE") == "1"


def missing() -> dict[str, str]:
    """Marks whose tests cannot or must not run here, and why. A lab has all it takes."""
    found = {}
    if KUBECONFIG and not SSH_CONFIG:
        found["ssh"] = "KDNSCTL_E2E_SSH_CONFIG names no way to the nodes"
    if KUBECONFIG and not DISRUPTIVE:
        found["disruptive"] = "KDNSCTL_E2E_DISRUPTIVE=1 is not set"
    return found


def pytest_report_header() -> list[str]:
    cluster = f"the cluster of {KUBECONFIG}" if KUBECONFIG else "a lab of its own"
    return [f"end to end on {cluster}", *(f"left out: tests marked {mark}: {why}" for mark, why in missing().items())]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    out = [item for item in items if any(item.get_closest_marker(mark) for mark in missing())]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="kdnsctl-e2e-") as directory:
        home = Path(directory)
        if KUBECONFIG:
            yield Cluster(Path(KUBECONFIG).absolute(), Path(SSH_CONFIG).absolute() if SSH_CONFIG else None, home)
        else:
            yield from _lab(home)


@pytest.fixture(scope="session")
def node(cluster: Cluster) -> str:
    """A node that ordinary pods run on, the same in every test."""
    nodes = cluster.read("nodes")["items"]
    free = [each["metadata"]["name"] for each in nodes if not each["spec"].get("taints") and _linux(each)]
    assert free, "every Linux node of this cluster has a taint; the tests need one without"
    return str(min(free))


@pytest.fixture(scope="session")
def scene(cluster: Cluster, node: str) -> Iterator[Scene]:
    """A Service of the tests' own with a dead endpoint; see `seeding`."""
    with seeded(cluster, node) as scene:
        yield scene


def _linux(node: dict[str, Any]) -> bool:
    return bool(node["metadata"]["labels"].get("kubernetes.io/os") == "linux")


def _lab(home: Path) -> Iterator[Cluster]:
    name = f"e2e-{os.getpid()}"
    _kdnsctl(home, "lab", "up", name)
    try:
        words = shlex.split(_kdnsctl(home, "lab", "env", name))
        variables = dict(word.split("=", 1) for word in words if "=" in word)
        yield Cluster(Path(variables["KUBECONFIG"]), Path(variables["KDNSCTL_SSH_CONFIG"]), home)
    finally:
        _kdnsctl(home, "lab", "down", name)


def _kdnsctl(home: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(home)}
    command: Sequence[str] = [*KDNSCTL, *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
