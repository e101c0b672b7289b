"""The first moments of a lab: namespaces of its own, then a first process that reaps, and the supervisor below it.

Run as `python -m kdnsctl.lab.spaceinit` by `space.up`, in a fresh interpreter, with everything it needs in inherited
file descriptors and one JSON argument. The order is the recipe that works without root: user namespace, its id maps,
and only then the network namespace; in one call /proc/net/nf_conntrack would stay unreadable, because the owner of
its files is looked up when the network namespace is made.

Whatever is killed with -9 here, the kernel ends the rest: all processes live in the PID namespace of the first one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path

from kdnsctl.lab import kernel
from kdnsctl.lab.spacedir import Identity, LabDir, LabError, start_time, write_identity


def make_namespaces(*, rootless: bool) -> None:
    """Leave the machine's namespaces; the PID namespace takes effect for the next child. Raises OSError."""
    if rootless:
        uid, gid = os.getuid(), os.getgid()
        kernel.unshare(kernel.CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")
    kernel.unshare(
        kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWPID | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC
    )


def make_mounts(where: LabDir) -> None:
    """Private mounts: nothing made from here on is seen by the machine. Run in the new PID namespace.

    /run is the lab's own (`ip netns` and xtables.lock live there), /proc and /sys show the lab's namespaces.
    """
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    safe = kernel.MS_NOSUID | kernel.MS_NODEV
    root = os.open(where.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    kernel.mount("tmpfs", "/run", "tmpfs", safe, "mode=755,size=64m")
    if where.root.is_relative_to("/run"):
        where.root.mkdir(parents=True)
        kernel.bind(f"/proc/self/fd/{root}", str(where.root))
    os.close(root)
    Path("/run/netns").mkdir()
    kernel.mount("proc", "/proc", "proc", safe | kernel.MS_NOEXEC)
    kernel.mount("sysfs", "/sys", "sysfs", safe | kernel.MS_NOEXEC)
    kernel.mount("tmpfs", str(where.space), "tmpfs", safe, "mode=755,size=512m")


def be_first_process(supervisor: int) -> None:
    """PID 1 of the lab: reap orphans until the supervisor ends, then end, which ends everything. Never returns."""
    kernel.set_process_name("lab-init")
    kernel.set_command_line(["lab-init"])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == supervisor:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def main(argument: str) -> int:
    """Build the lab described by the JSON `argument` and return once its first process is recorded."""
    options = json.loads(argument)
    where = LabDir(Path(options["root"]))
    ready = int(options["ready_fd"])
    listener = int(options["listen_fd"])
    for fd in (ready, listener):
        os.set_inheritable(fd, False)
    try:
        make_namespaces(rootless=options["rootless"])
        go_read, go_write = os.pipe2(os.O_CLOEXEC)
        first = os.fork()
    except OSError as error:
        os.write(ready, f"error the namespaces could not be made: {error}\n".encode())
        return 1
    if first == 0:
        os.close(go_write)
        # Ends here when the parent was killed before it had recorded this process: then nobody could find it again.
        if os.read(go_read, 1) != b"g":
            os._exit(1)
        os.close(go_read)
        _first(where, options, ready, listener)
    os.close(go_read)
    started = start_time(first)
    if started is None:
        os.write(ready, b"error the lab's first process ended at once\n")
        return 1
    try:
        write_identity(where, Identity(first, started, options["rootless"]))
        os.write(go_write, b"g")
    except (OSError, LabError) as error:
        with contextlib.suppress(OSError):  # who would read it may be gone, too
            os.write(ready, f"error {error}\n".encode())
        return 1
    return 0


def _first(where: LabDir, options: dict[str, object], ready: int, listener: int) -> None:
    try:
        make_mounts(where)
        kernel.sethostname(f"lab-{where.name}"[:63])
        supervisor = os.fork()
    except OSError as error:
        os.write(ready, f"error the lab's mounts could not be made: {error}\n".encode())
        os._exit(1)
    if supervisor == 0:
        code = 1
        try:
            kernel.die_with_parent()
            kernel.set_process_name("lab-supervisor")
            kernel.set_command_line([f"lab-supervisor {where.name}"])
            from kdnsctl.lab import supervisor as room  # noqa: PLC0415 - the first process does without it

            code = room.run(where, options, ready, listener)
        except Exception as error:  # noqa: BLE001 - the last place that can tell the one who waits
            traceback.print_exc()
            with contextlib.suppress(OSError):
                os.write(ready, f"error {type(error).__name__}: {error}\n".encode()[:4000])
        finally:
            os._exit(code)
    os.close(ready)
    os.close(listener)
    be_first_process(supervisor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
