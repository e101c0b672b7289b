"""Break and heal: the three ways in which the DNS of one node dies, made to happen in the kernel.

Each mode injects its fault where it happens in life, replaces CoreDNS pods through the API as an operator would, and
then waits until the clients on the node see exactly what the mode is known for and all other nodes are well. Nothing
waits for time: each step waits for an event of the API, of kube-proxy's log or of the clients.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from kdnsctl.lab import control, space
from kdnsctl.lab.clients import HELD_PORT
from kdnsctl.lab.kubeclient import JSON, STRATEGIC_PATCH, Access, ApiError, KubeClient
from kdnsctl.lab.measure import Readings, in_a_row, wait_for_clients
from kdnsctl.lab.network import DNS_ADDRESS, dns_targets
from kdnsctl.lab.podstatus import is_ready
from kdnsctl.lab.spacedir import LabDir, LabError

_PODS = "/api/v1/namespaces/kube-system/pods"
_DNS = "labelSelector=k8s-app%3Dkube-dns"
_PROXY = "labelSelector=k8s-app%3Dkube-proxy"
_ENOUGH = 3
"""Results in a row that count as a state; the held port's are half a second apart when they are lost."""


class Mode(enum.Enum):
    """How to break a node."""

    DELETE_FAILS = "delete-fails"
    """`conntrack -D` ends with 1 while CoreDNS rolls: held ports are dead, fresh ones answer, the log says it."""
    DOWN = "down"
    """kube-proxy is stopped while CoreDNS rolls: held and fresh ports are dead, the log says nothing."""
    RESTORE_FAILS = "restore-fails"
    """iptables-restore fails from then on: held ports are dead, a share of the fresh ones, the log says it."""


@dataclass(frozen=True, slots=True)
class Incident:
    """What was broken. `dead` are the addresses of the CoreDNS pods that went away."""

    mode: str
    node: str
    began: str
    dead: tuple[str, ...]
    kube_proxy: str
    """Name of the node's kube-proxy pod at that time."""


@dataclass(frozen=True, slots=True)
class _Scene:
    where: LabDir
    client: KubeClient
    nodes: tuple[str, ...]
    deadline: float

    @property
    def left(self) -> float:
        return max(1.0, self.deadline - time.monotonic())


@contextlib.contextmanager
def _scene(name: str, timeout: float, root: Any) -> Iterator[_Scene]:
    """What is needed to act on a lab. Raises LabError when it does not run, or ends meanwhile."""
    state = space.status(name, root=root)
    where = space.running_lab(name, root)
    if not state.nodes:
        raise LabError(f"the lab {name!r} does not answer; see {where.log_file}")
    try:
        access = Access(state.server, str(where.ca_file), where.token_file.read_text(encoding="ascii"))
        nodes = tuple(node["name"] for node in state.nodes)
        with contextlib.closing(KubeClient(access, "kdnsctl-lab")) as client:
            yield _Scene(where, client, nodes, time.monotonic() + timeout)
    except OSError as error:  # its files are gone
        raise LabError(f"the lab {name!r} was taken down meanwhile: {error}") from None


