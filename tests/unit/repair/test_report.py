"""What a repair report says, and its exit code."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import jsonschema
import pytest

from kdnsctl.cli.nextsteps import Caller
from kdnsctl.cli.repair.after import after
from kdnsctl.model import ExitCode, Reason, Scope, Verdict
from kdnsctl.repair.report import NodeRepair, Probed, RepairReport, Result, to_json

SCHEMA = Path(__file__).parents[3] / "docs" / "schemas" / "RepairReport.schema.json"
NOW = dt.datetime(2026, 11, 28, tzinfo=dt.UTC)


def report(*results: Result, scope: Scope = Scope.FULL) -> RepairReport:
    nodes = tuple(NodeRepair(f"n{at}", result, Reason("x", "why")) for at, result in enumerate(results))
    return RepairReport(NOW, "c", "flush", nodes, scope=scope)


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ((Result.REPAIRED, Result.NOTHING_TO_DO), ExitCode.OK),
        ((Result.REFUSED, Result.NOTHING_TO_DO), ExitCode.REFUSED),
        ((Result.REFUSED, Result.REPAIRED), ExitCode.INCOMPLETE),
        ((Result.FAILED, Result.NOT_TRIED), ExitCode.FAILED),
        ((Result.FAILED, Result.REPAIRED), ExitCode.INCOMPLETE),
        ((Result.NOT_TRIED,), ExitCode.INCOMPLETE),
    ],
)
def test_the_exit_code(results: tuple[Result, ...], code: ExitCode) -> None:
    assert report(*results).exit_code is code


def test_what_is_well_and_in_quarantine_is_to_be_released() -> None:
    def node(name: str, verdict: Verdict) -> NodeRepair:
        return NodeRepair(name, Result.REPAIRED, Reason("x", "why"), Verdict.AFFECTED, verdict)

    nodes = (node("a", Verdict.CLEAN), node("b", Verdict.CLEAN), node("c", Verdict.AFFECTED))
    done = RepairReport(NOW, "c", "flush", nodes, "i", quarantined=("b", "c"))
    assert done.to_release == ("b",)
    prod = Caller("kdnsctl", ("--context", "prod"), (), "i")
    assert after(done, prod) == ["", "Next:", "  kdnsctl --context prod release b", "  kdnsctl incident report i"]
    assert after(RepairReport(NOW, "c", "flush", nodes), prod) == []


def test_nodes_that_could_not_be_listed_are_not_well() -> None:
    assert report(Result.REPAIRED, scope=Scope.PARTIAL).exit_code is ExitCode.INCOMPLETE


def test_the_schema_describes_it() -> None:
    full = NodeRepair(
        *("a", Result.REPAIRED, Reason("x", "y"), Verdict.AFFECTED, Verdict.CLEAN),
        changed=True,
        via="exec",
        deleted=3,
        rounds=1,
        commands=("sudo x",),
        probed=Probed(None, "not asked"),
    )
    schema = json.loads(SCHEMA.read_text("utf-8"))
    for made in (RepairReport(NOW, "c", "flush", (full,), "i", ("a/b",), notes=("n",)), report(Result.REFUSED)):
        document = json.loads(json.dumps(to_json(made)))
        jsonschema.validate(document, schema)
        assert set(document) == set(schema["properties"])
        assert set(document["nodes"][0]) == set(schema["properties"]["nodes"]["items"]["properties"])
