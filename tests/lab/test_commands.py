"""`kdnsctl lab up, status, break, heal, shell, env, down`, as typed, on a lab in the kernel."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from kdnsctl.__main__ import main
from kdnsctl.lab import space
from kdnsctl.lab.spacedir import LabDir, read_identity, start_time
from tests.lab.conftest import ROOT, Kdnsctl, lab_of
from tests.lab.space.machine import (
    Process,
    Traces,
    command_line,
    eventually,
    namespaces_of,
    parents,
    unprivileged_command,
)

NAME = "typed"


@pytest.fixture(scope="module")
def lab(command_home: Path) -> Iterator[LabDir]:
    """A lab that `lab up` made, of three nodes."""
    where = lab_of(command_home, NAME)
    arguments = [sys.executable, "-P", "-m", "kdnsctl", "lab", "up", NAME]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(command_home)}
    made = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(f"lab '{NAME}' is up (as root, ")
    yield where
    space.down(NAME, root=where.root.parent)


@pytest.mark.parametrize(
    ("mode", "node", "signature"),
    [
        ("delete-fails", "knode3", "CT_DEL_ENDPOINT"),
        ("down", "knode1", None),
        ("restore-fails", "knode2", "IPT_RESTORE_FAIL"),
    ],
)
def test_break_find_status_heal(lab: LabDir, kdnsctl: Kdnsctl, mode: str, node: str, signature: str | None) -> None:
    made = kdnsctl("lab", "break", NAME, "--mode", mode, "--node", node, "-o", "json")
    try:
        assert made.code == 0, made.err
        incident = json.loads(made.out)
        schema = json.loads((ROOT / "docs/schemas/LabIncident.schema.json").read_text("utf-8"))
        jsonschema.Draft202012Validator(schema).validate(incident)
        assert (incident["mode"], incident["node"]) == (mode, node)

        status = json.loads(kdnsctl("lab", "status", NAME, "-o", "json").out)["labs"][0]
        assert status["incident"] == {key: incident[key] for key in status["incident"]}
        row = next(line for line in kdnsctl("lab", "status", NAME).lines if f" {node} " in line)
        assert row.split()[-1] == {"delete-fails": "delete-fails", "down": "stopped", "restore-fails": "restore"}[mode]
        lost = {each["name"] for each in status["nodes"] for client in each["clients"] if not client["lastAnswered"]}
        assert lost == {node}

        # The nodes' own log files, read by the ordinary rules: every node by its name, and only one of them suspect.
        found = kdnsctl("find-affected", "--logs", str(lab.root / "nodes"), "-o", "json")
        report = json.loads(found.out)
        assert {each["name"] for each in report["nodes"]} == {"knode1", "knode2", "knode3"}
        assert all(each["identified"] for each in report["nodes"])
        suspects = {
            each["name"]: {s["id"] for s in each["signatures"]}
            for each in report["nodes"]
            if each["verdict"] == "suspect"
        }
        if signature is None:
            assert suspects == {}
        else:
            assert list(suspects) == [node]
            assert signature in suspects[node]

        again = kdnsctl("lab", "break", NAME)
        assert again.code == 1
        assert f"is broken already ({mode} on {node})" in again.err
    finally:
        healed = kdnsctl("lab", "heal", NAME)
    assert healed.out == f"{node} is healed ({mode}): DNS answers on every node of the lab '{NAME}'\n"
    status = json.loads(kdnsctl("lab", "status", NAME, "-o", "json").out)["labs"][0]
    assert status["incident"] is None


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        ([NAME, "--", "hostname"], 0, f"lab-{NAME}\n", ""),
        ([NAME, "--node", "knode2", "--", "sh", "-c", "hostname; echo oops >&2; exit 7"], 7, "knode2\n", "oops\n"),
        ([NAME, "--node", "knode1", "--", "sh", "-c", "kill -TERM $$"], 143, "", ""),
        ([NAME, "--", "no-such-command"], 127, "", "error: no-such-command: there is no such command\n"),
        ([NAME, "--", "/etc/passwd"], 126, "", "error: /etc/passwd: Permission denied\n"),
    ],
)
@pytest.mark.usefixtures("lab")
def test_shell_gives_the_commands_output_and_exit_code(
    kdnsctl: Kdnsctl, words: list[str], code: int, out: str, err: str
) -> None:
    ran = kdnsctl("lab", "shell", *words)
    assert (ran.code, ran.out, ran.err) == (code, out, err)


@pytest.mark.usefixtures("lab")
def test_shell_shows_a_nodes_own_kernel_state(kdnsctl: Kdnsctl) -> None:
    ran = kdnsctl(
        "lab", "shell", NAME, "--node", "knode2", "--", "conntrack", "-L", "-p", "udp", "--orig-port-src", "20000"
    )
    assert ran.code == 0
    assert any("dst=10.96.0.10 sport=20000 " in line for line in ran.lines)
    assert kdnsctl("lab", "shell", NAME, "--node", "knode9").code == 1


@pytest.mark.usefixtures("lab", "home")
def test_a_shells_terminal_is_the_commands_and_so_is_ctrl_c() -> None:
    words = ["lab", "shell", NAME, "--node", "knode1", "--", "sh", "-c"]
    script = 'trap "echo caught; exit 9" INT; test -t 0 && echo ready; while :; do sleep 0.05; done'
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-P", "-m", "kdnsctl", *words, script],
                  {**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    seen = b""
    while b"ready" not in seen:
        seen += os.read(terminal, 1024)
    os.write(terminal, termios.tcgetattr(terminal)[6][termios.VINTR])
    while b"caught" not in seen:
        seen += os.read(terminal, 1024)
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 9


def test_a_killed_shell_takes_its_command_along(lab: LabDir, as_process: tuple[list[str], dict[str, str]]) -> None:
    command, environment = as_process
    with subprocess.Popen(
        [*command, "lab", "shell", NAME, "--", "sh", "-c", "echo ready; exec sleep 600"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        # The shell has become the sleep as soon as its command line says so.
        assert eventually(lambda: len(_sleeping(lab)) == 1)
        ((pid, started),) = _sleeping(lab)
        running.kill()
    assert eventually(lambda: start_time(pid) != started)


def _sleeping(lab: LabDir) -> list[Process]:
    """The lab's processes, as the machine counts them, that sleep for ten minutes."""
    return [each for each in everybody() if command_line(each[0]) == "sleep 600" and _in(lab, each[0])]


