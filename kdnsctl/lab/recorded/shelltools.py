"""The small programs that scripts use around recorded commands: words and input in, output and exit code out. Pure.

Of each as much as can be had exactly; anything else is refused with `NotRecordedError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

Reads = Callable[[str], bytes]
"""What a file holds, by its path. Raises NotRecordedError."""

_PLAIN: Final = re.compile(r"\^?[A-Za-z0-9. =:/_,#-]*\$?")


class NotRecordedError(Exception):
    """The words need a program, a file or a part of the shell that is not here."""


def echo(words: Sequence[str]) -> bytes:
    """The words, and a newline unless `-n` comes first."""
    newline = words[:1] != ["-n"]
    text = " ".join(words if newline else words[1:])
    if "\\" in text:
        raise NotRecordedError("echo with a backslash")  # shells differ
    return (text + "\n" * newline).encode(errors="surrogateescape")


def printf(words: Sequence[str]) -> bytes:
    """Texts, numbers and newlines, with as many values as places."""
    form, *values = words or [""]
    text = form.replace("\\n", "\n")
    pieces = re.split("%[sd]", text)
    if "\\" in text or "%" in "".join(pieces) or len(pieces) != len(values) + 1:
        raise NotRecordedError("printf")
    whole = pieces[0] + "".join(value + piece for value, piece in zip(values, pieces[1:], strict=True))
    return whole.encode(errors="surrogateescape")


_COMPARE: Final[dict[str, Callable[[int, int], bool]]] = {
    "-eq": lambda one, other: one == other,
    "-ne": lambda one, other: one != other,
    "-lt": lambda one, other: one < other,
    "-gt": lambda one, other: one > other,
    "-le": lambda one, other: one <= other,
    "-ge": lambda one, other: one >= other,
}


def condition(words: Sequence[str]) -> bool:
    """What `[` says of texts and whole numbers; a `]` at the end is left out."""
    match list(words[:-1] if words[-1:] == ["]"] else words):
        case ["!", *rest]:
            return not condition(rest)
        case ["-n", text] | [text]:
            return bool(text)
        case ["-z", text]:
            return not text
        case [one, "=", other]:
            return one == other
        case [one, "!=", other]:
            return one != other
        case [one, operator, other] if operator in _COMPARE and one.isdigit() and other.isdigit():
            return _COMPARE[operator](int(one), int(other))
    raise NotRecordedError("[ " + " ".join(words))


def grep(words: Sequence[str], stdin: bytes, reads: Reads) -> tuple[bytes, int]:
    """Lines with one of some fixed strings, or of expressions that are little more; -c -n -H -h -F -q -v -e."""
    flags, patterns, rest = _options(words)
    if not patterns and rest:
        patterns = [rest.pop(0)]
    matches = _matcher([line for pattern in patterns for line in pattern.split("\n")], fixed="F" in flags)
    several = ("H" in flags or len(rest) > 1) and "h" not in flags
    out, found = bytearray(), False
    for name, data in [(each, reads(each)) for each in rest] or [("(standard input)", stdin)]:
        prefix = f"{name}:".encode() if several else b""
        lines = data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        hits = [(at, line) for at, line in enumerate(lines, 1) if matches(line) is not ("v" in flags)]
        found = found or bool(hits)
        if "q" in flags:
            continue
        if "c" in flags:
            out += prefix + b"%d\n" % len(hits)
        else:
            out += b"".join(prefix + (b"%d:" % at if "n" in flags else b"") + line + b"\n" for at, line in hits)
    return bytes(out), int(not found)


def _options(words: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Flags, patterns given by -e, and the other words."""
    flags, patterns, rest = "", [], []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            rest += left
            break
        if word == "-e" and left:
            patterns.append(left.pop(0))
        elif word.startswith("-") and len(word) > 1:
            if set(word[1:]) - set("cnHhFqv"):
                raise NotRecordedError(f"grep {word}")
            flags += word[1:]
        else:
            rest.append(word)
    return flags, patterns, rest


def _matcher(patterns: Sequence[str], *, fixed: bool) -> Callable[[bytes], bool]:
    tests: list[re.Pattern[bytes]] = []
    for pattern in patterns:
        if fixed:
            tests.append(re.compile(re.escape(pattern.encode(errors="surrogateescape"))))
            continue
        if not _PLAIN.fullmatch(pattern):
            raise NotRecordedError(f"grep {pattern}")
        start, body = ("^", pattern[1:]) if pattern.startswith("^") else ("", pattern)
        body, end = (body[:-1], "$") if body.endswith("$") else (body, "")
        middle = ".".join(map(re.escape, body.split(".")))  # a dot is any character, to grep as to re
        tests.append(re.compile((start + middle + end).encode()))
    return lambda line: any(test.search(line) for test in tests)


_COUNTS: Final[dict[str, Callable[[bytes], int]]] = {
    "-c": len,
    "-l": lambda data: data.count(b"\n"),
    "-w": lambda data: len(data.split()),
}


def wc(words: Sequence[str], stdin: bytes, reads: Reads) -> bytes:
    """One count (-c, -l, -w) of the input or of one file."""
    if not words or words[0] not in _COUNTS or len(words) > 2:
        raise NotRecordedError("wc")
    data = reads(words[1]) if len(words) == 2 else stdin
    name = f" {words[1]}" if len(words) == 2 else ""
    return f"{_COUNTS[words[0]](data)}{name}\n".encode()
