"""collect holds: nodes whose SSH fails in every way, a disk that fills up, ends at any moment, no DNS, two jump hosts.

`KDNSCTL_FAULTS=all` (`nox -s faults`) runs all moments and ways; without it, a few of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster import pods
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.errors import Failure, ForbiddenError
from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.watch import Change, watch
from kdnsctl.lab import control, space
from kdnsctl.lab.spacedir import LabDir
from kdnsctl.lab.sshd import OPERATOR, SUDO_PASSWORD, SshFault
from kdnsctl.reach.podspec import SELECTOR
from tests.lab.conftest import ROOT, Kdnsctl, lab_of
from tests.lab.test_pods import await_none

NAME = "faults"
ALL = os.environ.get("KDNSCTL_FAULTS") == "all"
SCHEMA = json.loads((ROOT / "docs/schemas/CollectReport.schema.json").read_text())
NODES = {
    "knode1": SshFault.HANGS,
    "knode2": SshFault.RESETS,
    "knode3": SshFault.HOST_KEY,
    "knode4": SshFault.DOWN,
    "knode5": SshFault.NO_SHELL,
    "knode6": SshFault.NO_TABLE,
    "knode7": SshFault.SUDO_PASSWORD,
    "knode8": None,
}
Command = tuple[list[str], dict[str, str]]


@pytest.fixture(scope="module")
def lab(command_home: Path) -> Iterator[LabDir]:
    """Eight nodes, of which one has a sound SSH server that anybody may use."""
    where = lab_of(command_home, NAME)
    space.up(space.UpOptions(name=NAME, nodes=len(NODES), root=where.root.parent, timeout=180))
    yield where
    space.down(NAME, root=where.root.parent)


@pytest.fixture(autouse=True)
def speaking_to_it(lab: LabDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(lab.kubeconfig))


@pytest.fixture
def config(lab: LabDir, tmp_path: Path) -> Path:
    """The lab's ssh_config, with a user who needs sudo on one node."""
    file = tmp_path / "ssh_config"
    file.write_text(f"Match originalhost knode7\n    User {OPERATOR}\n\n" + (lab.ssh / "config").read_text())
    return file


def fault(lab: LabDir, node: str, what: SshFault, *, active: bool) -> None:
    control.ask(lab, {"op": "ssh-fault", "node": node, "fault": what.value, "active": active})


@pytest.fixture(scope="class")
def failing(lab: LabDir) -> Iterator[LabDir]:
    """Every node as `NODES` says."""
    for node, what in NODES.items():
        if what is not None:
            fault(lab, node, what, active=True)
    yield lab
    for node, what in NODES.items():
        if what is not None:
            fault(lab, node, what, active=False)


def report_of(out: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(out)
    jsonschema.validate(report, SCHEMA)
    return report


def rows_of(out: str) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in report_of(out)["nodes"]}


def codes(row: dict[str, Any]) -> set[str]:
    return {gap["code"] for gap in row["missing"]}


