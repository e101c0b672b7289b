"""The command line itself: help, where options may stand, what is refused and how."""

from __future__ import annotations

import inspect
import re

import pytest

from kdnsctl import __version__
from kdnsctl.__main__ import main
from kdnsctl.cli import app
from kdnsctl.cli.commands import LazyGroup, build_command
from kdnsctl.cli.options import Connection
from kdnsctl.model import CancelledError, KdnsctlError, RefusedError
from tests.unit.cli.conftest import Judge, Run
from tests.unit.cli.terminals import on_terminal


@pytest.mark.parametrize("arguments", [["--version"], ["signatures", "--version"], ["--debug", "--version"]])
def test_version_is_printed_before_and_after_a_command(run: Run, arguments: list[str]) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out, ran.err) == (0, f"kdnsctl {__version__}\n", "")


def test_without_arguments_the_commands_are_listed(run: Run) -> None:
    ran = run()
    assert ran.code == 0
    assert all(f"  {name} " in ran.out for name in app.COMMANDS)


def test_what_a_bare_call_prints_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = on_terminal(monkeypatch, lambda: main([]), columns=60)
    assert max(map(len, screen.lines)) <= 60
    together = " ".join(screen.text.split())
    assert all(f"{name} {entry.summary}" in together for name, entry in app.COMMANDS.items())
    assert "'kdnsctl COMMAND --help' explains a command and its options." in together


def test_the_first_words_promise_only_what_the_commands_do(run: Run) -> None:
    for ran in (run(), run("--help")):
        assert "Find the nodes with the Kubernetes DNS blackhole" in ran.out
        assert not {"contain", "contain,", "prove"} & {*ran.out.split()}


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", [[], *([name] for name in app.COMMANDS)])
def test_every_command_has_help(run: Run, command: list[str], flag: str) -> None:
    ran = run(*command, flag)
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0].startswith(f"Usage: {' '.join(['kdnsctl', *command])} ")
    assert not command or "Examples:\n    # " in ran.out


def test_the_summary_shown_without_importing_a_command_is_the_first_line_of_its_help() -> None:
    tree = app.build()
    for name, entry in app.COMMANDS.items():
        real = tree.load(name)
        first = inspect.cleandoc(real.help).partition("\n")[0].rstrip(".")
        assert entry.summary == first, name
        assert tree.commands[name].get_short_help_str(200) == entry.summary


def test_help_of_every_command_for_a_cluster_has_examples_and_exit_codes() -> None:
    tree = app.build()
    loaded = {name: tree.load(name) for name, entry in app.COMMANDS.items() if entry.needs}
    single = {name: command.help for name, command in loaded.items() if not isinstance(command, LazyGroup)}
    assert {"find-affected", "analyze", "collect", "quarantine"} <= single.keys()
    for name, text in single.items():
        assert "Example" in text, name
        assert re.search(r"Exit codes: 0 .*\b2\s+wrong\s+usage.*\b130\s+interrupted", text, re.DOTALL), name


def test_help_has_first_what_is_the_commands_own(run: Run) -> None:
    out = run("quarantine", "--help").out
    places = [out.index(text) for text in ("\nOptions:", "\n  --dry-run", "\nWhich cluster,", "\n  --context")]
    places += [out.index(text) for text in ("\nOptions of every command:", "\n  -v, --verbose")]
    assert places == sorted(places)


def test_as_a_kubectl_plugin_the_usage_says_kubectl(run: Run) -> None:
    assert (
        run("signatures", "-h", program="/opt/bin/kubectl-kdns").lines[0].startswith("Usage: kubectl kdns signatures ")
    )
    assert "'kubectl kdns --help'" in run("--debug", program="/opt/bin/kubectl-kdns").error


