"""What `nft list table ip kube-proxy` prints without `-j`: a fall-back for images whose nft has no JSON.

nft 1.0.6 prints `dnat ip to numgen …` where `dnat ip addr . port to numgen …` was written, but the elements of the map
are all there, so nothing that matters is lost. Only what kube-proxy writes is understood; the rest is skipped, and a
condition that is not known makes probabilities unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kdnsctl.model import Reason
from kdnsctl.netfilter.flows import Action, Step
from kdnsctl.netfilter.lines import shown
from kdnsctl.netfilter.nftmodel import (
    AFFINITY_SET,
    FAMILIES,
    STOPS,
    TABLE,
    Element,
    NftRule,
    NftTable,
    branch,
    send,
    send_to,
    share_of,
)

_WORD = re.compile(r'"[^"\n]*"|[{},;\n]|#[^\n]*|[^\s{},;"#][^\s{},;"]*|"')
_ELEMENT_OPTIONS = {"comment", "timeout", "expires", "counter", "quota", "limit"}


def tables_of(text: str) -> tuple[list[NftTable], Reason | None]:
    """kube-proxy's tables in the output, one for each family, and what shows that the output was cut off."""
    reader = _Reader()
    for word in _words(text):
        reader.take(word)
    if reader.tables and (reader.depth or reader.damaged):
        return list(reader.tables.values()), Reason("noEnd", "the output breaks off, or is damaged")
    return list(reader.tables.values()), None


def _words(text: str) -> Iterator[str]:
    for match in _WORD.finditer(text):
        if not match[0].startswith("#"):
            yield match[0]


class _Reader:
    """Follows the braces: a table, in it a set, map or chain, in it statements."""

    def __init__(self) -> None:
        self.tables: dict[str, NftTable] = {}
        self.damaged = False
        self._blocks: list[list[str]] = []
        self._statement: list[str] = []
        self._nested = 0

    @property
    def depth(self) -> int:
        """How many braces are open."""
        return len(self._blocks) + self._nested

    def take(self, word: str) -> None:
        if self._nested:
            self._nested += {"{": 1, "}": -1}.get(word, 0)
            if word != "\n":
                self._statement.append(word)
        elif word == "{":
            if len(self._blocks) < 2:
                self._blocks.append(self._statement)
                self._statement = []
                self._open()
            else:
                self._statement.append(word)
                self._nested = 1
        elif word == "}":
            self._end()
            self.damaged |= not self._blocks
            if self._blocks:
                self._blocks.pop()
        elif word in ("\n", ";"):
            self._end()
        else:
            self._statement.append(word)

    def _table(self) -> NftTable | None:
        """The table that is open, if it is one of kube-proxy's."""
        if self._blocks and len(head := self._blocks[0]) == 3:
            kind, family, name = head
            if kind == "table" and family in FAMILIES and name == TABLE:
                return self.tables.setdefault(family, NftTable(family))
        return None

    def _open(self) -> None:
        table = self._table()
        if table is not None and len(self._blocks) == 2 and len(self._blocks[1]) == 2 and self._blocks[1][0] == "chain":
            table.chain(self._blocks[1][1])

    def _end(self) -> None:
        statement, self._statement = self._statement, []
        table = self._table()
        if table is None or len(self._blocks) != 2 or len(self._blocks[1]) != 2 or not statement:
            return
        kind, name = self._blocks[1]
        if kind == "map" and statement[:3] == ["elements", "=", "{"]:
            for element in _split(statement[3:-1]):
                table.element(name, _element(element))
        elif kind == "chain":
            if statement[0] == "type" and "hook" in statement[:-1]:
                table.hook(name, statement[1], statement[statement.index("hook") + 1])
            elif statement[0] not in ("policy", "comment"):
                table.rule(name, _rule(statement))


def _split(words: Sequence[str]) -> Iterator[list[str]]:
    """The parts between commas, at the outermost level."""
    part: list[str] = []
    depth = 0
    for word in words:
        if word == "," and not depth:
            yield part
            part = []
            continue
        depth += {"{": 1, "}": -1}.get(word, 0)
        part.append(word)
    if part:
        yield part


def _colon(words: Sequence[str]) -> int:
    """Where the colon between key and value stands, or -1. Words of addresses and comments are other words."""
    return words.index(":") if ":" in words else -1


