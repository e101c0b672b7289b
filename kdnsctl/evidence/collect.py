"""collect: nodes in scope → their state and the cluster's, read by the rungs of `reach` → a bundle and a report.

Every node in scope is in the report exactly once: complete, partial or failed. Nothing is changed on any node or in the
cluster, and nothing is judged: `analyze` does that with the bundle.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kdnsctl import fleet
from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope, interrupting
from kdnsctl.changes.incidents import NOTED
from kdnsctl.cluster import execs, logs, portforward, proxyload
from kdnsctl.cluster.objects import Node
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence import clusterside
from kdnsctl.evidence.bundle import Bundle, sealed
from kdnsctl.evidence.clusterside import ClusterCollector
from kdnsctl.evidence.collected import CollectReport, NodeRow, Status
from kdnsctl.evidence.items import ITEMS, Item
from kdnsctl.evidence.nodeside import NodeCollector, NodeSide
from kdnsctl.evidence.resuming import Earlier, Gap, Had, earlier, node_record
from kdnsctl.evidence.room import check_room, most_of
from kdnsctl.evidence.ways import VIA_POD, Ladder, Via
from kdnsctl.find.online import identity_of
from kdnsctl.find.scope import Chosen, InScope, nodes_in_scope
from kdnsctl.model import Outcome, Reason, Reporter
from kdnsctl.reach import ownpod
from kdnsctl.reach.podkeeper import PodKeeper, PodSettings

if TYPE_CHECKING:
    from kdnsctl.evidence.sshways import SshWays

PARALLEL: Final = 16
NEEDED: Final = tuple(
    replace(one, without="nodes can only be read through pods of our own, or over SSH")
    for one in execs.needed(proxyload.NEEDED[1].namespace or "")
)
NEEDS: Final = Needs(
    needed=(*proxyload.NEEDED, *clusterside.NEEDED, *NEEDED),
    helpful=(
        *proxyload.HELPFUL,
        *clusterside.HELPFUL,
        *(replace(one, without="kube-proxy is not asked how it is") for one in portforward.needed("kube-system")),
        replace(logs.needed("kube-system"), without="kube-proxy's logs are not collected"),
        NOTED,
    ),
    with_option={
        VIA_POD: tuple(
            replace(one, without="no pod is made for nodes that exec does not reach")
            for one in ownpod.needed(PodSettings().namespace)
        )
    },
)


@dataclass(frozen=True, slots=True)
class CollectOptions:
    """What collect was asked. `seconds` replaces how long each command may take on a node, None: as the facts say.

    `resume` goes on with the bundle in `directory`: nodes that it has finished are kept, or with `again` all are read
    anew. `same` stands for the nodes that the bundle is about; then `chosen` names none. None of `items`: those that
    its last capture asked for, all of them in a new bundle. `packed`: it will be packed into an archive beside it.
    `pods` is how pods of our own are made, None where none may be.
    """

    directory: Path
    chosen: Chosen = field(default_factory=Chosen)
    via: Via = Via.AUTO
    pods: PodSettings | None = None
    items: tuple[Item, ...] = ()
    resume: bool = False
    again: bool = False
    same: bool = False
    packed: bool = False
    seconds: int | None = None
    parallel: int = PARALLEL


def collect(
    options: CollectOptions,
    connection: Connection,
    ssh: SshWays | None,
    *,
    scope: CancelScope,
    reporter: Reporter,
    about: Mapping[str, Any],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> CollectReport:
    """Collect from every node in scope. `ssh` leads to nodes over SSH, None where that is not wanted.

    When `scope` ends meanwhile, the bundle is finished with what was had, and `scope.reason` tells. Raises what
    `nodes_in_scope`, `Bundle.create` and `Bundle.resume` raise, and BundleWriteError when nothing fits.
    """
    started = now()
    plan = _plan(options, connection, scope)
    if plan.names and (note := check_room(options.directory, _most(plan, options))):
        reporter.noted(note)
    told = _Told(options, plan, identity_of(connection.target), started, now)
    if options.resume and not plan.names and (digest := sealed(options.directory)):
        # Nothing to read and nothing to finish: the bundle stays what its sums were noted of.
        return told.report(plan.earlier.last, [_kept_row(name, had) for name, had in plan.kept.items()], (), digest)
    said = {**about, **plan.about, "via": options.via.value}
    keeper = None if options.pods is None else PodKeeper(connection, options.pods)
    if options.pods is not None:
        said["run"] = options.pods.run
    left: tuple[str, ...] = ()
    with interrupting(scope), _bundle(options, said, plan, now) as bundle, contextlib.ExitStack() as at_the_end:
        if keeper is not None:
            at_the_end.callback(keeper.close)
        if ssh is not None:
            ssh.addresses = internal_addresses(plan.found.nodes)
        cluster = ClusterCollector(bundle, connection, plan.names, reporter)
        ladder = Ladder(options.via, connection, ssh, keeper, plan.found)
        ids = [item.id for item in plan.items]

        def work(node: str, limit: CancelScope) -> NodeSide:
            with contextlib.ExitStack() as opened:
                ways, forward = ladder.ways(node, opened), ladder.kube_proxy(node)
                place, seconds = ladder.place(node), options.seconds
                collector = NodeCollector(bundle, connection, node, place, ways, forward, seconds=seconds)
                side = collector.collect(plan.items, limit)
            row = _row_of(node, side, bundle)
            bundle.record("node", node_record(node, row.status.value, row.via, row.whole, row.missing, ids))
            return side

        outcomes: Sequence[Outcome[NodeSide]] = ()
        with contextlib.suppress(_EndedError), _until_the_end(scope), _only_if(plan.names, cluster.during(scope)):
            outcomes = fleet.run(
                plan.names,
                work,
                parallel=options.parallel,
                deadline=None,
                reporter=reporter,
                scope=scope,
                what="collecting",
            )
        if keeper is not None:
            left = keeper.close()
        bundle.account_for_leftovers()  # of work that hangs, whose node has its reason already
        done = {outcome.node: outcome for outcome in outcomes}
        rows = (
            *(_row(name, done.get(name), bundle, scope) for name in plan.names),
            *(_kept_row(name, had) for name, had in plan.kept.items()),
        )
        kept = {name: had.capture for name, had in plan.kept.items()}
        for row in rows:  # what there was of a node that is not reached any more still is evidence
            if row.status is Status.FAILED and not row.whole and (had := plan.earlier.nodes.get(row.name)) is not None:
                kept[row.name] = had.capture
        digest = bundle.finish({"nodes": {row.name: row.status.value for row in rows}, "kept": kept})
        return told.report(
            bundle.capture, rows, cluster.gaps, digest, left=left, lacking=cluster.lacking, notes=_notes(outcomes)
        )


@dataclass(frozen=True, slots=True)
class _Told:
    """What a report says whatever came of it."""

    options: CollectOptions
    plan: _Plan
    cluster: str
    started: datetime
    now: Callable[[], datetime]

    def report(
        self,
        capture: int,
        rows: Iterable[NodeRow],
        gaps: Iterable[Gap],
        digest: str,
        *,
        left: tuple[str, ...] = (),
        lacking: Iterable[Gap] = (),
        notes: Iterable[str] = (),
    ) -> CollectReport:
        """The report. `left` are pods that could not be deleted."""
        return CollectReport(
            cluster=self.cluster,
            bundle=self.options.directory,
            capture=capture,
            started=self.started,
            ended=self.now(),
            nodes=tuple(sorted(rows, key=lambda row: row.name)),
            cluster_missing=tuple(gaps),
            cluster_lacking=tuple(lacking),
            scope=self.plan.found.scope,
            sums_digest=digest,
            notes=(*self.plan.found.notes, *_kept_notes(self.plan), *notes),
            run=self.options.pods.run if self.options.pods is not None else "",
            pods_left=left,
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which nodes are read, and which are kept as an earlier capture has them."""

    found: InScope
    names: tuple[str, ...]
    items: tuple[Item, ...]
    kept: Mapping[str, Had] = field(default_factory=dict)
    earlier: Earlier = field(default_factory=Earlier)

    @property
    def about(self) -> dict[str, Any]:
        """For the journal."""
        kept = {name: had.capture for name, had in self.kept.items()}
        return {"nodes": [*self.names, *kept], "kept": kept, "items": [item.id for item in self.items]}


