"""The whole incident as a story, in under a minute: up, healthy, break, find, heal, down, with DNS measured throughout.

The story is told to a `Tell`; finding the node is the caller's part (`find`), so that this room stays free of the
tool it is for: it is given the directory with the nodes' log files and the running lab, and what it returns is told.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kdnsctl.lab import incident, space
from kdnsctl.lab.incident import Incident, Mode
from kdnsctl.lab.kubeclient import ApiError
from kdnsctl.lab.measure import Success, a_share_is_lost, measure
from kdnsctl.lab.spacedir import LabDir, LabError, lab_dir

Tell = Callable[[str], None]
Find = Callable[[LabDir, Path], str]


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Which story. `keep`: the lab stays, healed, for the reader to try things in."""

    mode: Mode = Mode.DELETE_FAILS
    up: space.UpOptions = field(default_factory=lambda: space.UpOptions(name="demo"))
    results: int = 6
    keep: bool = False


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What was measured in the three acts, and what was broken."""

    incident: Incident
    healthy: tuple[Success, ...]
    broken: tuple[Success, ...]
    healed: tuple[Success, ...]


def table(successes: tuple[Success, ...]) -> list[str]:
    """Lines with the DNS success per node: held source port and fresh ones."""
    nodes = sorted({each.node for each in successes})
    by = {(each.node, each.kind): each for each in successes}
    lines = [f"  {'NODE':<10}{'HELD PORT':<22}{'FRESH PORTS':<22}"]
    for node in nodes:
        cells = [by[node, kind] for kind in ("fixed", "fresh")]
        lines.append(f"  {node:<10}" + "".join(f"{f'{c.percent:>3} % ({c.answered} of {c.asked})':<22}" for c in cells))
    return [line.rstrip() for line in lines]


def log_root(where: LabDir) -> Path:
    """The directory whose `NODE/var/log/pods/…` are the nodes' log files."""
    return where.root / "nodes"


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


def run(options: DemoOptions, tell: Tell, find: Find | None = None) -> DemoResult:
    """Play the story. Raises LabError; the lab is removed then, too."""
    count = options.up.nodes
    tell(f"A cluster of {count} nodes comes up on this machine, in namespaces of its own ...")
    with _lab(options) as where:
        healthy = measure(where, count, options.results)
        tell("DNS works, for clients that keep their source port and for those that do not:")
        for line in table(healthy):
            tell(line)
        tell(f"Now one node breaks: {_WHY[options.mode]} ...")
        made = incident.break_dns(options.mode, name=options.up.name, root=options.up.root)
        until = a_share_is_lost(made.node) if options.mode is Mode.RESTORE_FAILS else None
        broken = measure(where, count, options.results, until=until)
        old = "one was" if len(made.dead) == 1 else "ones were"
        tell(f"CoreDNS is well, its pods are new; the old {old} {', '.join(made.dead)}. But on {made.node}:")
        for line in table(broken):
            tell(line)
        if find is not None:
            for line in find(where, log_root(where)).splitlines():
                tell(line)
        tell("The fault is lifted and the node's stale entries go ...")
        incident.heal(name=options.up.name, root=options.up.root)
        healed = measure(where, count, options.results)
        for line in table(healed):
            tell(line)
    if options.keep:
        tell(f'The lab stays up. Use it: eval "$(kdnsctl lab env {options.up.name})"')
    else:
        tell("The lab is gone; nothing of it is left on this machine.")
    return DemoResult(made, healthy, broken, healed)
