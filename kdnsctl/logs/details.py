"""What a failure line says besides that it failed: the peer, the Service, the cause, the conntrack entries it quotes.

Reads the raw bytes of one recognised record, in any of klog's quotings, without unquoting them: addresses, names and
the known causes contain nothing that needs it, and a flood of failures is read in a fraction of the time. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST_CLIENTS_OF_A_LINE = 256
"""Client addresses taken from one line: an aborted `conntrack -D` can quote thousands of entries."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a deletion or a write failed: `texts` are what the inner error says, any of them.

    Without apostrophes, which some JSON writers escape.
    """

    id: str
    texts: tuple[bytes, ...]
    meaning: str


CAUSES: tuple[Cause, ...] = (
    Cause(
        "enoentRace",
        (b"such conntrack doesn",),
        "an entry expired while conntrack -D walked the table; conntrack-tools up to 1.4.7 then stops, and all later "
        "entries stay (conntrack-tools commit a7abf3f5dc7c)",
    ),
    Cause(
        "noBinary",
        (b"executable file not found",),
        "the conntrack program is not in kube-proxy's image or PATH, so nothing is ever deleted (#64193)",
    ),
    Cause(
        "noNetlinkModule",
        (b"t open handler",),
        "the kernel module nf_conntrack_netlink is not loaded (k3s-io/k3s#6169)",
    ),
    Cause(
        "xtablesLock",
        (
            b"currently holding the xtables lock",
            b"failed to acquire new iptables lock",
            b"failed to acquire old iptables lock",
            b"timed out while checking rules",
        ),
        "another program held the xtables lock for too long",
    ),
    Cause(
        "missingLibrary",
        (b"cannot open shared object file",),
        "a library is missing in kube-proxy's image, so iptables cannot load one of its modules",
    ),
    Cause("missingMatch", (b"t load match", b"t load target"), "iptables lacks a module that the rules need"),
    Cause(
        "permission",
        (b"sorry, you must be root or get CAP_NET_ADMIN", b"peration not permitted", b"ermission denied"),
        "kube-proxy may not: it lacks CAP_NET_ADMIN, or a security module forbids it",
    ),
    Cause("familyMismatch", (b"mismatched address family",), "conntrack was called without the IPv6 family (#81729)"),
    Cause(
        "interrupted",
        (b"interrupted system call", b"results may be incomplete or inconsistent"),
        "the table changed while it was read",
    ),
    Cause("badAddress", (b"Invalid IP address",), "conntrack was given an address that it does not know (#95486)"),
    Cause("parseError", (b"Error occurred at line", b"iptables-restore: line"), "iptables-restore refused a rule"),
)
OTHER_CAUSE = "other"


@dataclass(frozen=True, slots=True)
class Details:
    """`vip` and `endpoint` as the peer names them, "" where it does not; `service` is "namespace/name:port" or "".

    `cause` is a Cause's id or "other"; `entries` counts the quoted conntrack entries and `clients` are their source
    addresses (at most MOST_CLIENTS_OF_A_LINE).
    """

    service: str = ""
    vip: str = ""
    endpoint: str = ""
    cause: str = OTHER_CAUSE
    entries: int = 0
    clients: frozenset[str] = frozenset()


_ADDRESS = re.compile(rb"[0-9A-Fa-f.:]{2,45}")
_PEER = b" peer {"
_SERVICE = re.compile(rb'\\?"?[=:]\\?"([^"\\]{1,512})|":\{([^}]{1,512})\}')
_OBJECT_NAME = re.compile(rb'"name":"([^"\\]*)"')
_OBJECT_NAMESPACE = re.compile(rb'"namespace":"([^"\\]*)"')
_SERVICE_PROSE = re.compile(
    rb"(?:Failed to delete (?:nodeport-related )?|Stale (?:udp|sctp) service (?:NodePort )?|Stale endpoint |"
    rb'(?:service port|endpoints for) \\?")([^\s"\\/]{1,253}/[^\s"\\]{1,320})'
)
_SERVICE_ADDRESS = re.compile(
    rb"service IP:? ([0-9A-Fa-f.:]{2,45}?),? |"
    rb'\b(?:ip|IP|externalIP|loadBalancerIP)\\?"?[=:]\\?"([0-9A-Fa-f.:]{2,45})\\?"'
)
_EXTERNAL = re.compile(rb"connections for (?:externalIP|Lo(?:ab|ad)BalancerIP) ([0-9A-Fa-f.:]{2,45}),")
_ENTRIES = (
    re.compile(rb"udp +\d+ \d+ src=([0-9A-Fa-f.:]{2,45}) "),
    re.compile(rb"sctp +\d+ \d+ (?:[A-Z_]+ )?src=([0-9A-Fa-f.:]{2,45}) "),
)
"""Original tuples as `conntrack -D` prints them; kube-proxy deletes no others."""


def service_of(payload: bytes) -> str:
    """The Service port that a record names, as "namespace/name:port" (without the port where JSON leaves it out)."""
    key = payload.rfind(b"ortName")  # servicePortName, svcPortName or portName
    match = _SERVICE.match(payload, key + len(b"ortName")) if key >= 0 else None
    if match:
        if match[1]:
            return match[1].decode("utf-8", "replace")
        name, namespace = _OBJECT_NAME.search(match[2]), _OBJECT_NAMESPACE.search(match[2])
        return f"{_text(namespace)}/{_text(name)}" if name and namespace else ""
    match = _SERVICE_PROSE.search(payload)
    return match[1].decode("utf-8", "replace") if match else ""


def cause_of(payload: bytes) -> str:
    """The id of the first known cause that the record's error text contains, else "other"."""
    for cause in CAUSES:
        for text in cause.texts:
            if text in payload:
                return cause.id
    return OTHER_CAUSE


