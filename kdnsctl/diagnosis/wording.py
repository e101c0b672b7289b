"""What findings say again and again: commands that remove entries, whom flows belong to, numbers with their nouns.

Addresses in commands are those that parsers have validated, and are quoted all the same. Names can come from a file
that a stranger wrote: `catalogue` makes every finding printable before anyone sees it.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kdnsctl.diagnosis.case import Case, StaleGroup, Wrong
from kdnsctl.diagnosis.findings import Client
from kdnsctl.diagnosis.index import endpoint_text, family_of
from kdnsctl.diagnosis.truth import ServicePort
from kdnsctl.netfilter.deletion import command
from kdnsctl.netfilter.entries import Key
from kdnsctl.netfilter.rules import Mode

_NODE = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
MOST_NAMED = 5
MOST_COMMANDS = 10
MOST_CLIENTS = 100
MOST_TEXT = 300
IPVS = (
    "kube-proxy works in ipvs mode: flows are also held in ip_vs_conn, out of conntrack's reach, and ipvsadm cannot "
    "remove single flows. Restarting kube-proxy on this node alone, or 300 s without packets (the ipvs UDP timeout), "
    "ends them."
)
BY_HAND = "Without kdnsctl, as root in the node's network namespace (kube-proxy's image has no conntrack any more):"
USUAL_DNS = frozenset({"kube-system/kube-dns", "openshift-dns/dns-default"})
"""DNS Services that `repair flush` finds by itself."""
COLLECT_FIRST = "Collect the evidence first: deleting entries, or restarting kube-proxy, destroys it."


def count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: 1 entry, 60 entries."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def some(names: Iterable[str], most: int = MOST_NAMED) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def clean(text: str) -> str:
    """Text that came from a node, without control characters and of bounded length."""
    return printable(text[:MOST_TEXT]) + ("…" if len(text) > MOST_TEXT else "")


def printable(text: str) -> str:
    """Text without characters that a terminal would obey."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


def backends(groups: Iterable[StaleGroup]) -> tuple[str, ...]:
    """The reply sources of groups as ADDRESS:PORT, each once."""
    return tuple(dict.fromkeys(endpoint_text(each.key.reply_source, each.key.reply_source_port) for each in groups))


def clients(groups: Sequence[StaleGroup], case: Case) -> tuple[tuple[Client, ...], int]:
    """Who sends these flows, the one with the most entries first, and how many entries are of others."""
    counted: Counter[str] = Counter()
    total = 0
    for each in groups:
        counted.update(each.group.clients)
        total += each.group.count
    named = [client_of(address, number, case) for address, number in counted.most_common(MOST_CLIENTS)]
    return tuple(named), total - sum(client.count for client in named)


def client_of(address: str, number: int, case: Case) -> Client:
    """A client by its address, with the pod behind it where known."""
    pod = case.truth.pods.get(address)
    return Client(address, number, pod.name, pod.namespace) if pod else Client(address, number)


def deletion(key: Key) -> str:
    """The command that deletes the entries of one group and no healthy ones: the dead reply source is in its filter."""
    return shlex.join(command(key))


def flush(case: Case, service: ServicePort) -> str:
    """The command of kdnsctl that deletes the stale entries of a Service on this node."""
    name = f"{service.namespace}/{service.name}"
    more = () if name in USUAL_DNS else ("--service", name)
    return shlex.join(("kdnsctl", "repair", "flush", _node(case), *more))


def restart(case: Case) -> str:
    """The command of kdnsctl that has kube-proxy write this node's rules anew."""
    return shlex.join(("kdnsctl", "repair", "restart-kube-proxy", _node(case)))


def _node(case: Case) -> str:
    """The node as a word of a command; a file may name it in any way, or not at all."""
    return case.evidence.node if _NODE.fullmatch(case.evidence.node) else "NODE"


@dataclass(frozen=True, slots=True)
class Removal:
    """How to get rid of stale entries: in words, by the command of kdnsctl, and by commands for a shell on the node."""

    advice: str
    repair: str = ""
    commands: tuple[str, ...] = ()


def removal(groups: Sequence[StaleGroup], case: Case) -> Removal:
    """How to get rid of stale entries; or why not to try yet, without a command."""
    services = {(str(each.service), family_of(each.key.destination)) for each in groups if each.service}
    leading = [fault for fault in case.faults if (str(fault.service), fault.family) in services]
    if leading:
        bad = "lead to endpoints that do not serve" if leading[0].wrong is Wrong.DEAD_TARGET else "do not work"
        return Removal(
            f"Do not delete the entries yet: the node's rules for this Service {bad} (see "
            f"{rule_check(leading[0].wrong)}), so they would come back. Repair the rules first."
        )
    if case.evidence.running_mode is Mode.IPVS:
        return Removal(f"{IPVS} {COLLECT_FIRST}", restart(case))
    commands = list(dict.fromkeys(deletion(each.key) for each in groups))
    more = f" (and {len(commands) - MOST_COMMANDS} more like these)" if len(commands) > MOST_COMMANDS else ""
    unread = (
        "" if case.rules_read else " The rules were not read: if they lead to dead endpoints, the entries come back."
    )
    service = groups[0].service  # without one, no Service can be named to flush
    return Removal(
        f"{COLLECT_FIRST}{unread} Then delete these entries and no others{more}:",
        flush(case, service) if service else "",
        tuple(commands[:MOST_COMMANDS]),
    )


def rule_check(wrong: Wrong) -> str:
    """The check that reports a fault of the rules."""
    return {Wrong.DEAD_TARGET: "R2", Wrong.UNREACHED: "R6"}.get(wrong, "R1")
