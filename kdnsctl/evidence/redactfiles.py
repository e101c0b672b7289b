"""What becomes of each kind of file in a bundle when it is redacted: content in, content out, piece by piece. Pure.

Files are known by the names that collecting gives them. For one that is not known here there is no answer, and it is
left out. Tables keep all but addresses; rules are kept as far as kube-proxy can have written them; objects and metrics
by an allow-list; of logs every line is kept, with pseudonyms for all that has a form or was learned.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from kdnsctl.evidence import redactobjects, redactrules
from kdnsctl.evidence.redactlines import Pieces, bytes_of, lines_of, text_of, whole
from kdnsctl.evidence.renaming import Renaming

Redact = Callable[[Pieces, Renaming], Iterator[bytes]]
Learn = Callable[[Pieces, Renaming], None]

_OTHERS_FIELDS: Final = re.compile(r" (?:secctx|progname|labels|helper)=\S+")
_TUPLE_ADDRESS: Final = re.compile(r"\b(src|dst)=([0-9A-Fa-f.:]+)")
_METRIC: Final = re.compile(r"(?:# (?:HELP|TYPE) )?(?:kubeproxy_|process_(?:start|cpu|resident))")
_LABEL_NAMED: Final = re.compile(r'\b(?:host|node|nodename|instance|pod|namespace|url)="[^"]*",?')
_MODES: Final = frozenset({"iptables", "ipvs", "nftables", "userspace", "kernelspace"})
_HEALTH: Final = frozenset({"lastUpdated", "currentTime", "nodeEligible", "status", "healthy", "IPv4", "IPv6"})


def handler_of(path: str) -> tuple[Redact, Learn] | None:
    """What redacts a file of that path in a bundle, and what learns names from it; None: nothing is known of it."""
    name, files = _plain_name(path), _OF_CLUSTER if path.startswith("cluster/") else _OF_NODE
    if name.endswith(".err"):
        beside = _plain_name(name.removesuffix(".err"))
        return (_log, _learn_text) if beside in files or beside in WITHHELD else None
    return files.get(name)


def is_withheld(path: str) -> bool:
    """Whether a file is left out because of what it is, and not because nobody knows it."""
    return _plain_name(path) in WITHHELD


def _plain_name(path: str) -> str:
    """A file's name as it is given first: without packing, and without the number of a later attempt."""
    name = path.rpartition("/")[2].removesuffix(".cut").removesuffix(".gz")
    stem, dot, ending = name.partition(".")
    return f"{_ATTEMPT.sub('', stem)}{dot}{ending}"


_ATTEMPT: Final = re.compile(r"-\d{1,3}\Z")


