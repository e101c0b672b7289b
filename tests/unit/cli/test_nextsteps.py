"""A next command works as it stands: at the cluster that was asked, with options that the command has."""

from __future__ import annotations

import shlex

import pytest
import typer

from kdnsctl.cli.commands import build_command
from kdnsctl.cli.nextsteps import Caller, caller_of, next_lines
from kdnsctl.cli.options import Connection

PROD = Caller("kdnsctl", ("--context", "prod", "--resolve", "api=192.0.2.1"), ("--context", "prod"))


def called(*words: str) -> Caller:
    """Who calls when these are the words of the command line."""
    seen: list[Caller] = []

    def probe(ctx: typer.Context, connection: Connection) -> None:  # noqa: ARG001  # its options are what this is about
        seen.append(caller_of(ctx))

    build_command("kdnsctl", probe)([*words], prog_name="kdnsctl", standalone_mode=False)
    return seen[0]


def test_the_cluster_that_was_chosen_on_the_command_line_is_chosen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDNSCTL_CONTEXT", "of-the-environment")  # is still there for the next command
    words = ["-s", "https://api", "--as-group", "a", "--as-group", "b c", "--resolve", "api=192.0.2.1"]
    caller = called(*words, "--request-timeout", "5s")
    assert caller.cluster == ("--server", "https://api", *words[2:])
    assert caller.kubectl == ("--server", "https://api", *words[2:6])


def test_without_such_options_commands_stay_as_they_are() -> None:
    assert called().spelled("kdnsctl analyze node-a") == "kdnsctl analyze node-a"


@pytest.mark.parametrize(
    ("command", "spelled"),
    [
        ("kdnsctl analyze node-a", "kdnsctl --context prod --resolve api=192.0.2.1 analyze node-a"),
        ("kubectl get nodes", "kubectl --context prod get nodes"),
        ("ssh node-a sudo conntrack -L", "ssh node-a sudo conntrack -L"),
        ("kdnsctl find-affected --logs logs", "kdnsctl find-affected --logs logs"),
        ("kdnsctl analyze a.conntrack --node a", "kdnsctl analyze a.conntrack --node a"),
    ],
)
def test_only_what_asks_a_cluster_gets_its_options(command: str, spelled: str) -> None:
    assert PROD.spelled(command) == spelled


def test_a_path_with_a_space_is_one_word() -> None:
    line = PROD.on_files("analyze", "my evidence")
    assert shlex.split(line) == ["kdnsctl", "analyze", "my evidence"]
    assert PROD.on_cluster("status") == "kdnsctl --context prod --resolve api=192.0.2.1 status"


def test_no_heading_stands_over_nothing() -> None:
    assert next_lines([]) == []
    assert next_lines(["kdnsctl status"]) == ["Next:", "  kdnsctl status"]


def test_commands_in_a_report_are_spelled_and_nothing_else() -> None:
    caller = Caller("kubectl kdns", ("--context", "prod"), ("--context", "prod"))
    report = {
        "nextCommands": ["kdnsctl analyze n1"],
        "nodes": [{"name": "kdnsctl analyze n1", "findings": [{"commands": ["kubectl get nodes"], "count": 1}]}],
    }
    assert caller.spelled_in(report) == {
        "nextCommands": ["kubectl kdns --context prod analyze n1"],
        "nodes": [
            {"name": "kdnsctl analyze n1", "findings": [{"commands": ["kubectl --context prod get nodes"], "count": 1}]}
        ],
    }


def test_what_comes_next_belongs_to_the_incident_that_was_named() -> None:
    caller = Caller("kdnsctl", ("--context", "prod"), incident="dns-1")
    assert caller.spelled("kdnsctl analyze a") == "kdnsctl --context prod --incident dns-1 analyze a"
    assert caller.on_cluster("repair", "flush", "a") == "kdnsctl --context prod --incident dns-1 repair flush a"
    assert caller.on_cluster("quarantine", "a", "--incident", "x") == "kdnsctl --context prod quarantine a --incident x"
    assert caller.on_cluster("status") == "kdnsctl --context prod status"  # which has no such option
    assert caller.spelled("kdnsctl find-affected --logs x") == "kdnsctl find-affected --logs x"
