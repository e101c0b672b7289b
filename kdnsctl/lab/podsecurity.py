"""Pod Security admission: what a namespace's `pod-security.kubernetes.io/enforce` label forbids its pods.

The checks of the levels baseline and restricted that a pod of the lab can fail, with the texts a real server uses
(`api/psa-denied.json`; Kubernetes 1.36, pod-security-admission/policy). Holds for dry runs, too, as on a real server.
Versions of the standards and the warn and audit modes are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from kdnsctl.lab.kinds import NAMESPACES, PODS
from kdnsctl.lab.replies import JSON, forbidden
from kdnsctl.lab.store import Admission, Store

_LABEL: Final = "pod-security.kubernetes.io/enforce"
# Capabilities that baseline lets a container add; restricted lets it add only NET_BIND_SERVICE.
_BASELINE_CAPABILITIES: Final = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    }
)  # fmt: skip
_RESTRICTED_VOLUMES: Final = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
)
Check = Callable[[JSON], str]


def enforce_pod_security(store: Store) -> None:
    """Make the store refuse pods (403) that the level of their namespace forbids."""

    def check(admission: Admission) -> None:
        if admission.kind is not PODS or admission.subresource is not None:
            return
        if admission.old is not None and admission.old["spec"] == admission.obj["spec"]:
            return
        metadata = admission.obj["metadata"]
        namespace = store.find(NAMESPACES, metadata["namespace"]) or {}
        level = (namespace.get("metadata", {}).get("labels") or {}).get(_LABEL, "privileged")
        faults = violations(level, admission.obj["spec"])
        if faults:
            why = f'violates PodSecurity "{level}:latest": {", ".join(faults)}'
            raise forbidden(PODS.plural, "", metadata["name"], why)

    store.admission.append(check)


# Sysctls that baseline lets a pod set (checkSysctlsV1Dot32).
_SYSCTLS: Final = frozenset(
    {
        "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
    }
)  # fmt: skip
_SE_LINUX_TYPES: Final = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")


def violations(level: str, spec: JSON) -> list[str]:
    """What in a pod's spec the level (privileged, baseline, restricted) forbids."""
    checks: tuple[Check, ...] = ()
    if level in ("baseline", "restricted"):
        checks = (_privileged, _baseline_capabilities, _host_namespaces, _host_paths, _host_ports, *_EVERYWHERE,
                  _seccomp_baseline)  # fmt: skip
    if level == "restricted":
        checks = (_privileged, _host_namespaces, _host_ports, *_EVERYWHERE, _escalation, _restricted_capabilities,
                  _volume_types, _run_as_root, _root_user, _seccomp)  # fmt: skip
    return [fault for fault in (check(spec) for check in checks) if fault]


def _containers(spec: JSON) -> list[JSON]:
    return [*(spec.get("initContainers") or []), *spec.get("containers", []), *(spec.get("ephemeralContainers") or [])]


def _security(container: JSON) -> JSON:
    return container.get("securityContext") or {}


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _subject(noun: str, names: list[str]) -> str:
    return f"{noun}{'s' if len(names) > 1 else ''} {_quoted(names)}"


def _named(spec: JSON, condition: Callable[[JSON], Any]) -> list[str]:
    return [container["name"] for container in _containers(spec) if condition(container)]


def _privileged(spec: JSON) -> str:
    names = _named(spec, lambda container: _security(container).get("privileged"))
    return f"privileged ({_subject('container', names)} must not set securityContext.privileged=true)" if names else ""


def _host_namespaces(spec: JSON) -> str:
    used = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return f"host namespaces ({', '.join(used)})" if used else ""


def _host_paths(spec: JSON) -> str:
    names = [volume["name"] for volume in spec.get("volumes") or [] if "hostPath" in volume]
    return f"hostPath volumes ({_subject('volume', names)})" if names else ""


def _host_ports(spec: JSON) -> str:
    names, ports = [], []
    for container in _containers(spec):
        used = [str(port["hostPort"]) for port in container.get("ports") or [] if port.get("hostPort")]
        if used:
            names.append(container["name"])
            ports += used
    if not names:
        return ""
    verb = "use" if len(names) > 1 else "uses"
    noun = "hostPorts" if len(ports) > 1 else "hostPort"
    return f"hostPort ({_subject('container', names)} {verb} {noun} {', '.join(ports)})"


def _added(container: JSON) -> set[str]:
    return set((_security(container).get("capabilities") or {}).get("add") or [])


def _baseline_capabilities(spec: JSON) -> str:
    names = _named(spec, lambda container: _added(container) - _BASELINE_CAPABILITIES)
    if not names:
        return ""
    added = sorted(set().union(*(_added(container) for container in _containers(spec))) - _BASELINE_CAPABILITIES)
    return (
        f"non-default capabilities ({_subject('container', names)} must not include {_quoted(added)} "
        "in securityContext.capabilities.add)"
    )


def _escalation(spec: JSON) -> str:
    names = _named(spec, lambda container: _security(container).get("allowPrivilegeEscalation") is not False)
    if not names:
        return ""
    rule = "must set securityContext.allowPrivilegeEscalation=false"
    return f"allowPrivilegeEscalation != false ({_subject('container', names)} {rule})"


