"""Reading facts over SSH: commands run for real by a shell of this machine, behind a host that is played."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
from collections.abc import Callable

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.model import Endpoint, Fact, KdnsctlError, Privilege, Proof, Toolset
from kdnsctl.reach import sshshell
from kdnsctl.reach.sshlogin import SshError
from kdnsctl.reach.sshshell import SSH, SshShell, SudoError

PASSWORD = "correct horse"


class Host:
    """Runs what it is given, but plays `id` and `sudo`; `cut` bytes are lost at the end, and then it breaks off."""

    def __init__(self, *, uid: int = 1000, sudo: str = "free", cut: int = 0) -> None:
        self.lines: list[str] = []
        self._uid, self._sudo, self._cut = uid, sudo, cut

    def run(
        self,
        command: str,
        *,
        stdout: Callable[[bytes], None],
        stderr: Callable[[bytes], None],
        scope: CancelScope,
        stdin: bytes = b"",
        opened: Callable[[], None] = lambda: None,
    ) -> int:
        scope.check()
        self.lines.append(command)
        words = shlex.split(command)
        opened()
        if words == ["id", "-u"]:
            stdout(b"%d\n" % self._uid)
            return 0
        if words[0] == "sudo":
            asked = "-S" in words
            if self._sudo == "never" or (self._sudo == "asks" and (not asked or stdin != PASSWORD.encode() + b"\n")):
                stderr(b"sudo: a password is required\x1b[31m\n")
                return 1
            words = words[words.index("--") + 1 :]
        ran = subprocess.run(words, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        stderr(ran.stderr)
        stdout(ran.stdout[: len(ran.stdout) - self._cut])
        if self._cut and words != ["true"]:
            raise SshError("the connection ended before the command", code="cutOff")
        return ran.returncode


def fact(*command: str, **given: object) -> Fact:
    plain = Fact("test", "it", Privilege.ROOT, Proof.TRAILER, 1 << 20, 20, {Toolset.KUBE_PROXY: command})
    return dataclasses.replace(plain, **given)  # type: ignore[arg-type]


def shell(host: Host, password: str | None = None) -> SshShell:
    return SshShell(host, "knode1", SSH, lambda _: password)


@pytest.fixture
def scope() -> CancelScope:
    return CancelScope()


def test_a_whole_output_is_proven(scope: CancelScope) -> None:
    out = bytearray()
    reading = shell(Host(uid=0)).read(fact("printf", "a\\nb"), out.extend, scope=scope)
    assert (bytes(out), reading.complete, reading.exit_code, reading.rung) == (b"a\nb", True, 0, "ssh")


def test_an_output_that_breaks_off_is_never_whole(scope: CancelScope) -> None:
    out = bytearray()
    reading = shell(Host(uid=0, cut=5)).read(fact("echo", "hello"), out.extend, scope=scope)
    assert not reading.complete
    assert reading.problem is not None
    assert reading.problem.code == "cutOff"


def test_root_needs_no_sudo_and_what_anybody_may_read_needs_none(scope: CancelScope) -> None:
    root, anybody = Host(uid=0), Host()
    shell(root).read(fact("true"), lambda _: None, scope=scope)
    shell(anybody).read(fact("true", privilege=Privilege.NONE), lambda _: None, scope=scope)
    assert not any("sudo" in line for line in (*root.lines, *anybody.lines))


def test_sudo_never_asks_where_it_need_not(scope: CancelScope) -> None:
    host = Host()
    node = shell(host, PASSWORD)
    for _ in range(2):
        assert node.read(fact("true"), lambda _: None, scope=scope).complete
    assert [line.split()[:2] for line in host.lines[1:]] == [["sudo", "-n"]] * 3
    assert host.lines[0] == "id -u"


def test_the_password_of_sudo_is_in_no_command_line(scope: CancelScope) -> None:
    host = Host(sudo="asks")
    out = bytearray()
    assert shell(host, PASSWORD).read(fact("echo", "hello"), out.extend, scope=scope).complete
    assert bytes(out) == b"hello\n"
    assert not any("horse" in line for line in host.lines)


@pytest.mark.parametrize(("sudo", "password"), [("never", PASSWORD), ("asks", "wrong"), ("asks", None)])
def test_who_may_not_become_root_is_told_and_reads_nothing(scope: CancelScope, sudo: str, password: str | None) -> None:
    out = bytearray()
    with pytest.raises(SudoError, match="knode1") as caught:
        shell(Host(sudo=sudo), password).read(fact("echo", "hello"), out.extend, scope=scope)
    assert out == b""
    assert "\x1b" not in str(caught.value)


def test_a_password_that_sudo_refuses_is_not_offered_again(scope: CancelScope) -> None:
    host = Host(sudo="asks")
    node = shell(host, "wrong")
    for _ in range(3):
        with pytest.raises(SudoError, match="refuses"):
            node.read(fact("true"), lambda _: None, scope=scope)
    assert sum("-S" in line for line in host.lines) == 1


def test_a_login_without_a_shell_is_told_before_anything_is_read(scope: CancelScope) -> None:
    class NoShell(Host):
        def run(self, *_: object, stdout: Callable[[bytes], None], **__: object) -> int:
            stdout(b"This account is currently not available.\n")
            return 1

    with pytest.raises(KdnsctlError, match="not available") as caught:
        shell(NoShell()).probe(scope)
    assert caught.value.code == "noShell"


def test_a_login_after_which_nothing_answers_is_told_as_that(
    scope: CancelScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(Host):
        def run(self, *_: object, scope: CancelScope, **__: object) -> int:
            scope.cancelled.wait()
            scope.check()
            return 0

    monkeypatch.setattr(sshshell, "_ASKING", 0.01)
    with pytest.raises(KdnsctlError, match="does not answer") as caught:
        shell(Hanging()).probe(scope)
    assert caught.value.code == "noAnswer"


def test_what_kube_proxy_tells_over_http_is_not_asked_this_way(scope: CancelScope) -> None:
    asked = fact(commands={}, endpoint=Endpoint(10249, "/metrics"))
    node = shell(Host())
    assert not node.can(asked)
    with pytest.raises(KdnsctlError, match="cannot be read over SSH"):
        node.read(asked, lambda _: None, scope=scope)


def test_a_command_that_fails_is_not_whole_and_its_complaint_is_kept(scope: CancelScope) -> None:
    reading = shell(Host(uid=0)).read(fact("cat", "/nonexistent"), lambda _: None, scope=scope)
    assert not reading.complete
    assert reading.exit_code == 1
    assert b"/nonexistent" in reading.stderr
