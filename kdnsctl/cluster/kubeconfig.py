"""Which cluster, as whom: the kubeconfig files merged, and the context, cluster and user that were asked for.

This module reads files and decides nothing about credentials beyond which of them applies; `credentials` uses them.
It does not use `kubernetes.config`, whose merging differs from kubectl's where it matters most (versions 36 and 37):
of several files the last `current-context` wins instead of the first, which is another cluster; certificates of a user
are looked for beside the file of the cluster; `as` is not read.

The rules are kubectl's (k8s.io/client-go/tools/clientcmd, loader.go and client_config.go):
* --kubeconfig names one file, which must exist. KUBECONFIG is a list; files that are missing in it are passed over.
  Else ~/.kube/config.
* The first file that names a cluster, context or user, or a current-context, wins. Paths are relative to their file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from msgspec import field

from kdnsctl.cluster.errors import KubeconfigError
from kdnsctl.cluster.yamltext import decode_yaml
from kdnsctl.model import UsageError

MAX_FILE = 16 << 20  # bytes; kubeconfigs of hundreds of clusters have about 1 MB


class _Entry(msgspec.Struct, frozen=True, rename="kebab", kw_only=True):
    """What all entries of a kubeconfig have in common: names with dashes, unknown fields skipped."""


class Cluster(_Entry, frozen=True):
    """A cluster: where, and by whose certificate it is known."""

    server: str = ""
    tls_server_name: str | None = None
    insecure_skip_tls_verify: bool | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    proxy_url: str | None = None
    extensions: list[_Extension] | None = None


class _Extension(_Entry, frozen=True):
    name: str = ""
    extension: object = None


class Context(_Entry, frozen=True):
    """A context: a cluster and a user, and a namespace that is of no use here."""

    cluster: str = ""
    user: str = ""


class ExecVariable(msgspec.Struct, frozen=True):
    """A variable that a plug-in wants."""

    name: str
    value: str = ""


class ExecPlugin(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A command that prints a credential."""

    command: str
    api_version: str = ""
    args: list[str] | None = None
    env: list[ExecVariable] | None = None
    install_hint: str | None = None
    provide_cluster_info: bool | None = None
    interactive_mode: str | None = None


class AuthProvider(_Entry, frozen=True):
    """A credential of the old built-in kind."""

    name: str = ""
    config: dict[str, str] | None = None


class User(_Entry, frozen=True):
    """A user: one or several ways to prove who one is."""

    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = field(default=None, name="tokenFile")
    username: str | None = None
    password: str | None = None
    exec: ExecPlugin | None = None
    auth_provider: AuthProvider | None = None
    as_: str | None = field(default=None, name="as")
    as_uid: str | None = None
    as_groups: list[str] | None = None
    as_user_extra: dict[str, list[str]] | None = None


class _NamedCluster(_Entry, frozen=True):
    name: str
    cluster: Cluster | None = None


class _NamedContext(_Entry, frozen=True):
    name: str
    context: Context | None = None


class _NamedUser(_Entry, frozen=True):
    name: str
    user: User | None = None


class _File(_Entry, frozen=True):
    clusters: list[_NamedCluster] | None = None
    contexts: list[_NamedContext] | None = None
    users: list[_NamedUser] | None = None
    current_context: str | None = None