def _in(lab: LabDir, pid: int) -> bool:
    """Whether a process is in the network of the lab's first one."""
    identity = read_identity(lab)
    assert identity is not None
    return namespaces_of({pid}) >= {each for each in namespaces_of({identity.pid}) if each.startswith("net:")}


def everybody() -> list[Process]:
    return [(pid, started) for pid in parents() if (started := start_time(pid)) is not None]


@pytest.mark.usefixtures("lab")
def test_env_makes_another_program_speak_to_the_lab(kdnsctl: Kdnsctl) -> None:
    lines = kdnsctl("lab", "env", NAME).out
    shell = subprocess.run(
        ["sh", "-c", 'eval "$1"; test -r "$KUBECONFIG" && ssh -F "$KDNSCTL_SSH_CONFIG" knode3 hostname', "sh", lines],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    assert shell.stdout == "knode3\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", ["directory", "identity", "nodes"])
def test_interrupted_up_leaves_nothing(
    as_process: tuple[list[str], dict[str, str]], home: Path, stage: str, number: signal.Signals
) -> None:
    command, environment = as_process
    where = lab_of(home, "half")
    marks = {"directory": where.root, "identity": where.identity_file, "nodes": where.node_log("knode1")}
    with subprocess.Popen(
        [*command, "lab", "up", "half"], stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        assert eventually(marks[stage].exists)
        running.send_signal(signal.SIGSTOP)  # it does not get ready while the traces are taken
        traces = Traces.of(where)
        running.send_signal(number)
        running.send_signal(signal.SIGCONT)
        _, err = running.communicate(timeout=120)
    assert (running.returncode, err.splitlines()[-1]) == (
        130,
        "error: interrupted; the lab 'half' is gone, and nothing of it is left",
    )
    assert eventually(lambda: traces.left(where) == []), traces.left(where)


def test_down_all_removes_every_lab_also_one_that_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["lab", "up", "one", "--nodes", "1", "--no-ssh"]) == 0
    (tmp_path / "kdnsctl" / "lab" / "dead").mkdir()
    capsys.readouterr()
    assert main(["lab", "down", "--all"]) == 0
    assert capsys.readouterr().out == "the lab 'dead' is gone\nthe lab 'one' is gone\n"
    assert list((tmp_path / "kdnsctl" / "lab").iterdir()) == []


def test_an_unprivileged_user_has_the_same_commands(labs_of_nobody: Path) -> None:
    def nobody(*words: str) -> subprocess.CompletedProcess[str]:
        command, environment = unprivileged_command("-P", "-m", "kdnsctl", "lab", *words)
        environment["XDG_STATE_HOME"] = str(labs_of_nobody)
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, cwd="/", stdin=subprocess.DEVNULL
        )

    try:
        doctor = nobody("doctor")
        assert (doctor.returncode, doctor.stdout.splitlines()[-1]) == (0, "This machine can run the lab.")
        up = nobody("up", "--nodes", "2")
        assert up.returncode == 0, up.stderr
        assert up.stdout.startswith("lab 'default' is up (without root, ")
        inside = nobody("shell", "--node", "knode2", "--", "sh", "-c", "id -u; hostname; exit 5")
        assert (inside.returncode, inside.stdout) == (5, "0\nknode2\n")
    finally:
        down = nobody("down")
    assert down.stdout == "the lab 'default' is gone\n"
    demo = nobody("demo", "--nodes", "2", "--mode", "restore-fails")
    assert demo.returncode == 0, demo.stderr
    assert "2 nodes in scope, 2 judged: 1 suspect, 1 clean." in demo.stdout
    assert demo.stdout.splitlines()[-1] == "The lab is gone; nothing of it is left on this machine."


@pytest.fixture
def labs_of_nobody(command_home: Path) -> Iterator[Path]:
    command_home.chmod(0o755)
    directory = command_home / "nobody"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    yield directory
    command_home.chmod(0o700)
    assert [path for path in directory.rglob("*") if path.is_file()] == []
