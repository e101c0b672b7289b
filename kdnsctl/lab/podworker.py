"""The life of one pod on its node, in a thread of its own: network, deadlines, reports, the end.

Everything that happens to the pod comes as an event into one queue, so there is no state shared between threads but
what `podcontainers` shows to readers. The rules are the kubelet's: grace period before the kill, activeDeadlineSeconds
for the whole pod. How containers start and start again is in `podcontainers`.
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

from kdnsctl.lab import beneath, kernel, network, podspec
from kdnsctl.lab.agent import AgentGoneError
from kdnsctl.lab.kubeclient import JSON, ApiError
from kdnsctl.lab.nodefaults import Fault
from kdnsctl.lab.nodestatus import now
from kdnsctl.lab.podcontainers import Containers
from kdnsctl.lab.podnode import PodNode
from kdnsctl.lab.podstate import ContainerState
from kdnsctl.lab.podstatus import pod_status

_REPORT_AGAIN = 0.5


class PodWorker:
    """Runs one pod. Create, `start`, then feed it with `update` and `vanish`."""

    def __init__(self, pod: JSON, node: PodNode, on_end: Callable[[PodWorker], None]) -> None:
        metadata = pod["metadata"]
        self.uid = str(metadata["uid"])
        self.key = f"{metadata['namespace']}/{metadata['name']}"
        self._node = node
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
        self._report_at = float("inf")
        self._interface = "v" + self.uid.replace("-", "")[:12]
        self._directory = node.shared.space / "pods" / self.uid
        self._containers = Containers(pod, node, self._directory, self._note_end)

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
        return self._containers.find(container)

    def refresh_fault(self, fault: Fault, *, active: bool) -> None:
        """Change the fault in this pod's kube-proxy container, if it has one."""
        self._containers.refresh_fault(fault, active=active)

    @property
    def netns(self) -> str:
        """The name of the pod's network namespace; empty before and after its time."""
        return self._containers.netns

    def _note_end(self, state: ContainerState, attempt: int, code: int) -> None:
        self._events.put(lambda: self._ended(state, attempt, code))

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
        self._containers.signal_all(signal.SIGKILL)
        for each in self._containers.states:
            if each.pid is not None:
                self._ended(each, each.attempt, 128 + signal.SIGKILL)

    def _report_failure(self) -> None:
        """The least a status says, where the whole one could not be made."""
        if self._gone or (self._reported or {}).get("phase") == "Failed" or self._failed is None:
            return
        namespace, _, name = self.key.partition("/")
        reason, message = self._failed
        least = {"phase": "Failed", "reason": reason, "message": message, "conditions": []}
        self._node.report_pod(namespace, name, self.uid, least)

    def _finish_deletion(self) -> None:
        """Let the API remove an object that was deleted, also when the worker failed or ended before it heard of it."""
        if (self._terminating or self._deleted) and not self._gone and not self._deletion_told:
            self._deletion_told = True
            try:
                self._node.finish_deletion(self._containers.pod)
            except ApiError as error:
                self._say(f"the API did not take the end of the deletion: {error}")
            shutil.rmtree(self._directory, ignore_errors=True)
            self._remove_logs()

    def _finished(self) -> bool:
        if self._containers.any_runs:
            return False
        return self._gone or self._terminating or self._failed is not None or self._containers.all_done

    def _set_up(self) -> None:
        spec = self._containers.pod["spec"]
        shutil.rmtree(self._directory, ignore_errors=True)  # of a worker that failed
        self._directory.mkdir(parents=True, exist_ok=True)
        kernel_fd = self._node.netns_fd(self._node.net.name)
        # This thread stays in the node's network: probes and `ip` come from where a kubelet's do.
        kernel.setns(kernel_fd, kernel.CLONE_NEWNET)
        os.close(kernel_fd)
        if spec.get("hostNetwork"):
            self._containers.netns = self._node.net.name
            self._containers.pod_ip = self._node.net.address
        else:
            self._containers.pod_ip = self._node.addresses.take()
            self._containers.netns = f"cni-{self.uid}"
            network.add_pod(self._node.net, self._containers.netns, self._interface, self._containers.pod_ip)
        self._take(self._containers.pod)
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
        moments = [self._containers.next_moment, self._report_at]
        if self._kill_at is not None:
            moments.append(self._kill_at)
        limit = self._containers.pod["spec"].get("activeDeadlineSeconds")
        if limit is not None and self._failed is None:
            moments.append(self._containers.first_start + float(limit))
        return min(moments)

    def _due(self) -> None:
        clock = time.monotonic()
        if self._kill_at is not None and clock >= self._kill_at:
            self._kill_at = None
            self._containers.signal_all(signal.SIGKILL)
        limit = self._containers.pod["spec"].get("activeDeadlineSeconds")
        if limit is not None and self._failed is None and clock >= self._containers.first_start + float(limit):
            self._failed = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            self._stop(self._grace())
        if not self._terminating:
            self._containers.probe_what_is_due()

    def _take(self, pod: JSON) -> None:
        self._containers.pod = pod
        deletion = pod["metadata"].get("deletionTimestamp")
        if deletion and not self._terminating:
            self._terminating = True
            self._stop(float(pod["metadata"].get("deletionGracePeriodSeconds") or 0))

    def _disappear(self) -> None:
        self._gone = True
        self._terminating = True
        self._containers.signal_all(signal.SIGKILL)

    def _grace(self) -> float:
        return float(self._containers.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _stop(self, grace: float) -> None:
        self._containers.start_none_again()
        if grace > 0:
            self._containers.signal_all(signal.SIGTERM)
            self._kill_at = time.monotonic() + grace
        else:
            self._containers.signal_all(signal.SIGKILL)

    def _advance(self) -> None:
        if not self._terminating and self._failed is None:
            self._containers.start_what_may()

    def _ended(self, state: ContainerState, attempt: int, code: int) -> None:
        if state.attempt != attempt:
            return
        if not self._containers.take_end(state, code, may_restart=not self._terminating and self._failed is None):
            self._failed = ("", "")

    # --- reporting and the end

    def _report(self) -> None:
        if self._gone:
            return
        status = pod_status(
            self._containers.states,
            self._containers.pod_ip,
            self._node.net.address,
            self._started_at,
            self._failed,
            self._reported,
        )
        self._report_at = float("inf")
        if status != self._reported:
            namespace, _, name = self.key.partition("/")
            try:
                self._node.report_pod(namespace, name, self.uid, status)
                self._reported = status
            except ApiError:
                self._report_at = time.monotonic() + _REPORT_AGAIN  # there may be no other event for long

    def _tear_down(self) -> None:
        self._leave_network()
        self._report()
        self._finish_deletion()
        if self._gone:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._remove_logs()

    def _leave_network(self) -> None:
        """Take the pod's network away, and let others have its address."""
        if self._containers.netns and not self._containers.pod["spec"].get("hostNetwork"):
            netns, self._containers.netns = self._containers.netns, ""
            network.remove_pod(self._node.net, netns, self._interface)
            self._node.addresses.give_back(self._containers.pod_ip)

    def _remove_logs(self) -> None:
        namespace, _, name = self.key.partition("/")
        root = self._node.log_root
        try:
            beneath.remove_matching(root, "containers", glob.escape(f"{name}_{namespace}_") + "*.log")
            beneath.remove_tree(root, "pods", podspec.log_directory(self._containers.pod))
        except FileNotFoundError:
            pass  # it never had a log, or the node's root took it away
        except (OSError, ValueError) as error:
            self._say(f"logs are left in the node's /var/log: {error}")

    def _say(self, text: str) -> None:
        print(f"{self._node.net.name}: {self.key}: {text}", file=sys.stderr, flush=True)
