"""A fact and its parser, as one thing, and the reading of it.

A parser takes blocks of bytes cut anywhere, and at the end the proof of whether they are all there was; so an output of
any size is parsed in little memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from kdnsctl.cancel import CancelScope
from kdnsctl.model import Fact
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.reach.shell import NodeShell, Reading

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Parser(Protocol[T_co]):
    """Bytes in, a record out."""

    def feed(self, block: bytes, /) -> object:
        """Take the next bytes."""

    def finish(self, completeness: Completeness, /) -> T_co:
        """The output is over, and is as whole as `completeness` says: what it was."""


@dataclass(frozen=True, slots=True)
class Pair(Generic[T]):
    """A fact, and what makes a parser for one output of it."""

    fact: Fact
    parser: Callable[[], Parser[T]]


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A fact's value, and the reading it comes from."""

    value: T
    reading: Reading


def read(shell: NodeShell, pair: Pair[T], *, scope: CancelScope) -> Answer[T]:
    """Read and parse one fact. Raises what `NodeShell.read` raises; a parser raises nothing for bad output."""
    parser = pair.parser()
    reading = shell.read(pair.fact, parser.feed, scope=scope)
    return Answer(parser.finish(reading.completeness), reading)


class Whole(Generic[T]):
    """A parser for small outputs: keeps them whole, and has them parsed at the end. `Fact.max_bytes` bounds them."""

    def __init__(self, parse: Callable[[bytes, Completeness], T]) -> None:
        self._parse = parse
        self._blocks: list[bytes] = []

    def feed(self, block: bytes, /) -> None:
        self._blocks.append(block)

    def finish(self, completeness: Completeness, /) -> T:
        return self._parse(b"".join(self._blocks), completeness)
