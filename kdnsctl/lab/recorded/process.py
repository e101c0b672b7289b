"""The one process of a lab that plays recordings: the API, the door for `lab status`, and nothing below it.

Run as `python -m kdnsctl.lab.recorded.process` by `recorded.up`, with the listening socket and the pipe for "ready"
inherited. It runs until it is killed; `down` then removes its directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdnsctl.lab import kernel, kinds
from kdnsctl.lab.api.access import MASTERS, Policy
from kdnsctl.lab.api.access import Identity as User
from kdnsctl.lab.api.server import ApiServer
from kdnsctl.lab.newstore import new_store
from kdnsctl.lab.recorded import cluster
from kdnsctl.lab.recorded.playback import Playback
from kdnsctl.lab.spacedir import Identity, LabDir, start_time, write_identity
from kdnsctl.lab.store import Store

CANNOT = "this lab plays recordings: there is nothing in it to break, to enter or to measure"


def main(argument: str) -> int:
    """Start the process that stays, described by the JSON `argument`; return when it is recorded."""
    options = json.loads(argument)
    where = LabDir(Path(options["root"]))
    ready, listener = int(options["ready_fd"]), int(options["listen_fd"])
    for fd in (ready, listener):
        os.set_inheritable(fd, False)
    recorded_read, recorded_write = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(recorded_write)
        os.read(recorded_read, 1)
        return 0
    try:
        kernel.set_process_name("lab-recorded")
        kernel.set_command_line([f"lab-recorded {where.name}"])
        write_identity(where, Identity(os.getpid(), start_time(os.getpid()) or 0, rootless=True, recorded=True))
        os.close(recorded_write)
        server = serve(where, listener)
        answer_door(where, server.url)
    except Exception as error:  # noqa: BLE001  # the last place that can tell the one who waits
        traceback.print_exc()
        with contextlib.suppress(OSError):
            os.write(ready, f"error {type(error).__name__}: {error}\n".encode()[:4000])
        os._exit(1)
    os.write(ready, b"ready\n")
    os.close(ready)
    threading.Event().wait()
    return 0


def serve(where: LabDir, listener: int) -> ApiServer:
    """Start the API on an inherited listening socket and write what leads to it; the nodes' logs go beside it."""
    store, policy = new_store(), Policy()
    cluster.fill(store)
    places, logs = _places(store, where)
    outside = socket.socket(fileno=listener)
    outside.setblocking(False)
    api = ApiServer(store, Playback(places, logs), [outside], policy=policy)
    api.start()
    operator = secrets.token_urlsafe(32)
    policy.tokens[operator] = User("kdnsctl-lab", (MASTERS,))
    where.ca_file.write_bytes(api.authority.pem)
    for path, text in ((where.token_file, operator), (where.kubeconfig, api.kubeconfig(name=where.context))):
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
    return api


def _places(store: Store, where: LabDir) -> tuple[dict[str, str], dict[str, Path]]:
    """The node of every pod, and a copy of the log of each that has one, at the path that a node keeps it."""
    places, logs = {}, {}
    for pod in store.select(kinds.PODS, "kube-system"):
        name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
        places[name] = node
        if pod["metadata"]["labels"]["k8s-app"] == "kube-proxy":
            directory = where.node_log(node) / "pods" / f"kube-system_{name}_{pod['metadata']['uid']}" / "kube-proxy"
            directory.mkdir(parents=True)
            logs[name] = directory / "0.log"
            shutil.copyfile(cluster.DATA / node / "kube-proxy.log", logs[name])
    return places, logs


def answer_door(where: LabDir, url: str) -> None:
    """Answer on the lab's own socket from a thread, as a kernel lab's supervisor does: status, and a no to the rest."""
    door = socket.socket(socket.AF_UNIX)
    directory = os.open(where.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    door.bind(f"/proc/self/fd/{directory}/{where.control_socket.name}")
    os.close(directory)
    door.listen(16)
    operations: dict[str, Callable[[], dict[str, Any]]] = {
        "status": lambda: {"server": url, "nodes": [cluster.node_status(node) for node in cluster.NODES]},
    }

    def answer() -> None:
        while True:
            link, _ = door.accept()
            with link, contextlib.suppress(OSError, ValueError, KeyError), link.makefile("rb") as stream:
                link.settimeout(10)
                operation = operations.get(json.loads(stream.readline())["op"])
                reply = {"error": CANNOT} if operation is None else operation()
                link.sendall(json.dumps(reply).encode() + b"\n")

    threading.Thread(target=answer, name="control", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
