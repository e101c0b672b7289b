"""One rule as iptables-save prints it: from text to the few facts that decide where packets go.

Arguments are words, in any order; modules and options that are not known are kept as what they are, conditions whose
outcome is not known. Tables, chains and what they mean together is not looked at here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORD = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"|([^\s"]+)')
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_COUNTERS = re.compile(r"\[([0-9]{1,20}):[0-9]{1,20}\] ")

_HARMLESS_MODULES = {"comment", "tcp", "udp", "sctp", "statistic", "nfacct", "recent", "addrtype"}
"""Modules that are no condition by themselves: their options are looked at instead, or they only count."""

_HARMLESS_OPTIONS = {
    "--comment": 1, "--nfacct-name": 1, "--mode": 1, "--set": 0, "--name": 1, "--mask": 1, "--rsource": 0, "--rdest": 0,
    "--seconds": 1, "--reap": 0, "--hitcount": 1, "--rttl": 0,
}  # fmt: skip
"""Options that are no condition by themselves, and how many values follow each."""


@dataclass(slots=True)
class Rule:
    """One rule. `target` is the chain or target after `-j` or `-g`, "" without one.

    `destination` is the network after `-d`, `to` what stands after `--to-destination`, "" if nothing does. `chance` is
    the statistic module's; `conditional` tells of any condition on the packet beside protocol, destination and port.
    `sticky` is a check for a client that was here before. `packets` is None without
    counters.
    """

    chain: str
    target: str = ""
    goto: bool = False
    to: str = ""
    unsupported: bool = False
    notrack: bool = False
    source: str = ""
    destination: str = ""
    protocol: str = ""
    port: str = ""
    chance: float = 1.0
    conditional: bool = False
    sticky: bool = False
    local_destination: bool = False
    comment: str = ""
    packets: int | None = None


_WORDS_OF_RULES = {"-p": "protocol", "-s": "source", "-d": "destination", "--dport": "port", "--comment": "comment"}


def quotes_are_closed(line: str) -> bool:
    """Whether the last quoted argument of a line ends in it: a comment can hold a newline."""
    return '"' not in _WORD.sub("", line)


def words_of(text: str) -> list[str]:
    """The arguments of a rule, unquoted and unescaped as libxtables writes them."""
    found = []
    for quoted, plain in _WORD.findall(text):
        word = plain or quoted
        found.append(_ESCAPE.sub(r"\1", word) if not plain and "\\" in word else word)
    return found


def parse_rule(line: str) -> Rule | None:
    """The rule of one line, with or without counters; None when the line holds no rule."""
    packets = None
    start = 0
    counters = _COUNTERS.match(line)
    if counters:
        packets = int(counters[1])
        start = counters.end()
    if not line.startswith("-A ", start):
        return None
    words = words_of(line[start:])
    if len(words) < 2:
        return None
    rule = Rule(words[1], packets=packets)
    position = 2
    negated = False
    while position < len(words):
        word = words[position]
        position += 1
        if word == "!":
            negated = True
            continue
        value = words[position] if position < len(words) else ""
        if word in ("-j", "-g"):
            rule.target, rule.goto = value, word == "-g"
            _read_target(rule, words[position + 1 :])
            break
        position += _read_match(rule, word, value, negated=negated)
        negated = False
    return rule


def _read_match(rule: Rule, word: str, value: str, *, negated: bool) -> int:
    """Take one option of a match; returns how many values it has."""
    taken = 1
    if word in _WORDS_OF_RULES and not negated:
        setattr(rule, _WORDS_OF_RULES[word], value)
        rule.conditional |= word == "-s"
    elif word == "-m":
        rule.conditional |= value not in _HARMLESS_MODULES
    elif word == "--probability":
        chance = _chance(value)
        rule.conditional |= chance is None
        rule.chance = 1.0 if chance is None else (1.0 - chance if negated else chance)
    elif word == "--mode":
        rule.conditional |= value != "random"
    elif word == "--dst-type" and value == "LOCAL" and not negated:
        rule.local_destination = True
    elif word == "--rcheck":
        rule.sticky, taken = True, 0
    elif word in _HARMLESS_OPTIONS:
        taken = _HARMLESS_OPTIONS[word]
    else:
        rule.conditional = True  # an option nobody here knows; whatever values it has are skipped one by one
        taken = 1 if word in _WORDS_OF_RULES else 0
    return taken


def _chance(text: str) -> float | None:
    try:
        chance = float(text)
    except ValueError:
        return None
    return chance if 0.0 <= chance <= 1.0 else None


def _read_target(rule: Rule, words: list[str]) -> None:
    """Take the options of the target: the last thing a rule has, as iptables-save prints it."""
    for position, word in enumerate(words):
        if word == "--to-destination":
            rule.to = words[position + 1] if position + 1 < len(words) else ""
        elif word == "--notrack":
            rule.notrack = True
        elif word == "[unsupported":
            rule.unsupported = True
