"""One node's state, read through a `NodeShell` and put together to `Evidence`. Nothing is judged here, nothing changed.

What is read first changes fastest. A fact that cannot be read is missing, with the reason, and the others still count;
only when the table itself cannot be asked for is there nothing to judge. Outputs that break off are evidence too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeVar

from kdnsctl.cancel import CancelScope
from kdnsctl.diagnosis.evidence import Evidence, Item, KubeProxyState, Missing
from kdnsctl.diagnosis.flows import Collector
from kdnsctl.diagnosis.flows import Reading as Table
from kdnsctl.diagnosis.index import Index, family_of
from kdnsctl.diagnosis.proxystate import state_of
from kdnsctl.diagnosis.truth import ServicePort, Truth
from kdnsctl.facts import conntrack, pairs
from kdnsctl.facts.pairs import Answer, Pair
from kdnsctl.find.bracket import WallClock
from kdnsctl.model import Fact, KdnsctlError, Reason, Toolset
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.netfilter.rules import Mode, NodeRules
from kdnsctl.reach.shell import NodeShell

T = TypeVar("T")
Family = Literal[4, 6]

UNHEALTHY: Final = 503  # HTTP's status of /healthz
NOT_FOUND: Final = 127  # a shell's exit code for a program that is not there
NFTABLES_SINCE: Final = (1, 29)  # kubernetes#121046
# What nft, and cat, say where there is no such table or file, or the kernel has no nftables (ENOENT, EOPNOTSUPP).
NOTHING_THERE: Final = (b"No such file or directory", b"Operation not supported")
_BOTH: Final = frozenset({4, 6})


@dataclass(frozen=True, slots=True)
class Wish:
    """What to read of a node.

    `services` are those asked about. `whole`: the whole table, also of Services that are gone; else only the entries to
    addresses of `services`, filtered on the node. `thorough`: also counters, timeouts, what kube-proxy says of itself,
    and rules that another mode may have left. `version` and `mode` are what is known of kube-proxy already.
    """

    services: tuple[ServicePort, ...] = ()
    whole: bool = True
    thorough: bool = True
    version: str = ""
    mode: Mode | None = None

    @property
    def addresses(self) -> frozenset[str]:
        """Where flows of the Services go to first."""
        return frozenset(address for service in self.services for address in service.addresses)

    @property
    def families(self) -> tuple[Family, ...]:
        """The address families that the Services have."""
        present = {family_of(address) for address in self.addresses}
        return tuple(family for family in (4, 6) if family in present) or (4,)


@dataclass(slots=True)
class _Notes:
    """What could not be read."""

    missing: list[Missing] = field(default_factory=list)

    def attempt(self, item: Item, read: Callable[[], Answer[T]], scope: CancelScope) -> Answer[T] | None:
        """What `read` gives; None, and a note, when it cannot be begun. Raises what ended the scope."""
        try:
            answer = read()
        except KdnsctlError as error:
            scope.check()
            self.missing.append(Missing(item, Reason(error.code, str(error), error)))
            return None
        told = answer.reading.exit_code == UNHEALTHY  # which is an answer
        if answer.reading.problem is not None and item is not Item.RULES and not told:
            self.missing.append(Missing(item, answer.reading.problem))
        return answer


def read_state(shell: NodeShell, wish: Wish, truth: Truth, *, scope: CancelScope, clock: WallClock) -> Evidence:
    """Read a node. Entries are kept by `truth`, as it is when reading begins.

    Raises KdnsctlError when the table cannot be asked for at all, and what ended `scope`.
    """
    notes = _Notes()
    table = read_table(shell, wish, truth, scope=scope, clock=clock)
    answers, said = _ask_mode(shell, notes, scope)
    mode = said or wish.mode
    evidence = Evidence(node=shell.node, live=True, conntrack=table, version=wish.version, mode=mode)
    if wish.thorough:
        counters = notes.attempt(Item.COUNTERS, lambda: pairs.read(shell, pairs.COUNTERS, scope=scope), scope)
        fill = notes.attempt(Item.FILL, lambda: pairs.read(shell, pairs.FILL, scope=scope), scope)
        evidence = replace(evidence, counters=_value(counters), fill=_value(fill))
    found, broken = read_rules(shell, mode, wish, notes, scope=scope)
    if wish.thorough and mode is Mode.NFTABLES:
        for family in wish.families:
            found += _dump(shell, pairs.IPTABLES[family], notes, scope)
    evidence = replace(evidence, rules=found, rules_at=clock.now(), broken=broken)
    if wish.thorough:
        timeouts = notes.attempt(Item.TIMEOUTS, lambda: pairs.read(shell, pairs.TIMEOUTS, scope=scope), scope)
        ports = notes.attempt(Item.OTHER, lambda: pairs.read(shell, pairs.LOCAL_PORTS, scope=scope), scope)
        state = _ask_kube_proxy(shell, said, notes, scope) if answers else None
        evidence = replace(evidence, timeouts=_value(timeouts), local_ports=_value(ports), kube_proxy=state)
    return replace(evidence, missing=tuple(notes.missing))


def read_again(
    shell: NodeShell, evidence: Evidence, wish: Wish, truth: Truth, *, scope: CancelScope, clock: WallClock
) -> Evidence:
    """The same node later: its table and rules once more, beside the first reading. Raises as `read_state`."""
    notes = _Notes(list(evidence.missing))
    table = read_table(shell, wish, truth, scope=scope, clock=clock)
    counters = None
    if evidence.counters is not None:  # what they count is told by how they grow
        counters = _value(notes.attempt(Item.COUNTERS, lambda: pairs.read(shell, pairs.COUNTERS, scope=scope), scope))
    later, broken = read_rules(shell, evidence.running_mode, wish, notes, scope=scope)
    return replace(
        evidence,
        broken=broken,
        counters_later=counters,
        conntrack_later=table,
        rules_later=later,
        rules_later_at=clock.now(),
        missing=tuple(notes.missing),
    )


def read_table(shell: NodeShell, wish: Wish, truth: Truth, *, scope: CancelScope, clock: WallClock) -> Table:
    """The connection tracking table, reduced to the entries that matter while it streams by."""
    collector = Collector()
    fact = conntrack.TABLE if wish.whole else _filtered(wish)
    began = clock.now()
    index = Index(truth, shell.node)
    answer = pairs.read(shell, pairs.table(fact, index.wanted, collector.add), scope=scope)
    summary = answer.value
    problem = answer.reading.problem
    whole = Completeness(answer.reading.completeness.proof, problem) if problem else summary.completeness
    return collector.reading(
        whole,
        families=_BOTH,
        addresses=wish.addresses if fact.patterns else None,
        began=began,
        at=clock.now(),
        entries=summary.total if summary.total is not None else summary.entries,
    )


def read_rules(
    shell: NodeShell, mode: Mode | None, wish: Wish, notes: _Notes, *, scope: CancelScope
) -> tuple[tuple[NodeRules, ...], tuple[Reason, ...]]:
    """kube-proxy's rules in the mode that it works in. When that is not known, all that it may have written.

    Right rules of a mode that kube-proxy no longer works in prove nothing, so the second part says why it is not known
    that there are no others.
    """
    found: list[NodeRules] = []
    broken: list[Reason] = []
    if mode is Mode.IPVS:
        found += _dump(shell, pairs.IPVS, notes, scope)
    elif mode is None:
        listed = notes.attempt(Item.RULES, lambda: pairs.read(shell, pairs.IPVS, scope=scope), scope)
        found += [one for one in listed.value if one.services] if listed else ()
        if not _tells_all(listed):
            broken.append(_not_known(Mode.IPVS, listed, notes))
    for family in wish.families:
        if mode in (Mode.IPTABLES, Mode.IPVS, None):
            found += _dump(shell, pairs.IPTABLES[family], notes, scope)
        if mode is Mode.NFTABLES or (mode is None and _may_be_nftables(wish.version)):

            def read_nft(family: Family = family) -> Answer[tuple[NodeRules, ...]]:
                return pairs.read_nft(shell, family, scope=scope)

            answer = notes.attempt(Item.RULES, read_nft, scope)
            found += answer.value if answer else ()
            if mode is None and not _tells_all(answer) and not _has_no_nft(answer, shell):
                broken.append(_not_known(Mode.NFTABLES, answer, notes))
    return tuple(found), tuple(broken)


def _may_be_nftables(version: str) -> bool:
    """Whether a release of kube-proxy has the mode (since 1.29); one that is not known may."""
    major, _, minor = version.lstrip("v").partition(".")
    number = minor.partition(".")[0]
    return not (major.isdigit() and number.isdigit()) or (int(major), int(number)) >= NFTABLES_SINCE


def _tells_all(answer: Answer[tuple[NodeRules, ...]] | None) -> bool:
    """Whether an attempt to read kube-proxy's rules tells all of them, or that there are none."""
    if answer is None:
        return False
    if answer.reading.complete and all(one.completeness.complete for one in answer.value):
        return True
    return answer.reading.exit_code == 1 and any(said in answer.reading.stderr for said in NOTHING_THERE)


