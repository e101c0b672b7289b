"""Who else looks after kube-proxy: a manager that would set its DaemonSet back, and the way it is meant to be changed.

Pure. A reconciler that restores RollingUpdate while the command line is raised restarts every kube-proxy, so a
DaemonSet with another owner is never changed. What shows the owner are managedFields, labels, annotations and
ownerReferences; none of them is proof against a manager that leaves no trace.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kdnsctl.cluster.kubeproxy import Kind, KubeProxy
from kdnsctl.cluster.objects import Node


@dataclass(frozen=True, slots=True)
class Owner:
    """Another manager: its name, what shows it, and how kube-proxy's verbosity is set with it."""

    name: str
    sign: str
    way: str


@dataclass(frozen=True, slots=True)
class _Known:
    """What shows a manager: names in managedFields, and keys (with a value, or any) of labels and annotations."""

    name: str
    way: str
    managers: tuple[str, ...] = ()
    labels: tuple[tuple[str, str | None], ...] = ()
    annotations: tuple[str, ...] = ()


_GIT: Final = "change kube-proxy's --v where its manifest is kept, or suspend the reconciliation of it first"
# In this order: what is installed by one and kept by another is the keeper's.
_KNOWN: Final = (
    _Known(
        "Argo CD",
        _GIT,
        ("argocd-controller", "argocd-application-controller"),
        (("argocd.argoproj.io/instance", None),),
        ("argocd.argoproj.io/tracking-id",),
    ),
    _Known(
        "Flux",
        _GIT,
        ("kustomize-controller", "helm-controller"),
        (("kustomize.toolkit.fluxcd.io/name", None), ("helm.toolkit.fluxcd.io/name", None)),
    ),
    _Known(
        "AKS",
        "AKS has no setting for it (Azure/AKS#2306): kube-proxy runs with --v=3; ask Azure support for more",
        labels=(("kubernetes.azure.com/managedby", "aks"),),
    ),
    _Known(
        "the addon manager",
        "its manifests are on the control plane; on AKS there is no setting for it (Azure/AKS#2306)",
        labels=(("addonmanager.kubernetes.io/mode", "Reconcile"), ("kubernetes.io/cluster-service", "true")),
    ),
    _Known(
        "the EKS add-on",
        "aws eks update-addon --addon-name kube-proxy --configuration-values …; "
        "aws eks describe-addon-configuration lists what can be set. It restarts kube-proxy on every node",
        ("eks",),
    ),
    _Known(
        "Gardener",
        "spec.kubernetes.kubeProxy of the Shoot, as far as it has a setting; the DaemonSet is set back",
        ("gardener-resource-manager",),
        (("resources.gardener.cloud/managed-by", None),),
        ("resources.gardener.cloud/origin",),
    ),
    _Known(
        "Talos",
        'cluster.proxy.extraArgs: {v: "4"} in the machine configuration (talosctl patch machineconfig)',
        ("talos", "machined"),
    ),
    _Known(
        "kOps",
        "spec.kubeProxy.logLevel of the cluster, then kops update cluster",
        (),
        (("addon.kops.k8s.io/name", None),),
    ),
    _Known(
        "k0s",
        "spec.network.kubeProxy.extraArgs of the cluster's configuration",
        ("k0s",),
        (("k0s.k0sproject.io/stack", None),),
    ),
    _Known(
        "Helm",
        "helm upgrade, with the chart's value for the verbosity; another upgrade would undo a change by hand",
        ("helm",),
        (("app.kubernetes.io/managed-by", "Helm"),),
        ("meta.helm.sh/release-name",),
    ),
)
# Managers in managedFields that are a person's tools, or what made the cluster and keeps nothing as it was.
# Its whole name, or what comes before a dash: kubectl-patch is a person, and octopus is none.
_PEOPLE: Final = re.compile(r"(kubectl|kubeadm|kube-controller-manager|kdnsctl|k9s|lens|oc|curl|node-fetch)(?![\w.])")
_OPENSHIFT: Final = "spec.kubeProxyConfig.proxyArguments of the Network operator's configuration"


def owner_of(daemon_set: Mapping[str, Any], nodes: Iterable[Node] = ()) -> Owner | None:
    """Who keeps a DaemonSet as it is, None when nothing shows anybody. `daemon_set` as the API has it."""
    metadata = daemon_set.get("metadata") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    fields = metadata.get("managedFields") or ()
    managers = {str(one.get("manager", "")) for one in fields if not one.get("subresource")}
    for reference in metadata.get("ownerReferences") or ():
        kind = reference.get("kind", "another object")
        way = _OPENSHIFT if metadata.get("namespace") == "openshift-kube-proxy" else f"change the {kind} that made it"
        return Owner(f"{kind} {reference.get('name', '')}".strip(), "its ownerReferences", way)
    for known in _KNOWN:
        sign = _sign(known, labels, annotations, managers)
        if sign:
            return Owner(known.name, sign, known.way)
    if any("Talos" in node.status.node_info.os_image for node in nodes):
        talos = next(one for one in _KNOWN if one.name == "Talos")
        return Owner(talos.name, "the nodes' operating system", talos.way)
    if metadata.get("namespace") == "openshift-kube-proxy":
        return Owner("OpenShift's network operator", "its namespace", _OPENSHIFT)
    for one in fields:
        manager = str(one.get("manager", ""))
        if one.get("operation") == "Apply" and not one.get("subresource") and not _PEOPLE.match(manager):
            return Owner(manager[:100], "its managedFields", "change it with that, or have it leave kube-proxy alone")
    return None


def _sign(known: _Known, labels: Mapping[str, str], annotations: Mapping[str, str], managers: Iterable[str]) -> str:
    for key, value in known.labels:
        if key in labels and value in (None, labels[key]):
            return f"the label {key}={labels[key]}"
    for key in known.annotations:
        if key in annotations:
            return f"the annotation {key}"
    for manager in managers:
        if manager in known.managers:
            return f"the manager {manager} in its managedFields"
    return ""


def by_hand(proxy: KubeProxy, kubelet: str, what: str = "set its verbosity") -> str:
    """How a kube-proxy that no DaemonSet runs is set or restarted, for somebody on its node."""
    if proxy.kind is Kind.EMBEDDED:
        return _embedded(proxy, what)
    if "+rke2" in kubelet:
        return (
            'RKE2: kube-proxy-arg: ["v=4"] in /etc/rancher/rke2/config.yaml, then restart rke2-server or rke2-agent'
            if what.startswith("set")
            else "RKE2: crictl stop its container on the node; the kubelet starts it again"
        )
    if what.startswith("set"):
        return (
            "a static pod: change --v in its manifest on the node (kubelet's staticPodPath, most often "
            "/etc/kubernetes/manifests); the kubelet restarts it. kOps: spec.kubeProxy.logLevel; GKE: cannot be set"
        )
    return (
        "a static pod: on the node, crictl stop $(crictl ps -q --name kube-proxy); the kubelet starts it again. "
        "Deleting its mirror pod in the API restarts nothing"
    )


def _embedded(proxy: KubeProxy, what: str) -> str:
    unit = proxy.unit or "its unit"
    if what.startswith("set"):
        flag = "--kube-proxy-arg=v=4 (or kube-proxy-arg in /etc/rancher/k3s/config.yaml)" if "k3s" in unit else "--v=4"
        return f"{proxy.why}: start it with {flag}, by systemctl restart {unit}, which restarts the node's agent too"
    return f"{proxy.why}: systemctl restart {unit} on the node; that restarts what else is in that process"
