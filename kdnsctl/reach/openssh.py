"""The OpenSSH client as the way to a host: for what only it can do, such as host certificates and hardware keys.

It logs in once, and what follows goes over the same connection (ControlMaster). That connection is held by a `cat` on
the host that reads from this process: when this process ends, however that comes, the `cat` ends, and the connection
with it. It never asks anything: what needs an answer has to be in the agent. What is run, and what its output means, is
not known here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Final, Self

from kdnsctl.cancel import CancelScope
from kdnsctl.model import KdnsctlError
from kdnsctl.reach.hostkeys import Policy
from kdnsctl.reach.sshconfig import Hop, SshOptions
from kdnsctl.reach.sshconnection import Limits
from kdnsctl.reach.sshlogin import SshError

PATIENCE: Final = 5.0  # seconds that a connection gets to end by itself
_READY: Final = b"kdnsctl-ready"
_HOLD: Final = f"echo {_READY.decode()}; cat"
_LONGEST_SOCKET: Final = 60  # bytes of a directory: a socket's path has 103 (macOS) or 107, and ssh adds 17 of its own
_PIECE: Final = 128 * 1024
_COMPLAINT: Final = 4096  # bytes kept of what ssh itself says


class OpenSsh:
    """One host, through OpenSSH. Commands can be run one after the other, or at once from several threads."""

    def __init__(self, hop: Hop, base: Sequence[str], directory: Path) -> None:
        self.hop = hop
        self._base = (*base, "-o", f"ControlPath={directory}/c")
        self._directory = directory
        self._master: subprocess.Popen[bytes] | None = None

    @classmethod
    def open(
        cls,
        hops: Sequence[Hop],
        options: SshOptions,
        scope: CancelScope,
        *,
        policy: Policy = Policy.STRICT,
        limits: Limits | None = None,
    ) -> Self:
        """Log in at the last of `hops`, which `way_to` has found for these options. Raises SshError."""
        limits = limits or Limits()
        client = shutil.which("ssh", path=(options.environment or os.environ).get("PATH"))
        if client is None:
            raise SshError("there is no OpenSSH client on this machine", hint="install openssh-client, or --via ssh")
        directory = Path(tempfile.mkdtemp(prefix="kdnsctl-", dir=_place_for_sockets()))
        opened = cls(hops[-1], [client, *_options(hops, options.config, policy, limits)], directory)
        try:
            opened._log_in(scope, limits)
        except BaseException:
            opened.close()
            raise
        return opened

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
        """Run one line in the user's shell there, as `SshConnection.run` does.

        The exit code 255 is told as it is: whether it is the command's or ssh's own cannot be known.
        """
        scope.check()
        process = self._start(["-o", "ControlMaster=no", "--", self.hop.hostname, command])
        with process, scope.closing(process.kill):
            opened()
            complaints = threading.Thread(target=_pump, args=(process.stderr, stderr), name="ssh-stderr", daemon=True)
            complaints.start()
            try:
                _give(process.stdin, stdin)
                _pump(process.stdout, stdout)
            except BaseException:
                process.kill()
                raise
            finally:
                complaints.join()
        scope.check()
        if process.returncode < 0:
            raise SshError(f"the ssh that went to {self.hop.name} was killed", code="cutOff")
        return process.returncode

    def close(self) -> None:
        """End the connection."""
        master, self._master = self._master, None
        if master is not None:
            with master:
                _give(master.stdin, b"")
                try:
                    master.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    master.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _log_in(self, scope: CancelScope, limits: Limits) -> None:
        """Start what holds the connection, and wait until the host's shell has answered."""
        master = self._start(["-o", "ControlMaster=yes", "-o", "ControlPersist=no", "--", self.hop.hostname, _HOLD])
        self._master = master
        said = bytearray()

        def keep(piece: bytes) -> None:
            said.extend(piece[: _COMPLAINT - len(said)])

        complaints = threading.Thread(target=_pump, args=(master.stderr, keep), name="ssh-stderr", daemon=True)
        complaints.start()
        with scope.child(limits.connect + limits.banner + limits.login) as limit, limit.closing(master.kill):
            assert master.stdout is not None  # noqa: S101 - PIPE was asked for
            answered, told = False, b""
            while not answered and (line := master.stdout.readline(_COMPLAINT)):
                answered, told = line.rstrip().endswith(_READY), line.strip() or told
            scope.check()
            if limit.reason is not None:
                what = f"no SSH session on {self.hop.name}: {limit.reason.message}; it may have let us in, and hangs"
                raise SshError(what, code="noAnswer")
        if not answered:
            master.wait()
            complaints.join()
            raise self._failure(bytes(said), told)

    def _failure(self, said: bytes, told: bytes) -> SshError:
        """Of what ssh has `said`, and what the login there has `told` before it ended."""
        if told and not said.strip():
            words = "".join(c if c.isprintable() else "?" for c in told.decode("utf-8", "replace"))[:200]
            return SshError(f"no command can be run on {self.hop.name} over SSH: {words}", code="noShell")
        text = said.decode("utf-8", "replace").strip()
        last = text.splitlines()[-1] if text else "ssh said nothing"
        for sign, code in _SIGNS:
            if sign in text:
                return SshError(f"no SSH connection to {self.hop.name}: {last}", code=code)
        return SshError(f"no SSH connection to {self.hop.name}: {last}", code="sshUnreachable")

    def _start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                [*self._base, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise KdnsctlError(f"ssh cannot be started: {error.strerror}") from error


# What OpenSSH says (sshconnect.c, sshconnect2.c), and what it means for whoever groups nodes by it.
_SIGNS: Final = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "hostKeyChanged"),
    ("REVOKED HOST KEY", "hostKeyRevoked"),
    ("Host key verification failed", "hostKeyUnknown"),
    ("Permission denied", "sshLogin"),
    ("Too many authentication failures", "sshLogin"),
)


