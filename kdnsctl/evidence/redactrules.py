"""Rules of iptables, nftables and IPVS, redacted: kept as far as kube-proxy can have written them. Pure.

Chains, comments and options of other software lose what they are called and what they say; addresses become others
everywhere. Which endpoint of which Service a chain is for is learned here too, from the rules that lead to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from kdnsctl.evidence.redactlines import Pieces, bytes_of, lines_of, text_of, whole
from kdnsctl.evidence.renaming import GONE, Renaming

# Options whose text is somebody's own: names of sets, lists, cgroups, helpers, and what is looked for in packets.
_OWN: Final = (
    "log-prefix|string|hex-string|match-set|add-set|del-set|map-set|nflog-prefix|nfacct-name|name|hashlimit-name|path"
    "|helper|label|timeout|rateest-name|rateest1|rateest2|rateest|bytecode|genre|led-trigger-id|object-pinned"
)
_PARTS: Final = re.compile(
    r'--comment (?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>\S+))|(?P<jump>(?<= )-[jg] )(?P<target>\S+)'
    rf'|(?P<option>--(?:{_OWN})) (?:"(?:[^"\\]|\\.)*"|\S+)'
)
_CHAIN_LINE: Final = re.compile(
    r"(?P<policy>:)(?P<named>\S+)|(?P<appended>\[[\d:]*\] -A |-A )(?P<of>\S+)(?P<rest>.*)", re.DOTALL
)
_BUILT_IN: Final = re.compile(
    r"PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING|KUBE-[A-Z0-9-]+|ACCEPT|DROP|REJECT|RETURN|DNAT|SNAT|MASQUERADE|MARK|LOG"
    r"|CONNMARK|NOTRACK|CT|REDIRECT|TPROXY|QUEUE|NFQUEUE|NFLOG|TCPMSS|NETMAP|SET|CLASSIFY|TRACE|TEE|AUDIT|CHECKSUM|DSCP|TOS"
)
_KUBE: Final = re.compile(r"(?: -[jg]|-A) KUBE-")
_HEX_V4: Final = re.compile(r"(?<![\w:])([0-9A-F]{8})(?=:[0-9A-F]{4}\b)")


def iptables(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    """What iptables-save printed, under other names."""
    for line in lines_of(pieces):
        yield bytes_of(_rule(line, renaming))


def _rule(line: str, renaming: Renaming) -> str:
    match = _CHAIN_LINE.match(line)
    if match is None:
        return line if line.startswith(("*", "#", "COMMIT")) else renaming.rules(line)
    if match["policy"]:
        return ":" + _chain(match["named"], renaming) + line[match.end() :]
    ours = _KUBE.search(line) is not None
    rest = _each(_PARTS, match["rest"], renaming, lambda part: _part(part, renaming, ours=ours))
    return match["appended"] + _chain(match["of"], renaming) + rest


def _part(part: re.Match[str], renaming: Renaming, *, ours: bool) -> str:
    """A target, a comment, or an option whose text is somebody's own. Of other software's comments nothing is kept."""
    if part["jump"]:
        return part["jump"] + _chain(part["target"], renaming)
    if part["option"]:
        return f'{part["option"]} "{GONE}"'
    said = part["quoted"] if part["quoted"] is not None else part["bare"]
    return f'--comment "{_said(said, renaming) if ours else GONE}"'


def _each(pattern: re.Pattern[str], text: str, renaming: Renaming, made: Callable[[re.Match[str]], str]) -> str:
    """`made` of what the pattern matches, and pseudonyms in all the rest: nothing is gone through twice."""
    pieces: list[str] = []
    end = 0
    for match in pattern.finditer(text):
        pieces += (renaming.rules(text[end : match.start()]), made(match))
        end = match.end()
    return "".join((*pieces, renaming.rules(text[end:])))


def _chain(name: str, renaming: Renaming) -> str:
    """kube-proxy's chains and those of the kernel keep their names, or their kind; others lose them."""
    if _BUILT_IN.fullmatch(name):
        return renaming.rules(name)
    return renaming.name("chain", name)[:28]


