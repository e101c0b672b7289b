"""analyze on files: dumps of nodes and the cluster's objects in, a report out, by the same judgement as on live nodes.

The truth is what the EndpointSlices, Services, Pods and Nodes among the files say; of a bundle, for each node what its
own capture says. In scope is every node of which there is a file, or that a bundle is about. Nothing is judged here
(`diagnosis` does), and nothing of a bundle is believed but what it holds.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import BinaryIO

from kdnsctl.cluster.kubeproxy import KubeProxy, locate
from kdnsctl.cluster.objects import EndpointSlice
from kdnsctl.diagnosis.evidence import Evidence, Item, Missing, Terms
from kdnsctl.diagnosis.findings import Diagnosis
from kdnsctl.diagnosis.index import Index
from kdnsctl.diagnosis.truth import Truth
from kdnsctl.diagnosis.verdict import diagnose
from kdnsctl.diagnosis.wording import count
from kdnsctl.find.analysis import AnalyzeReport, NodeAnalysis, judged
from kdnsctl.find.brokenoff import broken_off
from kdnsctl.find.captures import Bundles, Moment, bundles_in
from kdnsctl.find.commands import NODE_NAME
from kdnsctl.find.dumps import Dumps, evidence_of, read_at
from kdnsctl.find.inputs import Sifted, read_dumps, sift
from kdnsctl.find.moments import changes_of, slices_at
from kdnsctl.find.nodefiles import NodeFiles, by_node
from kdnsctl.find.objectfiles import Objects
from kdnsctl.find.recognise import RULES, Sort
from kdnsctl.find.report import KubeProxy as Proxy
from kdnsctl.find.report import Problem, in_order
from kdnsctl.find.services import checked
from kdnsctl.find.truths import truth_of
from kdnsctl.logs.sources.files import Inputs
from kdnsctl.model import Coverage, Reason, Reporter, UsageError, Verdict

_LOG = re.compile(r"kube-proxy[^/]*\.log(?:\.[^/.]+)*$")
"""By its name, since nothing is judged by it: what is in it is looked at by who reads it."""
WRONG_CLOCK = timedelta(seconds=2)
SAVE_A_TABLE = "save a connection tracking table: conntrack -L -o extended,id, or /proc/net/nf_conntrack"


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What analyze was asked. `paths` may hold "-" once. `node` is whose the files are that do not say it, `at` when
    they were read (aware), `version` kube-proxy's release where the objects do not tell. `services` are
    "NAMESPACE/NAME" (none: all).
    """

    paths: tuple[str, ...]
    node: str | None = None
    at: datetime | None = None
    version: str | None = None
    services: tuple[str, ...] = ()


def analyze_files(options: FileOptions, *, stdin: BinaryIO, reporter: Reporter, now: datetime) -> AnalyzeReport:
    """Judge every node of which there are dumps in `options.paths`. `now` dates the report.

    Raises UsageError when a path names nothing, no file is of a node, or two files say the same; whatever else is wrong
    with an input is in the report.
    """
    services = checked(options.services)
    with closing(Inputs(options.paths, stdin, twice=True)) as inputs:
        sifted = sift(inputs, reporter, bundles_in(inputs))
        known = frozenset(name for objects in sifted.all_objects() for name in objects.node_names())
        nodes = by_node(sifted.files, options.paths, node=options.node, known=known)
        if not nodes:
            raise _nothing(options.paths, sifted)
        nodes += _without_files(nodes, sifted.bundles)
        truths = _Truths(sifted, options.at)
        indexes = [(node.files, Index(truths.in_the_end(node), node.name)) for node in nodes]
        dumps = read_dumps(inputs, sifted, indexes, reporter)
    terms = Terms(services)
    found: list[NodeAnalysis] = []
    for node, held in zip(nodes, dumps, strict=True):
        proxy = truths.proxy(node)
        version = (proxy.version if proxy else None) or options.version or ""
        evidence = evidence_of(held, node.name, version=version, unread=_unread(node, sifted))
        evidence = replace(evidence, replacement=_replacement(proxy, evidence), broken=tuple(_broken_off(node, sifted)))
        said = _settled(diagnose(evidence, truths.of(node), terms), evidence, truths.in_the_end(node), terms)
        found.append(_judged(node, evidence, said, proxy, options.at or read_at(held)))
    analyses = in_order(found)
    return AnalyzeReport(
        generated_at=now,
        nodes=analyses,
        coverage=Coverage.of(node.verdict for node in analyses),
        services=services,
        skipped=(*sifted.skipped, *(_problem(one.code, one.message, one.name) for one in sifted.unread)),
        notes=tuple(dict.fromkeys((*truths.notes(), *_notes(analyses), *_clocks(nodes, dumps)))),
        next_commands=tuple(_read_logs(options, sifted)),
    )


