"""What every test may rely on: nothing from the environment of whoever runs the tests decides their outcome."""

import os

import pytest
from hypothesis import settings

# The same examples in every run, and no example judged by how long a busy machine took for it.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

DECIDING = ("KUBECONFIG", "NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "COLUMNS", "TERM", "PYTHONUNBUFFERED")


@pytest.fixture(autouse=True)
def neutral_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*DECIDING, *(name for name in os.environ if name.startswith(("KDNSCTL_", "_KDNSCTL_")))]:
        monkeypatch.delenv(name, raising=False)
