"""Which node a file is of, and which files belong together, told by where they lie. Pure; nothing is opened.

A dump of a node says nowhere in itself whose it is. The folder below what was given tells (`nodes/NODE/…` of a bundle,
`DIRECTORY/NODE/conntrack.txt`), else --node; the name of what was given, and what stands above it, is a guess, unless
the cluster's objects know a node of that name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Final

from kdnsctl.find.recognise import Sort
from kdnsctl.model import Reason

_NODE: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_NODES_FOLDER: Final = "nodes"
_WILDCARD: Final = re.compile(r"[*?\[]")
_GENERIC: Final = frozenset(
    """
    kube-proxy kubeproxy kube_proxy proxy conntrack iptables nft nftables ipvs rules proc net netfilter sys stat metrics
    node nodes cluster dump dumps evidence state current data out output tmp var before after raw files
    """.split()  # noqa: SIM905 - read as prose
)
"""Names of folders that sort files and are no node's."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file that holds something of a node. `ordinal` is its place among all inputs, `name` for people.

    `began` is when its reading began, where a bundle says it; `modified` when it was over, as far as is known.
    `problem` is why it is not all there was, where only whoever read it knows that.
    """

    sort: Sort
    name: str
    path: str
    ordinal: int
    modified: datetime | None = None
    began: datetime | None = None
    problem: Reason | None = None


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """All files of one node. `identified` and `name_from` as in reports: "path", "option", or "" for a guess."""

    name: str
    files: tuple[Artefact, ...]
    identified: bool = True
    name_from: str = "path"


def by_node(
    files: Iterable[Artefact], arguments: Sequence[str], *, node: str | None = None, known: Collection[str] = ()
) -> list[NodeFiles]:
    """The files node by node, in the order of the inputs.

    `arguments` are the PATHs as they were given, `node` is --node: it names what nothing else names, and beats the path
    when all files are of one node. `known` are nodes that the cluster's objects name.
    """
    named: dict[str, list[Artefact]] = defaultdict(list)
    guessed: dict[str, list[Artefact]] = defaultdict(list)
    for file in files:
        told = _told(file.path, arguments)
        if told:
            named[told].append(file)
        else:
            guessed[str(PurePosixPath(file.path).parent) if file.path else "."].append(file)
    if node and len(named) + len(guessed) > 1 and guessed:
        named[node] += [file for group in guessed.values() for file in group]
        guessed.clear()
    groups = [NodeFiles(name, tuple(group)) for name, group in named.items()]
    groups += [_guess(folder, group, known) for folder, group in guessed.items()]
    if node and len(groups) == 1:
        groups = [replace(groups[0], name=node, identified=True, name_from="option")]
    elif node:
        groups = [replace(group, name_from="option") if group.name == node else group for group in groups]
    return groups


def _guess(folder: str, files: Sequence[Artefact], known: Collection[str]) -> NodeFiles:
    name = PurePosixPath(folder).name
    if name and name in known:
        return NodeFiles(name, tuple(files))
    return NodeFiles(name or files[0].name, tuple(files), identified=False, name_from="")


def _told(path: str, arguments: Iterable[str]) -> str:
    """The node whose folder a path goes through, "" when none says it."""
    folders = path.split("/")[:-1]
    for above, folder in pairwise(folders):
        if above == _NODES_FOLDER and _NODE.fullmatch(folder):
            return folder
    depth = _depth(path, arguments)
    return next((name for name in reversed(folders[depth:]) if name not in _GENERIC and _NODE.fullmatch(name)), "")


def _depth(path: str, arguments: Iterable[str]) -> int:
    """How many of a path's names belong to what was given, and not to what lies in it."""
    names = path.split("/")
    depths: list[int] = []
    for argument in arguments:
        given = [name for at, name in enumerate(argument.split("/")) if name not in ("", ".") or (at == 0 and not name)]
        given = given[: next((at for at, name in enumerate(given) if _WILDCARD.search(name)), len(given))]
        if given and len(given) <= len(names) and names[: len(given) - 1] == given[:-1]:
            last = names[len(given) - 1]
            if given[-1] == last or given[-1].startswith(f"{last}."):  # an archive, without its suffixes
                depths.append(len(given))
    return min(depths, default=0)


def partner(file: PurePosixPath, errors: Collection[str]) -> str | None:
    """Which of the files named like `errors` holds what a command said on standard error beside this output."""
    for candidate in (f"{file}.err", str(file.with_suffix(".err")) if file.name else ""):
        if candidate in errors:
            return candidate
    return None


def is_second(path: str, others: Collection[str]) -> bool:
    """Whether this is the later of two readings of the same thing: `conntrack.b.txt` beside `conntrack.a.txt`."""
    folder, slash, name = path.rpartition("/")
    first = _SECOND.sub(r"\1a\2", name)
    return first != name and f"{folder}{slash}{first}" in others


_SECOND: Final = re.compile(r"([._-])b([._-]|$)")
