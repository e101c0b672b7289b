"""What `nft -j` prints of kube-proxy's table, and which form of nft output a text is. It judges nothing.

Works on `nft -j list table ip kube-proxy`, on `list ruleset`, and on several such outputs one after another; other
tables are skipped (iptables-nft's own lose their targets in JSON: `{"xt": …}`, nft 1.0.6). Text goes to `nfttext`. A
document that breaks off is read as far as it goes: what is in it can prove a fault, what is not in it proves nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdnsctl.model import Reason
from kdnsctl.netfilter import nfttext
from kdnsctl.netfilter.dump import Completeness, Proof
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
    share_of,
)
from kdnsctl.netfilter.rules import Mode, NodeRules

LARGEST = 128 * 1024 * 1024
"""Bytes of output that are read; 50,000 endpoints make about 25 MB."""

MOST_VALUES = 8_000_000
"""Values of a JSON output that are built in memory; a stranger's can be nothing but empty objects."""

_START = re.compile(r'\{\s*"nftables"\s*:\s*\[')
_CLOSED = re.compile(r"\]\s*\}")
_SPACE = re.compile(r"\s*")
_decoder = json.JSONDecoder(strict=False)


def parse(chunks: Iterable[bytes], trailer: Completeness | None = None) -> tuple[NodeRules, ...]:
    """The rules of each family's table in the output, JSON or text. At least one result: see `iptables.parse`."""
    data, problem = _joined(chunks)
    text = data.decode("utf-8", "replace")
    if text.count(",") > MOST_VALUES:
        return (NodeRules(Mode.NFTABLES, Completeness(problem=_too_large(f"{MOST_VALUES} values"))),)
    if _START.search(text):
        tables, broken = _tables_of_json(text)
    else:
        tables, broken = nfttext.tables_of(text)
    problem = problem or broken
    if problem is None and not tables:
        problem = Reason("tableMissing", f"the output has no table {TABLE}: {shown(text) or 'it is empty'}")
    whole = problem is None
    if trailer is not None:
        completeness = Completeness(trailer.proof, trailer.problem or problem)
    else:
        completeness = Completeness(Proof.CLOSED if whole else Proof.NONE, problem)
    if not tables:
        return (NodeRules(Mode.NFTABLES, completeness),)
    return tuple(table.rules(completeness, whole=whole) for table in tables)


def _joined(chunks: Iterable[bytes]) -> tuple[bytes, Reason | None]:
    kept: list[bytes] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > LARGEST:
            return b"".join(kept), _too_large(f"{LARGEST} bytes")
        kept.append(chunk)
    return b"".join(kept), None


def _too_large(than: str) -> Reason:
    return Reason("tooLarge", f"the output has more than {than}")


def _tables_of_json(text: str) -> tuple[list[NftTable], Reason | None]:
    """Read documents object by object, so that only one of them is in memory at a time."""
    tables: dict[str, NftTable] = {}
    start = _START.search(text)
    problem = None
    while start:
        position, closed = _document(text, start.end(), tables)
        if not closed:
            problem = Reason("noEnd", "the JSON document breaks off, or is damaged")
        start = _START.search(text, position)
    return list(tables.values()), problem


def _document(text: str, position: int, tables: dict[str, NftTable]) -> tuple[int, bool]:
    """Read the objects of one document from behind its `[`; returns where it ended and whether it was closed."""
    while True:
        position = _SPACE.match(text, position).end()  # type: ignore[union-attr]  # it matches everywhere
        if text.startswith("]", position):
            return position, _CLOSED.match(text, position) is not None
        try:
            item, position = _decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            return position, False
        if isinstance(item, dict):
            _take(item, tables)
        position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
        if text.startswith(",", position):
            position += 1


def _take(item: Mapping[str, Any], tables: dict[str, NftTable]) -> None:
    """One object of a document: a table, chain, rule, map, or something that does not matter here."""
    for kind, body in item.items():
        family = body.get("family") if isinstance(body, dict) else None
        if not isinstance(family, str) or family not in FAMILIES:
            continue
        name = body.get("name")
        if body.get("name" if kind == "table" else "table") != TABLE:
            continue
        table = tables.setdefault(family, NftTable(family))
        if kind == "chain" and isinstance(name, str):
            table.chain(name)
            if isinstance(body.get("type"), str) and isinstance(body.get("hook"), str):
                table.hook(name, body["type"], body["hook"])
        elif kind == "rule" and isinstance(body.get("chain"), str):
            table.rule(body["chain"], _rule(_list(body.get("expr"))))
        elif kind == "map" and isinstance(name, str) and body.get("map") == "verdict":
            for element in _list(body.get("elem")):
                table.element(name, _element(element))


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _element(pair: Any) -> Element | None:
    """`[key, verdict]`; a key with a comment is wrapped: `{"elem": {"val": key, "comment": text}}`."""
    if not isinstance(pair, list) or len(pair) != 2:
        return None
    key, verdict = pair
    comment = ""
    if isinstance(key, dict) and isinstance(key.get("elem"), dict):
        comment = str(key["elem"].get("comment", ""))
        key = key["elem"].get("val")
    parts = key["concat"] if isinstance(key, dict) and isinstance(key.get("concat"), list) else [key]
    if not all(isinstance(part, str | int) for part in parts):
        return None  # a range or a prefix: none of kube-proxy's
    return Element(tuple(str(part) for part in parts), _chain_of(verdict) or "", comment)


