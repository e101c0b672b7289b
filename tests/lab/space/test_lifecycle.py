"""Up and down: nothing is left, whatever is killed and when; two labs live side by side; root is not needed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kdnsctl.lab import control, incident, space
from kdnsctl.lab.incident import Mode
from kdnsctl.lab.measure import measure
from kdnsctl.lab.spacedir import LabDir, LabError, lab_dir, read_identity, start_time
from tests.lab.space.machine import (
    ROOT,
    Process,
    Traces,
    command_line,
    eventually,
    outside,
    processes_of,
    unprivileged_command,
)

STAGES = ("directory", "identity", "nodes", "door", "up", "broken", "entered", "breaking")
UP = "space.up(space.UpOptions(name=name, nodes=1, root=root))"
BREAK = "incident.break_dns(incident.Mode.DOWN, name=name, root=root)"
ENTER = "sys.exit(space.shell(['sh', '-c', 'echo inside; exec sleep 600'], name=name, node='knode1', root=root))"


def begin(action: str, where: LabDir) -> subprocess.Popen[bytes]:
    """A command about the lab as a process of its own, so that it can be killed as well."""
    code = (
        "import sys; from pathlib import Path; from kdnsctl.lab import incident, space\n"
        f"name, root = sys.argv[1], Path(sys.argv[2])\n{action}\n"
    )
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, where.name, str(where.root.parent)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def ssh(where: LabDir) -> subprocess.Popen[bytes]:
    words = ["ssh", "-F", str(where.ssh / "config"), "knode1", "echo inside; exec sleep 600"]
    return subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )


def reach(stage: str, where: LabDir, up: subprocess.Popen[bytes]) -> list[subprocess.Popen[bytes]]:
    """Come back as soon as the lab has got that far; the commands that are under way with it then."""
    marks = {
        "directory": where.root,
        "identity": where.identity_file,
        "nodes": where.node_log("knode1") / "pods",
        "door": where.control_socket,
    }
    if stage in marks:
        assert eventually(lambda: marks[stage].exists() or up.poll() is not None)
        return [up]
    assert up.wait(120) == 0
    if stage == "broken":
        incident.break_dns(Mode.DOWN, name=where.name, root=where.root.parent)
    elif stage == "entered":
        visitors = [begin(ENTER, where), ssh(where)]
        for each in visitors:
            assert each.stdout is not None
            assert each.stdout.readline() == b"inside\n"
        return visitors
    elif stage == "breaking":
        breaking = begin(BREAK, where)
        assert eventually(lambda: where.incident_file.exists() or breaking.poll() is not None)
        return [breaking]
    return []


@pytest.mark.parametrize("seed", range(3 * len(STAGES)))
def test_killing_any_process_at_any_time_leaves_nothing(labs: Path, seed: int) -> None:
    """Any: of the lab, of the command that builds, breaks or enters it, and of an SSH session in it."""
    stage = STAGES[seed % len(STAGES)]
    where = lab_dir(f"kill-{seed}", labs)
    before = outside()
    up = begin(UP, where)
    commands: list[subprocess.Popen[bytes]] = []
    try:
        commands = reach(stage, where, up)
        traces = Traces.of(where, *(each.pid for each in commands if each.poll() is None))
        victim = random.Random(seed).choice(sorted(traces.processes))
        kill(victim)
        traces = Traces.of(where).also(traces)
        space.down(where.name, root=labs)
    finally:
        for each in [up, *commands]:
            each.wait(180)
            assert each.stdout is not None
            each.stdout.close()
        space.down(where.name, root=labs)
    # A start whose `up` was killed before it had recorded the lab ends by itself.
    assert eventually(lambda: not traces.left(where)), traces.left(where)
    assert outside() == before


def kill(victim: Process) -> None:
    """Kill -9 this process, and none that has got its PID since it was seen."""
    pid, started = victim
    with contextlib.suppress(ProcessLookupError):  # a tool that came and went
        handle = os.pidfd_open(pid)
        try:
            if start_time(pid) == started:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


@pytest.mark.parametrize("victim", ["lab-init", "lab-supervisor", "lab-node knode1"])
def test_a_lab_that_lost_a_pillar_ends_by_itself_and_says_so(labs: Path, victim: str) -> None:
    name = "pillar"
    space.up(space.UpOptions(name=name, nodes=1, root=labs, ssh=False))
    where = lab_dir(name, labs)
    traces = Traces.of(where)
    title = f"{victim} {name}" if victim == "lab-supervisor" else victim
    found = [pid for pid, _ in traces.processes if command_line(pid) == title]
    try:
        assert len(found) == 1
        os.kill(found[0], signal.SIGKILL)
        assert eventually(lambda: not space.status(name, root=labs).running)
        assert eventually(lambda: [each for each in traces.left(where) if not each.startswith("directory")] == [])
        assert space.status(name, root=labs).exists
        with pytest.raises(LabError, match="clear it away"):
            space.env(name, root=labs)
    finally:
        assert space.down(name, root=labs)
    assert traces.left(where) == []


def test_a_killed_container_comes_back_and_its_old_log_is_kept(lab: LabDir) -> None:
    before = {path.name for path in (lab.node_log("knode3") / "pods").glob("kube-system_kube-proxy-*/kube-proxy/*.log")}
    control.ask(lab, {"op": "signal", "node": "knode3", "container": "kube-proxy", "signal": "kill"})
    assert eventually(
        lambda: (
            len(list((lab.node_log("knode3") / "pods").glob("kube-system_kube-proxy-*/kube-proxy/*.log")))
            == len(before) + 1
        )
    )
    assert {each.percent for each in measure(lab, 3, 3)} == {100}


def test_down_is_safe_to_repeat_and_up_refuses_a_taken_name(lab: LabDir) -> None:
    root = lab.root.parent
    assert space.down("never-was", root=root) is False
    with pytest.raises(LabError, match="there is a lab 'shared' already"):
        space.up(space.UpOptions(name="shared", root=root))
    assert space.status("shared", root=root).running


def test_a_pid_that_changed_hands_is_never_killed(labs: Path) -> None:
    stranger = subprocess.Popen(["sleep", "600"])
    where = lab_dir("stranger", labs)
    where.root.mkdir()
    record = {"pid": stranger.pid, "started": (start_time(stranger.pid) or 0) - 1, "rootless": False}
    where.identity_file.write_text(json.dumps(record))
    try:
        assert space.down("stranger", root=labs)
        assert stranger.poll() is None
        assert not where.root.exists()
    finally:
        stranger.kill()
        stranger.wait()


def test_two_labs_do_not_know_of_each_other(lab: LabDir, labs: Path) -> None:
    space.up(space.UpOptions(name="second", nodes=1, root=labs, ssh=False))
    second = lab_dir("second", labs)
    traces = Traces.of(second)
    try:
        made = incident.break_dns(Mode.DOWN, name="second", root=labs)
        assert made.node == "knode1"
        assert {each.percent for each in measure(second, 1, 3)} == {0}
        assert {each.percent for each in measure(lab, 3, 3)} == {100}
    finally:
        space.down("second", root=labs)
    assert traces.left(second) == []
    assert {each.percent for each in measure(lab, 3, 3)} == {100}


def test_the_machine_around_is_left_alone(labs: Path) -> None:
    before = outside()
    space.up(space.UpOptions(name="quiet", nodes=1, root=labs))
    try:
        assert outside() == before
    finally:
        space.down("quiet", root=labs)
    assert outside() == before


def test_a_node_cannot_change_the_machines_files(lab: LabDir) -> None:
    argv = space.shell_command(
        ["sh", "-c", "touch /usr/lab-was-here"], name=lab.name, node="knode1", root=lab.root.parent
    )
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


def test_the_directory_is_private(lab: LabDir) -> None:
    assert lab.root.stat().st_mode & 0o777 == 0o700
    assert lab.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert lab.token_file.stat().st_mode & 0o777 == 0o600


def test_shell_and_env(lab: LabDir) -> None:
    root = lab.root.parent
    hub = subprocess.run(
        space.shell_command(["ip", "netns", "list"], name=lab.name, root=root),
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"knode1", "knode2", "knode3"} <= {line.split()[0] for line in hub.stdout.splitlines()}
    node = subprocess.run(
        space.shell_command(["hostname"], name=lab.name, node="knode2", root=root),
        capture_output=True,
        text=True,
        check=True,
    )
    assert node.stdout == "knode2\n"
    assert space.shell(["sh", "-c", "exit 7"], name=lab.name, root=root) == 7
    assert f"export KUBECONFIG={lab.kubeconfig}\n" in space.env(lab.name, root=root)
    assert json.loads(lab.kubeconfig.read_text())["current-context"] == "kdnsctl-lab-shared"


def test_ssh_to_a_node(lab: LabDir) -> None:
    command = ["ssh", "-F", str(lab.ssh / "config"), "knode3", "hostname; id -u; wc -c < /proc/net/nf_conntrack"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    hostname, uid, size = done.stdout.split()
    assert (hostname, uid) == ("knode3", "0")
    assert int(size) > 0


UNPRIVILEGED = """
import json, os, subprocess, sys
from pathlib import Path
from kdnsctl.lab import doctor, incident, space
from kdnsctl.lab.incident import Mode
from kdnsctl.lab.measure import a_share_is_lost, measure
from kdnsctl.lab.spacedir import lab_dir