def _judged(
    node: NodeFiles, evidence: Evidence, said: Diagnosis, proxy: KubeProxy | None, at: datetime | None
) -> NodeAnalysis:
    mode = evidence.running_mode
    return judged(
        node.name,
        said,
        identified=node.identified,
        name_from=node.name_from,
        kube_proxy=Proxy(
            version=evidence.version or None,
            mode=mode.value if mode else None,
            pods=(proxy.place.pod,) if proxy and proxy.place else (),
        ),
        read_at=at,
        sources=tuple(file.name for file in node.files),
    )


def _settled(said: Diagnosis, evidence: Evidence, in_the_end: Truth, terms: Terms) -> Diagnosis:
    """A diagnosis that is not clean only because endpoints that went while the node was read are taken for serving."""
    if said.verdict is not Verdict.CLEAN or diagnose(evidence, in_the_end, terms).verdict is not Verdict.AFFECTED:
        return said
    why = Reason("notSettled", "endpoints went while the node was read, and its table or rules still lead to them")
    return replace(said, verdict=Verdict.UNKNOWN, reason=why, complete=False, missing=(*said.missing, why))


def _read_at(node: NodeFiles) -> datetime | None:
    """When the last of a node's tables and rules had been read, None when that is not known."""
    judged = [file for file in node.files if file.sort is Sort.CONNTRACK or file.sort in RULES]
    return max((file.modified for file in judged if file.began and file.modified), default=None)


def _broken_off(node: NodeFiles, sifted: Sifted) -> Iterator[Reason]:
    """Why a node's evidence is not all there was, as far as the bundle tells that it lies in."""
    moment = sifted.moment_of(node)
    if moment is not None:
        root = moment[0]
        above = f"{root}/" if root else ""
        captures = sifted.bundles.by_root[root]
        yield from broken_off(node.name, captures, lambda path: sifted.sizes.get(above + path), _read_at(node))


class _Truths:
    """What is true for each node: what its bundle's capture says, as it was when the node was read; else all files."""

    def __init__(self, sifted: Sifted, at: datetime | None) -> None:
        self._sifted = sifted
        self._at = at
        self._changes = {moment: changes_of(content) for moment, content in sifted.changes.items()}
        self._proxies: dict[Moment | None, dict[str, KubeProxy]] = {}
        self._found: dict[tuple[Moment | None, datetime | None], Truth] = {}

    def of(self, node: NodeFiles) -> Truth:
        """The truth for a node as it was when its reading began: what went only later is not dead for it."""
        tables = (file.began for file in node.files if file.began and file.sort is Sort.CONNTRACK)
        return self._when(node, min(tables, default=None))

    def in_the_end(self, node: NodeFiles) -> Truth:
        """The truth as it was when all of the node had been read: what went meanwhile does not serve in it."""
        return self._when(node, _read_at(node))

    def _when(self, node: NodeFiles, began: datetime | None) -> Truth:
        moment = self._sifted.moment_of(node)
        changes = self._changes.get(moment, []) if moment else []
        # All that nothing changed for share one.
        key = (moment, max((one.at for one in changes if began and one.at <= began), default=None))
        if key not in self._found:
            objects = self._sifted.truth_of(moment)
            slices = slices_at(objects.slices, changes, began) if changes else objects.slices
            self._found[key] = _truth(objects, slices, self._at, all_slices=moment is not None)
        return self._found[key]

    def proxy(self, node: NodeFiles) -> KubeProxy | None:
        """A node's kube-proxy, None where the objects do not tell."""
        moment = self._sifted.moment_of(node)
        if moment not in self._proxies:
            objects = self._sifted.truth_of(moment)
            self._proxies[moment] = locate(objects.nodes or None, objects.pods)
        return self._proxies[moment].get(node.name)

    def notes(self) -> Iterable[str]:
        """What the files lack for a judgement, of each truth that was needed."""
        for (moment, _), truth in self._found.items():
            yield from _lacking(self._sifted.truth_of(moment), truth)


