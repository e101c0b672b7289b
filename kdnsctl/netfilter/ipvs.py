"""ipvs: `ipvsadm-save -n` and /proc/net/ip_vs, from the dump to the Services' rules. It judges nothing.

Both are lists of Services, each followed by its real servers. Neither has an end of its own, so only a trailer proves
that a list is whole. Sources: ipvsadm.c and net/netfilter/ipvs/ip_vs_ctl.c (ip_vs_info_seq_show): numbers in /proc are
hexadecimal, in network order, and IPv6 addresses are written out in full. A NodePort is a Service on each address of
the node here, with that address. A Service without real servers has no targets: the kernel refuses its packets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from kdnsctl.model import Reason
from kdnsctl.netfilter.destinations import family_of, host_and_port
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.netfilter.lines import lines_of, shown
from kdnsctl.netfilter.rules import Mode, NodeRules, ServiceRules, Target

LONGEST_LINE = 4 * 1024
MOST_LINES = 1_000_000
_OPTIONS = {"-t": "tcp", "--tcp-service": "tcp", "-u": "udp", "--udp-service": "udp", "--sctp-service": "sctp"}
_HEX_PLACE = re.compile(r"(?:([0-9A-Fa-f]{8})|\[([0-9A-Fa-f:]{2,45})\]):([0-9A-Fa-f]{4})")
_PROC_TITLES = ("IP Virtual Server version", "Prot LocalAddress:Port", "-> RemoteAddress:Port")

Place = tuple[str, int]


@dataclass(slots=True)
class _Service:
    protocol: str
    place: Place
    scheduler: str
    persistent: bool
    servers: list[tuple[Place, int | None]] = field(default_factory=list)


def parse(chunks: Iterable[bytes], trailer: Completeness | None = None) -> tuple[NodeRules, ...]:
    """The rules of each family in the list, in either form; one with no family when the list is empty."""
    reader = _Reader()
    for number, line in enumerate(lines_of(chunks, LONGEST_LINE)):
        if number >= MOST_LINES:
            reader.lost(f"more than {MOST_LINES} lines")
            break
        if not line.whole:
            reader.lost(f"a line is cut off: {shown(line.text, 80)}")
        elif text := line.text.decode("utf-8", "replace").strip():
            reader.take(text)
    if trailer is None:
        without_end = Reason("noTrailer", "the list has no end of its own, and the node did not say that it was all")
        completeness = Completeness(problem=reader.problem or without_end)
    else:
        completeness = Completeness(trailer.proof, trailer.problem or reader.problem)
    services = [_rules_of(service) for service in reader.services]
    families = sorted({family_of(service.address or "") for service in services})
    if not families:
        return (NodeRules(Mode.IPVS, completeness),)
    return tuple(
        NodeRules(
            Mode.IPVS,
            completeness,
            family=family,
            services=tuple(each for each in services if family_of(each.address or "") == family),
        )
        for family in families
    )


class _Reader:
    """Takes lines of either form; a real server belongs to the Service that its line names, or to the last one."""

    def __init__(self) -> None:
        self.services: list[_Service] = []
        self.problem: Reason | None = None
        self._known: dict[tuple[str, Place], _Service] = {}
        self._last: _Service | None = None

    def lost(self, message: str) -> None:
        """Note the first thing that could not be read."""
        self.problem = self.problem or Reason("unreadable", message)

    def take(self, text: str) -> None:
        words = text.split()
        if words[0] in ("-A", "-a"):
            self._saved(words, text)
        elif not text.startswith(_PROC_TITLES):
            self._proc(words, text)

    def _saved(self, words: list[str], text: str) -> None:
        options = dict(_pairs(words[1:]))
        if "-f" in options or "--fwmark-service" in options:
            return  # by packet mark: none of kube-proxy's
        protocol, place = next(
            ((name, _place(options[key])) for key, name in _OPTIONS.items() if key in options), ("", None)
        )
        if place is None:
            self.lost(f"not a Service: {shown(text, 80)}")
        elif words[0] == "-A":
            self._add(protocol, place, options.get("-s", ""), persistent="-p" in options)
        else:
            server = _place(options.get("-r", ""))
            service = self._known.get((protocol, place))
            if server is None or service is None:
                self.lost(f"a real server of no Service, or with no address: {shown(text, 80)}")
            else:
                service.servers.append((server, _weight(options.get("-w", "1"))))

    def _proc(self, words: list[str], text: str) -> None:
        place = _hex_place(words[1]) if len(words) > 2 else None
        if words[0] == "FWM":
            self._last = None
        elif words[0] == "->" and place is not None:
            if self._last is not None:
                self._last.servers.append((place, _weight(words[3]) if len(words) > 3 else None))
        elif words[0] in ("TCP", "UDP", "SCTP") and place is not None:
            self._add(words[0].lower(), place, words[2], persistent="persistent" in words[3:])
        else:
            self.lost(f"not a Service or real server: {shown(text, 80)}")

    def _add(self, protocol: str, place: Place, scheduler: str, *, persistent: bool) -> None:
        self._last = _Service(protocol, place, scheduler, persistent)
        self._known[protocol, place] = self._last
        self.services.append(self._last)


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    """Each option with its value, "" for one without (`-m`)."""
    for position, word in enumerate(words):
        if word.startswith("-"):
            value = words[position + 1] if position + 1 < len(words) else ""
            yield word, "" if value.startswith("-") else value


def _place(text: str) -> Place | None:
    at = host_and_port(text)
    return (at[0], at[1]) if at is not None and at[1] is not None else None


def _hex_place(text: str) -> Place | None:
    match = _HEX_PLACE.fullmatch(text)
    if match is None:
        return None
    number, long_form, port = match.groups()
    host = ".".join(str(byte) for byte in bytes.fromhex(number)) if number else f"[{long_form}]"
    return _place(f"{host}:{int(port, 16)}")


def _weight(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 10 else None


def _rules_of(service: _Service) -> ServiceRules:
    address, port = service.place
    shares = _shares(service)
    targets = tuple(
        Target(*place, share, weight=weight) for (place, weight), share in zip(service.servers, shares, strict=True)
    )
    return ServiceRules(service.protocol, port, address, targets=targets, affinity=service.persistent)


def _shares(service: _Service) -> list[float | None]:
    """The share of each real server: known for round robin only. One of weight 0 gets no new flows: it is draining."""
    weights = [weight for _, weight in service.servers]
    known = [weight for weight in weights if weight is not None]
    if len(known) < len(weights) or service.scheduler not in ("rr", "wrr"):
        return [0.0 if weight == 0 else None for weight in weights]
    pulls = known if service.scheduler == "wrr" else [min(weight, 1) for weight in known]
    total = sum(pulls)
    return [pull / total if total else 0.0 for pull in pulls]
