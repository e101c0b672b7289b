"""The containers of one pod on its node: started, started again, signalled, probed.

`Containers` is used by the pod's worker thread alone, but for `find` and `refresh_fault`. It knows no deletion and no
deadline, and reports nothing: the worker decides what may start and tells the API.
"""

# ruff: noqa: T201 - standard error is the lab's log
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from kdnsctl.lab import beneath, images, network, podspec
from kdnsctl.lab.container import Launch, StartError
from kdnsctl.lab.kubeclient import JSON
from kdnsctl.lab.nodefaults import Fault, inject, lift
from kdnsctl.lab.nodestatus import now
from kdnsctl.lab.podlogs import ContainerLog
from kdnsctl.lab.podnode import PodNode
from kdnsctl.lab.podprobe import probe
from kdnsctl.lab.podstate import ContainerState

_FIRST_BACKOFF = 10.0
_LONGEST_BACKOFF = 300.0
Ended = Callable[[ContainerState, int, int], None]
"""State, attempt and exit code of a container that ended; called from any thread."""


class Containers:
    """See the module. `netns` and `pod_ip` are set by the worker once the pod has a network."""

    def __init__(self, pod: JSON, node: PodNode, directory: Path, on_end: Ended) -> None:
        spec = pod["spec"]
        self.states = [
            *(ContainerState(each, is_init=True) for each in spec.get("initContainers") or ()),
            *(ContainerState(each) for each in spec["containers"]),
        ]
        self.pod = pod
        self.pod_ip = ""
        self.netns = ""
        self._node = node
        self._directory = directory
        self._on_end = on_end
        self._fault_lock = threading.Lock()

    @property
    def key(self) -> str:
        """namespace/name of the pod."""
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    def find(self, container: str) -> ContainerState | None:
        return next((each for each in self.states if each.name == container), None)

    @property
    def any_runs(self) -> bool:
        return any(each.pid is not None for each in self.states)

    @property
    def all_done(self) -> bool:
        """All have ended and none will be started again."""
        main = [each for each in self.states if not each.is_init]
        return all(each.terminated is not None and each.restart_at is None for each in main)

    @property
    def first_start(self) -> float:
        """On the monotonic clock; infinity before there was one."""
        return min((each.started_clock for each in self.states if each.started_clock), default=float("inf"))

    @property
    def next_moment(self) -> float:
        """When a restart or a probe is due, on the monotonic clock; infinity for never."""
        moments = [each.restart_at for each in self.states if each.restart_at is not None]
        moments += [each.next_probe for each in self.states if each.pid and each.spec.get("readinessProbe")]
        return min(moments, default=float("inf"))

    def refresh_fault(self, fault: Fault, *, active: bool) -> None:
        """Change the fault in this pod's kube-proxy container, if it has one."""
        with self._fault_lock:
            for each in self.states:
                if each.root is not None and each.spec["image"].startswith(images.KUBE_PROXY):
                    if active:
                        inject(each.root, fault)
                    else:
                        lift(each.root, self._node.image_path(each.spec["image"]), fault)

    def start_none_again(self) -> None:
        for each in self.states:
            each.restart_at = None

    def signal_all(self, number: int) -> None:
        """Raises AgentGoneError."""
        for each in self.states:
            if each.pid is not None:
                with contextlib.suppress(StartError):  # it ended by itself
                    self._node.agent.signal(each.pid, number)
                    if number == signal.SIGTERM:
                        # A stopped process would never see it.
                        self._node.agent.signal(each.pid, signal.SIGCONT)

    def start_what_may(self) -> None:
        """Start what has not run yet or is due again; init containers one after the other, before all others."""
        clock = time.monotonic()
        for each in self.states:
            due = each.restart_at is not None and clock >= each.restart_at
            if each.pid is None and ((each.terminated is None and each.restart_at is None) or due):
                self._start(each)
            if each.is_init and not (each.terminated and each.terminated["exitCode"] == 0):
                return  # the next waits for this one to succeed

    def _start(self, state: ContainerState) -> None:
        """Start one container; what goes wrong becomes its waiting state, to be tried again."""
        state.restart_at = None
        if state.terminated is not None:
            state.last_terminated, state.terminated = state.terminated, None
            state.previous_log = state.log
        attempt = state.attempt + 1
        try:
            place = self._place()
            position = next(at for at, each in enumerate(self.states) if each is state)
            # Known by position: names come from whoever writes the spec.
            root = self._directory / "containers" / f"{position}-{attempt}"
            launch = podspec.launch(self.pod, state.spec, place, root)
            self._build_tree(state, launch, root, place)
            self._launch(state, launch, attempt)
        except (podspec.SpecError, StartError, OSError, ValueError) as error:
            reason = error.reason if isinstance(error, podspec.SpecError) else "RunContainerError"
            state.waiting = (reason, str(error))
            if reason != "ContainerCreating":
                self._say(f"container {state.name}: {reason}: {error}")
            state.backoff = min(max(state.backoff * 2, _FIRST_BACKOFF), _LONGEST_BACKOFF)
            state.restart_at = time.monotonic() + (1.0 if reason == "ContainerCreating" else state.backoff)

    def _place(self) -> podspec.PodPlace:
        shared = self._node.shared
        return podspec.PodPlace(
            self._node.net.name, self._node.net.address, self.pod_ip, self._directory / "volumes", shared.rootless,
            shared.ca, network.HUB_ADDRESS, network.API_PORT, shared.token, self._node.config_map,
        )  # fmt: skip

    def _build_tree(self, state: ContainerState, launch: Launch, root: Path, place: podspec.PodPlace) -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        images.clone(self._node.image_path(state.spec["image"]), root)
        podspec.write_identity_files(self.pod, root, place)
        if launch.cwd != "/":
            podspec.inside(root, launch.cwd, f"workingDir {launch.cwd!r}").mkdir(parents=True, exist_ok=True)
        with self._fault_lock:
            state.root = root
            if state.spec["image"].startswith(images.KUBE_PROXY):
                for fault in self._node.faults:
                    inject(root, fault)

    def _launch(self, state: ContainerState, launch: Launch, attempt: int) -> None:
        log_root, inside = self._node.log_root, f"pods/{podspec.log_directory(self.pod)}/{state.name}"
        try:
            log_fd = beneath.new_file(log_root, inside, f"{attempt}.log")
        except (OSError, ValueError) as error:
            text = f"no log at /var/log/{inside}/{attempt}.log on the node: {error}; nothing was started or written"
            raise podspec.SpecError("CreateContainerError", text) from None
        log = ContainerLog(log_root / inside / f"{attempt}.log", log_fd)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        netns = None if self.pod["spec"].get("hostNetwork") else self._node.netns_fd(self.netns)
        self._node.shared.pump.add(log, out_read, err_read)

        def ended(code: int) -> None:
            # Whoever learns of the end finds all of the log. With the node's PIDs what a container started may live on
            # and keep the log open.
            if launch.host_pid:
                self._on_end(state, attempt, code)
            else:
                log.when_ended(lambda: self._on_end(state, attempt, code))

        try:
            pid = self._node.agent.start(launch, (nothing, out_write, err_write), netns, ended)
        finally:
            for fd in (out_write, err_write, nothing, *(() if netns is None else (netns,))):
                os.close(fd)
        state.attempt, state.launch, state.log = attempt, launch, log
        state.container_id = podspec.container_id()
        state.started_at, state.started_clock = now(), time.monotonic()
        state.waiting = ("ContainerCreating", "")
        state.ready = not state.spec.get("readinessProbe")
        state.successes = state.failures = 0
        probing = state.spec.get("readinessProbe") or {}
        state.next_probe = time.monotonic() + float(probing.get("initialDelaySeconds") or 0)
        state.pid = pid
        self._link_log(state, f"/var/log/{inside}/{attempt}.log")

    def _link_log(self, state: ContainerState, target: str) -> None:
        """/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log, as the kubelet links it."""
        namespace, _, name = self.key.partition("/")
        link = f"{name}_{namespace}_{state.name}-{state.container_id}.log"
        try:
            beneath.new_link(self._node.log_root, "containers", link, target)
        except (OSError, ValueError) as error:
            self._say(f"no link /var/log/containers/{link}: {error}")

    def take_end(self, state: ContainerState, code: int, *, may_restart: bool) -> bool:
        """A container ended: note how, and when it starts again. False when the pod has failed by it."""
        state.pid = None
        state.ready = False
        state.terminated = {
            "exitCode": code,
            **({"signal": code - 128} if code > 128 else {}),
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": state.started_at,
            "finishedAt": now(),
            "containerID": f"containerd://{state.container_id}",
        }
        policy = self.pod["spec"].get("restartPolicy") or "Always"
        again = (policy == "Always" and not state.is_init) or (policy != "Never" and code != 0)
        if not may_restart:
            return True
        if again:
            # The first restart comes at once, later ones after a growing pause; ten quiet minutes forget it.
            quiet = time.monotonic() - state.started_clock > 2 * _LONGEST_BACKOFF
            pause = 0.0 if state.attempt == 0 or quiet else max(state.backoff, _FIRST_BACKOFF)
            state.backoff = min(max(pause * 2, _FIRST_BACKOFF), _LONGEST_BACKOFF)
            state.restart_at = time.monotonic() + pause
            if pause:
                text = f"back-off {pause:.0f}s restarting failed container={state.name} pod={self.key}"
                state.waiting = ("CrashLoopBackOff", text)
        return not (state.is_init and code != 0 and policy == "Never")

    def probe_what_is_due(self) -> None:
        clock = time.monotonic()
        for each in self.states:
            if each.pid and each.spec.get("readinessProbe") and clock >= each.next_probe:
                self._probe(each)

    def _probe(self, state: ContainerState) -> None:
        spec = state.spec["readinessProbe"]
        good = probe(spec, state.spec, self.pod_ip)
        state.successes = state.successes + 1 if good else 0
        state.failures = 0 if good else state.failures + 1
        if state.successes >= int(spec.get("successThreshold") or 1):
            state.ready = True
        elif state.failures >= int(spec.get("failureThreshold") or 3):
            state.ready = False
        period = float(spec.get("periodSeconds") or 10)
        # Until the first success a second at most: nobody learns anything from a start that takes a whole period.
        state.next_probe = time.monotonic() + (period if state.ready else min(period, 0.2))

    def _say(self, text: str) -> None:
        print(f"{self._node.net.name}: {self.key}: {text}", file=sys.stderr, flush=True)
