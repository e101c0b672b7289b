"""Deleting conntrack entries with the `conntrack` program: the words for it, and what it says of how it went. Pure.

`conntrack -D` walks the whole table and deletes what its filter matches; each entry that it deleted is printed on
stdout, as `conntrack -L` prints it, and how many there were on stderr. Without a match it ends with 1 and a count of 0.
Up to 1.4.7 it ends with 1 and without a count when an entry expires under its hands, and leaves all that came after it
(fixed by conntrack-tools a7abf3f5, "skip ENOENT when -U/-D finds a stale conntrack entry").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kdnsctl.netfilter.entries import Key
from kdnsctl.netfilter.lines import shown

PROGRAM: Final = "conntrack"
MOST_SAID: Final = 300  # characters of what went wrong
_COUNT: Final = re.compile(
    rb"^conntrack v\S{1,40} \(conntrack-tools\): (\d{1,12}) flow entries have been deleted\.", re.MULTILINE
)
_ABORTED: Final = b"such conntrack doesn't exist"
_VERSION: Final = re.compile(rb"\Aconntrack v(\d[0-9A-Za-z.]{0,30}) \(conntrack-tools\)")


@dataclass(frozen=True, slots=True)
class Said:
    """What `conntrack -D` said on stderr. `count` is None when it gave none; `problem` is the first line otherwise.

    `aborted`: an entry expired while it walked the table, and it walked no further.
    """

    count: int | None = None
    aborted: bool = False
    problem: str = ""


def command(key: Key) -> tuple[str, ...]:
    """The arguments that delete all entries of one key and no others: the reply source is a part of the filter."""
    family = ("-f", "ipv6") if ":" in key.destination else ()
    return (
        *(PROGRAM, "-D", *family, "-p", key.protocol),
        *("--orig-dst", key.destination, "--orig-port-dst", str(key.destination_port)),
        *("--reply-src", key.reply_source, "--reply-port-src", str(key.reply_source_port)),
    )


def said(errors: bytes) -> Said:
    """What stderr tells."""
    count = _COUNT.search(errors)
    if count is not None:
        return Said(int(count[1]))
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return Said(None, _ABORTED in errors, shown(lines[0], MOST_SAID) if lines else "")


def version(output: bytes) -> str | None:
    """The release that `conntrack --version` names; None for anything else."""
    found = _VERSION.match(output)
    return found[1].decode("ascii") if found else None
