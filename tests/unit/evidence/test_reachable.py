"""Which ways to nodes `doctor` names, by what this machine has."""

from __future__ import annotations

import pytest

from kdnsctl.access.checkup import Ability
from kdnsctl.evidence.reachable import ways_to_nodes


@pytest.mark.parametrize(
    ("environment", "program", "abilities", "words"),
    [
        ({}, None, (Ability.UNKNOWN, Ability.FAILS), ("no agent is there", "there is no ssh on the PATH")),
        (
            {"SSH_AUTH_SOCK": "/run/agent"},
            "/usr/bin/ssh",
            (Ability.UNKNOWN, Ability.UNKNOWN),
            ("an agent is there", "/usr/bin/ssh; no node was tried"),
        ),
    ],
)
def test_over_ssh_only_trying_tells(
    environment: dict[str, str], program: str | None, abilities: tuple[Ability, ...], words: tuple[str, ...]
) -> None:
    through, beside = ways_to_nodes(environment, lambda _: program)
    assert list(through) == ["exec", "pod"]
    assert [str(one) for one in through["exec"].needed] == [
        "get pods/exec in kube-system",
        "create pods/exec in kube-system",
    ]
    assert [one.name for one in beside] == ["ssh", "openssh"]
    assert tuple(one.ability for one in beside) == abilities
    assert all(one.why.startswith(word) for one, word in zip(beside, words, strict=True))
