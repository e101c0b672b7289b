"""Which nodes a command on a live cluster is about, fixed before anything is done on any of them.

Nothing is judged here. A node that is named and does not exist ends the command. Where nodes cannot be listed, the
scope is partial: the nodes that were named, or else those of the kube-proxy pods that can be seen; find-affected looks
at both.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.raised import reminders
from kdnsctl.cluster.errors import ForbiddenError
from kdnsctl.cluster.kubeproxy import Kind, KubeProxy, locate
from kdnsctl.cluster.objects import Node, Pod
from kdnsctl.cluster.proxyload import discover, list_nodes
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError, Scope, UsageError

MOST_NAMED = 5  # of a list of nodes, in an error
TOLD_BY_NODE = (Kind.ABSENT, Kind.EMBEDDED)
QUIET = ("verbosity show", "verbosity raise", "verbosity restore")  # they say themselves what is raised


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the operator said: nodes by name, or by label selector; neither: all nodes."""

    names: tuple[str, ...] = ()
    selector: str | None = None


@dataclass(frozen=True, slots=True)
class InScope:
    """The nodes, each once, by name and in order. `proxies` has where kube-proxy is on them, as far as can be known.

    `notes` are for people: what could not be read. `blind` is why no pods could be read at all, "" when they could.
    `nodes` are the nodes in scope themselves, none where they cannot be listed; `pods` are kube-proxy's, by uid.
    """

    names: tuple[str, ...]
    proxies: dict[str, KubeProxy]
    scope: Scope
    notes: tuple[str, ...]
    blind: str = ""
    nodes: tuple[Node, ...] = ()
    pods: Mapping[str, Pod] = field(default_factory=dict)


def nodes_in_scope(
    connection: Connection,
    chosen: Chosen,
    *,
    scope: CancelScope,
    command: str = "find-affected",
    others: bool = False,
) -> InScope:
    """List the nodes and find kube-proxy on them. `command` is the one whose permissions a hint names.

    `others`: where nodes cannot be listed, also those that were not named and have a kube-proxy pod: for looking only.

    Raises UsageError when a node does not exist or the selector matches none; KdnsctlError with the code `forbidden`
    when nothing at all is left to look at; else as `list_all` does.
    """
    if chosen.names and chosen.selector is not None:
        raise UsageError("nodes are chosen by name or with --selector, not both")
    try:
        listed = list_nodes(connection, scope=scope, labels=chosen.selector)
    except ForbiddenError as error:
        if chosen.selector is not None:
            raise KdnsctlError(
                f"which nodes have {chosen.selector} cannot be known: {error}",
                hint="name the nodes, or have somebody allow `list nodes`",
                code=error.code,
            ) from error
        return _unlisted(connection, chosen.names, error, scope, command, others=others)
    known = {node.metadata.name: node for node in listed}
    names = tuple(dict.fromkeys(chosen.names)) if chosen.names else tuple(sorted(known))
    missing = [name for name in names if name not in known]
    if missing:
        raise _no_such_node(missing, sorted(known), connection)
    if not names:
        which = f"no node has {chosen.selector}" if chosen.selector is not None else "there are no nodes"
        hint = "which labels there are: kubectl get nodes --show-labels" if chosen.selector is not None else ""
        raise UsageError(f"{which} in {connection.target}; nothing was done", hint=hint)
    nodes = [known[name] for name in names]
    # Whoever raised a verbosity may be gone: everybody who lists nodes is told, whatever the nodes are listed for.
    told = tuple(reminders(listed)) if command not in QUIET else ()
    try:
        found = discover(connection, nodes, scope=scope)
    except ForbiddenError as error:
        # What a node is shows also without pods; that one has no kube-proxy does not.
        apart = {name: proxy for name, proxy in locate(nodes, ()).items() if proxy.kind in TOLD_BY_NODE}
        return InScope(
            names, apart, Scope.FULL, told, blind=f"kube-proxy's pods may not be listed: {error}", nodes=tuple(nodes)
        )
    return InScope(names, found.proxies, Scope.FULL, (*told, *found.notes), nodes=tuple(nodes), pods=found.pods)


def _unlisted(
    connection: Connection,
    named: Sequence[str],
    error: ForbiddenError,
    scope: CancelScope,
    command: str,
    *,
    others: bool,
) -> InScope:
    names = tuple(dict.fromkeys(named))
    about = (
        "the nodes named, and whether there are such was not checked."
        if names and not others
        else "the nodes named and those of the kube-proxy pods that can be read. Nodes without such a pod are missing "
        "here."
    )
    note = f"Nodes may not be listed ({error}): in scope are {about}"
    try:
        found = discover(connection, None, scope=scope)
    except ForbiddenError as blind:
        if not names:
            raise _nothing_to_look_at(blind, command) from blind
        why = f"neither nodes nor kube-proxy's pods may be listed: {blind}"
        return InScope(names, {}, Scope.PARTIAL, (note,), blind=why)
    # Who names a node means that one: nobody else's may be read in detail, and far less changed.
    if names and not others:
        proxies = {name: proxy for name, proxy in found.proxies.items() if name in names}
    else:
        proxies, names = found.proxies, tuple(dict.fromkeys([*names, *found.proxies]))
    if not names:
        raise _nothing_to_look_at(error, command) from error
    return InScope(names, proxies, Scope.PARTIAL, (note, *found.notes), pods=found.pods)


def _nothing_to_look_at(error: ForbiddenError, command: str) -> KdnsctlError:
    return KdnsctlError(
        f"no node can be found: {error}",
        hint=f"have somebody allow what `kdnsctl rbac {command}` prints (`list nodes` first), or name the nodes",
        code=error.code,
    )


def _no_such_node(missing: Sequence[str], known: Sequence[str], connection: Connection) -> UsageError:
    shown = ", ".join(missing[:MOST_NAMED]) + (" and others" if len(missing) > MOST_NAMED else "")
    close = difflib.get_close_matches(missing[0], known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"the cluster has {len(known)} nodes: kubectl get nodes"
    return UsageError(f"no node {shown} in {connection.target}; nothing was done", hint=hint)
