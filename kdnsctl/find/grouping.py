"""Streams and unreadable inputs put together node by node, with every one of them accounted for.

An input ends in exactly one place: as evidence of one node, or as skipped with the reason. Whose a log is was told by
its path or its lines (`logs.sources`); here the hints of different inputs are joined. Nothing is judged, and a hint
that contradicts another is not believed: then the log goes by its pod's or file's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePosixPath

from kdnsctl.find.judge import NodeLog
from kdnsctl.find.report import Problem
from kdnsctl.logs.sources.files import FileStream
from kdnsctl.logs.sources.naming import Origin, is_guess, is_kube_proxy, origin_of, run_of
from kdnsctl.logs.sources.refusals import LARGEST as LARGEST_REFUSAL
from kdnsctl.logs.sources.repeats import Records, Repeats
from kdnsctl.logs.sources.walking import Unreadable
from kdnsctl.logs.tally import Tally


@dataclass(frozen=True, slots=True)
class Grouped:
    """`logs` one for each node, `skipped` what is no evidence, `notes` by node's name what to know of the counts."""

    logs: tuple[NodeLog, ...]
    skipped: tuple[Problem, ...]
    notes: tuple[tuple[str, str], ...]


def group(
    items: Iterable[FileStream | Unreadable], *, node: str | None = None, arguments: Sequence[str] = ()
) -> Grouped:
    """Put together what is of one node; `node` (--node) is for streams of which nothing says it.

    `arguments` are the PATHs as they were given: the names of folders below them are believed, others are a guess.
    """
    skipped: list[Problem] = []
    streams: list[FileStream] = []
    small: list[FileStream] = []
    unreadable: list[Unreadable] = []
    for item in items:
        if isinstance(item, Unreadable):
            if origin_of(item.path).is_anothers and not item.explicit:
                skipped.append(Problem(str(item.code), item.message, item.name))
            else:
                unreadable.append(item)
        elif (why := _not_a_log(item)) is not None and why == _NO_RECORDS and _may_be_a_message(item):
            small.append(item)
        elif why is not None:
            skipped.append(Problem("notALog", why, item.source))
        else:
            streams.append(item)
    promised, unpromised = _promised(small, streams)
    streams.extend(promised)
    skipped.extend(Problem("notALog", "no klog records", stream.source) for stream in unpromised)
    groups = _by_node(streams, unreadable, arguments)
    logs: list[NodeLog] = []
    notes: list[tuple[str, str]] = []
    if node:
        groups, notes = _with_option(groups, node)
    for one in groups:
        evidence, rest = _evidence(one)
        skipped.extend(Problem("notALog", _why_not_evidence(stream), stream.source) for stream in rest)
        log, said = _joined(one, evidence)
        logs.append(log)
        notes.extend((log.name, text) for text in said)
    return Grouped(tuple(logs), tuple(skipped), tuple(notes))


# What is a log of kube-proxy at all


def _not_a_log(stream: FileStream) -> str | None:
    """Why a file that was only met on the way is no log of kube-proxy, None when it is one, or may be."""
    if stream.explicit or stream.tally.ours:
        return None
    origin = stream.origin
    if origin.component and not origin.is_kube_proxys:
        return f"nothing that only kube-proxy logs, and by its name the log of {origin.component}"
    if not stream.records and PurePosixPath(stream.path).suffix in _PROSE_AND_CODE:
        return _NO_RECORDS  # but perhaps quotes of some
    if stream.damages:
        return None
    if stream.others:
        return stream.others
    if not stream.own:
        # An export can hold the logs of all pods, and not every store says the container.
        known = origin.container or is_kube_proxy(origin.pod) or origin.pod.startswith("sdn") or not origin.pod
        return None if known else f"the log of pod {origin.pod}"
    if not stream.records and stream.size and not _should_be_a_log(stream):
        return _NO_RECORDS
    return None


_NO_RECORDS = "no klog records"
_PROSE_AND_CODE = frozenset((".md", ".py", ".go", ".sh", ".rst", ".html", ".yaml", ".yml"))
"""Suffixes of files that are never logs, if nothing in them is a record."""


def _should_be_a_log(stream: FileStream) -> bool:
    """Whether the path promises a log of kube-proxy, so that its absence is something to report."""
    origin = stream.origin
    return origin.is_kube_proxys


def _may_be_a_message(stream: FileStream) -> bool:
    return stream.size <= LARGEST_REFUSAL and PurePosixPath(stream.path).suffix not in _PROSE_AND_CODE


