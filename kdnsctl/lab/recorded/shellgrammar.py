"""The part of the shell's language that is needed to read a wrapped command: text in, a tree out.

Lists with `;`, `&`, `&&` and `||`, pipes, groups, subshells, `if`, redirections, quotes, parameters, `$(…)`. No loops,
no functions, no here-documents, no arithmetic, no patterns: what is not known is refused as a whole, so that nothing
is ever half understood. What the tree means is in `shellplay`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final


class UnknownSyntaxError(Exception):
    """The script has something that is not read here."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a word: `text`, `parameter` (its name) or `output` (a script whose output is meant)."""

    kind: str
    value: str
    quoted: bool


Word = tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Redirection:
    """`number` goes to (or, with `reads`, comes from) a file, or where another number goes (`copies`)."""

    number: int
    target: Word
    reads: bool = False
    copies: bool = False


@dataclass(frozen=True, slots=True)
class Simple:
    """Assignments, and a command with its arguments."""

    assignments: tuple[tuple[str, Word], ...]
    words: tuple[Word, ...]
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """`{ …; }`, or with `apart` a subshell."""

    body: Script
    apart: bool
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True, slots=True)
class If:
    """Conditions with what follows each, and what follows none."""

    branches: tuple[tuple[Script, Script], ...]
    otherwise: Script
    redirections: tuple[Redirection, ...] = ()