def _element(words: Sequence[str]) -> Element | None:
    """`10.96.0.10 . udp . 53 comment "text" : goto chain`."""
    colon = _colon(words)
    if colon < 1 or colon == len(words) - 1:
        return None
    key, verdict = words[:colon], words[colon + 1 :]
    comment = ""
    for position, word in enumerate(key):
        if word in _ELEMENT_OPTIONS:
            if "comment" in key[:-1]:
                comment = key[key.index("comment") + 1].strip('"')
            key = key[:position]
            break
    parts = key[::2]
    if not key or any(word != "." for word in key[1::2]) or len(key) % 2 == 0:
        return None
    return Element(tuple(parts), verdict[1] if verdict[0] in ("goto", "jump") and len(verdict) > 1 else "", comment)


def _rule(words: Sequence[str]) -> NftRule:
    text = shown(" ".join(words), 300)
    step: Step | None = None
    lookup = ""
    for position, word in enumerate(words):
        before, after = words[:position], words[position + 1 :]
        if word == "vmap" and after:
            chance, _ = _condition(before)
            if after[0].startswith("@"):
                lookup = after[0][1:]
            else:
                step = _vmap(before, after, chance)
            break
        if word == "dnat":
            chance, _ = _condition(before)
            step = _dnat(after, chance)
            break
        if word in ("goto", "jump") and after:
            chance, sticky = _condition(before)
            step = Step(Action(word), chance, ((after[0], 1.0),), sticky=sticky)
            break
        if word in STOPS or word == "return":
            chance, _ = _condition(before)
            step = Step(Action.RETURN if word == "return" else Action.STOP, chance)
            break
        if word == "comment":
            break
    return NftRule(step, lookup, text)


def _condition(words: Sequence[str]) -> tuple[float | None, bool]:
    """The chance that what stands before a verdict is true, and whether it asks for a client that was here before."""
    rest = list(words)
    sticky = False
    conditional = False
    while rest:
        if rest[:2] == ["meta", "l4proto"] and len(rest) > 2 and rest[2] not in ("!=", ".", "{"):
            rest = rest[3:]
        elif rest[0] in ("ip", "ip6") and rest[1:2] == ["saddr"] and len(rest) > 2 and rest[2].startswith(AFFINITY_SET):
            sticky, rest = True, rest[3:]
        elif rest[:3] == ["counter", "packets", *rest[2:3]] and rest[1:2] == ["packets"]:
            rest = rest[5:]
        elif rest[0] == "numgen":
            rest = rest[4:]
        else:
            conditional, rest = True, rest[1:]
    return (None if conditional else 1.0), sticky


def _modulus(words: Sequence[str]) -> int:
    """N of `numgen random mod N`, 0 without one."""
    if "mod" in words[:-1]:
        number = words[words.index("mod") + 1]
        return int(number) if number.isdecimal() and len(number) < 10 else 0
    return 0


def _choices(words: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Key and value of each element of `{ 0 : …, 1 : … }`; what follows the braces is skipped."""
    if words[:1] != ["{"] or "}" not in words:
        return
    for element in _split(words[1 : words.index("}")]):
        colon = _colon(element)
        if colon > 0:
            yield element[:colon], element[colon + 1 :]


def _vmap(before: Sequence[str], after: Sequence[str], chance: float | None) -> Step:
    modulus = _modulus(before) if "numgen" in before else 0
    chains = [
        (value[1], share_of(key[0], modulus) if modulus else 0.0)
        for key, value in _choices(after)
        if len(value) > 1 and value[0] in ("goto", "jump")
    ]
    return branch(chains, chance if modulus else None)


def _dnat(words: Sequence[str], chance: float | None) -> Step:
    """`to A:P`, `ip to A`, or `ip addr . port to numgen random mod N map { 0 : A . P, … }`."""
    if "to" not in words[:-1]:
        return Step(Action.UNREADABLE, chance)
    value = words[words.index("to") + 1 :]
    if value[0] != "numgen":
        return send_to(value[0], chance)
    if "map" not in value:
        return Step(Action.UNREADABLE, chance)
    places = []
    modulus = _modulus(value)
    for key, place in _choices(value[value.index("map") + 1 :]):
        share = share_of(key[0], modulus)
        if len(place) == 3 and place[1] == ".":
            places.append((place[0], place[2], share))
        else:
            places.append((place[0] if len(place) == 1 else "", "", share))
    return send(places, chance)
