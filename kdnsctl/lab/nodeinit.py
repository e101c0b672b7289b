"""The start of a node: its namespaces and files, then the agent as its first process.

A node sees the machine's files read-only, except for what is its own: /run, /tmp, /var/log (on disk in the lab's
directory, so that its log files can be read from outside), /proc, /sys, a /dev with six devices, a passwd with root
and, in a lab that root has made, one user who needs sudo. That keeps accidents from the machine, not an attacker: in a
lab made by root, a privileged pod and a shell by `lab shell --node` hold CAP_SYS_ADMIN in the machine's own user
namespace, and can mount what they like.
"""

# ruff: noqa: PTH110, PTH123 - paths here go straight into system calls and argument lists
from __future__ import annotations

import contextlib
import os
import socket
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdnsctl.lab import agent, container, kernel, network, sshd
from kdnsctl.lab.container import Builtin
from kdnsctl.lab.network import NodeNet
from kdnsctl.lab.spacedir import LabDir

_TMPFS = kernel.MS_NOSUID | kernel.MS_NODEV


@dataclass(frozen=True, slots=True)
class BootedNode:
    """A node's first process: its PID as the supervisor counts, and the channel to it."""

    pid: int
    channel: socket.socket


def prepare_files(where: LabDir, net: NodeNet, *, rootless: bool) -> None:
    """The node's own files on disk. Call it before `boot`."""
    own = where.node(net.name)
    own.mkdir(parents=True)
    (where.node_log(net.name) / "pods").mkdir(parents=True)
    (where.node_log(net.name) / "containers").mkdir()
    (where.node_log(net.name) / "lastlog").touch()
    write_passwd(own, login="/bin/sh", rootless=rootless)
    # No password opens it, and "*" is not the "!" that sshd takes for a locked account.
    names = ("root", "sshd") if rootless else ("root", "sshd", sshd.OPERATOR)
    (own / "shadow").write_text("".join(f"{name}:*:20000:0:99999:7:::\n" for name in names))
    (own / "shadow").chmod(0o600)
    (own / "group").write_text("root:x:0:\n")
    (own / "hostname").write_text(f"{net.name}\n")


def write_passwd(own: Path, *, login: str, rootless: bool) -> None:
    """The node's users: root, and in a lab that root has made, one who is not. In place, as it is mounted by itself."""
    lines = [f"root:x:0:0:root:/run/home:{login}"]
    # sshd wants a user of this name; without root there is only uid 0.
    lines.append("sshd:x:0:0::/run/sshd:/usr/sbin/nologin")
    if not rootless:
        lines.append(f"{sshd.OPERATOR}:x:{sshd.OPERATOR_ID}:{sshd.OPERATOR_ID}::/run/home:{login}")
    (own / "passwd").write_text("\n".join(lines) + "\n")


