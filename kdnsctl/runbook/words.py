"""Command lines of a runbook: text into pipelines of words, and words into arguments. No shell is ever involved.

What is understood is the part of a shell's language that means the same everywhere: words, 'single' and "double"
quotes, backslashes, $NAME and ${NAME}, a pipe, a comment, a line that goes on after a backslash. All else a shell would
do something with (`;`, `&`, `>`, `*`, `$(…)`, …) is refused, so that a line that is pasted into a shell does the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdnsctl.model import UsageError

NAME = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
LONGEST_VALUE = 64 * 1024  # characters of a variable, all its words together
_TOKEN = re.compile(
    r"(?P<space>[ \t]+)|(?P<comment>#.*)|(?P<pipe>\|(?!\|))|(?P<single>'[^']*')"
    r'|(?P<double>"(?:[^"\\`]|\\.)*")|(?P<variable>\$(?:[A-Z][A-Z0-9_]*|\{[A-Z][A-Z0-9_]*\}))'
    r"|(?P<escaped>\\.)|(?P<plain>[^\s'\"\\$|&;<>()`*?\[\]{}~!#]+)|(?P<inner>#)"
)
_QUOTED = re.compile(r"\\(?P<escaped>[$`\"\\])|\$\{?(?P<variable>[A-Z][A-Z0-9_]*)\}?|(?P<plain>[^$\\]+|\\|\$)")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a word: text as it is, or a variable; `alone` marks one without quotes, which may be several words."""

    text: str = ""
    variable: str = ""
    alone: bool = False


Word = tuple[Part, ...]
Command = tuple[Word, ...]
Pipeline = tuple[Command, ...]


def pipelines(code: str) -> tuple[Pipeline, ...]:
    """The command lines of a block of code. Raises UsageError for what is not understood."""
    joined = re.sub(r"\\\n[ \t]*", "", code)
    found = [_pipeline(line.strip()) for line in joined.splitlines()]
    return tuple(one for one in found if one)


def variables_of(pipeline: Pipeline) -> set[str]:
    """The variables that a pipeline uses."""
    return {part.variable for command in pipeline for word in command for part in word if part.variable}


def arguments(command: Command, values: Mapping[str, Sequence[str]]) -> list[str]:
    """The words of a command with the variables' values in their places, each value one argument.

    Raises UsageError for a variable without a value, and for one with several words where one is needed.
    """
    result: list[str] = []
    for word in command:
        if len(word) == 1 and word[0].alone:
            result += _values(word[0].variable, values)
        else:
            result.append(fill(word, values))
    return result


def fill(word: Word, values: Mapping[str, Sequence[str]]) -> str:
    """One argument of a word. Raises as `arguments`."""
    text = ""
    for part in word:
        if not part.variable:
            text += part.text
            continue
        found = _values(part.variable, values)
        if part.alone and len(found) != 1:
            raise UsageError(f"{part.variable} is {len(found)} words ({' '.join(found)}), and one is needed here")
        text += " ".join(found)  # in quotes several words are one, as for a shell
    return text


def checked(name: str, words: Sequence[str]) -> tuple[str, ...]:
    """The words as the value of a variable. Raises UsageError for what could be taken for an option, or is not text."""
    if not words or not all(words):
        raise UsageError(f"{name} is empty: the runbook cannot go on without it")
    if sum(map(len, words)) > LONGEST_VALUE:
        raise UsageError(f"the value of {name} is too long")
    for word in words:
        if word.startswith("-") or not word.isprintable():
            raise UsageError(f"{name} cannot be {word!r}: it would be taken for an option, or does not print")
    return tuple(words)


def in_text(text: str) -> Word:
    """A default value as a word: text with variables in it."""
    return tuple(_parts(text))


def _values(name: str, values: Mapping[str, Sequence[str]]) -> Sequence[str]:
    found = values.get(name)
    if not found:
        raise UsageError(f"{name} has no value", hint=f"give it one: --set {name}=VALUE")
    return found


def _pipeline(line: str) -> Pipeline:
    commands: list[list[Word]] = [[]]
    word: list[Part] = []
    started = False
    place = 0
    while place < len(line):
        token = _TOKEN.match(line, place)
        kind = token.lastgroup if token else None
        if token is None or (kind == "comment" and started and token.start() > 0 and line[place - 1] not in " \t|"):
            if line[place] != "#":
                raise UsageError(f"{line[place]!r} is not understood in a command of a runbook: {line}")
            word, place = [*word, Part("#")], place + 1
            continue
        place = token.end()
        if kind in ("space", "pipe", "comment"):
            if started:
                commands[-1].append(tuple(word))
            word, started = [], False
            if kind == "pipe":
                commands.append([])
            continue
        started = True
        word += _of_token(str(kind), token[0])
    if started:
        commands[-1].append(tuple(word))
    if commands == [[]]:
        return ()
    if not all(commands):
        raise UsageError(f"a pipe leads nowhere: {line}")
    return tuple(tuple(command) for command in commands)


def _of_token(kind: str, text: str) -> list[Part]:
    if kind == "single":
        return [Part(text[1:-1])]
    if kind == "double":
        if "$(" in text:
            raise UsageError(f"'$(' is not understood in a command of a runbook: {text}")
        return _parts(text[1:-1]) or [Part()]
    if kind == "variable":
        return [Part(variable=text.strip("${}"), alone=True)]
    return [Part(text[1:] if kind == "escaped" else text)]


def _parts(text: str) -> list[Part]:
    found = []
    for match in _QUOTED.finditer(text):
        if match["variable"]:
            found.append(Part(variable=match["variable"]))
        else:
            found.append(Part(match["escaped"] or match["plain"]))
    return found
