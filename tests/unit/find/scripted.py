"""A cluster's truth as a test moves it, and nodes whose state is written down: for what reads live nodes."""

from __future__ import annotations

import copy
import datetime as dt
import json
import queue
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.kubeproxy import Kind, KubeProxy, PodPlace
from kdnsctl.model import Fact, KdnsctlError, Proof, Reason, Toolset
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.reach.shell import Reading, Sink
from tests.unit.cluster.apiserver import Exchange, Server, reply

RECORDINGS = Path(__file__).parents[2] / "recordings"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"
ALL_SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
SERVICE = "/api/v1/namespaces/kube-system/services/kube-dns"
SERVICES = "/api/v1/services"
OLD, NEW = ("10.244.1.2", "10.244.2.2"), ("10.244.1.5", "10.244.3.4")
STALE_TABLE = (RECORDINGS / "node" / "proc-nf_conntrack-stale.txt").read_bytes()
STALE_RULES = (RECORDINGS / "node" / "iptables-nft-save-stale.txt").read_bytes()


def healthy(text: bytes) -> bytes:
    """A node's state with the endpoints of after the rollout."""
    for old, new in zip(OLD, NEW, strict=True):
        text = text.replace(old.encode(), new.encode())
    return text


TABLE, RULES = healthy(STALE_TABLE), healthy(STALE_RULES)


def endpoint_slice(addresses: Iterable[str], *, name: str = "kube-dns-1", changed: dt.datetime | None = None) -> Any:
    one = copy.deepcopy(json.loads((RECORDINGS / "api" / "endpointslices-after-rollout.json").read_text())["items"][0])
    pattern = one["endpoints"][0]
    one["endpoints"] = [{**pattern, "addresses": [address]} for address in addresses]
    one["metadata"]["name"] = name
    if changed is not None:
        one["metadata"]["managedFields"] = [
            {"manager": "kube-controller-manager", "time": f"{changed:%Y-%m-%dT%H:%M:%SZ}"}
        ]
    return one


class Slices:
    """Answers lists of EndpointSlices with what is set now, and watches with what is sent meanwhile."""

    def __init__(self, api: Server, *slices: Any) -> None:
        self.now = list(slices)
        self.lists = 0
        self._events: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._over = api.over
        for path in (SLICES, ALL_SLICES):
            api.on(path, self._answer)
        service = (RECORDINGS / "api" / "service-kube-dns.json").read_bytes()
        api.on(SERVICE, reply(service))
        api.on(SERVICES, reply({"metadata": {}, "items": [json.loads(service)]}))
        api.on("/version", reply({}))
        api.on("/api/v1/pods", reply({"metadata": {}, "items": []}))

    def _answer(self, exchange: Exchange) -> None:
        if "watch" not in exchange.seen.query:
            self.lists += 1
            exchange.send(200, json.dumps({"metadata": {"resourceVersion": "5"}, "items": self.now}).encode())
            return
        exchange.begin(200, "application/json", [("Transfer-Encoding", "chunked")])
        exchange.wfile.flush()
        while not self._over.is_set():
            try:
                event = self._events.get(timeout=0.05)
            except queue.Empty:
                continue
            exchange.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            exchange.wfile.flush()
        exchange.close_connection = True

    def tell(self, change: str, one: Any) -> None:
        self._events.put(json.dumps({"type": change, "object": one}).encode() + b"\n")


class Shell:
    """A node whose outputs are given: `tables` and `rules` one after the other, the last again and again.

    A table may be an error, or a pair with why it breaks off. `nft` and `ipvs` are its rules of those modes,
    None: there are none.
    """

    rung = "fake"

    def __init__(
        self,
        node: str,
        *tables: bytes | KdnsctlError | tuple[bytes, Reason],
        rules: bytes | Iterable[bytes] = RULES,
        counters: Iterable[bytes] = (),
        nft: bytes | None = None,
        ipvs: bytes | None = None,
        during: Callable[[], None] = lambda: None,
    ) -> None:
        self.node = node
        self.read_facts: list[str] = []
        self._tables = list(tables) or [TABLE]
        self._rules = [rules] if isinstance(rules, bytes) else list(rules)
        self._counters = list(counters)
        self._nft = nft
        self._ipvs = ipvs
        self._during = during

    @property
    def toolsets(self) -> tuple[Toolset, ...]:
        return (Toolset.KUBE_PROXY,)

    def command(self, fact: Fact) -> tuple[str, ...] | None:
        return fact.command(self.toolsets)

    def can(self, fact: Fact) -> bool:
        return bool(fact.commands)

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        scope.check()
        self.read_facts.append(fact.id)
        if fact.endpoint is not None:
            raise KdnsctlError("no port-forward here", code="forbidden")
        output: bytes | KdnsctlError | tuple[bytes, Reason] = b""
        if fact.id == "conntrack":
            self._during()
            output = self._tables.pop(0) if len(self._tables) > 1 else self._tables[0]
        elif fact.id == "iptables.v4":
            output = self._rules.pop(0) if len(self._rules) > 1 else self._rules[0]
        elif fact.id == "conntrack.counters" and self._counters:
            output = self._counters.pop(0)
        elif fact.id == "ipvs" or fact.id.startswith("nft."):
            other = self._ipvs if fact.id == "ipvs" else self._nft
            if other is None:
                return self._nothing_there(fact)
            output = other
        if isinstance(output, KdnsctlError):
            raise output
        content, broke = output if isinstance(output, tuple) else (output, None)
        sink(content)
        proof = Proof.NONE if broke else Proof.TRAILER
        now = dt.datetime.now(dt.UTC)
        return Reading(
            fact.id,
            self.node,
            self.rung,
            Completeness(proof, broke),
            now,
            now,
            0.0,
            len(content),
            0 if not broke else None,
        )

    def _nothing_there(self, fact: Fact) -> Reading:
        """As nft 1.0.6 says it, and cat."""
        now = dt.datetime.now(dt.UTC)
        whole = Completeness(Proof.TRAILER, Reason("commandFailed", "the command ended with exit code 1 on the node"))
        said = b"Error: No such file or directory\nlist table ip kube-proxy\n              ^^^^^^^^^^\n"
        return Reading(fact.id, self.node, self.rung, whole, now, now, 0.0, 0, 1, stderr=said)


def proxy(node: str) -> KubeProxy:
    place = PodPlace("kube-system", f"kube-proxy-{node}", "u", "kube-proxy", "kube-proxy:v1.30.14", 0, running=True)
    return KubeProxy(node, Kind.DAEMON_SET, "", "v1.30.14", place)


class Counting:
    """How many are at work at once."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1
