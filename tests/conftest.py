"""What every test may rely on: nothing from the environment of whoever runs the tests decides their outcome."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# The same examples in every run, and no example judged by how long a busy machine took for it.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

DECIDING = ("KUBECONFIG", "NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "COLUMNS", "TERM", "PYTHONUNBUFFERED")

# A shell starts its background jobs with SIGINT ignored, nohup with SIGHUP, and children inherit that.
OFTEN_IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)


@pytest.fixture(scope="session", autouse=True)
def signals_are_heard() -> Iterator[None]:
    """Give what the tests start, and send signals to, the ordinary dispositions, whoever started the tests.

    A handler is set, not the default: the run itself goes on after a hang-up, and exec(2) makes defaults of handlers.
    """
    ignored = [number for number in OFTEN_IGNORED if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else lambda *_: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(autouse=True)
def neutral_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*DECIDING, *(name for name in os.environ if name.startswith(("KDNSCTL_", "_KDNSCTL_")))]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KDNSCTL_CONFIG", os.devnull)  # no file of whoever runs the tests, nor of the machine
