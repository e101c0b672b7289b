"""What `conntrack` says beside its entries, on stderr: how many it has shown, and what went wrong.

The count is the best proof that there is: it is written by the program that wrote the entries, after the last of them
(src/conntrack.c of conntrack-tools, exit_msg).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kdnsctl.netfilter.lines import shown

MOST_SAID = 500
"""Characters of one message that are shown."""

_COUNT = re.compile(
    rb"conntrack v\S{1,40} \(conntrack-tools\): (\d{1,12}) flow (entries|events) have been (shown|deleted)\.\s*\Z"
)
# `-o labels` without /etc/xtables/connlabel.conf: the entries are all there, without labels.
_HARMLESS = re.compile(rb"nfct_labelmap_new: No such file or directory\s*\Z")


@dataclass(slots=True)
class Said:
    """`shown` is the sum of the counts of entries, None without one; `problem` is the first other message."""

    shown: int | None = None
    events: bool = False
    problem: str = ""

    def hear(self, line: bytes) -> bool:
        """Take a line of a dump if it is a message of conntrack's; False when it is something else."""
        if (count := _COUNT.match(line)) is not None:
            if count[2] == b"events":
                self.events = True
            elif count[3] == b"shown":
                self.shown = (self.shown or 0) + int(count[1])
            else:
                self.problem = self.problem or shown(line.strip(), MOST_SAID)
            return True
        if line.startswith(b"conntrack v"):
            self.problem = self.problem or shown(line.strip(), MOST_SAID)
            return True
        return _HARMLESS.match(line) is not None

    def hear_all(self, errors: bytes) -> None:
        """Take all of stderr. A line that is not known is a problem: something may have gone wrong."""
        for line in errors.splitlines():
            if line.strip() and not self.hear(line):
                self.problem = self.problem or shown(line.strip(), MOST_SAID)
