"""What TAB offers of a cluster: the names of its nodes, and of the kubeconfig's contexts, clusters and users.

TAB must be quick, and must never be in the way. So names of nodes are kept for a while in the cache directory, the
cluster is asked for no longer than `LIMIT`, and whatever goes wrong, nothing is offered and nothing is said. What is
needed to ask is imported only then.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import typer

LIMIT = 3.0  # seconds to ask the cluster, a credential plug-in included
FRESH = 60.0  # seconds: so long neither names nor a failure are asked for again
OUTDATED = 86400.0  # seconds: names are offered that long while the cluster does not answer
MOST_FILES = 32  # kept in the cache; the oldest go
_WHERE = ("context", "cluster", "user", "server", "token_file", "impersonate", "impersonate_groups", "resolve")


def complete_node(ctx: typer.Context, incomplete: str) -> list[str]:
    """The nodes of the cluster that the line means so far, as NAME or node/NAME; none for words that are paths."""
    if ctx.params.get("logs"):
        return []
    prefix = "node/" if incomplete.startswith("node/") else ""
    taken = {str(word).removeprefix("node/") for word in ctx.params.get("words") or ()}
    names = (name for name in _nodes(ctx.params) if name not in taken)
    return [prefix + name for name in names if (prefix + name).startswith(incomplete)]


def complete_context(ctx: typer.Context, incomplete: str) -> list[str]:
    """The contexts of the kubeconfig."""
    return _of_kubeconfig(ctx, "contexts", incomplete)


def complete_cluster(ctx: typer.Context, incomplete: str) -> list[str]:
    """The clusters of the kubeconfig."""
    return _of_kubeconfig(ctx, "clusters", incomplete)


def complete_user(ctx: typer.Context, incomplete: str) -> list[str]:
    """The users of the kubeconfig."""
    return _of_kubeconfig(ctx, "users", incomplete)


def _of_kubeconfig(ctx: typer.Context, kind: str, incomplete: str) -> list[str]:
    from kdnsctl.cluster import kubeconfig  # noqa: PLC0415  # PyYAML
    from kdnsctl.model import KdnsctlError  # noqa: PLC0415

    said = ctx.params.get("kubeconfig")
    try:
        files, _ = kubeconfig.files_of(str(said) if said else None, os.environ)
        return sorted(name for name in getattr(kubeconfig.read(files), kind) if name.startswith(incomplete))
    except (KdnsctlError, OSError):
        return []


def _nodes(params: Mapping[str, Any]) -> list[str]:
    """Names from the cache, or from the cluster; old ones where it does not answer."""
    from kdnsctl.cluster.caches import cache_directory  # noqa: PLC0415

    file = cache_directory(os.environ) / "nodes" / f"{_key(params)}.json"
    now = time.time()
    asked, known, names = _kept(file)
    if not 0 <= now - asked < FRESH:
        asked, found = now, _ask(params)
        if found is not None:
            known, names = now, found
        _keep(file, {"asked": asked, "known": known, "names": names})
    return names if 0 <= now - known < OUTDATED else []


def _key(params: Mapping[str, Any]) -> str:
    """A name for all that decides which cluster is asked, as whom. A kubeconfig that was written has a new one."""
    import hashlib  # noqa: PLC0415

    said = {name: str(params[name]) for name in _WHERE if params.get(name)}
    files = [[str(path), *_state(path)] for path in _kubeconfigs(params)]
    inside = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    return hashlib.sha256(json.dumps([said, files, inside]).encode()).hexdigest()[:32]


def _kubeconfigs(params: Mapping[str, Any]) -> Iterable[Path]:
    """The files that may be read (`cluster.kubeconfig.files_of` decides), without reading them."""
    listed = str(params.get("kubeconfig") or os.environ.get("KUBECONFIG") or "")
    if listed:
        return [Path(part) for part in listed.split(os.pathsep) if part]
    return [Path(os.environ.get("HOME", "")) / ".kube" / "config"]


def _state(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError:
        return (0, 0)
    return (state.st_mtime_ns, state.st_size)


def _kept(file: Path) -> tuple[float, float, list[str]]:
    """When the cluster was asked last, when it answered last, and what; zeros for a file that is none of ours."""
    try:
        held = json.loads(file.read_bytes())
        return float(held["asked"]), float(held["known"]), [str(name) for name in held["names"]]
    except (OSError, ValueError, TypeError, KeyError):
        return 0.0, 0.0, []


def _keep(file: Path, held: Mapping[str, object]) -> None:
    from kdnsctl.cluster.caches import replace as write  # noqa: PLC0415

    try:
        write(file, json.dumps(held).encode())
        files = sorted(file.parent.glob("*.json"), key=_state, reverse=True)
        for old in files[MOST_FILES:]:
            old.unlink(missing_ok=True)
    except OSError:
        return  # a cache: what is not kept is asked again


def _ask(params: Mapping[str, Any]) -> list[str] | None:
    """The names of the nodes, from the cluster; None when they cannot be had in time."""
    from kdnsctl.cancel import CancelScope  # noqa: PLC0415
    from kdnsctl.cli.connecting import connect_options  # noqa: PLC0415
    from kdnsctl.cli.options import Common, Connection  # noqa: PLC0415
    from kdnsctl.cluster.connection import connect  # noqa: PLC0415
    from kdnsctl.cluster.lists import list_metadata  # noqa: PLC0415
    from kdnsctl.cluster.retries import NO_RETRIES  # noqa: PLC0415
    from kdnsctl.model import KdnsctlError  # noqa: PLC0415

    given = {one.name: params[one.name] for one in fields(Connection) if params.get(one.name)}
    try:
        options = replace(connect_options(Connection(**given), Common(no_input=True)), request_timeout=LIMIT)
        with CancelScope(LIMIT) as scope:
            connection = connect(options, scope, retry=NO_RETRIES)
            try:
                found = list_metadata(connection, "/api/v1/nodes", scope=scope)
            finally:
                connection.close()
    except (KdnsctlError, OSError, ValueError):
        return None
    return sorted(node.metadata.name for node in found.items)
