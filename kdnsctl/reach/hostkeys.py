"""Whether a host is who it should be: the known_hosts files of a hop, and what the operator allows beyond them.

Strict unless said otherwise. `accept-new` notes the key of a host that is not known at all; a key that is another than
the known one is never accepted, by nobody's leave.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from kdnsctl.reach.knownhosts import Answer, HostKey, Known, Line, judge, known_of, line_for, parse
from kdnsctl.reach.sshconfig import Hop
from kdnsctl.reach.sshlogin import SshError

_LARGEST: Final = 64 * 1024 * 1024  # bytes of one known_hosts file
_RSA: Final = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")  # signatures that an ssh-rsa key makes (RFC 8332)


class Policy(enum.StrEnum):
    """What becomes of a host that no file knows."""

    STRICT = "strict"
    ACCEPT_NEW = "accept-new"


class HostKeys:
    """The known hosts of one run. Safe to use from several threads: files are read once, and appended to in turns."""

    def __init__(self, policy: Policy = Policy.STRICT, note: Callable[[str], None] = lambda _: None) -> None:
        self._policy = policy
        self._note = note
        self._lock = threading.Lock()
        self._lines: dict[str, list[Line]] = {}

    def preferred(self, hop: Hop, name: str, offered: Sequence[str]) -> tuple[str, ...]:
        """The algorithms to ask the host for: those of its known keys first, or it shows another and seems changed."""
        known = [algorithm for key in self._known(hop, name).keys for algorithm in _algorithms(key)]
        return tuple(sorted(offered, key=lambda algorithm: algorithm not in known))

    def check(self, hop: Hop, name: str, shown: HostKey) -> None:
        """Return if the host may be talked to. Raises SshError with the code `hostKey…`."""
        with self._lock:
            self._forget_if_changed(hop)
        match judge(self._known(hop, name), shown):
            case Answer.KNOWN:
                return
            case Answer.REVOKED:
                raise SshError(f"the host key of {hop.name} ({shown.fingerprint}) was revoked", code="hostKeyRevoked")
            case Answer.CHANGED:
                raise SshError(
                    f"{hop.name} shows another host key ({shown.fingerprint}) than the known one: either it was "
                    "installed anew, or somebody is in between",
                    hint=f"compare it on the node's console; then: ssh-keygen -R '{name}'",
                    code="hostKeyChanged",
                )
            case Answer.NEEDS_CERTIFICATE:
                raise SshError(
                    f"{hop.name} is known by a certificate authority only, which OpenSSH can check and this way cannot",
                    hint="go through the OpenSSH client: --via openssh",
                    code="hostKeyCertificate",
                )
            case Answer.UNKNOWN:
                self._accept(hop, name, shown)

    def _accept(self, hop: Hop, name: str, shown: HostKey) -> None:
        if self._policy is Policy.STRICT or not hop.known_hosts:
            raise SshError(
                f"the host key of {hop.name} ({shown.fingerprint}) is not known",
                hint=f"make it known (ssh-keyscan, or log in once), as '{name}'; or --host-key-policy accept-new",
                code="hostKeyUnknown",
            )
        file = Path(hop.known_hosts[0])
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with open(descriptor, "r+b", buffering=0) as known:  # noqa: PTH123 - of a descriptor, not of a path
                fcntl.flock(known, fcntl.LOCK_EX)
                known.write(line_for(name, shown, hashed=hop.hash_known_hosts).encode())
        except OSError as error:
            raise SshError(f"the host key of {hop.name} cannot be noted in {file}: {error.strerror}") from error
        with self._lock:
            self._lines.pop(str(file), None)
        self._note(f"{hop.name} was not known; its host key {shown.fingerprint} is noted in {file}")

    def _known(self, hop: Hop, name: str) -> Known:
        with self._lock:
            return known_of([line for file in hop.known_hosts for line in self._read(file)], name)

    def _forget_if_changed(self, hop: Hop) -> None:
        """With accept-new, two threads can meet one new host at once: the second must see what the first noted."""
        if self._policy is Policy.ACCEPT_NEW:
            for file in hop.known_hosts:
                self._lines.pop(file, None)

    def _read(self, file: str) -> list[Line]:
        if file not in self._lines:
            text = ""
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                try:
                    with Path(file).open("rb") as known:
                        text = known.read(_LARGEST).decode("utf-8", "surrogateescape")
                except PermissionError as error:
                    raise SshError(f"{file} cannot be read: {error.strerror}") from error
            self._lines[file], unreadable = parse(text)
            if unreadable:
                lines = "1 line" if unreadable == 1 else f"{unreadable} lines"
                self._note(f"{file}: {lines} cannot be read, and no key is taken from there")
        return self._lines[file]


def _algorithms(key: HostKey) -> Sequence[str]:
    return _RSA if key.algorithm == "ssh-rsa" else (key.algorithm,)
