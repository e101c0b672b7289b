"""A real OpenSSH server on every node, with keys of the lab's own, and the ssh_config that leads to it.

The server runs in the node's namespaces and files; logins are as root with one key. The configuration's ProxyCommand
goes through the lab's own socket, because nothing outside the lab can reach a node's address. Without root, sshd
needs two helps: a passwd whose `sshd` is uid 0 too, and a filter that answers 0 to setgroups and chown
(`kernel.pretend_ownership_calls_work`).
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kdnsctl.lab import kernel
from kdnsctl.lab.container import Launch
from kdnsctl.lab.network import NodeNet
from kdnsctl.lab.spacedir import LabDir

SSHD = "/usr/sbin/sshd"
NODE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

NODE_TOOLS = "/run/lab-tools"
SUDO = """#!/bin/sh
# On a node of the lab everybody is root already, and without root nobody else exists: run the command.
while :; do
    case ${1-} in
    -n | -E | -H | -S | -k | -b) shift ;;
    -u | --user)
        case ${2-} in
        root | "#0") shift 2 ;;
        *) echo "sudo: the lab's nodes have no user but root" >&2; exit 1 ;;
        esac ;;
    --) shift; break ;;
    -*) echo "sudo: the lab's sudo does not know $1" >&2; exit 1 ;;
    [A-Za-z_]*=*) export "$1"; shift ;;
    *) break ;;
    esac
done
[ "$#" -gt 0 ] || { echo "usage: sudo [-n] [-u root] COMMAND..." >&2; exit 1; }
exec "$@"
"""
"""Stands for the machine's own, which may be absent, and which works in no lab without root."""

_NOT_IN_SESSIONS = ("SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "SYS_BOOT", "SYS_TIME", "MKNOD")
"""Looking at a node needs none of these, and they reach beyond the node: to mounts, modules, devices and the clock."""


def make_keys(where: LabDir) -> None:
    """One key pair for the operator and one host key for all nodes. Raises OSError or CalledProcessError."""
    for name, comment in (("id_lab", "operator of a kdnsctl lab"), ("host_key", f"nodes of lab {where.name}")):
        path = where.ssh / name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        subprocess.run(command, check=True, capture_output=True)
    (where.ssh / "authorized_keys").write_text((where.ssh / "id_lab.pub").read_text(encoding="ascii"), encoding="ascii")


def sshd_config(where: LabDir) -> str:
    """The servers' configuration; the same on all nodes."""
    return "\n".join(
        (
            "Port 22",
            f"HostKey {where.ssh}/host_key",
            f"AuthorizedKeysFile {where.ssh}/authorized_keys",
            "PidFile none",
            "UsePAM no",
            "UseDNS no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            # The directory belongs to the lab's user, and the files in it are made by it alone.
            "StrictModes no",
            "PrintMotd no",
            "PrintLastLog no",
            "MaxStartups 100",
            f"SetEnv PATH={NODE_TOOLS}:{NODE_PATH}",
            "Subsystem sftp internal-sftp",
            "",
        )
    )


def ssh_config(where: LabDir, nodes: Sequence[NodeNet]) -> str:
    """What an operator's ssh, scp and kdnsctl read to reach the nodes by name or address."""
    package = str(Path(__file__).resolve().parents[2])
    relay = (
        shlex.join(
            [
                "env",
                f"PYTHONPATH={package}",
                sys.executable,
                "-P",
                "-m",
                "kdnsctl.lab.relay",
                str(where.root),
                "%h",
                "%p",
            ]
        )
        .replace("'%h'", "%h")
        .replace("'%p'", "%p")
    )
    lines = []
    for node in nodes:
        lines += [
            f"Host {node.name} {node.address}",
            f"    HostName {node.address}",
            "    User root",
            f"    IdentityFile {where.ssh}/id_lab",
            "    IdentitiesOnly yes",
            f"    UserKnownHostsFile {where.ssh}/known_hosts",
            "    GlobalKnownHostsFile /dev/null",
            f"    HostKeyAlias {node.name}",
            "    StrictHostKeyChecking yes",
            f"    ProxyCommand {relay}",
            "",
        ]
    return "\n".join(lines)


def write_files(where: LabDir, nodes: Sequence[NodeNet]) -> None:
    """Keys, both configurations and the known hosts. Raises OSError or CalledProcessError."""
    make_keys(where)
    (where.ssh / "sshd_config").write_text(sshd_config(where), encoding="utf-8")
    (where.ssh / "config").write_text(ssh_config(where, nodes), encoding="utf-8")
    key = " ".join((where.ssh / "host_key.pub").read_text(encoding="ascii").split()[:2])
    hosts = "".join(f"{node.name},{node.address} {key}\n" for node in nodes)
    (where.ssh / "known_hosts").write_text(hosts, encoding="ascii")


def node_launch(where: LabDir, *, rootless: bool) -> Launch:
    """The server as a process of the node itself. It must be started by its full path: it executes itself again."""
    return Launch(
        argv=(SSHD, "-D", "-e", "-f", str(where.ssh / "sshd_config")),
        env={"PATH": NODE_PATH, "LC_ALL": "C", "TZ": "UTC"},
        capabilities=tuple(name for name in kernel.permitted_capabilities() if name not in _NOT_IN_SESSIONS),
        pretend_ownership=rootless,
    )
