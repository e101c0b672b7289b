"""kdnsctl as a process whose time is moved by a signal: on SIGUSR1 a deadline that was set has come.

`python -m tests.unit.cli.with_a_deadline WORD...` is `kdnsctl WORD...` otherwise.
"""

from __future__ import annotations

import functools
import signal
import sys
import threading

from kdnsctl import cancel
from kdnsctl.__main__ import main
from tests.unit.manual_clock import ManualClock

FOREVER = 10.0**6  # seconds


def run() -> int:
    """Run kdnsctl by a clock that stands still until the signal."""
    clock = ManualClock()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # in the threads started from here on, too

    def wait() -> None:
        signal.sigwait({signal.SIGUSR1})
        clock.advance(FOREVER)

    threading.Thread(target=wait, daemon=True).start()
    cancel.CancelScope = functools.partial(cancel.CancelScope, clock=clock)  # type: ignore[misc, assignment]
    return main()


if __name__ == "__main__":
    sys.exit(run())
