import contextlib
import os
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.model import CancelledError, KdnsctlError
from kdnsctl.reach.hostkeys import Policy
from kdnsctl.reach.openssh import OpenSsh
from kdnsctl.reach.sshconfig import Hop, SshOptions
from kdnsctl.reach.sshlogin import SshError
from tests.unit.reach.sshservers import Server, make_key, server

NOTHING = SshOptions(config="/dev/null")
Connect = Callable[..., OpenSsh]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("node"), "knode1") as started:
        yield started


@pytest.fixture
def scope() -> Iterator[CancelScope]:
    with CancelScope(120) as scope:
        yield scope


@pytest.fixture
def own_place() -> Iterator[Path]:
    """A temporary directory with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def connect(scope: CancelScope, own_place: Path, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """`OpenSsh.open`, with its files where they can be counted."""
    monkeypatch.setattr(tempfile, "tempdir", str(own_place))

    def open_it(*hops: Hop, policy: Policy = Policy.STRICT, options: SshOptions = NOTHING) -> OpenSsh:
        return OpenSsh.open(hops, options, scope, policy=policy)

    return open_it


def run(connection: OpenSsh, command: str, scope: CancelScope, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    out, err = bytearray(), bytearray()
    code = connection.run(command, stdout=out.extend, stderr=err.extend, scope=scope, stdin=stdin)
    return code, bytes(out), bytes(err)


def refused(connect: Connect, *hops: Hop, **how: object) -> SshError:
    with pytest.raises(SshError) as caught:
        connect(*hops, **how)
    return caught.value


def masters(place: Path) -> list[int]:
    """Processes that were started with the directory in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ended just now
            if entry.name.isdigit() and f"{place}/".encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