def details_of(payload: bytes) -> Details:
    """Everything that one failure record says; `payload` is the whole record, its block lines included."""
    vip, endpoint = _peer(payload)
    if not vip:
        match = _EXTERNAL.search(payload) or _SERVICE_ADDRESS.search(payload)
        vip = next((_clean(group) for group in match.groups() if group), "") if match else ""
    clients: set[str] = set()
    entries = 0
    if b" sport=" in payload:
        for pattern in _ENTRIES:
            for match in pattern.finditer(payload):
                entries += 1
                if len(clients) < MOST_CLIENTS_OF_A_LINE:
                    clients.add(match[1].decode("ascii"))
    return Details(service_of(payload), vip, endpoint, cause_of(payload), entries, frozenset(clients))


def _peer(payload: bytes) -> tuple[str, str]:
    start = payload.find(_PEER)
    if start < 0:
        return "", ""
    start += len(_PEER)
    end = payload.find(b"}", start, start + 128)
    if end < 0:
        return "", ""
    vip, _, endpoint = payload[start:end].partition(b", ")
    if not _ADDRESS.fullmatch(vip) or (endpoint and not _ADDRESS.fullmatch(endpoint)):
        return "", ""
    return vip.decode("ascii"), endpoint.decode("ascii")


def _clean(address: bytes) -> str:
    return address.decode("ascii")


def _text(match: re.Match[bytes]) -> str:
    return match[1].decode("utf-8", "replace")


_VERSION = re.compile(rb'(?:Version: |version\\?"?[=:]\\?")(v\d+\.\d+[\w.+\-]*)')
_MODE = re.compile(rb"Using (\w+) Proxier")
_VERBOSITY = re.compile(rb'FLAG: --v=\\*"(\d{1,4})')
_HOSTNAME = re.compile(rb'FLAG: --hostname-override=\\*"([A-Za-z0-9](?:[-A-Za-z0-9.]{0,251}[A-Za-z0-9])?)\\*"')
_PORT_ADDRESS = re.compile(rb'(?:servicePort\\?"?[=:]\\?"| at )\[?([0-9A-Fa-f.:]{2,45}?)\]?:\d+/(?:UDP|TCP|SCTP)')
_ENDPOINTS = re.compile(rb'endpoints\\?"?[=:](?=\[)| to (?=\[)')


def version_of(payload: bytes) -> str | None:
    """kube-proxy's version in a START_VERSION record, as "v1.30.3+k3s1", or None."""
    return _one(_VERSION, payload)


def mode_of(payload: bytes) -> str | None:
    """The proxy mode in a START_MODE record, or None."""
    return _one(_MODE, payload)


def verbosity_of(payload: bytes) -> int | None:
    """The verbosity in a START_FLAG_V record, or None."""
    level = _one(_VERBOSITY, payload)
    return None if level is None else int(level)


def hostname_of(payload: bytes) -> str | None:
    """The node's name in a START_NODE record, or None where it is empty or no name."""
    return _one(_HOSTNAME, payload)


def port_address_of(payload: bytes) -> str | None:
    """The Service address in a SVC_PORT record, or None."""
    return _one(_PORT_ADDRESS, payload)


def endpoints_of(payload: bytes) -> bytes:
    """The endpoint list of an EP_SET record as it is written, b"" where there is none."""
    match = _ENDPOINTS.search(payload)
    if match is None:
        return b""
    # To the last bracket: those of IPv6 addresses stand inside.
    return payload[match.end() : payload.rfind(b"]") + 1]


def _one(pattern: re.Pattern[bytes], payload: bytes) -> str | None:
    match = pattern.search(payload)
    return match[1].decode("utf-8", "replace") if match else None
