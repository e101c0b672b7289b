"""What the absence of a failure in kube-proxy's log is worth, by release. Pure.

Up to 1.31 every failed deletion of conntrack entries is logged, at any verbosity. From 1.32 on kube-proxy can leave
stale entries without a line (kubernetes/kubernetes#139628, #112604), so that a log without failures proves nothing. A
log does not always tell its release; then its wordings narrow it down (`logs.signatures`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kdnsctl.logs.signatures import LAST_MINOR
from kdnsctl.model import UsageError

LAST_MINOR_WHOSE_LOG_TELLS = 31

_VERSION = re.compile(r"v?1\.(\d{1,3})(?:\.(\d{1,4}))?(?:[.+\-]\S*)?$")
_ANY = 1_000

_SILENT = (
    (22, 0, 3, "#105657"),
    (29, 0, 9, "#127780"),
    (30, 0, 5, "#127780"),
    (31, 0, 1, "#127780"),
)
"""Minor, first and last patch release, and issue: regressions in which an endpoint that stopped serving was not cleaned
up after, and nothing was logged. #105657 is fixed in 1.22.4; #127780 in 1.29.10, 1.30.6 and 1.31.2."""


def minor_of(version: str) -> int:
    """The minor release of "v1.30.3", "1.30" or "v1.30.3+k3s1"; raises UsageError for anything else."""
    match = _VERSION.match(version)
    if match is None:
        raise UsageError(f"{version!r} is not a kube-proxy version", hint="for example v1.30.3 or 1.30")
    return int(match[1])


def known_silent(version: str) -> str:
    """The issue by which exactly this release leaves stale entries without a line, "" when none is known.

    Distributions patch: "v1.30.3-eks-1" may have the fix. It counts as 1.30.3.
    """
    match = _VERSION.match(version)
    if match is None or match[2] is None:
        return ""
    minor, patch = int(match[1]), int(match[2])
    return next((issue for known, first, last, issue in _SILENT if minor == known and first <= patch <= last), "")


@dataclass(frozen=True, slots=True)
class Releases:
    """The releases of kube-proxy that wrote a log, as minors of 1.N.

    `exact` is the newest version that the log says, None when it says none, or when its wordings show a newer one.
    `oldest` is the oldest that can have written in it; the newest that did is at least `newest_from` and at most
    `newest_to`.
    """

    exact: str | None
    oldest: int
    newest_from: int
    newest_to: int

    @classmethod
    def of(cls, versions: Sequence[str], first_wording: int, last_wording: int, given: str | None) -> Releases:
        """From the versions that a log says, in order of time; from its wordings; from what the operator gave.

        Of all wordings in the log, `first_wording` is the latest release in which one of them came up, `last_wording`
        the earliest from which on one is gone. If that is the earlier, the log is of at least two releases. What the
        operator gave stands in where the log says no version, unless the wordings contradict it.
        """
        said = [version for version in versions if _VERSION.match(version)]
        if said:
            minors = [minor_of(version) for version in said]
            newest, oldest = max(minors), min(*minors, last_wording)
            if first_wording > newest:
                return cls(None, oldest, first_wording, _ANY)
            return cls(said[-1], oldest, newest, newest)
        two = first_wording > last_wording
        latest = _ANY if two else last_wording
        if given is not None and first_wording <= (minor := minor_of(given)) <= latest:
            return cls(None, min(minor, last_wording), minor, minor)
        return cls(None, min(first_wording, last_wording), first_wording, latest)

    @property
    def log_tells(self) -> bool | None:
        """Whether the absence of failures means anything; None when the release is not known well enough."""
        if self.newest_to <= LAST_MINOR_WHOSE_LOG_TELLS:
            return True
        return False if self.newest_from > LAST_MINOR_WHOSE_LOG_TELLS else None

    @property
    def text(self) -> str:
        """The range as people write it: "1.30", "1.21–1.31", "1.32+", "up to 1.31", or "" when nothing is known."""
        newest = self.newest_to if self.newest_to < LAST_MINOR else 0
        if self.oldest and newest:
            return f"1.{self.oldest}" if self.oldest == newest else f"1.{self.oldest}–1.{newest}"
        if self.oldest:
            return f"1.{self.oldest}+"
        return f"up to 1.{newest}" if newest else ""
