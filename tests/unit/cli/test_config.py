"""Configuration files: which are read, what wins, what is refused, and `kdnsctl config`."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest

from kdnsctl.cli import app, settings
from kdnsctl.cli.commands import LazyGroup
from tests.unit.cli.conftest import Judge, Run

FIND = ("find-affected", "--logs", "x")
Write = Callable[[str], Path]


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write the user's file; a machine's file there is none of."""
    monkeypatch.delenv("KDNSCTL_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(settings, "MACHINE", tmp_path / "etc.toml")

    def write(text: str) -> Path:
        file = tmp_path / "kdnsctl" / "config.toml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return file

    return write


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(
    run: Run, user_file: Write, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*FIND).code == 3
    user_file('[find-affected]\nsince = "1h"\nservice = ["a/b", "c/d"]\n')
    assert run(*FIND).code == 3
    monkeypatch.setenv("KDNSCTL_SINCE", "2h")
    assert run(*FIND).code == 3
    assert run(*FIND, "--since", "3h", "--service", "e/f").code == 3
    hours = [asked.since and asked.since // timedelta(hours=1) for asked in judge.asked]
    assert hours == [None, 1, 2, 3]
    assert [asked.services for asked in judge.asked[1:]] == [("a/b", "c/d"), ("a/b", "c/d"), ("e/f",)]


def test_the_users_file_wins_over_the_machines_and_a_command_over_the_defaults(
    run: Run, user_file: Write, judge: Judge, tmp_path: Path
) -> None:
    (tmp_path / "etc.toml").write_text('[defaults]\noutput = "yaml"\n[find-affected]\nsince = "1h"\nyear = 2025\n')
    user_file('[defaults]\nsince = "9h"\n[find-affected]\nsince = "2h"\n')
    assert run(*FIND).out.startswith("apiVersion:")
    assert (judge.asked[0].since, judge.asked[0].year) == (timedelta(hours=2), 2025)


def test_config_names_the_only_file_that_is_read(
    run: Run, user_file: Write, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_file('[defaults]\noutput = "json"\n')
    other = tmp_path / "other.toml"
    other.write_text('[defaults]\noutput = "yaml"\n')
    assert run(*FIND).out.startswith("{")
    assert run("--config", str(other), *FIND).out.startswith("apiVersion:")
    assert run(*FIND, f"--config={other}").out.startswith("apiVersion:")
    monkeypatch.setenv("KDNSCTL_CONFIG", str(other))
    assert run(*FIND).out.startswith("apiVersion:")
    assert run(*FIND, "--config", "/dev/null").out.startswith("NODE")
    ran = run(*FIND, "--config", str(tmp_path / "none"))
    assert (ran.code, ran.lines) == (2, [])
    assert ran.err.startswith(f"error: there is no configuration file {tmp_path}/none\n")
    assert len(judge.asked) == 5


@pytest.mark.usefixtures("judge")
def test_a_default_for_all_is_for_those_that_take_it(run: Run, user_file: Write) -> None:
    user_file('[defaults]\noutput = "wide"\nparallel = 7\nssh-config = "~/nodes"\n')
    wide = run(*FIND).out
    assert wide == run(*FIND, "-o", "wide", "--config", "/dev/null").out
    assert wide != run(*FIND, "--config", "/dev/null").out
    assert run("incident", "list").code == 0  # has no wide rows, and none of the other two


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[find-afected]\n", "[find-afected] in FILE: there is no command 'find-afected'; did you mean find-affected?"),
        ("[repair.flsh]\n", "[repair.flsh] in FILE: there is no command 'repair flsh'; did you mean flush?"),
        ("[flush]\nparallel = 2\n", "[flush] in FILE: write [repair.flush], which is the same command"),
        ('since = "1h"\n', "since in FILE stands before the first section"),
        ("[repair]\nparallel = 2\n", "parallel in [repair] of FILE: 'repair' is a group of commands"),
        (
            '[find-affected]\nsinse = "1h"\n',
            "sinse in [find-affected] of FILE: 'kdnsctl find-affected' has no such option; did you mean since?",
        ),
        (
            '[defaults]\ncontxt = "a"\n',
            "contxt in [defaults] of FILE: no command has such an option; did you mean context?",
        ),
        ("[defaults]\nyes = true\n", "yes in [defaults] of FILE cannot be set in a file"),
        ("[quarantine]\nforce = true\n", "force in [quarantine] of FILE cannot be set in a file"),
        ("[find-affected]\nlive = 1\n", "live in [find-affected] of FILE is true or false, not 1"),
        ("[find-affected]\nsince = true\n", "since in [find-affected] of FILE is one value, not True"),
        ('[find-affected]\nsince = ["1h"]\n', "since in [find-affected] of FILE is one value, not ['1h']"),
        ('[defaults]\nverbose = "a"\n', "verbose in [defaults] of FILE is a number, not 'a'"),
        (
            '[find-affected]\nsince = "5"\n',
            "since in [find-affected] of FILE: '5' has no unit; write it like 90s, 10m, 24h, 1h30m or 2d",
        ),
        ('[defaults]\ncolor = "pink"\n', "color in [defaults] of FILE: 'pink' is not one of 'auto', 'always', 'never'"),
        ("[find-affected\n", "FILE is not TOML: "),
        ("\udcff", "FILE is not TOML: "),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line_that_names_it(
    run: Run, user_file: Write, judge: Judge, text: str, message: str
) -> None:
    file = user_file("")
    file.write_text(text, errors="surrogateescape")
    ran = run(*FIND)
    assert (ran.code, ran.out, judge.asked) == (2, "", [])
    assert ran.err.splitlines()[0].startswith("error: " + message.replace("FILE", str(file)))
    assert len([line for line in ran.err.splitlines() if not line.startswith("hint: ")]) == 1
    assert run("find-affected", "--help").code == 0  # explains itself also then
    assert run("--version").code == 0
    assert run(*FIND, "--config", "/dev/null").code == 3


def test_a_file_that_cannot_be_read_is_an_error(run: Run, user_file: Write, judge: Judge) -> None:
    file = user_file("")
    ran = run(*FIND, "--config", str(file.parent))
    assert (ran.code, judge.asked) == (2, [])
    assert ran.error == f"error: cannot read {file.parent}: Is a directory"
    file.write_bytes(b"#" * (settings.MAX_BYTES + 1))
    assert "is larger than 1 MiB" in run(*FIND).error


def test_nothing_is_read_from_the_working_directory(
    run: Run, user_file: Write, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_file("")
    for name in ("config.toml", "kdnsctl.toml", ".kdnsctl.toml"):
        (tmp_path / name).write_text("[nonsense]\n")
    monkeypatch.chdir(tmp_path)
    assert run(*FIND).code == 3
    assert judge.asked[0].since is None


def test_a_tilde_is_the_home_directory(run: Run, user_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ops")
    user_file('[defaults]\nrunbook-dir = ["~/books"]\n')
    assert run("runbook", "list").error == "error: /home/ops/books is not a directory with runbooks"


def test_what_agrees_or_turns_a_guard_off_exists_and_is_refused() -> None:
    """The names are options: one that was renamed would no longer be refused."""
    names = {name for _, command in settings.commands(app.COMMANDS) for name in settings.by_option(command.params)}
    assert settings.NEVER - {"help"} <= names
    assert not {"context", "since", "parallel"} & settings.NEVER


def test_every_command_is_found_under_one_name() -> None:
    found = dict(settings.commands(app.COMMANDS))
    assert {("find-affected",), ("repair", "flush"), ("flush",), ("lab", "up")} <= found.keys()
    assert not any(isinstance(command, LazyGroup) for command in found.values())
    assert settings.canonical(("flush",), app.COMMANDS) == ("repair", "flush")
    assert settings.canonical(("status",), app.COMMANDS) == ("status",)


def test_config_shows_what_is_set_and_from_where(
    run: Run, user_file: Write, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    assert run("config").out == "Nothing is set in files or in the environment.\n"
    file = user_file('[defaults]\noutput = "wide"\n[find-affected]\nlive = true\nsince-time = 2026-11-23T03:00:00Z\n')
    monkeypatch.setenv("KDNSCTL_USER", "ops")
    monkeypatch.setenv("KDNSCTL_USR", "ops")
    ran = run("config")
    assert ran.code == 0
    assert ran.lines[0].split() == ["COMMAND", "OPTION", "VALUE", "FROM"]
    assert [line.split()[:3] for line in ran.lines[1:]] == [
        ["*", "output", "wide"],
        ["find-affected", "live", "true"],
        ["find-affected", "since-time", "2026-11-23"],
        ["*", "KDNSCTL_USER", "ops"],
    ]
    assert ran.err.splitlines() == [f"read: {file}", "no option has these variables: KDNSCTL_USR"]
    report = json.loads(run("config", "-o", "json").out)
    schema = json.loads((pytestconfig.rootpath / "docs/schemas/ConfigReport.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(report)
    assert (report["files"], report["ignored"]) == ([str(file)], ["KDNSCTL_USR"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[collect]\nparalel = 2\n", "paralel in [collect] of FILE: 'kdnsctl collect' has no such option"),
        ('[repair.flush]\ntcp = "yes"\n', "tcp in [repair.flush] of FILE is true or false, not 'yes'"),
    ],
)
def test_config_checks_the_sections_of_every_command(run: Run, user_file: Write, text: str, message: str) -> None:
    file = user_file(text)
    ran = run("config")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: " + message.replace("FILE", str(file)))


def test_tab_does_without_a_file_that_is_broken(run: Run, user_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    user_file("[find-affected\n")
    monkeypatch.setenv("_KDNSCTL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "kdnsctl find-affected --since-")
    monkeypatch.setenv("COMP_CWORD", "2")
    ran = run()
    assert (ran.code, ran.out.split(), ran.err) == (0, ["--since-time"], "")
