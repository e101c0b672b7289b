"""Can this machine run the kernel lab? Each check tries the real thing and says how to get what is missing.

Nothing is changed: namespaces are made in a child process and end with it. Package names are Debian's.
"""

# ruff: noqa: PTH110 - paths here go straight into system calls and argument lists
from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kdnsctl.lab.images import find_tool
from kdnsctl.lab.sshd import SSHD

_TOOLS = (
    ("ip", "iproute2", "nodes and their network"),
    ("iptables-restore", "iptables", "kube-proxy's rules"),
    ("conntrack", "conntrack", "kube-proxy's cleaning, and looking at the entries"),
    ("nsenter", "util-linux", "`lab shell`"),
)
_OPTIONAL = (
    ("nft", "nftables", "the kube-proxy image holds it"),
    ("ipset", "ipset", "the kube-proxy image holds it"),
    ("kmod", "kmod", "the kube-proxy image holds it"),
    ("dash", "dash", "the images' shell; another /bin/sh is taken in its place"),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `needed` False: the lab runs without it, with less in it. `remedy`: what to do."""

    name: str
    ok: bool
    needed: bool
    detail: str
    remedy: str = ""


def _kernel() -> Check:
    release = platform.release()
    numbers = [int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit()]
    ok = tuple(numbers) >= (5, 12)
    return Check("kernel", ok, True, f"Linux {release}", "" if ok else "read-only node mounts need Linux 5.12 or later")


def _tools() -> list[Check]:
    found = []
    for needed, group in ((True, _TOOLS), (False, _OPTIONAL)):
        for tool, package, purpose in group:
            path = find_tool(tool)
            remedy = "" if path else f"apt-get install {package}"
            found.append(Check(tool, path is not None, needed, path or f"missing; it is for {purpose}", remedy))
    ssh = os.path.exists(SSHD) and find_tool("ssh-keygen") is not None
    detail = SSHD if ssh else "missing; the nodes have no SSH without it"
    found.append(Check("sshd", ssh, False, detail, "" if ssh else "apt-get install openssh-server"))
    return found


def _python() -> list[Check]:
    found = []
    for module, package in (
        ("dns", "dnspython"),
        ("aiohttp", "aiohttp"),
        ("cryptography", "cryptography"),
        ("msgspec", "msgspec"),
    ):
        ok = importlib.util.find_spec(module) is not None
        found.append(
            Check(
                f"python {package}", ok, True, "installed" if ok else "missing", "" if ok else f"pip install {package}"
            )
        )
    return found


_TRY = """
import os, sys
from pathlib import Path
from kdnsctl.lab import kernel
from kdnsctl.lab.spaceinit import make_namespaces
rootless = sys.argv[1] == "rootless"
try:
    make_namespaces(rootless=rootless)
    if os.fork() == 0:
        kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("proc", "/proc", "proc", 0)
        kernel.mount("sysfs", "/sys", "sysfs", 0)
        kernel.mount("tmpfs", "/run", "tmpfs", 0)
        kernel.set_read_only("/run", recursive=False)
        import subprocess
        def tool(*argv):
            done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
            if done.returncode:
                sys.exit("%s: %s" % (" ".join(argv), (done.stderr or done.stdout).strip()))
        tool("ip", "link", "add", "br0", "type", "bridge")
        tool("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
        rule = "OUTPUT -p udp -m statistic --mode random --probability 0.5 -m comment --comment x "
        rule += "-j DNAT --to-destination 192.0.2.1"
        tool("iptables", "-t", "nat", "-A", *rule.split())
        tool("iptables", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT")
        tool("conntrack", "-L")
        Path("/proc/net/nf_conntrack").read_bytes()
        sys.exit(0)
    code = os.waitstatus_to_exitcode(os.wait()[1])
except OSError as error:
    sys.exit(str(error))
sys.exit(code)
"""


def _try(*, rootless: bool) -> str | None:
    """Make the namespaces and use them as the lab does; None when all works, else what failed."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[2]), *sys.path[1:]]),
    }
    command = [sys.executable, "-P", "-c", _TRY, "rootless" if rootless else "root"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip() or f"ended with {done.returncode}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _why_not() -> str:
    """What is known to forbid user namespaces, if it is in force here."""
    if _read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return "sysctl kernel.unprivileged_userns_clone=1 allows them (as root), or run the lab as root"
    if _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "sysctl kernel.apparmor_restrict_unprivileged_userns=0 allows them (as root), or run the lab as root"
    if _read("/proc/sys/user/max_user_namespaces") == "0":
        return "sysctl user.max_user_namespaces=15000 allows them (as root), or run the lab as root"
    return "run the lab as root, or on a machine (not in a container) that allows user namespaces"


def _namespaces() -> Check:
    rootless = os.geteuid() != 0
    kind = "without root" if rootless else "as root"
    failure = _try(rootless=rootless)
    if failure is None:
        return Check("namespaces", True, True, f"network, mounts, netfilter and conntrack work {kind}")
    remedy = (
        _why_not()
        if rootless
        else "as root this usually means a container without CAP_SYS_ADMIN: use the machine itself"
    )
    return Check("namespaces", False, True, f"{kind}: {failure.splitlines()[-1]}", remedy)


def examine(say: Callable[[Check], None] | None = None) -> tuple[Check, ...]:
    """All checks, in order; `say` is called with each as it is done."""
    checks = [_kernel(), *_python(), *_tools()]
    if all(check.ok for check in checks if check.needed):
        checks.append(_namespaces())
    for check in checks:
        if say is not None:
            say(check)
    return tuple(checks)


def can_run(checks: tuple[Check, ...]) -> bool:
    """Whether the lab can start on this machine."""
    return all(check.ok for check in checks if check.needed)
