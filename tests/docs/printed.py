"""Comparing what a page shows with what a command really printed, where the two may differ: times, addresses, ids.

A line of the page holds for a line that is the same but for what changes from run to run (`TOLERATED`) and for how far
its columns are apart. `…` stands for any text within a line, and on a line of its own for any number of lines. All else
must be the same: verdicts, counts of nodes, names, words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

ANYTHING = "…"

# What may stand in place of what the page shows, each for its own kind. The first that fits counts.
TOLERATED = (
    r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z?\b",  # a time
    r"\b20[0-9]{6}t[0-9]{6}z-[0-9a-f]{4}\b",  # an incident
    r"\b[0-9]{8}-[0-9]{6}-[0-9a-f]{8}\b",  # a run
    r"\b[a-z_][a-z0-9_-]*@[\w.-]+",  # who, and where
    r"\b(?:as|without) root\b",
    r"\bkdnsctl [0-9]+\.[0-9]+\.[0-9]+\S* on Python 3\.[0-9]+\.[0-9]+\S*(?=;)",
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",  # a UID
    r"\b[0-9a-f]{16,64}\b",  # a hash
    r"\b(?:[0-9a-f]{10}-)?[bcdfghjklmnpqrstvwxz2456789]{5}\b",  # the end of a pod's name; nothing else has no vowel
    r"\b10\.244\.[0-9]{1,3}\.[0-9]{1,3}(?:/[0-9]+)?\b",  # a pod
    r"\b127\.0\.0\.1:[0-9]+\b",  # the lab's API
    r"\b[0-9]+(?:\.[0-9]+)? (?:B|KB|kB|MB|GB|KiB|MiB|GiB)\b",  # a size
    r"\b[0-9]+(?:\.[0-9]+)? ?(?:ms|s|m|h)(?:[0-9]+(?:s|m)){0,2}\b",  # an age, a duration
    r"\b(?!100 %|0 %)[0-9]+ %",  # all and nothing are not by chance
    r"\b[0-9]+ of [0-9]+(?=\))",
    r"\b[0-9]+ (?:[A-Za-z]+ ){0,2}(?:flows?|entries|entry|queries|records?|files?)\b",
    r"(?<=both )[0-9]+(?= [A-Z])",  # in a table: how many entries, of a node
    r"(?<=clean )[0-9]+(?= exec)",
    r"(?<=affected )[0-9]+\b",
    r"(?<=udp 17 )[0-9]+(?= src=)",  # how long an entry still lives
)
_TOLERATED = re.compile("|".join(f"({pattern})" for pattern in TOLERATED))


def pattern_of(line: str) -> re.Pattern[str]:
    """What a line that was printed has to match, for this line of a page."""
    parts: list[str] = []
    squeezed = _squeezed(line)
    for piece in re.split(f"({ANYTHING})", squeezed):
        if piece == ANYTHING:
            parts.append(".*")
            continue
        at = 0
        for found in _TOLERATED.finditer(piece):
            parts += [re.escape(piece[at : found.start()]), TOLERATED[(found.lastindex or 1) - 1]]
            at = found.end()
        parts.append(re.escape(piece[at:]))
    return re.compile("".join(parts))


def difference(shown: Sequence[str], printed: Sequence[str]) -> str | None:
    """None where the page holds; else the first line that was shown and not printed, beside what was."""
    patterns = [None if line.strip() == ANYTHING else pattern_of(line) for line in shown]
    real = [_squeezed(line) for line in printed]
    reached = 0
    # Which lines of what was printed can come next, after each line shown: all ways at once, in bounded time.
    places = {0}
    for number, pattern in enumerate(patterns):
        if pattern is None:
            places = set(range(min(places), len(real) + 1))
        else:
            places = {at + 1 for at in places if at < len(real) and pattern.fullmatch(real[at])}
        if not places:
            got = "\n".join(printed)
            return f"the page shows\n    {shown[number]}\nand {reached} lines before it hold; what was printed:\n{got}"
        reached = number + 1
    if len(real) not in places:
        return "more was printed than the page shows (write … for what it leaves out):\n" + "\n".join(printed)
    return None


def _squeezed(line: str) -> str:
    return re.sub(r"[ \t]+", " ", line).strip()
