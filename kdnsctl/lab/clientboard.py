"""What the lab's DNS clients count, gathered in one place: the latest counters per node and kind, and a way to wait.

One thread per client follows the client's own stream through the pod's network; when the pod is replaced, the next
one is found and the counting starts again at zero, as in life.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

from kdnsctl.lab.clients import FIXED_HTTP, FRESH_HTTP
from kdnsctl.lab.kubelet import Kubelet
from kdnsctl.lab.podruntime import KubeletRuntime
from kdnsctl.lab.runtime import RuntimeRefusal

Reading = dict[str, Any]
_RETRY_SECONDS = 0.1


class ClientBoard:
    """The latest reading of every client. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readings: dict[tuple[str, str], Reading] = {}
        self._count = 0

    def post(self, node: str, kind: str, reading: Reading) -> None:
        with self._changed:
            self._count += 1
            self._readings[node, kind] = {"node": node, **reading, "number": self._count}
            self._changed.notify_all()

    def readings(self) -> list[Reading]:
        with self._changed:
            return [self._readings[key] for key in sorted(self._readings)]

    def follow(self) -> Iterator[Reading]:
        """Every reading that is new since the last one taken: first all that there are, then what comes."""
        seen = 0
        while True:
            with self._changed:
                while self._count <= seen:
                    self._changed.wait()
                fresh = sorted(
                    (each for each in self._readings.values() if each["number"] > seen), key=lambda each: each["number"]
                )
                seen = self._count
            yield from fresh


def watch_clients(board: ClientBoard, kubelets: list[Kubelet], runtime: KubeletRuntime) -> None:
    """Start the threads that fill the board."""
    for kubelet in kubelets:
        for kind, port in (("fixed", FIXED_HTTP), ("fresh", FRESH_HTTP)):
            arguments = (board, kubelet, runtime, kind, port)
            threading.Thread(target=_watch, args=arguments, name=f"client-{kubelet.name}-{kind}", daemon=True).start()


def _watch(board: ClientBoard, kubelet: Kubelet, runtime: KubeletRuntime, kind: str, port: int) -> None:
    pause = threading.Event()
    while True:
        try:
            for reading in _stream(kubelet, runtime, kind, port):
                board.post(kubelet.name, kind, reading)
        except (OSError, ValueError, http.client.HTTPException, RuntimeRefusal):
            pass  # no such pod now, or it ended: look for the next one
        pause.wait(_RETRY_SECONDS)


def _stream(kubelet: Kubelet, runtime: KubeletRuntime, kind: str, port: int) -> Iterator[Reading]:
    for worker in kubelet.workers():
        namespace, _, name = worker.key.partition("/")
        state = worker.find(kind)
        if namespace != "kdnsctl-lab" or state is None or state.pid is None:
            continue
        link = runtime.connect(namespace, name, port)
        with link, link.makefile("rwb") as stream:
            link.settimeout(None)
            stream.write(b"GET /follow HTTP/1.0\r\n\r\n")
            stream.flush()
            while stream.readline().strip():
                continue
            for line in stream:
                yield json.loads(line)