def _plan(options: CollectOptions, connection: Connection, scope: CancelScope) -> _Plan:
    if not options.resume:
        found = nodes_in_scope(connection, options.chosen, scope=scope)
        return _Plan(found, found.names, options.items or ITEMS)
    there = earlier(Bundle.records(options.directory))
    found = nodes_in_scope(connection, options.chosen, scope=scope)
    asked = tuple(name for name in found.names if name in there.nodes) if options.same else found.names
    items = options.items or tuple(item for item in ITEMS if item.id in there.items) or ITEMS
    if options.again:
        return _Plan(found, asked, items)
    names = tuple(name for name in asked if not there.finished(name, [item.id for item in items]))
    return _Plan(found, names, items, {name: had for name, had in there.nodes.items() if name not in names}, there)


def _most(plan: _Plan, options: CollectOptions) -> int:
    """Bytes that are written at most."""
    nodes = {node.metadata.name: node for node in plan.found.nodes}
    return most_of(nodes.get(name) for name in plan.names) * (2 if options.packed else 1)


def _kept_row(name: str, had: Had) -> NodeRow:
    if had.status:
        return NodeRow(name, Status(had.status), had.via, had.whole, had.missing, had.capture)
    return NodeRow(name, Status.PARTIAL if had.whole else Status.FAILED, had.via, had.whole, had.missing, had.capture)


