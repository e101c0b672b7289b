"""A real lab in the kernel, shared by the tests that only look at it or put it back as it was."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdnsctl.lab import incident, space
from kdnsctl.lab.kubeclient import Access, KubeClient
from kdnsctl.lab.spacedir import LabDir, lab_dir
from tests.lab.api.client import Operator


@pytest.fixture(scope="session")
def labs() -> Iterator[Path]:
    """A directory that holds labs, with a short path and readable by all (an unprivileged lab lives in it, too)."""
    directory = Path(tempfile.mkdtemp(prefix="kdnsctl-labs-"))
    directory.chmod(0o777)
    yield directory
    left = [each.name for each in directory.iterdir()]
    shutil.rmtree(directory)
    assert left == []


@pytest.fixture(scope="session")
def lab(labs: Path) -> Iterator[LabDir]:
    """Three nodes, kube-proxy 1.30. Fails where the kernel lab cannot start."""
    space.up(space.UpOptions(name="shared", root=labs))
    yield lab_dir("shared", labs)
    space.down("shared", root=labs)


@pytest.fixture
def healed_after(lab: LabDir) -> Iterator[LabDir]:
    """The shared lab for a test that breaks it."""
    yield lab
    incident.heal(name=lab.name, root=lab.root.parent)


@pytest.fixture
def operator(lab: LabDir) -> Iterator[Operator]:
    """The same API, every byte of it."""
    with Operator(space.status(lab.name, root=lab.root.parent).server, lab.ca_file, lab.token_file) as client:
        yield client


@pytest.fixture(scope="session")
def api(lab: LabDir) -> Iterator[KubeClient]:
    """The shared lab's API as an operator uses it."""
    server = json.loads(lab.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    client = KubeClient(Access(server, str(lab.ca_file), lab.token_file.read_text()), "tests")
    yield client
    client.close()