Command = Simple | Group | If


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each reading what the one before wrote."""

    commands: tuple[Command, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """Pipelines joined by `&&` and `||` (the first by nothing), perhaps in the background."""

    pipelines: tuple[tuple[str, Pipeline], ...]
    background: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """Steps, one after the other."""

    steps: tuple[Step, ...] = ()


_FIRST: Final = ""
_BEGIN, _END = "(", ")"
_OPERATOR: Final = re.compile(r"&&|\|\||;;|[;&|()\n]|(?P<fd>\d*)(?P<redirect>>&|<&|>>|<<|>|<)")
_PARAMETER: Final = re.compile(r"\$(?:([A-Za-z_]\w*|[0-9@*#?!$])|\{([A-Za-z_]\w*|[0-9@*#?!$])\})")
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*)=")
_SPECIAL: Final = frozenset(" \t\n;&|()<>")
_CLOSING: Final = frozenset({"}", "then", "elif", "else", "fi"})
_REFUSED: Final = frozenset({"for", "while", "until", "case", "function", "select", "time", "do", "done", "esac", "[["})


@dataclass(slots=True)
class _Reader:
    text: str
    place: int = 0
    tokens: list[str | Word | tuple[int, str]] = field(default_factory=list)

    def read(self) -> list[str | Word | tuple[int, str]]:
        """Operators as text, redirections as (number, operator), and words."""
        while self.place < len(self.text):
            here = self.text[self.place]
            if here in " \t":
                self.place += 1
            elif here == "\\" and self.text.startswith("\\\n", self.place):
                self.place += 2
            elif here == "#":
                self.place = (self.text + "\n").index("\n", self.place)
            elif match := _OPERATOR.match(self.text, self.place):
                self.place = match.end()
                operator = match["redirect"]
                if operator in ("<<", ">>"):
                    raise UnknownSyntaxError(operator)
                number = int(match["fd"]) if match["fd"] else int(operator is not None and operator[0] == ">")
                self.tokens.append((number, operator) if operator else match[0])
            else:
                self.tokens.append(self._word())
        return self.tokens

    def _word(self) -> Word:
        parts: list[Part] = []
        while self.place < len(self.text) and self.text[self.place] not in _SPECIAL:
            here = self.text[self.place]
            if here == "'":
                end = self._find("'", self.place + 1)
                parts.append(Part("text", self.text[self.place + 1 : end], quoted=True))
                self.place = end + 1
            elif here == '"':
                self.place += 1
                parts += self._double_quoted()
            elif here == "\\":
                parts.append(Part("text", self.text[self.place + 1 : self.place + 2], quoted=True))
                self.place += 2
            elif here == "$":
                parts.append(self._dollar(quoted=False))
            elif here in "`*?~":
                raise UnknownSyntaxError(here)
            else:
                parts.append(Part("text", here, quoted=False))
                self.place += 1
        return tuple(parts)

    def _double_quoted(self) -> list[Part]:
        parts = [Part("text", "", quoted=True)]
        while (here := self.text[self.place : self.place + 1]) != '"':
            if not here or here == "`":
                raise UnknownSyntaxError('"')
            if here == "$":
                parts.append(self._dollar(quoted=True))
                continue
            if here == "\\" and self.text[self.place + 1 : self.place + 2] in ('"', "\\", "$", "`"):
                self.place += 1
                here = self.text[self.place]
            parts.append(Part("text", here, quoted=True))
            self.place += 1
        self.place += 1
        return parts

    def _dollar(self, *, quoted: bool) -> Part:
        if self.text.startswith("$(", self.place) and not self.text.startswith("$((", self.place):
            end = self._matching(self.place + 1)
            inside = self.text[self.place + 2 : end]
            self.place = end + 1
            return Part("output", inside, quoted)
        match = _PARAMETER.match(self.text, self.place)
        if match is None:
            if self.text.startswith(("${", "$(("), self.place):
                raise UnknownSyntaxError("$")
            self.place += 1
            return Part("text", "$", quoted)
        self.place = match.end()
        return Part("parameter", match[1] or match[2], quoted)

    def _find(self, what: str, start: int) -> int:
        end = self.text.find(what, start)
        if end < 0:
            raise UnknownSyntaxError(f"no second {what}")
        return end

    def _matching(self, start: int) -> int:
        """The place of the parenthesis that closes the one at `start`; quotes are skipped."""
        depth, place = 0, start
        while place < len(self.text):
            here = self.text[place]
            if here == "\\":
                place += 1
            elif here in "'\"":
                place = self._find(here, place + 1)
            elif here == "(":
                depth += 1
            elif here == ")":
                depth -= 1
                if not depth:
                    return place
            place += 1
        raise UnknownSyntaxError("no second )")


def parse(text: str) -> Script:
    """The tree of a script. Raises UnknownSyntaxError."""
    parser = _Parser(_Reader(text).read())
    script = parser.script(())
    if parser.tokens:
        raise UnknownSyntaxError(str(parser.tokens[0]))
    return script


def _plain(token: object) -> str | None:
    """What an unquoted word of text alone says."""
    if isinstance(token, tuple) and all(isinstance(part, Part) for part in token):
        parts = [part for part in token if isinstance(part, Part)]
        if parts and all(part.kind == "text" and not part.quoted for part in parts):
            return "".join(part.value for part in parts)
    return None


class _Parser:
    def __init__(self, tokens: list[str | Word | tuple[int, str]]) -> None:
        self.tokens = tokens

    def _next(self) -> object:
        return self.tokens[0] if self.tokens else None

    def _take(self, *wanted: str) -> str:
        token = self._next()
        text = token if isinstance(token, str) else _plain(token)
        if text is None or text not in wanted:
            raise UnknownSyntaxError(f"{wanted} is missing")
        self.tokens.pop(0)
        return text

    def _skip_newlines(self) -> None:
        while self._next() == "\n":
            self.tokens.pop(0)

    def script(self, until: tuple[str, ...]) -> Script:
        steps: list[Step] = []
        while True:
            self._skip_newlines()
            token = self._next()
            if token is None or token == _END or _plain(token) in _CLOSING:
                if token is None and until:
                    raise UnknownSyntaxError(f"{until} is missing")
                return Script(tuple(steps))
            pipelines = [(_FIRST, self._pipeline())]
            while self._next() in ("&&", "||"):
                joint = self._take("&&", "||")
                self._skip_newlines()
                pipelines.append((joint, self._pipeline()))
            background = False
            if self._next() in (";", "&", "\n"):
                background = self._take(";", "&", "\n") == "&"
            elif self._next() is not None and self._next() != _END:
                raise UnknownSyntaxError(str(self._next()))
            steps.append(Step(tuple(pipelines), background))

    def _pipeline(self) -> Pipeline:
        negated = _plain(self._next()) == "!"
        if negated:
            self.tokens.pop(0)
        commands = [self._command()]
        while self._next() == "|":
            self.tokens.pop(0)
            self._skip_newlines()
            commands.append(self._command())
        return Pipeline(tuple(commands), negated)

    def _command(self) -> Command:
        token = self._next()
        word = _plain(token)
        if token == _BEGIN:
            self._take("(")
            body = self.script((")",))
            self._take(")")
            return Group(body, apart=True, redirections=self._redirections())
        if word == "{":
            self._take("{")
            body = self.script(("}",))
            self._take("}")
            return Group(body, apart=False, redirections=self._redirections())
        if word == "if":
            return self._if()
        if word in _REFUSED:
            raise UnknownSyntaxError(word)
        return self._simple()

    def _if(self) -> If:
        branches = []
        self._take("if")
        while True:
            condition = self.script(("then",))
            self._take("then")
            branches.append((condition, self.script(("fi",))))
            end = self._take("elif", "else", "fi")
            if end != "elif":
                break
        otherwise = Script()
        if end == "else":
            otherwise = self.script(("fi",))
            self._take("fi")
        return If(tuple(branches), otherwise, self._redirections())

    def _redirections(self) -> tuple[Redirection, ...]:
        found = []
        while (one := self._redirection()) is not None:
            found.append(one)
        return tuple(found)

    def _redirection(self) -> Redirection | None:
        token = self._next()
        if not (isinstance(token, tuple) and len(token) == 2 and isinstance(token[0], int)):
            return None
        self.tokens.pop(0)
        target = self._next()
        if not isinstance(target, tuple) or not target or not isinstance(target[0], Part):
            raise UnknownSyntaxError("a redirection to nothing")
        self.tokens.pop(0)
        operator = str(token[1])
        words = tuple(part for part in target if isinstance(part, Part))
        return Redirection(token[0], words, reads=operator[0] == "<", copies=operator.endswith("&"))

    def _simple(self) -> Simple:
        assignments: list[tuple[str, Word]] = []
        words: list[Word] = []
        redirections: list[Redirection] = []
        while True:
            if (redirection := self._redirection()) is not None:
                redirections.append(redirection)
                continue
            token = self._next()
            if not isinstance(token, tuple):
                break
            word = tuple(part for part in token if isinstance(part, Part))
            self.tokens.pop(0)
            if not words and (assigned := _assignment(word)) is not None:
                assignments.append(assigned)
            else:
                words.append(word)
        if not (assignments or words or redirections):
            raise UnknownSyntaxError(str(self._next()))
        return Simple(tuple(assignments), tuple(words), tuple(redirections))


def _assignment(word: Word) -> tuple[str, Word] | None:
    """Name and value, where the unquoted beginning of the word is `name=`."""
    length = next((at for at, part in enumerate(word) if part.kind != "text" or part.quoted), len(word))
    match = _ASSIGNMENT.match("".join(part.value for part in word[:length]))
    if match is None:
        return None
    return match[1], word[match.end() :]  # unquoted text has one part for each character