def _truth(objects: Objects, slices: Sequence[EndpointSlice], at: datetime | None, *, all_slices: bool) -> Truth:
    """`all_slices`: those of all namespaces, as a bundle has them."""
    return truth_of(
        objects.services if objects.has("Service") else None,
        slices if objects.has("EndpointSlice") else None,
        pods=objects.pods,
        nodes=objects.nodes,
        at=at,
        all_services=objects.all_services,
        all_slices=all_slices,
        service_ranges=objects.service_ranges,
    )


def _clocks(nodes: Iterable[NodeFiles], dumps: Iterable[Dumps]) -> Iterator[str]:
    """Nodes whose clocks are wrong, or ours was: what their logs and metrics tell is by theirs."""
    for node, held in zip(nodes, dumps, strict=True):
        ahead = held.clock_ahead
        if ahead is not None and abs(ahead.by) > ahead.within + WRONG_CLOCK:
            where = "ahead of" if ahead.by > timedelta(0) else "behind"
            yield (
                f"The clock of {node.name} was {abs(ahead.by).total_seconds():.0f} s {where} that of the machine which "
                "collected: times in its logs and metrics are by its own."
            )


def _without_files(nodes: Iterable[NodeFiles], bundles: Bundles) -> list[NodeFiles]:
    """The nodes that a bundle is about and has nothing of: they are in scope like the others."""
    there = {node.name for node in nodes}
    names = dict.fromkeys(name for captures in bundles.by_root.values() for name in captures.nodes)
    return [NodeFiles(name, ()) for name in names if name not in there and NODE_NAME.fullmatch(name)]


def _replacement(proxy: KubeProxy | None, evidence: Evidence) -> str:
    """What does kube-proxy's work on a node by design, where the objects tell."""
    return "" if proxy is None or proxy.applicable or evidence.rules else proxy.why


def _unread(node: NodeFiles, sifted: Sifted) -> Iterable[Missing]:
    """What there is of a node and could not be read, by where it lies."""
    folders = {file.path.rpartition("/")[0] for file in node.files}
    for one in sifted.unread:
        if one.path.rpartition("/")[0] in folders:
            yield Missing(Item.OTHER, Reason(one.code, f"{one.name}: {one.message}"))
    if (why := sifted.bundles.silent(node.name)) is not None:
        yield Missing(Item.KUBE_PROXY, why)


def _lacking(objects: Objects, truth: Truth) -> Iterable[str]:
    if not objects.has("EndpointSlice"):
        yield (
            "There are no EndpointSlices among the files, so which endpoints served is not known: "
            "kubectl get endpointslices -A -o json"
        )
    if not objects.has("Service"):
        yield "There are no Services among the files, so no entry can be judged: kubectl get services -A -o json"
    elif not truth.services_known:
        yield (
            "The Services among the files may not be all there are: entries of Services that are gone are not looked "
            "for, and Services without EndpointSlices among the files are left out."
        )


def _notes(nodes: Sequence[NodeAnalysis]) -> Iterable[str]:
    unnamed = sum(not node.identified for node in nodes)
    if unnamed:
        whose = "1 node" if unnamed == 1 else f"{unnamed} nodes"
        yield f"Whose the files of {whose} are, they do not tell; say it with --node."


def _read_logs(options: FileOptions, sifted: Sifted) -> Iterable[str]:
    """How to read the logs of kube-proxy that lie beside the dumps: they are no state, and another command's."""
    if "-" not in options.paths and any(_LOG.search(one.source) for one in sifted.skipped):
        node = f" --node {options.node}" if options.node else ""
        yield f"kdnsctl find-affected --logs {shlex.join(options.paths)}{node}"


def _nothing(paths: Sequence[str], sifted: Sifted) -> UsageError:
    looked = len(sifted.skipped) + len(sifted.unread)
    where = ", ".join(paths)
    if any(objects.all_sources() for objects in sifted.all_objects()):
        return UsageError(
            f"there are objects of the cluster in {where}, and no dump of a node",
            hint=SAVE_A_TABLE,
        )
    return UsageError(
        f"no dump of a node in {where}",
        hint=f"{count(looked, 'file was', 'files were')} looked at, and none is one; {SAVE_A_TABLE}" if looked else "",
    )


def _problem(code: str, message: str, source: str) -> Problem:
    return Problem(code, message, source)