def readable(kdnsctl: Kdnsctl, bundle: Path) -> None:
    """What is in the bundle is what was collected, and nothing is half done."""
    verified = kdnsctl("bundle", "verify", str(bundle))
    assert verified.code == 0, verified.out
    assert not list(bundle.rglob("*.part"))


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exec is forbidden, as to somebody without pods/exec: what kube-proxy serves over HTTP and its logs are not."""

    def forbids(*_: object, **__: object) -> None:
        raise ForbiddenError(Failure("GET …/exec", 403, "Forbidden", "exec is not for you"))

    monkeypatch.setattr("kdnsctl.reach.kubeproxyexec.KubeProxyExec._run", forbids)


FALLEN_THROUGH: dict[str, tuple[str, str | None, set[str]]] = {
    "knode1": ("failed", None, {"noAnswer"}),
    "knode2": ("partial", "ssh", {"cutOff"}),
    "knode3": ("failed", None, {"hostKeyChanged"}),
    "knode4": ("failed", None, {"sshUnreachable"}),
    "knode5": ("failed", None, {"noShell"}),
    "knode6": ("complete", "ssh", set()),
    "knode7": ("partial", "ssh", {"sudo"}),
    "knode8": ("complete", "ssh", set()),
}
UNREACHED = {"knode1": "answer", "knode3": "host key", "knode4": "SSH", "knode5": "no command can be run"}
"""What is told of the nodes that no rung reaches, beside why those before SSH did not."""


@pytest.mark.usefixtures("failing")
class TestEveryNodeHasItsRow:
    @pytest.mark.parametrize("via", ["ssh", "openssh"] if ALL else ["ssh"])
    def test_with_the_reason_and_the_rest_is_complete(
        self, kdnsctl: Kdnsctl, config: Path, tmp_path: Path, via: str
    ) -> None:
        bundle = tmp_path / "evidence"
        how = ["--via", via, "--ssh-config", str(config), "--no-input", "-o", "json"]
        ran = kdnsctl("collect", "--all", "-O", str(bundle), *how)
        assert ran.code == 4, ran.err
        rows = rows_of(ran.out)
        assert list(rows) == list(NODES)
        assert {name: row["status"] for name, row in rows.items()} == {
            "knode1": "failed",
            "knode2": "partial",
            "knode3": "failed",
            "knode4": "failed",
            "knode5": "failed",
            "knode6": "complete",  # its own conntrack reads the table that /proc does not show
            "knode7": "partial",
            "knode8": "complete",
        }
        assert codes(rows["knode1"]) == {"noAnswer"}
        assert codes(rows["knode2"]) == {"cutOff" if via == "ssh" else "noTrailer"}
        assert {gap["item"] for gap in rows["knode2"]["missing"]} == {"conntrack.a", "conntrack.b"}
        assert codes(rows["knode3"]) == {"hostKeyChanged"}
        assert codes(rows["knode4"]) == {"sshUnreachable"}
        assert codes(rows["knode5"]) == {"noShell"}
        assert rows["knode6"]["missing"] == []
        assert codes(rows["knode7"]) == {"sudo"}
        readable(kdnsctl, bundle)
        analyzed = json.loads(kdnsctl("analyze", str(bundle), "-o", "json").out)
        verdicts = {node["name"]: node["verdict"] for node in analyzed["nodes"]}
        assert verdicts == {name: "clean" if name in ("knode6", "knode8") else "unknown" for name in NODES}

    def test_what_fails_over_ssh_does_not_matter_where_exec_works(
        self, kdnsctl: Kdnsctl, config: Path, tmp_path: Path
    ) -> None:
        ran = kdnsctl("collect", "--all", "-O", str(tmp_path / "evidence"), "--ssh-config", str(config), "-o", "json")
        assert ran.code == 0, ran.out
        assert {row["via"] for row in rows_of(ran.out).values()} == {"exec"}

    @pytest.mark.usefixtures("refused")
    def test_where_auto_falls_through_to_ssh_that_fails_too(
        self, kdnsctl: Kdnsctl, config: Path, tmp_path: Path
    ) -> None:
        """The last reason is SSH's own, and those of the rungs before it are told with it."""
        bundle = tmp_path / "evidence"
        how = ["--ssh-config", str(config), "--pod-namespace", "nowhere", "--no-input", "-o", "json"]
        ran = kdnsctl("collect", "--all", "-O", str(bundle), *how)
        assert ran.code == 4, ran.err
        rows = rows_of(ran.out)
        assert list(rows) == list(NODES)
        assert {name: (row["status"], row["via"], codes(row)) for name, row in rows.items()} == FALLEN_THROUGH
        for name, words in UNREACHED.items():
            reasons = " ".join(gap["message"] for gap in rows[name]["missing"])
            assert all(word in reasons for word in ("exec is not for you", "nowhere", words)), (name, reasons)
        readable(kdnsctl, bundle)
        judged = json.loads(kdnsctl("analyze", str(bundle), "-o", "json").out)
        verdicts = {node["name"]: node["verdict"] for node in judged["nodes"]}
        assert verdicts == {name: "clean" if name in ("knode6", "knode8") else "unknown" for name in NODES}

    @pytest.mark.usefixtures("refused")
    @pytest.mark.parametrize(("why", "code"), [("login", "sshLogin"), ("host key", "hostKeyUnknown")])
    def test_so_does_a_login_that_is_refused_and_a_host_that_nobody_knows(
        self, kdnsctl: Kdnsctl, lab: LabDir, tmp_path: Path, why: str, code: str
    ) -> None:
        """The OpenSSH client is tried as well, and it may not either."""
        config, unknown = tmp_path / "ssh_config", tmp_path / "known_hosts"
        unknown.touch()
        strangers = "Match originalhost knode8\n    User nobody-of-that-name\n\n"
        config.write_text((strangers if why == "login" else "") + (lab.ssh / "config").read_text())
        how = ["--ssh-config", str(config), "--pod-namespace", "nowhere", "--no-input", "-o", "json"]
        how += ["--known-hosts", str(unknown)] if why == "host key" else []
        ran = kdnsctl("collect", "knode8", "-O", str(tmp_path / "evidence"), *how)
        assert ran.code == 4, ran.err
        row = rows_of(ran.out)["knode8"]
        reasons = " ".join(gap["message"] for gap in row["missing"])
        assert (row["status"], row["via"], codes(row)) == ("failed", None, {code}), reasons
        assert unknown.read_bytes() == b""  # and nothing was noted of it

    @pytest.mark.parametrize("via", ["ssh", "openssh"])
    def test_the_password_of_sudo_comes_by_a_descriptor_and_is_nowhere_else(
        self, as_process: Command, failing: LabDir, config: Path, tmp_path: Path, via: str
    ) -> None:
        command, environment = as_process
        bundle = tmp_path / "evidence"
        read_end, write_end = os.pipe()
        os.write(write_end, SUDO_PASSWORD.encode() + b"\n")
        os.close(write_end)
        how = ["--via", via, "--ssh-config", str(config), "--sudo-password-fd", str(read_end), "-o", "json"]
        ran = subprocess.run(
            [*command, "collect", "knode7", "-O", str(bundle), *how],
            env={**environment, "KUBECONFIG": str(failing.kubeconfig)},
            pass_fds=(read_end,),
            capture_output=True,
            text=True,
            check=False,
        )
        os.close(read_end)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert rows_of(ran.stdout)["knode7"]["status"] == "complete"
        assert SUDO_PASSWORD not in ran.stdout + ran.stderr
        sshd_log = (failing.node("knode7") / "sshd.log").read_text()
        assert f"for {OPERATOR} " in sshd_log  # it was not root who logged in
        assert SUDO_PASSWORD not in sshd_log


