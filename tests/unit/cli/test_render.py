"""A report as a table, as names, as JSON and YAML: what is shown, where, and that nothing hostile gets through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.__main__ import main
from kdnsctl.cli.output import as_json, as_yaml
from kdnsctl.cli.terminal import visible, width_of
from kdnsctl.cli.values import is_node_name
from kdnsctl.diagnosis.findings import Diagnosis
from kdnsctl.find.report import FindReport, KubeProxy, NodeState, Peer, Problem, to_json
from kdnsctl.model import Basis, Coverage, Reason, Scope, Verdict
from tests.unit.cli import reports
from tests.unit.cli.conftest import Judge, Ran, Run
from tests.unit.cli.reports import HOSTILE, LAST, clean, failing, report, unknown
from tests.unit.cli.terminals import COLOR, Screen, on_terminal

FORMS = ("table", "wide", "json", "yaml", "name")

Show = Callable[..., Ran]


@pytest.fixture
def show(run: Run, judge: Judge) -> Show:
    def show(what: FindReport, *words: str) -> Ran:
        judge.report = what
        return run("find-affected", "--logs", "x", *words)

    return show


@pytest.fixture
def look(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Screen]:
    def look(what: FindReport, *words: str, columns: int) -> Screen:
        judge.report = what
        monkeypatch.setenv("TERM", "xterm-256color")
        return on_terminal(monkeypatch, lambda: main(["find-affected", "--logs", "x", *words]), columns=columns)

    return look


def test_piped_the_table_is_plain_aligned_and_whole(show: Show) -> None:
    long = "ip-10-0-12-34." + "x" * 200 + ".internal"
    ran = show(report(failing("node-a"), failing(long, Verdict.AFFECTED, stale_entries=7, basis=Basis.BOTH)))
    assert ran.lines[0].split() == [
        "NODE",
        "VERDICT",
        "BASIS",
        "STALE",
        "SIGNATURES",
        "LAST-SEEN",
        "KUBE-PROXY",
        "STARTS",
        "PEERS",
        "CAUSES",
    ]
    first, second = ran.lines[1].split(), ran.lines[2].split()
    assert (
        first
        == f"""
        {long} affected both 7 CT_DEL_ENDPOINT(41),IPT_RESTORE_FAIL(2) 2026-11-23T03:12:09Z v1.30.3,iptables 1
        10.96.0.10:53->10.0.1.2 enoent
    """.split()
    )
    assert second[:4] == ["node-a", "suspect", "log", "<unknown>"]
    starts = {line.index(cell) for line, cell in zip(ran.lines[:3], ["VERDICT", "affected", "suspect"], strict=True)}
    assert len(starts) == 1
    assert "\x1b" not in ran.out


ONLY_LOGS = ["NODE", "VERDICT", "SIGNATURES", "LAST-SEEN", "KUBE-PROXY", "STARTS"]


@pytest.mark.parametrize("columns", [None, 40, 80, 120, 200])
def test_columns_of_the_node_s_state_are_left_out_when_only_logs_were_read(
    show: Show, look: Callable[..., Screen], columns: int | None
) -> None:
    what, live = report(failing("a"), failing("b")), failing("c", Verdict.AFFECTED, stale_entries=7)
    text = show(what).out if columns is None else look(what, columns=columns).text
    assert not {"BASIS", "STALE", "<unknown>"} & {*text.split()}
    with_state = report(failing("a"), live)
    assert "<unknown>" in (show(with_state).out if columns is None else look(with_state, columns=columns).text)
    assert "BASIS" in show(report(failing("a", basis=Basis.BOTH))).lines[0]


@pytest.mark.parametrize(
    ("columns", "more"),
    [(None, ["PEERS", "CAUSES"]), (80, []), (92, ["CAUSES"]), (104, ["PEERS"]), (112, ["PEERS", "CAUSES"])],
)
def test_peers_and_causes_are_shown_where_there_is_room(
    show: Show, look: Callable[..., Screen], columns: int | None, more: list[str]
) -> None:
    what = report(failing("node-a"))
    lines = show(what).lines if columns is None else look(what, columns=columns).lines
    assert lines[0].split() == [*ONLY_LOGS, *more]
    assert ("10.96.0.10:53->10.0.1.2" in lines[1].split()) is ("PEERS" in more)
    assert ("enoent" in lines[1].split()) is ("CAUSES" in more)


def test_peers_and_causes_are_left_out_where_there_are_none(show: Show) -> None:
    assert show(report(failing("a", peers=(), causes=()))).lines[0].split() == ONLY_LOGS


def test_many_peers_of_a_node_are_counted(show: Show) -> None:
    peers = tuple(Peer("10.96.0.10", f"10.0.1.{i}", "a/b", 1, None, None) for i in range(5))
    ran = show(report(failing("a", peers=peers)))
    assert "10.96.0.10->10.0.1.0,10.96.0.10->10.0.1.1,10.96.0.10->10.0.1.2,+2" in ran.lines[1].split()


def test_rows_for_scripts_always_have_the_same_columns(show: Show) -> None:
    (line,) = show(report(failing("a")), "--no-headers").lines
    failures = "CT_DEL_ENDPOINT(41),IPT_RESTORE_FAIL(2)"
    assert line.split() == f"a suspect log <unknown> {failures} 2026-11-23T03:12:09Z v1.30.3,iptables 1".split()


@pytest.mark.parametrize(("found", "shown"), [(0, "<unknown>"), (3, "3")])
def test_no_entry_that_counts_is_no_zero_where_the_state_could_not_be_judged(
    show: Show, found: int, shown: str
) -> None:
    said = Diagnosis(Verdict.UNKNOWN, Reason("notSettled", "a second reading tells"), stale_entries=found)
    node = failing("a", stale_entries=found, state=NodeState(LAST, "exec", said))
    assert show(report(node), "--no-headers").lines[0].split()[3] == shown


def test_a_state_that_decides_nothing_is_no_lack_of_one(show: Show) -> None:
    said = Diagnosis(Verdict.UNKNOWN, Reason("notSettled", "a second reading tells"), stale_entries=0)
    node = failing("a", stale_entries=0, state=NodeState(LAST, "exec", said))
    assert "Judged 1 by log alone (the state of 1 was read, and decides nothing yet)." in show(report(node)).lines


def test_no_stale_entry_is_a_zero_where_the_state_was_judged(show: Show) -> None:
    said = Diagnosis(Verdict.CLEAN, Reason("noStaleEntries", "none"), stale_entries=0)
    node = clean("a", stale_entries=0, state=NodeState(LAST, "exec", said))
    assert show(report(node), "-o", "wide", "--no-headers").lines[0].split()[3] == "0"


def test_wide_shows_every_node_and_more_of_each(show: Show) -> None:
    ran = show(reports.with_everything(), "-o", "wide")
    assert ran.lines[0].split()[8:] == ["POD", "PEERS", "CAUSES", "RACE", "SPAN", "REASON"]
    assert [line.split()[:2] for line in ran.lines[1:4]] == [
        ["node-a", "suspect"],
        ["node-c", "clean"],
        ["node-b", "unknown"],
    ]
    for cell in (
        "kube-proxy-x7x2p",
        "10.96.0.10:53->10.0.1.2(41)",
        "enoent(41)",
        "starts=1,sync-failures=1,within=60s",
        "2026-11-20T00:00:12Z/2026-11-23T03:12:09Z",
    ):
        assert cell in ran.lines[1].split()
    assert ran.lines[1].endswith("   a failure was logged")


def test_the_default_table_groups_the_unknown_and_counts_the_rest(show: Show) -> None:
    late = [unknown(f"late-{i}", f"log begins at {i}", "beginsLate") for i in (1, 2)]
    silent = [unknown(f"silent-{i}", "says nothing", "silent") for i in range(12)]
    ran = show(report(failing("bad"), *late, *silent, clean("good-1"), clean("good-2")))
    text = ran.out
    assert "12 unknown: says nothing\n  " + ", ".join(node.name for node in silent) + "\n" in text
    assert "2 unknown: beginsLate\n  late-1: log begins at 1\n  late-2: log begins at 2\n" in text
    assert "2 clean, not listed (-o wide lists them)\n" in text
    assert "good-1" not in text
    assert "17 nodes in scope, 3 judged: 1 suspect, 2 clean, 14 unknown.\n" in text


def test_a_long_group_on_a_terminal_names_the_first_and_counts_the_others(look: Callable[..., Screen]) -> None:
    screen = look(report(*[unknown(f"silent-{i}", "says nothing", "silent") for i in range(12)]), columns=120)
    assert "silent-7, and 4 more (-o wide lists them)" in screen.text
    assert "silent-8" not in screen.text


def test_the_summary_says_scope_time_window_services_and_the_next_command(show: Show) -> None:
    ran = show(reports.with_everything())
    assert ran.out.endswith(
        "\n3 nodes in scope, 2 judged: 1 suspect, 1 clean, 1 unknown.\n"
        "Time covered by the logs: 2026-11-20T00:00:12Z to 2026-11-23T03:12:09Z.\n"
        "Window judged: since 2026-11-20T00:00:12Z.\n"
        "Services: kube-system/kube-dns.\n"
        "Next:\n  kdnsctl collect node-a\n"
    )


def test_a_partial_scope_is_said(show: Show) -> None:
    partial = report(clean("a"), coverage=Coverage.of([Verdict.CLEAN], Scope.PARTIAL))
    ran = show(partial)
    assert ran.code == 4
    assert "The scope is partial" in ran.out


def test_as_a_kubectl_plugin_the_next_command_is_said_that_way(run: Run, judge: Judge) -> None:
    judge.report = reports.with_everything()
    ran = run("find-affected", "--logs", "x", program="/bin/kubectl-kdns")
    assert "\n  kubectl kdns collect node-a\n" in ran.out


def test_without_headers_stdout_has_rows_only_and_the_summary_goes_to_stderr(show: Show) -> None:
    ran = show(reports.with_everything(), "--no-headers")
    assert [line.split()[:2] for line in ran.lines] == [["node-a", "suspect"], ["node-b", "unknown"]]
    assert "3 nodes in scope" in ran.err


def test_notes_and_problems_go_to_stderr_and_verbose_tells_all_of_them(show: Show) -> None:
    many = tuple(Problem("cut", f"cut {i}", f"f{i}.gz") for i in range(4))
    others = tuple(Problem("notALog", "no klog records", f"m{i}.txt") for i in range(9))
    gone = (Problem("unreadable", "cannot be read: not yours", f"x{i}.log") for i in range(3))
    what = report(failing("a", problems=many), skipped=(*others, *gone), notes=("hear",))
    short, full = show(what), show(what, "-v")
    assert short.err.splitlines() == [
        "note: hear",
        "note: 9 files are no log of kube-proxy (-v lists them)",
        *(f"warning: a: cut {i} (f{i}.gz)" for i in range(4)),
        "warning: not read: cannot be read: not yours (x0.log)",
        "warning: 2 more pieces of evidence missing or damaged (-v lists them)",
    ]
    assert full.err.splitlines()[1:10] == [f"note: no log of kube-proxy: no klog records (m{i}.txt)" for i in range(9)]
    assert full.err.count("warning: ") == 7
    assert "hear" not in short.out


def test_a_file_is_named_once_in_a_line(show: Show) -> None:
    by_file = unknown("logs/x.gz", identified=False, problems=(Problem("cutOff", "ends too early", "logs/x.gz"),))
    in_message = unknown("b", problems=(Problem("damaged", "y.gz is damaged", "y.gz"),))
    assert show(report(by_file, in_message)).err.splitlines() == [
        "warning: logs/x.gz: ends too early",
        "warning: b: y.gz is damaged",
    ]


def test_of_names_the_note_on_what_was_left_out_comes_last_on_the_screen(look: Callable[..., Screen]) -> None:
    what = report(failing("a", Verdict.AFFECTED), failing("b"), notes=("hear",))
    assert look(what, "-o", "name", columns=200).lines == [
        "note: hear",
        "node/a",
        "note: 1 suspect node not printed; --include suspect adds them",
    ]


def test_name_prints_affected_nodes_only_and_says_what_it_left_out(show: Show) -> None:
    what = report(failing("a", Verdict.AFFECTED), failing("b"), unknown("c"), clean("d"))
    ran = show(what, "-o", "name")
    assert (ran.out, ran.error) == ("node/a\n", "note: 1 suspect node not printed; --include suspect adds them")
    assert show(what, "-o", "name", "--include", "suspect").out == "node/a\nnode/b\n"


@pytest.mark.parametrize("name", ["x.log", "a b", "a;reboot", "a\nb", "Node", "-rf", HOSTILE])
def test_name_never_prints_what_cannot_be_a_node(show: Show, name: str) -> None:
    unnamed = failing(name, Verdict.AFFECTED, identified=False)
    misnamed = failing(name + "/" if name == "x.log" else name, Verdict.AFFECTED)
    ran = show(report(failing("a", Verdict.AFFECTED), unnamed, misnamed), "-o", "name")
    assert ran.out == "node/a\n"
    assert ran.error.startswith("warning: 2 left out, because the logs do not say which node they are from; ")
    assert "--node NODE" in ran.error


def test_a_pod_or_file_name_is_marked_in_the_table(show: Show) -> None:
    pod = failing("kube-proxy-x7x2p", identified=False)
    ran = show(report(pod, unknown("logs/x.log", identified=False), unknown("<stdin>", identified=False)))
    assert ran.lines[1].split()[0] == "pod:kube-proxy-x7x2p"
    assert "  file:logs/x.log, <stdin>\n" in ran.out
    assert "\npod:… and file:… are not nodes: the log does not say which node it is from.\n" in ran.out
    assert "are not nodes" not in show(report(failing("a"))).out
    assert not is_node_name("pod:kube-proxy-x7x2p")


def test_json_is_the_report_and_valid_by_its_schema(show: Show, pytestconfig: pytest.Config) -> None:
    schema = _schema(pytestconfig.rootpath, "FindReport")
    for what in (report(), reports.with_everything(), report(failing(HOSTILE))):
        ran = show(what, "-o", "json")
        assert ran.out.endswith("}\n")
        assert json.loads(ran.out) == to_json(what)
        jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(json.loads(ran.out))


def test_yaml_says_the_same_as_json(show: Show) -> None:
    ran = show(reports.with_everything(), "-o", "yaml")
    assert yaml.safe_load(ran.out) == to_json(reports.with_everything())
    assert ran.lines[:2] == ["apiVersion: kdnsctl.io/v1", "kind: FindReport"]


def test_the_schema_describes_every_key_and_forbids_none(pytestconfig: pytest.Config) -> None:
    for kind in ("FindReport", "SignatureList"):
        schema = _schema(pytestconfig.rootpath, kind)
        jsonschema.Draft202012Validator.check_schema(schema)
        assert _undescribed(schema, kind) == []


def test_the_schema_knows_every_key_that_is_printed(pytestconfig: pytest.Config) -> None:
    schema = _schema(pytestconfig.rootpath, "FindReport")
    assert list(to_json(report())) == list(schema["properties"])
    assert list(to_json(report())["nodes"][0]) == list(schema["$defs"]["node"]["properties"])


def _schema(root: Path, kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((root / "docs/schemas" / f"{kind}.schema.json").read_text("utf-8"))
    return schema


def _undescribed(schema: Any, where: str) -> list[str]:
    """Properties without a description of their own or of what they refer to, and closed objects."""
    found = []
    if isinstance(schema, dict):
        if schema.get("additionalProperties") is False:
            found.append(f"{where} is closed")
        for name, inner in schema.get("properties", {}).items():
            if not {"description", "$ref"} & inner.keys():
                found.append(f"{where}.{name}")
        for name, inner in schema.items():
            found += _undescribed(inner, f"{where}.{name}")
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("columns", [None, 40, 80, 200])
def test_hostile_text_never_reaches_the_screen_raw(
    show: Show, look: Callable[..., Screen], form: str, columns: int | None
) -> None:
    problem = Problem("x", HOSTILE, HOSTILE)
    what = report(
        failing(HOSTILE, reason=HOSTILE, problems=(problem,), sources=(HOSTILE,)),
        failing("n", kube_proxy=KubeProxy(HOSTILE, HOSTILE, HOSTILE, 2, (HOSTILE,))),
        unknown(HOSTILE + "u", HOSTILE, HOSTILE),
        unknown(HOSTILE + "v", HOSTILE + "w", HOSTILE),
        services=(HOSTILE,),
        notes=(HOSTILE,),
        next_commands=(HOSTILE,),
        skipped=(problem,),
    )
    if columns is None:
        ran = show(what, "-o", form)
        text = ran.out + ran.err
    else:
        raw = look(what, "-o", form, columns=columns).raw
        text = COLOR.sub("", raw)
        assert raw.count("\x1b[31m") == 0  # ours are bold red, yellow, green and magenta
    assert [character for character in text if not character.isprintable() and character != "\n"] == []
    assert "[bold red]x[/]" in "".join(text.split("\n")).replace(" ", "").replace("[boldred]", "[bold red]")


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 132, 240])
def test_on_a_terminal_nothing_is_wider_than_it_and_nothing_is_lost(look: Callable[..., Screen], columns: int) -> None:
    what = report(
        failing("ip-10-0-12-34.eu-west-1.compute.internal", Verdict.AFFECTED, stale_entries=12),
        failing("node-b"),
        unknown("node-c", "the log begins only after the window that was asked for", "beginsLate"),
        clean("node-d"),
    )
    for form in ("table", "wide"):
        screen = look(what, "-o", form, columns=columns)
        assert max(width_of(line) for line in screen.lines) <= columns
        together = "".join(screen.text.split())
        for said in (
            "ip-10-0-12-34.eu-west-1.compute.internal",
            "affected",
            "suspect",
            "CT_DEL_ENDPOINT(41)",
            "v1.30.3",
        ):
            assert said in together
        assert "onlyafterthewindow" in together


def test_columns_of_the_environment_win_over_the_terminal(
    look: Callable[..., Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, look(report(), columns=200).lines)) <= 40


@pytest.mark.parametrize(
    ("environment", "words", "colored"),
    [
        ({}, [], True),
        ({"NO_COLOR": "1"}, [], False),
        ({"NO_COLOR": ""}, [], True),
        ({"TERM": "dumb"}, [], False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, [], True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, [], False),
        ({"NO_COLOR": "1"}, ["--color", "always"], True),
        ({}, ["--color", "never"], False),
        ({"KDNSCTL_COLOR": "never"}, [], False),
    ],
)
def test_colour_on_a_terminal(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: list[str], colored: bool
) -> None:
    judge.report = report()
    for name, value in {"TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    screen = on_terminal(monkeypatch, lambda: main(["find-affected", "--logs", "x", *words]), columns=120)
    assert ("\x1b[33msuspect\x1b[0m" in screen.raw) is colored
    assert ("\x1b" in screen.raw) is colored
    assert "suspect" in screen.text


def test_in_a_pipe_colour_is_off_unless_forced(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in show(report()).out
    assert "\x1b" in show(report(), "--color", "always").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" in show(report()).out
    assert "\x1b" not in show(report(), "-o", "json").out


@given(st.text())
def test_visible_text_is_printable_and_plain_text_is_itself(text: str) -> None:
    assert visible(text).isprintable()
    assert not text.isprintable() or visible(text) == text


@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=40))
def test_json_reads_back_as_written_and_is_safe_to_look_at(text: str) -> None:
    written = as_json({"key": text, text: [text]})
    assert json.loads(written) == {"key": text, text: [text]}
    assert all(character.isprintable() or character == "\n" for character in written)


@given(st.text(max_size=40))
def test_yaml_reads_back_as_written_and_is_safe_to_look_at(text: str) -> None:
    written = as_yaml({"key": text, "k" + text: [text, {"a": text}]})
    assert yaml.safe_load(written) == {"key": text, "k" + text: [text, {"a": text}]}
    assert all(character.isprintable() or character == "\n" for character in written)


def test_a_long_note_is_broken_between_words_on_a_terminal_and_whole_in_a_pipe(
    show: Show, look: Callable[..., Screen]
) -> None:
    note = " ".join(["words"] * 30) + " /a/path/" + "x" * 60
    what = report(notes=(note,))
    screen = look(what, columns=50)
    assert "/a/path/" + "x" * 60 in "".join(screen.text.split("\n"))
    assert {line.strip().partition(" ")[0] for line in screen.lines[:4]} == {"note:", "words"}
    assert show(what).err.splitlines() == [f"note: {note}"]
