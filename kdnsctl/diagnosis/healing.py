"""Check C10: whether kube-proxy will mend by itself what was found, by its release and by what the evidence shows.

What each release does is data (`RELEASES`), read from its source or from the issue that is named with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from kdnsctl.diagnosis import wording
from kdnsctl.diagnosis.case import COUNTED_PROTOCOL, Case, Wrong
from kdnsctl.diagnosis.findings import Finding, Severity
from kdnsctl.diagnosis.impact import judged
from kdnsctl.diagnosis.index import Kind

RECONCILER = 32  # 1.32: the table is compared with the endpoints, instead of one deletion for each endpoint (#127318)
_VERSION = re.compile(r"v?1\.(\d{1,3})(?:\.(\d{1,4}))?(?:[.+\-]\S*)?$")
_ANY_PATCH = 10_000


class Behaviour(NamedTuple):
    """What releases `first` to `last`, as (minor, patch), do about stale entries; `last` included."""

    first: tuple[int, int]
    last: tuple[int, int]
    text: str


RELEASES = (
    Behaviour(
        (0, 0),
        (31, _ANY_PATCH),
        "Up to 1.31 kube-proxy deletes entries once, when an endpoint goes; a deletion that fails is logged, and "
        "neither retried nor counted.",
    ),
    Behaviour((22, 0), (22, 3), "This release does not clean up after endpoints that stop being ready (#105657)."),
    *(
        Behaviour(
            (minor, 0), (minor, patch), "This release does not clean up after endpoints that terminate (#127780)."
        )
        for minor, patch in ((29, 9), (30, 5), (31, 1))
    ),
    Behaviour(
        (32, 0),
        (99, _ANY_PATCH),
        "From 1.32 on kube-proxy compares the whole table with its endpoints, but only after a sync that succeeds "
        "and in which a UDP endpoint has changed (#127318).",
    ),
    Behaviour(
        (32, 0), (32, 2), "1.32.0 to 1.32.2 may also take much memory for it (#129982) or delete too much (#130170)."
    ),
    Behaviour(
        (32, 0),
        (32, _ANY_PATCH),
        "1.32 gives up when listing the table is interrupted, and does not try again until the next change (#129562).",
    ),
    Behaviour(
        (33, 0), (99, _ANY_PATCH), "Since 1.33 it tries listing five times and goes on with a partial list (#130256)."
    ),
    Behaviour((32, 0), (35, _ANY_PATCH), "Before 1.36 cleaning a large table takes long (#135323)."),
)
LAST_WITHOUT_ZERO_ENDPOINTS = 36  # #139629, merged after 1.36.3, makes it clean Services without endpoints
RESTART = (
    "Restarting kube-proxy on this node normally heals it: at start every UDP Service counts as new and is cleaned. "
    "It does not if that cleaning fails as well, or if DNS pods are replaced in the same moment."
)


def outlook(case: Case) -> Iterator[Finding]:
    """C10: whether the node heals without anybody doing anything."""
    groups = judged(case)
    faults = [fault for fault in case.faults if fault.in_scope]
    if not groups and not faults:
        return
    release = release_of(case.evidence.version)
    sentences = [
        *_rules(case, entries=bool(groups)),
        *_by_release(release, entries=bool(groups)),
        *_by_kind(case, release),
    ]
    if groups and not any(fault.wrong is Wrong.DEAD_TARGET for fault in faults):
        sentences.append("Entries that no packet uses end by themselves (C7).")
    settled = any(each.count for each in groups) or any(fault.settled for fault in faults)
    yield Finding(
        "C10",
        Severity.INFO,
        " ".join(sentences),
        f"{wording.COLLECT_FIRST} {RESTART}" if settled else "",
        protocol=COUNTED_PROTOCOL,
        repair=wording.restart(case) if settled else "",
    )


def release_of(version: str) -> tuple[int, int | None] | None:
    """(minor, patch) of "v1.30.3", patch None for "1.30"; None for what is no release of Kubernetes 1."""
    match = _VERSION.match(version)
    if match is None:
        return None
    return int(match[1]), int(match[2]) if match[2] is not None else None


def behaviours(release: tuple[int, int | None]) -> list[str]:
    """What a release does; without a patch level only what all of its patch releases do."""
    minor, patch = release
    lowest, highest = (minor, patch or 0), (minor, _ANY_PATCH if patch is None else patch)
    return [each.text for each in RELEASES if each.first <= lowest and highest <= each.last]


def _by_release(release: tuple[int, int | None] | None, *, entries: bool) -> Iterator[str]:
    if not entries:
        return
    if release is None:
        yield (
            "kube-proxy's version is not known: up to 1.31 a deletion that failed is final, from 1.32 on the next "
            "change of a UDP endpoint on a node whose syncs succeed cleans up."
        )
        return
    yield from behaviours(release)


def _by_kind(case: Case, release: tuple[int, int | None] | None) -> Iterator[str]:
    kinds = {each.kind for each in judged(case)}
    reconciles = release is not None and release[0] >= RECONCILER
    if Kind.NO_ENDPOINTS in kinds:
        if reconciles and release is not None and release[0] > LAST_WITHOUT_ZERO_ENDPOINTS:
            yield "Services without endpoints are cleaned as well (#139629)."
        elif reconciles:
            yield (
                "It leaves a Service without serving endpoints alone (#139628): its entries stay until an endpoint "
                "serves again; the first sync after that removes them."
            )
        else:
            yield "When the Service gets an endpoint again, up to 1.31 all of its entries are deleted, once (#48370)."
    if Kind.GONE in kinds:
        yield (
            "From 1.32 on entries of deleted Services are left alone (#141371)."
            if reconciles
            else "Up to 1.31 the entries of a deleted Service's ClusterIP are deleted once, when it goes; later never."
        )


def _rules(case: Case, *, entries: bool) -> Iterator[str]:
    faults = [fault for fault in case.faults if fault.in_scope]
    if faults:
        yield (
            "Not while the rules are wrong: entries are cleaned only after the rules were written."
            if entries
            else "The rules come right with the first sync that succeeds."
        )
    failures = restore_failures(case)
    if failures:
        yield (
            f"{wording.count(failures, 'sync')} of kube-proxy failed since it started. A failed sync uses up the "
            "changes that were pending, and with them the cleanup (#112604): entries can stay though the rules come "
            "right later."
        )


def restore_failures(case: Case) -> int:
    """How many syncs failed since kube-proxy started, as it says; 0 when it does not say."""
    state = case.evidence.kube_proxy
    return sum(each.restore_failures or 0 for each in state.families.values()) if state else 0
