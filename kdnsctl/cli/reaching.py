"""How commands reach nodes: the options for it, SSH's and those of pods of our own, and what follows from them.

Nothing is connected here; which rungs there are, and in which order they are tried, is known to `evidence.ways`.
"""

from __future__ import annotations

import enum
import getpass
import sys
import threading
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from kdnsctl.cli import values
from kdnsctl.cli.options import Common, said
from kdnsctl.model import UsageError

if TYPE_CHECKING:
    from kdnsctl.evidence.sshways import SshWays
    from kdnsctl.model import Reporter
    from kdnsctl.reach.podkeeper import PodSettings

_LONGEST_PASSWORD = 4096  # bytes


class Rung(enum.StrEnum):
    """How nodes are reached, as `evidence.ways.Via`."""

    AUTO = "auto"
    EXEC = "exec"
    POD = "pod"
    SSH = "ssh"
    OPENSSH = "openssh"


class HostKeyPolicy(enum.StrEnum):
    """What becomes of a host that no known_hosts file knows, as `reach.hostkeys.Policy`."""

    STRICT = "strict"
    ACCEPT_NEW = "accept-new"


@dataclass(frozen=True, slots=True)
class Ssh:
    """How nodes are reached over SSH. What is not said is as in the ssh_config."""

    TITLE: ClassVar = "Reaching nodes over SSH"

    ssh_user: Annotated[str | None, typer.Option("--ssh-user", metavar="NAME", help="User to log in as.")] = None
    ssh_key: Annotated[
        list[Path], typer.Option("--ssh-key", metavar="FILE", help="Key to log in with (repeatable).")
    ] = field(default_factory=list)
    ssh_port: Annotated[
        int | None, typer.Option("--ssh-port", metavar="PORT", min=1, max=65535, help="Port of the nodes' SSH servers.")
    ] = None
    ssh_jump: Annotated[
        list[str],
        typer.Option("--ssh-jump", metavar="[USER@]HOST[:PORT]", help="Host to go through (repeatable, in order)."),
    ] = field(default_factory=list)
    ssh_config: Annotated[
        Path | None, typer.Option("--ssh-config", metavar="FILE", help="File to read instead of ~/.ssh/config.")
    ] = None
    known_hosts: Annotated[
        Path | None, typer.Option("--known-hosts", metavar="FILE", help="The only file with known host keys.")
    ] = None
    host_key_policy: Annotated[
        HostKeyPolicy,
        typer.Option("--host-key-policy", help="strict: only known hosts. accept-new: note those of new ones."),
    ] = HostKeyPolicy.STRICT
    sudo_password_fd: Annotated[
        int | None,
        typer.Option(
            "--sudo-password-fd",
            metavar="N",
            min=0,
            help="File descriptor to read sudo's password from. Default: ask, on a terminal.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Pods:
    """How pods of our own are made, where nodes are read through them."""

    TITLE: ClassVar = "Pods of kdnsctl's own"

    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="REF",
            help="Image of kdnsctl's own pods: the tools image, or one like it. Default: the one that kube-proxy runs "
            "on the node.",
        ),
    ] = None
    pod_namespace: Annotated[
        str, typer.Option("--pod-namespace", metavar="NS", parser=values.namespace, help="Where those pods are made.")
    ] = "kube-system"
    allow_privileged: Annotated[
        bool,
        typer.Option(
            "--allow-privileged",
            help="Allow a privileged pod, which enters the node's mount namespace, for what nothing else yields.",
            show_default=False,
        ),
    ] = False


def said_of_ways(ctx: typer.Context) -> list[str]:
    """The options of any way to a node that were given."""
    return said(ctx, *(one.name for group in (Ssh, Pods) for one in fields(group)))


def check_via(ctx: typer.Context, via: Rung) -> None:
    """Raises UsageError for options of ways that are not taken."""
    useless = said(ctx, *(one.name for one in fields(Ssh)))
    if via in (Rung.EXEC, Rung.POD) and useless:
        raise UsageError(f"{', '.join(useless)} has no effect with --via {via.value}")
    useless = said(ctx, *(one.name for one in fields(Pods)))
    if via not in (Rung.AUTO, Rung.POD) and useless:
        raise UsageError(f"{', '.join(useless)} has no effect with --via {via.value}")


def pod_settings(pods: Pods, via: Rung) -> PodSettings | None:
    """How pods of our own are made, from the options; None where none may be."""
    if via not in (Rung.AUTO, Rung.POD):
        return None
    from kdnsctl.reach.podkeeper import PodSettings  # noqa: PLC0415

    return PodSettings(namespace=pods.pod_namespace, image=pods.image, privileged=pods.allow_privileged)


def ssh_ways(ssh: Ssh, via: Rung, common: Common, reporter: Reporter) -> SshWays | None:
    """SSH to any node, from the options, and nothing is connected yet; None where that way is not taken.

    Raises UsageError when there is no password where one was promised.
    """
    if via in (Rung.EXEC, Rung.POD):
        return None
    from kdnsctl.evidence.sshways import SshWays  # noqa: PLC0415
    from kdnsctl.reach.sshconfig import SshOptions  # noqa: PLC0415

    options = SshOptions(
        config=None if ssh.ssh_config is None else str(ssh.ssh_config),
        user=ssh.ssh_user,
        port=ssh.ssh_port,
        identity_files=tuple(str(key) for key in ssh.ssh_key),
        jumps=tuple(ssh.ssh_jump),
        known_hosts=None if ssh.known_hosts is None else str(ssh.known_hosts),
    )
    asking = not common.no_input and sys.stdin is not None and sys.stdin.isatty()
    return SshWays(
        options,
        _Asked(asking=asking, password=_password(ssh.sudo_password_fd)),
        policy=ssh.host_key_policy.value,
        openssh=via is Rung.OPENSSH,
        note=reporter.noted,
    )


def _password(descriptor: int | None) -> str | None:
    """The first line of a file descriptor, which is closed; None without one. Raises UsageError."""
    if descriptor is None:
        return None
    try:
        with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor, not of a path
            line = file.readline(_LONGEST_PASSWORD + 1)
        password = line.removesuffix(b"\n").removesuffix(b"\r").decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"no password can be read from file descriptor {descriptor}: {error}") from error
    if not password or len(line) > _LONGEST_PASSWORD:
        raise UsageError(f"there is no password of 1 to {_LONGEST_PASSWORD} bytes on file descriptor {descriptor}")
    return password


class _Asked:
    """Secrets from the terminal, each asked for once; nobody is asked without one. Never kept on disk, never shown."""

    def __init__(self, *, asking: bool, password: str | None = None) -> None:
        self._asking = asking
        self._password = password
        self._lock = threading.Lock()
        self._known: dict[str, str | None] = {}

    def passphrase(self, file: str) -> str | None:
        return self._ask(f"passphrase of {file}: ")

    def sudo_password(self, node: str) -> str | None:  # noqa: ARG002  # one for all nodes
        return self._password or self._ask("password for sudo on the nodes: ")

    def _ask(self, question: str) -> str | None:
        if not self._asking:
            return None
        with self._lock:
            if question not in self._known:
                self._known[question] = getpass.getpass(question) or None
            return self._known[question]