def _kept_notes(plan: _Plan) -> Iterator[str]:
    whole = sum(had.status == Status.COMPLETE for had in plan.kept.values())
    if whole:
        nodes = "1 node was" if whole == 1 else f"{whole} nodes were"
        yield f"{nodes} complete in an earlier capture: not read again, and judged by what was true then."


@contextlib.contextmanager
def _only_if(names: Sequence[str], during: contextlib.AbstractContextManager[None]) -> Iterator[None]:
    """The cluster's side is of use to nodes that are read."""
    with during if names else contextlib.nullcontext():
        yield


class _EndedError(Exception):
    """The scope is over, and what was had is kept."""


@contextlib.contextmanager
def _until_the_end(scope: CancelScope) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        scope.cancel()
        raise _EndedError from None
    except Exception as error:
        if scope.reason is None:
            raise
        raise _EndedError from error


def internal_addresses(nodes: Sequence[Node]) -> dict[str, str]:
    """The InternalIP of each node, by its name: the first that it tells."""
    return {
        node.metadata.name: one.address
        for node in nodes
        for one in reversed(node.status.addresses)
        if one.type == "InternalIP"
    }


def _bundle(options: CollectOptions, about: Mapping[str, Any], plan: _Plan, now: Callable[[], datetime]) -> Bundle:
    """A new bundle, or a new capture in one where nodes are read: tables and what is true for them go together."""
    if options.resume:
        return Bundle.resume(options.directory, about, again=bool(plan.names), now=now)
    return Bundle.create(options.directory, about, now)


def _row(name: str, outcome: Outcome[NodeSide] | None, bundle: Bundle, scope: CancelScope) -> NodeRow:
    if outcome is not None and outcome.value is not None:
        return _row_of(name, outcome.value, bundle)
    had = _whole(name, bundle)
    ended = scope.reason or Reason("internalError", "the node was not read")
    reason = (outcome.reason if outcome else None) or ended
    via = next((one.via for one in bundle.artefacts if (one.node, one.capture) == (name, bundle.capture)), "")
    return NodeRow(name, Status.PARTIAL if had else Status.FAILED, via, had, (Gap("", reason),), bundle.capture)


def _row_of(name: str, side: NodeSide, bundle: Bundle) -> NodeRow:
    # What came through the API alone is not the node: its table and rules are.
    status = Status.COMPLETE if not side.gaps else Status.PARTIAL if side.own else Status.FAILED
    return NodeRow(name, status, side.via, side.whole, tuple(side.gaps), bundle.capture, tuple(side.lacking))


def _notes(outcomes: Sequence[Outcome[NodeSide]]) -> Iterator[str]:
    """Where rules of every mode were read, and why."""
    found = [(one.node, one.value.why_no_mode) for one in outcomes if one.value and one.value.why_no_mode]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        yield (
            f"kube-proxy's mode is not known on {found[0][0]}{more} ({found[0][1]}), so the rules of every mode were "
            "read: of which mode they are, they tell themselves"
        )


def _whole(name: str, bundle: Bundle) -> int:
    return sum(1 for one in bundle.artefacts if (one.node, one.capture, one.complete) == (name, bundle.capture, True))
