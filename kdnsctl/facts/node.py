"""Facts about the node itself: its clock, who it is, what its kernel has loaded and said, how it resolves names.

What /proc tells needs no program that kube-proxy's image lacks. The rest is for the node's own tools, which differ from
node to node: where they are not there, neither is the fact, and nothing is the worse for it.
"""

from __future__ import annotations

from typing import Final

from kdnsctl.model import Fact, Privilege, Proof, Toolset

_KERNEL: Final = "/proc/sys/kernel"


def _fact(
    id_: str,
    title: str,
    *command: str,
    max_bytes: int = 64 << 10,
    tools: Toolset = Toolset.KUBE_PROXY,
    privilege: Privilege = Privilege.NONE,
    seconds: int = 10,
) -> Fact:
    return Fact(id_, title, privilege, Proof.TRAILER, max_bytes, seconds, {tools: command})


# Without `date`: seconds since the start, to the hundredth, and the second of the start (proc(5), fs/proc/stat.c).
CLOCK: Final = _fact(
    "node.clock",
    "the node's clock",
    "grep",
    "-h",
    "-e",
    "^btime ",
    "-e",
    "^[0-9]*[.][0-9]* ",
    "/proc/stat",
    "/proc/uptime",
    max_bytes=4 << 10,
)
IDENTITY: Final = _fact(
    "node.identity",
    "kernel, name and start of the node",
    "grep",
    "-H",
    "",
    f"{_KERNEL}/osrelease",
    f"{_KERNEL}/version",
    f"{_KERNEL}/hostname",
    f"{_KERNEL}/random/boot_id",
)
NAMESPACE: Final = _fact(
    "node.netns", "the network namespace that was read", "readlink", "/proc/self/ns/net", tools=Toolset.HOST
)
RELEASE: Final = _fact("node.release", "the node's distribution", "cat", "/etc/os-release", tools=Toolset.HOST)
MODULES: Final = _fact(
    "kernel.modules", "modules that the kernel has loaded", "cat", "/proc/modules", max_bytes=1 << 20
)
# -r: with levels, and the same form everywhere. /dev/kmsg would need no tool, but reading it does not end.
KERNEL_LOG: Final = _fact(
    "kernel.log",
    "the kernel's log",
    "dmesg",
    "-r",
    max_bytes=16 << 20,
    tools=Toolset.HOST,
    privilege=Privilege.ROOT,  # kernel.dmesg_restrict
    seconds=30,
)
# In kube-proxy's container this is what the kubelet has made of its own resolvConf; over SSH it is the host's.
RESOLVER: Final = _fact("dns.resolver", "how the node resolves names", "cat", "/etc/resolv.conf")