def _promised(small: Sequence[FileStream], streams: Sequence[FileStream]) -> tuple[list[FileStream], list[FileStream]]:
    """Apart: small files that stand where a node's log should, whatever message they hold, and other small files.

    Such a file is called as another node's log is (n1/out.txt and n2/out.txt), or it lies among logs of which each is
    another node's (logs/n1.txt and logs/n2.txt), not among the files of one node.
    """
    names: set[str] = set()
    folders: set[tuple[str, str]] = set()
    nodes: set[str] = set()
    for stream in streams:
        if not stream.tally.ours or not stream.own:
            continue
        path = PurePosixPath(stream.path)
        names.add(path.name)
        nodes.add(str(path.parent))
        if origin_of(stream.path).node != path.parent.name:
            folders.add((str(path.parent), path.suffix))
    promised: list[FileStream] = []
    rest: list[FileStream] = []
    for stream in small:
        path = PurePosixPath(stream.path)
        like_anothers = path.name in names and str(path.parent) not in nodes
        among_logs = (str(path.parent), path.suffix) in folders
        (promised if like_anothers or among_logs else rest).append(stream)
    return promised, rest


@dataclass(slots=True)
class _Group:
    name: str
    identified: bool
    name_from: str
    streams: list[FileStream] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    @property
    def streams_named(self) -> str:
        """What it is made of, for people: the first of its inputs."""
        return next(iter((*(stream.source for stream in self.streams), *(item.name for item in self.unreadable))), "it")


def _evidence(one: _Group) -> tuple[list[FileStream], list[FileStream]]:
    """Apart: what shows something of kube-proxy, and what does not beside it.

    The kubelet's log would stretch the time that the node's logs seem to cover. Where nothing is kube-proxy's for
    certain, all of it stays, to be judged unknown.
    """
    if not any(stream.tally.ours for stream in one.streams):
        return one.streams, []
    kept: list[FileStream] = []
    rest: list[FileStream] = []
    for stream in one.streams:
        is_evidence = stream.tally.ours or stream.damages or stream.origin.is_kube_proxys
        (kept if is_evidence else rest).append(stream)
    return kept, rest


def _why_not_evidence(stream: FileStream) -> str:
    return "klog records, but nothing that only kube-proxy logs" if stream.records else "no klog records"


# Whose it is


def _by_node(streams: Sequence[FileStream], unreadable: Sequence[Unreadable], arguments: Sequence[str]) -> list[_Group]:
    aliases = _aliases(streams)
    shared = _shared_folders(streams)
    nodes_of_pods = _nodes_of_pods(streams, aliases, shared)
    groups: dict[str, _Group] = {}

    def place(origin: Origin, path: str, source: str) -> _Group:
        node, node_from = _named(origin, aliases, shared)
        if not node and len(nodes := nodes_of_pods.get(origin.pod, set())) == 1:
            node, node_from = next(iter(nodes)), "pod"
        identified = bool(node) and not (node_from == "path" and is_guess(origin, path, arguments))
        name = node or origin.pod or source
        key = f"node/{name}" if identified else f"other/{name}"
        if key not in groups:
            groups[key] = _Group(name, identified, node_from if identified else "")
        return groups[key]

    for stream in streams:
        place(stream.origin, stream.path, stream.source).streams.append(stream)
    for item in unreadable:
        place(origin_of(item.path), item.path, item.name).unreadable.append(item)
    return list(groups.values())


def _with_option(groups: Sequence[_Group], option: str) -> tuple[list[_Group], list[tuple[str, str]]]:
    """The groups with --node in place of what is not known, and what to say where it contradicts what is.

    A path names the node of one log less well than the operator does; of several, it tells them apart.
    """
    notes: list[tuple[str, str]] = []
    kept: list[_Group] = []
    named = _Group(option, True, "option")
    for one in groups:
        if one.name == option and one.identified:
            named.name_from = one.name_from
        elif one.identified and not (len(groups) == 1 and one.name_from == "path"):
            says = {"path": "its path", "pod": "its pod"}.get(one.name_from, "the log itself")
            notes.append(
                (one.name, f"--node {option} is not believed of {one.streams_named}, as {says} names {one.name}")
            )
            kept.append(one)
            continue
        named.streams += one.streams
        named.unreadable += one.unreadable
    return [*kept, named] if named.streams or named.unreadable else kept, notes