def _options(hops: Sequence[Hop], config: str | None, policy: Policy, limits: Limits) -> list[str]:
    """All that is known of the way, in ssh's words. What the configuration says of other things counts as well."""
    hop, jumps = hops[-1], hops[:-1]
    settings = [
        ("BatchMode", "yes"),
        ("StrictHostKeyChecking", "yes" if policy is Policy.STRICT else policy.value),
        ("ConnectTimeout", str(max(1, round(limits.connect)))),
        ("ServerAliveInterval", str(limits.keepalive)),
        ("ServerAliveCountMax", "3"),
        ("LogLevel", "ERROR"),
        ("GSSAPIAuthentication", "no"),  # its look-ups hang where DNS is what is broken
        ("Port", str(hop.port)),
        ("IdentitiesOnly", "yes" if hop.identities_only else "no"),
        ("UserKnownHostsFile", " ".join(f'"{file}"' for file in hop.known_hosts) or "none"),
        *(("IdentityFile", file) for file in hop.identity_files),
        *(("CertificateFile", file) for file in hop.certificate_files),
    ]
    if hop.user:
        settings.append(("User", hop.user))
    if hop.host_key_alias:
        settings.append(("HostKeyAlias", hop.host_key_alias))
    if hop.agent:
        settings.append(("IdentityAgent", hop.agent))
    if hop.proxy_command:
        settings.append(("ProxyCommand", hop.proxy_command.replace("%", "%%")))
    else:
        settings.append(("ProxyJump", ",".join(map(_jump, jumps)) or "none"))
    words = ["-T", *(["-F", config] if config else [])]
    for key, value in settings:
        words += ["-o", f"{key}={value}"]
    return words


def _jump(hop: Hop) -> str:
    """Its name, not its address: the ssh that goes there reads what the configuration says of it."""
    host = f"[{hop.name}]" if ":" in hop.name else hop.name
    return f"{hop.user}@{host}:{hop.port}" if hop.user else f"{host}:{hop.port}"


def _place_for_sockets() -> str | None:
    """The usual temporary directory, unless its path is so long that no socket fits below it."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= _LONGEST_SOCKET else "/tmp"  # noqa: S108 - mkdtemp makes a safe one in it


def _give(stream: IO[bytes] | None, content: bytes) -> None:
    assert stream is not None  # noqa: S101 - PIPE was asked for
    with contextlib.suppress(BrokenPipeError), stream:
        stream.write(content)


def _pump(stream: IO[bytes] | None, take: Callable[[bytes], None]) -> None:
    assert stream is not None  # noqa: S101 - PIPE was asked for
    with contextlib.suppress(ValueError):  # closed meanwhile, in the thread that waits for the end
        while piece := os.read(stream.fileno(), _PIECE):
            take(piece)