def test_as_a_kubectl_plugin_help_and_hints_say_kubectl(run: Run) -> None:
    plugin = "/opt/bin/kubectl-kdns"
    out = run("repair", "flush", "--help", program=plugin).out
    assert "kubectl kdns find-affected --live -o json | kubectl kdns repair flush - --yes" in out
    assert run("signatures", "X", program=plugin).error == (
        "error: no signature 'X' ('kubectl kdns signatures' lists them)"
    )
    assert "is kubectl kdns" not in run("--help", program=plugin).out
    ran = run("incident", "show", "none", program=plugin)
    assert ran.err.splitlines()[-1] == "hint: see kubectl kdns incident list"
    assert run("signatures", "X").error == "error: no signature 'X' ('kdnsctl signatures' lists them)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["find-afected"], "unknown command 'find-afected'; did you mean 'find-affected'?"),
        (["xyz"], "unknown command 'xyz' ('kdnsctl --help' lists them)"),
        (["--debug"], "no command given; 'kdnsctl --help' lists the commands"),
        (["--logs", "x", "find-affected"], "unknown option --logs ('kdnsctl --help' lists those of 'kdnsctl')"),
        (["find-affected", "--sinc", "5m"], "unknown option --sinc; did you mean --since?"),
        (["find-affected", "--since"], "--since needs a value"),
        (["signatures", "--debug=1"], "option '--debug' does not take a value"),
        (
            ["--resolve", "h=x", "signatures"],
            "--resolve: 'h=x' is not HOST=IP; write it like api.example.com=192.0.2.10",
        ),
        (
            ["--request-timeout", "5", "signatures"],
            "--request-timeout: '5' has no unit; write it like 90s, 10m, 24h, 1h30m or 2d",
        ),
        (["signatures", "-o", "xml"], "--output: 'xml' is not one of 'table', 'wide', 'json', 'yaml', 'name'"),
        (["find-affected", "--logs", ""], "--logs: empty; give a file, a directory, or - for stdin"),
        (["find-affected", "--logs", "x", ""], "empty; give a file, a directory, or - for stdin"),
        (["completion"], "bash|zsh|fish is missing ('kdnsctl completion --help' explains it)"),
        (["completion", "csh"], "'csh' is not one of 'bash', 'zsh', 'fish'"),
        (["signatures", "--context", "c"], "--context has no effect on 'kdnsctl signatures'"),
        (["--context", "c", "signatures"], "--context has no effect on 'kdnsctl signatures'"),
        (["--incident", "i", "find-affected", "--logs", "x"], "--incident has no effect with --logs"),
        (["find-affected", "--logs", "x", "--as", "me"], "--as has no effect with --logs"),
        (["-s", "u", "find-affected", "--logs", "x", "--user", "me"], "--user, --server has no effect with --logs"),
        (
            ["signatures", "CT_LIST_FAL"],
            "no signature 'CT_LIST_FAL'; did you mean 'CT_LIST_FAIL'? ('kdnsctl signatures' lists them)",
        ),
        (
            ["signatures", "C1"],
            (
                "'C1' is a finding of analyze (entries that lead to a dead backend), not a message in a log"
                " ('kdnsctl signatures' lists those)"
            ),
        ),
        (["signatures", "-o", "json", "--no-headers"], "--no-headers has no effect with -o json"),
        (["--color", "pink", "signatures"], "--color: 'pink' is not one of 'auto', 'always', 'never'"),
        (["\x1b[31mred"], "unknown command '\\x1b[31mred' ('kdnsctl --help' lists them)"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(run: Run, judge: Judge, arguments: list[str], message: str) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out, ran.error) == (2, "", f"error: {message}")
    assert judge.asked == []


def test_a_value_from_the_environment_is_blamed_on_the_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch, judge: Judge
) -> None:
    monkeypatch.setenv("KDNSCTL_SINCE", "5")
    ran = run("find-affected", "--logs", "x")
    assert (ran.code, judge.asked) == (2, [])
    assert ran.error.startswith("error: KDNSCTL_SINCE: '5' has no unit; ")


