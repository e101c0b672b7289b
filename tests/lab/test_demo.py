"""`kdnsctl lab demo`, as typed: its story, what find-affected says in it, and what is left when it is disturbed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from kdnsctl.lab.incident import Mode
from tests.docs.blocks import blocks_of, pages
from tests.docs.places import DEMO
from tests.docs.printed import difference
from tests.lab.conftest import Kdnsctl, lab_of
from tests.lab.space.machine import Traces, command_line, eventually

NODES = ("knode1", "knode2", "knode3")
BROKEN = "knode2"
SIGNATURES = {
    Mode.DELETE_FAILS: {"CT_DEL_ENDPOINT"},
    Mode.RESTORE_FAILS: {"IPT_RESTORE_FAIL", "IPT_SYNC_FAILED"},
}


LIVE = [
    "kdnsctl find-affected --live --settle 3s --kubeconfig KUBECONFIG",
    f"kdnsctl analyze {BROKEN} --settle 3s --kubeconfig KUBECONFIG",
]


def measurements(out: str) -> list[dict[str, tuple[int, int]]]:
    """Each table of DNS success in the story: node → percent for the held port and for fresh ones."""
    tables: list[dict[str, tuple[int, int]]] = []
    for line in out.splitlines():
        if line.split()[:1] == ["NODE"] and "HELD PORT" in line:
            tables.append({})
        found = re.fullmatch(r"  (\S+)\s+(\d+) % \(\d+ of \d+\)\s+(\d+) % \(\d+ of \d+\)\s*", line)
        if found:
            tables[-1][found[1]] = (int(found[2]), int(found[3]))
    return tables


def rows_of_find_affected(lines: list[str]) -> dict[str, dict[str, str]]:
    """Node → its row in find-affected's table, by heading; empty when there is no row, as then there is no table."""
    begin = next((place for place, line in enumerate(lines) if line.startswith("NODE ") and "VERDICT" in line), None)
    if begin is None:
        return {}
    headings = lines[begin].split()
    table = lines[begin + 1 : lines.index("", begin)]
    return {line.split()[0]: dict(zip(headings, line.split(), strict=True)) for line in table}


def pages_are_right(printed: list[str]) -> int:
    """Hold every page that shows the story to it; how many did."""
    blocks = [block for page in pages() for block in blocks_of(page) if block.mark and block.mark.place == DEMO]
    for block in blocks:
        (command,) = block.commands
        assert command.text == "kdnsctl lab demo", block.where
        wrong = difference(command.printed or (), printed)
        assert wrong is None, f"{block.where}: {wrong}"
    return len(blocks)


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
def test_the_story_of_each_mode(kdnsctl: Kdnsctl, home: Path, mode: Mode) -> None:
    ran = kdnsctl("lab", "demo", "--mode", mode.value)
    assert (ran.code, [line for line in ran.err.splitlines() if "error" in line]) == (0, [])

    healthy, *broken, healed, released = measurements(ran.out)
    well = dict.fromkeys(NODES, (100, 100))
    assert (healthy, healed, released) == (well, well, well)
    assert len(broken) == 2  # found, and contained: no better, but no worse
    for measured in broken:
        held, fresh = measured.pop(BROKEN)
        assert measured == {"knode1": (100, 100), "knode3": (100, 100)}
        assert held == 0
        assert {Mode.DELETE_FAILS: fresh == 100, Mode.DOWN: fresh == 0, Mode.RESTORE_FAILS: 0 < fresh < 100}[mode]

    typed = [line.removeprefix("$ ") for line in ran.lines if line.startswith("$ ")]
    logs = f"{lab_of(home, 'demo').root}/nodes/*/var/log/pods/kube-system_kube-proxy-*"
    assert typed[0] == f"kdnsctl find-affected --logs {logs}"
    live = next(at for at, line in enumerate(ran.lines) if line.startswith("$ kdnsctl find-affected --live "))
    verdicts = rows_of_find_affected(ran.lines[:live])
    if mode is Mode.DOWN:
        # A kube-proxy that is stopped logs nothing, and of 1.30 a whole log without failures is a clean one.
        assert verdicts == {}
        assert "3 nodes in scope, 3 judged: 3 clean." in ran.lines
        assert "(exit 0)" in ran.lines
    else:
        assert list(verdicts) == [BROKEN]
        assert verdicts[BROKEN]["VERDICT"] == "suspect"
        assert {each.partition("(")[0] for each in verdicts[BROKEN]["SIGNATURES"].split(",")} == SIGNATURES[mode]
        assert "3 nodes in scope, 3 judged: 1 suspect, 2 clean." in ran.lines
        assert "(exit 3)" in ran.lines

    # The kernel's own entry of the held port answers from a pod that is gone.
    dead = re.search(r"the old (?:one was|ones were) (.*)\. But on knode2:", ran.out)
    assert dead is not None
    entries = [line for line in ran.lines if line.startswith("udp ") and "sport=20000 " in line]
    sources = [re.findall(r" src=(\S+)", line) for line in entries]
    assert [client for client, _ in sources if client.startswith("10.244.2.")] != []
    assert {reply for _, reply in sources} & set(dead[1].split(", "))

    # The nodes' own tables prove it, in every mode.
    proven = rows_of_find_affected(ran.lines[live:])
    assert {node: row["VERDICT"] for node, row in proven.items()} == {BROKEN: "affected"}
    # The log of a kube-proxy that is stopped tells nothing of what happened since.
    assert proven[BROKEN]["BASIS"] in ({"both", "state"} if mode is Mode.DOWN else {"both"})
    assert int(proven[BROKEN]["STALE"]) > 0
    assert f"{BROKEN}: affected: " in "\n".join(ran.lines[live:])
    assert typed[2:4] == [command.replace("KUBECONFIG", str(lab_of(home, "demo").kubeconfig)) for command in LIVE]
    assert [" ".join(command.split()[1:3]) for command in typed[4:]] == [
        *(f"quarantine {BROKEN}", f"collect {BROKEN}", typed[6].removeprefix("kdnsctl ")),
        *("repair flush", *(["repair restart-kube-proxy"] if mode is Mode.DOWN else [])),
        *(f"release {BROKEN}", "incident report"),
    ]
    assert typed[6].startswith("kdnsctl analyze ")

    # Flush heals what it may, and where the rules lead to the dead it changes nothing and says what comes first.
    flushed = ran.lines[next(at for at, line in enumerate(ran.lines) if line.startswith("$ kdnsctl repair flush ")) :]
    ended = next(line for line in flushed if line.startswith("(exit "))
    assert ("The fault is lifted" in ran.out) is (mode is Mode.RESTORE_FAILS)  # which no repair of ours can lift
    if mode is Mode.DELETE_FAILS:
        assert ended == "(exit 0)"
    else:
        assert ended == "(exit 5)"
        assert "every deleted entry would come back" in ran.out
        told = {Mode.DOWN: "kdnsctl repair restart-kube-proxy", Mode.RESTORE_FAILS: "rules cannot be written: "}
        assert told[mode] in ran.out
    assert not (home / "kdnsctl" / "incidents" / "demo").exists()

    assert ran.lines[-1] == "The lab is gone; nothing of it is left on this machine."
    assert not lab_of(home, "demo").root.exists()
    if mode is Mode.DELETE_FAILS:
        assert pages_are_right(ran.out.replace(str(home), "~/.local/state").splitlines()) > 0


