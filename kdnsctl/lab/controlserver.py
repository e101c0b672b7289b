"""The supervisor's end of the lab's own socket (`control`): one thread per connection, one operation per request."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from kdnsctl.lab import network
from kdnsctl.lab.agent import AgentGoneError
from kdnsctl.lab.clientboard import ClientBoard
from kdnsctl.lab.container import StartError
from kdnsctl.lab.kubelet import Kubelet
from kdnsctl.lab.network import NetworkError
from kdnsctl.lab.nodefaults import Fault
from kdnsctl.lab.podworker import PodWorker
from kdnsctl.lab.spacedir import LabDir
from kdnsctl.lab.sshd import SshFault
from kdnsctl.lab.sshserver import SshServer

JSON = dict[str, Any]
_SIGNALS = {"stop": signal.SIGSTOP, "continue": signal.SIGCONT, "kill": signal.SIGKILL, "terminate": signal.SIGTERM}


class BadRequestError(Exception):
    """The request makes no sense for this lab; the text says why."""


class ControlServer:
    """Answers on the socket in the lab's directory until the process ends."""

    def __init__(
        self,
        where: LabDir,
        server: str,
        kubelets: dict[str, Kubelet],
        pids: dict[str, int],
        board: ClientBoard,
        ssh: dict[str, SshServer],
    ) -> None:
        self._where = where
        self._server = server
        self._kubelets = kubelets
        self._pids = pids
        self._board = board
        self._ssh = ssh
        self._stopped: dict[str, int] = {}
        self._operations: dict[str, Callable[[JSON], JSON]] = {
            "status": self._status,
            "node-pid": self._node_pid,
            "clients": lambda _: {"clients": self._board.readings()},
            "fault": self._fault,
            "ssh-fault": self._ssh_fault,
            "signal": self._signal,
            "run": self._run_tool,
        }

    def start(self) -> None:
        """Listen. The socket is private to the lab's user, like its directory."""
        listener = socket.socket(socket.AF_UNIX)
        directory = os.open(self._where.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        listener.bind(f"/proc/self/fd/{directory}/{self._where.control_socket.name}")
        os.close(directory)
        listener.listen(64)
        threading.Thread(target=self._accept, args=(listener,), name="control", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            link, _ = listener.accept()
            threading.Thread(target=self._serve, args=(link,), name="control-client", daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        with link, contextlib.suppress(ConnectionError):  # an asker that left needs no answer
            with link.makefile("rb") as stream:
                line = stream.readline()
            try:
                request = json.loads(line)
                if request["op"] == "dial":
                    self._dial(link, request)
                    return
                for reply in self._answers(request):
                    link.sendall(json.dumps(reply).encode() + b"\n")
            except ConnectionError:
                raise
            except (
                BadRequestError,
                KeyError,
                ValueError,
                TypeError,
                StartError,
                AgentGoneError,
                NetworkError,
                OSError,
            ) as error:
                text = str(error) if not isinstance(error, KeyError) else f"the request lacks {error}"
                link.sendall(json.dumps({"error": text}).encode() + b"\n")

    def _answers(self, request: JSON) -> Iterator[JSON]:
        if request["op"] == "follow-clients":
            yield from self._board.follow()
        elif request["op"] in self._operations:
            yield self._operations[request["op"]](request)
        else:
            raise BadRequestError(f"there is no operation {request['op']!r}")

    def _kubelet(self, request: JSON) -> Kubelet:
        name = request["node"]
        if name not in self._kubelets:
            raise BadRequestError(f"there is no node {name!r}; the lab has {', '.join(self._kubelets)}")
        return self._kubelets[name]

    def _status(self, _: JSON) -> JSON:
        nodes = []
        for name, kubelet in self._kubelets.items():
            counts = {each["kind"]: each for each in self._board.readings() if each["node"] == name}
            faults = sorted(fault.value for fault in kubelet.faults)
            if any(self._is_stopped(each) for each in kubelet.workers()):
                faults.append("kube-proxy stopped")
            if name in self._ssh:
                faults += sorted(f"ssh {fault.value}" for fault in self._ssh[name].faults)
            nodes.append({"name": name, "address": kubelet.net.address, "faults": faults, "clients": counts})
        return {"server": self._server, "nodes": nodes}

    def _is_stopped(self, worker: PodWorker) -> bool:
        """Whether what was stopped here is what runs there now."""
        state = worker.find("kube-proxy")
        return state is not None and state.pid is not None and self._stopped.get(worker.uid) == state.pid

    def _node_pid(self, request: JSON) -> JSON:
        return {"pid": self._pids[self._kubelet(request).name]}

    def _fault(self, request: JSON) -> JSON:
        self._kubelet(request).apply_fault(Fault(request["fault"]), active=bool(request["active"]))
        return {}

    def _ssh_fault(self, request: JSON) -> JSON:
        name = self._kubelet(request).name
        if name not in self._ssh:
            raise BadRequestError(f"{name} has no SSH server")
        self._ssh[name].apply(SshFault(request["fault"]), active=bool(request["active"]))
        return {}

    def _signal(self, request: JSON) -> JSON:
        """Send a signal to the first process of a container on a node, found by the pod's name prefix."""
        kubelet = self._kubelet(request)
        sent = 0
        for worker in kubelet.workers():
            state = worker.find(request["container"])
            if state is not None and state.pid is not None:
                kubelet.agent.signal(state.pid, _SIGNALS[request["signal"]])
                sent += 1
                if request["signal"] == "stop":
                    self._stopped[worker.uid] = state.pid
                else:
                    self._stopped.pop(worker.uid, None)
        if not sent:
            raise BadRequestError(f"no container {request['container']!r} runs on {kubelet.name}")
        return {"sent": sent}

    def _run_tool(self, request: JSON) -> JSON:
        """A tool of the machine in a node's network namespace, for what the lab itself must look at or undo."""
        kubelet = self._kubelet(request)
        return {"output": network.run(["ip", "netns", "exec", kubelet.name, *request["argv"]])}

    def _dial(self, link: socket.socket, request: JSON) -> None:
        """Connect to a node (this process is in the hub) and become a wire between the two."""
        try:
            far = socket.create_connection((request["address"], int(request["port"])), 10)
        except OSError as error:
            text = f"{request['address']} port {request['port']}: {error.strerror or error}"
            link.sendall(json.dumps({"error": text}).encode() + b"\n")
            return
        far.settimeout(None)
        link.sendall(b"{}\n")
        with far:
            _splice(link, far)


def _splice(one: socket.socket, other: socket.socket) -> None:
    """Copy both ways until both directions have ended or one side breaks."""
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, (one, other))
        selector.register(other, selectors.EVENT_READ, (other, one))
        while selector.get_map():
            for key, _ in selector.select():
                source, target = key.data
                try:
                    data = source.recv(65536)
                    if data:
                        target.sendall(data)
                        continue
                    selector.unregister(source)
                    target.shutdown(socket.SHUT_WR)
                except OSError:
                    return