def current(where: LabDir) -> Incident | None:
    """The incident that was made and not healed yet."""
    try:
        raw = json.loads(where.incident_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return Incident(**{**raw, "dead": tuple(raw["dead"])})


def break_dns(
    mode: Mode, *, name: str = space.DEFAULT_NAME, node: str | None = None, timeout: float = 120.0, root: Any = None
) -> Incident:
    """Break DNS on one node (default: the second, or the only one).

    Raises LabError; then `heal` undoes what was done.
    """
    with _scene(name, timeout, root) as scene:
        return _break(scene, mode, name, node)


def _break(scene: _Scene, mode: Mode, name: str, node: str | None) -> Incident:
    target = node or scene.nodes[min(1, len(scene.nodes) - 1)]
    if target not in scene.nodes:
        raise LabError(
            f"there is no node {target!r} in the lab {name!r}; it has {', '.join(scene.nodes)}. Nothing was broken"
        )
    standing = current(scene.where)
    if standing is not None:
        raise LabError(
            f"the lab {name!r} is broken already ({standing.mode} on {standing.node}); nothing was changed. "
            f"Heal it first: kdnsctl lab heal {name}"
        )
    before = _wait_until_settled(scene)
    proxy = _serving_proxies(scene).get(target)
    if proxy is None:
        raise LabError(f"the kube-proxy of {target} went away just now; nothing was broken. Try again")
    # One that has just been restarted may not know yet of the pods that are about to go: the rules it finds are older.
    _wait_for_log(scene, proxy, re.compile(r"Caches are synced.*endpoint slice config"))
    began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    incident = Incident(mode.value, target, began, (), proxy["metadata"]["name"])
    _remember(scene.where, incident)
    action = {Mode.DELETE_FAILS: _delete_fails, Mode.DOWN: _down, Mode.RESTORE_FAILS: _restore_fails}[mode]
    dead = action(scene, target, before, proxy)
    incident = Incident(mode.value, target, began, tuple(sorted(dead)), incident.kube_proxy)
    _remember(scene.where, incident)
    return incident


def _remember(where: LabDir, incident: Incident) -> None:
    temporary = where.incident_file.with_suffix(".new")
    temporary.write_text(json.dumps(asdict(incident)), encoding="ascii")
    temporary.rename(where.incident_file)  # a reader sees all of it or what was there before


def _delete_fails(scene: _Scene, node: str, before: dict[str, JSON], proxy: JSON) -> set[str]:
    _fault(scene, node, "conntrack", active=True)
    dead = _roll_coredns(scene, before)
    minor = _minor(proxy)
    if minor <= 31:
        for address in dead:
            _wait_for_log(scene, proxy, re.compile(rf"Failed to delete endpoint connections.*{re.escape(address)}\}}"))
        # In life the failure is a moment's; kube-proxy does not try again, so the node stays broken without it.
        _fault(scene, node, "conntrack", active=False)
    else:
        _wait_for_log(scene, proxy, re.compile(r"Failed to clear all conntrack entries"))
    _wait_for(
        scene,
        node,
        lambda fixed, fresh: in_a_row(fixed, _ENOUGH, answered=False) and in_a_row(fresh, _ENOUGH, answered=True),
    )
    return dead


def _down(scene: _Scene, node: str, before: dict[str, JSON], _: JSON) -> set[str]:
    _signal(scene, node, "stop")
    dead = _roll_coredns(scene, before)
    _wait_for(
        scene,
        node,
        lambda fixed, fresh: in_a_row(fixed, _ENOUGH, answered=False) and in_a_row(fresh, _ENOUGH, answered=False),
    )
    return dead


def _restore_fails(scene: _Scene, node: str, before: dict[str, JSON], proxy: JSON) -> set[str]:
    victim = _held_backend(scene, node)
    pod = next((each for each in before.values() if each["status"].get("podIP") == victim), None)
    if pod is None:
        raise LabError(f"the held port on {node} leads to {victim}, which is no CoreDNS pod; heal the lab first")
    _fault(scene, node, "restore", active=True)
    # One pod, the one the held port leads to, so that the rules end with a living and a dead endpoint.
    scene.client.delete(f"{_PODS}/{pod['metadata']['name']}")
    others = {uid: each for uid, each in before.items() if each is not pod}
    _wait_for_dns_pods(scene, gone={pod["metadata"]["uid"]}, ready=len(others) + 1)
    _wait_for_log(scene, proxy, re.compile(r"Failed to execute iptables-restore"))
    first: dict[str, tuple[int, int]] = {}

    def share_is_dead(fixed: Any, fresh: Any) -> bool:
        if not in_a_row(fixed, _ENOUGH, answered=False) or fresh is None:
            return False
        answered, lost = first.setdefault("fresh", (fresh["answered"], fresh["lost"]))
        return bool(fresh["answered"] - answered >= _ENOUGH and fresh["lost"] - lost >= _ENOUGH)

    _wait_for(scene, node, share_is_dead)
    return {victim}


def _minor(proxy: JSON) -> int:
    match = re.search(r":v1\.(\d+)", proxy["spec"]["containers"][0]["image"])
    return int(match.group(1)) if match else 0


def _fault(scene: _Scene, node: str, fault: str, *, active: bool) -> None:
    control.ask(scene.where, {"op": "fault", "node": node, "fault": fault, "active": active})


def _signal(scene: _Scene, node: str, number: str) -> None:
    control.ask(scene.where, {"op": "signal", "node": node, "container": "kube-proxy", "signal": number})


def _held_backend(scene: _Scene, node: str) -> str:
    """The pod address that the held port of the node's client is sent to, from the node's conntrack table.

    kube-proxy may just have deleted the entry, as it does when endpoints change; the next query makes it again.
    """
    argv = ["conntrack", "-L", "-p", "udp", "--orig-dst", DNS_ADDRESS, "--orig-port-src", str(HELD_PORT)]
    found: list[str] = []

    def is_there(_: Readings) -> bool:
        output = control.ask(scene.where, {"op": "run", "node": node, "argv": argv})["output"]
        pairs = [re.findall(r"src=(\S+)", line) for line in output.splitlines()]
        found.extend(str(pair[1]) for pair in pairs if len(pair) == 2 and pair[1] != DNS_ADDRESS)
        return bool(found)

    wait_for_clients(scene.where, is_there, scene.left, f"the held port on {node} has a conntrack entry")
    return found[0]


def _dns_backends(scene: _Scene, node: str) -> set[str]:
    """All addresses that the node's conntrack table sends UDP flows to DNS to."""
    argv = ["conntrack", "-L", "-p", "udp", "--orig-dst", DNS_ADDRESS]
    output = control.ask(scene.where, {"op": "run", "node": node, "argv": argv})["output"]
    replies = [re.findall(r"src=(\S+)", line)[1:] for line in output.splitlines()]
    return {address for found in replies for address in found if address != DNS_ADDRESS}


def _dns_pods(scene: _Scene) -> dict[str, JSON]:
    return {each["metadata"]["uid"]: each for each in scene.client.get(f"{_PODS}?{_DNS}")["items"]}


def _wait_until_settled(scene: _Scene) -> dict[str, JSON]:
    """Wait until DNS works everywhere, over rules that lead to every CoreDNS pod; the pods.

    A pod that kube-proxy never knew could not become stale there. The clients' results are the occasions to look.
    """
    pods: dict[str, JSON] = {}

    def settled(readings: Readings) -> bool:
        if len(readings) != 2 * len(scene.nodes) or not all(
            in_a_row(each, _ENOUGH, answered=True) for each in readings.values()
        ):
            return False
        pods.clear()
        pods.update(_dns_pods(scene))
        addresses = {each["status"].get("podIP", "") for each in pods.values()}
        if not pods or not all(is_ready(each) for each in pods.values()):
            return False
        if not _serving_proxies(scene).keys() >= set(scene.nodes):
            return False
        argv = ["iptables-save", "-t", "nat"]
        outputs = (
            control.ask(scene.where, {"op": "run", "node": node, "argv": argv})["output"] for node in scene.nodes
        )
        return all(dns_targets(output) == addresses for output in outputs)

    wait_for_clients(scene.where, settled, scene.left, "DNS works on every node before it is broken")
    return pods


def _serving_proxies(scene: _Scene) -> dict[str, JSON]:
    """Node → its kube-proxy pod, where one is ready and stays: not one that is going, nor one that is only coming."""
    pods = scene.client.get(f"{_PODS}?{_PROXY}")["items"]
    staying = (each for each in pods if is_ready(each) and not each["metadata"].get("deletionTimestamp"))
    return {each["spec"]["nodeName"]: each for each in staying}


def _proxy_pod(scene: _Scene, node: str) -> JSON:
    for each in scene.client.get(f"{_PODS}?{_PROXY}")["items"]:
        if each["spec"].get("nodeName") == node and not each["metadata"].get("deletionTimestamp"):
            found: JSON = each
            return found
    raise LabError(f"no kube-proxy pod runs on {node}; nothing was broken")


def _roll_coredns(scene: _Scene, before: dict[str, JSON]) -> set[str]:
    """Replace all CoreDNS pods, as `kubectl rollout restart` does; the addresses that are dead afterwards."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    patch = {"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": stamp}}}}}
    scene.client.patch("/apis/apps/v1/namespaces/kube-system/deployments/coredns", patch, STRATEGIC_PATCH)
    _wait_for_dns_pods(scene, gone=set(before), ready=len(before))
    return {each["status"]["podIP"] for each in before.values()}


def _wait_for_dns_pods(scene: _Scene, gone: set[str], ready: int) -> None:
    """Wait, by watching, until none of the pods `gone` is left and `ready` pods are ready."""
    answer = scene.client.get(f"{_PODS}?{_DNS}")
    pods = {each["metadata"]["uid"]: each for each in answer["items"]}

    def done() -> bool:
        return not gone & set(pods) and sum(is_ready(each) for each in pods.values()) == ready

    if done():
        return
    path = f"{_PODS}?{_DNS}&watch=true&resourceVersion={answer['metadata']['resourceVersion']}"
    try:
        for line in scene.client.lines(path, timeout=scene.left):
            event = json.loads(line)
            uid = event["object"]["metadata"].get("uid")
            if event["type"] == "DELETED":
                pods.pop(uid, None)
            elif uid:
                pods[uid] = event["object"]
            if done():
                return
            if scene.left <= 1.0:
                break
    except ApiError as error:
        raise LabError(f"CoreDNS was not replaced in time: {error}; undo with: kdnsctl lab heal") from None
    raise LabError("CoreDNS was not replaced in time; undo with: kdnsctl lab heal")


def _wait_for_log(scene: _Scene, proxy: JSON, pattern: re.Pattern[str]) -> None:
    """Wait until the kube-proxy pod has said `pattern`, by following its log."""
    name = proxy["metadata"]["name"]
    try:
        for line in scene.client.lines(f"{_PODS}/{name}/log?follow=true", timeout=scene.left):
            if pattern.search(line.decode(errors="replace")):
                return
            if scene.left <= 1.0:
                break
    except ApiError as error:
        raise LabError(
            f"kube-proxy {name} did not say {pattern.pattern!r}: {error}; undo with: kdnsctl lab heal"
        ) from None
    raise LabError(
        f"the log of kube-proxy {name} ended before it said {pattern.pattern!r}; undo with: kdnsctl lab heal"
    )


def _wait_for(scene: _Scene, node: str, condition: Callable[[Any, Any], bool]) -> None:
    """Wait until the node's clients see `condition` and all other nodes' clients are well."""
    others = [each for each in scene.nodes if each != node]
    spared: set[str] = set()

    def met(readings: Readings) -> bool:
        for each in others:
            if each not in spared and in_a_row(readings.get((each, "fixed")), _ENOUGH, answered=False):
                spared.update(_spare(scene, each))
        clients = [readings.get((each, kind)) for each in others for kind in ("fixed", "fresh")]
        well = all(in_a_row(each, _ENOUGH, answered=True) for each in clients)
        if not well or not condition(readings.get((node, "fixed")), readings.get((node, "fresh"))):
            return False
        # Entries of ports that nobody holds can be left there as well: nobody notices, and they are stale all the same.
        left = [each for each in others if not _is_clean(scene, each)]
        for each in left:
            if each not in spared:
                spared.update(_spare(scene, each))
        return not left

    wait_for_clients(scene.where, met, scene.left, f"the failure shows on {node} and nowhere else")


def _spare(scene: _Scene, node: str) -> set[str]:
    """Restart the kube-proxy of a node that met the very fault for real, so that only one node is broken.

    Up to conntrack-tools 1.4.7 an entry that expires while `conntrack -D` walks the table stops it. Returns the node,
    or nothing when its kube-proxy has said no such thing.
    """
    try:
        path = f"{_PODS}/{_proxy_pod(scene, node)['metadata']['name']}"
        if any(b"Failed to delete endpoint connections" in line for line in scene.client.lines(f"{path}/log")):
            scene.client.delete(path)
            return {node}
    except (LabError, ApiError):
        return set()  # between two pods; asked again with the next reading
    return set()


def _replaced(node: str, proxy: JSON) -> Callable[[_Scene], bool]:
    """A condition: another kube-proxy than `proxy` serves on the node, and has deleted what was stale there.

    The rules that the old one left may answer all clients before the new one has begun.
    """

    def met(scene: _Scene) -> bool:
        now = _serving_proxies(scene).get(node)
        return now is not None and now["metadata"]["uid"] != proxy["metadata"]["uid"] and _is_clean(scene, node)

    return met


def _is_clean(scene: _Scene, node: str) -> bool:
    """Whether no entry of the node leads to a pod that is gone: neither one that a client holds, nor any other."""
    return _dns_backends(scene, node) <= {each["status"].get("podIP", "") for each in _dns_pods(scene).values()}


def _wait_all_well(
    scene: _Scene, what: str, timeout: float | None = None, also: Callable[[_Scene], bool] = lambda _: True
) -> None:
    """Wait until every client was answered several times in a row, and `also` holds; asked at a client's result."""

    def met(readings: Readings) -> bool:
        well = all(in_a_row(each, _ENOUGH, answered=True) for each in readings.values())
        return well and len(readings) == 2 * len(scene.nodes) and also(scene)

    wait_for_clients(scene.where, met, timeout or scene.left, what)


def heal(*, name: str = space.DEFAULT_NAME, timeout: float = 120.0, root: Any = None) -> Incident | None:
    """Undo the incident: lift the faults, let kube-proxy run, restart it where its own catching up is not enough.

    Returns what was healed, None when nothing was broken. Raises LabError when DNS did not come back.
    """
    with _scene(name, timeout, root) as scene:
        return _heal(scene)


def _heal(scene: _Scene) -> Incident | None:
    incident = current(scene.where)
    if incident is None:
        return None
    for fault in ("conntrack", "restore"):
        _fault(scene, incident.node, fault, active=False)
    with contextlib.suppress(LabError):  # no kube-proxy container runs: nothing is stopped
        _signal(scene, incident.node, "continue")
    if incident.mode == Mode.DOWN.value:
        # Awake again it sees what it missed, writes the rules and deletes the entries, in every version.
        with contextlib.suppress(LabError):
            clean = functools.partial(_is_clean, node=incident.node)
            _wait_all_well(scene, "DNS works on every node", min(20.0, scene.left), clean)
            scene.where.incident_file.unlink()
            return incident
    while True:
        proxy = _proxy_pod(scene, incident.node)
        scene.client.delete(f"{_PODS}/{proxy['metadata']['name']}")
        try:
            _wait_all_well(scene, "DNS works on every node", min(30.0, scene.left), _replaced(incident.node, proxy))
            break
        except LabError:
            # An entry that expired while `conntrack -D` walked the table has stopped it: the very fault, for real.
            if scene.left <= 1.0:
                raise
    scene.where.incident_file.unlink()
    return incident
