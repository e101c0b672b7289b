"""Damages bytes the way that networks, editors and enemies do. The same random numbers make the same damage."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

LONGEST = 40_000
"""Bytes of an input; most bounds of the parsers can be crossed with fewer, and time goes into variety."""

_SPECIAL = [
    b"\0",
    b"\n",
    b"\r",
    b"\t",
    b" ",
    b"=",
    b"[",
    b"]",
    b"<",
    b">",
    b"/",
    b'"',
    b"-",
    b":",
    b".",
    b"%",
    b"&",
    b"\xff",
    b"\xc3",
]
_NUMBERS = [
    b"0",
    b"-1",
    b"65535",
    b"65536",
    b"4294967296",
    b"18446744073709551616",
    b"9" * 5_000,
    b"0x10",
    b"1e9",
    b"0" * 30,
]

Mutation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def _place(random_: random.Random, data: bytes) -> int:
    return random_.randint(0, len(data))


def _range(random_: random.Random, data: bytes, most: int) -> tuple[int, int]:
    start = _place(random_, data)
    return start, min(len(data), start + random_.randint(0, most))


def _cut(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: _place(random_, data)]


def _drop(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _range(random_, data, random_.choice([1, 8, 200, 5_000]))
    return data[:start] + data[end:]


def _double(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _range(random_, data, random_.choice([1, 30, 400]))
    return data[:end] + data[start:end] * random_.choice([1, 1, 2, 50]) + data[end:]


def _flip(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _number in range(random_.choice([1, 2, 8]) if data else 0):
        changed[random_.randrange(len(changed))] = random_.randrange(256)
    return bytes(changed)


def _insert(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(random_, data)
    return data[:at] + random_.choice(_SPECIAL) * random_.choice([1, 1, 1, 3, 20_000]) + data[at:]


def _number(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(random_, data)
    while at < len(data) and not 0x30 <= data[at] <= 0x39:
        at += 1
    end = at
    while end < len(data) and 0x30 <= data[end] <= 0x39:
        end += 1
    return data[:at] + random_.choice(_NUMBERS) + data[end:]


def _tokens(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Exchange two tokens."""
    tokens = data.split(b" ")
    one, two = random_.randrange(len(tokens)), random_.randrange(len(tokens))
    tokens[one], tokens[two] = tokens[two], tokens[one]
    return b" ".join(tokens)


def _lines(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Take lines away, or bring them into another order."""
    lines = data.splitlines(keepends=True)
    random_.shuffle(lines)
    return b"".join(lines[: random_.randint(0, len(lines))])


def _splice(random_: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = random_.choice(others)
    start, end = _range(random_, other, 3_000)
    at = _place(random_, data)
    return data[:at] + other[start:end] + data[at:]


MUTATIONS: tuple[Mutation, ...] = (_cut, _drop, _double, _flip, _insert, _number, _tokens, _lines, _splice)


def mutate(random_: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, damaged in one to five ways."""
    data = random_.choice(seeds)
    for _ in range(random_.choice([1, 1, 2, 3, 5])):
        data = random_.choice(MUTATIONS)(random_, data, seeds)[:LONGEST]
    return data
