"""What each container image of the lab holds: exactly these files, taken from the machine, and nothing else.

A rung of the ladder that works only because a namespace shares the machine's files would be a lie, so an image is a
directory with the named tools, the libraries their dynamic loader asks for, and the data they open. The kube-proxy
images follow kubernetes/release (distroless-iptables): a shell, seven small tools, iptables, ipset, nft and kmod;
`conntrack` only up to v0.7.11 and v0.8.6, so in Kubernetes 1.31.14 and not in 1.32.13 or later
(kubernetes/release#4223). Nothing is fetched; a tool the machine lacks is missing in the image and is named by
`missing`. The tools image's own prober is built from its source, where that and a compiler are there.
"""

# ruff: noqa: PTH113, PTH114, PTH115, PTH118, PTH119, PTH211 - paths here go straight into system calls and argument lists
from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SEARCH = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x[0-9a-f]+\)")

PROBER = "dnsprobe"
_PROBER_SOURCE = Path(__file__).parents[2] / "images" / "tools" / "dnsprobe.c"  # of a checkout; no wheel has it

_SHELL = ("sh", "cat", "grep", "wc", "sleep", "chmod", "ln", "rm")
_IPTABLES = tuple(
    f"{family}tables{flavour}{verb}"
    for family in ("ip", "ip6")
    for flavour in ("", "-nft", "-legacy")
    for verb in ("", "-save", "-restore")
)
_KUBE_PROXY = (*_SHELL, *_IPTABLES, "xtables-nft-multi", "xtables-legacy-multi", "ipset", "nft", "kmod")
_COREUTILS = (
    "base64", "basename", "cut", "date", "dd", "df", "dirname", "echo", "env", "false", "head", "hostname", "id", "ls",
    "mkdir", "mkfifo", "mv", "printf", "readlink", "rmdir", "sha256sum", "sort", "stat", "tail", "tee", "test",
    "timeout", "touch", "tr", "true", "uname", "uniq", "xargs", "awk", "sed", "find", "ps", "kill", "tar", "gzip",
    "nsenter", "ip", "ss", "sysctl",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its tools by name, and the program that stands in for its main one (None: none)."""

    tools: tuple[str, ...]
    builtin: str | None = None
    program: str | None = None
    """Where the main program lies in the image; a pod that runs this path gets the stand-in."""


KUBE_PROXY = "registry.k8s.io/kube-proxy"
COREDNS = "registry.k8s.io/coredns/coredns"
DNS_CLIENT = "kdnsctl.io/lab/dns-client"
TOOLS = "kdnsctl.io/lab/tools"
PAUSE = "registry.k8s.io/pause"


class UnknownImageError(Exception):
    """The lab has no such image, and there is no registry to pull it from."""


def describe(reference: str) -> Image:
    """The image behind a reference such as `registry.k8s.io/kube-proxy:v1.30.3`. Raises UnknownImageError.

    A digest (`@sha256:…`) is accepted after a known name and selects nothing: the lab has one build of each.
    """
    name, _, tag = reference.partition("@")[0].partition(":")
    if name == KUBE_PROXY:
        match = re.match(r"v?1\.(\d+)", tag)
        minor = int(match.group(1)) if match else 36
        tools = (*_KUBE_PROXY, "conntrack") if minor <= 31 else _KUBE_PROXY
        return Image(tools, "kube-proxy", "/usr/local/bin/kube-proxy")
    if name == COREDNS:
        return Image((), "coredns", "/coredns")
    if name == DNS_CLIENT:
        return Image(("sh", "cat", "sleep"), "dns-client", "/dns-client")
    if name == TOOLS:
        return Image((*_KUBE_PROXY, *_COREUTILS, "conntrack", PROBER))
    if name == PAUSE:
        return Image(("sleep",))
    raise UnknownImageError(reference)


def names() -> tuple[str, ...]:
    """References the lab's own manifests and `lab doctor` use, one per distinct content."""
    return (f"{KUBE_PROXY}:v1.30.3", f"{KUBE_PROXY}:v1.36.2", f"{COREDNS}:v1.11.1", f"{DNS_CLIENT}:1", f"{TOOLS}:1")


def find_tool(name: str) -> str | None:
    """The machine's file for a tool, None when it has none. `sh` is dash where there is one, as in the images."""
    if name == "sh" and (dash := find_tool("dash")):
        return dash
    for directory in _SEARCH:
        path = os.path.join(directory, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def missing(reference: str) -> tuple[str, ...]:
    """Tools the image should hold and the machine does not have."""
    lacking = (tool for tool in describe(reference).tools if find_tool(tool) is None)
    return tuple(tool for tool in lacking if tool != PROBER or not _can_build_prober())


def _can_build_prober() -> bool:
    return find_tool("cc") is not None and _PROBER_SOURCE.is_file()


def _build_prober(target: Path) -> None:
    """As the image's Containerfile does. A compiler that fails (it lacks a static libc) leaves the image without it."""
    command = [find_tool("cc") or "cc", "-std=c11", "-O2", "-static", "-o", str(target), str(_PROBER_SOURCE)]
    subprocess.run(command, capture_output=True, check=False, env={"PATH": ":".join(_SEARCH)})


class Library:
    """Builds image directories below one root, each once. Not safe for use from several threads at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._needs: dict[str, tuple[str, ...]] = {}

    def path(self, reference: str) -> Path:
        """The directory with the image's files, built now if it is asked for the first time."""
        image = describe(reference)
        key = re.sub(r"[^A-Za-z0-9.]+", "_", reference.partition("@")[0])
        target = self._root / key
        if not target.exists():
            building = self._root / f".{key}"
            shutil.rmtree(building, ignore_errors=True)
            self._build(image, building)
            building.rename(target)
        return target

    def _build(self, image: Image, target: Path) -> None:
        for name in (
            "bin",
            "sbin",
            "usr/bin",
            "usr/sbin",
            "usr/lib",
            "etc",
            "tmp",
            "var/lib",
            "run",
            "proc",
            "sys",
            "dev",
        ):
            (target / name).mkdir(parents=True, exist_ok=True)
        (target / "tmp").chmod(0o1777)
        (target / "etc/passwd").write_text(
            "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532::/:/sbin/nologin\n"
        )
        (target / "etc/group").write_text("root:x:0:\nnonroot:x:65532:\n")
        (target / "var/run").symlink_to("/run")
        needed: set[str] = set()
        for tool in image.tools:
            source = find_tool(tool)
            if source is not None:
                needed |= self._add_tool(target, tool, source)
            elif tool == PROBER and _can_build_prober():
                _build_prober(target / "usr/bin" / PROBER)
        plugins = _plugins(image.tools)
        for extra in plugins:
            _copy(Path(extra), target)
        if plugins:
            # One run of the loader for all of them: a run for each of the hundred would cost most of a second.
            needed |= set(self._libraries(find_tool("sh") or "/bin/sh", ":".join(plugins))) - set(plugins)
        for library in sorted(needed):
            _copy(Path(library), target)
        if image.program:
            program = target / image.program.lstrip("/")
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text("This file stands for the program; the lab runs its own in its place.\n")
            program.chmod(0o755)

    def _add_tool(self, target: Path, tool: str, source: str) -> set[str]:
        """Put a tool at its usual path; a name that is a link to a multi-call program stays a link."""
        real = os.path.realpath(source)
        directory = "usr/sbin" if "/sbin/" in source else ("bin" if tool in _SHELL else "usr/bin")
        place = target / directory / tool
        if os.path.basename(real) != tool and os.path.basename(real) in (*_KUBE_PROXY, "kmod"):
            program = target / "usr/sbin" / os.path.basename(real)
            if not program.exists():
                shutil.copy2(real, program)
            place.symlink_to(f"/usr/sbin/{os.path.basename(real)}")
        elif not place.exists():
            shutil.copy2(real, place)
        return set(self._libraries(real))

    def _libraries(self, program: str, plugins: str = "") -> tuple[str, ...]:
        """What the dynamic loader would load for a program (and modules), asked of the loader itself (ld.so(8))."""
        key = f"{program} {plugins}"
        if key not in self._needs:
            environment = {"PATH": "/usr/bin:/bin", "LD_TRACE_LOADED_OBJECTS": "1"} | (
                {"LD_PRELOAD": plugins} if plugins else {}
            )
            done = subprocess.run([program], capture_output=True, text=True, env=environment, check=False)
            self._needs[key] = tuple(_LIBRARY.findall(done.stdout)) if done.returncode == 0 else ()
        return self._needs[key]


def _plugins(tools: Iterable[str]) -> list[str]:
    """Files that tools open at run time: the match and target modules of iptables."""
    if "iptables" not in tools:
        return []
    found: list[str] = []
    for pattern in ("usr/lib/*/xtables/*.so", "usr/lib/xtables/*.so", "usr/lib64/xtables/*.so"):
        found += [str(path) for path in Path("/").glob(pattern)]
    return found


def _copy(source: Path, root: Path) -> None:
    """Copy a file to its own path below `root`, behind links at the path the loader asks for."""
    target = root / str(source).lstrip("/")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(os.path.realpath(source), target)


def clone(image: Path, target: Path) -> None:
    """A container's own directory tree over an image: directories are new, files are shared as hard links.

    A container can add, remove and replace files without another noticing; it must not write into one of the image's.
    """
    for directory, children, files in os.walk(image):
        relative = os.path.relpath(directory, image)
        here = target / relative
        here.mkdir(exist_ok=True)
        shutil.copymode(directory, here)
        for child in list(children):
            path = os.path.join(directory, child)
            if os.path.islink(path):
                os.symlink(os.readlink(path), here / child)
                children.remove(child)
        for name in files:
            path = os.path.join(directory, name)
            os.link(path, here / name, follow_symlinks=False)
