"""What a process of the lab does between fork and its real work: namespaces, root directory, identity, exec.

`Launch` describes one container (or one plain process of a node) as data; `run_container` is called in a freshly
forked child and never returns. It builds what a container runtime builds: a mount namespace whose root is the image,
/proc, /dev and /sys as a runtime mounts them, the capabilities and user of the security context. Which pods exist,
and which image holds what, is not known here.

Stand-ins written in Python (`builtin`) run in the same forked interpreter: everything they need was imported before,
so their root directory holds only what the image holds, and no interpreter.
"""

# ruff: noqa: PTH110, PTH112, PTH113, PTH115, PTH116, PTH118, PTH119 - paths here go straight into system calls and argument lists
from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kdnsctl.lab import kernel

DEFAULT_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)  # fmt: skip
"""What containerd gives a container that asks for nothing (containerd oci/spec.go, defaultUnixCaps)."""

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
Builtin = Callable[[Sequence[str], Mapping[str, str]], int]


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or directory of the node shown in the container. `source` and `target` are absolute paths."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Launch:
    """One process to start on a node. `root` None: no container, the node's own files and namespaces."""

    argv: tuple[str, ...]
    root: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] | None = None
    """None keeps all, as a privileged container does."""
    no_new_privileges: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    host_uts: bool = False
    hostname: str = ""
    read_only_root: bool = False
    mounts: tuple[Mount, ...] = ()
    builtin: str | None = None
    pretend_ownership: bool = False
    """For sshd without root; see `kernel.pretend_ownership_calls_work`."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Launch:
        raw = json.loads(text)
        raw["argv"] = tuple(raw["argv"])
        raw["groups"] = tuple(raw["groups"])
        raw["mounts"] = tuple(Mount(**each) for each in raw["mounts"])
        if raw["capabilities"] is not None:
            raw["capabilities"] = tuple(raw["capabilities"])
        return Launch(**raw)


class StartError(Exception):
    """The process could not be started; the text is what a container runtime would say."""


def run_container(
    launch: Launch, streams: Sequence[int], netns: int | None, report: int, builtin: Builtin | None
) -> None:
    """Be the shim of one process: make the namespaces, fork its first process, wait for it and end as it ended.

    `streams` are stdin, stdout and stderr; `netns` the network namespace to enter (None: stay); `report` a pipe that
    receives `pid N` and, when the start fails, `error TEXT`; it is closed once the process runs.
    """
    try:
        name_shim()
        if netns is not None:
            kernel.setns(netns, kernel.CLONE_NEWNET)
        if launch.root is not None:
            flags = kernel.CLONE_NEWNS
            flags |= 0 if launch.host_pid else kernel.CLONE_NEWPID
            flags |= 0 if launch.host_ipc else kernel.CLONE_NEWIPC
            flags |= 0 if launch.host_uts else kernel.CLONE_NEWUTS
            kernel.unshare(flags)
        pid = os.fork()
    except OSError as error:
        _report(report, f"error {error}")
        os._exit(128)
    if pid == 0:
        _first_process(launch, streams, report, builtin)
    _report(report, f"pid {pid}")
    be_shim_of(pid, [*streams, report, *([] if netns is None else [netns])])


def name_shim() -> None:
    """Show up as a shim in `ps`. Before the fork: the new root directory of the child becomes the shim's as well."""
    kernel.set_process_name("lab-shim")
    kernel.set_command_line(["lab-shim"])


def be_shim_of(pid: int, close: Sequence[int]) -> None:
    """Wait for child `pid` and end with its status (128+N after signal N), as a runtime's shim reports it."""
    for fd in set(close):
        os.close(fd)
    # Signals for the container go to its first process directly; the shim only reports.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _report(fd: int, text: str) -> None:
    os.write(fd, text.encode()[:3500] + b"\n")


def _first_process(launch: Launch, streams: Sequence[int], report: int, builtin: Builtin | None) -> None:
    try:
        kernel.die_with_parent()
        os.setsid()
        if launch.root is not None:
            if launch.hostname and not launch.host_uts:
                kernel.sethostname(launch.hostname)
            build_root(launch, launch.root)
        for target, source in enumerate(streams):
            os.dup2(source, target)
        os.set_inheritable(report, False)
        become(launch)
        if builtin is not None:
            os.close(report)
            run_builtin(launch, builtin)
        execute(launch)
    except (OSError, StartError) as error:
        _report(report, f"error {error}")
    finally:
        os._exit(128)


