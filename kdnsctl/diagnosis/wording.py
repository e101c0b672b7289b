"""What findings say again and again: commands that remove entries, whom flows belong to, numbers with their nouns.

Every name and address that comes from a node goes through here, or is one that a parser has validated, so that no
finding carries control characters to a terminal and no advice carries them to a shell.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from kdnsctl.diagnosis.case import Case, StaleGroup, Wrong
from kdnsctl.diagnosis.findings import Client
from kdnsctl.diagnosis.index import endpoint_text, family_of
from kdnsctl.netfilter.entries import Key
from kdnsctl.netfilter.rules import Mode

MOST_NAMED = 5
MOST_COMMANDS = 10
MOST_CLIENTS = 100
IPVS = (
    "kube-proxy works in ipvs mode: flows are also held in ip_vs_conn, out of conntrack's reach, and ipvsadm cannot "
    "remove single flows. Restarting kube-proxy on this node alone, or 300 s without packets (the ipvs UDP timeout), "
    "ends them."
)
COLLECT_FIRST = "Collect the evidence first: deleting entries, or restarting kube-proxy, destroys it."


def count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: 1 entry, 60 entries."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def some(names: Iterable[str], most: int = MOST_NAMED) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


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


def owner(address: str, truth_pods: Mapping[str, object], node_addresses: frozenset[str]) -> str:
    """Whose address it is: "pod NAMESPACE/NAME", "the node itself" or the address alone."""
    pod = truth_pods.get(address)
    if pod is not None:
        return f"pod {pod} ({address})"
    return f"the node itself ({address})" if address in node_addresses else address


def deletion(key: Key) -> str:
    """The command that deletes the entries of one group and no healthy ones: the dead reply source is in its filter."""
    family = ["-f", "ipv6"] if family_of(key.destination) == 6 else []
    words = ["conntrack", "-D", *family, "-p", key.protocol, "--orig-dst", key.destination]
    words += ["--orig-port-dst", str(key.destination_port), "--reply-src", key.reply_source]
    return shlex.join([*words, "--reply-port-src", str(key.reply_source_port)])


def removal(groups: Sequence[StaleGroup], case: Case) -> str:
    """How to get rid of stale entries, or why not to try yet."""
    services = {(str(each.service), family_of(each.key.destination)) for each in groups if each.service}
    leading = [fault for fault in case.faults if (str(fault.service), fault.family) in services]
    if leading:
        bad = "lead to endpoints that do not serve" if leading[0].wrong is Wrong.DEAD_TARGET else "do not work"
        return (
            f"Do not delete the entries yet: the node's rules for this Service {bad} (see "
            f"{rule_check(leading[0].wrong)}), so they would come back. Repair the rules first."
        )
    if case.evidence.running_mode is Mode.IPVS:
        return f"{IPVS} {COLLECT_FIRST}"
    commands = list(dict.fromkeys(deletion(each.key) for each in groups))
    more = f" (and {len(commands) - MOST_COMMANDS} more like these)" if len(commands) > MOST_COMMANDS else ""
    unread = (
        "" if case.rules_read else " The rules were not read: if they lead to dead endpoints, the entries come back."
    )
    return (
        f"{COLLECT_FIRST} Then, in the node's network namespace (kube-proxy's image has no conntrack any more): "
        f"{'; '.join(commands[:MOST_COMMANDS])}{more}.{unread}"
    )


def rule_check(wrong: Wrong) -> str:
    """The check that reports a fault of the rules."""
    return {Wrong.DEAD_TARGET: "R2", Wrong.UNREACHED: "R6"}.get(wrong, "R1")
