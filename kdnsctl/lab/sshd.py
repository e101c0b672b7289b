"""A real OpenSSH server on every node, with keys of the lab's own, and the ssh_config that leads to it.

The server runs in the node's namespaces and files; logins are as root with one key. The configuration's ProxyCommand
goes through the lab's own socket, because nothing outside the lab can reach a node's address. Without root, sshd
needs two helps: a passwd whose `sshd` is uid 0 too, and a filter that answers 0 to setgroups and chown
(`kernel.pretend_ownership_calls_work`).
"""

from __future__ import annotations

import enum
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from kdnsctl.lab import kernel
from kdnsctl.lab.container import Launch
from kdnsctl.lab.network import NodeNet
from kdnsctl.lab.spacedir import LabDir

SSHD = "/usr/sbin/sshd"
NODE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

NODE_TOOLS = "/run/lab-tools"

_AS_ROOT = f"{NODE_TOOLS}/as-root"
SUDO_PASSWORD = "operator of the lab"  # noqa: S105 - of a user who exists nowhere else
SUDO = f"""#!/bin/sh
# Root has what it asks for; others become root by a set-uid setpriv, which a lab without root does not have.
never= given=
while :; do
    case ${{1-}} in
    -n) never=1; shift ;;
    -S) given=1; shift ;;
    -p) shift 2 ;;
    -E | -H | -k | -b) shift ;;
    -u | --user)
        case ${{2-}} in
        root | "#0") shift 2 ;;
        *) echo "sudo: the lab's nodes run commands as root only" >&2; exit 1 ;;
        esac ;;
    --) shift; break ;;
    -*) echo "sudo: the lab's sudo does not know $1" >&2; exit 1 ;;
    [A-Za-z_]*=*) export "$1"; shift ;;
    *) break ;;
    esac
done
[ "$#" -gt 0 ] || {{ echo "usage: sudo [-n] [-u root] COMMAND..." >&2; exit 1; }}
[ "$(id -u)" = 0 ] && exec "$@"
if [ -n "${{LAB_SUDO_ASKS-}}" ]; then
    [ -z "$never" ] || {{ echo "sudo: a password is required" >&2; exit 1; }}
    [ -n "$given" ] || {{ echo "sudo: a terminal is required to read the password" >&2; exit 1; }}
    read -r said && [ "$said" = "{SUDO_PASSWORD}" ] || {{ echo "sudo: 1 incorrect password attempt" >&2; exit 1; }}
fi
exec {_AS_ROOT} --reuid=0 --regid=0 --clear-groups -- "$@"
"""
"""Stands for the machine's own, which may be absent, and which works in no lab without root."""

_SESSION = """#!/bin/sh
# What a session of a server that fails does; the parent is the sshd that serves it.
case $1 in
hangs) kill -STOP "$PPID" ;;
resets)
    case $SSH_ORIGINAL_COMMAND in
    *" /proc/net/nf_conntrack"*) sh -c "$SSH_ORIGINAL_COMMAND" | head -c 512; sleep 0.3; kill -KILL "$PPID" ;;
    *) exec sh -c "$SSH_ORIGINAL_COMMAND" ;;
    esac ;;
esac
"""
_NO_TABLE = """#!/bin/sh
# Stands for a kernel without CONFIG_NF_CONNTRACK_PROCFS.
for file; do
    [ "$file" != /proc/net/nf_conntrack ] || { echo "cat: $file: No such file or directory" >&2; exit 1; }
done
exec /bin/cat "$@"
"""

OPERATOR = "operator"
OPERATOR_ID = 59990  # of no user of the machine, who could reach into the node's processes
"""A user on the nodes who is not root, in a lab that was made by root."""


