"""find-affected: what is asked of the library, what is refused, and the exit code."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from kdnsctl.find.offline import OfflineOptions
from kdnsctl.find.report import NodeFinding
from tests.unit.cli import reports
from tests.unit.cli.conftest import Judge, Run


def test_every_option_reaches_the_library(run: Run, judge: Judge) -> None:
    arguments = """
        find-affected --logs a --logs b --node node/n1 --only-node n2 --only-node node/n3
        --since-time 2026-11-23T04:00:00+01:00 --year 2025 --kube-proxy-version 1.30.3-eks-abc
        --service kube-system/kube-dns --signature ct_list_fail
    """
    run(*arguments.split())
    assert judge.asked == [
        OfflineOptions(
            paths=("a", "b"),
            node="n1",
            since_time=datetime(2026, 11, 23, 3, tzinfo=UTC),
            services=("kube-system/kube-dns",),
            signatures=("CT_LIST_FAIL",),
            year=2025,
            kube_proxy_version="v1.30.3",
            nodes=("n2", "n3"),
        )
    ]


def test_without_options_all_of_the_logs_are_judged(run: Run, judge: Judge) -> None:
    run("find-affected", "--logs", "a")
    assert judge.asked == [OfflineOptions(paths=("a",))]


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["--logs", "a", "b", "c"], ("a", "b", "c")),
        (["a", "--logs", "b"], ("b", "a")),
        (["--logs=a", "-o", "json", "b", "--logs", "c"], ("a", "c", "b")),
        (["--logs", "a", "--", "-strange"], ("a", "-strange")),
    ],
)
def test_words_beside_logs_are_further_paths(run: Run, judge: Judge, words: list[str], paths: tuple[str, ...]) -> None:
    run("find-affected", *words)
    assert judge.asked[0].paths == paths


def test_a_dash_reads_stdin(run: Run, judge: Judge) -> None:
    run("find-affected", "--logs", "-", stdin=b"\xff\x00 bytes")
    assert judge.read == b"\xff\x00 bytes"


def test_a_file_without_logs_is_met_with_what_was_probably_meant(run: Run, judge: Judge, tmp_path: Path) -> None:
    file = tmp_path / "kube proxy.log"
    file.touch()
    assert run("find-affected", str(file)).error.endswith(f"(did you mean --logs '{file}'?)")
    ran = run("find-affected", "-", stdin=b'I0312 12:00:00.000000       1 server.go:872] "Version info"\n')
    assert (ran.code, ran.err.splitlines()[1]) == (2, "hint: to read a log from standard input: --logs -")
    assert judge.asked == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--since", "1w", "'1w': weeks are written as days, 7d"),
        ("--since-time", "2026-11-20", "'2026-11-20' is a day; say the time too, like 2026-11-20T00:00:00Z"),
    ],
)
def test_what_is_nearly_right_is_met_with_how_to_write_it(
    run: Run, judge: Judge, option: str, value: str, message: str
) -> None:
    ran = run("find-affected", "--logs", "x", option, value)
    assert (ran.code, ran.error, judge.asked) == (2, f"error: {option}: {message}", [])


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("90s", 90), ("10m", 600), ("24h", 86400), ("1h30m", 5400), ("2d", 172800), ("1.5h", 5400), ("1d12h", 129600)],
)
def test_durations_are_written_as_in_kubectl(run: Run, judge: Judge, said: str, seconds: int) -> None:
    run("find-affected", "--logs", "x", "--since", said)
    assert judge.asked[0].since == timedelta(seconds=seconds)


@pytest.mark.parametrize("said", ["", "5", "5.5", "h", "5x", "-5m", "5m ", "0s", "1e3s", "٣m", "99999999999d", "1h-5m"])
def test_what_is_no_duration_is_refused_with_an_example(run: Run, judge: Judge, said: str) -> None:
    ran = run("find-affected", "--logs", "x", "--since", said)
    assert ran.code == 2
    assert ran.error.startswith("error: --since: ")
    assert "24h" in ran.error or "hundred years" in ran.error
    assert judge.asked == []


@pytest.mark.parametrize(
    ("option", "value", "accepted"),
    [
        ("--since-time", "yesterday", "2026-11-23T03:00:00Z"),
        ("--since-time", "2026-11-23T03:00:00", "has no time zone"),
        ("--since-time", "0001-01-01T00:00:00+14:00", "2026-11-23T03:00:00Z"),
        ("--since-time", "", "2026-11-23T03:00:00Z"),
        ("--year", "26", "2026"),
        ("--year", "1999", "2026"),
        ("--year", "", "2026"),
        ("--node", "", "node/ip-10-0-0-1"),
        ("--node", "Node_1", "node/ip-10-0-0-1"),
        ("--node", "node/", "node/ip-10-0-0-1"),
        ("--node", "a" * 254, "node/ip-10-0-0-1"),
        ("--only-node", "a b", "node/ip-10-0-0-1"),
        ("--service", "kube-dns", "NAMESPACE/NAME"),
        ("--service", "", "NAMESPACE/NAME"),
        ("--service", "a/b/c", "NAMESPACE/NAME"),
        ("--kube-proxy-version", "latest", "v1.30.3"),
        ("--kube-proxy-version", "", "v1.30.3"),
        ("--kube-proxy-version", "2.0", "v1.30.3"),
        ("--signature", "", "kdnsctl signatures"),
        ("--signature", "nonsense", "kdnsctl signatures"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_what_is_accepted(
    run: Run, judge: Judge, option: str, value: str, accepted: str
) -> None:
    ran = run("find-affected", "--logs", "x", option, value)
    assert ran.code == 2
    assert ran.error.startswith(f"error: {option}: ")
    assert accepted in ran.error
    assert judge.asked == []


ONLY_NAME = "only -o name leaves suspects out"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--since", "1h", "--since-time", "2026-11-23T03:00:00Z"], "--since and --since-time exclude each other"),
        (["--include", "suspect"], f"--include has no effect with -o table: {ONLY_NAME}"),
        (["-o", "wide", "--include", "suspect"], f"--include has no effect with -o wide: {ONLY_NAME}"),
        (["-o", "yaml", "--no-headers"], "--no-headers has no effect with -o yaml"),
        (["-o", "name", "--no-headers"], "--no-headers has no effect with -o name"),
    ],
)
def test_what_does_not_go_together_is_refused(run: Run, judge: Judge, words: list[str], message: str) -> None:
    ran = run("find-affected", "--logs", "x", *words)
    assert (ran.code, ran.error) == (2, f"error: {message}")
    assert judge.asked == []


@pytest.mark.parametrize("form", ["table", "wide", "json", "yaml", "name"])
@pytest.mark.parametrize(
    ("nodes", "code"),
    [
        ([reports.clean("a")], 0),
        ([reports.clean("a"), reports.unknown("b")], 4),
        ([reports.failing("a"), reports.unknown("b")], 3),
    ],
)
def test_the_exit_code_is_the_report_s_whatever_the_format(
    run: Run, judge: Judge, form: str, nodes: list[NodeFinding], code: int
) -> None:
    judge.report = reports.report(*nodes)
    assert run("find-affected", "--logs", "x", "-o", form).code == code


def test_a_recorded_log_is_judged_from_end_to_end(run: Run, pytestconfig: pytest.Config) -> None:
    recording = pytestconfig.rootpath / "tests/recordings/kube-proxy-1.36/iptables-restore-failing.log"
    ran = run("find-affected", "--logs", str(recording), "--node", "knode1", "-o", "name", "--include", "suspect")
    assert (ran.code, ran.out) == (3, "node/knode1\n")


@pytest.mark.parametrize("recording", ["incident", "kube-proxy-1.36", "signature-examples"])
def test_every_recording_is_shown_in_every_form(run: Run, pytestconfig: pytest.Config, recording: str) -> None:
    logs = str(pytestconfig.rootpath / "tests/recordings" / recording)
    ran = {form: run("find-affected", "--logs", logs, "-o", form) for form in ("table", "wide", "json", "yaml", "name")}
    assert {form: answer.code for form, answer in ran.items()} == dict.fromkeys(ran, 3)
    as_json, as_yaml = json.loads(ran["json"].out), yaml.safe_load(ran["yaml"].out)
    for document in (as_json, as_yaml):
        del document["generatedAt"]
    assert as_yaml == as_json
    suspects = [node["name"] for node in as_json["nodes"] if node["verdict"] == "suspect"]
    assert suspects
    for form in ("table", "wide"):
        assert all(name in ran[form].out for name in suspects)
    assert ran["name"].out == ""  # logs alone prove no node affected
    assert not [line for line in ran["table"].err.splitlines() if not line.startswith(("note: ", "warning: "))]