FULL = """
mount -t tmpfs -o size=4m,mode=700 tmpfs "$1" || exit 99
python=$2; bundle=$1/evidence; judged=$1.judged; shift 2
"$python" -P -m kdnsctl collect --all -O "$bundle" --no-archive -o json "$@"; code=$?
"$python" -P -m kdnsctl bundle verify "$bundle" >&2; echo "verified $?" >&2
"$python" -P -m kdnsctl analyze "$bundle" -o json >"$judged"
cp "$bundle/manifest.json" "$judged.manifest"
exit $code
"""
LARGE = tuple(NODES)[:6]


@pytest.fixture
def large_tables(lab: LabDir, tmp_path: Path) -> Iterator[None]:
    """Tables on six nodes that do not fit into 4 MiB, however they are compressed."""
    anything = random.Random(4)
    lines = []
    for _ in range(30_000):
        client = f"10.244.{anything.randrange(1, 200)}.{anything.randrange(1, 255)}"
        server = f"198.18.{anything.randrange(256)}.{anything.randrange(1, 255)}"
        here, there = anything.randrange(1024, 65536), anything.randrange(1, 1024)
        lines.append(
            f"-A -t 3600 -u SEEN_REPLY,ASSURED -s {client} -d {server} -r {server} -q {client} -p udp --sport {here} "
            f"--dport {there} --reply-port-src {there} --reply-port-dst {here}\n"
        )
    (tmp_path / "entries").write_text("".join(lines))
    for node in LARGE:
        argv = ["conntrack", "-R", str(tmp_path / "entries")]
        control.ask(lab, {"op": "run", "node": node, "argv": argv}, timeout=120)
    yield
    for node in LARGE:
        control.ask(lab, {"op": "run", "node": node, "argv": ["conntrack", "-D", "-d", "198.18.0.0/16"]}, timeout=120)