def run_builtin(launch: Launch, builtin: Builtin) -> None:
    """Run a Python stand-in as the container's process; its standard streams are the container's. Never returns."""
    os.closerange(3, 256)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115 - as long as the process
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115 - as long as the process
    os.environ.clear()
    os.environ.update(launch.env)
    kernel.set_process_name(os.path.basename(launch.argv[0]))
    kernel.set_command_line(launch.argv)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # As the first process of a PID namespace it would not even notice a signal without a handler. A Go program
        # that handles nothing ends with 2 there (runtime/signal_unix.go, dieFromSignal).
        signal.signal(number, lambda *_: os._exit(2))
    code = 2
    try:
        code = builtin(launch.argv[1:], launch.env)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - the process ends here, and its log must say why
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def execute(launch: Launch) -> None:
    """Replace this process by the command, looked up in the container's own PATH. Raises StartError or OSError."""
    name = launch.argv[0]
    path = find_executable(name, launch.env.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
    for number in range(1, signal.NSIG):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execve(path, list(launch.argv), launch.env)  # noqa: S606 - what a container is asked to run


def find_executable(name: str, search: str) -> str:
    """The file to run, or StartError in the words of runc (libcontainer/standard_init_linux.go and exec.LookPath)."""
    if "/" in name:
        try:
            mode = os.stat(name).st_mode
        except OSError as error:
            text = (
                "no such file or directory" if isinstance(error, FileNotFoundError) else (error.strerror or "").lower()
            )
            raise StartError(f'exec: "{name}": stat {name}: {text}') from None
        if stat.S_ISDIR(mode) or not mode & 0o111:
            raise StartError(f'exec: "{name}": permission denied')
        return name
    for directory in search.split(":"):
        candidate = os.path.join(directory or ".", name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    raise StartError(f'exec: "{name}": executable file not found in $PATH')


def become(launch: Launch) -> None:
    """Take on user, groups and capabilities of the security context. There is no way back."""
    if launch.pretend_ownership:
        kernel.pretend_ownership_calls_work()
    known = kernel.known_capabilities() if os.path.exists("/proc/sys/kernel/cap_last_cap") else len(kernel.CAPABILITIES)
    if launch.capabilities is not None:
        kernel.drop_bounding(launch.capabilities, known)
    wanted = list(dict.fromkeys((launch.gid, *launch.groups)))
    if os.getgroups() != wanted and (launch.uid or launch.gid or launch.groups or _may_set_groups()):
        os.setgroups(wanted)
    if launch.gid != os.getgid():
        os.setresgid(launch.gid, launch.gid, launch.gid)
    if launch.uid != os.getuid():
        os.setresuid(launch.uid, launch.uid, launch.uid)
    elif launch.capabilities is not None:
        kernel.set_capabilities(launch.capabilities)
    if launch.no_new_privileges:
        kernel.no_new_privileges()
    # A change of credentials clears this one, so it is asked for again. The first process of a PID namespace of its
    # own has no parent in it, and needs none: the namespace ends with the shim's death through this very signal.
    kernel.die_with_parent()
    os.chdir(launch.cwd)


def _may_set_groups() -> bool:
    """False in a user namespace whose group map was written without root: there setgroups is denied for good."""
    try:
        return Path("/proc/self/setgroups").read_text(encoding="ascii").strip() != "deny"
    except OSError:
        return True


def build_root(launch: Launch, root: str) -> None:
    """Make `root` the root directory, with the mounts a runtime adds. The image's files are the only others."""
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.bind(root, root)
    inside = Path(root)
    for name in ("proc", "sys", "dev"):
        (inside / name).mkdir(exist_ok=True)
    if launch.host_pid:
        kernel.bind("/proc", str(inside / "proc"), recursive=True)
    else:
        kernel.mount("proc", str(inside / "proc"), "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    privileged = launch.capabilities is None
    sys_flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("sysfs", str(inside / "sys"), "sysfs", sys_flags | (0 if privileged else kernel.MS_RDONLY))
    if not privileged and not launch.host_pid:
        sysctls = str(inside / "proc/sys")
        kernel.bind(sysctls, sysctls)
        kernel.set_read_only(sysctls, recursive=False)
    build_dev(inside / "dev")
    for each in launch.mounts:
        _mount_volume(inside, each)
    if launch.read_only_root:
        kernel.set_read_only(root, recursive=False)
    kernel.enter_root(root)


def build_dev(dev: Path) -> None:
    """A /dev with the six devices that every runtime gives, at the existing directory `dev`."""
    kernel.mount("tmpfs", str(dev), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=64k")
    for name in DEVICES:
        (dev / name).touch()
        kernel.bind(f"/dev/{name}", str(dev / name))
    (dev / "pts").mkdir()
    kernel.mount("devpts", str(dev / "pts"), "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, "newinstance,ptmxmode=0666")
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "shm").mkdir()
    kernel.mount("tmpfs", str(dev / "shm"), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777,size=64m")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (dev / name).symlink_to(f"/proc/self/fd/{number}")
    (dev / "fd").symlink_to("/proc/self/fd")


def resolve_inside(root: Path, path: str) -> Path:
    """Where `path` of a container lies outside it: symbolic links are followed as the container would follow them.

    Without this a link in an image, such as /var/run -> /run, would lead a mount to the node's own files.
    """
    here: list[str] = []
    todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            here = here[:-1]
            continue
        place = root.joinpath(*here, part)
        if place.is_symlink():
            links += 1
            if links > 40:
                raise StartError(f"too many levels of symbolic links in {path}")
            target = os.readlink(place)
            if target.startswith("/"):
                here = []
            todo += [part for part in target.split("/") if part not in ("", ".")][::-1]
        else:
            here.append(part)
    return root.joinpath(*here)


def _mount_volume(root: Path, volume: Mount) -> None:
    target = resolve_inside(root, volume.target)
    if not os.path.exists(volume.source):
        raise StartError(f'failed to mount "{volume.source}" to "{volume.target}": no such file or directory')
    if os.path.isdir(volume.source):
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(exist_ok=True)
    kernel.bind(volume.source, str(target), recursive=not volume.read_only)
    if volume.read_only:
        kernel.set_read_only(str(target), recursive=True)
