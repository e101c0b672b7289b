"""What the measurements from one place mean together: the table of which answers, and which do not. Pure.

    every DNS pod is silent                              → dnsDown, from a node; from this machine it proves nothing
    some are                                             → podDown
    pods answer, fresh ports at the VIP in part          → staleRules; in a smaller part than a dead pod takes: lossy
    pods answer, fresh ports do not, TCP does            → udpBlocked
    pods answer, neither fresh ports nor TCP do          → notProgrammed: no rules, or all lead to pods that are gone
    fresh ports answer, a held port has gone silent      → staleEntries
    UDP answers, TCP does not                            → tcpBlocked
    all of it answers, the node's own cache does not     → nodeLocalDown
    all of it answers, and an answer says SERVFAIL       → serverFails: the way is well, and DNS is not

That held ports answer does not clear a node: they have entries of their own, and those of pods are not asked for here.
A probe sees from outside; `analyze` proves by the node's state.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kdnsctl.probe.queries import DETECTION, Attempt, Tally, detected_by, rcode_name


class Result(enum.StrEnum):
    """What is said of a place, or of one address seen from there. In order of what is said first."""

    DNS_DOWN = "dnsDown"
    NOT_PROGRAMMED = "notProgrammed"
    UDP_BLOCKED = "udpBlocked"
    STALE_RULES = "staleRules"
    STALE_ENTRIES = "staleEntries"
    POD_DOWN = "podDown"
    TCP_BLOCKED = "tcpBlocked"
    NODE_LOCAL_DOWN = "nodeLocalDown"
    SERVER_FAILS = "serverFails"  # it is reached, and says that it cannot answer
    LOSSY = "lossy"
    UNREACHABLE = "unreachable"  # nothing answers, and from here that proves nothing
    UNKNOWN = "unknown"  # it could not be measured
    ANSWERS = "answers"


UNTOLD: Final = frozenset({Result.UNREACHABLE, Result.UNKNOWN})
WELL_ON_THE_NODE: Final = frozenset({Result.ANSWERS, Result.DNS_DOWN, Result.NODE_LOCAL_DOWN, Result.SERVER_FAILS})
"""What a node's tables and rules have no part in."""

ORDER: Final = tuple(Result)
FAILING: Final = (2,)  # rcodes: SERVFAIL. NXDOMAIN and REFUSED are answers: the cluster's domain may be another one
GONE_SILENT: Final = 2  # lost queries in a row at the end, from which a held port counts as dead


class Held(enum.StrEnum):
    """What became of a source port that was held."""

    ANSWERED = "answered"
    DIED = "died"  # it answered before
    DEAD = "dead"
    LOSSY = "lossy"
    NOT_ASKED = "notAsked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is so, of one address or Service, in words for an operator."""

    result: Result
    about: str
    message: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured of one VIP from one place; None for what was not.

    `pods` are the backends of its family, by what they are called; `held` has each held port's state; `backends` is how
    many there are. `inside`: the place is a node, from which every pod can be reached.
    """

    about: str
    backends: int
    inside: bool
    fresh: Tally | None = None
    tcp: Tally | None = None
    held: Mapping[int, Held] = field(default_factory=dict)
    pods: Mapping[str, Tally] = field(default_factory=dict)


def held_state(attempts: Sequence[Attempt]) -> Held:
    """What the queries from one held port say."""
    told = [one.answered for one in attempts if not one.unsent]
    if not told:
        return Held.NOT_ASKED
    if all(told):
        return Held.ANSWERED
    if not any(told):
        return Held.DEAD if len(told) >= GONE_SILENT else Held.LOSSY
    return Held.LOSSY if any(told[-GONE_SILENT:]) else Held.DIED


def judge(seen: Seen) -> list[Finding]:
    """What one VIP's measurements say, the gravest first; never nothing."""
    found = _judged(seen)
    if found:
        return sorted(found, key=lambda one: ORDER.index(one.result))
    held = any(state is not Held.NOT_ASKED for state in seen.held.values())
    ports = "fresh and from held source ports" if held else "fresh source ports; none was held"
    return [Finding(Result.ANSWERS, seen.about, f"{seen.about} answers from {ports}{_too_few(seen)}")]


