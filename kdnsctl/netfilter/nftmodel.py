"""What kube-proxy's nftables rules do with flows to Services: from elements and rules to the model of `rules`.

No text is read here: `nft` (JSON) and `nfttext` bring both forms of one table into the same few records. Two
generations of rules are known (pkg/proxy/nftables/proxier.go): a chain for each endpoint, chosen by `numgen … vmap`,
1.29 to 1.35 and later with session affinity; and `dnat ip addr . port to numgen … map { … }` in the Service's own
chain, or a plain `dnat to` for a single endpoint, from 1.36. Other tables are not looked at, nor is what they do to
packets in the same hooks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kdnsctl.model import Reason
from kdnsctl.netfilter import names
from kdnsctl.netfilter.destinations import address_of, host_and_port, port_of
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.netfilter.flows import TOLERANCE, Action, Spread, Spreads, Step, leading_to, reachable
from kdnsctl.netfilter.lines import shown
from kdnsctl.netfilter.rules import Mode, NodeRules, ServiceRules, Target

TABLE = "kube-proxy"
VIPS = "service-ips"
NODE_PORTS = "service-nodeports"
REFUSED_VIPS = "no-endpoint-services"
REFUSED_NODE_PORTS = "no-endpoint-nodeports"
FAMILIES = {"ip": 4, "ip6": 6}
HOOKS = {"prerouting": "PREROUTING", "output": "OUTPUT"}
AFFINITY_SET = "@affinity-"
STOPS = {"accept", "drop", "reject", "queue", "redirect", "tproxy"}
"""Verdicts after which a packet in a nat chain is sent to no endpoint."""

_MOST_OBSTACLES = 20
_MOST_PROBLEMS = 20
_SERVICE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}/[a-z0-9][a-z0-9.-]{0,252}(?::[a-z0-9-]{1,63})?")


class Element(NamedTuple):
    """One element of a verdict map: `key` as printed, part by part; `chain` when the verdict is goto or jump."""

    key: tuple[str, ...]
    chain: str = ""
    comment: str = ""


class NftRule(NamedTuple):
    """One rule: where it sends packets, None if nowhere; the verdict map it asks; the rule as it was printed."""

    step: Step | None = None
    lookup: str = ""
    text: str = ""


def share_of(key: str, modulus: int) -> float:
    """The share of an element `0`, or `0-3`, of a map that is asked with a random number below `modulus`; 0 if none."""
    first, dash, last = key.partition("-")
    if not (first.isdecimal() and (last.isdecimal() or not dash)) or len(key) > 20 or modulus < 1:
        return 0.0
    return max(0, min(int(last or first) - int(first) + 1, modulus)) / modulus


def branch(chains: Iterable[tuple[str, float]], chance: float | None) -> Step:
    """A rule that goes to one of several chains."""
    chosen = tuple(chains)
    return Step(Action.GOTO, _possible(chance, (share for _, share in chosen)), chosen)


def send(places: Iterable[tuple[str, str, float]], chance: float | None) -> Step:
    """A rule that sends packets to one of several (address, port, share); unreadable if one of them is."""
    targets: dict[tuple[str, int | None], float] = {}
    for host, port_text, share in places:
        address, port = address_of(host), port_of(port_text)
        if address is None or (port is None and port_text):
            return Step(Action.UNREADABLE, chance)
        targets[address, port] = targets.get((address, port), 0.0) + share
    if not targets:
        return Step(Action.UNREADABLE, chance)
    chance = _possible(chance, targets.values())
    return Step(Action.SEND, chance, targets=tuple(Target(*at, share) for at, share in targets.items()))


def _possible(chance: float | None, shares: Iterable[float]) -> float | None:
    """The chance of a rule; None if its shares are more than all packets, as in no map of a kernel."""
    return chance if math.fsum(shares) <= 1.0 + TOLERANCE else None


def send_to(text: str, chance: float | None) -> Step:
    """A rule that sends packets to one `address:port`."""
    at = host_and_port(text)
    return Step(Action.UNREADABLE, chance) if at is None else Step(Action.SEND, chance, targets=(Target(*at, 1.0),))


class NftTable:
    """Takes the parts of one `table ip kube-proxy` in the order of the dump, and makes the model."""

    def __init__(self, family: str) -> None:
        self.family = family
        self._maps: dict[str, list[Element]] = {}
        self._chains: dict[str, list[NftRule]] = {}
        self._hooks: dict[str, str] = {}
        self._unreadable: dict[str, int] = {}

    def element(self, name: str, element: Element | None) -> None:
        """An element of a verdict map; None for one that could not be read."""
        if element is None:
            self._unreadable[name] = self._unreadable.get(name, 0) + 1
        else:
            self._maps.setdefault(name, []).append(element)

    def chain(self, name: str) -> None:
        """A chain, before its rules."""
        self._chains.setdefault(name, [])

    def hook(self, chain: str, kind: str, hook: str) -> None:
        """A chain is called by the kernel; only chains of type nat decide where flows go."""
        if kind == "nat" and hook in HOOKS:
            self._hooks[chain] = HOOKS[hook]

    def rule(self, chain: str, rule: NftRule) -> None:
        """A rule, in the order of its chain."""
        if chain.startswith(names.NFT_ENDPOINT) and rule.step is not None and rule.step.targets:
            named = tuple(Target(each.address, each.port, each.probability, chain) for each in rule.step.targets)
            rule = rule._replace(step=rule.step._replace(targets=named))
        self._chains.setdefault(chain, []).append(rule)

    def rules(self, completeness: Completeness, *, whole: bool) -> NodeRules:
        """The model. `whole`: the table was read to its end, so that what is not in it is not on the node."""
        steps, asking = self._steps()
        spreads = Spreads(steps, self._flaws(steps))
        hooks = {hook: reachable(steps, (chain,)) for chain, hook in self._hooks.items()}
        jumps = tuple(hook for hook in HOOKS.values() if asking & hooks.get(hook, set()))
        reached: set[str] = set().union(*hooks.values())
        unreachable = tuple(chain for chain in steps if chain.startswith(names.NFT_ENDPOINT) and chain not in reached)
        services = self._services(spreads, whole=whole)
        problems = tuple(
            Reason("unreadable", f"{count} elements of the map {shown(name)} cannot be read")
            for name, count in self._unreadable.items()
        )
        return NodeRules(
            Mode.NFTABLES,
            completeness,
            family=FAMILIES[self.family],
            services=services,
            unreachable=unreachable if whole else (),
            jumps=jumps,
            obstacles=self._obstacles(leading_to(steps, asking)),
            problems=problems[:_MOST_PROBLEMS],
        )

    def _steps(self) -> tuple[dict[str, list[Step]], set[str]]:
        """The steps of each chain, and the chains that ask for Service addresses."""
        # What a map leads to is written once, as a chain of its own: many rules can ask many elements.
        steps = {
            f"@{name}": [branch(((each.chain, 1.0) for each in elements if each.chain), None)]
            for name, elements in self._maps.items()
        }
        asking = set()
        for chain, rules in self._chains.items():
            steps[chain] = [rule.step for rule in rules if rule.step is not None]
            for rule in rules:
                if rule.lookup:
                    steps[chain].append(Step(Action.GOTO, None, ((f"@{rule.lookup}", 1.0),)))
                    if rule.lookup == VIPS:
                        asking.add(chain)
        return steps, asking

    def _flaws(self, steps: dict[str, list[Step]]) -> dict[str, Reason]:
        flaws = {}
        for chain, its_steps in steps.items():
            if not chain.startswith((names.NFT_ENDPOINT, *names.NFT_SERVICE_PREFIXES)):
                continue
            if not names.nft_chain_is_genuine(chain):
                flaws[chain] = Reason("nameMismatch", f"the name of {shown(chain)} and the hash in it disagree")
            elif chain.startswith(names.NFT_ENDPOINT) and not chain.endswith("..."):
                for target in (target for step in its_steps for target in step.targets):
                    if not chain.endswith(f"__{target.address.replace(':', '.')}/{target.port}"):
                        at = names.host_port(target.address, target.port or 0)
                        flaws[chain] = Reason("nameMismatch", f"{shown(chain)} sends packets to {at}")
        return flaws

    def _services(self, spreads: Spreads, *, whole: bool) -> tuple[ServiceRules, ...]:
        found: dict[tuple[str, str | None, int], ServiceRules] = {}
        for name in (VIPS, NODE_PORTS):
            for element in self._maps.get(name, ()):
                key = self._key(name, element)
                if key is not None:
                    spread = spreads.of(element.chain) if element.chain else Spread()
                    found[key] = _service(key, element, spread, whole=whole)
        for name in (REFUSED_VIPS, REFUSED_NODE_PORTS):
            for element in self._maps.get(name, ()):
                key = self._key(name, element)
                if key is None:
                    continue
                before = found.get(key)
                if before is None:
                    named = _SERVICE_NAME.fullmatch(element.comment)
                    before = ServiceRules(key[0], key[2], key[1], service=named[0] if named else "")
                found[key] = ServiceRules(
                    before.protocol, before.port, before.address, before.chain, before.service, before.targets, True,
                    before.affinity, before.problems,
                )  # fmt: skip
        return tuple(found.values())

    def _key(self, name: str, element: Element) -> tuple[str, str | None, int] | None:
        """Protocol, address and port of an element; what has none is noted as unreadable."""
        with_address = name in (VIPS, REFUSED_VIPS)
        if len(element.key) == (3 if with_address else 2):
            *host, protocol, port_text = element.key
            port = port_of(port_text)
            address = address_of(host[0]) if host else None
            if port is not None and protocol and (address is not None or not host):
                return protocol, address, port
        self.element(name, None)
        return None

    def _obstacles(self, towards: set[str]) -> tuple[str, ...]:
        """Rules of the hooks that send packets elsewhere, before the first that leads to Service addresses."""
        found: dict[str, None] = {}
        for chain in self._hooks:
            for rule in self._chains.get(chain, ()):
                if rule.lookup == VIPS or (rule.step and any(name in towards for name, _ in rule.step.chains)):
                    break
                if rule.step is not None and rule.step.action not in (Action.JUMP, Action.GOTO):
                    found[shown(rule.text, 300)] = None
        return tuple(found)[:_MOST_OBSTACLES]


def _service(key: tuple[str, str | None, int], element: Element, spread: Spread, *, whole: bool) -> ServiceRules:
    protocol, address, port = key
    problems: Sequence[Reason] = spread.problems
    if whole and spread.rest is not None and spread.rest > TOLERANCE:
        nowhere = f"{shown(element.chain)} sends {spread.rest:.2%} of the flows nowhere: no rule matches"
        problems = (*problems, Reason("fallThrough", nowhere))
    return ServiceRules(
        protocol,
        port,
        address,
        element.chain,
        names.service_of_nft_chain(element.chain),
        spread.targets,
        affinity=spread.sticky,
        problems=tuple(problems[:_MOST_PROBLEMS]),
    )
