"""How kube-proxy is set up: its mode, its verbosity and where its metrics are, from its command line and its ConfigMap.

Pure, but for nothing: texts in, a record out. Which pod it is comes from `kubeproxy`. A flag wins over the file for
`-v`; with `--config` most other flags are ignored (k8s.io/kubernetes cmd/kube-proxy/app/options.go 1.20 to 1.36).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec

from kdnsctl.cluster.objects import Container, PodSpec
from kdnsctl.cluster.yamltext import decode_yaml


class _Logging(msgspec.Struct, frozen=True):
    verbosity: int = 0
    format: str = ""


class _File(msgspec.Struct, frozen=True, rename="camel"):
    """kubeproxy.config.k8s.io/v1alpha1, as much as is read of it."""

    mode: str | None = None
    metrics_bind_address: str | None = None
    enable_profiling: bool | None = None
    logging: _Logging | None = None


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """What is known of a kube-proxy's settings; None is unknown.

    `mode` as asked for (`iptables`, `ipvs`, `nftables`); an empty setting means iptables on Linux. What runs may still
    differ (an unusable ipvs falls back). `verbosity` is the level of `-v`. `source` says what was read.
    """

    mode: str | None
    verbosity: int | None
    metrics_address: str | None
    profiling: bool | None
    source: str


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The ConfigMap, and the key in it, that holds the file of `--config`. `key` may be empty: then look for it."""

    config_map: str
    key: str


def config_file(spec: PodSpec, container: Container) -> ConfigFile | None:
    """Which ConfigMap holds the file that `--config` names, by the container's mounts; None when none does."""
    path = flags(container).get("config")
    if not path:
        return None
    volumes = {volume.name: volume.config_map.name for volume in spec.volumes if volume.config_map}
    best: tuple[int, ConfigFile] | None = None
    for mount in container.volume_mounts:
        inside = PurePosixPath(path).is_relative_to(mount.mount_path)
        if mount.name in volumes and inside and (best is None or len(mount.mount_path) > best[0]):
            key = str(PurePosixPath(path).relative_to(mount.mount_path))
            best = (len(mount.mount_path), ConfigFile(volumes[mount.name], "" if key == "." else key))
    return best[1] if best else None


def flags(container: Container) -> dict[str, str]:
    """The flags of a container's command line, also of one that is inside `sh -c`. A flag without a value is `true`."""
    words = " ".join((*container.command, *container.args))
    found: dict[str, str] = {}
    for match in re.finditer(r"(?:^|\s)--?([a-zA-Z][\w-]*)(?:[= ]([^\s'\"-][^\s'\"]*|\"[^\"]*\"|'[^']*'))?", words):
        found[match[1]] = (match[2] or "true").strip("'\"")
    return found


def configuration(container: Container, data: Mapping[str, str] | None, key: str = "") -> ProxyConfig:
    """What the command line and the ConfigMap's `data` (None: not readable) say."""
    given = flags(container)
    file = _file(data, key) if data else None
    source = "command line and ConfigMap" if file else "command line"
    if "config" in given and file is None:
        # What the file would say is unknown, and flags beside it do not count; except -v.
        return ProxyConfig(None, _level(given), None, None, "command line; its ConfigMap could not be read")
    if file is None:
        return ProxyConfig(
            mode=given.get("proxy-mode") or "iptables",
            verbosity=_level(given) or 0,
            metrics_address=given.get("metrics-bind-address", "127.0.0.1:10249"),
            profiling=given.get("profiling") == "true",
            source=source,
        )
    level = _level(given)
    return ProxyConfig(
        mode=file.mode or "iptables",
        verbosity=level if level is not None else (file.logging.verbosity if file.logging else 0),
        metrics_address=file.metrics_bind_address or "127.0.0.1:10249",
        profiling=bool(file.enable_profiling),
        source=source,
    )


def _level(given: Mapping[str, str]) -> int | None:
    level = given.get("v", "")
    return int(level) if level.isdecimal() else None


def _file(data: Mapping[str, str], key: str) -> _File | None:
    texts = [data[key]] if key in data else [text for text in data.values() if "KubeProxyConfiguration" in text]
    for text in texts:
        try:
            return decode_yaml(text, _File)
        except msgspec.DecodeError:
            continue
    return None
