"""What a shell would have printed around recorded commands: whatever wraps them, without running anything.

Tools wrap a command to bound its time, to filter its output or to end it with a trailer. Here such a script is followed
as a shell follows it, with recordings in place of programs and files. Time does not pass: a command takes none, so a
job in the background is done when it is waited for, and never when it is killed before, as a timer is. What cannot be
followed to the letter is not followed at all: `NotRecordedError`, and nothing was printed.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kdnsctl.lab.recorded import shellgrammar as grammar
from kdnsctl.lab.recorded.shellgrammar import Part, Script, UnknownSyntaxError, Word
from kdnsctl.lab.recorded.shelltools import NotRecordedError, condition, echo, grep, printf, wc

Programs = Callable[[Sequence[str]], bytes | None]
"""What a command printed, by its words; None when it was not recorded."""
Files = Callable[[str], bytes | None]
"""What a file held, by its path; None when it was not recorded."""

_SHELLS: Final = ("sh", "/bin/sh", "dash")
_MOST: Final = 10_000  # commands of one script
_SIGNALS: Final = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT, "HUP": signal.SIGHUP}


class _ExitError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Played:
    """How a command ended, and what it had printed."""

    stdout: bytes
    stderr: bytes
    code: int


@dataclass(slots=True)
class _Job:
    run: Callable[[], int]
    code: int | None = None

    def finish(self) -> int:
        if self.code is None:
            self.code = self.run()
        return self.code


Streams = Mapping[int, bytearray | None]
"""Where the outputs 1 and 2 go; None is /dev/null."""


def play(words: Sequence[str], programs: Programs, files: Files) -> Played:
    """Follow a command line. Raises NotRecordedError."""
    out, err = bytearray(), bytearray()
    shell = _Shell(programs, files)
    try:
        code = shell.program(list(words), {1: out, 2: err}, b"")
    except _ExitError as end:
        code = end.code
    except (UnknownSyntaxError, RecursionError) as error:
        raise NotRecordedError(str(error)) from None
    return Played(bytes(out), bytes(err), code)


@dataclass(slots=True)
class _Shell:
    programs: Programs
    files: Files
    name: str = "sh"
    arguments: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    last: int = 0
    jobs: dict[str, _Job] = field(default_factory=dict)
    newest: str = ""
    left: list[int] = field(default_factory=lambda: [_MOST])

    def apart(self) -> _Shell:
        """A subshell: it sees everything and changes nothing here."""
        return dataclasses.replace(self, arguments=list(self.arguments), variables=dict(self.variables))

    def whole(self, script: Script, streams: Streams, stdin: bytes) -> int:
        """Run as a shell of its own, with what it left in the background."""
        before = set(self.jobs)
        try:
            code = self.run(script, streams, stdin)
        except _ExitError as end:
            code = end.code
        for number, job in list(self.jobs.items()):
            if number not in before:
                job.finish()
        return code

    def run(self, script: Script, streams: Streams, stdin: bytes) -> int:
        for step in script.steps:
            if step.background:
                self._begin(step, streams)
            else:
                self.last = self._step(step, streams, stdin)
        return self.last

    def _begin(self, step: grammar.Step, streams: Streams) -> None:
        shell = self.apart()
        only = Script((dataclasses.replace(step, background=False),))
        self.newest = str(1000 + len(self.jobs))
        self.jobs[self.newest] = _Job(lambda: shell.whole(only, streams, b""))
        self.last = 0

    def _step(self, step: grammar.Step, streams: Streams, stdin: bytes) -> int:
        code = 0
        for joint, pipeline in step.pipelines:
            if (joint == "&&" and code) or (joint == "||" and not code):
                continue
            code = self._pipeline(pipeline, streams, stdin)
            self.last = code
        return code

    def _pipeline(self, pipeline: grammar.Pipeline, streams: Streams, stdin: bytes) -> int:
        *before, last = pipeline.commands
        for command in before:
            piped = bytearray()
            self.apart().whole(_alone(command), {**streams, 1: piped}, stdin)
            stdin = bytes(piped)
        if before:
            code = self.apart().whole(_alone(last), streams, stdin)
        else:
            code = self._command(last, streams, stdin)
        return int(not code) if pipeline.negated else code

    def _command(self, command: grammar.Command, streams: Streams, stdin: bytes) -> int:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise NotRecordedError("the script is too long")
        streams, stdin = self._redirected(command.redirections, streams, stdin)
        if isinstance(command, grammar.Group):
            if command.apart:
                return self.apart().whole(command.body, streams, stdin)
            return self.run(command.body, streams, stdin)
        if isinstance(command, grammar.If):
            for condition, body in command.branches:
                if self.run(condition, streams, stdin) == 0:
                    return self.run(body, streams, stdin) if body.steps else 0
            return self.run(command.otherwise, streams, stdin) if command.otherwise.steps else 0
        return self._simple(command, streams, stdin)

    def _redirected(
        self, redirections: Sequence[grammar.Redirection], streams: Streams, stdin: bytes
    ) -> tuple[Streams, bytes]:
        changed = dict(streams)
        for each in redirections:
            (target,) = self._expand(each.target) or [""]
            if each.reads:
                stdin = self._file(target) if not each.copies else b""
            elif each.copies and target in ("1", "2"):
                changed[each.number] = changed[int(target)]
            elif target == "/dev/null":
                changed[each.number] = None
            else:
                raise NotRecordedError(f"writing to {target}")
        return changed, stdin

    def _file(self, path: str) -> bytes:
        data = b"" if path == "/dev/null" else self.files(path)
        if data is None:
            raise NotRecordedError(path)
        return data

    # --- words

    def _expand(self, word: Word) -> list[str]:
        """The fields that a word becomes."""
        fields: list[str] = []
        current: str | None = None
        for part in word:
            if part.kind == "parameter" and part.value in "@*" and part.quoted:
                for at, argument in enumerate(self.arguments):
                    if at:
                        fields.append(current or "")
                        current = argument
                    else:
                        current = (current or "") + argument
                continue
            text = self._value(part)
            if part.quoted or part.kind == "text":
                if text or (part.quoted and not self._is_only_arguments(word)):
                    current = (current or "") + text
                continue
            pieces = text.split()
            if text[:1].isspace() and current is not None:
                fields.append(current)
                current = None
            for at, piece in enumerate(pieces):
                if at:
                    fields.append(current or "")
                    current = piece
                else:
                    current = (current or "") + piece
        return fields if current is None else [*fields, current]

    def _is_only_arguments(self, word: Word) -> bool:
        """`"$@"` without arguments is no word at all, where `""` is an empty one."""
        return not self.arguments and any(part.kind == "parameter" and part.value == "@" for part in word)

    def _value(self, part: Part) -> str:
        if part.kind == "text":
            return part.value
        if part.kind == "output":
            said = bytearray()
            self.last = self.apart().whole(grammar.parse(part.value), {1: said, 2: None}, b"")
            return said.decode(errors="surrogateescape").rstrip("\n")
        special = {
            "?": str(self.last),
            "!": self.newest,
            "#": str(len(self.arguments)),
            "0": self.name,
            "$": "999",
            "@": " ".join(self.arguments),
            "*": " ".join(self.arguments),
        }
        if part.value in special:
            return special[part.value]
        if part.value.isdigit():
            return self.arguments[int(part.value) - 1] if int(part.value) <= len(self.arguments) else ""
        return self.variables.get(part.value, "")

    # --- commands

    def _simple(self, command: grammar.Simple, streams: Streams, stdin: bytes) -> int:
        words = [text for word in command.words for text in self._expand(word)]
        assigned = {name: "".join(map(self._value, value)) for name, value in command.assignments}
        if not words:
            self.variables |= assigned
            outputs = any(part.kind == "output" for _, value in command.assignments for part in value)
            return self.last if outputs else 0
        builtin = getattr(self, f"_do_{_BUILTINS[words[0]]}", None) if words[0] in _BUILTINS else None
        if builtin is not None:
            code: int = builtin(words[1:], streams)
            return code
        return self.program(words, streams, stdin)

    def program(self, words: list[str], streams: Streams, stdin: bytes) -> int:
        """A program of the image."""
        if words[0] in _SHELLS and words[1:2] == ["-c"] and len(words) > 2:
            name, *arguments = words[3:] or ["sh"]
            shell = _Shell(self.programs, self.files, name, arguments, dict(self.variables), left=self.left)
            return shell.whole(grammar.parse(words[2]), streams, stdin)
        if (recorded := self.programs(words)) is not None:
            _write(streams[1], recorded)
            return 0
        if words[0] == "cat" and not any(word.startswith("-") for word in words[1:]):
            data = b"".join(map(self._file, words[1:])) if len(words) > 1 else stdin
            _write(streams[1], data)
            return 0
        if words[0] == "grep":
            found, code = grep(words[1:], stdin, self._file)
            _write(streams[1], found)
            return code
        if words[0] == "wc":
            _write(streams[1], wc(words[1:], stdin, self._file))
            return 0
        if words[0] == "sleep":
            return 0
        raise NotRecordedError(words[0])

    def _do_echo(self, words: list[str], streams: Streams) -> int:
        _write(streams[1], echo(words))
        return 0

    def _do_printf(self, words: list[str], streams: Streams) -> int:
        _write(streams[1], printf(words))
        return 0

    def _do_test(self, words: list[str], streams: Streams) -> int:
        del streams
        return int(not condition(words))

    def _do_nothing(self, words: list[str], streams: Streams) -> int:
        del words, streams
        return 0

    def _do_false(self, words: list[str], streams: Streams) -> int:
        del words, streams
        return 1

    def _do_export(self, words: list[str], streams: Streams) -> int:
        del streams
        for word in words:
            name, equals, value = word.partition("=")
            if equals:
                self.variables[name] = value
        return 0

    def _do_shift(self, words: list[str], streams: Streams) -> int:
        del streams
        count = int(words[0]) if words else 1
        if count > len(self.arguments):
            raise NotRecordedError("shift")
        del self.arguments[:count]
        return 0

    def _do_exit(self, words: list[str], streams: Streams) -> int:
        del streams
        raise _ExitError(int(words[0]) & 255 if words else self.last)

    def _do_wait(self, words: list[str], streams: Streams) -> int:
        del streams
        if not words:
            for job in list(self.jobs.values()):
                job.finish()
            return 0
        code = 127
        for word in words:
            code = self.jobs[word].finish() if word in self.jobs else 127
        return code

    def _do_kill(self, words: list[str], streams: Streams) -> int:
        number = int(signal.SIGTERM)
        if words and words[0].startswith("-"):
            number = int(_SIGNALS.get(words[0][1:], 0)) or int(words[0][1:] if words[0][1:].isdigit() else "0")
            words = words[1:]
        code = 0
        for word in words:
            job = self.jobs.get(word)
            if job is None or job.code is not None:
                _write(streams[2], b"sh: kill: No such process\n")
                code = 1
            elif number:
                job.code = 128 + number
        return code


_BUILTINS: Final = {
    "echo": "echo", "printf": "printf", ":": "nothing", "true": "nothing", "trap": "nothing", "false": "false",
    "export": "export", "shift": "shift", "exit": "exit", "wait": "wait", "kill": "kill", "[": "test", "test": "test",
}  # fmt: skip


def _alone(command: grammar.Command) -> Script:
    return Script((grammar.Step((("", grammar.Pipeline((command,))),)),))


def _write(sink: bytearray | None, data: bytes) -> None:
    if sink is not None:
        sink += data