def test_kept_it_can_be_asked_again_and_two_live_side_by_side(kdnsctl: Kdnsctl, home: Path) -> None:
    try:
        kept = kdnsctl("lab", "demo", "kept", "--keep", "--nodes", "2")
        assert (kept.code, kept.lines[-1]) == (0, 'The lab stays up. Use it: eval "$(kdnsctl lab env kept)"')
        beside = kdnsctl("lab", "demo", "beside", "--nodes", "1")
        assert beside.code == 0
        assert kdnsctl("lab", "status").lines[1].startswith("kept ")
        again = kdnsctl("lab", "demo", "kept")
        assert again.code == 1
        assert again.err.startswith("error: there is a lab 'kept' already ")
        assert kdnsctl("lab", "heal", "kept").out == "nothing is broken in the lab 'kept'\n"
    finally:
        assert kdnsctl("lab", "down", "kept").out == "the lab 'kept' is gone\n"
    assert not lab_of(home, "beside").root.exists()


def read_until(running: subprocess.Popen[str], beginning: str) -> None:
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(f"the demo ended before it said {beginning!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["A cluster of 3 nodes", "Now one node breaks", "What is stale goes"])
def test_interrupted_it_leaves_nothing(
    as_process: tuple[list[str], dict[str, str]], home: Path, moment: str, number: signal.Signals
) -> None:
    command, environment = as_process
    where = lab_of(home, "stopped")
    with subprocess.Popen(
        [*command, "lab", "demo", "stopped"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as running:
        read_until(running, moment)
        assert eventually(where.identity_file.exists)
        running.send_signal(signal.SIGSTOP)  # the story does not go on while the traces are taken
        traces = Traces.of(where)
        running.send_signal(number)
        running.send_signal(signal.SIGCONT)
        _, err = running.communicate(timeout=120)
    said = err.splitlines()[-1]
    assert (running.returncode, said) == (
        130,
        "error: interrupted; the lab 'stopped' is gone, and nothing of it is left",
    )
    assert eventually(lambda: traces.left(where) == []), traces.left(where)


def test_a_lab_that_is_killed_in_the_middle_ends_the_demo_with_one_line(
    as_process: tuple[list[str], dict[str, str]], home: Path
) -> None:
    command, environment = as_process
    where = lab_of(home, "killed")
    with subprocess.Popen(
        [*command, "lab", "demo", "killed"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as running:
        read_until(running, "DNS works")
        running.send_signal(signal.SIGSTOP)
        traces = Traces.of(where)
        (supervisor,) = (pid for pid, _ in traces.processes if command_line(pid) == "lab-supervisor killed")
        os.kill(supervisor, signal.SIGKILL)
        running.send_signal(signal.SIGCONT)
        _, err = running.communicate(timeout=120)
    assert running.returncode == 1
    (said,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert said.endswith("The lab 'killed' was removed, and nothing of it is left")
    assert "Traceback" not in err
    assert eventually(lambda: traces.left(where) == []), traces.left(where)
