"""What kube-proxy's iptables rules do with flows to Services: from rules to the model of `rules`. No text is read here.

Addresses and ports are found in KUBE-SERVICES and KUBE-NODEPORTS, refusals in the filter table; from there the chains
are followed. Comments only give names, and nothing depends on them. Chains and rules: pkg/proxy/iptables/proxier.go of
Kubernetes 1.9 to 1.36.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from kdnsctl.model import Reason
from kdnsctl.netfilter import names
from kdnsctl.netfilter.addresses import family_of, host_and_port, host_of, port_of
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.netfilter.flows import TOLERANCE, Action, Spreads, Step, reachable
from kdnsctl.netfilter.iptablesobstacles import obstacles_before
from kdnsctl.netfilter.iptablesrules import Rule
from kdnsctl.netfilter.rules import Backing, Mode, NodeRules, ServiceRules, Target

SERVICES = "KUBE-SERVICES"
NODE_PORTS = "KUBE-NODEPORTS"
REFUSING = (SERVICES, "KUBE-EXTERNAL-SERVICES")
"""The filter table's chains for Services without endpoints; KUBE-NODEPORTS there only lets health checks in."""

HOOKS = ("PREROUTING", "OUTPUT")
_CANARY = "KUBE-PROXY-CANARY"
_KUBELETS = ("KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY")
_FOLLOWED = (names.ENDPOINT, *names.SERVICE_PREFIXES)
_STOPS = {"ACCEPT", "DROP", "REJECT", "QUEUE", "NFQUEUE", "REDIRECT", "NETMAP", "TPROXY", "MASQUERADE", "SNAT"}
_MARKS = {"KUBE-MARK-MASQ", "KUBE-MARK-DROP"}
_SERVICE_NAME = re.compile(r"([a-z0-9][a-z0-9.-]{0,252}/[a-z0-9][a-z0-9.-]{0,252}(?::[a-z0-9-]{1,63})?)(?: |\Z)")
_MOST_PROBLEMS = 20

Key = tuple[str, str | None, int]
"""Protocol, address (None: any of the node), port."""


@dataclass(slots=True)
class _Found:
    """What the dump says about one address and port, while it is collected."""

    steps: list[Step] = field(default_factory=list)
    service: str = ""
    rejected: bool = False
    flaws: list[Reason] = field(default_factory=list)

    @property
    def chain(self) -> str:
        return self.steps[0].chains[0][0] if self.steps else ""


