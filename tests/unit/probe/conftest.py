from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdnsctl.model import Toolset
from kdnsctl.probe.here import Here
from kdnsctl.probe.onnode import OnNode
from kdnsctl.probe.queries import Asker
from tests.unit.cluster.conftest import api, authority, connect_to, environment, kubeconfig, notes, scope, tls
from tests.unit.probe.servers import LocalShell, Server, serving

__all__ = ["api", "authority", "connect_to", "environment", "kubeconfig", "notes", "scope", "tls"]

SOURCE = Path(__file__).parents[3] / "images/tools/dnsprobe.c"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


@pytest.fixture(scope="session")
def dnsprobe(tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("dnsprobe") / "dnsprobe"
    subprocess.run(["cc", "-std=c11", "-O1", "-o", str(target), str(SOURCE)], check=True)
    return str(target)


@pytest.fixture(params=["here", "dnsprobe", "python3"])
def asker(request: pytest.FixtureRequest) -> Asker:
    """Each way of asking: they are to tell the same."""
    if request.param == "here":
        return Here()
    if request.param == "dnsprobe":
        programs = {"dnsprobe": request.getfixturevalue("dnsprobe")}
        return OnNode(LocalShell(Toolset.TOOLS, Toolset.KUBE_PROXY, programs=programs))
    return OnNode(LocalShell(Toolset.HOST, Toolset.KUBE_PROXY, programs={"python3": sys.executable}))
