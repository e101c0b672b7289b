"""Tables of many nodes over SSH into a bundle, beside `xargs -P16` with the OpenSSH client and gzip.

Real OpenSSH servers, one for each node, on loopback; their `cat` serves a file as the connection tracking table. Both
sides log in with the same key, check the same host key, read the same bytes and write them compressed. The servers'
share is in the wall clock time of both.
"""

from __future__ import annotations

import contextlib
import getpass
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kdnsctl.lab.seed import numbered_nodes
from tests.bench import tables
from tests.bench.measuring import RunError, Usage, measure

NODES = 50
PARALLEL = 16
SSHD = "/usr/sbin/sshd"
PORT = 22622
LINE = 246  # bytes of an entry, about
SEED = 20261128
CAT = """#!/bin/sh
[ "$1" = /proc/net/nf_conntrack ] && exec /bin/cat {table}
exec /bin/cat "$@"
"""


@dataclass(frozen=True, slots=True)
class SshFleet:
    """`nodes` with a table of `size` bytes each, by one way of ours beside one of the peer's; seconds and bytes."""

    via: str
    nodes: int
    size: int
    wall: float
    cpu: float
    anonymous: int
    gzip: str
    peer_wall: float
    peer_cpu: float

    @property
    def ratio(self) -> float:
        return self.wall / self.peer_wall


def run(
    size: int, *, nodes: int = NODES, rounds: int, under: str | None, tell: Callable[[str], None]
) -> list[SshFleet]:
    """Each way of ours, with tables of `size` and of a quarter of it. Raises RunError when a table is not whole."""
    fleets = []
    with tempfile.TemporaryDirectory(dir=under) as directory, servers(Path(directory), nodes) as fleet:
        for bytes_ in (size // 4, size):
            fleet.write_table(bytes_)
            own: dict[str, list[Usage]] = {"ssh": [], "openssh": []}
            peers: dict[str, list[Usage]] = {"gzip": [], "gzip -1": []}
            for number in range(rounds):
                tell(f"ssh: {bytes_ / 1e6:.0f} MB, round {number + 1} of {rounds}")
                for via, usages in own.items():
                    usages.append(fleet.collect(via))
                for program, usages in peers.items():
                    usages.append(fleet.peer(program))
            memory = {via: fleet.collect(via, sample=True).anonymous for via in own}
            for via, usages in own.items():
                for program, theirs in peers.items():
                    fleets.append(
                        SshFleet(
                            via, nodes, fleet.size, min(one.wall for one in usages), min(one.cpu for one in usages),
                            memory[via], program, min(one.wall for one in theirs),
                            min(one.cpu for one in theirs),
                        )
                    )  # fmt: skip
    return fleets


@dataclass(slots=True)
class Fleet:
    """Servers that run, and an API that lists them."""

    place: Path
    names: list[str]
    size: int = 0

    def write_table(self, size: int) -> None:
        """The table of every node: at most `size` bytes, about."""
        self.size = tables.write(self.place / "table", size // LINE, 0.01, SEED).size

    def collect(self, via: str, *, sample: bool = False) -> Usage:
        """Read all by us. Raises RunError when anything is not whole."""
        bundle = self.place / "evidence"
        usage = measure(
            [
                sys.executable, "-P", "-m", "kdnsctl", "collect", "--all", "--via", via, "--item", "conntrack.a", "-O",
                str(bundle), "--ssh-config", str(self.place / "config"), "--parallel", str(PARALLEL),
                "--no-archive", "-o", "json",
            ],
            environment={"KUBECONFIG": str(self.place / "kubeconfig")},
            exit_codes=(0, 4),
            sample=sample,
        )  # fmt: skip
        rows = json.loads(usage.output)["nodes"]
        bad = [row["missing"] for row in rows if row["status"] != "complete"]
        files = list(bundle.glob("nodes/*/01/conntrack.a.txt.gz"))
        if bad or len(files) != len(self.names):
            raise RunError(f"{len(files)} of {len(self.names)} tables came, some not whole: {bad[:2]}")
        with gzip.open(files[0]) as file:
            content = file.read()
        if content[: self.size] != (self.place / "table").read_bytes():
            raise RunError("what came is not what was there")
        shutil.rmtree(bundle)
        return usage

    def peer(self, program: str) -> Usage:
        """Read all by ssh, each piped to `program`. Raises RunError."""
        out = self.place / "out"
        out.mkdir()
        one = f"ssh -F {self.place}/config {{}} cat /proc/net/nf_conntrack | {program} > {out}/{{}}.gz"
        names = self.place / "names"
        names.write_text("\n".join(self.names) + "\n")
        usage = measure(["xargs", "-a", str(names), "-P", str(PARALLEL), "-I{}", "sh", "-c", one])
        with gzip.open(out / f"{self.names[0]}.gz") as file:
            if len(file.read()) != self.size:
                raise RunError("what came by ssh is not what was there")
        shutil.rmtree(out)
        return usage


@contextlib.contextmanager
def servers(place: Path, count: int) -> Iterator[Fleet]:
    """Servers on loopback and an API that lists them as nodes, with files in `place`. Raises RunError."""
    names = [node.name for node in numbered_nodes(count)]
    tools = place / "bin"
    tools.mkdir()
    (tools / "cat").write_text(CAT.format(table=place / "table"))
    (tools / "cat").chmod(0o755)
    for key in ("host_key", "id"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / key], check=True)
    host_key = " ".join((place / "host_key.pub").read_text().split()[:2])
    (place / "known_hosts").write_text("".join(f"{name} {host_key}\n" for name in names))
    blocks = [
        f"Host {name}\n    HostName 127.0.2.{number}\n    HostKeyAlias {name}\n" for number, name in enumerate(names, 1)
    ]
    (place / "config").write_text(
        "".join(blocks) + f"Host *\n    Port {PORT}\n    User {getpass.getuser()}\n    IdentityFile {place}/id\n"
        "    IdentitiesOnly yes\n"
        f"    UserKnownHostsFile {place}/known_hosts\n    GlobalKnownHostsFile /dev/null\n    LogLevel ERROR\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with contextlib.ExitStack() as running:
        for number in range(1, count + 1):
            running.enter_context(_server(place, number, tools))
        api = running.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.bench.nodeserver", str(place / "kubeconfig"), str(count)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        assert api.stdin is not None
        assert api.stdout is not None
        running.callback(api.stdin.close)
        if api.stdout.readline() != b"ready\n":
            raise RunError("the server of nodes did not start")
        yield Fleet(place, names)


@contextlib.contextmanager
def _server(place: Path, number: int, tools: Path) -> Iterator[None]:
    config = place / f"sshd-{number}"
    config.write_text(
        f"ListenAddress 127.0.2.{number}\nPort {PORT}\nHostKey {place}/host_key\nAuthorizedKeysFile {place}/id.pub\n"
        "PidFile none\nUsePAM no\nUseDNS no\nStrictModes no\nPermitRootLogin yes\nMaxStartups 100\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nSetEnv PATH={tools}:{os.defpath}\n"
    )
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        if not any(b"Server listening" in line for line in iter(process.stderr.readline, b"")):
            raise RunError("sshd did not start")
        yield
    finally:
        process.terminate()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