def _named(origin: Origin, aliases: dict[str, str], shared: set[str]) -> tuple[str, str]:
    """The node that `origin` names, in the light of the other inputs, and what says it."""
    if origin.node_from != "path":
        return origin.node, origin.node_from
    if origin.node in shared:
        return "", ""
    if origin.node in aliases:
        return aliases[origin.node], "flag"
    return origin.node, origin.node_from


def _aliases(streams: Iterable[FileStream]) -> dict[str, str]:
    """What a folder's name stands for: the node that kube-proxy itself named in one of its files.

    A start names the node, and the files before and behind it do not: they would else be another node's.
    """
    said: dict[str, set[str]] = {}
    for stream in streams:
        by_path = origin_of(stream.path)
        if stream.origin.node_from == "flag" and by_path.node_from == "path":
            said.setdefault(by_path.node, set()).add(stream.origin.node)
    return {folder: next(iter(nodes)) for folder, nodes in said.items() if len(nodes) == 1}


def _shared_folders(streams: Iterable[FileStream]) -> set[str]:
    """Folders that look like a node's and are not: two kube-proxy pods were at work in them at the same time."""
    spans: dict[str, dict[str, tuple[int, int]]] = {}
    for stream in streams:
        origin, first, last = stream.origin, stream.tally.first, stream.tally.last
        if origin.node_from != "path" or not origin.pod or first is None or last is None:
            continue
        pods = spans.setdefault(origin.node, {})
        known = pods.get(origin.pod, (first, last))
        pods[origin.pod] = (min(known[0], first), max(known[1], last))
    shared = set()
    for folder, pods in spans.items():
        if any(following[0] < before[1] for before, following in pairwise(sorted(pods.values()))):
            shared.add(folder)
    return shared


def _nodes_of_pods(streams: Iterable[FileStream], aliases: dict[str, str], shared: set[str]) -> dict[str, set[str]]:
    """The nodes that the inputs name for each pod; a pod lives on one."""
    nodes: dict[str, set[str]] = {}
    for stream in streams:
        node, _ = _named(stream.origin, aliases, shared)
        if node and stream.origin.pod:
            nodes.setdefault(stream.origin.pod, set()).add(node)
    return nodes


# All evidence of one node as one log


def _joined(one: _Group, evidence: Sequence[FileStream]) -> tuple[NodeLog, list[str]]:
    log = NodeLog(one.name, Tally(), identified=one.identified, name_from=one.name_from)
    again = _again(evidence)
    notes: list[str] = []
    parts: dict[str, Tally] = {}
    for stream, repeated in zip(evidence, again, strict=True):
        if repeated is Repeats.ALL:
            notes.append(f"all that {stream.source} shows is in the node's other logs too; it is counted once")
            log.tally.merge(_only_time(stream.tally))
        else:
            if repeated is Repeats.SOME:
                notes.append(f"{stream.source} repeats a part of the node's other logs; counts can be too high")
            log.tally.merge(stream.tally)
            if stream.tally.first is not None or stream.tally.counts:
                parts.setdefault(run_of(stream.path, stream.origin.pod), Tally()).merge(stream.tally)
        log.sources.append(stream.source)
        if stream.origin.pod:
            log.pods.append(stream.origin.pod)
        log.problems.extend(Problem(damage.code, damage.message, stream.source) for damage in stream.damages)
        log.size += stream.size
        log.records = log.records or stream.records
    log.parts = sorted(parts.values(), key=lambda part: part.last or 0)
    for item in one.unreadable:
        log.sources.append(item.name)
        log.problems.append(Problem(str(item.code), item.message, item.name))
    return log, notes


def _again(evidence: Sequence[FileStream]) -> list[Repeats]:
    """For each stream, how much of it the others show too; of two that are the same, one is none of it."""
    again = [Repeats.NONE] * len(evidence)
    if len(evidence) == 1:
        return again
    records = Records()
    most_first = sorted(range(len(evidence)), key=lambda index: -sum(_counts(evidence[index].tally)))
    for index in most_first:
        tally = evidence[index].tally
        again[index] = records.again(tally)
        if again[index] is not Repeats.ALL:
            records.add(tally)
    return again


def _counts(tally: Tally) -> Iterable[int]:
    return (count.count for count in tally.counts.values())


def _only_time(tally: Tally) -> Tally:
    """What a log that adds no record still tells: the time it covers, and which releases it can be from."""
    return Tally(
        first_seen=tally.first,
        last_seen=tally.last,
        ours=tally.ours,
        oldest_possible=tally.oldest_possible,
        newest_possible=tally.newest_possible,
    )