def _too_few(seen: Seen) -> str:
    sent = seen.fresh.sent if seen.fresh else 0
    detects = detected_by(sent, seen.backends)
    if detects >= DETECTION:
        return ""
    queries = "1 query meets" if sent == 1 else f"{sent} queries meet"
    return f"; {queries} one dead pod among {seen.backends} with a probability of {detects:.0%} only"


def judge_local(about: str, udp: Tally, tcp: Tally | None, *, others_answer: bool) -> list[Finding]:
    """What a node's own cache says; nothing when it answers all."""
    told = {"UDP": udp, **({"TCP": tcp} if tcp is not None else {})}
    silent = [over for over, one in told.items() if one.sent and not one.answered]
    if silent:
        rest = " while the Service does" if others_answer else ""
        how = "" if len(silent) == len(told) else f" over {silent[0]}"
        return [Finding(Result.NODE_LOCAL_DOWN, about, f"node-local-dns at {about} does not answer{how}{rest}")]
    found: list[Finding] = []
    for over, one in told.items():
        if not one.sent:
            found.append(_unasked(f"node-local-dns at {about}", about, over, one))
        elif one.lost:
            lost = f"node-local-dns at {about}: {one.lost} of {one.sent} queries over {over} are lost"
            found.append(Finding(Result.LOSSY, about, lost))
    return found or _failing(f"node-local-dns at {about}", about, told.values())


def gravest(findings: Iterable[Finding]) -> Finding | None:
    """The one that is said first; None without any."""
    return min(findings, key=lambda one: ORDER.index(one.result), default=None)


def _judged(seen: Seen) -> list[Finding]:
    fresh, tcp = _measured(seen.fresh), _measured(seen.tcp)
    pods = {name: told for name, told in seen.pods.items() if told.sent}
    silent = [name for name, told in pods.items() if not told.answered]
    about = seen.about
    served = bool((fresh and fresh.answered) or (tcp and tcp.answered))
    if fresh is None:
        return [_unasked(about, about, "UDP", seen.fresh)]
    if not served and len(silent) == len(pods):
        return [_nothing_answers(seen, pods)]
    found: list[Finding] = []
    if silent and len(silent) < len(pods):
        found.append(
            Finding(Result.POD_DOWN, about, f"{_all(silent)} serve{_s(silent)} DNS, and do{_es(silent)} not answer")
        )
    share = 1 / max(2, seen.backends)
    if not fresh.answered:
        found.append(_no_fresh(about, tcp))
    elif fresh.lost and not found:
        found.append(_some_fresh(about, fresh, share, pods_known=bool(pods) and not silent))
    if fresh.answered:
        found += _held(seen, rules_are_well=not fresh.lost)
        found += _over_tcp(about, tcp, share, others=found, pods_known=bool(pods) and not silent)
    hit = [name for name, told in pods.items() if told.lost and told.answered]
    if hit and not found:
        found.append(Finding(Result.LOSSY, about, f"single queries to {_all(hit)} are lost"))
    if tcp is None and seen.tcp is not None and not found:
        found.append(_unasked(about, about, "TCP", seen.tcp))
    asked = [one for one in (fresh, tcp, *pods.values()) if one is not None]
    return [*found, *_failing(about, about, asked)] if fresh.answered else found


def _failing(what: str, about: str, asked: Iterable[Tally]) -> list[Finding]:
    """That a server was reached, and said that it cannot answer: no way to it is to blame."""
    counts = Counter[int]()
    answered = 0
    for one in asked:
        answered += one.answered
        counts.update({rcode: count for rcode, count in one.rcodes if rcode in FAILING})
    if not counts:
        return []
    said = " and ".join(f"{count} of {answered} answers {rcode_name(rcode)}" for rcode, count in counts.items())
    return [
        Finding(Result.SERVER_FAILS, about, f"{what} is reached, and says in {said}: look at CoreDNS, not the node")
    ]


