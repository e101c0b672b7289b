"""A pod of kdnsctl's own as the way to a node: made, waited for until it runs, read through by exec.

It changes nothing on the node but that it is there. What it looks like is known to `podspec`; that it is deleted, and
on every way out, is the business of `podkeeper`.
"""

from __future__ import annotations

from typing import Final

from kdnsctl.cancel import CancelScope, duration
from kdnsctl.cluster import execs, pods
from kdnsctl.cluster.errors import ApiError
from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.retries import NO_RETRIES, RetryPolicy
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.watch import Change, Event, watch
from kdnsctl.model import Fact, KdnsctlError, NodeChange, Toolset
from kdnsctl.reach.containers import Container, Turn
from kdnsctl.reach.podspec import CONTAINER, ENTER_HOST, PodOrder, PodRung, may
from kdnsctl.reach.readings import SLACK, ReadingLog, as_fact, read_command
from kdnsctl.reach.shell import Reading, Sink

PATIENCE: Final = 30.0  # seconds for a pod to run whose image is on the node
PATIENCE_TO_PULL: Final = 120.0  # and where it may have to be fetched
NOT_ON_NODE: Final = "podImage"  # the code of an error: the image is not there under that name, and is not fetched
RBAC: Final = (
    "cannot create resource"  # how a lack of permission is worded; k8s.io/apiserver, responsewriters/errors.go
)
POD_SECURITY: Final = "violates PodSecurity"  # how that admission words it; pod-security-admission/admission.go
# Waiting reasons that no more waiting ends (k8s.io/kubernetes pkg/kubelet/images/types.go, kuberuntime).
HOPELESS: Final = frozenset(
    {
        "ErrImageNeverPull",
        "ImagePullBackOff",
        "ImageInspectError",
        "InvalidImageName",
        "RegistryUnavailable",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "CrashLoopBackOff",
    }
)


class PodRefusedError(KdnsctlError):
    """The server does not take the pod: who asks may not, or admission forbids such a pod. None was made."""

    code = "podRefused"


class PodNotStartedError(KdnsctlError):
    """The pod was made, and does not run."""

    code = "podNotStarted"


def needed(namespace: str) -> tuple[Permission, ...]:
    """What reading nodes through pods in a namespace needs."""
    return (*pods.needed(namespace), *execs.needed(namespace))


def refusal(order: PodOrder, error: ApiError) -> PodRefusedError:
    """Why the server does not take it, and what to do."""
    what = f"{order.namespace} takes no pod for {order.node}"
    said = error.failure.message or str(error)
    if POD_SECURITY in said:
        todo = "name a namespace for privileged pods (--pod-namespace), or reach nodes by exec or SSH"
    elif RBAC in said:
        todo = "`kdnsctl rbac collect --with-pods` prints what is needed; else reach nodes by exec or SSH"
    else:
        todo = "name another namespace (--pod-namespace), or reach nodes by exec or SSH"
    return PodRefusedError(f"{what}: {said}; {todo}", hint=todo)


def wait_until_running(connection: Connection, order: PodOrder, uid: str, *, scope: CancelScope) -> None:
    """Return when the pod runs. Raises PodNotStartedError as soon as it is known that it will not, and why."""
    patience = PATIENCE_TO_PULL if order.image.pull else PATIENCE
    last = "its node's kubelet has not taken it"
    with scope.child(patience) as limit:
        try:
            path = pods.path_of(order.namespace)
            for event in watch(connection, path, Pod, fields=f"metadata.name={order.name}", scope=limit):
                runs, last = _judged(order, event, uid, last)
                if runs:
                    return
        except PodNotStartedError:
            raise
        except KdnsctlError:
            scope.check()
            if limit.reason is None:
                raise
    scope.check()
    raise PodNotStartedError(f"{_named(order)} did not start within {duration(patience)}: {last}", hint=_advice(last))


