"""From the command line's options to a `Connection`: which server, as whom, by which way.

This is where kubeconfig, credentials, certificates, proxies and addresses come together; each is explained in its own
module. Nothing is sent here, but a credential plug-in is already run, so that its failure is the first thing that is
said.
"""

from __future__ import annotations

import base64
import os
import platform
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from kdnsctl import __version__
from kdnsctl.cancel import CancelScope
from kdnsctl.cluster import kubeconfig, proxies
from kdnsctl.cluster.caches import cache_directory
from kdnsctl.cluster.certificates import ClientCertificate, read_pem, server_context
from kdnsctl.cluster.credentials import Credentials, of_token_file, of_user
from kdnsctl.cluster.errors import KubeconfigError
from kdnsctl.cluster.kubeconfig import Cluster, Named, User
from kdnsctl.cluster.network import AddressMemory, Dialer, LookUp, system_look_up
from kdnsctl.cluster.retries import Retry, RetryPolicy
from kdnsctl.cluster.target import Impersonation, Target
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import UsageError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # in every pod; k8s docs, "Accessing the API"
EXEC_EXTENSION = "client.authentication.k8s.io/exec"  # a cluster's settings for plug-ins; client-go's exec docs


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """What the operator asked for. Names are those of the command line's options.

    `request_timeout` is in seconds; None: no limit. `resolve` maps host names to addresses. `as_groups` and `as_uid`
    need `as_user`; together they replace what the kubeconfig says of impersonation. `environment` is looked up for
    KUBECONFIG, HOME, XDG_CACHE_HOME, proxies and the pod's own cluster, and is what plug-ins are run with.
    """

    kubeconfig: str | None = None
    context: str | None = None
    cluster: str | None = None
    user: str | None = None
    server: str | None = None
    tls_server_name: str | None = None
    token_file: str | None = None
    as_user: str | None = None
    as_groups: tuple[str, ...] = ()
    as_uid: str | None = None
    request_timeout: float | None = 30.0
    resolve: Mapping[str, str] = field(default_factory=dict)
    incident: str | None = None
    interactive: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    service_account: Path = SERVICE_ACCOUNT


def connect(
    options: ConnectOptions,
    scope: CancelScope,
    *,
    note: Callable[[str], None] = lambda _: None,
    on_retry: Callable[[Retry], None] | None = None,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - a frozen record
    look_up: LookUp = system_look_up,
    credentials: Credentials | None = None,
) -> Connection:
    """A connection as the options say, credential in hand. Nothing has been asked of the server yet.

    `note` is told, in one line each and from any thread, what the operator should know meanwhile; retries too, unless
    `on_retry` takes them. `credentials` stand in for those of the options. Raises UsageError, KubeconfigError,
    CredentialError, or what ended the scope.
    """
    chosen, cluster, user = _choose(options)
    target = _target(options, chosen, cluster, user)
    server, parts = target.server, urlsplit(target.server)
    host = parts.hostname or ""
    credentials = credentials or _credentials(options, cluster, user, note)
    tls = _tls(cluster, parts.scheme)
    with scope.child(options.request_timeout) as limit:
        credential = credentials.current(limit)
    if tls:
        tls(credential.client)  # what is wrong with the certificates is said before anything is sent
    elif credential.authorization and host not in ("localhost", "127.0.0.1", "::1"):
        raise KubeconfigError(
            f"{server} is not https: the {credential.origin} would go over the network for everybody to read",
            hint="use the server's https address",
        )
    memory = AddressMemory(cache_directory(options.environment) / "addresses.json", chosen or server)
    return Connection(
        target,
        credentials,
        Dialer(fixed=options.resolve, memory=memory, note=note, look_up=look_up),
        tls=tls,
        user_agent=user_agent(options.incident),
        request_timeout=options.request_timeout,
        retry=retry,
        note=note,
        on_retry=on_retry,
    )


def target_of(options: ConnectOptions) -> Target:
    """What `connect` would connect to, and as whom. Reads the kubeconfig and nothing else. Raises as `connect`."""
    return _target(options, *_choose(options))


def user_agent(incident: str | None) -> str:
    """Tool, version, platform and incident, so that the server's audit log can be matched with the journal."""
    about = f"{platform.system().lower()}/{platform.machine().lower()}"
    if incident:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", incident):
            raise UsageError(f"an incident's name has letters, digits, dots and dashes, not {incident!r}")
        about += f"; incident {incident}"
    return f"kdnsctl/{__version__} ({about})"


def _choose(options: ConnectOptions) -> tuple[str, Named[Cluster], Named[User] | None]:
    """Context, cluster and user: from the kubeconfig, from the pod we are in, or from --server alone."""
    files, named = kubeconfig.files_of(options.kubeconfig, options.environment)
    if files:
        config = kubeconfig.read(files)
        nothing_named = not (options.context or options.cluster or config.current_context)
        if options.server and nothing_named:
            return "", _bare(options.server), None
        selection = kubeconfig.select(config, options.context, options.cluster, options.user)
        return selection.context, selection.cluster, selection.user
    if options.context or options.cluster or options.user:
        raise UsageError(f"no kubeconfig to find the context, cluster or user in: {named} does not exist")
    inside = _in_cluster(options)
    if inside and not options.server:
        return "", inside, None
    if options.server:
        return "", _bare(options.server), None
    raise KubeconfigError(
        f"no kubeconfig: {named} does not exist, and this is no pod",
        hint="name one with --kubeconfig or KUBECONFIG, or give files: find-affected --logs PATH, analyze PATH",
    )