class Tables:
    """Takes chains and rules in the order of the dump, keeps of them what the model needs, and makes the model."""

    def __init__(self) -> None:
        self._nat: dict[str, list[Step]] = {}
        self._rules: dict[str, list[tuple[Rule, str]]] = {}
        self._found: dict[Key, _Found] = {}
        self._flaws: dict[str, Reason] = {}
        self._node_ports_reached = False
        self._notrack: dict[str, None] = {}
        self._family: int | None = None
        self._canary = False
        self._hint = False

    def declare(self, table: str, chain: str) -> None:
        """A chain of a table, before its rules."""
        self._canary |= chain == _CANARY
        self._hint |= chain in _KUBELETS
        if table == "nat":
            self._nat.setdefault(chain, [])

    def add(self, table: str, rule: Rule, text: str) -> None:
        """A rule of a table; `text` as it was printed."""
        if self._family is None and rule.destination:
            self._family = family_of(rule.destination)
        if table == "nat":
            self._add_nat(rule, text)
        elif table == "filter":
            if rule.chain in REFUSING and rule.target in ("REJECT", "DROP"):
                self._refuse(rule)
        elif table == "raw" and (rule.target == "NOTRACK" or rule.notrack):
            for network in (rule.destination, rule.source):
                if (address := host_of(network)) is not None:
                    self._notrack[address] = None

    def _add_nat(self, rule: Rule, text: str) -> None:
        step = self._step(rule)
        if step is not None:
            self._nat.setdefault(rule.chain, []).append(step)
        if rule.chain == SERVICES and rule.target == NODE_PORTS:
            self._node_ports_reached = True
        elif rule.chain in (SERVICES, NODE_PORTS):
            if step is not None:
                self._dispatch(rule, step)
        elif not rule.chain.startswith(_FOLLOWED):
            self._rules.setdefault(rule.chain, []).append((rule, text))

    def _step(self, rule: Rule) -> Step | None:
        """Where the rule sends packets, None when it sends them nowhere."""
        chance = None if rule.conditional or rule.destination or rule.port or rule.local_destination else rule.chance
        target = rule.target
        if target == "DNAT":
            return self._destination(rule, chance)
        if target == "RETURN":
            return Step(Action.RETURN, chance)
        if target in _STOPS:
            return Step(Action.STOP, chance)
        if target in _MARKS or (target not in self._nat and not target.startswith("KUBE-")):
            return None  # marks, logs, counts, or a target that no parser knows
        return Step(Action.GOTO if rule.goto else Action.JUMP, chance, ((target, 1.0),), sticky=rule.sticky)

    def _destination(self, rule: Rule, chance: float | None) -> Step:
        at = host_and_port(rule.to)
        if at is None:
            if rule.chain.startswith(names.ENDPOINT):
                what = "an unsupported revision of DNAT" if rule.unsupported else f"DNAT to {rule.to[:60]!r}"
                self._flaws[rule.chain] = Reason("unreadable", f"{rule.chain}: {what}")
            return Step(Action.UNREADABLE, chance)
        address, port = at
        if self._family is None:
            self._family = family_of(address)
        if port is not None and rule.chain.startswith(names.ENDPOINT) and (named := _SERVICE_NAME.match(rule.comment)):
            expected = names.endpoint_chain(named[1], rule.protocol, address, port)
            if expected != rule.chain:
                self._flaws[rule.chain] = Reason(
                    "nameMismatch", f"{rule.chain}: the name of {named[1]} at {rule.to} would be {expected}"
                )
        chain = rule.chain if rule.chain.startswith(names.ENDPOINT) else ""
        target = Target(address, port, 1.0, chain, packets=rule.packets)
        return Step(Action.SEND, chance, targets=(target,))

    def _dispatch(self, rule: Rule, step: Step) -> None:
        """Note what a rule of KUBE-SERVICES or KUBE-NODEPORTS does for one address and port."""
        port = port_of(rule.port)
        address = host_of(rule.destination) if rule.chain == SERVICES else None
        if port is None or not rule.protocol or (rule.chain == SERVICES and address is None):
            return
        found = self._found.setdefault((rule.protocol, address, port), _Found())
        special = rule.conditional or rule.local_destination or (address is None and rule.destination)
        found.steps.append(step._replace(chance=None if special else 1.0))
        self._name(found, rule)
        if found.service and step.chains:
            chain = step.chains[0][0]
            if chain.startswith(names.SERVICE_PREFIXES) and not chain.endswith(
                names.service_hash(found.service, rule.protocol)
            ):
                found.flaws.append(Reason("nameMismatch", f"{chain} is not the name of a chain of {found.service}"))

    def _refuse(self, rule: Rule) -> None:
        port = port_of(rule.port)
        address = host_of(rule.destination)
        if port is None or not rule.protocol or (address is None and not rule.local_destination):
            return
        found = self._found.setdefault((rule.protocol, address, port), _Found())
        found.rejected = True
        self._name(found, rule)

    def _name(self, found: _Found, rule: Rule) -> None:
        if not found.service and (named := _SERVICE_NAME.match(rule.comment)):
            found.service = named[1]

    def rules(
        self,
        completeness: Completeness,
        backing: Backing,
        family: int | None,
        problems: tuple[Reason, ...],
        *,
        whole: bool,
    ) -> NodeRules:
        """The model. `whole`: the nat table was read to its end, so that what is not in it is not on the node."""
        spreads = Spreads(self._nat, self._flaws)
        services = tuple(self._service(key, found, spreads, whole=whole) for key, found in self._found.items())
        jumps = tuple(hook for hook in HOOKS if SERVICES in reachable(self._nat, (hook,)))
        unreachable: tuple[str, ...] = ()
        if whole:
            reached = reachable(self._nat, HOOKS)
            unreachable = tuple(
                chain for chain in self._nat if chain.startswith(names.ENDPOINT) and chain not in reached
            )
        return NodeRules(
            Mode.IPTABLES,
            completeness,
            backing,
            family or self._family,
            services,
            unreachable,
            jumps,
            obstacles_before(self._rules, self._nat, jumps, self._found),
            self._canary,
            self._hint,
            tuple(self._notrack),
            problems,
        )

    def _service(self, key: Key, found: _Found, spreads: Spreads, *, whole: bool) -> ServiceRules:
        protocol, address, port = key
        spread = spreads.follow(SERVICES if address else NODE_PORTS, found.steps)
        problems = [*found.flaws, *spread.problems]
        if whole and found.steps:
            if spread.rest is not None and spread.rest > TOLERANCE:
                nowhere = f"{found.chain} sends {spread.rest:.2%} of the flows nowhere: no rule matches"
                problems.append(Reason("fallThrough", nowhere))
            if address is None and not self._node_ports_reached:
                problems.append(Reason("nodePortsUnreachable", f"no rule of {SERVICES} leads to {NODE_PORTS}"))
        targets = spread.targets if found.steps else ()
        return ServiceRules(
            protocol,
            port,
            address,
            found.chain,
            found.service,
            targets,
            found.rejected,
            spread.sticky,
            tuple(problems[:_MOST_PROBLEMS]),
        )