def _unasked(what: str, about: str, over: str, told: Tally | None) -> Finding:
    """That no query has left: which tells nothing of who was to be asked."""
    why = ", ".join(error for error, _ in told.errors) if told else ""
    return Finding(Result.UNKNOWN, about, f"{what} could not be asked over {over}: {why or 'it was not tried'}")


def _nothing_answers(seen: Seen, pods: Mapping[str, Tally]) -> Finding:
    if not seen.inside:
        why = "neither it nor a pod behind it answers: this machine may be outside the cluster's network"
        return Finding(Result.UNREACHABLE, seen.about, f"{seen.about}: {why}")
    if not seen.backends:
        return Finding(Result.DNS_DOWN, seen.about, f"{seen.about} does not answer: no pod serves it")
    if not pods:
        return Finding(Result.UNKNOWN, seen.about, f"{seen.about} does not answer, and no pod behind it could be asked")
    why = f"nor do{'es' if len(pods) == 1 else ''} the {len(pods)} pod{'' if len(pods) == 1 else 's'} behind it"
    return Finding(
        Result.DNS_DOWN, seen.about, f"{seen.about} does not answer, {why}: DNS is down, or no way leads to it"
    )


def _no_fresh(about: str, tcp: Tally | None) -> Finding:
    if tcp is None:
        return Finding(
            Result.NOT_PROGRAMMED, about, f"{about} answers no query over UDP; its pods do; TCP was not asked"
        )
    if tcp.answered:
        why = "over TCP it answers: what blocks UDP (a policy, a security group)?"
        return Finding(Result.UDP_BLOCKED, about, f"{about} answers no query over UDP; {why}")
    why = "its pods do: its rules are missing, or all lead to pods that are gone"
    return Finding(Result.NOT_PROGRAMMED, about, f"{about} answers no query from any port; {why}")


def _over_tcp(
    about: str, tcp: Tally | None, share: float, *, others: Sequence[Finding], pods_known: bool
) -> list[Finding]:
    """What TCP adds where UDP answers: it has rules of its own. What is told already explains single losses."""
    if tcp is None or not tcp.lost:
        return []
    if not tcp.answered:
        return [Finding(Result.TCP_BLOCKED, about, f"{about} answers over UDP and not over TCP: long answers fail")]
    return [] if others else [_some_fresh(about, tcp, share, pods_known=pods_known, over=" over TCP")]


def _some_fresh(about: str, fresh: Tally, share: float, *, pods_known: bool, over: str = "") -> Finding:
    lost = f"{about}: {fresh.lost} of {fresh.sent} queries{over} from fresh ports are lost"
    if fresh.lost / fresh.sent < share / 2:
        return Finding(Result.LOSSY, about, f"{lost}, fewer than a dead pod in its rules would take")
    pods = "every pod behind it answers" if pods_known else "its pods were not asked"
    return Finding(Result.STALE_RULES, about, f"{lost}; {pods}: rules lead to a pod that is gone")


def _held(seen: Seen, *, rules_are_well: bool) -> list[Finding]:
    dead = [port for port, state in seen.held.items() if state in (Held.DEAD, Held.DIED)]
    if dead:
        ports = _all([str(port) for port in dead])
        what = f"{seen.about}: nothing answers source port{'' if len(dead) == 1 else 's'} {ports}"
        if not rules_are_well:
            return [Finding(Result.STALE_ENTRIES, seen.about, f"{what}, as its rules explain")]
        return [
            Finding(Result.STALE_ENTRIES, seen.about, f"{what}, and every fresh port is answered: entries are stale")
        ]
    lossy = [str(port) for port, state in seen.held.items() if state is Held.LOSSY]
    if lossy and rules_are_well:
        return [
            Finding(Result.LOSSY, seen.about, f"{seen.about}: single queries from held ports {_all(lossy)} are lost")
        ]
    return []


def _measured(told: Tally | None) -> Tally | None:
    return told if told and told.sent else None


def _all(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _s(names: Sequence[str]) -> str:
    return "s" if len(names) == 1 else ""


def _es(names: Sequence[str]) -> str:
    return "es" if len(names) == 1 else ""