def _table(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    for line in lines_of(pieces):
        plain = _OTHERS_FIELDS.sub("", line)
        yield bytes_of(_TUPLE_ADDRESS.sub(lambda match: f"{match[1]}={renaming.address(match[2])}", plain))


def _numbers(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    for line in lines_of(pieces):
        yield bytes_of(renaming.rules(line))


def _metrics(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    for line in lines_of(pieces):
        if _METRIC.match(line):
            yield bytes_of(renaming.rules(_LABEL_NAMED.sub("", line)))


def _mode(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    said = text_of(whole(pieces))
    yield bytes_of(said if said.strip() in _MODES else renaming.prose(said))


def _health(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    said = whole(pieces)
    try:
        fields = msgspec.json.decode(said, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        yield bytes_of(renaming.prose(text_of(said)))
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
    config = msgspec.json.decode(whole(pieces), type=dict[str, Any]).get(_CONFIG_GROUP)
    named = (config.get("Mode") or config.get("mode")) if isinstance(config, dict) else None
    yield msgspec.json.encode({_CONFIG_GROUP: {"mode": named if named in _MODES else ""}})


_CONFIG_GROUP: Final = "kubeproxy.config.k8s.io"


def _kernel_log(pieces: Pieces, _: Renaming) -> Iterator[bytes]:
    """Of the kernel's log, which can name anything, that a table was full."""
    for line in lines_of(pieces):
        if (match := _TABLE_FULL.match(line)) is not None:
            yield bytes_of(f"{match[1]}nf_conntrack: {match[2]}\n")


_TABLE_FULL: Final = re.compile(
    r"((?:<\d{1,4}>)?(?:\[ {0,12}\d{1,12}\.\d{1,9}\] ?)?).{0,200}?"
    r"nf_conntrack: (?:nf_conntrack: )?(table full[\w ,]{0,60})"
)


def _identity(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    """Which kernel and distribution it is, not which machine."""
    for line in lines_of(pieces):
        if (match := _KERNEL.match(line)) is not None:
            yield bytes_of(f"{match[1]}{renaming.prose(match[2])}\n")


_KERNEL: Final = re.compile(r"(/proc/sys/kernel/osrelease:|ID=|VERSION_ID=)(\"?[\w.+~-]{1,80}\"?)\n")


def _resolver(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    """Of the resolver's configuration the lines that it reads: comments, and words it does not know, name people."""
    for line in lines_of(pieces):
        key, *said = line.split()[:_MOST_WORDS] or [""]
        if key == "nameserver":
            yield bytes_of(" ".join((key, *(renaming.address(one) for one in said if _ADDRESS.fullmatch(one)))) + "\n")
        elif key in ("search", "domain"):
            yield bytes_of(" ".join((key, *(_domain(one, renaming) for one in said))) + "\n")
        elif key == "options":
            yield bytes_of(" ".join((key, *(one for one in said if _RESOLVER_OPTION.fullmatch(one)))) + "\n")


def _domain(name: str, renaming: Renaming) -> str:
    """A domain's pseudonym, also that of one without dots; those of every cluster stay."""
    plain = name.rstrip(".")
    return name if plain in _EVERY_CLUSTERS else renaming.name("host", plain)


_MOST_WORDS: Final = 64
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f:]*(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f:]*:[0-9A-Fa-f:]*")
_RESOLVER_OPTION: Final = re.compile(
    r"(?:ndots|timeout|attempts):\d{1,5}|debug|rotate|no-check-names|inet6|edns0|single-request(?:-reopen)?|no-tld-query"
    r"|use-vc|no-reload|trust-ad|no-aaaa"
)  # resolv.conf(5)
_EVERY_CLUSTERS: Final = frozenset({".", "", "cluster.local", "svc.cluster.local", "kube-system.svc.cluster.local"})


def _log(pieces: Pieces, renaming: Renaming) -> Iterator[bytes]:
    for line in lines_of(pieces):
        yield bytes_of(renaming.prose(line))


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
    said = msgspec.json.decode(whole(pieces), type=_List)
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
    for line in whole(pieces).splitlines():
        try:
            change = msgspec.json.decode(line, type=_Change)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if re.fullmatch(r"[A-Z]{1,20}", change.type) and (not change.time or redactobjects.TIME.fullmatch(change.time)):
            yield msgspec.structs.replace(change, resource_version=re.sub(r"\D", "", change.resource_version))


def _learn_text(pieces: Pieces, renaming: Renaming) -> None:
    for line in lines_of(pieces):
        renaming.learn_from(line)


def _learn_nothing(_: Pieces, __: Renaming) -> None:
    pass


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
    **_all("iptables-save.txt ip6tables-save.txt", redactrules.iptables, redactrules.learn_iptables),
    **_all("nft-ip.json nft-ip6.json nft-ip.txt nft-ip6.txt", redactrules.nft, _learn_text),
    **_all("ip_vs.txt", redactrules.ipvs),
    **_all("proxy-mode.txt", _mode),
    **_all("healthz.json", _health),
    **_all("metrics.txt", _metrics),
    **_all("configz.json", _config),
    **_all("kernel.log", _kernel_log),
    **_all("identity.txt os-release.txt", _identity),
    **_all("resolv.conf", _resolver),
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
