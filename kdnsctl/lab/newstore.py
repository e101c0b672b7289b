"""The one place that makes a lab's store: with every admission check, so that no lab and no test is without one.

The supervisor, the lab that plays recordings and the tests all begin here. It neither fills the store nor serves it.
"""

from __future__ import annotations

from kdnsctl.lab.podsecurity import enforce_pod_security
from kdnsctl.lab.store import Clock, Store, utc_now


def new_store(clock: Clock = utc_now, *, seed: int | None = None, history: int = 20_000) -> Store:
    """An empty store that refuses what a real server's admission refuses; the arguments are those of `Store`."""
    store = Store(clock, seed=seed, history=history)
    enforce_pod_security(store)
    return store
