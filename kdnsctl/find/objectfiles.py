"""Kubernetes objects from files: lists and single objects, as `kubectl get -o json` and `-o yaml` write them.

They are truth, so two candidates for the same truth are an error that names both: of which moment a file is, nobody can
tell for sure. Pure; size is bounded by whoever reads. Only kinds that matter here are kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import yaml

from kdnsctl.cluster.objects import EndpointSlice, Metadata, Node, Object, Pod, Service, ServiceCIDR
from kdnsctl.model import KdnsctlError, UsageError

MOST_JSON: Final = 256 << 20  # bytes; 20,000 pods have about 200 MB
MOST_YAML: Final = 16 << 20  # bytes; YAML takes ten times as long
EVERYWHERE: Final = ("default", "kubernetes")  # a Service of every cluster: a list of all namespaces has it

_KINDS: Final[dict[str, type[Any]]] = {
    "Service": Service,
    "EndpointSlice": EndpointSlice,
    "Pod": Pod,
    "Node": Node,
}


class NotObjectsError(KdnsctlError):
    """The file holds no Kubernetes objects, or they cannot be read."""

    code = "notObjects"


class _Item(Object, frozen=True):
    kind: str = ""
    metadata: Metadata = Metadata()


class _Document(Object, frozen=True):
    kind: str = ""
    items: tuple[msgspec.Raw, ...] | None = None


@dataclass(slots=True)
class Objects:
    """What all files together say. `sources` are the files that were of use, by the kind of their objects."""

    services: list[Service] = field(default_factory=list)
    slices: list[EndpointSlice] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    service_ranges: list[str] = field(default_factory=list)
    sources: dict[str, list[str]] = field(default_factory=dict)
    _known: dict[tuple[str, str, str], tuple[str, str]] = field(default_factory=dict)

    def add_json(self, content: bytes, source: str) -> int:
        """Take what a file of JSON holds; returns how many objects were of use. Raises NotObjectsError, UsageError."""
        try:
            document = msgspec.json.decode(content, type=_Document)
            if document.items is None:
                return self._add(document.kind, content, source)
            of_list = document.kind.removesuffix("List")
            if of_list in _KINDS:
                self._came_from(of_list, source)  # also when it is empty: then there are none
            return sum(
                self._add(msgspec.json.decode(item, type=_Item).kind or of_list, item, source)
                for item in document.items
            )
        except (msgspec.DecodeError, RecursionError) as error:
            raise NotObjectsError(f"no objects of Kubernetes, or cut off: {error}") from error

    def add_yaml(self, content: bytes, source: str) -> int:
        """The same for YAML."""
        return sum(self.add_json(msgspec.json.encode(document), source) for document in _documents(content))

    @property
    def all_services(self) -> bool:
        """Whether there is no Service but these."""
        names = [(one.metadata.namespace, one.metadata.name) for one in self.services]
        return EVERYWHERE in names and len({namespace for namespace, _ in names}) > 1

    def has(self, kind: str) -> bool:
        """Whether any file held objects of that kind, or an empty list of them."""
        return kind in self.sources

    def all_sources(self) -> frozenset[str]:
        """Every file that was of use."""
        return frozenset(source for places in self.sources.values() for source in places)

    def node_names(self) -> frozenset[str]:
        """Every node that is named anywhere."""
        endpoints = (endpoint.node_name for one in self.slices for endpoint in one.endpoints or ())
        pods = (pod.spec.node_name for pod in self.pods)
        return frozenset({*(node.metadata.name for node in self.nodes), *endpoints, *pods} - {""})

    def _add(self, kind: str, content: bytes | msgspec.Raw, source: str) -> int:
        if kind == "ServiceCIDR":
            ranges = msgspec.json.decode(content, type=ServiceCIDR).spec.cidrs
            self.service_ranges += [each for each in ranges if each not in self.service_ranges]
        elif kind in _KINDS:
            self._keep(msgspec.json.decode(content, type=_KINDS[kind]), kind, source)
        else:
            return 0
        self._came_from(kind, source)
        return 1

    def _came_from(self, kind: str, source: str) -> None:
        places = self.sources.setdefault(kind, [])
        if source not in places:
            places.append(source)

    def _keep(self, one: Any, kind: str, source: str) -> None:
        name = one.service if isinstance(one, EndpointSlice) and one.service else one.metadata.name
        identity = (kind, one.metadata.namespace, name)
        version = one.metadata.resource_version
        known = self._known.setdefault(identity, (source, version))
        if known[0] != source:
            if kind != "EndpointSlice" and known[1] == version != "":
                return  # the same object, as it was at the same moment
            what = "/".join(part for part in identity[1:] if part)
            which = f"EndpointSlices of {what}" if kind == "EndpointSlice" else f"{kind} {what}"
            raise UsageError(
                f"{known[0]} and {source} both say what is true of {which}",
                hint="name only those that were read when the node was",
            )
        kept: dict[str, list[Any]] = {
            "Service": self.services,
            "EndpointSlice": self.slices,
            "Pod": self.pods,
            "Node": self.nodes,
        }
        kept[kind].append(one)


def _documents(content: bytes) -> Iterable[Any]:
    """The documents of a YAML stream. Aliases are refused: kubectl writes none, and a few can mean gigabytes."""
    fastest: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(content, Loader=fastest)):
            raise NotObjectsError("YAML with aliases, which kubectl never writes")
        return [each for each in yaml.load_all(content, Loader=fastest) if each is not None]
    except (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise NotObjectsError(f"no YAML: {' '.join(str(error).split())[:200]}") from error