def _judged(order: PodOrder, event: Event[Pod], uid: str, known: str) -> tuple[bool, str]:
    """Whether it runs, and if not why, as far as is known. Raises PodNotStartedError when it never will."""
    mine = [pod for pod in event.items if pod.metadata.uid == uid]
    if event.change is Change.DELETED or (event.change is Change.LISTED and not mine):
        raise PodNotStartedError(f"{_named(order)} was deleted by somebody")
    for pod in mine:
        if _runs(pod):
            return True, ""
        known, hopeless = _why_not(pod, known)
        if hopeless:
            code = NOT_ON_NODE if known.startswith("ErrImageNeverPull") else None
            raise PodNotStartedError(f"{_named(order)} does not start: {known}", hint=_advice(known), code=code)
    return False, known


def _named(order: PodOrder) -> str:
    return f"the pod {order.namespace}/{order.name}"


def _runs(pod: Pod) -> bool:
    status = pod.container_status(CONTAINER)
    return pod.status.phase == "Running" and bool(status and status.state.running)


def _why_not(pod: Pod, known: str) -> tuple[str, bool]:
    """Why it does not run, and whether it never will."""
    status = pod.container_status(CONTAINER)
    if pod.status.phase in ("Failed", "Succeeded"):
        why = ": ".join(part for part in (pod.status.reason, pod.status.message) if part)
        ended = status.state.terminated if status else None
        if not why and ended:
            why = f"it ended with exit code {ended.exit_code} {ended.reason}".rstrip()
        return why or "it has ended", True
    waiting = status.state.waiting if status else None
    if waiting and waiting.reason:
        why = ": ".join(part for part in (waiting.reason, waiting.message) if part)
        return why, waiting.reason in HOPELESS
    odd = [one for one in pod.status.conditions if one.status != "True" and one.message]
    return (f"{odd[0].reason or odd[0].type}: {odd[0].message}" if odd else known), False


def _advice(why: str) -> str:
    if "Image" in why:
        return "name an image that the node has or can fetch (--image)"
    return ""


class PodShell:
    """A `NodeShell` in a pod of our own that runs."""

    def __init__(self, connection: Connection, order: PodOrder) -> None:
        self._container = Container(connection, order.namespace, order.name, CONTAINER)
        self._order = order
        self._turn = Turn(order.node)

    @property
    def node(self) -> str:
        return self._order.node

    @property
    def rung(self) -> str:
        return self._order.rung.value

    @property
    def toolsets(self) -> tuple[Toolset, ...]:
        return toolsets_of(self._order.rung, self._order.image.toolsets)

    def can(self, fact: Fact) -> bool:
        return self.command(fact) is not None

    def command(self, fact: Fact) -> tuple[str, ...] | None:
        return command_of(fact, self._order.rung, self._order.image.toolsets)

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        command = self.command(fact)
        if command is None:
            raise KdnsctlError(f"{fact.title} cannot be read in a pod on {self.node}: no tool for it", code="noTool")
        return self._run(fact, command, sink, scope)

    def can_change(self, change: NodeChange) -> bool:
        return self.command(as_fact(change)) is not None

    def change(self, change: NodeChange, sink: Sink, *, scope: CancelScope) -> Reading:
        fact = as_fact(change)
        command = self.command(fact)
        if command is None:
            raise KdnsctlError(f"{fact.title} cannot be taken in a pod on {self.node}: no tool for it", code="noTool")
        return self._run(fact, command, sink, scope, NO_RETRIES)

    def _run(
        self, fact: Fact, command: tuple[str, ...], sink: Sink, scope: CancelScope, retry: RetryPolicy | None = None
    ) -> Reading:
        before = ENTER_HOST if self._order.rung is PodRung.PRIVILEGED else ()
        with self._turn.mine(scope):
            log = ReadingLog(fact, self.node, self.rung, sink)
            run = self._container.running(log, scope, fact.seconds + SLACK, before=before, retry=retry)
            return read_command(fact, command, log, scope, run)


def toolsets_of(rung: PodRung, in_image: tuple[Toolset, ...]) -> tuple[Toolset, ...]:
    """Which programs run: those of the image, or on the privileged rung those of the node."""
    return (Toolset.HOST, Toolset.KUBE_PROXY) if rung is PodRung.PRIVILEGED else in_image


def command_of(fact: Fact, rung: PodRung, in_image: tuple[Toolset, ...]) -> tuple[str, ...] | None:
    """What reads a fact in such a pod; None where nothing does, or its capabilities are not enough."""
    return fact.command(one for one in toolsets_of(rung, in_image) if may(rung, fact.needs(one)))