E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Named(Generic[E]):
    """An entry, its name, and the file that holds it: its relative paths start from that file's folder."""

    name: str
    entry: E
    file: Path

    def path(self, value: str) -> Path:
        """A path as the entry means it."""
        return self.file.parent / Path(value).expanduser()


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """All files merged. `files` are those that were read."""

    files: tuple[Path, ...]
    clusters: Mapping[str, Named[Cluster]]
    contexts: Mapping[str, Named[Context]]
    users: Mapping[str, Named[User]]
    current_context: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be used. `context` is empty when none applied, `user` None when the context names none."""

    context: str
    cluster: Named[Cluster]
    user: Named[User] | None


def files_of(explicit: str | None, environment: Mapping[str, str]) -> tuple[list[Path], str]:
    """The files to read, and how they were named, for messages. One that was named by --kubeconfig must exist."""
    if explicit:
        path = Path(explicit).expanduser()
        if not path.exists():
            raise KubeconfigError(f"--kubeconfig {explicit}: there is no such file", hint="name the file to use")
        return [path], f"--kubeconfig {explicit}"
    listed = environment.get("KUBECONFIG", "")
    if listed:
        paths = [Path(part).expanduser() for part in listed.split(os.pathsep) if part]
        return [path for path in dict.fromkeys(paths) if path.exists()], f"KUBECONFIG={listed}"
    home = environment.get("HOME")
    default = (Path(home) if home else Path("~").expanduser()) / ".kube" / "config"
    return [default] if default.exists() else [], str(default)


def read(paths: Sequence[Path]) -> Kubeconfig:
    """Read and merge. Raises KubeconfigError naming the file, and the place in it, that cannot be read."""
    clusters: dict[str, Named[Cluster]] = {}
    contexts: dict[str, Named[Context]] = {}
    users: dict[str, Named[User]] = {}
    current = ""
    for path in paths:
        content = _read(path)
        for cluster in content.clusters or ():
            clusters.setdefault(cluster.name, Named(cluster.name, cluster.cluster or Cluster(), path))
        for context in content.contexts or ():
            contexts.setdefault(context.name, Named(context.name, context.context or Context(), path))
        for user in content.users or ():
            users.setdefault(user.name, Named(user.name, user.user or User(), path))
        current = current or content.current_context or ""
    return Kubeconfig(tuple(paths), clusters, contexts, users, current)


def select(config: Kubeconfig, context: str | None, cluster: str | None, user: str | None) -> Selection:
    """What --context, --cluster and --user (each may be None) ask for, the current context supplying the rest.

    Raises UsageError when an option names what is not there, KubeconfigError when the files themselves do.
    """
    where = ", ".join(str(path) for path in config.files)
    chosen: Named[Context] | None = None
    wanted = context or config.current_context
    if wanted:
        chosen = config.contexts.get(wanted)
        if chosen is None and (context or not cluster):
            raise _unknown("context", wanted, config.contexts, where, option=context)
    elif not cluster:
        hint = f"choose one with --context: {_names(config.contexts)}" if config.contexts else "name a --kubeconfig"
        raise KubeconfigError(f"no context is current in {where}", hint=hint)

    cluster_name = cluster or (chosen.entry.cluster if chosen else "")
    found = config.clusters.get(cluster_name)
    if found is None:
        raise _unknown("cluster", cluster_name, config.clusters, where, option=cluster)
    user_name = user or (chosen.entry.user if chosen else "")
    as_whom = config.users.get(user_name)
    if user_name and as_whom is None:
        raise _unknown("user", user_name, config.users, where, option=user)
    return Selection(chosen.name if chosen else "", found, as_whom)


def _read(path: Path) -> _File:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise KubeconfigError(f"kubeconfig {path} cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_FILE:
        raise KubeconfigError(f"kubeconfig {path} is larger than {MAX_FILE >> 20} MiB; it was not read")
    if not content.strip():
        return _File()
    try:
        return decode_yaml(content, _File)
    except msgspec.ValidationError as error:  # "Expected `str`, got `int` - at `$.clusters[0].name`"
        raise KubeconfigError(f"kubeconfig {path} is not as it should be: {error}") from error
    except msgspec.DecodeError as error:
        line = " ".join(str(error).split())
        raise KubeconfigError(f"kubeconfig {path} is not YAML: {line}") from error


def _unknown(
    kind: str, name: str, known: Mapping[str, object], where: str, *, option: str | None
) -> KubeconfigError | UsageError:
    names = f"there are: {_names(known)}" if known else f"there is no {kind} at all"
    if option:
        return UsageError(f"no {kind} {name!r} in {where}", hint=names)
    if not name:
        return KubeconfigError(f"the context names no {kind} ({where})", hint=f"name it with --{kind}; {names}")
    return KubeconfigError(f"the kubeconfig names the {kind} {name!r}, which is not in {where}", hint=names)


def _names(known: Mapping[str, object]) -> str:
    names = sorted(known)
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
