"""The OpenSSH server of one node: started, stopped, and made to fail on demand, in the server's own ways.

A fault is a matter of the server's configuration or of the node's passwd; the server is started anew with it. Sessions
that are open then go on as they were.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

from kdnsctl.lab import nodeinit, sshd
from kdnsctl.lab.agent import AgentClient
from kdnsctl.lab.network import NodeNet
from kdnsctl.lab.spacedir import LabDir
from kdnsctl.lab.sshd import SshFault

_PATIENCE = 10.0
_PAUSE = 0.02


class SshServer:
    """One node's server. Safe from any thread."""

    def __init__(
        self, where: LabDir, net: NodeNet, agent: AgentClient, say: Callable[[str], None], *, rootless: bool
    ) -> None:
        self._where = where
        self._net = net
        self._agent = agent
        self._say = say
        self._rootless = rootless
        self._lock = threading.Lock()
        self._running: tuple[int, threading.Event] | None = None  # its PID on the node, and what tells of its end
        self.faults: set[SshFault] = set()

    def start(self) -> None:
        """Start it. Raises OSError, StartError, AgentGoneError."""
        with self._lock:
            self._start()

    def apply(self, fault: SshFault, *, active: bool) -> None:
        """Inject or lift a fault; when this returns, the next connection meets it. Raises as `start` does."""
        if fault is SshFault.SUDO_PASSWORD and self._rootless:
            raise ValueError("a lab without root has no user who needs sudo")
        with self._lock:
            if active:
                self.faults.add(fault)
            else:
                self.faults.discard(fault)
            self._stop()
            if SshFault.DOWN not in self.faults:
                self._start()
                self._wait_until_it_answers()

    def _start(self) -> None:
        own = self._where.node(self._net.name)
        config = own / "sshd_config"
        config.write_text(sshd.sshd_config(self._where, self.faults, rootless=self._rootless), encoding="utf-8")
        nodeinit.write_passwd(
            own, login="/usr/sbin/nologin" if SshFault.NO_SHELL in self.faults else "/bin/sh", rootless=self._rootless
        )
        log = os.open(own / "sshd.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        over = threading.Event()

        def ended(code: int) -> None:
            if not over.is_set():
                self._say(f"sshd on {self._net.name} ended with {code}")
            over.set()

        try:
            launch = sshd.node_launch(config, rootless=self._rootless)
            self._running = self._agent.start(launch, (nothing, log, log), None, ended), over
        finally:
            os.close(log)
            os.close(nothing)

    def _stop(self) -> None:
        if self._running is None:
            return
        (pid, over), self._running = self._running, None
        if not over.is_set():
            self._agent.signal(pid, signal.SIGTERM)
            if not over.wait(_PATIENCE):
                raise OSError(f"sshd on {self._net.name} does not end")

    def _wait_until_it_answers(self) -> None:
        """It listens a moment after its start, and tells nobody."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                socket.create_connection((self._net.address, 22), 1.0).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                threading.Event().wait(_PAUSE)
            else:
                return
