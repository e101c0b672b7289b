import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.model import CancelledError, KdnsctlError
from kdnsctl.reach.hostkeys import HostKeys, Policy
from kdnsctl.reach.sshconfig import Hop
from kdnsctl.reach.sshconnection import Limits, SshConnection
from kdnsctl.reach.sshlogin import KeyRing, NoSecrets, SshError
from tests.unit.reach.sshservers import Server, make_key, server


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("node"), "knode1") as started:
        yield started


@pytest.fixture
def scope() -> Iterator[CancelScope]:
    with CancelScope(120) as scope:
        yield scope


def connect(
    hops: list[Hop],
    scope: CancelScope,
    host_keys: HostKeys | None = None,
    keys: KeyRing | None = None,
    limits: Limits | None = None,
) -> SshConnection:
    keys = keys or KeyRing(NoSecrets())
    return SshConnection.open(hops, host_keys or HostKeys(), keys, scope, limits=limits or Limits())


def run(connection: SshConnection, command: str, scope: CancelScope, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    out, err = bytearray(), bytearray()
    code = connection.run(command, stdout=out.extend, stderr=err.extend, scope=scope, stdin=stdin)
    return code, bytes(out), bytes(err)


def refused(hops: list[Hop], scope: CancelScope, **how: object) -> SshError:
    with pytest.raises(SshError) as caught:
        connect(hops, scope, **how)  # type: ignore[arg-type]
    return caught.value


class Knows:
    """Somebody to ask."""

    def __init__(self, passphrase: str) -> None:
        self.asked: list[str] = []
        self._passphrase = passphrase

    def passphrase(self, file: str) -> str | None:
        self.asked.append(file)
        return self._passphrase

    def sudo_password(self, node: str) -> str | None:
        raise AssertionError(node)


class TestRunning:
    def test_both_outputs_and_the_exit_code(self, node: Server, scope: CancelScope) -> None:
        with connect([node.hop()], scope) as connection:
            assert run(connection, "echo out; echo err >&2; exit 7", scope) == (7, b"out\n", b"err\n")
            assert run(connection, "true", scope) == (0, b"", b"")

    def test_what_it_may_read(self, node: Server, scope: CancelScope) -> None:
        with connect([node.hop()], scope) as connection:
            assert run(connection, "cat", scope, stdin=b"secret\n") == (0, b"secret\n", b"")
            assert run(connection, "cat", scope) == (0, b"", b"")

    def test_bytes_come_as_they_are_and_all_of_them(self, node: Server, scope: CancelScope, tmp_path: Path) -> None:
        content = os.urandom(1 << 20) * 32
        (tmp_path / "dump").write_bytes(content)
        with connect([node.hop()], scope) as connection:
            code, out, err = run(connection, f"cat {shlex.quote(str(tmp_path / 'dump'))}", scope)
        assert (code, out == content, err) == (0, True, b"")

    def test_a_flood_on_stderr_stops_nothing(self, node: Server, scope: CancelScope) -> None:
        flood = f"{shlex.quote(sys.executable)} -c 'import sys; sys.stderr.write(\"x\" * 50_000_000); print(1)'"
        seen = [0]
        with connect([node.hop()], scope) as connection:
            out = bytearray()

            def count(piece: bytes) -> None:
                seen[0] += len(piece)

            assert connection.run(flood, stdout=out.extend, stderr=count, scope=scope) == 0
        assert (bytes(out), seen[0]) == (b"1\n", 50_000_000)

    def test_what_the_callback_raises_ends_it(self, node: Server, scope: CancelScope) -> None:
        def too_much(_: bytes) -> None:
            raise KdnsctlError("enough", code="tooLong")

        with connect([node.hop()], scope) as connection:
            with pytest.raises(KdnsctlError) as caught:
                connection.run("cat /dev/zero", stdout=too_much, stderr=lambda _: None, scope=scope)
            assert caught.value.code == "tooLong"
            assert run(connection, "echo still there", scope)[1] == b"still there\n"

    def test_a_connection_that_ends_before_its_command_is_no_success(self, node: Server, scope: CancelScope) -> None:
        with connect([node.hop()], scope) as connection, pytest.raises(SshError) as caught:
            # The parent of the shell is the sshd of this session.
            run(connection, "echo some; kill -KILL $PPID; cat", scope)
        assert caught.value.code in ("cutOff", "sshUnreachable")

    def test_several_at_once(self, node: Server, scope: CancelScope) -> None:
        results: list[tuple[int, bytes, bytes]] = []
        with connect([node.hop()], scope) as connection:
            work = [
                threading.Thread(target=lambda n=n: results.append(run(connection, f"echo {n}; exit {n}", scope)))
                for n in range(8)
            ]
            for thread in work:
                thread.start()
            for thread in work:
                thread.join()
        assert sorted(results) == [(n, f"{n}\n".encode(), b"") for n in range(8)]


class TestKnowingTheHost:
    def test_an_unknown_host_is_not_talked_to(self, node: Server, scope: CancelScope, tmp_path: Path) -> None:
        error = refused([node.hop(known_hosts=(str(tmp_path / "none"),))], scope)
        assert error.code == "hostKeyUnknown"
        assert "SHA256:" in str(error)
        assert not (tmp_path / "none").exists()

    @pytest.mark.parametrize("hashed", [False, True])
    def test_accept_new_notes_it_once(self, node: Server, scope: CancelScope, tmp_path: Path, hashed: bool) -> None:
        hop = node.hop(known_hosts=(str(tmp_path / "new" / "known_hosts"),), hash_known_hosts=hashed)
        notes: list[str] = []
        for _ in range(2):
            connect([hop], scope, HostKeys(Policy.ACCEPT_NEW, notes.append)).close()
        (line,) = (tmp_path / "new" / "known_hosts").read_text().splitlines()
        assert line.startswith("|1|" if hashed else "knode1 ")
        assert line.endswith(node.host_key)
        assert len(notes) == 1
        connect([hop], scope).close()  # strict now

    @pytest.mark.parametrize("policy", Policy)
    def test_another_key_than_the_known_one_is_never_accepted(
        self, node: Server, scope: CancelScope, tmp_path: Path, policy: Policy
    ) -> None:
        other = (make_key(tmp_path / "other").parent / "other.pub").read_text()
        known = tmp_path / "known_hosts"
        known.write_text(f"knode1 {other}")
        error = refused([node.hop(known_hosts=(str(known),))], scope, host_keys=HostKeys(policy))
        assert error.code == "hostKeyChanged"
        assert known.read_text() == f"knode1 {other}"

    def test_a_revoked_key_is_never_accepted(self, node: Server, scope: CancelScope, tmp_path: Path) -> None:
        known = tmp_path / "known_hosts"
        known.write_text(f"knode1 {node.host_key}\n@revoked * {node.host_key}\n")
        assert refused([node.hop(known_hosts=(str(known),))], scope).code == "hostKeyRevoked"

    def test_an_authority_alone_needs_openssh_and_hides_nothing(
        self, node: Server, scope: CancelScope, tmp_path: Path
    ) -> None:
        known = tmp_path / "known_hosts"
        known.write_text(f"@cert-authority * {node.host_key}\n")
        error = refused([node.hop(known_hosts=(str(known),))], scope)
        assert (error.code, "--via openssh" in error.hint) == ("hostKeyCertificate", True)
        known.write_text(f"@cert-authority * {node.host_key}\nknode1 {node.host_key}\n")
        connect([node.hop(known_hosts=(str(known),))], scope).close()

    def test_of_several_keys_the_known_one_is_asked_for(self, scope: CancelScope, tmp_path: Path) -> None:
        """A server with two keys shows the one we know; its other one would look like a change."""
        make_key(tmp_path / "second", kind="rsa")
        with server(tmp_path / "node", "knode9", options=(f"HostKey {tmp_path}/second",)) as node:
            node.known_hosts.write_text(f"knode9 {(tmp_path / 'second.pub').read_text()}")
            connect([node.hop()], scope).close()
            node.known_hosts.write_text(f"knode9 {node.host_key}\n")
            connect([node.hop()], scope).close()


class TestLoggingIn:
    def test_a_key_with_a_passphrase_is_asked_for_once(self, node: Server, scope: CancelScope, tmp_path: Path) -> None:
        key = make_key(tmp_path / "locked", passphrase="open sesame")
        with authorized(node, tmp_path / "locked.pub"):
            knows = Knows("open sesame")
            keys = KeyRing(knows)
            for _ in range(2):
                connect([node.hop(identity_files=(str(key),))], scope, keys=keys).close()
            assert knows.asked == [str(key)]

    def test_nobody_to_ask_is_said(self, node: Server, scope: CancelScope, tmp_path: Path) -> None:
        key = make_key(tmp_path / "locked", passphrase="open sesame")
        error = refused([node.hop(identity_files=(str(key),))], scope)
        assert error.code == "sshLogin"
        assert "passphrase" in str(error)
        assert "open sesame" not in str(error)

    def test_a_wrong_passphrase_is_not_shown(self, node: Server, scope: CancelScope, tmp_path: Path) -> None:
        key = make_key(tmp_path / "locked", passphrase="open sesame")
        error = refused([node.hop(identity_files=(str(key),))], scope, keys=KeyRing(Knows("swordfish")))
        assert error.code == "sshLogin"
        assert "swordfish" not in str(error)

    def test_a_stranger_is_not_let_in_and_told_what_was_tried(
        self, node: Server, scope: CancelScope, tmp_path: Path
    ) -> None:
        key = make_key(tmp_path / "stranger")
        error = refused([node.hop(identity_files=(str(key), str(tmp_path / "absent")))], scope)
        assert error.code == "sshLogin"
        assert str(key) in str(error)
        assert "absent" not in str(error)

    def test_the_agents_keys_are_tried(self, node: Server, scope: CancelScope, tmp_path: Path) -> None:
        with agent(tmp_path, node.key) as path:
            connect([node.hop(identity_files=(), agent=path)], scope).close()

    def test_of_the_agents_keys_only_those_named(self, node: Server, scope: CancelScope, tmp_path: Path) -> None:
        other = make_key(tmp_path / "other")
        with agent(tmp_path, node.key) as path:
            only_other = node.hop(identity_files=(str(other),), agent=path, identities_only=True)
            assert refused([only_other], scope).code == "sshLogin"
            public = tmp_path / "hardware"  # the key itself is in the agent only
            shutil.copy(f"{node.key}.pub", f"{public}.pub")
            connect([node.hop(identity_files=(str(public),), agent=path, identities_only=True)], scope).close()

    def test_an_agent_that_is_gone_is_no_reason_to_give_up(
        self, node: Server, scope: CancelScope, tmp_path: Path
    ) -> None:
        connect([node.hop(agent=str(tmp_path / "gone"))], scope).close()

    def test_a_certificate_lets_in_where_the_key_does_not(self, scope: CancelScope, tmp_path: Path) -> None:
        authority = make_key(tmp_path / "authority")
        key = make_key(tmp_path / "id_certified")
        with server(tmp_path / "node", "knode9", options=(f"TrustedUserCAKeys {authority}.pub",)) as node:
            hop = node.hop(identity_files=(str(key),))
            assert refused([hop], scope).code == "sshLogin"
            command = ["ssh-keygen", "-q", "-s", str(authority), "-I", "alice", "-n", hop.user, f"{key}.pub"]
            subprocess.run(command, check=True)
            connect([hop], scope).close()
            moved = tmp_path / "elsewhere-cert.pub"
            Path(f"{key}-cert.pub").rename(moved)
            connect([node.hop(identity_files=(str(key),), certificate_files=(str(moved),))], scope).close()


class TestTheWay:
    @pytest.fixture
    def jumps(self, tmp_path: Path) -> Iterator[list[Server]]:
        with server(tmp_path / "first", "jump1") as first, server(tmp_path / "second", "jump2") as second:
            yield [first, second]

    def test_through_two_hosts(self, node: Server, jumps: list[Server], scope: CancelScope) -> None:
        hops = [*(jump.hop() for jump in jumps), node.hop()]
        with connect(hops, scope) as connection:
            assert run(connection, "echo $SSH_CONNECTION", scope)[1].split()[3] == str(node.port).encode()

    def test_a_host_on_the_way_must_be_known_too(
        self, node: Server, jumps: list[Server], scope: CancelScope, tmp_path: Path
    ) -> None:
        hops = [jumps[0].hop(), jumps[1].hop(known_hosts=(str(tmp_path / "none"),)), node.hop()]
        error = refused(hops, scope)
        assert (error.code, "jump2" in str(error)) == ("hostKeyUnknown", True)

    def test_a_program_of_the_operators(self, node: Server, scope: CancelScope) -> None:
        relay = (
            "import os,socket,sys,threading\n"
            "s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
            "back = lambda: [os.write(1, d) for d in iter(lambda: s.recv(65536), b'')]\n"
            "threading.Thread(target=back, daemon=True).start()\n"
            "[s.sendall(d) for d in iter(lambda: os.read(0, 65536), b'')]"
        )
        command = shlex.join([sys.executable, "-c", relay, str(node.port)])
        with connect([node.hop(hostname="192.0.2.1", proxy_command=command)], scope) as connection:
            assert run(connection, "echo here", scope)[1] == b"here\n"


class TestThatItEnds:
    def test_nobody_there(self, scope: CancelScope, node: Server) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            error = refused([node.hop(port=closed.getsockname()[1])], scope)
        assert error.code == "sshUnreachable"
        assert "refused" in str(error)

    def test_somebody_who_says_nothing(self, scope: CancelScope, node: Server) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            hop = node.hop(port=silent.getsockname()[1])
            error = refused([hop], scope, limits=Limits(banner=0.2))
        assert error.code == "sshUnreachable"

    def test_somebody_who_speaks_another_protocol(self, scope: CancelScope, node: Server) -> None:
        with socket.create_server(("127.0.0.1", 0)) as web:

            def respond() -> None:
                with web.accept()[0] as connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 100)

            answer = threading.Thread(target=respond)
            answer.start()
            error = refused([node.hop(port=web.getsockname()[1])], scope, limits=Limits(banner=2))
            answer.join()
        assert error.code == "sshUnreachable"

    def test_a_server_that_is_stopped_between_banner_and_login(self, scope: CancelScope, tmp_path: Path) -> None:
        with server(tmp_path / "node", "knode9") as node:
            os.kill(node.process.pid, signal.SIGSTOP)
            try:
                assert refused([node.hop()], scope, limits=Limits(banner=0.2)).code == "sshUnreachable"
            finally:
                os.kill(node.process.pid, signal.SIGCONT)

    def test_the_end_of_the_scope_ends_a_command(self, node: Server, scope: CancelScope) -> None:
        with scope.child() as inner, connect([node.hop()], scope) as connection, pytest.raises(CancelledError):
            connection.run("cat", stdout=lambda _: None, stderr=lambda _: None, scope=inner, opened=inner.cancel)

    def test_the_end_of_the_scope_ends_a_connecting(self, scope: CancelScope, node: Server) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent, scope.child() as inner:
            hop = node.hop(port=silent.getsockname()[1])

            def accept_and_end() -> None:
                with silent.accept()[0]:
                    inner.cancel()

            ending = threading.Thread(target=accept_and_end)
            ending.start()
            with pytest.raises(CancelledError):
                connect([hop], inner)
            ending.join()

    def test_nothing_is_left_running(self, node: Server, scope: CancelScope) -> None:
        def ours() -> set[threading.Thread]:
            return {one for one in threading.enumerate() if one.name.startswith(("Thread-", "ssh-", "paramiko"))}

        before = ours()
        with connect([node.hop()], scope) as connection:
            run(connection, "true", scope)
        for thread in ours() - before:
            thread.join()
        assert ours() <= before


@contextlib.contextmanager
def authorized(node: Server, public: Path) -> Iterator[None]:
    """Let one more key in."""
    file = node.place / "authorized_keys"
    before = file.read_text()
    file.write_text(before + public.read_text())
    try:
        yield
    finally:
        file.write_text(before)


@contextlib.contextmanager
def agent(place: Path, key: Path) -> Iterator[str]:
    path = str(place / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it says where it listens when it does
        subprocess.run(
            ["ssh-add", "-q", key], check=True, env=os.environ | {"SSH_AUTH_SOCK": path}, capture_output=True
        )
        yield path
    finally:
        process.terminate()
        process.communicate()
