"""The verb that deletes conntrack entries: what a step of it may hold, and what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.flows import DELETE, step_of
from kdnsctl.changes.table import VERBS
from kdnsctl.changes.verbs import Means
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError, Step
from kdnsctl.netfilter.entries import Key

KEY = Key("udp", "10.96.0.10", 53, "10.244.1.2", 53)
VERB = VERBS[DELETE]


def test_a_step_survives_the_journal_and_is_said_in_words() -> None:
    step = Step.from_json(step_of("n", "u", KEY, 2).to_json())
    VERB.check(step)
    assert VERB.says(step) == "delete 2 UDP entries from 10.96.0.10:53 to 10.244.1.2:53 on n"
    assert VERB.inverse(step) is None


@pytest.mark.parametrize(
    "change",
    [
        {"replySource": "10.244.1.2; reboot"},
        {"replySource": "fd00::1"},
        {"replySource": None},
        {"destination": "--help"},
        {"port": "53"},
        {"port": 0},
        {"replyPort": None},
        {"replyPort": True},
        {"protocol": "all"},
        {"node": ""},
        {"more": 1},
    ],
    ids=str,
)
def test_a_forged_step_is_refused(change: dict[str, Any]) -> None:
    step = step_of("n", "u", KEY, 1)
    with pytest.raises(ValueError, match=r"\S"):
        VERB.check(replace(step, args={**step.args, **change}))


def test_a_rehearsal_touches_nothing_and_without_a_way_nothing_is_done() -> None:
    connection, scope = cast("Connection", None), CancelScope(5)
    assert not VERB.apply(step_of("n", "u", KEY, 1), Means(connection, scope, dry_run=True)).changed
    with pytest.raises(KdnsctlError, match="no way to n"):
        VERB.apply(step_of("n", "u", KEY, 1), Means(connection, scope))
