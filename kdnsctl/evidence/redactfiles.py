"""What becomes of each kind of file in a bundle when it is redacted: content in, content out, piece by piece. Pure.

Files are known by the names that collecting gives them. For one that is not known here there is no answer, and it is
left out. Tables keep all but addresses; rules are kept as far as kube-proxy can have written them; objects and metrics
by an allow-list; of logs every line is kept, with pseudonyms for all that has a form or was learned.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from kdnsctl.evidence import redactobjects
from kdnsctl.evidence.renaming import GONE, Renaming

LONGEST: Final = 1 << 20  # bytes of a line; what is longer is cut

Pieces = Iterable[bytes]
Redact = Callable[[Pieces, Renaming], Iterator[bytes]]
Learn = Callable[[Pieces, Renaming], None]

_OTHERS_FIELDS: Final = re.compile(r" (?:secctx|progname|labels|helper)=\S+")
_TUPLE_ADDRESS: Final = re.compile(r"\b(src|dst)=([0-9A-Fa-f.:]+)")
_METRIC: Final = re.compile(r"(?:# (?:HELP|TYPE) )?(?:kubeproxy_|process_(?:start|cpu|resident))")
_LABEL_NAMED: Final = re.compile(r'\b(?:host|node|nodename|instance|pod|namespace|url)="[^"]*",?')
_PARTS: Final = re.compile(
    r'--comment (?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>\S+))|(?P<jump>(?<= )-[jg] )(?P<target>\S+)'
    r'|(?P<option>--(?:log-prefix|string|hex-string|match-set|nflog-prefix|nfacct-name)) (?:"(?:[^"\\]|\\.)*"|\S+)'
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
_MODES: Final = frozenset({"iptables", "ipvs", "nftables", "userspace", "kernelspace"})
_HEALTH: Final = ("lastUpdated", "currentTime", "nodeEligible", "status")


def handler_of(path: str) -> tuple[Redact, Learn] | None:
    """What redacts a file of that path in a bundle, and what learns names from it; None: nothing is known of it."""
    name = path.rpartition("/")[2].removesuffix(".cut").removesuffix(".gz")
    if name.endswith(".err"):
        return _log, _learn_text
    stem, dot, ending = name.partition(".")
    name = f"{_ATTEMPT.sub('', stem)}{dot}{ending}"
    if path.startswith("cluster/"):
        return _OF_CLUSTER.get(name)
    return _OF_NODE.get(name)


_ATTEMPT: Final = re.compile(r"-\d{1,3}\Z")


def lines_of(pieces: Pieces) -> Iterator[str]:
    """Lines with their ends; the rest of one that is too long is left out, and says so."""
    rest = b""
    cut = False
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield ("" if cut else _text(line)) + "\n"
            cut = False
        if len(rest) > LONGEST:
            if not cut:
                yield _text(rest[:LONGEST].rpartition(b" ")[0]) + f" {GONE}"
            rest, cut = b"", True
    if rest and not cut:
        yield _text(rest)


def _table(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    for line in lines_of(pieces):
        plain = _OTHERS_FIELDS.sub("", line)
        yield _bytes(_TUPLE_ADDRESS.sub(lambda match: f"{match[1]}={renaming.address(match[2])}", plain))


def _numbers(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    for line in lines_of(pieces):
        yield _bytes(renaming.rules(line))


def _iptables(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    for line in lines_of(pieces):
        yield _bytes(_rule(line, renaming))


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


def _nft(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    def made(part: re.Match[str]) -> str:
        if part["prefix"]:
            network = renaming.address(f"{part['addr']}/{part['len']}").partition("/")[0]
            return f"{part['prefix']}{network}{part['middle']}{part['len']}"
        return f'{part["comment"]}"{_said(part["text"], renaming)}"'

    yield _bytes(_each(_NFT_PARTS, _text(b"".join(pieces)), renaming, made))


_NFT_PARTS: Final = re.compile(
    r'(?P<prefix>"prefix":\s*\{"addr":\s*")(?P<addr>[^"]+)(?P<middle>",\s*"len":\s*)(?P<len>\d+)'
    r'|(?P<comment>"comment":\s*|\bcomment )"(?P<text>(?:[^"\\]|\\.)*)"'
)


def _ipvs(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    for line in lines_of(pieces):
        yield _bytes(renaming.rules(_HEX_V4.sub(lambda match: _hex(match[1], renaming), line)))


def _hex(digits: str, renaming: Renaming) -> str:
    dotted = ".".join(str(byte) for byte in bytes.fromhex(digits))
    return "".join(f"{int(part):02X}" for part in renaming.address(dotted).split("."))


def _metrics(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    for line in lines_of(pieces):
        if _METRIC.match(line):
            yield _bytes(renaming.rules(_LABEL_NAMED.sub("", line)))


def _mode(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    said = _text(b"".join(pieces))
    yield _bytes(said if said.strip() in _MODES else renaming.prose(said))


def _health(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    said = b"".join(pieces)
    try:
        fields = msgspec.json.decode(said, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        yield _bytes(renaming.prose(_text(said)))
        return
    kept = {key: fields[key] for key in _HEALTH if isinstance(fields.get(key), (str, bool, int))}
    yield msgspec.json.encode({key: renaming.prose(one) if isinstance(one, str) else one for key, one in kept.items()})


def _log(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    for line in lines_of(pieces):
        yield _bytes(renaming.prose(line))


def _list(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    head, kind, items = _listed(pieces)
    yield msgspec.json.encode(head)[:-1] + b',"items":[\n'
    for number, item in enumerate(items):
        yield (b",\n" if number else b"") + redactobjects.redacted(bytes(item), kind, renaming)
    yield b"\n]}\n"


def _learn_list(pieces: Pieces, renaming: Renaming) -> None:
    _, kind, items = _listed(pieces)
    for item in items:
        redactobjects.learn(bytes(item), kind, renaming)


class _List(msgspec.Struct, frozen=True, rename="camel"):
    kind: str = ""
    api_version: str = ""
    metadata: dict[str, Any] = {}
    items: tuple[msgspec.Raw, ...] | None = None


def _listed(pieces: Pieces) -> tuple[dict[str, Any], str, tuple[msgspec.Raw, ...]]:
    said = msgspec.json.decode(b"".join(pieces), type=_List)
    version = str(said.metadata.get("resourceVersion", ""))
    kind = said.kind if re.fullmatch(r"[A-Za-z]{1,40}", said.kind) else ""
    head = {
        "apiVersion": said.api_version if re.fullmatch(r"[a-z0-9./]{1,60}", said.api_version) else "",
        "kind": kind,
        "metadata": {"resourceVersion": version if version.isdigit() else ""},
    }
    return head, kind.removesuffix("List"), said.items or ()


class _Change(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    type: str
    time: str = ""
    resource_version: str = ""
    object: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def _changes(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    for change in _changed(pieces):
        one = change.object
        if not isinstance(one, msgspec.UnsetType):
            one = msgspec.Raw(redactobjects.redacted(bytes(one), "EndpointSlice", renaming))
        yield msgspec.json.encode(msgspec.structs.replace(change, object=one)) + b"\n"


def _learn_changes(pieces: Pieces, renaming: Renaming) -> None:
    for change in _changed(pieces):
        if not isinstance(change.object, msgspec.UnsetType):
            redactobjects.learn(bytes(change.object), "EndpointSlice", renaming)


def _changed(pieces: Pieces) -> Iterator[_Change]:
    """The lines that are changes; the last of a capture that was killed may be none."""
    for line in b"".join(pieces).splitlines():
        try:
            change = msgspec.json.decode(line, type=_Change)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if re.fullmatch(r"[A-Z]{1,20}", change.type) and re.fullmatch(r"[0-9T:.+Z-]*", change.time):
            yield msgspec.structs.replace(change, resource_version=re.sub(r"\D", "", change.resource_version))


def _learn_text(pieces: Pieces, renaming: Renaming) -> None:
    for line in lines_of(pieces):
        renaming.learn_from(line)


def _learn_iptables(pieces: Pieces, renaming: Renaming) -> None:
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


def _learn_nothing(_: Pieces, __: Renaming) -> None:
    pass


_OF_NODE: Final[dict[str, tuple[Redact, Learn]]] = {
    **dict.fromkeys(("conntrack.a.txt", "conntrack.b.txt"), (_table, _learn_nothing)),
    **dict.fromkeys(
        ("conntrack-counters.txt", "conntrack-fill.txt", "conntrack-timeouts.txt", "local-port-range.txt"),
        (_numbers, _learn_nothing),
    ),
    **dict.fromkeys(("iptables-save.txt", "ip6tables-save.txt"), (_iptables, _learn_iptables)),
    **dict.fromkeys(("nft-ip.json", "nft-ip6.json", "nft-ip.txt", "nft-ip6.txt"), (_nft, _learn_text)),
    "ip_vs.txt": (_ipvs, _learn_nothing),
    "proxy-mode.txt": (_mode, _learn_nothing),
    "healthz.json": (_health, _learn_nothing),
    "metrics.txt": (_metrics, _learn_nothing),
    **dict.fromkeys(("kube-proxy.log", "kube-proxy-previous.log"), (_log, _learn_text)),
}
_OF_CLUSTER: Final[dict[str, tuple[Redact, Learn]]] = {
    **dict.fromkeys(("services.json", "endpointslices.json", "nodes.json", "pods.json"), (_list, _learn_list)),
    "endpointslices-watch.jsonl": (_changes, _learn_changes),
}


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
