"""The words of a bundle's records, against the code that writes them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kdnsctl
from kdnsctl.evidence import clusterside, known
from kdnsctl.evidence.items import ITEMS
from kdnsctl.facts.catalogue import FACTS

ROOT = Path(kdnsctl.__file__).parent
WRITING = ("model.py", "cancel.py", "fleet.py", "cluster", "reach", "evidence", "logs/sources/opening.py")
PARSING = ("dump.py", "trailer.py", "conntrack.py", "iptables.py", "nft.py", "nfttext.py", "ipvs.py")


def codes_in(source: Path) -> Iterator[str]:
    """Every code that a module gives an error or a reason as a text of its own."""
    for node in ast.walk(ast.parse(source.read_text())):
        said: list[ast.expr] = []
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            said += [word.value for word in node.keywords if word.arg == "code"]
            said += node.args[:1] if called in ("Reason", "SourceError") else []
        elif isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "code" for to in node.targets):
            said.append(node.value)
        for one in said:
            for each in (one.body, one.orelse) if isinstance(one, ast.IfExp) else (one,):
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield each.value


def modules() -> list[Path]:
    rooms = [ROOT / name for name in WRITING] + [ROOT / "netfilter" / name for name in PARSING]
    return [module for room in rooms for module in ([room] if room.suffix else sorted(room.glob("*.py")))]


NEVER_OF_AN_ARTEFACT = {"done", "noDns", "nothing"}  # what `probe` says of a place


def test_every_code_that_a_record_can_have_is_known() -> None:
    said = {(code, module.name) for module in modules() for code in codes_in(module)}
    assert len(said) > 60
    unknown = {(code, where) for code, where in said if known.code(code) != code and code not in NEVER_OF_AN_ARTEFACT}
    assert unknown == set()


def test_so_is_every_command_and_every_item() -> None:
    for item in ITEMS:
        assert known.item(item.id) == item.id
    for fact in FACTS:
        if fact.id in {item.fact.id for item in ITEMS if item.fact}:
            assert all(known.command(command) == command for command in fact.commands.values())
    assert known.command(clusterside.watching(clusterside.KINDS[1])) == ("WATCH", clusterside.KINDS[1].path)
    assert known.command(("logs", "kube-proxy-x7x2p")) == ("logs",)


@pytest.mark.parametrize("said", [None, 7, "", "knode1", "conntrack", ["exec"], {"code": "gone"}, "exec,knode1"])
def test_nothing_else_is(said: object) -> None:
    assert (known.item(said), known.rung(said), known.via(said), known.status(said), known.proof(said)) == ("",) * 5
    assert (known.code(said), known.rungs(said), known.release(said)) == ("other", "", "")
    assert known.items([said, "conntrack.a"]) == ["conntrack.a"]
    assert known.command(("cat", str(said))) == ()


@pytest.mark.parametrize("said", ["0.1.0", "1.2.3rc1", "1.2.3.dev4", "0.1.0a2"])
def test_a_release_is(said: str) -> None:
    assert known.release(said) == said
    assert known.release(f"{said}+corp") == ""