def _target(options: ConnectOptions, context: str, cluster: Named[Cluster], user: Named[User] | None) -> Target:
    server = _server(options, cluster, context)
    parts = urlsplit(server)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    return Target(
        server=server,
        context=context,
        cluster=cluster.name,
        user=user.name if user else "",
        tls_server_name=options.tls_server_name or cluster.entry.tls_server_name or "",
        proxy=proxies.proxy_for(parts.scheme, host, port, cluster.entry.proxy_url, options.environment),
        impersonation=_impersonation(options, user),
    )


def _bare(server: str) -> Named[Cluster]:
    return Named("", Cluster(server=server), Path.cwd() / "--server")


def _in_cluster(options: ConnectOptions) -> Named[Cluster] | None:
    """The cluster whose pod this is, by its environment and service account; None elsewhere."""
    host = options.environment.get("KUBERNETES_SERVICE_HOST", "")
    port = options.environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (options.service_account / "token").exists():
        return None
    shown = f"[{host}]" if ":" in host else host
    cluster = Cluster(server=f"https://{shown}:{port}", certificate_authority="ca.crt")
    return Named("in-cluster", cluster, options.service_account / "token")


def _server(options: ConnectOptions, cluster: Named[Cluster], context: str) -> str:
    server = options.server or cluster.entry.server
    where = "--server" if options.server else f"cluster {cluster.name} in {cluster.file}"
    if not server:
        raise KubeconfigError(f"{where} has no server", hint="name it with --server")
    if "://" not in server:
        server = f"https://{server}"
    try:
        parts = urlsplit(server)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        usable = False
    if not usable:
        raise KubeconfigError(f"{where} is not the address of a server: {server}", hint="https://HOST:PORT")
    if cluster.entry.insecure_skip_tls_verify:
        raise KubeconfigError(
            f"{where} asks not to verify the server's certificate (insecure-skip-tls-verify); this is never done",
            hint="put the cluster's authority into the kubeconfig (certificate-authority-data)"
            + (f" of context {context}" if context else ""),
        )
    return server.rstrip("/")


def _credentials(
    options: ConnectOptions, cluster: Named[Cluster], user: Named[User] | None, note: Callable[[str], None]
) -> Credentials:
    if options.token_file:
        return of_token_file(Path(options.token_file).expanduser())
    if cluster.name == "in-cluster" and user is None:
        return of_token_file(options.service_account / "token")
    return of_user(user, _told_to_plugins(cluster), options.environment, interactive=options.interactive, note=note)


def _told_to_plugins(cluster: Named[Cluster]) -> dict[str, object]:
    """`spec.cluster` of an ExecCredential (client.authentication.k8s.io/v1)."""
    authority = _authority(cluster)
    told: dict[str, object] = {"server": cluster.entry.server}
    if cluster.entry.tls_server_name:
        told["tls-server-name"] = cluster.entry.tls_server_name
    if authority:
        told["certificate-authority-data"] = base64.b64encode(authority).decode()
    if cluster.entry.proxy_url:
        told["proxy-url"] = cluster.entry.proxy_url
    for extension in cluster.entry.extensions or ():
        if extension.name == EXEC_EXTENSION:
            told["config"] = extension.extension
    return told


def _authority(cluster: Named[Cluster]) -> bytes | None:
    file = cluster.path(cluster.entry.certificate_authority) if cluster.entry.certificate_authority else None
    origin = f"cluster {cluster.name} in {cluster.file}"
    return read_pem(cluster.entry.certificate_authority_data, file, "certificate-authority", origin)


def _tls(cluster: Named[Cluster], scheme: str) -> Callable[[ClientCertificate | None], ssl.SSLContext] | None:
    if scheme != "https":
        return None
    authority = _authority(cluster)
    origin = f"cluster {cluster.name} in {cluster.file}"
    return lambda client: server_context(authority, client, origin)


def _impersonation(options: ConnectOptions, user: Named[User] | None) -> Impersonation | None:
    if options.as_user:
        return Impersonation(options.as_user, options.as_groups, options.as_uid or "")
    if options.as_groups or options.as_uid:
        raise UsageError("--as-group and --as-uid need --as: whose groups and uid should they be?")
    if user is None:
        return None
    entry = user.entry
    if not entry.as_:
        if entry.as_groups or entry.as_uid or entry.as_user_extra:
            raise KubeconfigError(f"user {user.name} in {user.file} impersonates groups or a uid, and no user (`as`)")
        return None
    extra = tuple((key, value) for key, values in (entry.as_user_extra or {}).items() for value in values)
    return Impersonation(entry.as_, tuple(entry.as_groups or ()), entry.as_uid or "", extra)
