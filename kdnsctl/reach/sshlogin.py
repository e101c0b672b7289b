"""Logging in at a host: agent, key files, certificates; never with a password, and no secret is kept or shown.

Keys are tried as OpenSSH tries them: those of the agent first, then files, each once; a server that has had enough says
so. Passphrases are asked for when a key needs one, once for all hosts.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import paramiko
from paramiko import agent as paramiko_agent

from kdnsctl.model import KdnsctlError
from kdnsctl.reach.sshconfig import Hop

_AGENT_PATIENCE: Final = 10.0  # seconds; an agent may ask its owner for a touch


class SshError(KdnsctlError):
    """A host cannot be reached over SSH, or not be logged in at."""

    code = "ssh"


class Secrets(Protocol):
    """Who knows what nobody else should. Asked from any thread."""

    def passphrase(self, file: str) -> str | None:
        """The passphrase of a key file; None when there is nobody to ask."""

    def sudo_password(self, node: str) -> str | None:
        """The password that sudo on a node asks for; None when there is none."""


class NoSecrets:
    """Nobody to ask."""

    def passphrase(self, file: str) -> str | None:  # noqa: ARG002
        return None

    def sudo_password(self, node: str) -> str | None:  # noqa: ARG002
        return None


class KeyRing:
    """The key files of one run: each is read once for all hosts, and its passphrase asked for once. For any threads."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._lock = threading.Lock()
        self._keys: dict[str, paramiko.PKey] = {}

    def load(self, file: str, certificates: tuple[str, ...]) -> paramiko.PKey:
        """The key in a file, with its certificate if there is one. Raises OSError, SSHException or ValueError."""
        with self._lock:  # whoever is asked for a passphrase is asked once, not by every thread
            if file not in self._keys:
                self._keys[file] = self._read(file)
            key = self._keys[file]
        for certificate in certificates:
            with contextlib.suppress(OSError, ValueError, paramiko.SSHException):  # those of other keys do not fit
                key.load_certificate(certificate)
        return key

    def _read(self, file: str) -> paramiko.PKey:
        try:
            return paramiko.PKey.from_path(file)
        except (paramiko.PasswordRequiredException, TypeError) as error:  # TypeError: cryptography's, for PEM files
            passphrase = self._secrets.passphrase(file)
            if passphrase is None:
                raise paramiko.SSHException("it has a passphrase, and nobody can be asked for it") from error
            secret: Any = passphrase.encode()  # its annotation says str, and cryptography, where it goes, wants bytes
            return paramiko.PKey.from_path(file, secret)


def log_in(transport: paramiko.Transport, hop: Hop, keys: KeyRing, seconds: float) -> None:
    """Log in, with the first key that is accepted. Raises SshError (`sshLogin`), saying what was tried."""
    transport.auth_timeout = seconds
    tried: list[str] = []
    with contextlib.closing(_candidates(hop, keys, tried)) as candidates:
        for what, key in candidates:
            tried.append(what)
            try:
                more = transport.auth_publickey(hop.user, key)
            except paramiko.BadAuthenticationType as error:
                allowed = ", ".join(error.allowed_types) or "nothing"
                raise _refused(hop, tried, f"it accepts {allowed}, not keys") from error
            except paramiko.AuthenticationException as error:
                if not transport.is_active():
                    raise _refused(
                        hop, tried, "it closed the connection: too many keys, or no answer in time"
                    ) from error
                continue
            except (paramiko.SSHException, EOFError) as error:
                raise _refused(hop, tried, str(error) or "it closed the connection") from error
            if more:
                raise _refused(hop, tried, f"it wants more than a key: {', '.join(more)}")
            return
    raise _refused(
        hop, tried, "it accepts none of them" if any(": " not in one for one in tried) else "there is no key"
    )


def _refused(hop: Hop, tried: list[str], why: str) -> SshError:
    keys = "; tried: " + ", ".join(tried) if tried else ""
    return SshError(
        f"{hop.name} does not let {hop.user or 'nobody'} in: {why}{keys}",
        hint="name the right user and key: --ssh-user, --ssh-key, or in the ssh_config",
        code="sshLogin",
    )


def _candidates(hop: Hop, keys: KeyRing, tried: list[str]) -> Generator[tuple[str, paramiko.PKey], None, None]:
    """What to try, in order, with a name for each. What cannot be used is only named, in `tried`."""
    files = [file for file in hop.identity_files if Path(file).is_file()]
    wanted = {blob for file in hop.identity_files if (blob := _public_part(file))} if hop.identities_only else None
    seen: set[bytes] = set()
    if hop.agent:
        yield from _agent_keys(hop.agent, wanted, seen, tried)
    for file in files:
        try:
            key = keys.load(file, hop.certificate_files)
        except (OSError, paramiko.SSHException, ValueError) as error:
            tried.append(f"{file}: {error}")
            continue
        if key.asbytes() not in seen:
            yield file, key


def _agent_keys(
    path: str, wanted: set[bytes] | None, seen: set[bytes], tried: list[str]
) -> Iterator[tuple[str, paramiko.PKey]]:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        try:
            connection.settimeout(_AGENT_PATIENCE)
            connection.connect(path)
            agent: Any = paramiko_agent.AgentSSH()
            agent._connect(connection)  # noqa: SLF001 - its public form knows SSH_AUTH_SOCK only, not IdentityAgent
        except (OSError, paramiko.SSHException) as error:
            tried.append(f"agent {path}: {error}")
            return
        for key in agent.get_keys():
            if wanted is None or key.asbytes() in wanted:
                seen.add(key.asbytes())
                yield f"{getattr(key, 'comment', '') or key.get_name()} (agent)", key


def _public_part(file: str) -> bytes | None:
    """The public key beside a key file, by which the agent's keys are chosen. A hardware key has nothing else."""
    for candidate in (Path(f"{file}.pub"), Path(file)):
        with contextlib.suppress(OSError, ValueError, IndexError):
            return base64.b64decode(candidate.read_text(encoding="ascii").split()[1], validate=True)
    return None
