"""What stands before the jump to KUBE-SERVICES and can take packets to a Service away. No text is read here.

A rule of somebody else counts only if it can apply to an address and port of a Service in the same dump: metadata
proxies (`-d 169.254.169.254/32`) and hostPorts (`--dst-type LOCAL`) are on many healthy nodes.
"""

from __future__ import annotations

import bisect
import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from kdnsctl.netfilter.flows import Step, reachable
from kdnsctl.netfilter.iptablesrules import Rule
from kdnsctl.netfilter.lines import shown

SERVICES = "KUBE-SERVICES"
_TAKES = {"ACCEPT", "DROP", "REJECT", "DNAT", "REDIRECT", "NETMAP", "TPROXY", "QUEUE", "NFQUEUE"}
_MOST = 20

Rules = Mapping[str, Sequence[tuple[Rule, str]]]
Key = tuple[str, str | None, int]


def obstacles_before(
    rules: Rules, chains: Mapping[str, Sequence[Step]], hooks: Iterable[str], services: Iterable[Key]
) -> tuple[str, ...]:
    """The rules of each hook, as printed, that stand before its first jump towards KUBE-SERVICES and can take flows."""
    flows = _Flows(services)
    taking: dict[str, bool] = {}
    found: dict[str, None] = {}
    for hook in hooks:
        for rule, text in rules.get(hook, ()):
            if rule.target in chains and SERVICES in reachable(chains, (rule.target,)):
                break
            if _takes(rule, rules, flows, taking, at_hook=True):
                found[shown(text[text.index("-A ") :], 300)] = None
            if len(found) >= _MOST:
                break
    return tuple(found)


def _takes(rule: Rule, rules: Rules, flows: _Flows, taking: dict[str, bool], *, at_hook: bool) -> bool:
    if not flows.may_match(rule):
        return False
    if rule.target in _TAKES or (at_hook and rule.target == "RETURN"):
        return True
    if rule.target not in rules:
        return False
    return _chain_takes(rule.target, rules, flows, taking)


def _chain_takes(start: str, rules: Rules, flows: _Flows, taking: dict[str, bool]) -> bool:
    """Whether any rule that can be reached from a chain takes flows; each chain is looked at once."""
    if start in taking:
        return taking[start]
    seen = {start}
    waiting = [start]
    taking[start] = False
    while waiting:
        for rule, _ in rules[waiting.pop()]:
            if not flows.may_match(rule):
                continue
            if rule.target in _TAKES or taking.get(rule.target):
                taking[start] = True
                return True
            if rule.target in rules and rule.target not in seen:
                seen.add(rule.target)
                waiting.append(rule.target)
    return False


class _Flows:
    """The Services' addresses, protocols and ports. Each is asked alone: what might match counts as matching."""

    def __init__(self, services: Iterable[Key]) -> None:
        keys = [key for key in services if key[1] is not None]
        self._addresses = sorted({int(ipaddress.ip_address(address)) for _, address, _ in keys if address})
        self._protocols = {protocol for protocol, _, _ in keys}
        self._ports = {str(port) for _, _, port in keys}

    def may_match(self, rule: Rule) -> bool:
        if not self._addresses:
            return True
        if rule.local_destination:
            return False
        if rule.protocol and rule.protocol not in self._protocols:
            return False
        if rule.port.isdigit() and rule.port not in self._ports:
            return False
        return not rule.destination or self._in_network(rule.destination)

    def _in_network(self, text: str) -> bool:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            return True
        first, last = int(network.network_address), int(network.broadcast_address)
        at = bisect.bisect_left(self._addresses, first)
        return at < len(self._addresses) and self._addresses[at] <= last
