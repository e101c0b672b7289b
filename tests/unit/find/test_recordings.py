"""The recorded logs of kube-proxy 1.36 and the composed incident, judged as an operator would have them judged."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest

from kdnsctl.find.report import FindReport, NodeFinding, to_json
from kdnsctl.model import Verdict
from tests.unit.find.composing import find, only, verdicts

ROOT = Path(__file__).parents[3]
RECORDED = ROOT / "tests/recordings/kube-proxy-1.36"
INCIDENT = ROOT / "tests/recordings/incident"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def recorded(*names: str) -> FindReport:
    return find(Path(), {}, paths=tuple(str(RECORDED / name) for name in names), year=2026)


def named(report: FindReport, name: str) -> NodeFinding:
    return next(finding for finding in report.nodes if finding.name == name)


# --- kube-proxy 1.36.2, recorded


def test_a_node_that_could_not_write_its_rules_is_suspect() -> None:
    finding = only(recorded("iptables-restore-failing.log"))
    assert (finding.name, finding.name_from, finding.verdict) == ("knode1", "flag", Verdict.SUSPECT)
    assert [(seen.id, seen.count, seen.first_seen, seen.last_seen) for seen in finding.signatures] == [
        ("IPT_RESTORE_FAIL", 4, moment("2026-11-23T02:36:14.209178"), moment("2026-11-23T02:37:44.728394")),
        ("IPT_SYNC_FAILED", 4, moment("2026-11-23T02:36:14.209440"), moment("2026-11-23T02:37:44.728555")),
        ("IPT_SAVE_FAIL", 1, moment("2026-11-23T02:37:44.709698"), moment("2026-11-23T02:37:44.709698")),
    ]
    assert [(cause.id, cause.count) for cause in finding.causes] == [("missingLibrary", 4), ("other", 1)]
    assert finding.kube_proxy.version == "v1.36.2"
    assert finding.restarts == (moment("2026-11-23T02:36:13.341466"),)


@pytest.mark.parametrize(
    ("name", "node", "first", "last", "started", "mode"),
    [
        (
            "v4-stopped-then-healed.log",
            "knode2",
            "2026-11-23T03:01:29.122687",
            "2026-11-23T03:02:40.916863",
            "2026-11-23T03:01:29.440367",
            "iptables",
        ),
        (
            "v4-nftables-json.log",
            "knode2",
            "2026-11-23T03:03:31.238660",
            "2026-11-23T03:03:42.716688",
            "2026-11-23T03:03:32.181521",
            "nftables",
        ),
        (
            "cri-file.log",
            "knode2",
            "2026-11-23T03:03:31.238869",
            "2026-11-23T03:03:42.716759",
            "2026-11-23T03:03:32.181645",
            "nftables",
        ),
    ],
)
def test_a_healed_node_logged_no_failure_and_that_proves_nothing(
    name: str, node: str, first: str, last: str, started: str, mode: str
) -> None:
    finding = only(recorded(name))
    assert (finding.name, finding.verdict, finding.reason_code) == (node, Verdict.UNKNOWN, "logProvesNothing")
    assert finding.signatures == ()
    assert finding.span is not None
    assert (finding.span.first, finding.span.last) == (moment(first), moment(last))
    assert (finding.restarts, finding.restart_count) == ((moment(started),), 1)
    assert (finding.kube_proxy.version, finding.kube_proxy.mode) == ("v1.36.2", mode)
    assert finding.complete


def test_the_healing_is_told_with_the_endpoints_that_changed() -> None:
    finding = only(recorded("v4-stopped-then-healed.log"))
    events = {event.id: event for event in finding.events}
    assert events["CT_RECONCILED"].last_seen == moment("2026-11-23T03:02:40.916799")
    assert finding.race_window is not None
    assert finding.race_window.restarts == ()
    assert finding.race_window.first == moment("2026-11-23T03:02:39.766107")


def test_the_same_log_in_three_formats_is_one() -> None:
    alone = only(recorded("cri-file.log"))
    both = recorded("cri-file.log", "v4-nftables-json.log")
    finding = only(both)
    assert (finding.restart_count, len(finding.restarts)) == (1, 1)
    assert [(event.id, event.count) for event in finding.events] == [(event.id, event.count) for event in alone.events]
    note = both.notes[-1]
    assert note.startswith("knode2: all that ")
    assert note.endswith(" shows is in the node's other logs too; it is counted once.")


def test_the_recordings_as_they_lie_there() -> None:
    report = find(Path(), {}, paths=(str(RECORDED),), year=2026)
    assert verdicts(report) == {
        "knode1": "suspect/failureLogged",
        "knode2": "unknown/logProvesNothing",
        f"{RECORDED}/kubectl-logs-timestamps.txt": "unknown/notKubeProxy",
    }
    assert named(report, "knode2").restart_count == 2
    assert [Path(problem.source).name for problem in report.skipped] == ["metrics.txt"]
    assert report.next_commands == ("ssh knode1 sudo iptables-save -t nat | grep dns",)


# --- the composed incident


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_incident", INCIDENT / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def incident() -> FindReport:
    return find(Path(), {}, paths=(str(INCIDENT),))


def test_the_incident_on_disk_is_what_its_script_makes(make: ModuleType) -> None:
    files = make.files()
    kept = [path for path in INCIDENT.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {str(path.relative_to(INCIDENT)) for path in kept} == {*files, "README.md", "make.py"}
    for name, file in files.items():
        content = (INCIDENT / name).read_bytes()
        # Another zlib may pack differently: what counts is what comes out.
        text = zlib.decompressobj(wbits=31).decompress(content) if file.packed else content
        if file.kept < 1:
            assert 0.2 < len(text) / len(file.text) < 0.8
            assert file.text.encode().startswith(text)
        else:
            assert text == file.text.encode()
    assert sum(path.stat().st_size for path in kept) < 200_000


def test_every_node_of_the_incident(incident: FindReport) -> None:
    assert verdicts(incident) == {
        "node-a": "suspect/failureLogged",
        "node-d": "suspect/failureLogged",
        "node-f": "suspect/failureLogged",
        "node-c": "unknown/logProvesNothing",
        "node-e": "unknown/cutOff",
        "node-b": "clean/nothingLogged",
    }
    assert all(finding.identified for finding in incident.nodes)
    assert {Path(problem.source).name for problem in incident.skipped} == {
        "0.log",
        "metrics.txt",
        "README.md",
        "make.py",
    }


def test_node_a_of_the_incident_tells_the_whole_story(incident: FindReport) -> None:
    finding = named(incident, "node-a")
    assert [(seen.id, seen.count, seen.first_seen, seen.last_seen) for seen in finding.signatures] == [
        ("CT_DEL_ENDPOINT", 2, moment("2026-03-12T09:58:24.118463"), moment("2026-03-12T09:58:31.902716"))
    ]
    assert [(peer.vip, peer.endpoint, peer.service) for peer in finding.peers] == [
        ("10.96.0.10", "10.244.1.5", "kube-system/kube-dns:dns"),
        ("10.96.0.10", "10.244.3.9", "kube-system/kube-dns:dns"),
    ]
    assert [cause.id for cause in finding.causes] == ["enoentRace"]
    assert finding.embedded_entries is not None
    assert finding.embedded_entries.count == 149
    assert finding.race_window is not None
    assert [restart.isoformat() for restart in finding.race_window.restarts] == ["2026-03-12T09:58:11.226095+00:00"]
    assert (finding.restart_count, finding.kube_proxy.version) == (2, "v1.30.3")
    assert len(finding.sources) == 3


def test_the_other_suspects_of_the_incident(incident: FindReport) -> None:
    locked, bare = named(incident, "node-d"), named(incident, "node-f")
    assert [(seen.id, seen.count) for seen in locked.signatures] == [("IPT_RESTORE_FAIL", 3), ("IPT_SYNC_FAILED", 3)]
    assert [cause.id for cause in locked.causes] == ["xtablesLock"]
    assert [(seen.id, seen.count) for seen in bare.signatures] == [("CT_DEL_SVC", 3)]
    assert [cause.id for cause in bare.causes] == ["noBinary"]
    assert bare.kube_proxy.version == "v1.31.4"


def test_the_incident_does_not_depend_on_when_it_was_copied(tmp_path: Path, incident: FindReport) -> None:
    shutil.copytree(INCIDENT, tmp_path / "incident", copy_function=shutil.copyfile)
    report = find(Path(), {}, paths=(str(tmp_path / "incident"),), year=None)
    assert [finding.span for finding in report.nodes] == [finding.span for finding in incident.nodes]


@pytest.mark.parametrize("directory", [INCIDENT, RECORDED], ids=["incident", "recorded"])
def test_the_reports_keep_the_promise_of_their_schema(directory: Path) -> None:
    schema = json.loads((ROOT / "docs/schemas/FindReport.schema.json").read_text())
    report = find(Path(), {}, paths=(str(directory),), year=2026)
    checker = jsonschema.FormatChecker()
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(json.loads(json.dumps(to_json(report))))
