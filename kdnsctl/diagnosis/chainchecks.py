"""Checks R4 to R9: what is odd about the rules themselves: chains, probabilities, hooks, leftovers, names, counters.

Only R5's and R6's faults hurt clients by themselves; the others explain, or point at somebody else's hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdnsctl.diagnosis import wording
from kdnsctl.diagnosis.case import COUNTED_PROTOCOL, Case, Wrong
from kdnsctl.diagnosis.drift import families, is_reached, running
from kdnsctl.diagnosis.findings import Finding, Severity
from kdnsctl.diagnosis.impact import activity, judged
from kdnsctl.diagnosis.index import family_of
from kdnsctl.diagnosis.truth import ServicePort
from kdnsctl.netfilter import names
from kdnsctl.netfilter.rules import Backing, Mode, NodeRules, ServiceRules

TOLERANCE = 1e-6
"""Probabilities are k/2^31 in the kernel, and shares are products of many of them."""
FALLS_THROUGH = "fallThrough"
WRONG_NAME = "nameMismatch"


def unreachable_chains(case: Case) -> Iterator[Finding]:
    """R4: endpoint chains that no packet reaches."""
    for dump in case.latest_rules:
        if dump.unreachable:
            yield Finding(
                "R4",
                Severity.INFO,
                f"{wording.count(len(dump.unreachable), 'endpoint chain')} in the {described(dump)} rules "
                f"{'is' if len(dump.unreachable) == 1 else 'are'} reached by no packet "
                f"({wording.some(map(wording.clean, dump.unreachable), 3)}). With more than 1000 endpoints "
                "kube-proxy leaves such chains behind for a while; they hurt nobody.",
                count=len(dump.unreachable),
                family=dump.family,
            )


def uneven_shares(case: Case) -> Iterator[Finding]:
    """R5: a Service's endpoints do not get equal shares of new flows, or some flows get none."""
    for dump in running(case.latest_rules, case.evidence.running_mode):
        for rules in dump.services:
            owner = case.index.owner_of(rules)
            service = str(owner.service) if owner else rules.service
            lost = [problem for problem in rules.problems if problem.code == FALLS_THROUGH]
            shares = [target.probability for target in rules.targets]
            known = [share for share in shares if share is not None]
            uneven = (
                dump.mode is not Mode.IPVS
                and not rules.affinity
                and len(known) == len(shares) > 0
                and any(abs(share - 1 / len(known)) > TOLERANCE for share in known)
            )
            if not lost and not uneven:
                continue
            if lost:
                what = f"Some new flows to {wording.clean(service)} get no endpoint: {wording.clean(lost[0].message)}."
            else:
                what = (
                    f"The endpoints of {wording.clean(service)} get between {min(known):.1%} and {max(known):.1%} of "
                    f"new flows, where each should get {1 / len(known):.1%}."
                )
            yield Finding(
                "R5",
                Severity.FAULT if lost else Severity.WARNING,
                f"{what} kube-proxy gives rule i of n the chance 1/(n-i): a rule was added, removed or changed by "
                "hand or by other software, or the dump is from the middle of a change.",
                "Read the rules again; if they have not changed, restart kube-proxy on this node alone, after "
                "collecting.",
                service=wording.clean(service),
                port=rules.port,
                protocol=rules.protocol,
                family=dump.family,
                repair=wording.restart(case),
            )


def unreached_rules(case: Case) -> Iterator[Finding]:
    """R6: no jump to the Service rules, or something before it that can take packets away."""
    faults = [fault for fault in case.faults if fault.wrong is Wrong.UNREACHED]
    for dump in {id(fault.rules): fault.rules for fault in faults}.values():
        services = [str(fault.service) for fault in faults if fault.rules is dump]
        settled = any(fault.settled and fault.proven for fault in faults if fault.rules is dump)
        yield Finding(
            "R6",
            Severity.FAULT if settled else Severity.WARNING,
            f"No jump leads from PREROUTING to the {described(dump)} Service rules: what pods send to "
            f"{wording.some(dict.fromkeys(services))} is not translated."
            + ("" if settled else " A second reading has to confirm it."),
            "Somebody flushed the nat table, or another program replaced it. kube-proxy puts its jumps back when it "
            "notices (its canary chain, every 30 s) or is restarted.",
            service=services[0],
            protocol=COUNTED_PROTOCOL,
            family=dump.family,
            repair=wording.restart(case) if settled else "",
        )
    for dump in running(case.latest_rules, case.evidence.running_mode):
        if dump.obstacles:
            yield Finding(
                "R6",
                Severity.WARNING,
                f"Before the jump to the {described(dump)} Service rules stand rules that can take packets away: "
                f"{wording.some((wording.clean(each) for each in dump.obstacles), 3)}.",
                "Find out which program put them there (hostPorts, a service mesh, a firewall), and whether DNS "
                "packets match.",
                count=len(dump.obstacles),
                family=dump.family,
            )