@pytest.mark.usefixtures("large_tables")
@pytest.mark.parametrize("parallel", [1, 2, 4, 16] if ALL else [16])
def test_a_disk_that_fills_up_keeps_what_was_had(
    as_process: Command, lab: LabDir, tmp_path: Path, parallel: int
) -> None:
    _, environment = as_process
    disk = tmp_path / "disk"
    disk.mkdir()
    # On a busy machine, too, nothing may be late: that would be another reason beside the one that is looked for.
    how = ["--via", "exec", "--parallel", str(parallel), "--timeout", "5m", "--deadline", "30m"]
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", FULL, "sh", str(disk), sys.executable, *how],
        env={**environment, "KUBECONFIG": str(lab.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 4, ran.stderr
    rows = rows_of(ran.stdout)
    assert list(rows) == list(NODES)
    assert {code for row in rows.values() for code in codes(row)} == {"bundleFull"}, ran.stdout
    assert all(row["status"] == "complete" or codes(row) for row in rows.values())
    assert "verified 0" in ran.stderr, ran.stderr
    judged = json.loads(Path(f"{disk}.judged").read_text())
    verdicts = {node["name"]: node["verdict"] for node in judged["nodes"]}
    artefacts = json.loads(Path(f"{disk}.judged.manifest").read_text())["artefacts"]
    whole = {one["node"] for one in artefacts if one["item"] == "conntrack.a" and one["complete"]}
    assert whole < set(NODES)
    assert {verdicts[name] for name in set(NODES) - whole} == {"unknown"}


def recorded(bundle: Path) -> int:
    """How many records the journal of a bundle has."""
    journal = bundle / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


def wait_for_records(running: subprocess.Popen[str], bundle: Path, number: int) -> None:
    """Until there are so many, or the process has ended."""
    pause = threading.Event()
    while running.poll() is None and recorded(bundle) < number:
        pause.wait(0.005)


@pytest.mark.usefixtures("failing")
class TestItEndsAtAnyMoment:
    @pytest.fixture(autouse=True)
    def ctrl_c_is_not_ignored(self) -> Iterator[None]:
        """Processes inherit that from who was started in the background of a script."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.parametrize("via", ["ssh", "openssh"] if ALL else ["ssh"])
    @pytest.mark.parametrize("records", range(1, 30) if ALL else [1, 12])
    def test_by_ctrl_c(
        self,
        as_process: Command,
        kdnsctl: Kdnsctl,
        failing: LabDir,
        config: Path,
        tmp_path: Path,
        records: int,
        via: str,
    ) -> None:
        command, environment = as_process
        bundle = tmp_path / "evidence"
        nodes = ["knode1", "knode2", "knode8"]  # the first one would take half a minute
        running = subprocess.Popen(
            [*command, "collect", *nodes, "-O", str(bundle), "--via", via, "--ssh-config", str(config), "-o", "json"],
            env={**environment, "KUBECONFIG": str(failing.kubeconfig)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_records(running, bundle, records)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate()
        assert running.returncode == 130, err
        rows = rows_of(out)
        assert list(rows) == nodes
        assert codes(rows["knode1"]) == {"cancelled"}
        assert "Traceback" not in err
        readable(kdnsctl, bundle)

    def test_by_its_deadline(self, kdnsctl: Kdnsctl, config: Path, tmp_path: Path) -> None:
        bundle = tmp_path / "evidence"
        how = ["--via", "ssh", "--ssh-config", str(config), "--deadline", "8s", "-o", "json"]
        ran = kdnsctl("collect", "knode1", "-O", str(bundle), *how)
        assert ran.code == 4, ran.err
        assert codes(rows_of(ran.out)["knode1"]) == {"deadline"}
        readable(kdnsctl, bundle)


KILLED = ["knode6", "knode8"]


@pytest.fixture(scope="module")
def counted(lab: LabDir, command_home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, int]:
    """How many records and steps a run over `KILLED` has."""
    place = tmp_path_factory.mktemp("counted")
    ran = dying(lab, command_home, f"count:{place}/count", place / "evidence")
    assert ran.returncode == 0, ran.stderr
    records, steps = map(int, (place / "count").read_text().split())
    return records, steps


def dying(
    lab: LabDir, home: Path, moment: str, bundle: Path, *how: str, via: str = "exec"
) -> subprocess.CompletedProcess[str]:
    words = ["collect", *KILLED, "-O", str(bundle), "--via", via, *how]
    return subprocess.run(
        [sys.executable, "-m", "tests.lab.dying", moment, *words],
        cwd=ROOT,
        env={**os.environ, "XDG_STATE_HOME": str(home), "KUBECONFIG": str(lab.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )


class TestAKilledRunIsResumed:
    def finished(self, kdnsctl: Kdnsctl, bundle: Path, via: str = "exec") -> None:
        """Whatever is there, the same command goes on with it, and all of it is sound."""
        begun = (bundle / "journal.jsonl").exists()
        ran = kdnsctl("collect", *KILLED, "--resume" if begun else "-O", str(bundle), "--via", via, "-o", "json")
        assert ran.code == 0, ran.err + ran.out
        assert {name: row["status"] for name, row in rows_of(ran.out).items()} == dict.fromkeys(KILLED, "complete")
        readable(kdnsctl, bundle)
        analyzed = json.loads(kdnsctl("analyze", str(bundle), "-o", "json").out)
        assert {node["name"]: node["verdict"] for node in analyzed["nodes"]} == dict.fromkeys(KILLED, "clean")

    def test_after_each_record(
        self, kdnsctl: Kdnsctl, lab: LabDir, command_home: Path, counted: tuple[int, int], tmp_path: Path
    ) -> None:
        records, _ = counted
        for number in range(1, records + 1) if ALL else (1, records // 2):
            bundle = tmp_path / str(number)
            ran = dying(lab, command_home, f"record:{number}", bundle)
            assert ran.returncode == -signal.SIGKILL, ran.stderr
            assert recorded(bundle) == number
            self.finished(kdnsctl, bundle)

    def test_at_seeded_points(
        self, kdnsctl: Kdnsctl, lab: LabDir, command_home: Path, counted: tuple[int, int], tmp_path: Path
    ) -> None:
        _, steps = counted
        points = random.Random(6)
        killed = 0
        for number in range(20 if ALL else 2):
            bundle = tmp_path / str(number)
            ran = dying(lab, command_home, f"step:{points.randint(steps // 4, steps)}", bundle)
            killed += ran.returncode == -signal.SIGKILL  # else it had fewer steps this time, and has finished
            self.finished(kdnsctl, bundle)
        assert killed

    def test_and_its_pods_end_by_themselves_and_cleanup_takes_them_away(
        self, kdnsctl: Kdnsctl, lab: LabDir, command_home: Path, tmp_path: Path
    ) -> None:
        killed = 0
        with CancelScope(600) as scope, contextlib.closing(connection_to(lab, tmp_path, scope)) as connection:
            for number in range(2, 40, 3) if ALL else (6, 14):
                for deadline in (5, 30, 120):  # its pods last as long, so the first that lets it get so far
                    bundle = tmp_path / f"{number}-{deadline}"
                    ran = dying(lab, command_home, f"record:{number}", bundle, "--deadline", f"{deadline}s", via="pod")
                    await_ended(connection, scope)
                    assert kdnsctl("cleanup", "--yes").code == 0
                    await_none(connection, scope)
                    self.finished(kdnsctl, bundle, via="pod")
                    await_none(connection, scope)
                    killed += ran.returncode == -signal.SIGKILL
                    if ran.returncode in (-signal.SIGKILL, 0):  # 0: it has not so many records
                        break
        assert killed


def connection_to(lab: LabDir, home: Path, scope: CancelScope) -> Connection:
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    return connect(ConnectOptions(kubeconfig=str(lab.kubeconfig), environment=environment), scope)


def await_ended(connection: Connection, scope: CancelScope) -> None:
    """Return when no pod of ours runs or is about to."""
    alive: set[str] = set()
    for event in watch(connection, pods.path_of(None), Pod, labels=SELECTOR, scope=scope):
        for pod in event.items:
            ended = event.change is Change.DELETED or pod.status.phase in ("Failed", "Succeeded")
            (alive.discard if ended else alive.add)(pod.metadata.name)
        if not alive:
            return


IN_THE_HUB = """
# With a resolver that hears, and never answers.
set -eu
mount --bind "$1/resolv.conf" /etc/resolv.conf
mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf
shift
exec "$@"
"""
RESOLVER = "10.88.0.253"
LISTEN = f"""
import selectors, socket, sys
with selectors.DefaultSelector() as both:
    for family, address in ((socket.AF_INET, "{RESOLVER}"), (socket.AF_INET6, "::1")):
        server = socket.socket(family, socket.SOCK_DGRAM)
        server.bind((address, 53))
        both.register(server, selectors.EVENT_READ)
    both.register(sys.stdin, selectors.EVENT_READ)
    print("listening", flush=True)
    while True:
        for key, _ in both.select():
            if key.fileobj is sys.stdin:
                sys.exit()
            print(key.fileobj.recv(4096).hex(), flush=True)
"""
PORT_53 = ["-p", "udp", "--dport", "53"], ["-p", "tcp", "--dport", "53"], ["-p", "tcp", "--dport", "853"]


class Hub:
    """Commands in the lab's hub, where nodes answer and DNS does not."""

    def __init__(self, lab: LabDir, home: Path, place: Path) -> None:
        self._in_hub = [sys.executable, "-P", "-m", "kdnsctl", "lab", "shell", NAME, "--"]
        self._without_dns = ["unshare", "-m", "sh", "-c", IN_THE_HUB, "sh", str(place)]
        self._environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(home), "KUBECONFIG": str(lab.kubeconfig),
        }  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._in_hub, *words],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, dns: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._in_hub, *([] if dns else self._without_dns), *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def packets(self) -> int:
        """How many to a port of DNS have left the hub, wherever to."""
        listed = self.run("iptables-save", "-c", "-t", "filter", dns=True).stdout
        return sum(int(line[1:].split(":")[0]) for line in listed.splitlines() if "] -A OUTPUT" in line)


