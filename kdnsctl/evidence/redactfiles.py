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
from kdnsctl.logs.sources.opening import Code, SourceError

MOST_WHOLE: Final = 256 << 20  # bytes of a list of objects or of rules as JSON: as `analyze` reads them
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
_HEALTH: Final = frozenset({"lastUpdated", "currentTime", "nodeEligible", "status", "healthy", "IPv4", "IPv6"})


def handler_of(path: str) -> tuple[Redact, Learn] | None:
    """What redacts a file of that path in a bundle, and what learns names from it; None: nothing is known of it."""
    name = _plain_name(path)
    if name.endswith(".err"):
        return _log, _learn_text
    return (_OF_CLUSTER if path.startswith("cluster/") else _OF_NODE).get(name)


def is_withheld(path: str) -> bool:
    """Whether a file is left out because of what it is, and not because nobody knows it."""
    return _plain_name(path) in WITHHELD


def _plain_name(path: str) -> str:
    """A file's name as it is given first: without packing, and without the number of a later attempt."""
    name = path.rpartition("/")[2].removesuffix(".cut").removesuffix(".gz")
    stem, dot, ending = name.partition(".")
    return f"{_ATTEMPT.sub('', stem)}{dot}{ending}"


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

    yield _bytes(_each(_NFT_PARTS, _text(_whole(pieces)), renaming, made))


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
    said = _text(_whole(pieces))
    yield _bytes(said if said.strip() in _MODES else renaming.prose(said))


def _health(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    said = _whole(pieces)
    try:
        fields = msgspec.json.decode(said, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        yield _bytes(renaming.prose(_text(said)))
        return
    yield msgspec.json.encode(_plain(fields))


def _plain(value: Any) -> Any:
    """What holds numbers, booleans, times and none but known words, at any depth; the rest is left out."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if key in _HEALTH}
    if isinstance(value, str):
        return value if _TIME.fullmatch(value) else ""
    return value if isinstance(value, (bool, int, float)) else None


_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]{8,18}(?: ?[+-][0-9:]{4,5}|Z)?(?: [A-Z+0-9]{1,5})?(?: m=[+0-9.]+)?"
)


def _config(pieces: Pieces, _: Renaming) -> Iterator[bytes]:
    """Of kube-proxy's configuration its mode: all else can name hosts, files and people."""
    config = msgspec.json.decode(_whole(pieces), type=dict[str, Any]).get(_CONFIG_GROUP)
    named = (config.get("Mode") or config.get("mode")) if isinstance(config, dict) else None
    yield msgspec.json.encode({_CONFIG_GROUP: {"mode": named if named in _MODES else ""}})


_CONFIG_GROUP: Final = "kubeproxy.config.k8s.io"


def _kernel_log(pieces: Pieces, _: Renaming) -> Iterator[bytes]:
    """Of the kernel's log, which can name anything, that a table was full."""
    for line in lines_of(pieces):
        if (match := _TABLE_FULL.match(line)) is not None:
            yield _bytes(f"{match[1]}nf_conntrack: {match[2]}\n")


_TABLE_FULL: Final = re.compile(
    r"((?:<\d{1,4}>)?(?:\[ {0,12}\d{1,12}\.\d{1,9}\] ?)?).{0,200}?"
    r"nf_conntrack: (?:nf_conntrack: )?(table full[\w ,]{0,60})"
)


def _identity(pieces: Pieces, _: Renaming) -> Iterator[bytes]:
    """Which kernel and distribution it is, not which machine."""
    for line in lines_of(pieces):
        if _KERNEL.match(line):
            yield _bytes(line)


_KERNEL: Final = re.compile(r"/proc/sys/kernel/osrelease:[\w.+~-]{1,80}\n|(?:ID|VERSION_ID)=\"?[\w.-]{1,40}\"?\n")


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
    said = msgspec.json.decode(_whole(pieces), type=_List)
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
    for line in _whole(pieces).splitlines():
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


def _whole(pieces: Pieces) -> bytes:
    """All of a file that is gone through as one. Raises SourceError for one that is larger than any of its kind."""
    found: list[bytes] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MOST_WHOLE:
            raise SourceError(Code.TOO_LARGE, f"it is longer than {MOST_WHOLE} bytes")
        found.append(piece)
    return b"".join(found)


def _all(names: str, redact: Redact, learn: Learn = _learn_nothing) -> dict[str, tuple[Redact, Learn]]:
    return dict.fromkeys(names.split(), (redact, learn))


_OF_NODE: Final[dict[str, tuple[Redact, Learn]]] = {
    **_all(
        """
        conntrack.a.txt conntrack.b.txt conntrack.a.v4.txt conntrack.a.v6.txt conntrack.b.v4.txt conntrack.b.v6.txt
        """,
        _table,
    ),
    **_all(
        """
        conntrack-counters.txt conntrack-counters.a.txt conntrack-counters.b.txt conntrack-fill.txt local-port-range.txt
        conntrack-timeouts.txt conntrack-settings.txt ip_vs-settings.txt ip_vs_stats.txt net-counters.txt netns.txt
        clock.txt
        """,
        _numbers,
    ),
    **_all("iptables-save.txt ip6tables-save.txt", _iptables, _learn_iptables),
    **_all("nft-ip.json nft-ip6.json nft-ip.txt nft-ip6.txt", _nft, _learn_text),
    **_all("ip_vs.txt", _ipvs),
    **_all("proxy-mode.txt", _mode),
    **_all("healthz.json", _health),
    **_all("metrics.txt", _metrics),
    **_all("configz.json", _config),
    **_all("kernel.log", _kernel_log),
    **_all("identity.txt os-release.txt", _identity),
    **_all("resolv.conf", _log),
    **_all("kube-proxy.log kube-proxy-previous.log", _log, _learn_text),
}
_OF_CLUSTER: Final[dict[str, tuple[Redact, Learn]]] = {
    **_all("services.json endpointslices.json nodes.json pods.json pods.clients.json", _list, _learn_list),
    **_all("endpointslices-watch.jsonl", _changes, _learn_changes),
}
WITHHELD: Final = frozenset(
    """
    udp.txt udp6.txt net-ipv4.txt net-ipv6.txt ip-neigh.json ip-route4.json ip-route6.json ip-rule4.json ip-rule6.json
    ip_vs_conn.txt ipset.txt modules.txt events.json events.nodes.json daemonsets.json deployments.json configmaps.json
    clock.json
    """.split()  # noqa: SIM905 - read as prose
)
"""Known files that are not in a redacted bundle: no verdict hangs on them, and what they hold has no bounds."""


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