def _said(text: str, renaming: Renaming) -> str:
    """What is said in kube-proxy's words, and Services by their pseudonyms."""
    renamed = renaming.rules(text)
    rest = _SERVICE_PART.sub(" ", renamed)
    return renamed if all(word in _VOCABULARY for word in _WORDS.findall(rest)) else GONE


_SERVICE_PART: Final = re.compile(r"\S*/\S*|\[?[0-9A-Fa-f.:]+\]?:\d+")
_WORDS: Final = re.compile(r"[A-Za-z0-9_]+")
_VOCABULARY: Final = frozenset(
    """
    a accept accepts Active all be block but can chain cluster ClusterIPs conntrack connections destined
    destinations do drop endpoint endpoints external externally for forwarding firewall firewalled from has hairpin
    health check IP IPs in incoming invalid is kube kubernetes last load balancer local LOCAL localnet localhost
    loopback map mark masq masquerade match may must no NodePort nodeports NOTE not of on only packet packets pod
    policy portals ports postrouting proxy range ranges reject requiring route rule rules service ServiceCIDR
    services sets source SNAT that the this to traffic transparent uncountable unknown via visible vmap which with
    without dst 127 0 8
    """.split()  # noqa: SIM905 - read as prose
)
"""The words of kube-proxy's own comments (pkg/proxy/iptables and nftables, proxier.go; pkg/kubelet/network)."""


def nft(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    """What nft printed of kube-proxy's tables, as JSON or as text, under other names."""

    def made(part: re.Match[str]) -> str:
        if part["prefix"]:
            network = renaming.address(f"{part['addr']}/{part['len']}").partition("/")[0]
            return f"{part['prefix']}{network}{part['middle']}{part['len']}"
        return f'{part["comment"]}"{_said(part["text"], renaming)}"'

    yield bytes_of(_each(_NFT_PARTS, text_of(whole(pieces)), renaming, made))


_NFT_PARTS: Final = re.compile(
    r'(?P<prefix>"prefix":\s*\{"addr":\s*")(?P<addr>[^"]+)(?P<middle>",\s*"len":\s*)(?P<len>\d+)'
    r'|(?P<comment>"comment":\s*|\bcomment )"(?P<text>(?:[^"\\]|\\.)*)"'
)


def ipvs(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    """/proc/net/ip_vs, under other addresses."""
    for line in lines_of(pieces):
        yield bytes_of(renaming.rules(_HEX_V4.sub(lambda match: _hex(match[1], renaming), line)))


def _hex(digits: str, renaming: Renaming) -> str:
    dotted = ".".join(str(byte) for byte in bytes.fromhex(digits))
    return "".join(f"{int(part):02X}" for part in renaming.address(dotted).split("."))


def learn_iptables(pieces: Pieces, renaming: Renaming) -> None:
    """Services from comments; and which endpoint of which Service's each chain is: by the chain that leads to it."""
    targets: list[tuple[str, str, str, int]] = []
    owners: dict[str, set[str]] = {}
    for line in lines_of(pieces):
        renaming.learn_from(line)
        if (match := _ENDPOINT_RULE.search(line)) is not None:
            targets.append((match[1], match[2], match[3].strip("[]"), int(match[4])))
        elif (match := _OWNER_RULE.search(line)) is not None:
            owners.setdefault(match[2], set()).add(match[1])
    for chain, protocol, address, port in targets:
        for owner in owners.get(chain, ()):
            renaming.learn_owned(owner, protocol, address, port)


_ENDPOINT_RULE: Final = re.compile(
    r"-A (KUBE-SEP-[A-Z2-7]{16}) .*-p (\w+) .*-j DNAT --to-destination (\S+):(\d{1,5})\b"
)
_OWNER_RULE: Final = re.compile(r"-A KUBE-(?:SVC|SVL|XLB)-([A-Z2-7]{16}) .*-j (KUBE-SEP-[A-Z2-7]{16})\b")
