"""Checks C1 to C6: conntrack entries whose flows nobody answers, by the reason why.

An entry is of one kind (`index.Kind`), so that it is reported by one of these checks and counted once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from kdnsctl.diagnosis import wording
from kdnsctl.diagnosis.case import COUNTED_PROTOCOL, Case, StaleGroup
from kdnsctl.diagnosis.findings import Finding, Severity
from kdnsctl.diagnosis.index import Kind, endpoint_text, family_of


def dead_backend(case: Case) -> Iterator[Finding]:
    """C1: entries translated to an endpoint that does not serve."""
    for groups in _by_service(case, Kind.DEAD):
        service = _service(groups)
        yield _finding(
            "C1",
            groups,
            case,
            f"{_entries(groups)} of {service} {_lead(groups)} {wording.some(wording.backends(groups))}, which "
            f"{_do(groups)} not serve it. Every packet of such a flow goes there, and renews the entry.",
        )


def untranslated(case: Case) -> Iterator[Finding]:
    """C2: entries of a Service's address that were never translated."""
    for groups in _by_service(case, Kind.UNTRANSLATED):
        yield _finding(
            "C2",
            groups,
            case,
            f"{_entries(groups)} to {_service(groups)} {_are(groups)} not translated: they were made when there was no "
            "rule for the Service, and as long as packets come, no rule is looked at again (kubernetes#48370, "
            "#126468).",
        )


def reused_address(case: Case) -> Iterator[Finding]:
    """C3: the dead endpoint's address has been given to another pod."""
    for groups in _by_service(case, Kind.REUSED):
        addresses = dict.fromkeys(each.key.reply_source for each in groups)
        pods = [f"pod {case.truth.pods[address]} ({address})" for address in addresses]
        yield _finding(
            "C3",
            groups,
            case,
            f"{_entries(groups)} of {_service(groups)} {_lead(groups)} {wording.some(pods)}, which "
            "does not serve it there. Clients may see 'connection refused' at once, rather than a timeout.",
        )


def no_endpoints(case: Case) -> Iterator[Finding]:
    """C4: entries of a Service none of whose endpoints serves."""
    for groups in _by_service(case, Kind.NO_ENDPOINTS):
        yield _finding(
            "C4",
            groups,
            case,
            f"{_service(groups)} has no serving endpoint, and {_entries(groups)} still {_lead(groups)} "
            f"{wording.some(wording.backends(groups))}. kube-proxy 1.32 to 1.36 leaves the entries of such a Service "
            "alone (kubernetes#139628): the entries stay until an endpoint serves again and a sync succeeds.",
            first="Bring the Service's endpoints back first: without them no flow can be answered. ",
        )


def service_gone(case: Case) -> Iterator[Finding]:
    """C5: entries of a Service address and port that no Service has any more."""
    for groups in _by_service(case, Kind.GONE):
        yield _finding(
            "C5",
            groups,
            case,
            f"{_entries(groups)} to {_destinations(groups)} {_are(groups)} translated, though no Service has that "
            "address and port. kube-proxy does not clean up after deleted Services (kubernetes#141371). The backends "
            "may even answer, but nobody maintains these flows.",
            severity=Severity.WARNING,
        )
    for groups in _by_service(case, Kind.UNALLOCATED):
        clients, more = wording.clients(groups, case)
        yield Finding(
            "C5",
            Severity.INFO,
            f"{_entries(groups)} {_are(groups)} sent to {_destinations(groups)}, which no Service has. They are not "
            "translated and not stale: the clients have an address that is not, or no longer, valid.",
            "Look at what these clients are configured with: for port 53, the nameserver in their /etc/resolv.conf.",
            port=groups[0].key.destination_port,
            protocol=groups[0].key.protocol,
            count=_total(groups),
            clients=clients,
            family=family_of(groups[0].key.destination),
            more=more,
        )


def node_port(case: Case) -> Iterator[Finding]:
    """C6: entries of a NodePort whose backend does not serve."""
    for groups in _by_service(case, Kind.NODE_PORT):
        service = groups[0].service
        number = service.node_port if service else 0
        yield _finding(
            "C6",
            groups,
            case,
            f"{_entries(groups)} to NodePort {number} of {_service(groups)} {_lead(groups)} "
            f"{wording.some(wording.backends(groups))}, which {_do(groups)} not serve it. Only flows to the node's own "
            "addresses are counted; kube-proxy's own cleanup takes any destination with that port for the NodePort.",
        )


def _by_service(case: Case, kind: Kind) -> Iterator[Sequence[StaleGroup]]:
    """The groups of a kind, together by Service, destination port, protocol and family: one finding each."""
    together: dict[tuple[object, ...], list[StaleGroup]] = defaultdict(list)
    for each in case.stale:
        if each.kind is kind:
            place = (str(each.service), each.key.destination_port, each.key.protocol, family_of(each.key.destination))
            together[place].append(each)
    yield from together.values()


def _finding(
    check: str,
    groups: Sequence[StaleGroup],
    case: Case,
    explanation: str,
    *,
    severity: Severity = Severity.FAULT,
    first: str = "",
) -> Finding:
    key, service = groups[0].key, groups[0].service
    counted = key.protocol == COUNTED_PROTOCOL
    clients, more = wording.clients(groups, case)
    notes = [explanation]
    if not counted:
        severity = Severity.INFO
        notes.append(
            f"This is {key.protocol}: not counted, because kube-proxy never deletes such entries and a healthy node "
            "has them too."
        )
    waiting = sum(each.waiting for each in groups)
    if waiting and counted:
        severity = Severity.WARNING if waiting == _total(groups) else severity
        notes.append(
            f"{wording.count(waiting, 'entry', 'entries')} of these may just be waiting for kube-proxy's cleanup; "
            "only a later reading tells."
        )
    if case.terms.services and not groups[0].in_scope and counted:
        notes.append("The verdict is not about this Service.")
    removal = wording.Removal("")
    if counted and waiting == _total(groups):
        removal = wording.Removal(
            "Read the node again before anything is done to it: kube-proxy may be about to delete these entries."
        )
    elif counted:
        removal = wording.removal(groups, case)
    return Finding(
        check,
        severity,
        " ".join(notes),
        first + removal.advice if counted and waiting != _total(groups) else removal.advice,
        service=str(service) if service else "",
        port=key.destination_port,
        protocol=key.protocol,
        count=_total(groups),
        backends=wording.backends(groups),
        clients=clients,
        family=family_of(key.destination),
        more=more,
        commands=removal.commands,
        repair=removal.repair,
    )


def _total(groups: Sequence[StaleGroup]) -> int:
    return sum(each.count + each.waiting for each in groups)


def _entries(groups: Sequence[StaleGroup]) -> str:
    protocol = groups[0].key.protocol.upper()
    return wording.count(_total(groups), f"{protocol} entry", f"{protocol} entries")


def _are(groups: Sequence[StaleGroup]) -> str:
    return "is" if _total(groups) == 1 else "are"


def _lead(groups: Sequence[StaleGroup]) -> str:
    return "leads to" if _total(groups) == 1 else "lead to"


def _do(groups: Sequence[StaleGroup]) -> str:
    return "does" if len(wording.backends(groups)) == 1 else "do"


def _service(groups: Sequence[StaleGroup]) -> str:
    return str(groups[0].service)


def _destinations(groups: Sequence[StaleGroup]) -> str:
    places = dict.fromkeys(endpoint_text(each.key.destination, each.key.destination_port) for each in groups)
    return wording.some(places)
