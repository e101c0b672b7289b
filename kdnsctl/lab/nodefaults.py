"""Faults the lab injects into a node's kube-proxy container, at the place where they happen in life.

A fault changes files in the container's own directory tree and nothing else: the stand-in runs the tool, the tool
fails, the stand-in logs what a kube-proxy logs. Faults stay with the node, so a restarted container has them too,
until they are lifted.
"""

# ruff: noqa: PTH115 - paths here go straight into system calls and argument lists
from __future__ import annotations

import enum
import os
from pathlib import Path

from kdnsctl.lab.container import resolve_inside

_CONNTRACK = "usr/sbin/conntrack"
_RESTORE = "usr/sbin/iptables-restore"
_NETLINK = "run/kdnsctl-lab-netlink-fault"


class Fault(enum.Enum):
    """What can be made to fail."""

    CONNTRACK = "conntrack"
    """`conntrack -D` ends with 1 in the words of an entry that expired while it walked the table (tools up to 1.4.7).
    From 1.32 on, where the program is not used, deleting over netlink fails instead."""
    RESTORE = "restore"
    """iptables-restore does not find its modules, so it fails on any rules; the other tools work."""


_CONNTRACK_SCRIPT = """#!/bin/sh
echo "conntrack v1.4.7 (conntrack-tools): Operation failed: such conntrack doesn't exist" >&2
exit 1
"""
_RESTORE_SCRIPT = """#!/bin/sh
XTABLES_LIBDIR=/usr/lib/absent exec /usr/sbin/iptables-nft-restore "$@"
"""


def _own(root: Path, name: str) -> Path:
    """The file in the container's tree, which its root may have rearranged: a link to elsewhere stays inside."""
    directory, _, base = name.rpartition("/")
    return resolve_inside(root, directory) / base


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with temporary.open("x", encoding="ascii") as file:
        file.write(text)
    temporary.chmod(0o755)
    temporary.rename(path)


def inject(root: Path, fault: Fault) -> None:
    """Put the fault into a container's tree. Does nothing for a tool that the image does not hold."""
    if fault is Fault.RESTORE:
        _replace(_own(root, _RESTORE), _RESTORE_SCRIPT)
    elif os.path.lexists(_own(root, _CONNTRACK)):
        _replace(_own(root, _CONNTRACK), _CONNTRACK_SCRIPT)
    else:
        _replace(_own(root, _NETLINK), "operation not permitted\n")


def lift(root: Path, image: Path, fault: Fault) -> None:
    """Undo `inject`, by the image's own file."""
    if fault is Fault.CONNTRACK:
        _own(root, _NETLINK).unlink(missing_ok=True)
    name = _RESTORE if fault is Fault.RESTORE else _CONNTRACK
    own, original = _own(root, name), image / name
    if not os.path.lexists(original) or own.is_symlink() or (original.exists() and own.samefile(original)):
        return  # the fault is not there
    temporary = own.with_name(".lifted")
    temporary.unlink(missing_ok=True)
    if original.is_symlink():
        temporary.symlink_to(os.readlink(original))
    else:
        os.link(original, temporary)
    temporary.rename(own)
