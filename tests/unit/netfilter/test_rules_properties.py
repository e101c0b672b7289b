"""Rules on anything: what is written is read again, cuts are never whole, and no bytes make a parser fail."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.netfilter import iptables, ipvs, kubeproxy, nft
from kdnsctl.netfilter.flows import Action, Spreads, Step
from kdnsctl.netfilter.iptablesrules import parse_rule, quotes_are_closed, words_of
from kdnsctl.netfilter.lines import Line, lines_of, shown
from kdnsctl.netfilter.recognise import PARSERS, recognise
from kdnsctl.netfilter.rules import Target
from tests.unit.netfilter.reading import blocks
from tests.unit.netfilter.test_ipvs import PROC, SAVED
from tests.unit.netfilter.test_rules_of_services import RULES, agree, said
from tests.unit.netfilter.writing import Expected, NftWriter, Service, expected, iptables_text

NAMES = st.from_regex(r"[a-z]{1,8}/[a-z]([a-z0-9-]{0,8}[a-z0-9])?(:[a-z]{1,5})?", fullmatch=True)


@st.composite
def services(draw: st.DrawFn, family: int) -> list[Service]:
    """Services with names and addresses of their own, of every kind."""

    def address(net: int, number: int) -> str:
        return f"fd00:{net:x}::{number + 1:x}" if family == 6 else f"10.{net}.{number // 250}.{number % 250 + 1}"

    made = []
    for index, name in enumerate(draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))):
        protocol = draw(st.sampled_from(["udp", "tcp", "sctp"]))
        pods = draw(st.lists(st.integers(0, 2000), max_size=6, unique=True))
        places = tuple((address(244, pod), draw(st.sampled_from([53, 5353, 65535]))) for pod in pods)
        local_only = draw(st.booleans())
        made.append(
            Service(
                name,
                protocol,
                draw(st.sampled_from([53, 443, 1])),
                address(96, index),
                places,
                30000 + index if draw(st.booleans()) else 0,
                tuple(address(200, 10 * index + number) for number in range(draw(st.integers(0, 2)))),
                affinity=draw(st.booleans()),
                local_only=local_only,
                local=places[: draw(st.integers(0, len(places)))] if local_only else (),
            )
        )
    return made


FAMILIES = st.sampled_from([4, 6])


@given(st.data(), FAMILIES, st.booleans())
def test_iptables_rules_are_read_as_they_were_written(data: st.DataObject, family: int, comments: bool) -> None:
    made = data.draw(services(family))
    text = iptables_text(made, family=family, comments=comments)
    (rules,) = iptables.parse([text.encode()])
    wanted = expected(made)
    if not comments:
        wanted = {key: Expected("", each.shares, each.rejected, each.affinity) for key, each in wanted.items()}
    agree(said(rules), wanted)
    assert rules.completeness.complete
    assert rules.unreachable == ()
    assert [each.problems for each in rules.services if each.problems] == []


@given(st.data(), FAMILIES, st.booleans())
def test_nft_rules_are_read_as_they_were_written(data: st.DataObject, family: int, chains: bool) -> None:
    made = data.draw(services(family))
    writer = NftWriter(made, family=family, chains_for_endpoints=chains)
    (from_text,) = nft.parse([writer.text().encode()])
    (from_json,) = nft.parse([writer.document().encode()])
    assert from_text == from_json
    agree(said(from_text), expected(made))
    assert from_text.completeness.complete
    assert (from_text.unreachable, from_text.problems) == ((), ())
    assert [each.problems for each in from_text.services if each.problems] == []


@given(st.data(), FAMILIES)
def test_a_cut_iptables_dump_is_not_whole_and_tells_nothing_false(data: st.DataObject, family: int) -> None:
    made = data.draw(services(family))
    text = iptables_text(made, family=family).encode()
    end = data.draw(
        st.integers(0, len(text) - len(b"COMMIT\n") - 1) | st.integers(1, 6).map(lambda n: len(text) - 1 - n)
    )
    (rules,) = iptables.parse([text[:end]])
    assert not rules.completeness.complete
    assert rules.unreachable == ()
    wanted = expected(made)
    for key, found in said(rules).items():
        assert found.shares.keys() <= wanted[key].shares.keys()


@given(st.data(), st.sampled_from(sorted(RULES.glob("*.*"))))
def test_blocks_do_not_matter(data: st.DataObject, path: object) -> None:
    content = RULES.joinpath(str(path)).read_bytes()
    form = recognise(content)
    if form is None:
        assert str(path).endswith("README.md")
        return
    parse = PARSERS[form]
    sizes = data.draw(st.lists(st.integers(1, 5000), min_size=1, max_size=5))
    assert parse(blocks(content, sizes), None) == parse([content], None)


# --- damage: recordings with pieces exchanged, doubled, dropped; and bytes of no kind

SEEDS = [path.read_bytes() for path in sorted(RULES.glob("*.*"))] + [SAVED.encode(), PROC.encode()]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 40))
        piece = draw(
            st.binary(max_size=8) | st.sampled_from([b"{", b"}", b'"', b"\n", b"*nat\n", b"COMMIT\n", b"-j X"])
        )
        content[at : at + length] = piece
    return bytes(content)


@given(damaged() | st.binary(max_size=300))
def test_no_bytes_make_a_parser_fail(content: bytes) -> None:
    for parse in (iptables.parse, nft.parse, ipvs.parse):
        found = parse([content])
        assert found
        for rules in found:
            for each in (*rules.services, *rules.obstacles, *rules.unreachable):
                assert each
            for service in rules.services:
                for target in service.targets:
                    assert target.probability is None or -1e-6 <= target.probability <= 1 + 1e-6
    kubeproxy.parse_metrics([content])
    kubeproxy.parse_health(content)
    kubeproxy.parse_proxy_mode(content)
    recognise(content)


@given(st.text(max_size=200))
def test_no_text_makes_a_rule_fail(text: str) -> None:
    parse_rule(f"-A X {text}")
    parse_rule(text)


# --- quoting, as libxtables does it (xtables_save_string)


def quoted(word: str) -> str:
    plain = "_-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    if word and all(character in plain for character in word):
        return word
    return '"' + "".join(f"\\{each}" if each in "\"\\'" else each for each in word) + '"'


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=6))
def test_quoted_words_come_back(words: list[str]) -> None:
    line = " ".join(quoted(word) for word in words)
    assert quotes_are_closed(line)
    assert words_of(line) == words


@given(st.text(st.sampled_from('ab"\\ '), max_size=12))
def test_both_ways_to_see_open_quotes_agree(text: str) -> None:
    if "\\" not in text:
        assert quotes_are_closed(text) == quotes_are_closed(text + r" \x") == (text.count('"') % 2 == 0)


# --- lines


@given(st.lists(st.binary(max_size=12), max_size=8), st.integers(1, 30))
def test_lines_are_those_of_the_whole(chunks: list[bytes], longest: int) -> None:
    whole = b"".join(chunks)
    found = list(lines_of(chunks, longest))
    *ended, last = whole.split(b"\n")
    wanted = [
        Line(each[:longest], whole=False) if len(each) > longest else Line(each.removesuffix(b"\r")) for each in ended
    ]
    if last:
        wanted.append(Line(last[:longest], whole=False))
    assert found == wanted


def test_a_last_line_that_is_too_long_is_cut_and_the_rest_of_it_skipped() -> None:
    assert list(lines_of([b"a\nbbbbbb", b"bbb", b"b\nc\n"], 5)) == [Line(b"a"), Line(b"bbbbb", whole=False), Line(b"c")]


@given(st.text(max_size=50), st.integers(1, 20))
def test_what_is_shown_is_short_and_printable(text: str, most: int) -> None:
    piece = shown(text, most)
    assert len(piece) <= most
    assert piece.isprintable()
    assert shown("\x1b[31m\u202ex", 20) == "?[31m?x"


# --- chains of any shape

CHANCES = st.sampled_from([1.0, 0.5, 0.25, None])


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[Step]]:
    chains = [f"c{number}" for number in range(draw(st.integers(1, 8)))]

    def step() -> Step:
        action = draw(st.sampled_from(Action))
        chance = draw(CHANCES)
        sticky = draw(st.booleans())
        if action in (Action.JUMP, Action.GOTO):
            some = draw(st.lists(st.sampled_from([*chains, "missing"]), min_size=1, max_size=3))
            return Step(action, chance, tuple((each, 1 / len(some)) for each in some), sticky=sticky)
        if action is Action.SEND:
            places = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True))
            targets = tuple(Target(f"10.0.0.{each}", 53, 1 / len(places)) for each in places)
            return Step(action, chance, targets=targets, sticky=sticky)
        return Step(action, chance)

    return {chain: [step() for _ in range(draw(st.integers(0, 4)))] for chain in chains}


@given(graphs())
def test_shares_never_add_up_to_more_than_all(chains: dict[str, list[Step]]) -> None:
    spread = Spreads(chains, {}).of("c0")
    known = [target.probability for target in spread.targets if target.probability is not None]
    assert all(share >= -1e-9 for share in known)
    assert sum(known) + (spread.rest or 0.0) <= 1 + 1e-6
    assert spread.rest is None or spread.rest >= -1e-9


@pytest.mark.parametrize("count", [2, 3, 7, 100])
def test_even_shares_of_many(count: int) -> None:
    steps = [
        Step(Action.SEND, 1 / (count - number), targets=(Target(f"10.0.0.{number}", 53, 1.0),))
        for number in range(count)
    ]
    spread = Spreads({"c": steps}, {}).of("c")
    assert max(abs((target.probability or 0.0) - 1 / count) for target in spread.targets) < 1e-12
    assert spread.rest == 0.0


def _empty() -> Iterable[bytes]:
    return iter(())


def test_nothing_at_all_is_one_result_of_each() -> None:
    assert [len(parse(_empty())) for parse in (iptables.parse, nft.parse, ipvs.parse)] == [1, 1, 1]