@pytest.fixture
def hub(lab: LabDir, command_home: Path, tmp_path: Path) -> Iterator[Hub]:
    (tmp_path / "resolv.conf").write_text(f"nameserver {RESOLVER}\noptions timeout:1 attempts:1\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: dns\npasswd: files\ngroup: files\n")
    made = Hub(lab, command_home, tmp_path)
    assert made.run("ip", "addr", "add", f"{RESOLVER}/32", "dev", "lo", dns=True).returncode == 0
    for packets in PORT_53:
        assert made.run("iptables", "-A", "OUTPUT", *packets, dns=True).returncode == 0
    yield made
    for packets in PORT_53:
        made.run("iptables", "-D", "OUTPUT", *packets, dns=True)
    made.run("ip", "addr", "del", f"{RESOLVER}/32", "dev", "lo", dns=True)


def jumping(lab: LabDir) -> str:
    """What an operator writes whose nodes are behind two hosts; no name here is one that DNS would be asked for."""
    known = {line.split()[0].split(",")[0]: line.split()[0].split(",")[1] for line in hosts_of(lab)}
    common = (
        f"    IdentityFile {lab.ssh}/id_lab\n    IdentitiesOnly yes\n    UserKnownHostsFile {lab.ssh}/known_hosts\n"
    )
    return (
        f"Host outer\n    HostName {known['knode6']}\n    HostKeyAlias knode6\n"
        f"Host inner\n    HostName {known['knode2']}\n    HostKeyAlias knode2\n    ProxyJump outer\n"
        "Match originalhost knode*\n    ProxyJump inner\n"
        f"Host *\n    User root\n    GlobalKnownHostsFile /dev/null\n{common}"
    )


