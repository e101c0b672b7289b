"""From a pod's spec to what the node starts: environment, command, user, capabilities, volumes. No side effects
but the files of volumes.

Follows the kubelet where it matters to whoever debugs a node: `$(NAME)` in commands, downward fields, security
contexts of pod and container, the service account's files. What a spec asks that the lab does not have is said by
`SpecError` with the reason a kubelet would put into the container's state.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdnsctl.lab import images
from kdnsctl.lab.container import DEFAULT_CAPABILITIES, Launch, Mount, StartError, resolve_inside
from kdnsctl.lab.kernel import CAPABILITIES
from kdnsctl.lab.kubeclient import JSON

ACCOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_REFERENCE = re.compile(r"\$\$|\$\(([-._A-Za-z0-9]+)\)")


class SpecError(Exception):
    """The container cannot be made; `reason` is the waiting reason, `str()` its message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PodPlace:
    """Where a pod runs and what it is told about it."""

    node: str
    host_ip: str
    pod_ip: str
    volumes: Path
    """A directory of the pod's own for emptyDir and generated files."""
    rootless: bool
    ca: bytes
    api_host: str
    api_port: int
    token: Callable[[str, str], str]
    """(namespace, service account) → bearer token."""
    config_map: Callable[[str, str], JSON | None]
    """(namespace, name) → object."""


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$(NAME)` for known names; `$$` stands for one dollar sign (third_party/forked/golang/expansion)."""

    def one(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return values.get(match.group(1), match.group(0))

    return _REFERENCE.sub(one, text)


def environment(pod: JSON, container: JSON, place: PodPlace) -> dict[str, str]:
    """The container's environment. Raises SpecError for a reference the lab cannot follow."""
    metadata, spec = pod["metadata"], pod["spec"]
    values = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME": place.node if spec.get("hostNetwork") else metadata["name"],
        "KUBERNETES_SERVICE_HOST": place.api_host,
        "KUBERNETES_SERVICE_PORT": str(place.api_port),
        "KDNSCTL_LAB_IMAGE_TAG": container["image"].partition("@")[0].rpartition(":")[2],
    }
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata.get("uid", ""),
        "spec.nodeName": place.node,
        "spec.serviceAccountName": spec.get("serviceAccountName") or "default",
        "status.podIP": place.pod_ip,
        "status.hostIP": place.host_ip,
    }
    for each in container.get("env") or ():
        source = each.get("valueFrom")
        if source is None:
            values[each["name"]] = expand(str(each.get("value") or ""), values)
        elif "fieldRef" in source and source["fieldRef"]["fieldPath"] in fields:
            values[each["name"]] = fields[source["fieldRef"]["fieldPath"]]
        elif "configMapKeyRef" in source:
            ref = source["configMapKeyRef"]
            found = place.config_map(metadata["namespace"], ref["name"])
            if found is None:
                raise SpecError("CreateContainerConfigError", f'configmap "{ref["name"]}" not found')
            values[each["name"]] = str((found.get("data") or {}).get(ref["key"], ""))
        else:
            raise SpecError("CreateContainerConfigError", f"the lab cannot fill the variable {each['name']}")
    return values


def capabilities(context: JSON) -> tuple[str, ...] | None:
    """The capabilities of a container's security context; None: all (privileged)."""
    if context.get("privileged"):
        return None
    changes = context.get("capabilities") or {}
    dropped = {name.upper().removeprefix("CAP_") for name in changes.get("drop") or ()}
    added = {name.upper().removeprefix("CAP_") for name in changes.get("add") or ()}
    if "ALL" in added:
        return tuple(name for name in CAPABILITIES if name not in dropped)
    unknown = added - set(CAPABILITIES)
    if unknown:
        raise SpecError("CreateContainerError", f'unknown capability to add: "CAP_{min(unknown)}"')
    base = set() if "ALL" in dropped else set(DEFAULT_CAPABILITIES) - dropped
    return tuple(name for name in CAPABILITIES if name in base | added)


def launch(pod: JSON, container: JSON, place: PodPlace, root: Path) -> Launch:
    """What to start for a container whose own directory tree is `root`. Raises SpecError."""
    spec = pod["spec"]
    try:
        image = images.describe(container["image"])
    except images.UnknownImageError:
        text = (
            f'Container image "{container["image"]}" is not present with pull policy of Never: the lab has no registry'
        )
        raise SpecError("ErrImageNeverPull", text) from None
    context = {**(spec.get("securityContext") or {}), **(container.get("securityContext") or {})}
    uid = int(context.get("runAsUser") or 0)
    gid = int(context.get("runAsGroup") or 0)
    groups = [int(each) for each in context.get("supplementalGroups") or ()]
    if context.get("fsGroup") is not None:
        groups.append(int(context["fsGroup"]))
    if context.get("runAsNonRoot") and uid == 0:
        raise SpecError("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")
    if place.rootless and (uid or gid or groups):
        text = f"this lab runs without root and has one user id (0); uid {uid}, gid {gid} and groups {groups} need root"
        raise SpecError("CreateContainerError", text)
    env = environment(pod, container, place)
    words = [*(container.get("command") or ([image.program] if image.program else ())), *(container.get("args") or ())]
    if not words:
        raise SpecError("CreateContainerError", "no command specified")
    argv = tuple(expand(word, env) for word in words)
    host_network = bool(spec.get("hostNetwork"))
    return Launch(
        argv=argv,
        root=str(root),
        env=env,
        cwd=container.get("workingDir") or "/",
        uid=uid,
        gid=gid,
        groups=tuple(groups),
        capabilities=capabilities(context),
        no_new_privileges=context.get("allowPrivilegeEscalation") is False,
        host_pid=bool(spec.get("hostPID")),
        host_ipc=bool(spec.get("hostIPC")),
        host_uts=host_network,
        hostname=spec.get("hostname") or pod["metadata"]["name"],
        read_only_root=bool(context.get("readOnlyRootFilesystem")),
        mounts=_mounts(pod, container, place),
        builtin=image.builtin if argv[0] == image.program else None,
    )


def _mounts(pod: JSON, container: JSON, place: PodPlace) -> tuple[Mount, ...]:
    spec = pod["spec"]
    # A volume's directory is known by its position: names come from whoever writes the spec.
    volumes = {volume["name"]: (str(at), volume) for at, volume in enumerate(spec.get("volumes") or ())}
    found: list[Mount] = []
    for each in container.get("volumeMounts") or ():
        if each["name"] not in volumes:
            raise SpecError("CreateContainerConfigError", f"volume {each['name']!r} is not in the pod")
        at, volume = volumes[each["name"]]
        source = _volume_source(pod, volume, at, place)
        if each.get("subPath"):
            what = f"subPath {each['subPath']!r} of volume {each['name']!r}"
            # A host path is the node's to resolve, and its spec could name any place there anyway.
            found_at = _below(source, each["subPath"], what)
            source = source / each["subPath"] if "hostPath" in volume else found_at
        found.append(Mount(str(source), each["mountPath"], bool(each.get("readOnly"))))
    taken = any(each.target.rstrip("/") == ACCOUNT_PATH for each in found)
    if spec.get("automountServiceAccountToken") is not False and not taken:
        found.append(Mount(str(_account_files(pod, place)), ACCOUNT_PATH, True))
    return tuple(found)


def _below(root: Path, path: str, what: str) -> Path:
    """Where `path` lies below `root`, links followed as if `root` were the root directory; SpecError for one with
    `..` or from the root, as a kubelet refuses it.
    """
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise SpecError("CreateContainerConfigError", f"{what} leads out of it; nothing was written")
    return inside(root, path, what)


def inside(root: Path, path: str, what: str) -> Path:
    """Where the container's `path` lies outside it. Raises SpecError when it cannot lie in `root`."""
    try:
        return resolve_inside(root, path)
    except (StartError, OSError, ValueError) as error:
        raise SpecError("CreateContainerConfigError", f"{what}: {error}; nothing was written") from None


def _volume_source(pod: JSON, volume: JSON, at: str, place: PodPlace) -> Path:
    own = place.volumes / at
    if "hostPath" in volume:
        return Path(volume["hostPath"]["path"])
    if "emptyDir" in volume:
        own.mkdir(parents=True, exist_ok=True)
        own.chmod(0o777)
        return own
    if "configMap" in volume:
        _write_config_map(pod, volume["configMap"], own, place)
        return own
    if "projected" in volume:
        return _account_files(pod, place)
    if "downwardAPI" in volume:
        own.mkdir(parents=True, exist_ok=True)
        return own
    kind = next((key for key in volume if key != "name"), "nothing")
    raise SpecError("CreateContainerConfigError", f"the lab has no volumes of kind {kind} (volume {volume['name']!r})")


def _write_config_map(pod: JSON, source: JSON, target: Path, place: PodPlace) -> None:
    found = place.config_map(pod["metadata"]["namespace"], source["name"])
    if found is None and not source.get("optional"):
        raise SpecError("ContainerCreating", f'configmap "{source["name"]}" not found')
    data = (found or {}).get("data") or {}
    items = source.get("items") or [{"key": key, "path": key} for key in data]
    target.mkdir(parents=True, exist_ok=True)
    for item in items:
        path = _below(target, item["path"], f"path {item['path']!r} of configmap {source['name']!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(data.get(item["key"], ""), encoding="utf-8")


def _account_files(pod: JSON, place: PodPlace) -> Path:
    directory = place.volumes / "kube-api-access"
    directory.mkdir(parents=True, exist_ok=True)
    namespace = pod["metadata"]["namespace"]
    account = pod["spec"].get("serviceAccountName") or "default"
    (directory / "ca.crt").write_bytes(place.ca)
    (directory / "namespace").write_text(namespace, encoding="ascii")
    token = directory / "token"
    if not token.exists():
        token.write_text(place.token(namespace, account), encoding="ascii")
        token.chmod(0o644)
    return directory


def write_identity_files(pod: JSON, root: Path, place: PodPlace) -> None:
    """/etc/hostname, /etc/hosts and /etc/resolv.conf as a kubelet makes them, into a container's own tree."""
    spec, metadata = pod["spec"], pod["metadata"]
    host_network = bool(spec.get("hostNetwork"))
    name = place.node if host_network else metadata["name"]
    etc = root / "etc"
    for file_name, text in {
        "hostname": f"{name}\n",
        "hosts": f"# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n{place.pod_ip}\t{name}\n",
        "resolv.conf": _resolv_conf(spec, metadata["namespace"], host_network=host_network),
    }.items():
        path = etc / file_name
        path.unlink(missing_ok=True)  # never write through a hard link into the image
        path.write_text(text, encoding="ascii")


def _resolv_conf(spec: Mapping[str, Any], namespace: str, *, host_network: bool) -> str:
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not host_network):
        search = f"{namespace}.svc.cluster.local svc.cluster.local cluster.local"
        return f"search {search}\nnameserver 10.96.0.10\noptions ndots:5\n"
    return "# the node has no resolver: a lab has no way out\n"


def log_directory(pod: JSON) -> str:
    """The pod's directory below /var/log/pods."""
    metadata = pod["metadata"]
    return f"{metadata['namespace']}_{metadata['name']}_{metadata.get('uid', '')}"


def container_id(seed: bytes | None = None) -> str:
    """A new container id in containerd's form, without the scheme."""
    return (seed or os.urandom(32)).hex()
