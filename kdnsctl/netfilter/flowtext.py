"""One line of `conntrack -L`, of `conntrack -E`, or of /proc/net/nf_conntrack, taken apart by what its tokens are.

Never by position: which columns a line has depends on the kernel, on two sysctls, on SELinux, on flow offload and on
the options of the command (src/conntrack/snprintf_default.c of libnetfilter_conntrack, ct_seq_show of the kernel's
net/netfilter/nf_conntrack_standalone.c). Tokens that are not known are kept. A line that a judgement cannot rest on is
no entry; whether that matters is for the reader of the whole dump to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kdnsctl.netfilter.addresses import Addresses
from kdnsctl.netfilter.entries import Entry, Seen
from kdnsctl.netfilter.flowfields import Fields, number, protocol, text

_TOKEN = re.compile(rb"\[[^][]*\]|\S+")
_EVENT_TIME = re.compile(rb"\[[0-9]+\.[0-9]+\]\Z")
_STATE = re.compile(rb"[A-Z][A-Z0-9_]*\Z")

_EVENTS = {b"[NEW]": "NEW", b"[UPDATE]": "UPDATE", b"[DESTROY]": "DESTROY"}
_SEEN = {f"[{seen.value}]".encode(): seen for seen in Seen if seen.value}
_TUPLE = frozenset({b"src", b"dst", b"sport", b"dport", b"packets", b"bytes", b"type", b"code", b"srckey", b"dstkey"})
_NUMBERS = {b"mark": "mark", b"zone": "zone", b"id": "id"}
# Known, but nothing is judged by them: the zones of one direction, and who deleted the entry, among others.
_KNOWN = frozenset(
    b"zone-orig zone-reply secctx secmark delta-time labels helper use portid progname timeout stream_timeout".split()
)


def parse(line: bytes, at: int, addresses: Addresses, *, cut: bool = False) -> Entry | None:
    """The entry on line number `at`, or None. The last token of a line that was `cut` is not trusted."""
    tokens = _TOKEN.findall(line)
    if cut:
        tokens = tokens[:-1]
    fields = Fields()
    head: list[bytes] = []
    current: dict[bytes, bytes] | None = None
    for token in tokens:
        name, equals, value = token.partition(b"=")
        if token.startswith(b"["):
            _bracket(token, fields, in_head=current is None)
        elif equals and name == b"src":
            if current is fields.reply:
                return None
            current = fields.original if current is None else fields.reply
            current[name] = value
        elif not equals and current is None:
            head.append(token)
        elif name in _NUMBERS and not _of_icmp(name, current):
            fields.keep_number(_NUMBERS[name], value, token)
        elif current is not None and (name in _TUPLE or name == b"id"):
            if name in current:
                return None
            current[name] = value
        elif name not in _KNOWN or not equals:
            fields.unknown.append(text(token))
    return fields.entry(at, addresses) if _head(head, fields) else None


def _of_icmp(name: bytes, current: dict[bytes, bytes] | None) -> bool:
    """Whether this is the `id=` of an ICMP tuple, and not the entry's."""
    return name == b"id" and current is not None and b"type" in current and b"id" not in current


def _bracket(token: bytes, fields: Fields, *, in_head: bool) -> None:
    if (seen := _SEEN.get(token)) is not None:
        fields.seen = seen
    elif in_head and token in _EVENTS:
        fields.event = _EVENTS[token]
    elif token.startswith(b"[start="):
        fields.start = text(token[7:].removesuffix(b"]"))
    elif not (
        token.startswith(b"[stop=") or token == b"[USERSPACE]" or (in_head and _EVENT_TIME.match(token) is not None)
    ):
        fields.unknown.append(text(token))


def _head(words: Sequence[bytes], fields: Fields) -> bool:
    """Read `[family number] protocol number [timeout] [state]`; False when it is not that."""
    if len(words) >= 4 and _named(words) and _named(words[2:]):
        words = words[2:]
    if not _named(words):
        return False
    fields.protocol = protocol(words[0], words[1])
    for word in words[2:]:
        if "timeout" not in fields.numbers and not fields.state and number(word) is not None:
            fields.keep_number("timeout", word, word)
        elif not fields.state and _STATE.match(word):
            fields.state = text(word)
        else:
            fields.unknown.append(text(word))
    return bool(fields.protocol)


def _named(words: Sequence[bytes]) -> bool:
    """Whether a name and its number come first."""
    return len(words) >= 2 and number(words[0]) is None and number(words[1]) is not None
