from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.cancel import CancelScope
from kdnsctl.facts.catalogue import PROBERS, allowed
from kdnsctl.model import KdnsctlError, Toolset
from kdnsctl.probe.onnode import SCRIPT, OnNode, fact_of, parsed
from kdnsctl.probe.queries import Attempt, Batch, Over
from tests.unit.probe.servers import LocalShell, Server

BATCHES = [
    Batch("10.96.0.10"),
    Batch("fd00::a", 5353, "a_b.example", Over.TCP, 250, 0, 60_000),
    Batch("10.96.0.10", ports=(28530, 28531), count=6, edns=1232),
]


def ask(shell: LocalShell, batch: Batch) -> list[Attempt]:
    told: list[Attempt] = []
    with CancelScope() as scope:
        OnNode(shell).ask(batch, told.append, scope=scope)
    return told


@pytest.mark.parametrize("batch", BATCHES)
def test_what_runs_on_a_node_is_on_the_allow_list(batch: Batch) -> None:
    fact = fact_of(batch)
    assert {command[0] for command in fact.commands.values()} == set(PROBERS)
    for command in fact.commands.values():
        assert allowed(command)
        assert not allowed((*command, "; id"))
        assert not allowed(tuple(word.replace(batch.address, "$(id)") for word in command))
    assert fact.seconds > batch.count * (batch.wait + batch.interval) / 1000


@pytest.mark.parametrize(
    "command",
    ["python3 -I -c 'import os'", "python3 x.py", "dnsprobe", "dnsprobe -s 10.96.0.10 -P 53 -n a -c 1 -i 1 -w 1 -x"],
)
def test_nothing_else_is(command: str) -> None:
    assert not allowed(tuple(shlex.split(command)))


def test_the_script_is_short_enough_for_the_url_of_an_exec() -> None:
    from urllib.parse import urlencode

    words = fact_of(BATCHES[2]).commands[Toolset.HOST]
    assert len(urlencode([("command", word) for word in words])) < 6000  # of the 8 KiB that proxies allow
    compile(SCRIPT, "script", "exec")


def test_a_program_that_is_not_there_is_named(server: Server) -> None:
    shell = LocalShell(Toolset.HOST, programs={"python3": "/nonexistent/python3"})
    with pytest.raises(KdnsctlError, match=r"no python3 that runs on n1 \(by way of ssh\)") as error:
        ask(shell, Batch("127.0.0.1", server.port))
    assert (error.value.code, "--image" in error.value.hint) == ("noTool", True)
    assert server.asked == []


def program(directory: Path, text: str) -> LocalShell:
    """A shell whose prober prints what it is told."""
    file = directory / "prober"
    file.write_text(f"#!{sys.executable}\n{text}")
    file.chmod(0o755)
    return LocalShell(Toolset.TOOLS, programs={"dnsprobe": str(file)})


def test_an_output_that_breaks_off_is_told_and_what_came_is_kept(tmp_path: Path) -> None:
    line = json.dumps({"n": 1, "sourcePort": 7, "ms": 1.5, "rcode": 0, "answers": 1, "truncated": False})
    shell = program(tmp_path, f"import sys\nprint({line!r})\nprint('oh\\x1b[31m', file=sys.stderr)\nsys.exit(3)")
    told: list[Attempt] = []
    with CancelScope() as scope, pytest.raises(KdnsctlError, match=r"broke off.*exit code 3.*oh\?") as error:
        OnNode(shell).ask(Batch("127.0.0.1", count=2), told.append, scope=scope)
    assert error.value.code == "brokeOff"
    assert told == [Attempt(7, 1.5, 0, 1)]


def test_lines_that_nobody_asked_for_are_passed_over(tmp_path: Path) -> None:
    line = json.dumps({"n": 1, "sourcePort": 7, "ms": 1, "error": "time\x1b[31mout"})
    shell = program(tmp_path, f"print('motd')\nprint('x' * 300)\nfor _ in range(5): print({line!r})")
    (told,) = ask(shell, Batch("127.0.0.1", count=1))
    assert told == Attempt(7, 1.0, error="time?[31mout")


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_line_breaks_the_reading(line: bytes) -> None:
    told = parsed(line)
    assert told is None or 0 <= told.port < 65536


values = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats() | st.text(max_size=150)
names = st.sampled_from(["sourcePort", "ms", "rcode", "answers", "truncated", "edns", "error"])


@given(st.dictionaries(names, values))
def test_no_document_does_either(told: dict[str, object]) -> None:
    attempt = parsed(json.dumps(told).encode())
    if attempt is not None:
        assert attempt.answered is not bool(attempt.error)
        assert attempt.error.isprintable()
        assert len(attempt.error) <= 120