def _restricted_capabilities(spec: JSON) -> str:
    def keeps(container: JSON) -> bool:
        return "ALL" not in ((_security(container).get("capabilities") or {}).get("drop") or [])

    parts = []
    if names := _named(spec, keeps):
        parts.append(f'{_subject("container", names)} must set securityContext.capabilities.drop=["ALL"]')
    if names := _named(spec, lambda container: _added(container) - {"NET_BIND_SERVICE"}):
        added = sorted(set().union(*(_added(container) for container in _containers(spec))) - {"NET_BIND_SERVICE"})
        rule = f"must not include {_quoted(added)} in securityContext.capabilities.add"
        parts.append(f"{_subject('container', names)} {rule}")
    return f"unrestricted capabilities ({'; '.join(parts)})" if parts else ""


def _volume_types(spec: JSON) -> str:
    odd = [volume for volume in spec.get("volumes") or [] if not _RESTRICTED_VOLUMES & volume.keys()]
    if not odd:
        return ""
    types = sorted({key for volume in odd for key in volume if key != "name"})
    names = [volume["name"] for volume in odd]
    verb = "use" if len(names) > 1 else "uses"
    return f"restricted volume types ({_subject('volume', names)} {verb} restricted volume type {_quoted(types)})"


def _run_as_root(spec: JSON) -> str:
    of_pod = (spec.get("securityContext") or {}).get("runAsNonRoot")
    names = _named(spec, lambda container: _security(container).get("runAsNonRoot", of_pod) is not True)
    if not names:
        return ""
    return f"runAsNonRoot != true (pod or {_subject('container', names)} must set securityContext.runAsNonRoot=true)"


def _seccomp(spec: JSON) -> str:
    def profile(holder: JSON) -> str | None:
        value: str | None = (holder.get("seccompProfile") or {}).get("type")
        return value

    of_pod = profile(spec.get("securityContext") or {})
    names = _named(
        spec, lambda container: (profile(_security(container)) or of_pod) not in ("RuntimeDefault", "Localhost")
    )
    if not names:
        return ""
    rule = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return f"seccompProfile (pod or {_subject('container', names)} {rule})"


def _holders(spec: JSON) -> list[JSON]:
    """The security contexts of the pod and of every container."""
    return [spec.get("securityContext") or {}, *(_security(container) for container in _containers(spec))]


def _sysctls(spec: JSON) -> str:
    given = [each.get("name", "") for each in (spec.get("securityContext") or {}).get("sysctls") or []]
    odd = [name for name in given if name not in _SYSCTLS]
    return f"forbidden sysctls ({', '.join(odd)})" if odd else ""


def _proc_mount(spec: JSON) -> str:
    names = _named(spec, lambda container: _security(container).get("procMount", "Default") != "Default")
    if not names:
        return ""
    odd = {_security(container).get("procMount", "Default") for container in _containers(spec)} - {"Default"}
    rule = f"must not set securityContext.procMount to {_quoted(sorted(odd))}"
    return f"procMount ({_subject('container', names)} {rule})"


def _app_armor(spec: JSON) -> str:
    odd = any((holder.get("appArmorProfile") or {}).get("type") == "Unconfined" for holder in _holders(spec))
    return 'forbidden AppArmor profile (appArmorProfile.type="Unconfined")' if odd else ""


def _se_linux(spec: JSON) -> str:
    parts = []
    options = [holder.get("seLinuxOptions") or {} for holder in _holders(spec)]
    types = sorted({each.get("type", "") for each in options} - set(_SE_LINUX_TYPES))
    if types:
        parts.append(f"type {_quoted(types)}")
    parts += [f"{field} may not be set" for field in ("user", "role") if any(each.get(field) for each in options)]
    return f"seLinuxOptions (forbidden {'; '.join(parts)})" if parts else ""


def _host_probes(spec: JSON) -> str:
    def handlers(container: JSON) -> list[JSON]:
        found = [container.get(name) or {} for name in ("livenessProbe", "readinessProbe", "startupProbe")]
        return found + [(container.get("lifecycle") or {}).get(name) or {} for name in ("postStart", "preStop")]

    def has_host(container: JSON) -> bool:
        actions = [each.get(kind) or {} for each in handlers(container) for kind in ("httpGet", "tcpSocket")]
        return any(action.get("host") not in (None, "", "127.0.0.1", "::1") for action in actions)

    names = _named(spec, has_host)
    return f"probe or lifecycle host ({_subject('container', names)} must not set a host)" if names else ""


def _seccomp_baseline(spec: JSON) -> str:
    odd = any((holder.get("seccompProfile") or {}).get("type") == "Unconfined" for holder in _holders(spec))
    rule = 'must not set securityContext.seccompProfile.type to "Unconfined"'
    return f"seccompProfile (pod or containers {rule})" if odd else ""


def _root_user(spec: JSON) -> str:
    if (spec.get("securityContext") or {}).get("runAsUser") == 0:
        return "runAsUser=0 (pod must not set runAsUser=0)"
    names = _named(spec, lambda container: _security(container).get("runAsUser") == 0)
    return f"runAsUser=0 ({_subject('container', names)} must not set runAsUser=0)" if names else ""


_EVERYWHERE: Final = (_sysctls, _proc_mount, _app_armor, _se_linux, _host_probes)
