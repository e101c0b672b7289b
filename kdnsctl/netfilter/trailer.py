"""The last line that a node writes after an output, which proves that the output was not cut off on its way.

`kubectl exec` can lose the end of an output and still exit 0 (kubernetes#124571, #60140), and a cut
/proc/net/nf_conntrack looks like a smaller table. So the node's shell says at the end how the command ended, and an
output without that line is never taken for whole. Nothing is run here: `whole` and `filtered` make the command lines,
`TrailerSplitter` parts what comes back. Nothing that is read may ever stand in a shell's program text: the programs
here are constants, and commands and patterns are their arguments.

On the node they need `sh` with `echo`, and for `filtered` also `grep`: kube-proxy's image has nothing more
(kubernetes/release, images/build/distroless-iptables: dash, cat, grep, wc; no tee, head, tail or timeout).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kdnsctl.model import Reason
from kdnsctl.netfilter.dump import Completeness, Proof

MARKER = "#kdnsctl-end"
"""Begins a trailer: `#kdnsctl-end TOKEN rc=CODE;`, at the end of an output and nowhere else."""

_WHOLE = f'"$@"; echo "{MARKER} $0 rc=$?;"'
# The trailer goes through grep too. Its line number tells how many lines there were before the filter, in one pass.
_FILTERED = (
    f'patterns=$1; shift; {{ "$@"; echo "{MARKER} $0 rc=$?;"; }} | LC_ALL=C grep -n -F -e "$patterns" -e "{MARKER} $0 "'
)
_TOKEN = re.compile(r"[0-9A-Za-z]{1,64}\Z")
_TRAILER = re.compile(rb"%b ([0-9A-Za-z]{1,64}) rc=([0-9]{1,3});\r?\n?\Z" % MARKER.encode())
_NUMBER_BEFORE = re.compile(rb"(?:\A|\n)([0-9]{1,19}):\Z")
_NUMBER = re.compile(rb"(?m)^[0-9]{1,19}:")
_UNDECIDED = re.compile(rb"(?:\A|(?<=\n))[0-9]{0,19}\Z")
_LONGEST = 128  # more bytes than a trailer can have, with its number


@dataclass(frozen=True, slots=True)
class Trailer:
    """What a node said last: the command's exit code, and of a filtered output how many lines it had unfiltered."""

    exit_code: int
    total: int | None = None


def whole(command: Sequence[str], token: str) -> list[str]:
    """The command line that runs `command` on a node and ends its output with a trailer.

    `token` is made anew for each run, so that nothing in the output can pass for its end: 1 to 64 letters and digits,
    else ValueError. The exit code of the shell itself says nothing.
    """
    return ["sh", "-c", _WHOLE, _checked_token(token), *_checked_command(command)]


def filtered(command: Sequence[str], patterns: Sequence[str], token: str) -> list[str]:
    """The command line that prints only those lines of the output of `command` that contain one of `patterns`.

    Patterns are fixed strings without newlines; none at all, or an empty one, would mean every line (ValueError). Lines
    come with their numbers before them, so a `TrailerSplitter` must be told that they are `numbered`.
    """
    if not patterns or any(not pattern or "\n" in pattern for pattern in patterns):
        raise ValueError(f"patterns must not be empty or hold a newline: {patterns!r}")
    return ["sh", "-c", _FILTERED, _checked_token(token), "\n".join(patterns), *_checked_command(command)]


def _checked_command(command: Sequence[str]) -> Sequence[str]:
    if not command or not command[0]:
        raise ValueError("no command: the shell would run nothing, and say that it went well")
    return command


def _checked_token(token: str) -> str:
    if not _TOKEN.match(token):
        raise ValueError(f"a token has 1 to 64 letters and digits: {token!r}")
    return token


class TrailerSplitter:
    """Parts an output from its trailer, in a stream cut anywhere. Holds back no more than a trailer's length.

    `token` as the command was made with; None, for files, takes any. `numbered` for the output of `filtered`: then the
    numbers are taken away again. The payload is byte for byte what the command printed, with or without a newline at
    its end; without a trailer all is payload.
    """

    def __init__(self, token: str | None = None, *, numbered: bool = False) -> None:
        self._token = token.encode() if token is not None else None
        self._numbered = numbered
        self._held = b""
        self._undecided = b""
        self._in_line = False

    def feed(self, block: bytes) -> bytes:
        """Take the next bytes; returns payload, which may lag behind."""
        data = self._held + block
        self._held = data[-_LONGEST:]
        return self._payload(data[:-_LONGEST])

    def finish(self) -> tuple[bytes, Trailer | None]:
        """The output is over: returns the rest of the payload, and the trailer if there was one."""
        data, self._held = self._held, b""
        trailer = None
        if (match := _TRAILER.search(data)) and self._token in (None, match[1]):
            end: int | None = match.start()
            total = None
            if self._numbered:
                # The end of the payload before, as far as it is known, tells whether the number begins a line.
                number = _NUMBER_BEFORE.search(data, 0, match.start())
                end = number.start(1) if number else None
                total = int(number[1]) - 1 if number else None
            if end is not None:
                data = data[:end]
                trailer = Trailer(int(match[2]), total)
        payload = self._payload(data) + self._undecided
        self._undecided = b""
        return payload, trailer

    def _payload(self, data: bytes) -> bytes:
        """The bytes without line numbers, unless there are none."""
        if not self._numbered or not data:
            return data
        data = self._undecided + data
        # A line that goes on here is given a mark before it, so that its digits are not taken for a number.
        data = b":" + data if self._in_line else data
        self._undecided = undecided[0] if (undecided := _UNDECIDED.search(data)) else b""
        data = data[: len(data) - len(self._undecided)]
        stripped = _NUMBER.sub(b"", data)
        if self._in_line:
            stripped = stripped[1:]
        if data:
            self._in_line = not data.endswith(b"\n")
        return stripped


def completeness(trailer: Trailer | None) -> Completeness:
    """What a trailer proves of the output before it; `None`, that there was none."""
    if trailer is None:
        return Completeness(
            problem=Reason("noTrailer", "the output does not end as the node should have ended it: it was cut off")
        )
    if trailer.exit_code:
        return Completeness(
            Proof.TRAILER, Reason("commandFailed", f"the command ended with exit code {trailer.exit_code} on the node")
        )
    return Completeness(Proof.TRAILER)