def _chain_of(verdict: Any) -> str | None:
    """The chain of `{"goto": {"target": …}}` or of a jump, None for other verdicts."""
    if isinstance(verdict, dict):
        for kind in ("goto", "jump"):
            body = verdict.get(kind)
            if isinstance(body, dict) and isinstance(body.get("target"), str):
                return str(body["target"])
    return None


def _rule(statements: Sequence[Any]) -> NftRule:
    chance: float | None = 1.0
    sticky = False
    step: Step | None = None
    lookup = ""
    for kind, body in ((kind, body) for each in statements if isinstance(each, dict) for kind, body in each.items()):
        if kind == "match" and _is_affinity(body):
            sticky = True
        elif kind in ("match", "limit", "quota"):
            chance = chance if _is_protocol(body) else None
        elif kind == "vmap":
            step, lookup = _vmap(body, chance)
        elif kind == "dnat":
            step = _dnat(body, chance)
        elif kind in ("goto", "jump"):
            if (chain := _chain_of({kind: body})) is not None:
                step = Step(Action(kind), chance, ((chain, 1.0),), sticky=sticky)
        elif kind in STOPS or kind == "return":
            step = Step(Action.RETURN if kind == "return" else Action.STOP, chance)
    return NftRule(step, lookup, shown(json.dumps(statements), 300))


def _is_affinity(match: Any) -> bool:
    right = match.get("right") if isinstance(match, dict) else None
    return isinstance(right, str) and right.startswith(AFFINITY_SET) and match.get("op") == "=="


def _is_protocol(match: Any) -> bool:
    return isinstance(match, dict) and match.get("op") == "==" and match.get("left") == {"meta": {"key": "l4proto"}}


def _modulus(key: Any) -> int:
    numbers = key.get("numgen") if isinstance(key, dict) else None
    modulus = numbers.get("mod") if isinstance(numbers, dict) else None
    return modulus if isinstance(modulus, int) else 0


def _choices(data: Any, modulus: int) -> list[tuple[float, Any]]:
    """The share and the value of each element of an anonymous map, `{"set": [[key, value], …]}`."""
    pairs = data.get("set") if isinstance(data, dict) else data
    found = []
    for pair in _list(pairs):
        if isinstance(pair, list) and len(pair) == 2:
            key = pair[0]
            ends = _list(key.get("range")) if isinstance(key, dict) else [key]
            found.append((share_of("-".join(str(end) for end in ends), modulus), pair[1]))
    return found


def _vmap(body: Any, chance: float | None) -> tuple[Step | None, str]:
    """A verdict map: a name, or, with a random number as its key, one of several chains."""
    if not isinstance(body, dict):
        return None, ""
    data = body.get("data")
    if isinstance(data, str):
        return None, data.removeprefix("@")
    modulus = _modulus(body.get("key"))
    if not modulus:
        return branch(((chain, 1.0) for _, verdict in _choices(data, 1) if (chain := _chain_of(verdict))), None), ""
    chains = ((chain, share) for share, verdict in _choices(data, modulus) if (chain := _chain_of(verdict)))
    return branch(chains, chance), ""


def _dnat(body: Any, chance: float | None) -> Step:
    if not isinstance(body, dict):
        return Step(Action.UNREADABLE, chance)
    address, port = body.get("addr"), body.get("port", "")
    if isinstance(address, str) and isinstance(port, str | int):
        return send([(address, str(port), 1.0)], chance)
    chosen = address.get("map") if isinstance(address, dict) else None
    if not isinstance(chosen, dict):
        return Step(Action.UNREADABLE, chance)
    places = []
    for share, value in _choices(chosen.get("data"), _modulus(chosen.get("key"))):
        parts = value.get("concat") if isinstance(value, dict) else [value]
        parts = [str(part) for part in _list(parts) if isinstance(part, str | int)]
        host, port_text = (*parts, "", "")[:2] if len(parts) in (1, 2) else ("", "")
        places.append((host, port_text, share))
    return send(places, chance)