def leftovers(case: Case) -> Iterator[Finding]:
    """R7: rules, or marks, of kube-proxy in more than one place."""
    mode = case.evidence.running_mode
    wanted = {family for service in case.truth.services for family in families(service)}
    for family in sorted(wanted):
        dumps = [dump for dump in case.latest_rules if dump.family in (family, None)]
        with_services = [dump for dump in dumps if dump.services]
        if len({(dump.mode, dump.backing) for dump in with_services}) > 1:
            reached = [described(dump) for dump in with_services if is_reached(dump)]
            both = len(reached) > 1
            yield Finding(
                "R7",
                Severity.WARNING,
                f"Service rules (IPv{family}) are in more than one place: "
                f"{wording.some(dict.fromkeys(described(dump) for dump in with_services))}."
                + (" Packets reach all of them, and whichever is asked first decides." if both else ""),
                "The mode or the iptables backend was switched without a cleanup. Run kube-proxy --cleanup for the "
                "mode that is not used, or reboot the node when it is drained.",
                count=len(with_services),
                family=family,
            )
        for dump in dumps:
            yield from _marks(dump, with_services, mode, family)


def _marks(dump: NodeRules, with_services: list[NodeRules], mode: Mode | None, family: int) -> Iterator[Finding]:
    if dump.services:
        return
    elsewhere = [each for each in with_services if (each.mode, each.backing) != (dump.mode, dump.backing)]
    if dump.canary and not elsewhere and mode in (None, dump.mode):
        yield Finding(
            "R7",
            Severity.WARNING,
            f"kube-proxy has set its mark in the {described(dump)} rules (IPv{family}), but there are no Services: "
            "it has not written its rules, or could not.",
            "Look at kube-proxy's log and /healthz: it writes its rules only once it knows Services and endpoints.",
            family=family,
        )
    elif elsewhere and (dump.canary or dump.hint):
        whose = "kube-proxy's" if dump.canary else "the kubelet's"
        yield Finding(
            "R7",
            Severity.WARNING if dump.canary else Severity.INFO,
            f"The {described(dump)} rules (IPv{family}) have no Services but {whose} marks, while the Services are in "
            f"{wording.some(dict.fromkeys(described(each) for each in elsewhere))}: left over from, or kept for, "
            "another mode. They send no packet anywhere.",
            family=family,
        )


def wrong_names(case: Case) -> Iterator[Finding]:
    """R8: chains whose name is not that of the Service and endpoint they are for."""
    for dump in case.latest_rules:
        found = list(dict.fromkeys(name for rules in dump.services for name in _misnamed(dump, rules, case)))
        if found:
            yield Finding(
                "R8",
                Severity.WARNING,
                f"{wording.count(len(found), 'chain')} in the {described(dump)} rules "
                f"{'is' if len(found) == 1 else 'are'} not what the name says: {wording.some(found, 3)}. kube-proxy "
                "computes names from Service and endpoint; such rules were written by hand, or by other software.",
                "Do not trust these rules. Restart kube-proxy on this node alone, after collecting, and compare.",
                count=len(found),
                family=dump.family,
                repair=wording.restart(case),
            )


def _misnamed(dump: NodeRules, rules: ServiceRules, case: Case) -> Iterator[str]:
    said = [problem.message for problem in rules.problems if problem.code == WRONG_NAME]
    yield from map(wording.clean, said)
    owner = case.index.owner_of(rules)
    if said or owner is None or dump.mode is not Mode.IPTABLES:
        return
    service = owner.service
    if rules.chain.startswith(names.SERVICE_PREFIXES) and not rules.chain.endswith(_hash(service)):
        yield f"{wording.clean(rules.chain)} stands for {service}"
    for target in rules.targets:
        if target.port is not None and target.chain.startswith(names.ENDPOINT):
            expected = names.endpoint_chain(str(service), service.protocol, target.address, target.port)
            if target.chain != expected and rules.chain.endswith(_hash(service)):
                yield f"{wording.clean(target.chain)} leads to {names.host_port(target.address, target.port)}"


def _hash(service: ServicePort) -> str:
    return names.service_hash(str(service), service.protocol)


def flat_counters(case: Case) -> Iterator[Finding]:
    """R9: rules whose counters stand still while flows that they once chose go on."""
    evidence = case.evidence
    before = _packets(evidence.rules, case)
    after = _packets(evidence.rules_later, case)
    for group in judged(case):
        seen = activity(group, case)
        if not (seen.active and seen.compared) or group.service is None:
            continue
        key = group.key
        place = (family_of(key.destination), str(group.service), key.protocol, key.reply_source, key.reply_source_port)
        if place in after and before.get(place) == after[place]:
            backend = wording.backends([group])[0]
            yield Finding(
                "R9",
                Severity.INFO,
                f"The counter of the rule for {backend} stands at {after[place]} in both readings, while flows to it "
                "go on. That is expected: a NAT rule sees only the first packet of a flow. It does not mean that "
                "nothing is sent.",
                service=str(group.service),
                port=group.key.destination_port,
                protocol=group.key.protocol,
                count=after[place],
                backends=(backend,),
                family=place[0],
            )


_Place = tuple[int, str, str, str, int | None]


def _packets(dumps: Sequence[NodeRules], case: Case) -> dict[_Place, int]:
    """Counters of endpoints' rules by family, Service, protocol and endpoint, where dumps have them."""
    found: dict[_Place, int] = {}
    for dump in dumps:
        for rules in dump.services:
            owner = case.index.owner_of(rules)
            if owner is None:
                continue
            for target in rules.targets:
                if target.packets is not None:
                    family = family_of(target.address)
                    place = (family, str(owner.service), rules.protocol, target.address, target.port)
                    found[place] = max(found.get(place, 0), target.packets)
    return found


def described(dump: NodeRules) -> str:
    """Where rules are: "iptables (nf_tables)", "nftables"."""
    return dump.mode.value if dump.backing is Backing.NATIVE else f"{dump.mode.value} ({dump.backing.value})"