class TestRunning:
    def test_both_outputs_and_the_exit_code(self, node: Server, scope: CancelScope, connect: Connect) -> None:
        with connect(node.hop()) as connection:
            assert run(connection, "echo out; echo err >&2; exit 7", scope) == (7, b"out\n", b"err\n")
            assert run(connection, "cat", scope, stdin=b"secret\n") == (0, b"secret\n", b"")

    def test_all_bytes_come_as_they_are(
        self, node: Server, scope: CancelScope, connect: Connect, tmp_path: Path
    ) -> None:
        content = os.urandom(1 << 20) * 16
        (tmp_path / "dump").write_bytes(content)
        with connect(node.hop()) as connection:
            code, out, _ = run(connection, f"cat {shlex.quote(str(tmp_path / 'dump'))}", scope)
        assert (code, out == content) == (0, True)

    def test_what_the_callback_raises_ends_it(self, node: Server, scope: CancelScope, connect: Connect) -> None:
        def too_much(_: bytes) -> None:
            raise KdnsctlError("enough", code="tooLong")

        with connect(node.hop()) as connection:
            with pytest.raises(KdnsctlError) as caught:
                connection.run("cat /dev/zero", stdout=too_much, stderr=lambda _: None, scope=scope)
            assert caught.value.code == "tooLong"
            assert run(connection, "echo still there", scope)[1] == b"still there\n"

    def test_the_end_of_the_scope_ends_it(self, node: Server, scope: CancelScope, connect: Connect) -> None:
        with connect(node.hop()) as connection, scope.child() as inner, pytest.raises(CancelledError):
            connection.run("echo; cat /dev/zero", stdout=lambda _: inner.cancel(), stderr=lambda _: None, scope=inner)

    def test_nothing_is_left(self, node: Server, scope: CancelScope, connect: Connect, own_place: Path) -> None:
        connection = connect(node.hop())
        run(connection, "true", scope)
        assert len(masters(own_place)) == 1
        connection.close()
        assert not list(own_place.iterdir())
        assert masters(own_place) == []

    def test_it_ends_with_its_process_even_if_that_is_killed(self, node: Server, own_place: Path) -> None:
        script = (
            "import sys, time, tempfile; tempfile.tempdir = sys.argv[1]\n"
            "from kdnsctl.cancel import CancelScope\n"
            "from kdnsctl.reach.openssh import OpenSsh\n"
            "from kdnsctl.reach.sshconfig import Hop, SshOptions\n"
            "port, user, key, known = sys.argv[2:]\n"
            "hop = Hop('knode1', '127.0.0.1', int(port), user, (key,), known_hosts=(known,),"
            " host_key_alias='knode1')\n"
            "connection = OpenSsh.open([hop], SshOptions(config='/dev/null'), CancelScope(120))\n"
            "print('open', connection._master.pid, flush=True); sys.stdin.read()\n"
        )
        words = [own_place, str(node.port), node.hop().user, node.key, node.known_hosts]
        command = [sys.executable, "-c", script, *map(str, words)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said, _, pid = process.stdout.readline().strip().partition(" ")
            assert said == "open"
            descriptor = os.pidfd_open(int(pid))
            process.kill()
        try:
            assert select.select([descriptor], [], [], 60)[0], "the ssh is still there"
        finally:
            os.close(descriptor)


class TestTheHost:
    def test_an_unknown_one_is_not_talked_to(self, node: Server, connect: Connect, own_place: Path) -> None:
        error = refused(connect, node.hop(known_hosts=(str(own_place / "none"),)))
        assert error.code == "hostKeyUnknown"
        assert not list(own_place.iterdir())

    def test_accept_new_notes_it(self, node: Server, connect: Connect, tmp_path: Path) -> None:
        known = tmp_path / "known_hosts"
        connect(node.hop(known_hosts=(str(known),)), policy=Policy.ACCEPT_NEW).close()
        assert node.host_key in known.read_text()

    @pytest.mark.parametrize("policy", Policy)
    def test_another_key_is_never_accepted(
        self, node: Server, connect: Connect, tmp_path: Path, policy: Policy
    ) -> None:
        known = tmp_path / "known_hosts"
        known.write_text(f"knode1 {(make_key(tmp_path / 'other').parent / 'other.pub').read_text()}")
        assert refused(connect, node.hop(known_hosts=(str(known),)), policy=policy).code == "hostKeyChanged"

    def test_a_host_certificate_is_what_this_way_is_for(
        self, scope: CancelScope, connect: Connect, tmp_path: Path
    ) -> None:
        authority = make_key(tmp_path / "authority")
        place = tmp_path / "node"
        with server(place, "knode9", options=(f"HostCertificate {place}/host_key-cert.pub",)) as node:
            sign = [
                "ssh-keygen",
                "-q",
                "-s",
                str(authority),
                "-I",
                "knode9",
                "-h",
                "-n",
                "knode9",
                f"{place}/host_key.pub",
            ]
            subprocess.run(sign, check=True)
            node.process.send_signal(1)  # it reads its files anew
            node.known_hosts.write_text(f"@cert-authority * {Path(f'{authority}.pub').read_text()}")
            wait_until_it_listens(node)
            with connect(node.hop()) as connection:
                assert run(connection, "echo in", scope)[1] == b"in\n"


class TestTheWay:
    def test_a_stranger_is_not_let_in(self, node: Server, connect: Connect, tmp_path: Path) -> None:
        key = make_key(tmp_path / "stranger")
        assert refused(connect, node.hop(identity_files=(str(key),), identities_only=True)).code == "sshLogin"

    def test_through_two_hosts_that_the_configuration_knows(
        self, node: Server, scope: CancelScope, connect: Connect, tmp_path: Path
    ) -> None:
        with server(tmp_path / "a", "jump1") as first, server(tmp_path / "b", "jump2") as second:
            config = tmp_path / "config"
            config.write_text("".join(block(jump) for jump in (first, second)))
            hops = [first.hop(), second.hop(), node.hop()]
            with connect(*hops, options=SshOptions(config=str(config))) as connection:
                assert run(connection, "echo through", scope)[1] == b"through\n"

    def test_a_program_of_the_operators(self, node: Server, scope: CancelScope, connect: Connect) -> None:
        command = shlex.join([shutil.which("ssh") or "", "-V"])
        error = refused(connect, node.hop(proxy_command=command))
        assert error.code == "sshUnreachable"
        relay = shlex.join([sys.executable, "-c", RELAY, str(node.port)])
        with connect(node.hop(hostname="192.0.2.1", proxy_command=relay)) as connection:
            assert run(connection, "echo 100%", scope)[1] == b"100%\n"


RELAY = """
import os, socket, sys, threading
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def back():
    while data := s.recv(65536):
        os.write(1, data)
    os._exit(0)
threading.Thread(target=back, daemon=True).start()
while data := os.read(0, 65536):
    s.sendall(data)
"""


def block(node: Server) -> str:
    return (
        f"Host {node.name}\n HostName 127.0.0.1\n HostKeyAlias {node.name}\n IdentityFile {node.key}\n"
        f" IdentitiesOnly yes\n UserKnownHostsFile {node.known_hosts}\n"
    )


def wait_until_it_listens(node: Server) -> None:
    assert node.process.stderr is not None
    for line in node.process.stderr:
        if "Server listening" in line:
            return
    raise AssertionError("it ended")
