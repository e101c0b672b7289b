"""Real OpenSSH servers on loopback, each with files of its own, for whoever runs the tests to log in at."""

import contextlib
import getpass
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdnsctl.reach.sshconfig import Hop

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin") or "/usr/sbin/sshd"


@dataclass(frozen=True)
class Server:
    """A server that runs. `key` is a key file that it lets in, `host_key` its own public key as in a .pub file."""

    name: str
    port: int
    place: Path
    process: subprocess.Popen[str]

    @property
    def key(self) -> Path:
        return self.place / "id_user"

    @property
    def host_key(self) -> str:
        return " ".join((self.place / "host_key.pub").read_text().split()[:2])

    @property
    def known_hosts(self) -> Path:
        return self.place / "known_hosts"

    def hop(self, **other: object) -> Hop:
        """How to log in here."""
        said: dict[str, object] = {
            "name": self.name,
            "hostname": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "identity_files": (str(self.key),),
            "known_hosts": (str(self.known_hosts),),
            "host_key_alias": self.name,
        }
        return Hop(**(said | other))  # type: ignore[arg-type]


def make_key(place: Path, *, passphrase: str = "", kind: str = "ed25519") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", place.name, "-f", place], check=True)
    return place


@contextlib.contextmanager
def server(place: Path, name: str, *, options: tuple[str, ...] = ()) -> Iterator[Server]:
    """An sshd on a free port; ended, and waited for, at the end."""
    place.mkdir(parents=True, exist_ok=True)
    make_key(place / "host_key")
    make_key(place / "id_user")
    shutil.copy(place / "id_user.pub", place / "authorized_keys")
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd of Debian separates its privileges; there after a boot
    port = free_port()
    (place / "sshd_config").write_text(
        "\n".join(
            [
                *options,  # the first of two that say different things counts
                "ListenAddress 127.0.0.1",
                f"Port {port}",
                f"HostKey {place}/host_key",
                f"AuthorizedKeysFile {place}/authorized_keys",
                "PidFile none",
                "UsePAM no",
                "UseDNS no",
                "StrictModes no",
                "PermitRootLogin yes",
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication no",
                "MaxStartups 100",
                "",
            ]
        )
    )
    command = [SSHD, "-D", "-e", "-f", str(place / "sshd_config")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "Server listening" in line:
                break
        else:
            raise AssertionError(f"sshd did not start: {''.join(said)}")
        started = Server(name, port, place, process)
        started.known_hosts.write_text(f"{name} {started.host_key}\n")
        yield started
    finally:
        process.terminate()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()  # not read to its end: sessions of a test that failed may still hold the other side


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