def test_options_come_from_the_environment_and_the_command_line_wins(
    run: Run, monkeypatch: pytest.MonkeyPatch, judge: Judge
) -> None:
    monkeypatch.setenv("KDNSCTL_OUTPUT", "name")
    monkeypatch.setenv("KDNSCTL_SERVICE", "a/b c/d")
    monkeypatch.setenv("KDNSCTL_VERSION", "1")  # means something else to somebody else
    monkeypatch.setenv("KDNSCTL_CONTEXT", "prod")  # has no effect on logs, and nobody said it here
    assert run("find-affected", "--logs", "x").out == ""
    assert run("find-affected", "--logs", "x", "-o", "json").out.startswith("{")
    assert judge.asked[0].services == ("a/b", "c/d")


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "json", "find-affected"],
        ["--logs", "x"],
    ],
)
def test_only_global_options_go_before_the_command(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).code == 2


def test_options_before_the_command_reach_it(run: Run, judge: Judge) -> None:
    assert "\x1b[" in run("--color", "always", "find-affected", "--logs", "x").out
    assert "\x1b[" in run("--color=always", "--", "find-affected", "--logs", "x").out
    assert "\x1b[" not in run("--color", "always", "find-affected", "--logs", "x", "--color", "never").out
    assert [asked.paths for asked in judge.asked] == [("x",)] * 3


INTERNAL = "internal error: ZeroDivisionError: oops; run with --debug for the traceback, please report"


@pytest.mark.parametrize(
    ("raised", "code", "lines"),
    [
        (KdnsctlError("it broke", hint="mend it"), 1, ["error: it broke", "hint: mend it"]),
        (KdnsctlError("two\nlines \x1b[31m"), 1, ["error: two\\nlines \\x1b[31m"]),
        (RefusedError("no"), 5, ["error: no"]),
        (CancelledError("stopped; nothing was changed"), 130, ["error: stopped; nothing was changed"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (PermissionError(13, "Not yours", "/etc/x"), 1, ["error: Not yours: /etc/x (--debug shows where)"]),
        (ZeroDivisionError("oops"), 1, [INTERNAL]),
    ],
)
def test_every_error_ends_as_a_line_and_an_exit_code(
    run: Run, judge: Judge, raised: BaseException, code: int, lines: list[str]
) -> None:
    judge.report = raised
    ran = run("find-affected", "--logs", "x")
    assert (ran.code, ran.out, ran.err.splitlines()) == (code, "", lines)


@pytest.mark.parametrize("how", ["before", "after", "environment"])
def test_debug_shows_the_traceback(run: Run, judge: Judge, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    judge.report = ZeroDivisionError("oops")
    if how == "environment":
        monkeypatch.setenv("KDNSCTL_DEBUG", "1")
    before, after = ["--debug"] * (how == "before"), ["--debug"] * (how == "after")
    ran = run(*before, "find-affected", "--logs", "x", *after)
    assert ran.code == 1
    assert ran.err.startswith("Traceback ")
    assert ran.err.splitlines()[-1].startswith("internal error: ZeroDivisionError: oops;")


def test_a_hidden_group_is_accepted_but_not_shown() -> None:
    root = app.build()
    hidden = {name for parameter in root.params if getattr(parameter, "hidden", False) for name in parameter.opts}
    assert {"--context", "--kubeconfig", "--as-group", "--resolve", "--token-file"} <= hidden


def test_an_option_group_arrives_filled() -> None:
    seen: list[Connection] = []

    def connect(connection: Connection) -> None:
        """Connect."""
        seen.append(connection)

    command = build_command("connect", connect)
    words = ["--as", "me", "--as-group", "a", "--as-group", "b", "--request-timeout", "1m30s", "--resolve", "h=::1"]
    with command.make_context("connect", words) as ctx:
        command.invoke(ctx)
    assert seen[0].impersonate == "me"
    assert seen[0].impersonate_groups == ["a", "b"]
    assert seen[0].resolve == ["h=::1"]
    assert seen[0].request_timeout is not None
    assert seen[0].request_timeout.total_seconds() == 90
    assert "--as-group" in command.get_help(ctx)
