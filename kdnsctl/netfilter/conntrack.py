"""Reads a connection tracking table in whatever form it was dumped, in a stream, and says whether it was all of it.

`conntrack -L` (plain, extended, save, XML), `conntrack -E` and /proc/net/nf_conntrack are told apart by what they
contain. Every entry is counted; only those of wanted keys become records, so that a healthy table of a million costs no
memory. Nothing is judged here, and no bytes make it fail: what cannot be read is counted and shown once.

Lines of the shapes that kernels really print are recognised by one expression, which is enough to count them; every
other line, and every entry that is wanted, goes through `flowtext`, token by token. Both ways give the same answer.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kdnsctl.model import Reason
from kdnsctl.netfilter import flowfields, flowsave, flowtext, flowxml
from kdnsctl.netfilter.addresses import Addresses
from kdnsctl.netfilter.conntracksaid import Said
from kdnsctl.netfilter.dump import Completeness, Proof
from kdnsctl.netfilter.entries import Entry, Key, Wanted
from kdnsctl.netfilter.flowfields import text
from kdnsctl.netfilter.lines import shown
from kdnsctl.netfilter.trailer import Trailer

MOST_LINE = 16 * 1024
"""Bytes of one line that are read; the longest that the kernel and conntrack print have less than 1,000."""
MOST_KEYS = 100_000
"""Keys that are remembered at a time; when there are more, some are asked for again."""
MOST_PROTOCOLS = 64
"""Protocols that are counted apart; further ones are counted together as `OTHERS`."""
OTHERS = "others"
SHOWN = 200
"""Characters of an unreadable line that are shown."""

_ADDRESS = rb"([0-9a-f.:]{2,45})"
_PORT = rb"(?:[1-5]?[0-9]{1,4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_ACCOUNT = rb"(?:packets=[0-9]{1,20} bytes=[0-9]{1,20} )?"
LINES = re.compile(
    rb"(?:ipv[46] {1,9}[0-9]{1,3} )?(udp|tcp|udplite|sctp|dccp) {1,9}[0-9]{1,3} "
    rb"(?:[0-9]{1,9} )?(?:[A-Z][A-Z0-9_]{1,30} )?"
    rb"src=" + _ADDRESS + rb" dst=" + _ADDRESS + rb" sport=" + _PORT + rb" dport=([0-9]{1,5}) " + _ACCOUNT
    + rb"(?:\[UNREPLIED\] )?"
    rb"src=" + _ADDRESS + rb" dst=" + _ADDRESS + rb" sport=([0-9]{1,5}) dport=" + _PORT + rb" " + _ACCOUNT
    + rb"(?:\[(?:ASSURED|OFFLOAD|HW_OFFLOAD)\] )?(?:mark=[0-9]{1,20} )?(?:secctx=[^\s\[\]]{0,300} )?"
    rb"(?:zone=[0-9]{1,20} )?(?:delta-time=[0-9]{1,20} )?(?:\[start=[A-Za-z0-9: ]{1,40}\] )?"
    rb"use=[0-9]{1,9}(?: id=[0-9]{1,20})?\n"
    rb"|[^\n]*\n"
)  # fmt: skip
"""One line each time: of a known shape, in groups, or any other, in none."""

_Shape = tuple[bytes, bytes, bytes, bytes, bytes]


class Form(enum.StrEnum):
    """The forms of a dump, told apart by content. /proc/net/nf_conntrack is text as `conntrack -L` prints it."""

    TEXT = "text"
    SAVE = "save"
    XML = "xml"
    EVENTS = "events"
    MESSAGES = "messages"  # nothing but what conntrack says on stderr; with a count of 0 it is a whole dump


@dataclass(frozen=True, slots=True)
class Summary:
    """What a dump had in all. `entries` counts every readable one, wanted or not, also by protocol.

    `families` are 4 and 6, as far as seen. `unreadable` counts lines that are no entry, `example` is the first of them
    and `example_line` its number. `form` is that of the first entry, None when there was nothing. `total` is how many
    lines there were before the node filtered them, None when it did not. `last` has the wanted entry that only the end
    of the dump made sure of, if there is one.
    """

    form: Form | None
    entries: int
    by_protocol: Mapping[str, int]
    families: frozenset[int]
    unreadable: int
    example: str
    example_line: int
    total: int | None
    completeness: Completeness
    last: tuple[Entry, ...] = ()


def everything(key: Key) -> bool:
    """Want every entry as a record."""
    return bool(key)


def recognise(beginning: bytes) -> Form | None:
    """The form of a dump from its first bytes (a few kB), or None when it is no dump of connection tracking."""
    addresses = Addresses()
    found = None
    for line in beginning.splitlines()[:20]:
        if not (stripped := line.strip()) or line.startswith(flowxml.OPENINGS[0]):
            continue
        if line.startswith(flowxml.OPENINGS[1:]):
            return Form.XML
        if Said().hear(stripped):
            found = Form.MESSAGES
        elif flowsave.parse(line, 0, addresses) is not None:
            return Form.SAVE
        elif (entry := flowtext.parse(line, 0, addresses)) is not None:
            return Form.EVENTS if entry.event else Form.TEXT
    return found


class _Slot:
    """What is known of one key: whether it is wanted, and how many entries had it since it was last asked for."""

    __slots__ = ("count", "family", "protocol", "wanted")

    def __init__(self, key: Key, *, wanted: bool) -> None:
        self.count = 0
        self.wanted = wanted
        self.protocol = key.protocol
        self.family = 6 if ":" in key.destination else 4


class ConntrackReader:
    """Reads one dump. `feed` it blocks cut anywhere, then `finish`; `wanted` is asked once for each distinct key."""

    def __init__(self, wanted: Wanted = everything) -> None:
        self._wanted = wanted
        self._addresses = Addresses()
        self._slots: dict[Key, _Slot] = {}
        self._shapes: dict[_Shape, _Slot | None] = {}
        self._found: list[Entry] = []
        self._counts: dict[str, int] = {}
        self._families: set[int] = set()
        self._unreadable = 0
        self._example = ""
        self._example_line = 0
        self._form: Form | None = None
        self._events = False
        self._said = Said()
        self._carry = b""
        self._skipping = False
        self._line = 1
        self._xml: flowxml.Pieces | None = None
        self._open_documents = 0
        self._closed = False

    def feed(self, block: bytes) -> list[Entry]:
        """Take the next bytes of the dump; returns the wanted entries that they complete."""
        if self._xml is None:
            block = self._lines(block)
        if self._xml is not None and block:
            self._pieces(self._xml.feed(block))
        return self._taken()

    def finish(self, *, errors: bytes = b"", trailer: Trailer | None = None) -> Summary:
        """The dump is over. `errors` is what the command wrote to stderr, `trailer` what the node's shell said last."""
        cut = bool(self._carry) or self._skipping
        if self._carry:
            self._one_line(self._carry, cut=True)
            self._carry = b""
        if self._xml is not None:
            self._pieces(self._xml.finish())
        last = tuple(self._taken())
        self._settle()
        self._said.hear_all(errors)
        if self._form is None and (self._said.shown is not None or self._said.events):
            self._form = Form.MESSAGES
        return Summary(
            form=self._form,
            entries=sum(self._counts.values()),
            by_protocol=dict(sorted(self._counts.items())),
            families=frozenset(self._families),
            unreadable=self._unreadable,
            example=self._example,
            example_line=self._example_line,
            total=trailer.total if trailer else None,
            completeness=self._completeness(trailer, cut=cut),
            last=last,
        )

    # --- lines

    def _lines(self, block: bytes) -> bytes:
        """Read the lines of a block. Returns what belongs to an XML document, if one begins here."""
        if self._skipping:
            end = block.find(b"\n") + 1
            if not end:
                return b""
            self._skipping = False
            self._line += 1
            block = block[end:]
        data = self._carry + block if self._carry else block
        end = data.rfind(b"\n") + 1
        self._carry = data[end:]
        if (begin := self._whole_lines(data[:end])) >= 0:
            return self._begin_xml(data[begin:])
        if self._carry.startswith(flowxml.OPENINGS):
            return self._begin_xml(self._carry)
        if len(self._carry) > MOST_LINE:
            self._cannot_read(self._carry, self._line)
            self._skipping = True
            self._carry = b""
        return b""

    def _whole_lines(self, lines: bytes) -> int:
        """Read lines that each end with a newline; returns where an XML document begins, or -1."""
        shapes = self._shapes
        family, families = self._addresses.family, self._addresses.families
        number = self._line
        for match in LINES.finditer(lines):
            protocol, source, destination, port, answers, back, answer_port = match.groups()
            if protocol is not None:
                shape = (protocol, destination, port, answers, answer_port)
                try:
                    slot = shapes[shape]
                except KeyError:
                    slot = self._shape(shape, source, back)
                if (
                    slot is not None
                    and not slot.wanted
                    and (families.get(source) or family(source)) == slot.family
                    and (families.get(back) or family(back)) == slot.family
                ):
                    slot.count += 1
                    number += 1
                    continue
            self._line = number
            line = match[0]
            if line.startswith(flowxml.OPENINGS):
                return match.start()
            self._one_line(line[:-1])
            number += 1
        self._line = number
        return -1

    def _shape(self, shape: _Shape, source: bytes, back: bytes) -> _Slot | None:
        """The slot of all lines with these bytes in the places that make a key, or None when this line is no entry."""
        if len(self._shapes) >= MOST_KEYS:
            self._shapes.clear()
        protocol, destination, port, answers, answer_port = shape
        to, to_port = self._addresses.shortest(destination), flowfields.port(port)
        reply, reply_port = self._addresses.shortest(answers), flowfields.port(answer_port)
        if to is None or reply is None or -1 in (to_port, reply_port):
            self._shapes[shape] = None
            return None
        if len({self._addresses.family(address) for address in (source, destination, answers, back)}) != 1:
            return None
        self._form = self._form or Form.TEXT
        slot = self._slot(Key(text(protocol), to, to_port, reply, reply_port))
        self._shapes[shape] = slot
        return slot

    def _begin_xml(self, data: bytes) -> bytes:
        self._xml = flowxml.Pieces(self._line)
        self._form = self._form or Form.XML
        self._carry = b""
        return data

    def _one_line(self, line: bytes, *, cut: bool = False) -> None:
        stripped = line.strip()
        if len(line) > MOST_LINE:
            self._cannot_read(line, self._line)
        elif not stripped:
            return
        elif stripped[:2] in flowsave.COMMANDS:
            self._take(flowsave.parse(line, self._line, self._addresses, cut=cut), Form.SAVE, line, self._line)
        elif not self._said.hear(stripped):
            self._take(flowtext.parse(line, self._line, self._addresses, cut=cut), Form.TEXT, line, self._line)

    def _pieces(self, pieces: Iterable[tuple[flowxml.Kind, bytes, int]]) -> None:
        for kind, piece, line in pieces:
            if kind is flowxml.Kind.FLOW:
                self._take(flowxml.parse(piece, line, self._addresses), Form.XML, piece, line)
            elif kind is flowxml.Kind.BETWEEN and (tags := flowxml.outside(piece)) is not None:
                self._open_documents += tags[0] - tags[1]
                self._closed = self._closed or bool(tags[1])
            elif kind is flowxml.Kind.OVERLONG or not self._said.hear(piece.strip()):
                self._cannot_read(piece, line)

    # --- entries

    def _take(self, entry: Entry | None, form: Form, line: bytes, number: int) -> None:
        if entry is None:
            self._cannot_read(line, number)
            return
        self._form = self._form or (Form.EVENTS if entry.event and form is Form.TEXT else form)
        self._events = self._events or bool(entry.event)
        slot = self._slot(entry.key)
        slot.count += 1
        if slot.wanted:
            self._found.append(entry)

    def _slot(self, key: Key) -> _Slot:
        slot = self._slots.get(key)
        if slot is None:
            if len(self._slots) >= MOST_KEYS:
                self._settle()
            slot = self._slots[key] = _Slot(key, wanted=self._wanted(key))
            self._families.add(slot.family)
        return slot

    def _settle(self) -> None:
        """Add up what the keys have counted, and forget them."""
        for slot in self._slots.values():
            known = slot.protocol in self._counts or len(self._counts) < MOST_PROTOCOLS
            name = slot.protocol if known else OTHERS
            self._counts[name] = self._counts.get(name, 0) + slot.count
        self._slots.clear()
        self._shapes.clear()

    def _taken(self) -> list[Entry]:
        found, self._found = self._found, []
        return found

    def _cannot_read(self, line: bytes, number: int) -> None:
        self._unreadable += 1
        if self._unreadable == 1:
            self._example = shown(line[:MOST_LINE].strip(), SHOWN)
            self._example_line = number

    # --- whether that was all

    def _completeness(self, trailer: Trailer | None, *, cut: bool) -> Completeness:
        proof = Proof.NONE
        if trailer is not None:
            proof = Proof.TRAILER
        elif self._said.shown is not None:
            proof = Proof.COUNT_LINE
        elif self._closed:
            proof = Proof.CLOSED
        return Completeness(proof, self._problem(trailer, proof, cut=cut))

    def _problem(self, trailer: Trailer | None, proof: Proof, *, cut: bool) -> Reason | None:
        entries = sum(self._counts.values())
        count = self._said.shown
        if trailer is not None and trailer.exit_code:
            return Reason("commandFailed", f"the command ended with exit code {trailer.exit_code} on the node")
        if self._said.problem:
            return Reason("commandFailed", self._said.problem)
        if self._events or self._said.events:
            return Reason("events", "these are events, which are no table")
        if cut:
            return Reason("cut", "the last line has no end")
        if self._xml is not None and (self._open_documents or not self._closed):
            return Reason("cut", "the document is not whole from <conntrack> to </conntrack>")
        if self._unreadable:
            where = f"line {self._example_line:,}"
            return Reason("unreadable", f"{self._unreadable:,} lines cannot be read, the first is {where}")
        if count is not None and count != entries:
            return Reason("countDiffers", f"conntrack has shown {count:,} entries, of which {entries:,} are here")
        if trailer is not None and trailer.total is not None and trailer.total < entries:
            return Reason("countDiffers", f"{entries:,} entries are here, of {trailer.total:,} in the table")
        if proof is Proof.NONE:
            return Reason("noProof", "nothing shows that this is all: no count line, trailer or end tag")
        return None
