"""A `NodeShell` over SSH, by paramiko or by the OpenSSH client: the node's own tools, in its host's namespaces.

What needs root there is run with sudo, unless the login is root. A password for sudo goes to its standard input and
nowhere else. What kube-proxy tells of itself over HTTP is not asked this way.
"""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from kdnsctl.cancel import CancelScope
from kdnsctl.model import Fact, KdnsctlError, NodeChange, Privilege, Toolset
from kdnsctl.reach.readings import SLACK, ReadingLog, as_fact, read_command
from kdnsctl.reach.shell import Reading, Sink

SSH: Final = "ssh"
OPENSSH: Final = "openssh"
_ASKING: Final = 30.0  # seconds for a command that only tells who we are
_WORDS: Final = 4096  # bytes of its answer
_NEVER_ASK: Final = ("sudo", "-n", "--")
_ASK_STDIN: Final = ("sudo", "-S", "-p", "", "--")


class SudoError(KdnsctlError):
    """The login is not root there, and may not become it."""

    code = "sudo"


class Host(Protocol):
    """A host that is logged in at: `SshConnection`, `OpenSsh`."""

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
        """Run one line in the user's shell there; its exit code."""


class SshShell:
    """One node. `rung` is SSH or OPENSSH; `password` tells what sudo on it asks for, None when nobody knows."""

    def __init__(self, host: Host, node: str, rung: str, password: Callable[[str], str | None]) -> None:
        self._host = host
        self._node = node
        self._rung = rung
        self._password = password
        self._turn = threading.Lock()
        self._user: int | None = None
        self._no_sudo: SudoError | None = None
        self._root: tuple[tuple[str, ...], bytes] | None = None  # what goes before a command that needs root, and stdin

    @property
    def node(self) -> str:
        return self._node

    @property
    def rung(self) -> str:
        return self._rung

    @property
    def toolsets(self) -> tuple[Toolset, ...]:
        return (Toolset.HOST, Toolset.KUBE_PROXY)  # what kube-proxy's image has, every node has too

    def can(self, fact: Fact) -> bool:
        return fact.command(self.toolsets) is not None

    def command(self, fact: Fact) -> tuple[str, ...] | None:
        return fact.command(self.toolsets)

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        command = fact.command(self.toolsets)
        if command is None:
            raise KdnsctlError(f"{fact.title} cannot be read over SSH: it is no command's output", code="noTool")
        with self._my_turn(scope):
            before, stdin = ((), b"") if fact.privilege is Privilege.NONE else self._as_root(scope)
            with scope.child(fact.seconds + SLACK) as limit:
                log = ReadingLog(fact, self._node, self._rung, sink)

                def run(line: list[str], stdout: Callable[[bytes], None]) -> None:
                    self._host.run(
                        shlex.join([*before, *line]),
                        stdout=stdout,
                        stderr=log.complain,
                        scope=limit,
                        stdin=stdin,
                        opened=log.begin,
                    )

                return read_command(fact, command, log, scope, run)

    def probe(self, scope: CancelScope) -> None:
        """See whether a command can be run at all. Raises KdnsctlError (`noShell`, `noAnswer`), what ended `scope`."""
        if self._user is None:
            self._user = self._find_user(scope)

    def can_change(self, change: NodeChange) -> bool:
        return self.can(as_fact(change))

    def change(self, change: NodeChange, sink: Sink, *, scope: CancelScope) -> Reading:
        return self.read(as_fact(change), sink, scope=scope)

    def _as_root(self, scope: CancelScope) -> tuple[tuple[str, ...], bytes]:
        """How to be root there; found out once. Raises SudoError, and what `probe` raises."""
        self.probe(scope)
        if self._root is None:
            self._root = ((), b"") if self._user == 0 else self._find_sudo(scope)
        return self._root

    def _find_user(self, scope: CancelScope) -> int:
        code, said, complaint = self._ask(("id", "-u"), scope)
        if code or not said.strip().isdigit():
            why = _first_line(complaint or said) or f"exit code {code}"
            raise KdnsctlError(f"no command can be run on {self._node} over SSH: {why}", code="noShell")
        return int(said)

    def _find_sudo(self, scope: CancelScope) -> tuple[tuple[str, ...], bytes]:
        if self._no_sudo is not None:
            raise self._no_sudo
        try:
            return self._ask_sudo(scope)
        except SudoError as error:
            self._no_sudo = error  # asked for once: an account is locked after some wrong passwords
            raise

    def _ask_sudo(self, scope: CancelScope) -> tuple[tuple[str, ...], bytes]:
        code, _, refused = self._ask((*_NEVER_ASK, "true"), scope)
        if code == 0:
            return _NEVER_ASK, b""
        password = self._password(self._node)
        if password is None:
            raise SudoError(
                f"sudo on {self._node} needs a password, or is not allowed: {_first_line(refused)}",
                hint="log in as root (--ssh-user), allow sudo without a password, or give it: --sudo-password-fd",
            )
        stdin = password.encode() + b"\n"
        code, _, refused = self._ask((*_ASK_STDIN, "true"), scope, stdin)
        if code:
            raise SudoError(f"sudo on {self._node} refuses: {_first_line(refused)}")
        return _ASK_STDIN, stdin

    def _ask(self, command: Sequence[str], scope: CancelScope, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        said, complaint = bytearray(), bytearray()
        with scope.child(_ASKING) as limit:
            try:
                code = self._host.run(
                    shlex.join(command),
                    stdout=lambda piece: said.extend(piece[: _WORDS - len(said)]),
                    stderr=lambda piece: complaint.extend(piece[: _WORDS - len(complaint)]),
                    scope=limit,
                    stdin=stdin,
                )
            except KdnsctlError as error:
                scope.check()
                if limit.reason is None:
                    raise
                what = f"{self._node} lets one in over SSH, and then does not answer: {error}"
                raise KdnsctlError(what, code="noAnswer") from error
        return code, bytes(said), bytes(complaint)

    @contextlib.contextmanager
    def _my_turn(self, scope: CancelScope) -> Iterator[None]:
        left = scope.remaining()
        if not self._turn.acquire(timeout=-1 if left is None else left):
            scope.check()
            raise KdnsctlError(f"{self._node} was busy for all the time there was", code="deadline")
        try:
            yield
        finally:
            self._turn.release()


def _first_line(said: bytes) -> str:
    text = said.decode("utf-8", "replace").strip().splitlines()
    return "".join(character if character.isprintable() else "?" for character in text[0])[:200] if text else ""