def hosts_of(lab: LabDir) -> list[str]:
    return (lab.ssh / "known_hosts").read_text().splitlines()


@pytest.mark.parametrize("via", ["ssh", "openssh"])
def test_through_two_hosts_with_a_resolver_that_hangs_and_is_not_asked(
    lab: LabDir, hub: Hub, tmp_path: Path, via: str
) -> None:
    config = tmp_path / "jumping"
    config.write_text(jumping(lab))
    logs = {node: lab.node(node) / "sshd.log" for node in ("knode2", "knode3", "knode8")}
    sizes = {node: log.stat().st_size for node, log in logs.items()}
    with hub.start(sys.executable, "-c", LISTEN) as heard:
        assert heard.stdout is not None
        assert heard.stdout.readline() == "listening\n"
        command = [sys.executable, "-P", "-m", "kdnsctl", "collect", "knode3", "knode8", "-o", "json", "--no-input"]
        ran = hub.run(*command, "-O", str(tmp_path / "evidence"), "--via", via, "--ssh-config", str(config))
        assert ran.returncode == 0, ran.stdout + ran.stderr
        rows = rows_of(ran.stdout)
        assert {name: (row["status"], row["via"]) for name, row in rows.items()} == {
            "knode3": ("complete", via),
            "knode8": ("complete", via),
        }
        came_from = {node: log.read_bytes()[sizes[node] :].decode() for node, log in logs.items()}
        assert "from 10.88.0.16 " in came_from["knode2"]  # knode6, the outer host
        assert all("from 10.88.0.12 " in came_from[node] for node in ("knode3", "knode8"))  # knode2, the inner one
        assert hub.packets() == 0
        # The trap works: who asks is heard, and hangs until it gives up.
        assert hub.run("getent", "hosts", "knode3.example.com").returncode != 0
        assert hub.packets() > 0
        said, _ = heard.communicate()
    assert said
    assert all(b"example".hex() in line for line in said.splitlines())  # nobody else was heard