root = Path(sys.argv[1])
where = lab_dir("rootless", root)
result = {"uid": os.getuid(), "capable": doctor.can_run(doctor.examine())}
state = space.up(space.UpOptions(name="rootless", nodes=2, root=root))
try:
    result["rootless"] = state.rootless
    for mode in Mode:
        until = a_share_is_lost("knode2") if mode is Mode.RESTORE_FAILS else None
        made = incident.break_dns(mode, name="rootless", root=root)
        result[mode.value] = {f"{s.node} {s.kind}": s.percent for s in measure(where, 2, 10, 60, until)}
        if mode is Mode.DELETE_FAILS:
            ssh = ["ssh", "-F", str(where.ssh / "config"), "knode2", "id -u; conntrack -L -p udp --orig-port-src 20000"]
            result["ssh"] = subprocess.run(ssh, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
            result["dead"] = made.dead
        incident.heal(name="rootless", root=root)
    result["healed"] = sorted({s.percent for s in measure(where, 2, 3)})
finally:
    space.down("rootless", root=root)
result["left"] = os.path.exists(where.root)
print(json.dumps(result))
"""


def test_an_unprivileged_user_needs_no_root(labs: Path) -> None:
    command, environment = unprivileged_command("-P", "-c", UNPRIVILEGED, str(labs))
    before = outside()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["uid"], result["capable"], result["rootless"], result["left"]) == (65534, True, True, False)
    assert result["healed"] == [100]
    expected = {"delete-fails": (0, 100), "down": (0, 0)}
    for mode, (fixed, fresh) in expected.items():
        assert result[mode] == {"knode1 fixed": 100, "knode1 fresh": 100, "knode2 fixed": fixed, "knode2 fresh": fresh}
    assert result["restore-fails"]["knode2 fixed"] == 0
    assert 0 < result["restore-fails"]["knode2 fresh"] < 100
    uid, _, entries = result["ssh"].partition("\n")
    assert uid == "0"
    assert any(f"src={dead} " in entries for dead in result["dead"])
    assert outside() == before


def test_sudo_on_a_node_is_what_next_commands_need(lab: LabDir) -> None:
    def run(command: str) -> tuple[int, str, str]:
        words = ["ssh", "-F", str(lab.ssh / "config"), "knode3", command]
        done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout, done.stderr

    assert run("sudo id -u") == (0, "0\n", "")
    assert run("""sudo -n LC_ALL=C sh -c 'echo "$LC_ALL $0 $1"; exit 7' a 'b c'""") == (7, "C a b c\n", "")
    assert run("sudo -u root -- hostname") == (0, "knode3\n", "")
    assert run("sudo -u nobody id") == (1, "", "sudo: the lab's nodes run commands as root only\n")
    assert run("sudo -l") == (1, "", "sudo: the lab's sudo does not know -l\n")
    assert run("sudo")[0] == 1


def test_processes_of_a_lab_are_found_by_its_record(lab: LabDir) -> None:
    identity = read_identity(lab)
    assert identity is not None
    assert (identity.pid, identity.started) in processes_of(lab)
    assert len(processes_of(lab)) > 10


def test_the_lab_knows_nothing_of_the_callers_environment(labs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-operator")
    space.up(space.UpOptions(name="discreet", nodes=1, root=labs, ssh=False))
    try:
        known = []
        for pid, _ in processes_of(lab_dir("discreet", labs)):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a tool that came and went
                known.append(Path(f"/proc/{pid}/environ").read_bytes())
    finally:
        space.down("discreet", root=labs)
    assert len(known) > 5
    assert any(b"PATH=" in each for each in known)
    assert [each for each in known if b"a-secret" in each] == []


def test_what_a_session_on_a_node_cannot_do_to_the_machine(lab: LabDir) -> None:
    """By SSH as root. A privileged pod could do more; see docs/lab.md."""

    def run(command: str) -> subprocess.CompletedProcess[str]:
        words = ["ssh", "-F", str(lab.ssh / "config"), "knode1", command]
        return subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    listed = run("ls -l /dev | grep ^c")
    devices = sorted(line.split()[-1] for line in listed.stdout.splitlines())
    assert devices == ["full", "null", "random", "tty", "urandom", "zero"], listed
    for command, reason in (
        ("mount -o remount,rw /", "permission denied"),
        ("mount -t tmpfs none /tmp", "permission denied"),
        ("mknod /tmp/kmsg c 1 11", "Operation not permitted"),
        ("echo 1 > /proc/sys/kernel/panic_on_oops", "Read-only file system"),
    ):
        done = run(f"LC_ALL=C {command}")
        assert (command, done.returncode == 0) == (command, False)
        assert reason.lower() in done.stderr.lower()
    assert run("sysctl -w net.ipv4.ip_forward=1").returncode == 0


def test_no_node_holds_the_socket_that_listens_on_the_machine(lab: LabDir) -> None:
    pids = [int(control.ask(lab, {"op": "node-pid", "node": f"knode{each}"})["pid"]) for each in (1, 2, 3)]
    for pid in pids:
        words = ["sh", "-c", f"cd /proc/{pid}/fd && for each in *; do readlink $each; done"]
        held = control.ask(lab, {"op": "run", "node": "knode1", "argv": words})["output"].split()
        assert len([each for each in held if each.startswith("socket:")]) == 1  # the channel to the supervisor
