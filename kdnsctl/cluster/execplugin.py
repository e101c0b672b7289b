"""Running a credential plug-in of the kubeconfig (`exec`), under a timeout, and telling what went wrong with it.

It runs the command and decodes what that prints; it caches nothing and does not know when a credential is needed:
that is `credentials`. The contract is client.authentication.k8s.io/v1 and v1beta1 (k8s.io/client-go/pkg/apis/
clientauthentication). `kubernetes.config` is not used for this: it logs a failure and goes on as nobody, and waits for
ever.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import msgspec

from kdnsctl.cancel import CancelScope, duration
from kdnsctl.cluster.errors import CredentialError, printable
from kdnsctl.cluster.kubeconfig import ExecPlugin

API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
SHOWN = 2000  # characters of a plug-in's stderr that an error repeats: its end, where the reason is


class ExecStatus(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What a plug-in gives: a token, a certificate with its key, or both, and until when."""

    expiration_timestamp: dt.datetime | None = None
    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""

    def __repr__(self) -> str:  # nothing of it belongs into a traceback
        return f"ExecStatus(until {self.expiration_timestamp})"


class _ExecCredential(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str = ""
    kind: str = ""
    status: ExecStatus | None = None


def run(
    plugin: ExecPlugin,
    folder: Path,
    cluster: Mapping[str, object],
    environment: Mapping[str, str],
    scope: CancelScope,
    *,
    interactive: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> ExecStatus:
    """Run `plugin` until the end of `scope` at the latest, and give what it printed.

    `folder` is the kubeconfig's: a command with a slash in it is relative to it. `cluster` is told to plug-ins that ask
    for it. `interactive`: it may ask the person at the terminal; what it says on stderr then goes to `note` as it
    comes. Raises CredentialError with the command and its stderr, or what ended the scope's parents.
    """
    if plugin.api_version not in API_VERSIONS:
        version = plugin.api_version or "none"
        message = f"the credential plug-in {plugin.command} is set up for an API version that is not known: {version}"
        raise CredentialError(message, hint=f"known are {' and '.join(API_VERSIONS)}; update the kubeconfig")
    mode = plugin.interactive_mode or "IfAvailable"
    if mode == "Always" and not interactive:
        raise CredentialError(
            f"the credential plug-in {plugin.command} needs a terminal (interactiveMode: Always), and there is none",
            hint="run from a terminal and without --no-input, or use --token-file",
        )
    interactive = interactive and mode != "Never"
    command = [plugin.command, *(plugin.args or ())]
    if "/" in plugin.command and not plugin.command.startswith("/"):
        command[0] = str(folder / plugin.command)
    info = {
        "apiVersion": plugin.api_version,
        "kind": "ExecCredential",
        "spec": {"interactive": interactive, **({"cluster": dict(cluster)} if plugin.provide_cluster_info else {})},
    }
    variables = {
        **environment,
        **{variable.name: variable.value for variable in plugin.env or ()},
        "KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode(),
    }
    code, out, err = _finish(command, variables, plugin, scope, note if interactive else None)
    shown = " ".join(command)
    if code != 0:
        ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
        raise CredentialError(f"the credential plug-in {ended}: {shown}{_quoted(err)}", hint=plugin.install_hint or "")
    return _decoded(out, plugin, shown, err)


def _finish(
    command: list[str],
    variables: Mapping[str, str],
    plugin: ExecPlugin,
    scope: CancelScope,
    note: Callable[[str], None] | None,
) -> tuple[int, bytes, str]:
    """Exit code, stdout and stderr. Whatever it started that still holds its output is ended with it."""
    try:
        process = subprocess.Popen(
            command,
            stdin=None if note else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=variables,
            # A group of its own can be ended as a whole; one that talks to the terminal must stay in ours to be able
            # to.
            process_group=None if note else 0,
        )
    except OSError as error:
        hint = plugin.install_hint or "install it, or see that it is in PATH"
        reason = error.strerror or str(error)
        raise CredentialError(f"the credential plug-in cannot be run: {command[0]}: {reason}", hint=hint) from error

    def end() -> None:
        if note:
            process.kill()
        elif process.returncode is None:  # else the number may be somebody else's by now
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    out, err = bytearray(), bytearray()
    readers = [
        threading.Thread(target=_read, args=(stream, into, heard), name="plug-in", daemon=True)
        for stream, into, heard in ((process.stdout, out, None), (process.stderr, err, note))
        if stream is not None
    ]
    started = scope.clock.now()
    with scope.closing(end):
        for reader in readers:
            reader.start()
        try:
            code = process.wait()
        except BaseException:  # Ctrl-C: it must not go on without us
            end()
            raise
        for reader in readers:  # a grandchild may hold them open, and is not waited for
            reader.join(scope.remaining(1.0))
    said = err.decode("utf-8", "replace")
    if scope.cancelled.is_set():
        if scope.reason is not None and scope.reason.code != "deadline":
            scope.check()
        after = duration(round(scope.clock.now() - started, 1))
        raise CredentialError(
            f"the credential plug-in did not finish within {after}: {' '.join(command)}{_quoted(said)}",
            hint="run it by hand to see what it waits for, or raise --request-timeout",
        )
    return code, bytes(out), said


def _read(stream: IO[bytes], into: bytearray, note: Callable[[str], None] | None) -> None:
    with stream:
        for line in stream:
            into += line
            if note:
                note(printable(line.decode("utf-8", "replace")))


def _decoded(out: bytes, plugin: ExecPlugin, shown: str, err: str) -> ExecStatus:
    try:
        credential = msgspec.json.decode(out, type=_ExecCredential)
    except msgspec.DecodeError as error:
        raise CredentialError(
            f"the credential plug-in printed no ExecCredential: {shown}: {error}{_quoted(err)}"
        ) from error
    if credential.api_version != plugin.api_version:
        raise CredentialError(
            f"the credential plug-in answers in {credential.api_version or 'no API version'}, "
            f"the kubeconfig expects {plugin.api_version}: {shown}",
            hint=f"write {credential.api_version} into the kubeconfig"
            if credential.api_version in API_VERSIONS
            else "",
        )
    status = credential.status
    if status is None or not (status.token or (status.client_certificate_data and status.client_key_data)):
        raise CredentialError(f"the credential plug-in gave neither a token nor a certificate with its key: {shown}")
    return status


def _quoted(err: str) -> str:
    lines = [printable(line) for line in err.splitlines() if line.strip()]
    text = " | ".join(lines)
    return f"; it said: {text[-SHOWN:]}" if text else "; it said nothing on stderr"


def can_ask(*, no_input: bool) -> bool:
    """Whether a plug-in may talk to a person: stdin and stderr are a terminal, and nobody forbade it."""
    return not no_input and sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
