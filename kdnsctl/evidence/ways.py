"""The ladder to a node: which rungs there are, the least intrusive first, and how each is opened.

    exec → pod → pod-netadmin → pod-privileged (only if allowed) → ssh → openssh

What a rung can read is decided fact by fact: a pod with more capabilities is only made for what those with fewer cannot
yield. Nothing is read here.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.kubeproxy import PodPlace
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence.nodeside import Way
from kdnsctl.facts import conntrack
from kdnsctl.find.scope import InScope
from kdnsctl.model import Fact, KdnsctlError, Toolset
from kdnsctl.reach.kubeproxyexec import RUNG as EXEC
from kdnsctl.reach.kubeproxyexec import KubeProxyExec
from kdnsctl.reach.ownpod import NOT_ON_NODE, PodNotStartedError, command_of
from kdnsctl.reach.podkeeper import PodKeeper, PodSettings
from kdnsctl.reach.podspec import Image, PodOrder, PodRung
from kdnsctl.reach.shell import NodeShell

if TYPE_CHECKING:
    from kdnsctl.evidence.sshways import SshWays

VIA_POD: Final = "--via pod"  # the option that permissions for pods of our own are told with
OF_KUBE_PROXY: Final = (Toolset.KUBE_PROXY,)
OF_TOOLS: Final = (Toolset.TOOLS, Toolset.KUBE_PROXY)  # our tools image has what kube-proxy's has, too
# Why a login fails that may work with OpenSSH: keys in hardware, Kerberos, a host certificate, a word of its
# configuration. An address where nobody answers is not tried twice.
ONLY_OPENSSH: Final = frozenset({"sshLogin", "hostKeyUnknown", "sshConfig"})
_RUNTIMES: Final = ("docker-pullable://", "docker://", "containerd://", "cri-o://")


class Via(enum.StrEnum):
    """How nodes are reached."""

    AUTO = "auto"  # the whole ladder
    EXEC = "exec"
    POD = "pod"  # pods of our own, of the least capabilities that do
    SSH = "ssh"
    OPENSSH = "openssh"


class Ladder:
    """The rungs to any node in scope. `ssh` and `keeper` are None where those rungs are not wanted."""

    def __init__(
        self, via: Via, connection: Connection, ssh: SshWays | None, keeper: PodKeeper | None, found: InScope
    ) -> None:
        self._via = via
        self._connection = connection
        self._ssh = ssh
        self._keeper = keeper
        self._found = found
        self._uids = {node.metadata.name: node.metadata.uid for node in found.nodes}
        self._windows = {node.metadata.name for node in found.nodes if node.os == "windows"}

    def place(self, node: str) -> PodPlace | None:
        """Its kube-proxy's pod, if that runs."""
        proxy = self._found.proxies.get(node)
        return proxy.place if proxy and proxy.place and proxy.place.running else None

    def kube_proxy(self, node: str) -> KubeProxyExec | None:
        """The shell in its kube-proxy's container, and what asks kube-proxy over HTTP."""
        place = self.place(node)
        return KubeProxyExec(self._connection, node, place) if place else None

    def ways(self, node: str, opened: contextlib.ExitStack) -> list[Way]:
        """The rungs to a node, in order; what they open is closed with `opened`."""
        ways: list[Way] = []
        shell = self.kube_proxy(node)
        if shell is not None and self._via in (Via.AUTO, Via.EXEC):
            others = self._ssh is not None or self._keeper is not None
            ways.append(Way(EXEC, _probed(shell) if self._via is Via.AUTO and others else lambda _: shell, shell.can))
        if self._keeper is not None:
            stuck: list[PodNotStartedError] = []
            ways += [self._pod(self._keeper, rung, node, opened, stuck) for rung in rungs(self._keeper.settings)]
        if self._ssh is not None:
            ways += self._over_ssh(self._ssh, node, opened)
        return ways

    def _over_ssh(self, ssh: SshWays, node: str, opened: contextlib.ExitStack) -> list[Way]:
        """SSH, and after it the OpenSSH client: where the login failed, which that may know more for."""
        failed: list[str] = []

        def open_(scope: CancelScope) -> NodeShell:
            try:
                return ssh.open(node, scope, opened)
            except KdnsctlError as error:
                failed.append(error.code)
                raise

        first = Way(ssh.rung, open_, lambda fact: fact.endpoint is None)
        if self._via is not Via.AUTO:
            return [first]
        other = ssh.by_openssh()
        return [
            first,
            Way(
                other.rung, lambda scope: other.open(node, scope, opened), lambda _: not ONLY_OPENSSH.isdisjoint(failed)
            ),
        ]

    def order(self, keeper: PodKeeper, rung: PodRung, node: str, scope: CancelScope) -> PodOrder:
        """The pod that this rung would make. Raises KdnsctlError (`noImage`) when there is no image for it."""
        return self._order(keeper, rung, node, self._images(keeper.settings, rung, node)[0], scope)

    def _order(self, keeper: PodKeeper, rung: PodRung, node: str, image: Image, scope: CancelScope) -> PodOrder:
        return keeper.order(rung, node, self._uids.get(node, ""), image, scope)

    def _images(self, settings: PodSettings, rung: PodRung, node: str) -> list[Image]:
        """What the pod may run, the best first."""
        if node in self._windows:
            raise KdnsctlError(
                f"{node} is a Windows node: there is nothing to read by such a pod", code="notApplicable"
            )
        if settings.image is not None:
            return [Image(settings.image, OF_TOOLS, pull=True)]
        if rung is PodRung.PRIVILEGED:
            why = "the privileged pod needs an image with nsenter, which kube-proxy's has not: name one (--image)"
            raise KdnsctlError(why, code="noImage")
        proxy = self._found.proxies.get(node)
        if proxy is None or proxy.place is None:
            why = f"{node} has no kube-proxy pod whose image could be used: name one (--image)"
            raise KdnsctlError(why, code="noImage")
        # By its tag, too: a runtime may tell a digest under which it does not find the image (one that was imported).
        names = dict.fromkeys((on_the_node(proxy.place), proxy.place.image))
        return [Image(name, OF_KUBE_PROXY) for name in names]

    def _pod(
        self,
        keeper: PodKeeper,
        rung: PodRung,
        node: str,
        opened: contextlib.ExitStack,
        stuck: list[PodNotStartedError],
    ) -> Way:
        """A pod on the node. `stuck` is why an earlier one did not start: its kubelet starts no other either."""

        def open_(scope: CancelScope) -> NodeShell:
            if stuck:
                raise stuck[0]
            *first, last = self._images(keeper.settings, rung, node)
            for image in first:
                try:
                    return made(self._order(keeper, rung, node, image, scope), scope)
                except PodNotStartedError as error:
                    if error.code != NOT_ON_NODE:
                        raise
            return made(self._order(keeper, rung, node, last, scope), scope)

        def made(order: PodOrder, scope: CancelScope) -> NodeShell:
            try:
                shell = keeper.open(order, scope)
            except PodNotStartedError as error:
                if error.code != NOT_ON_NODE:
                    stuck.append(error)
                raise
            opened.callback(keeper.end, order.name)
            return shell

        in_image = OF_KUBE_PROXY if keeper.settings.image is None else OF_TOOLS
        return Way(rung.value, open_, lambda fact: yields_more(fact, rung, in_image))


def rungs(settings: PodSettings) -> tuple[PodRung, ...]:
    """The kinds of pods that may be made, least privilege first."""
    return tuple(rung for rung in PodRung if rung is not PodRung.PRIVILEGED or settings.privileged)


def yields_more(fact: Fact, rung: PodRung, in_image: tuple[Toolset, ...]) -> bool:
    """Whether this kind of pod reads the fact, and not just as one with fewer capabilities does."""
    command = command_of(fact, rung, in_image)
    if command is None:
        return False
    return rung is not PodRung.NET_ADMIN or command != command_of(fact, PodRung.PLAIN, in_image)


def on_the_node(place: PodPlace) -> str:
    """The image of a running container, by digest where its runtime tells one that names a repository."""
    told = place.image_id
    for runtime in _RUNTIMES:
        told = told.removeprefix(runtime)
    return told if "@sha256:" in told else place.image


def _probed(shell: NodeShell) -> Callable[[CancelScope], NodeShell]:
    """A shell that has been seen to work: where it does not, there is another way."""

    def open_(scope: CancelScope) -> NodeShell:
        shell.read(conntrack.PORT_RANGE, lambda _: None, scope=scope)
        return shell

    return open_
