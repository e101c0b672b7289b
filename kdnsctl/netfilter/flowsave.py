"""One line of `conntrack -o save`: the options with which `conntrack -R` would make the entry again.

It names no counters, marks or ids. Options that are not known are kept with their values (src/conntrack.c of
conntrack-tools, ct_save_snprintf).
"""

from __future__ import annotations

from kdnsctl.netfilter.addresses import Addresses
from kdnsctl.netfilter.entries import Entry, Seen
from kdnsctl.netfilter.flowfields import PROTOCOL_NUMBERS, Fields, number, protocol, text

COMMANDS = {b"-A": "", b"-I": "", b"-U": "UPDATE", b"-D": "DESTROY"}
"""What begins a line. `-A` stands for entries as well as for new ones; who made them is told of events only."""

_ORIGINAL = {b"-s": b"src", b"-d": b"dst", b"--sport": b"sport", b"--dport": b"dport"}
_REPLY = {
    b"-r": b"src",  # not NATed
    b"-g": b"src",  # DNATed
    b"-q": b"dst",
    b"-n": b"dst",  # SNATed
    b"--reply-port-src": b"sport",
    b"--reply-port-dst": b"dport",
}
_NUMBERS = {b"-t": "timeout", b"-w": "zone", b"-m": "mark"}


def parse(line: bytes, at: int, addresses: Addresses, *, cut: bool = False) -> Entry | None:
    """The entry on line number `at`, or None. The last token of a line that was `cut` is not trusted."""
    options, by_user, _ = line.partition(b" [USERSPACE]")
    tokens = options.split()
    if cut:
        tokens = tokens[:-1]
    if not tokens or tokens[0] not in COMMANDS:
        return None
    fields = Fields(event=COMMANDS[tokens[0]] or ("NEW" if by_user else ""))
    position = 1
    while position < len(tokens):
        option = tokens[position]
        has_value = position + 1 < len(tokens) and not tokens[position + 1].startswith(b"-")
        value = tokens[position + 1] if has_value else b""
        position += 2 if has_value else 1
        side, name = (fields.original, _ORIGINAL[option]) if option in _ORIGINAL else (fields.reply, _REPLY.get(option))
        if name is not None:
            if name in side:
                return None
            side[name] = value
        elif option in _NUMBERS:
            fields.keep_number(_NUMBERS[option], value, option + b" " + value)
        elif option == b"-p":
            fields.protocol = _protocol(value)
        elif option == b"-u":
            fields.seen = _seen(value)
        elif option == b"--state":
            fields.state = text(value)
        else:
            fields.unknown.append(text(option + b" " + value if value else option))
    return fields.entry(at, addresses)


def _protocol(value: bytes) -> str:
    parsed = number(value)
    if parsed is None:
        return protocol(value)
    return PROTOCOL_NUMBERS.get(parsed, f"unknown {parsed}")


def _seen(value: bytes) -> Seen:
    """The status as text prints it: offload hides ASSURED, which hides SEEN_REPLY."""
    flags = value.split(b",")
    for seen in (Seen.HW_OFFLOAD, Seen.OFFLOAD, Seen.ASSURED):
        if seen.value.encode() in flags:
            return seen
    return Seen.REPLIED if b"SEEN_REPLY" in flags else Seen.UNREPLIED
