"""What of a node's evidence broke off, as far as only the bundle that it lies in can tell. Pure.

A dump can look whole and be none: cut between two of its tables, cut to nothing, taken away, or read up to a moment at
which the connection was lost. The bundle's journal knows how many bytes there were, and what went wrong. It is used for
doubt alone: whatever stands in it, no node is called clean because of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final

from kdnsctl.find.captures import CHANGES, Captures, Recorded
from kdnsctl.model import Reason

OF_NODE: Final[Mapping[str, str]] = {
    "conntrack.a": "the first reading of the connection tracking table",
    "conntrack.b": "the second reading of the connection tracking table",
    "conntrack.counters": "the first counters of connection tracking",
    "conntrack.counters.b": "the second counters of connection tracking",
    "conntrack.fill": "the fill of the table",
    "conntrack.timeouts": "the timeouts of connection tracking",
    "conntrack.ports": "the range of local ports",
    "iptables.v4": "what iptables-save printed",
    "iptables.v6": "what ip6tables-save printed",
    "nft.v4": "the nftables rules for IPv4",
    "nft.v6": "the nftables rules for IPv6",
    "ipvs": "the table of IPVS",
    "kubeProxy.mode": "kube-proxy's mode",
    "kubeProxy.health": "kube-proxy's health",
    "kubeProxy.metrics": "kube-proxy's metrics",
}
"""The items of a node that are judged, by the names that collecting gives them, in words."""
OF_CLUSTER: Final[Mapping[str, str]] = {
    "services": "the list of Services",
    "endpointslices": "the list of EndpointSlices",
    "nodes": "the list of nodes",
    "pods": "the list of pods",
}
TABLES: Final = ("conntrack.a", "conntrack.b")
INSTEAD: Final[Mapping[str, tuple[str, ...]]] = {
    "conntrack.a": ("conntrack.a.v4", "conntrack.a.v6"),
    "conntrack.b": ("conntrack.b.v4", "conntrack.b.v6"),
    "nft.v4": ("nft.v4.text",),
    "nft.v6": ("nft.v6.text",),
}
"""What stands in the place of an item where the node has it in no other form: all of these together."""
Sizes = Callable[[str], int | None]
CHANGED: Final = Reason("changed", "it is not what was collected")
NOT_THERE: Final = frozenset({"commandFailed", "noTool", "sudo", "httpStatus"})
"""Problems of what is not there to be read, rather than of what was lost: whether it is needed, the judgement knows."""
NOBODY_LISTENS: Final = "portForward"
"""Nothing was there to tell it, as live: what kube-proxy says of itself explains, and decides nothing."""


def broken_off(node: str, captures: Captures, size_of: Sizes, read_at: datetime | None) -> Iterator[Reason]:
    """Why a node's evidence is not all there was.

    `size_of` tells how many bytes a file of the bundle has now, by its path in it without `.gz`, None for one that is
    not there or breaks off; `read_at` is when the node's tables and rules had been read, None when that is not known.
    """
    capture = captures.of(node)
    if node in captures.nodes and (node, capture) not in captures.finished:
        yield Reason("interrupted", "the process that collected it ended before it was finished")
    absent = captures.absent.get((node, capture), {})
    for whose, judged in ((node, OF_NODE), ("", OF_CLUSTER)):
        found: dict[str, list[tuple[str, Recorded]]] = {}
        for path, one in captures.of_whom.get((whose, capture), {}).items():
            found.setdefault(one.item, []).append((path, one))
        for item, words in judged.items():
            attempts = [_why(path, one, size_of) for path, one in found.get(item, ())]
            if item in TABLES and not attempts and item in absent:
                attempts = [absent[item]]
            if not attempts or None in attempts or _made_up_for(item, found, size_of):
                continue
            why = attempts[-1]
            if why is not None and why.code not in {*NOT_THERE, NOBODY_LISTENS}:
                yield Reason(why.code, f"of {words} not all is there ({why.code})")
    yield from _of_watch(captures, capture, size_of, read_at)


def _why(path: str, one: Recorded, size_of: Sizes) -> Reason | None:
    """Why a file is not what was there, None when it is."""
    if one.problem is not None:
        return one.problem
    return None if size_of(path) == one.size else CHANGED


def _made_up_for(item: str, found: Mapping[str, list[tuple[str, Recorded]]], size_of: Sizes) -> bool:
    others = INSTEAD.get(item, ())
    return bool(others) and all(
        any(_why(path, one, size_of) is None for path, one in found.get(other, ())) for other in others
    )


def _of_watch(captures: Captures, capture: int, size_of: Sizes, read_at: datetime | None) -> Iterator[Reason]:
    """Whether the changes of EndpointSlices are known up to when the node was read."""
    for path, one in captures.of_whom.get(("", capture), {}).items():
        if not CHANGES.fullmatch(path.rpartition("/")[2]):
            continue
        if size_of(path) != one.size:
            yield Reason(CHANGED.code, "the changes of EndpointSlices are not what was collected")
        # One that a killed process has left is whole for the nodes that were finished by then.
        elif one.problem is not None and one.problem.code != "interrupted" and (read_at is None or read_at > one.ended):
            why = f"EndpointSlices were not followed until the node had been read ({one.problem.code})"
            yield Reason("watchEnded", why)
        elif capture in captures.unsteady and one.size:
            why = "the clock of whoever collected went back, so which endpoints served when is not known"
            yield Reason("clockUnsteady", why)
