"""The few Linux calls the lab needs that Python 3.11 does not offer: namespaces, mounts, capabilities, seccomp.

Each function is one system call (or one prctl) with names instead of numbers, and raises OSError that names the call
and its arguments. Nothing here knows about nodes or pods.

Numbers are from the kernel's uapi headers (linux/sched.h, linux/mount.h, linux/prctl.h, linux/capability.h,
linux/seccomp.h, linux/audit.h); they never change.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_SECCOMP_RET_ALLOW = 0x7FFF0000
_SECCOMP_RET_ERRNO = 0x00050000
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

_SYS = {
    # name: (x86_64, aarch64); the generic table is arch/*/include/generated/uapi/asm/unistd_64.h
    "pivot_root": (155, 41),
    "mount_setattr": (442, 442),
    "setgroups": (116, 159),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
}

CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
"""Capability names without CAP_, at the index that is their number (linux/capability.h, Linux 5.9 and later)."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _syscall_number(name: str) -> int | None:
    column = {"x86_64": 0, "aarch64": 1}.get(platform.machine())
    return None if column is None else _SYS[name][column]


def _syscall(name: str, *args: object) -> int:
    number = _syscall_number(name)
    if number is None:
        raise OSError(f"{name}: the lab knows no number for this call on {platform.machine()}")
    return _check(_libc.syscall(ctypes.c_long(number), *args), name)


def unshare(flags: int) -> None:
    """Give this thread (for NEWPID: its next children) namespaces of its own."""
    _check(_libc.unshare(ctypes.c_int(flags)), f"unshare({flags:#x})")


def setns(fd: int, kind: int = 0) -> None:
    """Move this thread (for a PID namespace: its next children) into the namespace behind `fd`."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), f"setns({kind:#x})")


def mount(source: str | None, target: str, fstype: str | None = None, flags: int = 0, data: str = "") -> None:
    """Mount a file system. A source of None stands for calls that ignore it (remount, propagation)."""
    _check(
        _libc.mount(
            None if source is None else os.fsencode(source),
            os.fsencode(target),
            None if fstype is None else fstype.encode(),
            ctypes.c_ulong(flags),
            data.encode() if data else None,
        ),
        f"mount {source or ''} on {target}",
    )


def bind(source: str, target: str, *, recursive: bool = False) -> None:
    """Show `source` at `target` as well; both exist and are of the same kind (file or directory)."""
    mount(source, target, None, MS_BIND | (MS_REC if recursive else 0))


def unmount(target: str) -> None:
    """Take a mount away at once; files still open in it live on until they are closed."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def set_read_only(target: str, *, recursive: bool) -> None:
    """Make the mount at `target` (and all below it) read-only in this mount namespace. Linux 5.12 and later."""
    _mount_setattr(target, _AT_RECURSIVE if recursive else 0, _MountAttr(MOUNT_ATTR_RDONLY, 0, 0, 0))


def set_writable(target: str) -> None:
    """Undo `set_read_only` for one mount."""
    _mount_setattr(target, 0, _MountAttr(0, MOUNT_ATTR_RDONLY, 0, 0))


def _mount_setattr(target: str, flags: int, attributes: _MountAttr) -> None:
    _syscall(
        "mount_setattr",
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(flags),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )


def enter_root(new_root: str) -> None:
    """Make `new_root` (a mount point) the root of this mount namespace and let go of the old one."""
    os.chdir(new_root)
    _syscall("pivot_root", ctypes.c_char_p(b"."), ctypes.c_char_p(b"."))
    _check(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def die_with_parent(signal_number: int = 9) -> None:
    """Have the kernel send this process `signal_number` when its parent thread ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def set_process_name(name: str) -> None:
    """What `ps` and /proc/PID/comm show; the kernel keeps 15 bytes."""
    _check(_libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0), "prctl(PR_SET_NAME)")


def set_command_line(words: Iterable[str]) -> None:
    """What /proc/PID/cmdline shows, for a process that became something else without exec.

    Written over the argument area of this process (/proc/PID/stat, fields 48 and 49), as far as there is room.
    """
    with Path("/proc/self/stat").open(encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    text = b"".join(os.fsencode(word) + b"\0" for word in words)
    ctypes.memmove(start, text[: end - start - 1].ljust(end - start, b"\0"), end - start)


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    raw = name.encode()
    _check(_libc.sethostname(ctypes.c_char_p(raw), ctypes.c_size_t(len(raw))), "sethostname")


def known_capabilities() -> int:
    """How many capabilities the running kernel knows (/proc/sys/kernel/cap_last_cap + 1)."""
    with Path("/proc/sys/kernel/cap_last_cap").open(encoding="ascii") as file:
        return int(file.read()) + 1


def permitted_capabilities() -> tuple[str, ...]:
    """The names of this process's permitted capabilities: root in a container does not have all of them."""
    with Path("/proc/self/status").open(encoding="utf-8", errors="replace") as file:
        mask = next(int(line.split()[1], 16) for line in file if line.startswith("CapPrm:"))
    return tuple(name for number, name in enumerate(CAPABILITIES) if mask >> number & 1)


def drop_bounding(keep: Iterable[str], known: int) -> None:
    """Remove every capability not in `keep` from the bounding set. For good: not even a set-uid program regains it."""
    kept = {CAPABILITIES.index(name) for name in keep}
    for number in range(known):
        if number not in kept:
            result = _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0)
            _check(result, f"prctl(PR_CAPBSET_DROP, {number})")
    # The ambient set would carry capabilities over an exec by another uid.
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl(PR_CAP_AMBIENT)")


def set_capabilities(keep: Iterable[str]) -> None:
    """Make exactly `keep` permitted and effective for this process, inheritable none."""
    mask = 0
    for name in keep:
        mask |= 1 << CAPABILITIES.index(name)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    _check(_libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(data)), "capset")


def no_new_privileges() -> None:
    """allowPrivilegeEscalation: false; holds for every program started from here."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def pretend_ownership_calls_work() -> None:
    """Answer 0 to setgroups and the chown family without doing anything, here and in all children.

    In a user namespace with one mapped id they always fail, and sshd gives up a session over that. Needs
    CAP_SYS_ADMIN in the namespace, so that no_new_privs stays off and set-uid programs behave as elsewhere.
    """
    arch = _AUDIT_ARCH.get(platform.machine())
    if arch is None:
        raise OSError(f"seccomp: the lab knows no system call numbers for {platform.machine()}")
    names = ("setgroups", "chown", "fchown", "lchown", "fchownat")
    numbers = [number for name in names if (number := _syscall_number(name)) is not None]
    load, equal, ret = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    program = [(load, 0, 0, 4), (equal, 1, 0, arch), (ret, 0, 0, _SECCOMP_RET_ALLOW), (load, 0, 0, 0)]
    for position, number in enumerate(numbers):
        program.append((equal, len(numbers) - position, 0, number))
    program += [(ret, 0, 0, _SECCOMP_RET_ALLOW), (ret, 0, 0, _SECCOMP_RET_ERRNO)]
    code = b"".join(struct.pack("=HBBI", *step) for step in program)
    fprog = _SockFprog(len(program), code)
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(fprog), 0, 0), "prctl(PR_SET_SECCOMP)")
