"""What holds for every command there is: its help, its examples, its documents' schemas, and one line for bad input."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.__main__ import main
from kdnsctl.cli import app
from kdnsctl.cli.nextsteps import IN_INCIDENTS
from kdnsctl.cli.options import Form, Format, ListForm
from kdnsctl.cli.settings import by_option, commands
from tests.unit.cli.conftest import Run
from tests.unit.cli.terminals import on_terminal

ROOT = Path(__file__).parents[3]
COMMANDS: dict[tuple[str, ...], Any] = dict(commands(app.COMMANDS))
SCHEMAS = {path.name.removesuffix(".schema.json") for path in (ROOT / "docs/schemas").glob("*.schema.json")}
# Which document each command prints with -o json; those without have no such option.
KINDS = {
    "find-affected": ["FindReport"],
    "analyze": ["AnalyzeReport"],
    "collect": ["CollectReport", "CollectPlan"],
    "probe": ["ProbeReport"],
    "bundle show": ["BundleReport"],
    "bundle verify": ["BundleReport"],
    "bundle redact": ["RedactReport"],
    "quarantine": ["QuarantineReport", "Plan"],
    "status": ["StatusReport"],
    "release": ["ReleaseReport", "Plan"],
    "repair flush": ["RepairReport", "Plan"],
    "repair restart-kube-proxy": ["RepairReport", "Plan"],
    "flush": ["RepairReport", "Plan"],
    "incident list": ["IncidentList"],
    "incident show": ["IncidentReport"],
    "incident undo": ["UndoReport", "Plan"],
    "runbook list": ["RunbookList"],
    "runbook show": ["Runbook"],
    "runbook run": ["RunbookReport"],
    "cleanup": ["CleanupReport"],
    "verbosity show": ["VerbosityReport"],
    "verbosity raise": ["VerbosityReport", "Plan"],
    "verbosity restore": ["VerbosityReport", "Plan"],
    "signatures": ["SignatureList"],
    "doctor": ["DoctorReport"],
    "config": ["ConfigReport"],
    "lab doctor": ["LabDoctorReport"],
    "lab status": ["LabStatus"],
    "lab break": ["LabIncident"],
    "rbac": [],  # manifests, whose schema is Kubernetes' own
}
every_command = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


def test_every_command_with_json_has_its_schemas_and_every_schema_a_command() -> None:
    printing = {" ".join(words) for words, command in COMMANDS.items() if _prints_documents(command)}
    assert printing == KINDS.keys()
    assert {kind for kinds in KINDS.values() for kind in kinds} == SCHEMAS
    for kind in SCHEMAS:
        schema = json.loads((ROOT / "docs/schemas" / f"{kind}.schema.json").read_text("utf-8"))
        assert schema["properties"]["kind"]["const"] == kind
        assert schema["properties"]["apiVersion"]["const"] == "kdnsctl.io/v1"


def _prints_documents(command: Any) -> bool:
    option = by_option(command.params).get("output")
    choices = {str(getattr(one, "value", one)) for one in option.type.choices} if option is not None else set()
    return "json" in choices


def test_the_forms_of_output_are_the_same_words_everywhere() -> None:
    assert {one.value for form in (Form, ListForm) for one in form} <= {one.value for one in Format}


@every_command
def test_help_says_what_it_does_how_to_call_it_and_how_it_ends(run: Run, words: Sequence[str]) -> None:
    ran = run(*words, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0].startswith(f"Usage: kdnsctl {' '.join(words)} ")
    assert ran.lines[2].startswith("  ")
    assert ran.out == run(*words, "-h").out
    text = COMMANDS[tuple(words)].help
    assert re.search(r"Examples?:\n", text), "no examples"
    for option in COMMANDS[tuple(words)].params:
        if option.param_type_name == "option" and not option.hidden:
            assert option.help, option.opts
            assert option.help.rstrip(")")[-1:] in ".:" or option.help.endswith(")"), (option.opts, option.help)


@every_command
def test_examples_of_help_are_commands_that_are_understood(words: Sequence[str]) -> None:
    """Each is parsed as it would be when typed: no option that is gone, no value that is none."""
    lines = [line.strip() for line in COMMANDS[tuple(words)].help.splitlines() if line.startswith("  ")]
    parsed = 0
    for line in lines:
        for call in re.split(r"\||<\(|\$\(", line.partition(" # ")[0]):
            if not call.strip().startswith("kdnsctl "):
                continue
            typed = shlex.split(re.sub(r"[<>].*$|\)\"?.*$|[&]{2}.*$", "", call.strip()))[1:]
            _parse(typed)
            parsed += 1
    assert parsed, "no example calls it"


def _parse(typed: list[str]) -> None:
    path = next((path for path in sorted(COMMANDS, key=len, reverse=True) if tuple(typed[: len(path)]) == path), None)
    if path is None:  # a group, or an option before the command
        assert typed[0] in app.COMMANDS or typed[0].startswith("-"), typed
        return
    COMMANDS[path].make_context(" ".join(path), typed[len(path) :], resilient_parsing=False)


@every_command
def test_help_fits_a_narrow_terminal(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    screen = on_terminal(monkeypatch, lambda: main([*words, "--help"]), columns=60)
    kept = {line for line in screen.lines if "kdnsctl " in line or line.lstrip().startswith(("#", "kubectl"))}
    assert [line for line in screen.lines if len(line) > 60 and line not in kept] == []


@every_command
def test_an_unknown_option_is_one_line_and_exit_2(run: Run, words: Sequence[str]) -> None:
    ran = run(*words, "--no-such-option")
    assert (ran.code, ran.out) == (2, "")
    assert ran.error.startswith("error: unknown option --no-such-option")


@every_command
def test_a_value_that_is_none_is_one_line_that_names_its_option(run: Run, words: Sequence[str]) -> None:
    taking = [
        (name, option)
        for name, option in by_option(COMMANDS[tuple(words)].params).items()
        if type(option.type).__name__ in ("TyperChoice", "IntRange")
    ]
    assert taking  # --color at least
    for name, _ in taking:
        ran = run(*words, f"--{name}=\x1b[31mno", *(["ID"] if _needs_a_word(words) else []))
        assert (ran.code, ran.out) == (2, ""), name
        assert ran.error.startswith(f"error: --{name}: "), ran.error
        assert "\x1b" not in ran.error


def _needs_a_word(words: Sequence[str]) -> bool:
    return any(one.param_type_name == "argument" and one.required for one in COMMANDS[tuple(words)].params)


@pytest.mark.parametrize("words", [words for words in COMMANDS if _needs_a_word(words)], ids=" ".join)
def test_a_missing_argument_is_one_line_and_exit_2(run: Run, words: Sequence[str]) -> None:
    ran = run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert " is missing ('kdnsctl " in ran.error


@pytest.mark.parametrize(
    "words",
    [words for words, one in COMMANDS.items() if any(p.metavar == "[NODE]..." for p in one.params)],
    ids=" ".join,
)
def test_a_word_that_is_no_name_of_a_node_is_one_line_and_exit_2(run: Run, words: Sequence[str]) -> None:
    ran = run(*words, "Not_A_Node", "--yes" if "yes" in by_option(COMMANDS[tuple(words)].params) else "--no-input")
    assert (ran.code, ran.out) == (2, "")
    assert "Not_A_Node" in ran.error
    assert ran.error.startswith("error: ")


@every_command
def test_no_color_and_debug_are_taken_by_every_command(words: Sequence[str]) -> None:
    options = by_option(COMMANDS[tuple(words)].params)
    assert {"color", "debug", "no-input", "verbose", "config", "version"} <= options.keys()


def test_next_commands_know_which_commands_take_an_incident() -> None:
    taking = {" ".join(words) for words, command in COMMANDS.items() if "incident" in by_option(command.params)}
    assert taking == IN_INCIDENTS
