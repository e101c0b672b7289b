"""The life of one pod on its node, in a thread of its own: network, containers, restarts, probes, the end.

Everything that happens to the pod comes as an event into one queue, so there is no state shared between threads but
what `containers` shows to readers. The rules are the kubelet's: init containers one after the other, restart policy
with back-off, grace period before the kill, activeDeadlineSeconds for the whole pod.
"""

# ruff: noqa: T201 - standard error is the lab's log
from __future__ import annotations

import contextlib
import glob
import os
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kdnsctl.lab import beneath, images, kernel, network, podspec
from kdnsctl.lab.agent import AgentGoneError
from kdnsctl.lab.container import Launch, StartError
from kdnsctl.lab.kubeclient import JSON, ApiError
from kdnsctl.lab.nodefaults import Fault, inject, lift
from kdnsctl.lab.nodestatus import now
from kdnsctl.lab.podlogs import ContainerLog
from kdnsctl.lab.podprobe import probe
from kdnsctl.lab.podstate import ContainerState
from kdnsctl.lab.podstatus import pod_status

if TYPE_CHECKING:
    from kdnsctl.lab.kubelet import Kubelet

_FIRST_BACKOFF = 10.0
_LONGEST_BACKOFF = 300.0


class PodWorker:
    """Runs one pod. Create, `start`, then feed it with `update` and `vanish`."""

    def __init__(self, pod: JSON, kubelet: Kubelet, on_end: Callable[[PodWorker], None]) -> None:
        metadata = pod["metadata"]
        self.uid = str(metadata["uid"])
        self.key = f"{metadata['namespace']}/{metadata['name']}"
        self.pod = pod
        self.pod_ip = ""
        self.netns = ""
        spec = pod["spec"]
        self.containers = [
            *(ContainerState(each, is_init=True) for each in spec.get("initContainers") or ()),
            *(ContainerState(each) for each in spec["containers"]),
        ]
        self._kubelet = kubelet
        self._on_end = on_end
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._started_at = now()
        self._kill_at: float | None = None
        self._terminating = False
        self._gone = False
        self._deleted = False
        self._deletion_told = False
        self._failed: tuple[str, str] | None = None
        self._reported: JSON | None = None
        self._interface = "v" + self.uid.replace("-", "")[:12]
        self._fault_lock = threading.Lock()
        self._directory = kubelet.shared.space / "pods" / self.uid

    # --- from other threads

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"pod-{self.key}", daemon=True).start()

    def update(self, pod: JSON) -> None:
        """The object changed in the API."""
        if pod["metadata"].get("deletionTimestamp"):
            self._deleted = True
        self._events.put(lambda: self._take(pod))

    def vanish(self) -> None:
        """The object is gone from the API: end at once and report nothing."""
        self._events.put(self._disappear)

    def find(self, container: str) -> ContainerState | None:
        return next((each for each in self.containers if each.name == container), None)

    def refresh_fault(self, fault: Fault, *, active: bool) -> None:
        """Change the fault in this pod's kube-proxy container, if it has one."""
        with self._fault_lock:
            for each in self.containers:
                if each.root is not None and each.spec["image"].startswith(images.KUBE_PROXY):
                    if active:
                        inject(each.root, fault)
                    else:
                        lift(each.root, self._kubelet.image_path(each.spec["image"]), fault)

    # --- the thread

    def _run(self) -> None:
        try:
            self._set_up()
            while not self._finished():
                self._step()
            self._tear_down()
        except AgentGoneError:
            return  # the node is gone, and with it everything that would have to be cleaned
        except Exception as error:  # noqa: BLE001 - a thread's last words belong into the lab's log
            traceback.print_exc()
            self._give_up(error)
        finally:
            self._on_end(self)
            self._finish_deletion()

    def _give_up(self, error: Exception) -> None:
        """The worker itself failed: end what runs and say so in the pod's status. Nothing here may fail the thread."""
        self._failed = ("UnexpectedError", f"the lab's kubelet failed on this pod: {type(error).__name__}: {error}")
        for step in (self._kill_now, self._leave_network, self._report, self._report_failure):
            try:
                step()
            except AgentGoneError:
                return  # the node is gone, and with it everything that would have to be cleaned
            except Exception:  # noqa: BLE001 - each step counts without the others
                traceback.print_exc()

    def _kill_now(self) -> None:
        self._signal_all(signal.SIGKILL)
        for each in self.containers:
            if each.pid is not None:
                self._ended(each, each.attempt, 128 + signal.SIGKILL)

    def _report_failure(self) -> None:
        """The least a status says, where the whole one could not be made."""
        if self._gone or (self._reported or {}).get("phase") == "Failed" or self._failed is None:
            return
        namespace, _, name = self.key.partition("/")
        reason, message = self._failed
        least = {"phase": "Failed", "reason": reason, "message": message, "conditions": []}
        self._kubelet.report_pod(namespace, name, self.uid, least)

    def _finish_deletion(self) -> None:
        """Let the API remove an object that was deleted, also when the worker failed or ended before it heard of it."""
        if (self._terminating or self._deleted) and not self._gone and not self._deletion_told:
            self._deletion_told = True
            try:
                self._kubelet.finish_deletion(self.pod)
            except ApiError as error:
                self._say(f"the API did not take the end of the deletion: {error}")
            shutil.rmtree(self._directory, ignore_errors=True)
            self._remove_logs()

    def _finished(self) -> bool:
        if any(each.pid is not None for each in self.containers):
            return False
        return self._gone or self._terminating or self._final()

    def _final(self) -> bool:
        """All containers have ended and none will be started again."""
        main = [each for each in self.containers if not each.is_init]
        if self._failed is not None:
            return True
        return all(each.terminated is not None and each.restart_at is None for each in main)

    def _set_up(self) -> None:
        spec = self.pod["spec"]
        shutil.rmtree(self._directory, ignore_errors=True)  # of a worker that failed
        self._directory.mkdir(parents=True, exist_ok=True)
        kernel_fd = self._kubelet.netns_fd(self._kubelet.name)
        # This thread stays in the node's network: probes and `ip` come from where a kubelet's do.
        kernel.setns(kernel_fd, kernel.CLONE_NEWNET)
        os.close(kernel_fd)
        if spec.get("hostNetwork"):
            self.netns = self._kubelet.name
            self.pod_ip = self._kubelet.net.address
        else:
            self.pod_ip = self._kubelet.addresses.take()
            self.netns = f"cni-{self.uid}"
            network.add_pod(self._kubelet.net, self.netns, self._interface, self.pod_ip)
        self._take(self.pod)
        self._advance()
        self._report()

    def _step(self) -> None:
        """Take one event, or do what has become due."""
        wait = max(0.0, self._next_deadline() - time.monotonic())
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=None if wait == float("inf") else wait)
            event()
        self._due()
        self._advance()
        self._report()

    def _next_deadline(self) -> float:
        moments = [each.restart_at for each in self.containers if each.restart_at is not None]
        moments += [each.next_probe for each in self.containers if each.pid and each.spec.get("readinessProbe")]
        if self._kill_at is not None:
            moments.append(self._kill_at)
        limit = self.pod["spec"].get("activeDeadlineSeconds")
        if limit is not None and self._failed is None:
            moments.append(self._born + float(limit))
        return min(moments, default=float("inf"))

    @property
    def _born(self) -> float:
        return min((each.started_clock for each in self.containers if each.started_clock), default=float("inf"))

    def _due(self) -> None:
        clock = time.monotonic()
        if self._kill_at is not None and clock >= self._kill_at:
            self._kill_at = None
            self._signal_all(signal.SIGKILL)
        limit = self.pod["spec"].get("activeDeadlineSeconds")
        if limit is not None and self._failed is None and clock >= self._born + float(limit):
            self._failed = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            self._stop(self._grace())
        for each in self.containers:
            if each.pid and each.spec.get("readinessProbe") and clock >= each.next_probe and not self._terminating:
                self._probe(each)

    def _take(self, pod: JSON) -> None:
        self.pod = pod
        deletion = pod["metadata"].get("deletionTimestamp")
        if deletion and not self._terminating:
            self._terminating = True
            self._stop(float(pod["metadata"].get("deletionGracePeriodSeconds") or 0))

    def _disappear(self) -> None:
        self._gone = True
        self._terminating = True
        self._signal_all(signal.SIGKILL)

    def _grace(self) -> float:
        return float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _stop(self, grace: float) -> None:
        for each in self.containers:
            each.restart_at = None
        if grace > 0:
            self._signal_all(signal.SIGTERM)
            self._kill_at = time.monotonic() + grace
        else:
            self._signal_all(signal.SIGKILL)

    def _signal_all(self, number: int) -> None:
        for each in self.containers:
            if each.pid is not None:
                with contextlib.suppress(StartError):  # it ended by itself
                    self._kubelet.agent.signal(each.pid, number)
                    if number == signal.SIGTERM:
                        # A stopped process would never see it.
                        self._kubelet.agent.signal(each.pid, signal.SIGCONT)

    # --- containers

    def _advance(self) -> None:
        """Start what can be started now."""
        if self._terminating or self._failed is not None:
            return
        clock = time.monotonic()
        for each in self.containers:
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
            position = next(at for at, each in enumerate(self.containers) if each is state)
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
        shared = self._kubelet.shared
        return podspec.PodPlace(
            self._kubelet.name, self._kubelet.net.address, self.pod_ip, self._directory / "volumes", shared.rootless,
            shared.ca, network.HUB_ADDRESS, network.API_PORT, shared.token, self._kubelet.config_map,
        )  # fmt: skip

    def _build_tree(self, state: ContainerState, launch: Launch, root: Path, place: podspec.PodPlace) -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        images.clone(self._kubelet.image_path(state.spec["image"]), root)
        podspec.write_identity_files(self.pod, root, place)
        if launch.cwd != "/":
            podspec.inside(root, launch.cwd, f"workingDir {launch.cwd!r}").mkdir(parents=True, exist_ok=True)
        with self._fault_lock:
            state.root = root
            if state.spec["image"].startswith(images.KUBE_PROXY):
                for fault in self._kubelet.faults:
                    inject(root, fault)

    def _launch(self, state: ContainerState, launch: Launch, attempt: int) -> None:
        log_root, inside = self._kubelet.log_root, f"pods/{podspec.log_directory(self.pod)}/{state.name}"
        try:
            log_fd = beneath.new_file(log_root, inside, f"{attempt}.log")
        except (OSError, ValueError) as error:
            text = f"no log at /var/log/{inside}/{attempt}.log on the node: {error}; nothing was started or written"
            raise podspec.SpecError("CreateContainerError", text) from None
        log = ContainerLog(log_root / inside / f"{attempt}.log", log_fd)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        netns = None if self.pod["spec"].get("hostNetwork") else self._kubelet.netns_fd(self.netns)
        self._kubelet.shared.pump.add(log, out_read, err_read)

        def ended(code: int) -> None:
            self._events.put(lambda: self._ended(state, attempt, code))

        try:
            pid = self._kubelet.agent.start(launch, (nothing, out_write, err_write), netns, ended)
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
            beneath.new_link(self._kubelet.log_root, "containers", link, target)
        except (OSError, ValueError) as error:
            self._say(f"no link /var/log/containers/{link}: {error}")

    def _ended(self, state: ContainerState, attempt: int, code: int) -> None:
        if state.attempt != attempt:
            return
        state.pid = None
        state.ready = False
        failed_by_kill = code > 128
        state.terminated = {
            "exitCode": code,
            **({"signal": code - 128} if failed_by_kill else {}),
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": state.started_at,
            "finishedAt": now(),
            "containerID": f"containerd://{state.container_id}",
        }
        policy = self.pod["spec"].get("restartPolicy") or "Always"
        again = (policy == "Always" and not state.is_init) or (policy != "Never" and code != 0)
        if self._terminating or self._failed is not None:
            return
        if state.is_init and code != 0 and policy == "Never":
            self._failed = ("", "")
        if again:
            # The first restart comes at once, later ones after a growing pause; ten quiet minutes forget it.
            quiet = time.monotonic() - state.started_clock > 2 * _LONGEST_BACKOFF
            pause = 0.0 if state.attempt == 0 or quiet else max(state.backoff, _FIRST_BACKOFF)
            state.backoff = min(max(pause * 2, _FIRST_BACKOFF), _LONGEST_BACKOFF)
            state.restart_at = time.monotonic() + pause
            if pause:
                text = f"back-off {pause:.0f}s restarting failed container={state.name} pod={self.key}"
                state.waiting = ("CrashLoopBackOff", text)

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

    # --- reporting and the end

    def _report(self) -> None:
        if self._gone:
            return
        status = pod_status(
            self.containers, self.pod_ip, self._kubelet.net.address, self._started_at, self._failed, self._reported
        )
        if status != self._reported:
            namespace, _, name = self.key.partition("/")
            try:
                self._kubelet.report_pod(namespace, name, self.uid, status)
                self._reported = status
            except ApiError:
                return  # told again with the next event

    def _tear_down(self) -> None:
        self._leave_network()
        self._report()
        self._finish_deletion()
        if self._gone:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._remove_logs()

    def _leave_network(self) -> None:
        """Take the pod's network away, and let others have its address."""
        if self.netns and not self.pod["spec"].get("hostNetwork"):
            netns, self.netns = self.netns, ""
            network.remove_pod(self._kubelet.net, netns, self._interface)
            self._kubelet.addresses.give_back(self.pod_ip)

    def _remove_logs(self) -> None:
        namespace, _, name = self.key.partition("/")
        root = self._kubelet.log_root
        try:
            beneath.remove_matching(root, "containers", glob.escape(f"{name}_{namespace}_") + "*.log")
            beneath.remove_tree(root, "pods", podspec.log_directory(self.pod))
        except FileNotFoundError:
            pass  # it never had a log, or the node's root took it away
        except (OSError, ValueError) as error:
            self._say(f"logs are left in the node's /var/log: {error}")

    def _say(self, text: str) -> None:
        print(f"{self._kubelet.name}: {self.key}: {text}", file=sys.stderr, flush=True)
