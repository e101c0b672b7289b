"""What to run now: a log line is a suspicion, the kernel's tables are the proof. Pure; nothing is judged or run here.

Commands are made to be pasted into a shell, and names and addresses come from logs: only what can be a node's name, an
IP address, a port or a Service's name gets into one. They only read. Options are those of conntrack(8), 1.4.7.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kdnsctl.find.report import NodeFinding, SignatureCount
from kdnsctl.find.services import concerns
from kdnsctl.model import Verdict

MOST_NODES = 5
"""Suspect nodes that get commands of their own."""
_MOST_ADDRESSES = 2

NODE_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_NODE_PORT = re.compile(r'udp conntrack (?:for|on) port (\d{1,5})[,:]|"?\b(?:port|nodePort)"?[=:](\d{1,5})\b')
_IPV6 = re.compile(r'ip6tables|"?ipFamily"?[=:]"?IPv6|\bip6 kube-proxy')
_RULES = {"IPT_RESTORE_FAIL", "IPT_CHAIN_FAIL", "IPT_SYNC_FAILED", "IPT_SAVE_FAIL"}
_NODE_PORTS = {"CT_DEL_PORT", "CT_DEL_ENDPOINT_NODEPORT"}
_SILENT = ("failureBeforeWindow", "logProvesNothing")
_USUAL_SERVICE = "kube-system/kube-dns"
"""The DNS Service of most clusters."""
_ANY_DNS = "dns"
"""What is in the names of all DNS Services: a rule that is not shown would seem to be missing."""


def suspects_of(findings: Iterable[NodeFinding]) -> list[NodeFinding]:
    """The suspects that commands are for: the identified ones, or, when there is none, one that is not."""
    suspects = [finding for finding in findings if finding.verdict is Verdict.SUSPECT]
    return [finding for finding in suspects if _there(finding)] or suspects[:1]


def next_commands(findings: Sequence[NodeFinding], services: Sequence[str] = ()) -> Iterable[str]:
    """For each suspect node what shows whether it is affected; `services` are those asked for (none: DNS).

    Without a suspect: the same for the first node of which the log cannot tell. Where no dead endpoint is known, the
    last command shows the endpoints that serve, to compare with.
    """
    service = _service(findings, services)
    lines: list[str] = []
    compare = False
    suspects = suspects_of(findings)[:MOST_NODES]
    for finding in suspects:
        looks = _looks(finding, service, alone=len(suspects) == 1)
        compare = compare or looks.compare
        lines.extend(_on(finding, command) for command in looks.commands)
    if not suspects:
        mute = [finding for finding in findings if finding.reason_code in _SILENT and _there(finding)]
        if mute:
            lines.append(_on(mute[0], _to_dns(service, no_program=False)))
            compare = True
    yield from lines
    if compare:
        namespace, _, name = (service or _USUAL_SERVICE).partition("/")
        yield f"kubectl -n {namespace} get endpointslices -l kubernetes.io/service-name={name} -o wide"


@dataclass(frozen=True, slots=True)
class _Command:
    """A command for a node. `quoted`: it has characters that ssh's remote shell must not see bare. `pipe`: what is made
    of its output, which can be done anywhere.
    """

    text: str
    quoted: bool = False
    pipe: str = ""


@dataclass(frozen=True, slots=True)
class _Looks:
    """`compare`: what the commands show is to be held against the endpoints that serve."""

    commands: tuple[_Command, ...]
    compare: bool = False


def _on(finding: NodeFinding, command: _Command) -> str:
    """The command line that runs there; for whoever is on the node already when nobody knows which one it is."""
    there = _there(finding)
    if not there:
        return f"{command.text}{command.pipe}"
    # ssh joins its arguments, and the shell over there takes them apart again.
    text = f'"sudo {command.text}"' if command.quoted else f"sudo {command.text}"
    return f"ssh {there} {text}{command.pipe}"


def _there(finding: NodeFinding) -> str:
    return finding.name if finding.identified and NODE_NAME.fullmatch(finding.name) else ""


def _looks(finding: NodeFinding, service: str, *, alone: bool) -> _Looks:
    """What to look at on one node, by what failed on it: its conntrack table, its rules, or both."""
    logged = {signature.id: signature for signature in finding.signatures}
    no_program = any(cause.id == "noBinary" for cause in finding.causes)
    table = _table(finding, no_program=no_program, most=_MOST_ADDRESSES if alone else 1)
    port = _node_port(logged.get("CT_DEL_PORT"))
    if port:
        table = _Looks((*table.commands, _to_port(port, no_program=no_program)), compare=True)
    failed = {id_ for id_ in logged if id_.startswith("CT_")}
    if failed and not table.commands:
        anything = failed <= _NODE_PORTS  # through a node port that is not known, no filter would show it
        look = _to_port(0, no_program=no_program) if anything else _to_dns(service, no_program=no_program)
        table = _Looks((look,), compare=True)
    return _Looks((*table.commands, *_rules(logged, service)), table.compare)


def _table(finding: NodeFinding, *, no_program: bool, most: int) -> _Looks:
    """The entries for the addresses in the failures; with the dead endpoint, where there are not too many of them."""
    look = _grep if no_program else _conntrack
    pairs = dict.fromkeys((_address(peer.vip), _address(peer.endpoint)) for peer in finding.peers)
    known = [(vip, dead) for vip, dead in pairs if vip and dead and vip.version == dead.version]
    vips = list(dict.fromkeys(vip for vip, _ in pairs if vip))
    if len(known) == len(pairs) <= max(most, len(vips)) and len(vips) <= _MOST_ADDRESSES:
        return _Looks(tuple(look(vip, dead) for vip, dead in known))
    return _Looks(tuple(look(vip, None) for vip in vips[:_MOST_ADDRESSES]), compare=bool(vips))


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(text: str) -> _Address | None:
    try:
        return None if "%" in text else ipaddress.ip_address(text)  # behind it anything is a valid scope
    except ValueError:
        return None


def _conntrack(vip: _Address, dead: _Address | None) -> _Command:
    family = " -f ipv6" if vip.version == 6 else ""
    return _Command(f"conntrack -L{family} -p udp --orig-dst {vip}{f' --reply-src {dead}' if dead else ''}")


def _grep(vip: _Address, dead: _Address | None) -> _Command:
    # The kernel writes IPv6 addresses in full there (net/netfilter/nf_conntrack_standalone.c).
    pattern = f"dst={vip.exploded} {f'.* src={dead.exploded} ' if dead else ''}"
    return _Command(f"grep '{pattern}' /proc/net/nf_conntrack", quoted=True)


def _node_port(signature: SignatureCount | None) -> int:
    match = _NODE_PORT.search(signature.example) if signature else None
    port = int(match[1] or match[2]) if match else 0
    return port if port < 1 << 16 else 0


def _to_dns(service: str, *, no_program: bool) -> _Command:
    """What is sent to port 53, where DNS is concerned; of another Service the port is not known."""
    return _to_port(53 if concerns(service, ()) else 0, no_program=no_program)


def _to_port(port: int, *, no_program: bool) -> _Command:
    if no_program:
        return _Command(f"grep 'udp {f'.* dport={port} ' if port else ''}' /proc/net/nf_conntrack", quoted=True)
    return _Command(f"conntrack -L -p udp{f' --orig-port-dst {port}' if port else ''}")


def _rules(logged: dict[str, SignatureCount], service: str) -> Iterator[_Command]:
    pipe = f" | grep {service.partition('/')[2] or _ANY_DNS}"
    failed = [logged[id_].example for id_ in logged.keys() & _RULES]
    for six, program in ((False, "iptables-save"), (True, "ip6tables-save")):
        if any(_is_of(example, six=six) for example in failed):
            yield _Command(f"{program} -t nat", pipe=pipe)
    for six, family in ((False, "ip"), (True, "ip6")):
        if "NFT_SYNC_FAIL" in logged and _is_of(logged["NFT_SYNC_FAIL"].example, six=six):
            yield _Command(f"nft list table {family} kube-proxy", pipe=pipe)


def _is_of(example: str, *, six: bool) -> bool:
    """Whether a failed write was of IPv6 rules, or of IPv4 ones, which is what a record that does not say it is of."""
    return bool(_IPV6.search(example)) is six


def _service(findings: Sequence[NodeFinding], services: Sequence[str]) -> str:
    """The Service that all is about, "namespace/name": asked for, else named in a failure, "" when neither tells it."""
    named = (peer.service.partition(":")[0] for finding in findings for peer in finding.peers)
    for service in (*services, *named):
        namespace, slash, name = service.partition("/")
        if slash and _LABEL.fullmatch(namespace) and _LABEL.fullmatch(name):
            return service
    return ""
