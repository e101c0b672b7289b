"""collect: nodes in scope → their state and the cluster's, read by the rungs of `reach` → a bundle and a report.

Every node in scope is in the report exactly once: complete, partial or failed. Nothing is changed on any node or in the
cluster, and nothing is judged: `analyze` does that with the bundle.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kdnsctl import fleet
from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope
from kdnsctl.cluster import execs, logs, portforward, proxyload
from kdnsctl.cluster.objects import Node
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence import clusterside
from kdnsctl.evidence.bundle import Bundle
from kdnsctl.evidence.clusterside import ClusterCollector
from kdnsctl.evidence.items import ITEMS, Item
from kdnsctl.evidence.nodeside import Gap, NodeCollector, NodeSide
from kdnsctl.evidence.ways import VIA_POD, Ladder, Via
from kdnsctl.find.online import identity_of
from kdnsctl.find.scope import Chosen, nodes_in_scope
from kdnsctl.model import API_VERSION, ExitCode, Outcome, Reason, Reporter, Scope
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
    ),
    with_option={
        VIA_POD: tuple(
            replace(one, without="no pod is made for nodes that exec does not reach")
            for one in ownpod.needed(PodSettings().namespace)
        )
    },
)


class Status(enum.StrEnum):
    """What came of one node."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CollectOptions:
    """What collect was asked. `seconds` replaces how long each command may take on a node, None: as the facts say.

    `pods` is how pods of our own are made, None where none may be.
    """

    directory: Path
    chosen: Chosen = field(default_factory=Chosen)
    via: Via = Via.AUTO
    pods: PodSettings | None = None
    items: tuple[Item, ...] = ITEMS
    resume: bool = False
    seconds: int | None = None
    parallel: int = PARALLEL


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node: by which rung it was reached ("" for none), how many items are whole, and what is missing."""

    name: str
    status: Status
    via: str = ""
    whole: int = 0
    missing: tuple[Gap, ...] = ()

    @property
    def reason(self) -> str:
        """Why it is not complete: each reason once, in words."""
        return "; ".join(dict.fromkeys(gap.reason.message for gap in self.missing))


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What was collected. `sums_digest` is the SHA-256 of SHA256SUMS; `cluster_missing` what lacks of the cluster.

    `run` is what pods of our own were labelled with, `pods_left` those that could not be deleted, in words.
    """

    cluster: str
    bundle: Path
    capture: int
    started: datetime
    ended: datetime
    nodes: tuple[NodeRow, ...]
    cluster_missing: tuple[Gap, ...]
    scope: Scope
    sums_digest: str
    notes: tuple[str, ...] = ()
    run: str = ""
    pods_left: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """OK when nothing is missing and no pod is left, else INCOMPLETE."""
        whole = all(node.status is Status.COMPLETE for node in self.nodes)
        whole = whole and not self.cluster_missing and not self.pods_left
        return ExitCode.OK if whole and self.scope is Scope.FULL else ExitCode.INCOMPLETE


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
    found = nodes_in_scope(connection, options.chosen, scope=scope)
    said = {**about, "nodes": list(found.names), "items": [item.id for item in options.items], "via": options.via.value}
    keeper = None if options.pods is None else PodKeeper(connection, options.pods)
    if options.pods is not None:
        said["run"] = options.pods.run
    left: tuple[str, ...] = ()
    with _bundle(options, said, now) as bundle, contextlib.ExitStack() as at_the_end:
        if keeper is not None:
            at_the_end.callback(keeper.close)
        if ssh is not None:
            ssh.addresses = internal_addresses(found.nodes)
        cluster = ClusterCollector(bundle, connection, reporter)
        ladder = Ladder(options.via, connection, ssh, keeper, found)

        def work(node: str, limit: CancelScope) -> NodeSide:
            with contextlib.ExitStack() as opened:
                ways, forward = ladder.ways(node, opened), ladder.kube_proxy(node)
                place, seconds = ladder.place(node), options.seconds
                collector = NodeCollector(bundle, connection, node, place, ways, forward, seconds=seconds)
                return collector.collect(options.items, limit)

        outcomes: Sequence[Outcome[NodeSide]] = ()
        with contextlib.suppress(_EndedError), _until_the_end(scope), cluster.during(scope):
            outcomes = fleet.run(
                found.names,
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
        rows = tuple(_row(name, done.get(name), bundle, scope) for name in found.names)
        summary = {"nodes": {row.name: row.status.value for row in rows}}
        digest = bundle.finish(summary)
        return CollectReport(
            cluster=identity_of(connection.target),
            bundle=options.directory,
            capture=bundle.capture,
            started=started,
            ended=now(),
            nodes=rows,
            cluster_missing=tuple(cluster.gaps),
            scope=found.scope,
            sums_digest=digest,
            notes=found.notes,
            run=options.pods.run if options.pods is not None else "",
            pods_left=left,
        )


def to_json(report: CollectReport) -> dict[str, Any]:
    """The report as plain data (docs/schemas/CollectReport.schema.json)."""
    return {
        "apiVersion": API_VERSION,
        "kind": "CollectReport",
        "cluster": report.cluster,
        "bundle": str(report.bundle),
        "capture": report.capture,
        "startedAt": report.started.isoformat(),
        "endedAt": report.ended.isoformat(),
        "scope": report.scope.value,
        "sumsSha256": report.sums_digest,
        "nodes": [
            {
                "name": node.name,
                "status": node.status.value,
                "via": node.via or None,
                "whole": node.whole,
                "missing": [_gap(gap) for gap in node.missing],
            }
            for node in report.nodes
        ],
        "clusterMissing": [_gap(gap) for gap in report.cluster_missing],
        "notes": list(report.notes),
        "run": report.run or None,
        "podsLeft": list(report.pods_left),
    }


def _gap(gap: Gap) -> dict[str, str]:
    return {"item": gap.item, "code": gap.reason.code, "message": gap.reason.message}


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
    """The InternalIP of each node that has one, by name."""
    return {
        node.metadata.name: one.address
        for node in nodes
        for one in reversed(node.status.addresses)
        if one.type == "InternalIP"
    }


def _bundle(options: CollectOptions, about: Mapping[str, Any], now: Callable[[], datetime]) -> Bundle:
    """A new bundle, or a new capture in one: tables and what is true for them must be of the same time."""
    if options.resume:
        return Bundle.resume(options.directory, about, again=True, now=now)
    return Bundle.create(options.directory, about, now)


def _row(name: str, outcome: Outcome[NodeSide] | None, bundle: Bundle, scope: CancelScope) -> NodeRow:
    had = sum(1 for one in bundle.artefacts if (one.node, one.capture, one.complete) == (name, bundle.capture, True))
    if outcome is None or outcome.value is None:
        ended = scope.reason or Reason("internalError", "the node was not read")
        reason = (outcome.reason if outcome else None) or ended
        via = next((one.via for one in bundle.artefacts if (one.node, one.capture) == (name, bundle.capture)), "")
        return NodeRow(name, Status.PARTIAL if had else Status.FAILED, via, had, (Gap("", reason),))
    side = outcome.value
    # What came through the API alone is not the node: its table and rules are.
    status = Status.COMPLETE if not side.gaps else Status.PARTIAL if had and side.via else Status.FAILED
    return NodeRow(name, status, side.via, side.whole, tuple(side.gaps))
