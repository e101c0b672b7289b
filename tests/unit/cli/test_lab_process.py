"""What the commands of `lab` cost before they run, and what TAB offers: shown by processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.test_process import HEAVY

TELL_LOADED = (
    "import sys; from kdnsctl.__main__ import main; code = main(sys.argv[1:]); "
    "sys.stderr.write('\\nloaded: ' + ' '.join(sorted(sys.modules))); sys.exit(code)"
)


def start(*arguments: str, **environment: str) -> tuple[str, set[str]]:
    """What was printed, and every module that was imported for it."""
    ran = subprocess.run(
        [sys.executable, "-c", TELL_LOADED, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return ran.stdout, set(ran.stderr.rpartition("loaded: ")[2].split())


def packages(loaded: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in loaded}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["find-affected", "--help"], ["signatures"]])
def test_other_commands_do_not_know_of_the_lab(arguments: list[str]) -> None:
    _, loaded = start(*arguments)
    assert [name for name in loaded if name.startswith(("kdnsctl.lab", "kdnsctl.cli.lab"))] == []


@pytest.mark.parametrize("arguments", [["lab"], ["lab", "--help"], ["lab", "demo", "--help"], ["lab", "up", "--help"]])
def test_help_imports_no_lab(arguments: list[str]) -> None:
    _, loaded = start(*arguments)
    assert [name for name in loaded if name.startswith("kdnsctl.lab")] == []
    assert packages(loaded) & (HEAVY | {"rich", "aiohttp", "cryptography"}) == set()


@pytest.mark.parametrize("arguments", [["lab", "status"], ["lab", "down"], ["lab", "doctor"]])
def test_looking_and_clearing_away_need_none_of_the_labs_packages(tmp_path: Path, arguments: list[str]) -> None:
    _, loaded = start(*arguments, XDG_STATE_HOME=str(tmp_path))
    assert packages(loaded) & {"dns", "aiohttp", "cryptography"} == set()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("la", ["lab"]),
        ("lab d", ["demo", "down", "doctor"]),
        ("lab br", ["break"]),
        ("lab break --mo", ["--mode"]),
        ("lab break --mode r", ["restore-fails"]),
        ("lab down de", ["default", "demo", "desk"]),
        ("lab shell des", ["desk"]),
        ("lab shell demo --node k", ["knode1", "knode2"]),
        ("lab break demo --node k", ["knode1", "knode2"]),
        ("lab break --node k", ["knode9"]),
    ],
)
def test_tab_offers_commands_labs_and_nodes(tmp_path: Path, words: str, offered: list[str]) -> None:
    for lab, node in (("demo", "knode1"), ("demo", "knode2"), ("desk", "x"), ("default", "knode9")):
        (tmp_path / "kdnsctl" / "lab" / lab / "nodes" / node).mkdir(parents=True)
    line = f"kdnsctl {words}"
    out, loaded = start(
        _KDNSCTL_COMPLETE="complete_bash",
        COMP_WORDS=line,
        COMP_CWORD=str(len(line.split()) - 1),
        XDG_STATE_HOME=str(tmp_path),
    )
    assert out.split() == offered
    assert packages(loaded) & (HEAVY | {"rich", "aiohttp", "cryptography"}) == set()