def boot(
    where: LabDir, net: NodeNet, builtins: Mapping[str, Builtin], keep_out: Sequence[int] = (), *, rootless: bool
) -> BootedNode:
    """Fork the node's first process, without the descriptors `keep_out`. The caller must have one thread only.

    Raises OSError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    report_read, report_write = os.pipe2(os.O_CLOEXEC)
    middle = os.fork()
    if middle == 0:
        code = 1
        try:
            ours.close()
            for fd in (report_read, *keep_out):
                os.close(fd)
            _enter(net)
            first = os.fork()
            if first:
                os.write(report_write, f"{first}\n".encode())
                code = 0
            else:
                _be_node(where, net, theirs, builtins, report_write, rootless=rootless)
        except BaseException:  # noqa: BLE001 - a forked child must never run on in its parent's code
            traceback.print_exc()
        finally:
            os._exit(code)
    theirs.close()
    os.close(report_write)
    os.waitpid(middle, 0)
    with open(report_read, "rb") as reader:
        lines = reader.read().decode().split("\n")
    if "up" not in lines:
        raise OSError(
            f"node {net.name} did not start: {'; '.join(line for line in lines if line) or 'no reason given'}"
        )
    pid = next(int(line) for line in lines if line.isdigit())
    return BootedNode(pid, ours)


def _enter(net: NodeNet) -> None:
    handle = os.open(network.netns_path(net.name), os.O_RDONLY | os.O_CLOEXEC)
    kernel.setns(handle, kernel.CLONE_NEWNET)
    os.close(handle)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC)


def _be_node(
    where: LabDir, net: NodeNet, channel: socket.socket, builtins: Mapping[str, Builtin], report: int, *, rootless: bool
) -> None:
    try:
        os.setsid()
        kernel.set_process_name(f"lab-{net.name}")
        kernel.set_command_line([f"lab-node {net.name}"])
        kernel.sethostname(net.name)
        _mount(where, net, rootless=rootless)
        _set_sysctls()
        _protect_sysctls()
        os.write(report, b"up\n")
    except OSError as error:
        os.write(report, f"{error}\n".encode())
        os._exit(1)
    os.close(report)
    try:
        agent.serve(channel, builtins)
    finally:
        os._exit(0)


def _mount(where: LabDir, net: NodeNet, *, rootless: bool) -> None:
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    own = where.node(net.name)
    kernel.bind(str(where.node_log(net.name)), "/var/log")
    for name in ("passwd", "shadow", "group", "hostname"):
        if os.path.exists(f"/etc/{name}"):
            kernel.bind(str(own / name), f"/etc/{name}")
    kernel.set_read_only("/", recursive=True)
    kernel.set_writable("/var/log")
    for directory, options in (("/run", "mode=755,size=16m"), ("/tmp", "mode=1777,size=64m")):  # noqa: S108
        _cover(directory, options, where.root)
    kernel.set_writable(str(where.space))
    for directory in ("/run/netns", "/run/home", "/run/sshd", sshd.NODE_TOOLS):
        Path(directory).mkdir(mode=0o755)
    if not rootless:  # a set-uid program works nowhere else below /run
        kernel.mount("tmpfs", sshd.NODE_TOOLS, "tmpfs", kernel.MS_NODEV, "mode=755,size=1m")
    sshd.write_tools(Path(sshd.NODE_TOOLS), rootless=rootless)
    kernel.mount("proc", "/proc", "proc", _TMPFS | kernel.MS_NOEXEC)
    kernel.mount("sysfs", "/sys", "sysfs", _TMPFS | kernel.MS_NOEXEC)
    building = Path("/run/dev")  # beside the machine's /dev, whose devices it takes
    building.mkdir()
    container.build_dev(building)
    kernel.bind(str(building), "/dev", recursive=True)
    kernel.unmount(str(building))
    building.rmdir()


def _cover(directory: str, options: str, keep: Path) -> None:
    """A fresh tmpfs over `directory`, through which `keep` stays visible if it lies below."""
    handle = os.open(keep, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    kernel.mount("tmpfs", directory, "tmpfs", _TMPFS, options)
    if keep.is_relative_to(directory):
        keep.mkdir(parents=True)
        kernel.bind(f"/proc/self/fd/{handle}", str(keep), recursive=True)
    os.close(handle)


def _set_sysctls() -> None:
    for name, value in network.node_sysctls().items():
        with contextlib.suppress(FileNotFoundError):  # conntrack's appear with its module
            Path("/proc/sys", name).write_text(value, encoding="ascii")


def _protect_sysctls() -> None:
    """Make the machine's own sysctls read-only on the node; those of the node's network stay writable.

    In a user namespace there is no need (its root may not write them), and no way: with something mounted over a part
    of /proc the kernel would refuse the pods a /proc of their own (fs/namespace.c, mount_too_revealing).
    """
    if Path("/proc/self/uid_map").read_text(encoding="ascii").split() != ["0", "0", str(2**32 - 1)]:
        return
    kernel.bind("/proc/sys", "/proc/sys")
    kernel.bind("/proc/sys/net", "/proc/sys/net")
    kernel.set_read_only("/proc/sys", recursive=False)