def _has_no_nft(answer: Answer[tuple[NodeRules, ...]] | None, shell: NodeShell) -> bool:
    """Whether kube-proxy itself has no nft, with which it writes its rules."""
    its_own = Toolset.KUBE_PROXY in shell.toolsets and Toolset.HOST not in shell.toolsets
    return answer is not None and answer.reading.exit_code == NOT_FOUND and its_own


def _not_known(mode: Mode, answer: Answer[tuple[NodeRules, ...]] | None, notes: _Notes) -> Reason:
    """That kube-proxy may work in a mode, for all that is known, and why no more is."""
    if answer is None:
        why = notes.missing[-1].reason.message
    elif answer.reading.exit_code == NOT_FOUND:
        why = "there is no nft to look with"
    else:
        problems = (answer.reading.problem, *(one.completeness.problem for one in answer.value))
        why = next((problem.message for problem in problems if problem), "its rules could not be read")
    return Reason("modeUnknown", f"whether kube-proxy works in {mode.value} mode is not known: {why}")


def _dump(
    shell: NodeShell, pair: Pair[tuple[NodeRules, ...]], notes: _Notes, scope: CancelScope
) -> tuple[NodeRules, ...]:
    answer = notes.attempt(Item.RULES, lambda: pairs.read(shell, pair, scope=scope), scope)
    return answer.value if answer else ()


def _filtered(wish: Wish) -> Fact:
    ports = {service.node_port for service in wish.services if service.node_port}
    return conntrack.table_of(sorted(wish.addresses), sorted(ports))


def _ask_mode(shell: NodeShell, notes: _Notes, scope: CancelScope) -> tuple[bool, Mode | None]:
    """Whether kube-proxy answers at all, and its mode. One that is stopped lets every question wait in vain."""
    answer = notes.attempt(Item.KUBE_PROXY, lambda: pairs.read(shell, pairs.MODE, scope=scope), scope)
    answers = answer is not None and answer.reading.exit_code is not None
    return answers, answer.value if answer and answer.reading.complete else None


def _ask_kube_proxy(shell: NodeShell, mode: Mode | None, notes: _Notes, scope: CancelScope) -> KubeProxyState:
    metrics = notes.attempt(Item.KUBE_PROXY, lambda: pairs.read(shell, pairs.METRICS, scope=scope), scope)
    health = notes.attempt(Item.KUBE_PROXY, lambda: pairs.read(shell, pairs.HEALTH, scope=scope), scope)
    return state_of(mode, metrics.value if metrics else None, health.value if health else None)


def _value(answer: Answer[T | None] | None) -> T | None:
    return answer.value if answer else None