class SshFault(enum.Enum):
    """What a node's server can be made to do."""

    DOWN = "down"
    """It does not run."""
    HANGS = "hangs"
    """A login works; then nothing is answered any more."""
    RESETS = "resets"
    """The connection breaks in the middle of the connection tracking table."""
    HOST_KEY = "host-key"
    """It shows another key than the one that is known."""
    NO_SHELL = "no-shell"
    """Logins have /usr/sbin/nologin for a shell."""
    NO_TABLE = "no-table"
    """There is no /proc/net/nf_conntrack."""
    SUDO_PASSWORD = "sudo-password"  # noqa: S105
    """sudo wants `SUDO_PASSWORD` of who is not root."""


_NOT_IN_SESSIONS = ("SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "SYS_BOOT", "SYS_TIME", "MKNOD")
"""Looking at a node needs none of these, and they reach beyond the node: to mounts, modules, devices and the clock."""


def make_keys(where: LabDir) -> None:
    """A key pair for the operator, a host key for all nodes, one that is not theirs. OSError or CalledProcessError."""
    for name, comment in (
        ("id_lab", "operator of a kdnsctl lab"),
        ("host_key", f"nodes of lab {where.name}"),
        ("other_host_key", "no node's"),
    ):
        path = where.ssh / name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        subprocess.run(command, check=True, capture_output=True)
    (where.ssh / "authorized_keys").write_text((where.ssh / "id_lab.pub").read_text(encoding="ascii"), encoding="ascii")


def sshd_config(where: LabDir, faults: Collection[SshFault] = (), *, rootless: bool) -> str:
    """A node's configuration. The first of two lines that say different things counts."""
    path = f"{NODE_TOOLS}:{NODE_PATH}"
    failing = [fault for fault in (SshFault.HANGS, SshFault.RESETS) if fault in faults]
    lines = [f"ForceCommand exec {NODE_TOOLS}/session {fault.value}" for fault in failing]
    if SshFault.NO_TABLE in faults:
        path = f"{NODE_TOOLS}/no-table:{path}"
    if not rootless:
        # Who is not root cannot read in the lab's directory.
        lines += [f"AuthorizedKeysCommand /bin/cat {where.ssh}/authorized_keys", "AuthorizedKeysCommandUser root"]
    asks = " LAB_SUDO_ASKS=1" if SshFault.SUDO_PASSWORD in faults else ""
    return "\n".join(
        (
            *lines,
            "Port 22",
            f"HostKey {where.ssh}/{'other_host_key' if SshFault.HOST_KEY in faults else 'host_key'}",
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
            f"SetEnv PATH={path}{asks}",
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
    """Keys, the operator's configuration and the known hosts. Raises OSError or CalledProcessError."""
    make_keys(where)
    (where.ssh / "config").write_text(ssh_config(where, nodes), encoding="utf-8")
    key = " ".join((where.ssh / "host_key.pub").read_text(encoding="ascii").split()[:2])
    hosts = "".join(f"{node.name},{node.address} {key}\n" for node in nodes)
    (where.ssh / "known_hosts").write_text(hosts, encoding="ascii")


def write_tools(tools: Path, *, rootless: bool) -> None:
    """What sessions find before the machine's own programs, in the node's directory for it. Raises OSError."""
    (tools / "no-table").mkdir(mode=0o755)
    for name, script in (("sudo", SUDO), ("session", _SESSION), ("no-table/cat", _NO_TABLE)):
        (tools / name).write_text(script, encoding="ascii")
        (tools / name).chmod(0o755)
    setpriv = shutil.which("setpriv", path=NODE_PATH)
    if not rootless and setpriv:
        shutil.copyfile(setpriv, _AS_ROOT)
        Path(_AS_ROOT).chmod(0o4755)


def node_launch(config: Path, *, rootless: bool) -> Launch:
    """The server as a process of the node itself. It must be started by its full path: it executes itself again."""
    return Launch(
        argv=(SSHD, "-D", "-e", "-f", str(config)),
        env={"PATH": NODE_PATH, "LC_ALL": "C", "TZ": "UTC"},
        capabilities=tuple(name for name in kernel.permitted_capabilities() if name not in _NOT_IN_SESSIONS),
        pretend_ownership=rootless,
    )
