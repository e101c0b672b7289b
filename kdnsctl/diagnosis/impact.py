"""Checks C7 to C9: whether stale entries are in use, whose queries they swallow, and how likely a random port hits one.

All three speak of the stale UDP entries of the Services asked for, and of the flows that a reading kept: of a very
large group these are a sample (`flows`), and what is said of all is then scaled up from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from kdnsctl.diagnosis import wording
from kdnsctl.diagnosis.case import COUNTED_PROTOCOL, Case, StaleGroup
from kdnsctl.diagnosis.evidence import LOCAL_PORTS, Timeouts
from kdnsctl.diagnosis.findings import Client, Finding, Severity
from kdnsctl.diagnosis.flows import Group, Sight
from kdnsctl.diagnosis.index import endpoint_text

JUST_NOW = 5
"""Seconds without a packet within which a flow counts as in use, when there is one reading only."""
FEW_LOSSES = "Few losses that look random are what this predicts: probes with fresh ports will mostly succeed."
SLACK = 2
"""Seconds by which a timer may seem renewed though it is not: they are whole seconds, and a dump takes time."""


def in_use(case: Case) -> Iterator[Finding]:
    """C7: entries that packets still renew, as against residue that ends by itself."""
    groups = judged(case)
    total = sum(each.count + each.waiting for each in groups)
    if not total:
        return
    seen = [activity(each, case) for each in groups]
    known = sum(each.known for each in seen)
    if not known:
        return
    active = sum(each.active for each in seen)
    timeouts = case.evidence.timeouts or Timeouts()
    assumed = "" if case.evidence.timeouts else " (the kernel's defaults; this node's were not read)"
    lives = f"An entry lives {timeouts.udp} s, or {timeouts.stream} s once assured, after its last packet{assumed}"
    how = (
        "used between the two readings"
        if any(each.compared for each in seen)
        else f"used in the last {JUST_NOW} s before the reading"
    )
    sampled = "about " if any(each.group.mask for each in groups) else ""
    all_of_them = wording.count(total, "stale UDP entry", "stale UDP entries")
    settled = any(each.count for each in groups)
    if active:
        were = "was" if active == 1 else "were"
        text = f"{sampled}{active} of {all_of_them} {were} {how}: clients are losing queries now."
        rest = f" The others end by themselves. {lives}." if active < total else ""
        advice = "Waiting does not help: each packet renews its entry."
    else:
        text = f"None of {all_of_them} was {how}: they are residue."
        rest = f" {lives}."
        advice = "Read again after that time: if no client sends with the same source port meanwhile, they are gone."
    yield Finding(
        "C7",
        Severity.FAULT if active and settled else Severity.INFO,
        text[0].upper() + text[1:] + rest,
        advice if settled else "",
        protocol=COUNTED_PROTOCOL,
        count=active,
    )


def hurt_clients(case: Case) -> Iterator[Finding]:
    """C8: whose queries are lost, by client and namespace."""
    groups = judged(case)
    clients, more = wording.clients(groups, case)
    if not clients:
        return
    namespaces = Counter[str]()
    for client in clients:
        namespaces[client.namespace] += 1
    named = [f"{name} ({number})" for name, number in namespaces.most_common() if name]
    unnamed = f" {wording.count(namespaces[''], 'client')} could not be matched to a pod." if namespaces[""] else ""
    others = f" {more} more entries are of clients not listed." if more else ""
    first = clients[0]
    yield Finding(
        "C8",
        Severity.INFO,
        f"{wording.count(len(clients), 'client')} {'has' if len(clients) == 1 else 'have'} stale UDP entries"
        f"{', by namespace: ' + wording.some(named) if named else ''}; {shown(first)} has most, {first.count}. A "
        "client that keeps its source port loses every query sent from it, until it takes another "
        f"port.{unnamed}{others}",
        _relief(case) if any(each.count for each in groups) else "",
        protocol=COUNTED_PROTOCOL,
        count=len(clients),
        clients=clients,
        more=more,
    )


def _wrong_rules(case: Case) -> bool:
    return any(fault.counts for fault in case.faults)


def _relief(case: Case) -> str:
    if _wrong_rules(case):
        return "A new source port does not save a client while the rules are wrong: mend them first."
    return "Clients recover at once with a new source port: restarting the worst hit pods helps them, not the node."


def random_port_odds(case: Case) -> Iterator[Finding]:
    """C9: how likely a client with random source ports hits a stale entry.

    A source port that has a stale entry loses the query: with n such ports of R, p = n/R for one query, 1 − (1 − p)^k
    for at least one of k. Ports outside the range are those of clients that choose their own.
    """
    low, high = case.evidence.local_ports or LOCAL_PORTS
    size = high - low + 1
    inside: Counter[tuple[str, str]] = Counter()
    total = 0
    for each in judged(case):
        scale = each.group.count / len(each.group.flows) if each.group.flows else 1.0
        place = endpoint_text(each.key.destination, each.key.destination_port)
        ports: Counter[str] = Counter()
        for flow in each.group.flows:
            total += 1
            if flow.source_port is not None and low <= flow.source_port <= high:
                ports[flow.source] += 1
        for source, number in ports.items():
            inside[source, place] += round(number * scale)
    if not total or size < 1:
        return
    whose = "of this node" if case.evidence.local_ports else "the kernel's default, assumed for the client"
    assumption = f"ports are taken at random from {low} to {high} ({whose}; a pod can have its own range)"
    if not inside:
        text = (
            "None of the stale entries has a source port that a client would take at random: assuming that "
            f"{assumption}, clients with fresh ports are not hit by them, only those that choose these ports "
            "themselves."
        )
        yield Finding("C9", Severity.INFO, text, protocol=COUNTED_PROTOCOL, count=0)
        return
    (source, place), number = max(inside.items(), key=lambda item: (item[1], item[0]))
    chance = odds(number, size)
    client = wording.client_of(source, number, case)
    wrong = _wrong_rules(case)  # new flows are lost as well, whatever their port: then losses are not few
    more = " This comes on top of what the rules lose." if wrong else ""
    yield Finding(
        "C9",
        Severity.INFO,
        f"{shown(client)} has {number} stale entries to {place}: assuming that {assumption}, one query is lost with "
        f"a chance of {chance:.2%}, at least one of 10 with {odds(number, size, 10):.2%}, of 100 with "
        f"{odds(number, size, 100):.2%}. Each hit renews the entry. Other clients have fewer, or none.{more}",
        "" if wrong else FEW_LOSSES,
        protocol=COUNTED_PROTOCOL,
        count=number,
        clients=(client,),
    )


def odds(stale: int, ports: int, queries: int = 1) -> float:
    """The chance that at least one of `queries`, each from a random port, meets one of `stale` ports of `ports`."""
    chance = min(1.0, stale / ports)
    return 1.0 - (1.0 - chance) ** queries


def shown(client: Client) -> str:
    """A client by pod where known."""
    return f"pod {client.namespace}/{client.pod} ({client.address})" if client.pod else client.address


def judged(case: Case) -> list[StaleGroup]:
    """The stale UDP groups of the Services asked for."""
    return [each for each in case.stale if each.in_scope and each.key.protocol == COUNTED_PROTOCOL]


class Activity(NamedTuple):
    """Of one group, scaled up where it is a sample: entries whose use is known, those in use, and how that is known."""

    known: int
    active: int
    compared: bool


def activity(stale: StaleGroup, case: Case) -> Activity:
    """How many entries of a group are in use."""
    group = stale.group
    timeouts = case.evidence.timeouts or Timeouts()
    earlier, elapsed = _earlier(group, case)
    known = active = 0
    for flow, sight in group.flows.items():
        before = earlier.flows.get(flow) if earlier is not None else None
        used = _used_since(before, sight, elapsed) if before is not None else None
        if not used and (before is None or elapsed < JUST_NOW):
            used = _used_lately(sight, timeouts)  # that a timer was not renewed in so short a time says nothing
        known += used is not None
        active += used is True
    scale = group.count / len(group.flows) if group.mask and group.flows else 1.0
    return Activity(round(known * scale), round(active * scale), earlier is not None and elapsed >= JUST_NOW)


def _earlier(group: Group, case: Case) -> tuple[Group | None, float]:
    """The group as an earlier reading had it, if this is from the later one, and the seconds between them."""
    first, second = case.evidence.conntrack, case.evidence.conntrack_later
    if first is None or second is None or second.groups.get(group.key) is not group:
        return None, 0.0
    if first.at is None or second.at is None:
        return None, 0.0
    return first.groups.get(group.key), (second.at - first.at).total_seconds()


def _used_since(before: Sight, now: Sight, elapsed: float) -> bool | None:
    """Whether a flow was used between two readings: more packets, another entry, or a timer that was renewed."""
    if before.packets is not None and now.packets is not None and now.packets > before.packets:
        return True
    if before.id is not None and now.id is not None and now.id != before.id:
        return True
    if before.timeout is None or now.timeout is None:
        return None
    return now.timeout > before.timeout - elapsed + SLACK


def _used_lately(sight: Sight, timeouts: Timeouts) -> bool | None:
    if sight.timeout is None:
        return None
    longest = timeouts.stream if sight.assured or sight.timeout > timeouts.udp else timeouts.udp
    return longest - sight.timeout <= JUST_NOW
