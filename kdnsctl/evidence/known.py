"""The words that records of a bundle are made of: ids of items, rungs, codes of errors, commands. Data, and look-ups.

A bundle can come from anybody, and a record can say anything where a word of ours stands. What is copied into a
redacted bundle is therefore looked up here: a word that is not in these lists is not copied, whatever form it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from kdnsctl.evidence import clusterside
from kdnsctl.evidence.collected import Status
from kdnsctl.evidence.items import ITEMS
from kdnsctl.evidence.nodeside import API, command_of_endpoint
from kdnsctl.evidence.ways import Via
from kdnsctl.logs.sources.opening import Code
from kdnsctl.model import Proof
from kdnsctl.reach.kubeproxyexec import RUNG as EXEC
from kdnsctl.reach.podspec import PodRung
from kdnsctl.reach.sshshell import OPENSSH, SSH

OTHER: Final = "other"  # stands for the code of an error that is not in the list

_KINDS: Final = (*clusterside.KINDS, clusterside.PODS, clusterside.CLIENTS)
_ITEMS: Final = frozenset(
    {*(one.id for one in ITEMS), *(one.id for one in _KINDS), clusterside.WATCH, clusterside.CLOCK}
)
_RUNGS: Final = frozenset({API, EXEC, *(one.value for one in PodRung), SSH, OPENSSH})
_VIAS: Final = frozenset(one.value for one in Via)
_STATUSES: Final = frozenset(one.value for one in Status)
_PROOFS: Final = frozenset(one.value for one in Proof)
_COMMANDS: Final = frozenset(
    {
        ("logs",),
        clusterside.ASK_CLOCK,
        *(clusterside.command_of(one) for one in _KINDS),
        clusterside.watching(next(one for one in clusterside.KINDS if one.id == clusterside.SLICES)),
        *(command for one in ITEMS if one.fact is not None for command in one.fact.commands.values()),
        *(command_of_endpoint(one.fact.endpoint) for one in ITEMS if one.fact is not None and one.fact.endpoint),
    }
)
_CODES: Final = frozenset(
    f"""
    apiError badAnswer badRecord badRequest bundleBroken bundleFull bundleUnwritable cancelled commandFailed conflict
    countDiffers credential cut cutOff deadline empty events failed forbidden gone hostKeyCertificate hostKeyChanged
    hostKeyRevoked hostKeyUnknown httpStatus incompatibleTable internalError interrupted invalid journalBroken
    journalUnwritable killedOnNode kubeconfig kubeletError kubeletUnreachable lateOnNode leftOut log nativeChains
    natMissing noAnswer noCommit noEnd noImage noPreviousLog noProof noShell noTool noTrailer noWay notAllowed
    notApplicable notFound notRules notRunning notStarted podImage podNotStarted podRefused podStream portForward
    refused serverError ssh sshConfig sshLogin sshRefused sshUnreachable sudo tableMissing tls tooLarge tooLong
    tooManyRequests truncated unauthorized unbounded unreachable unreadable usage withheld
    {" ".join(Code)} {OTHER}
    """.split()
)
"""Of everything that can keep an artefact from being whole. A test compares it with what the code can say."""
_RELEASE: Final = re.compile(r"\d{1,4}(?:\.\d{1,6}){0,3}(?:(?:a|b|rc|\.post|\.dev)\d{1,6}){0,3}")


def item(said: Any) -> str:
    """The id of an item; "" for anything else, as for all of these."""
    return _in(_ITEMS, said)


def items(said: Any) -> list[str]:
    """The ids of items in a list, without whatever else is in it."""
    return [one for one in map(item, listed(said)) if one]


def rung(said: Any) -> str:
    """The rung by which something was read, or the API."""
    return _in(_RUNGS, said)


def rungs(said: Any) -> str:
    """The rungs that reached a node, in the words of a report: "exec, pod"."""
    return ", ".join(filter(None, map(rung, said.split(", ")))) if isinstance(said, str) else ""


def via(said: Any) -> str:
    """What --via can be."""
    return _in(_VIAS, said)


def status(said: Any) -> str:
    """What can come of a node."""
    return _in(_STATUSES, said)


def proof(said: Any) -> str:
    """How it is known that an artefact is whole."""
    return _in(_PROOFS, said)


def code(said: Any) -> str:
    """The code of an error; OTHER for anything else, for that there was one is told in any case."""
    return _in(_CODES, said) or OTHER


def command(words: Iterable[str]) -> tuple[str, ...]:
    """A command or request that is the same on every node and in every cluster; () for another.

    Of which pod a log was asked for is no part of it.
    """
    said = tuple(words)
    said = said[:1] if said[:1] == ("logs",) else said
    return said if said in _COMMANDS else ()


def release(said: Any) -> str:
    """A version of this program, without what a build may add of its own."""
    return said if isinstance(said, str) and _RELEASE.fullmatch(said) else ""


def listed(said: Any) -> list[Any]:
    """A list, where a journal can say anything."""
    return said if isinstance(said, list) else []


def _in(known: frozenset[str], said: Any) -> str:
    return said if isinstance(said, str) and said in known else ""
