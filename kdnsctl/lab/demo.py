"""The whole incident as a story: up, healthy, break, find, contain, repair, release, down; DNS is measured throughout.

The story is told to a `Tell`; what the tool does in it is the caller's part (`Acts`), so that this room stays free of
the tool it is for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kdnsctl.lab import incident, space
from kdnsctl.lab.incident import Incident, Mode
from kdnsctl.lab.kubeclient import ApiError
from kdnsctl.lab.measure import Success, Until, a_share_is_lost, measure
from kdnsctl.lab.spacedir import LabDir, LabError, lab_dir

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Acts:
    """What is done about the broken node, each on the running lab. `repair` tells whether it has healed the node."""

    find: Callable[[LabDir], None]
    contain: Callable[[LabDir], None]
    repair: Callable[[LabDir], bool]
    release: Callable[[LabDir], None]


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Which story. `keep`: the lab stays, healed, for the reader to try things in."""

    mode: Mode = Mode.DELETE_FAILS
    up: space.UpOptions = field(default_factory=lambda: space.UpOptions(name="demo"))
    results: int = 6
    keep: bool = False


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What was measured between the acts, and what was broken. `contained` and `released` are empty without acts."""

    incident: Incident
    healthy: tuple[Success, ...]
    broken: tuple[Success, ...]
    contained: tuple[Success, ...]
    healed: tuple[Success, ...]
    released: tuple[Success, ...]


def table(successes: tuple[Success, ...]) -> list[str]:
    """Lines with the DNS success per node: held source port and fresh ones."""
    nodes = sorted({each.node for each in successes})
    by = {(each.node, each.kind): each for each in successes}
    lines = [f"  {'NODE':<10}{'HELD PORT':<22}{'FRESH PORTS':<22}"]
    for node in nodes:
        cells = [by[node, kind] for kind in ("fixed", "fresh")]
        lines.append(f"  {node:<10}" + "".join(f"{f'{c.percent:>3} % ({c.answered} of {c.asked})':<22}" for c in cells))
    return [line.rstrip() for line in lines]


@contextlib.contextmanager
def _lab(options: DemoOptions) -> Iterator[LabDir]:
    space.up(options.up)
    try:
        yield lab_dir(options.up.name, options.up.root)
    except BaseException as failure:
        space.down(options.up.name, root=options.up.root)
        if isinstance(failure, LabError | ApiError):
            # What it says about healing is for a lab that is still there.
            said = str(failure).removesuffix("; undo with: kdnsctl lab heal")
            raise LabError(f"{said}. The lab {options.up.name!r} was removed, and nothing of it is left") from failure
        raise
    if not options.keep:
        space.down(options.up.name, root=options.up.root)


_WHY = {
    Mode.DELETE_FAILS: "`conntrack -D` fails while CoreDNS is replaced; kube-proxy logs it and does not try again",
    Mode.DOWN: "kube-proxy is stopped while CoreDNS is replaced; its log has nothing to say",
    Mode.RESTORE_FAILS: "iptables-restore fails from now on, and a CoreDNS pod is replaced",
}


def run(options: DemoOptions, tell: Tell, acts: Acts | None = None) -> DemoResult:
    """Play the story. Raises LabError; the lab is removed then, too. Without `acts` the lab itself heals the node."""
    count = options.up.nodes
    tell(f"A cluster of {count} nodes comes up on this machine, in namespaces of its own ...")
    with _lab(options) as where:

        def measured(until: Until | None = None) -> tuple[Success, ...]:
            return measure(where, count, options.results, until=until)

        def show(successes: tuple[Success, ...]) -> tuple[Success, ...]:
            for line in table(successes):
                tell(line)
            return successes

        healthy = measured()
        tell("DNS works, for clients that keep their source port and for those that do not:")
        show(healthy)
        tell(f"Now one node breaks: {_WHY[options.mode]} ...")
        made = incident.break_dns(options.mode, name=options.up.name, root=options.up.root)
        shows = a_share_is_lost(made.node) if options.mode is Mode.RESTORE_FAILS else None
        broken = measured(shows)
        old = "one was" if len(made.dead) == 1 else "ones were"
        tell(f"CoreDNS is well, its pods are new; the old {old} {', '.join(made.dead)}. But on {made.node}:")
        show(broken)
        contained: tuple[Success, ...] = ()
        repaired = False
        if acts is not None:
            acts.find(where)
            acts.contain(where)
            tell(f"Nothing new is scheduled to {made.node}, and the evidence is safe. DNS there is as it was:")
            contained = show(measured(shows))
            repaired = acts.repair(where)
        if not repaired:
            tell("The fault is lifted and the node's stale entries go ...")
            incident.heal(name=options.up.name, root=options.up.root)
        tell("DNS after the repair:")
        healed = show(measured())
        released: tuple[Success, ...] = ()
        if acts is not None:
            acts.release(where)
            tell("The node is as it was before the incident, and DNS works:")
            released = show(measured())
        if options.keep and repaired:
            incident.heal(name=options.up.name, root=options.up.root)  # what was injected to break it
    if options.keep:
        tell(f'The lab stays up. Use it: eval "$(kdnsctl lab env {options.up.name})"')
    else:
        tell("The lab is gone; nothing of it is left on this machine.")
    return DemoResult(made, healthy, broken, contained, healed, released)
