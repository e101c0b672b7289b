"""What the absence of a failure in kube-proxy's log is worth, by release. Pure.

Up to 1.31 every failed deletion of conntrack entries is logged, at any verbosity. From 1.32 on kube-proxy can leave
stale entries without a line (kubernetes/kubernetes#139628, #112604), and so can some releases before it by a bug
(`known_silent`), so that a log without failures proves nothing. A log does not always tell its release; then its
wordings narrow it down (`logs.signatures`).
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


def _may_be_silent(version: str) -> bool:
    """Whether, of a version without a patch level, some releases leave entries without a line."""
    match = _VERSION.match(version)
    return match is not None and match[2] is None and any(int(match[1]) == minor for minor, *_ in _SILENT)


@dataclass(frozen=True, slots=True)
class Releases:
    """The releases of kube-proxy that wrote a log, as minors of 1.N.

    `exact` is the version that the log says last, None when the newest part of it does not say one, or when its
    wordings show a newer one. `oldest` is the oldest that can have written in it; the newest that did is at least
    `newest_from` and at most `newest_to`. `silent` are the known releases in it that leave entries without a line,
    `may_be_silent` whether a release of which the patch level is not known can be one.
    """

    exact: str | None
    oldest: int
    newest_from: int
    newest_to: int
    silent: tuple[str, ...] = ()
    may_be_silent: bool = False

    @classmethod
    def of(
        cls,
        versions: Sequence[str],
        first_wording: int,
        last_wording: int,
        given: str | None,
        *,
        begins_unsaid: bool = False,
    ) -> Releases:
        """From the versions that a log says, in order of time; from its wordings; from what the operator gave.

        Of all wordings in the log, `first_wording` is the latest release in which one of them came up, `last_wording`
        the earliest from which on one is gone. If that is the earlier, the log is of at least two releases. What the
        operator gave stands in where the log says no version, unless the wordings contradict it; that is so too where
        a start names something that is no release ("v0.0.0-master+abc"), and, if `begins_unsaid`, before the first
        start.
        """
        said = [version for version in versions if _VERSION.match(version)]
        silent = tuple(sorted({version for version in said if known_silent(version)}))
        if said:
            minors = [minor_of(version) for version in said]
            newest, oldest = max(minors), min(*minors, last_wording)
            if first_wording > newest:
                return cls(None, oldest, first_wording, _ANY, silent, may_be_silent=True)
            patchless = any(_may_be_silent(version) for version in said)
            known = cls(said[-1], oldest, newest, newest, silent, patchless)
            if not begins_unsaid and said == [*versions]:
                return known
            unsaid = cls.of([], first_wording, _ANY, given)
            return cls.together([unsaid, known] if versions[-1] == said[-1] else [known, unsaid])
        two = first_wording > last_wording
        latest = _ANY if two else last_wording
        if given is not None and first_wording <= (minor := minor_of(given)) <= latest:
            silent = (given,) if known_silent(given) else ()
            return cls(None, min(minor, last_wording), minor, minor, silent, _may_be_silent(given))
        oldest = min(first_wording, last_wording)
        hidden = any(oldest <= minor <= latest for minor, *_ in _SILENT)
        return cls(None, oldest, first_wording, latest, may_be_silent=hidden)

    @classmethod
    def together(cls, parts: Sequence[Releases]) -> Releases:
        """Of a log that several kube-proxies wrote, the newest last: no one's version says anything of another."""
        return cls(
            parts[-1].exact,
            min(part.oldest for part in parts),
            max(part.newest_from for part in parts),
            max(part.newest_to for part in parts),
            tuple(sorted({version for part in parts for version in part.silent})),
            any(part.may_be_silent for part in parts),
        )

    @property
    def log_tells(self) -> bool | None:
        """Whether the absence of failures means anything; None when the release is not known well enough."""
        if self.silent or self.is_reconciler:
            return False
        return True if self.newest_to <= LAST_MINOR_WHOSE_LOG_TELLS and not self.may_be_silent else None

    @property
    def is_reconciler(self) -> bool:
        """Whether 1.32 or later wrote in it: kube-proxy then compares the table with its endpoints."""
        return self.newest_from > LAST_MINOR_WHOSE_LOG_TELLS

    @property
    def text(self) -> str:
        """The range as people write it: "1.30", "1.21–1.31", "1.32+", "up to 1.31", or "" when nothing is known."""
        newest = self.newest_to if self.newest_to < LAST_MINOR else 0
        if self.oldest and newest:
            return f"1.{self.oldest}" if self.oldest == newest else f"1.{self.oldest}–1.{newest}"
        if self.oldest:
            return f"1.{self.oldest}+"
        return f"up to 1.{newest}" if newest else ""
