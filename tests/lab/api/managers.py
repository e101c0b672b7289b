"""Objects of the projects that manage nodes, as these write them: for a lab's store, by their own definitions.

Fields are those of Cluster API v1.9 and v1.11, OpenShift 4.16's machine-api and machine-config-operator, Karpenter v1,
node-healthcheck-operator v0.9, system-upgrade-controller v0.14, and kured 1.16.
"""

from __future__ import annotations

from typing import Any, Final

from kdnsctl.lab.customkinds import kind_of
from kdnsctl.lab.kinds import CUSTOM_RESOURCE_DEFINITIONS, DAEMON_SETS, NAMESPACES, NODES, Kind
from kdnsctl.lab.store import Store

JSON = dict[str, Any]
NODE: Final = "knode1"
FLEET: Final = "fleet"
MACHINE_API: Final = "openshift-machine-api"


def define(store: Store, group: str, version: str, plural: str, kind: str, *, namespaced: bool = False) -> Kind:
    """Let the cluster serve a kind."""
    definition = {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced" if namespaced else "Cluster",
            "names": {"plural": plural, "kind": kind},
            "versions": [{"name": version, "served": True, "storage": True, "subresources": {"status": {}}}],
        },
    }
    return kind_of(store.create(CUSTOM_RESOURCE_DEFINITIONS, definition))


def put(store: Store, kind: Kind, body: JSON) -> JSON:
    """Store an object with its status, in a namespace that is made for it."""
    namespace = body["metadata"].get("namespace", "")
    if namespace and store.find(NAMESPACES, namespace) is None:
        store.create(NAMESPACES, {"metadata": {"name": namespace}})
    made = store.create(kind, body)
    if "status" in body:
        made = store.update(kind, {**made, "status": body["status"]}, subresource="status")
    return made


def mark(
    store: Store,
    name: str = NODE,
    *,
    labels: JSON | None = None,
    annotations: JSON | None = None,
    **spec: Any,
) -> JSON:
    """What a manager leaves on its nodes. Answers the node."""

    def change(node: JSON) -> JSON:
        metadata = node["metadata"]
        metadata["labels"] = {**metadata.get("labels", {}), **(labels or {})}
        if annotations:
            metadata["annotations"] = {**metadata.get("annotations", {}), **annotations}
        return {**node, "spec": {**node["spec"], **spec}}

    return store.change(NODES, name, "", change)


def cluster_api(store: Store, version: str = "v1beta2", *, of: str = NODE, **metadata: Any) -> Kind:
    """A Machine of Cluster API, and its marks on the node. `of`: whose node it says it is."""
    kind = define(store, "cluster.x-k8s.io", version, "machines", "Machine", namespaced=True)
    node = store.get(NODES, of)
    reference: JSON = {"name": of}
    if version == "v1beta1":
        reference |= {"apiVersion": "v1", "kind": "Node", "uid": node["metadata"]["uid"]}
    body = {
        "metadata": {
            "name": "workers-abcde-x7k2p",
            "namespace": FLEET,
            "labels": {"cluster.x-k8s.io/cluster-name": "prod", "cluster.x-k8s.io/deployment-name": "workers"},
            "finalizers": ["machine.cluster.x-k8s.io"],
            **metadata,
        },
        "spec": {"clusterName": "prod", "providerID": f"docker:////{of}", "bootstrap": {"dataSecretName": "b"}},
        "status": {
            "phase": "Running",
            "nodeRef": reference,
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "NodeHealthy", "status": "True"}],
        },
    }
    put(store, kind, body)
    marks = {
        "cluster.x-k8s.io/machine": body["metadata"]["name"],
        "cluster.x-k8s.io/cluster-name": "prod",
        "cluster.x-k8s.io/cluster-namespace": FLEET,
        "cluster.x-k8s.io/owner-kind": "MachineSet",
        "cluster.x-k8s.io/owner-name": "workers-abcde",
    }
    mark(store, annotations=marks, providerID=f"docker:////{NODE}")
    return kind


def openshift(store: Store, *, hooks: list[JSON] | None = None, of: str = NODE, **metadata: Any) -> tuple[Kind, Kind]:
    """A Machine of OpenShift and a MachineHealthCheck that selects it; their kinds."""
    machines = define(store, "machine.openshift.io", "v1beta1", "machines", "Machine", namespaced=True)
    checks = define(
        store, "machine.openshift.io", "v1beta1", "machinehealthchecks", "MachineHealthCheck", namespaced=True
    )
    role = {"machine.openshift.io/cluster-api-machine-role": "worker"}
    spec: JSON = {"providerID": f"aws:///eu-west-1a/i-{of}", "providerSpec": {"value": {"instanceType": "m5.large"}}}
    spec["lifecycleHooks"] = {"preTerminate": hooks} if hooks else {}
    uid = store.get(NODES, of)["metadata"]["uid"]
    put(
        store,
        machines,
        {
            "metadata": {
                "name": "prod-worker-a-4zx9q",
                "namespace": MACHINE_API,
                "labels": {**role, "machine.openshift.io/cluster-api-machineset": "prod-worker-a"},
                "finalizers": ["machine.machine.openshift.io"],
                **metadata,
            },
            "spec": spec,
            "status": {"phase": "Running", "nodeRef": {"kind": "Node", "name": of, "uid": uid}},
        },
    )
    put(
        store,
        checks,
        {
            "metadata": {"name": "workers", "namespace": MACHINE_API},
            "spec": {
                "selector": {"matchLabels": role},
                "unhealthyConditions": [{"type": "Ready", "status": "False", "timeout": "300s"}],
                "maxUnhealthy": "40%",
            },
            "status": {"currentHealthy": 3, "expectedMachines": 3, "remediationsAllowed": 1},
        },
    )
    mark(store, annotations={"machine.openshift.io/machine": f"{MACHINE_API}/prod-worker-a-4zx9q"})
    return machines, checks


def machine_config(store: Store, *, paused: bool = False, desired: str = "1a2b3c", state: str = "Done") -> Kind:
    """The pool `worker` of the machine config operator, and its marks on the node."""
    group = "machineconfiguration.openshift.io"
    kind = define(store, group, "v1", "machineconfigpools", "MachineConfigPool")
    put(store, kind, {"metadata": {"name": "worker"}, "spec": {"paused": paused, "maxUnavailable": 1}})
    marks = {"currentConfig": "rendered-worker-1a2b3c", "desiredConfig": f"rendered-worker-{desired}", "state": state}
    mark(store, annotations={f"{group}/{name}": value for name, value in marks.items()})
    return kind


def karpenter(
    store: Store,
    *,
    expires: str = "720h0m0s",
    registered: bool = True,
    conditions: list[JSON] | None = None,
    static: bool = False,
    **metadata: Any,
) -> Kind:
    """A NodeClaim of Karpenter, another node's beside it, their NodePool, and its marks on the node."""
    claims = define(store, "karpenter.sh", "v1", "nodeclaims", "NodeClaim")
    pools = define(store, "karpenter.sh", "v1", "nodepools", "NodePool")
    spec: JSON = {"template": {"spec": {"expireAfter": expires}}, "disruption": {"budgets": [{"nodes": "10%"}]}}
    put(store, pools, {"metadata": {"name": "default"}, "spec": {**spec, **({"replicas": 3} if static else {})}})
    for name, of in (("default-other", "knode2"), ("default-x7k2p", NODE)):
        mine = of == NODE
        put(
            store,
            claims,
            {
                "metadata": {
                    "name": name,
                    "labels": {"karpenter.sh/nodepool": "default", "karpenter.sh/capacity-type": "on-demand"},
                    "finalizers": ["karpenter.sh/termination"],
                    **(metadata if mine else {}),
                },
                "spec": {
                    "expireAfter": expires if mine else "1h",
                    "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
                },
                "status": {
                    "nodeName": of,
                    "providerID": f"aws:///eu-west-1a/i-{of}",
                    "conditions": [{"type": "Initialized", "status": "True"}, *((conditions or []) if mine else [])],
                },
            },
        )
    labels = {"karpenter.sh/nodepool": "default", "karpenter.sh/registered": "true", "karpenter.sh/initialized": "true"}
    mark(store, labels=labels if registered else {"karpenter.sh/nodepool": "default"})
    return claims


def health_check(store: Store, *, unhealthy: tuple[str, ...] = (), worker: str = "Exists") -> Kind:
    """A NodeHealthCheck of medik8s; `unhealthy` are nodes that are being remediated."""
    kind = define(store, "remediation.medik8s.io", "v1alpha1", "nodehealthchecks", "NodeHealthCheck")
    template = {"apiVersion": "self-node-remediation.medik8s.io/v1alpha1", "kind": "SelfNodeRemediationTemplate"}
    resource = {"apiVersion": template["apiVersion"], "kind": "SelfNodeRemediation", "name": "n", "namespace": "ops"}
    started = {"resource": resource, "started": "2026-11-23T11:58:00Z"}
    put(
        store,
        kind,
        {
            "metadata": {"name": "workers"},
            "spec": {
                "minHealthy": "51%",
                "selector": {"matchExpressions": [{"key": "node-role.kubernetes.io/worker", "operator": worker}]},
                "remediationTemplate": {**template, "name": "automatic", "namespace": "ops"},
            },
            "status": {
                "phase": "Remediating" if unhealthy else "Enabled",
                "unhealthyNodes": [{"name": name, "remediations": [started]} for name in unhealthy],
            },
        },
    )
    mark(store, labels={"node-role.kubernetes.io/worker": ""})
    return kind


def plans(store: Store, *, applying: tuple[str, ...] = ()) -> Kind:
    """Two plans of the system upgrade controller; only `agents` selects the node, and was applied to it."""
    kind = define(store, "upgrade.cattle.io", "v1", "plans", "Plan", namespaced=True)
    for name, operator in (("agents", "DoesNotExist"), ("servers", "Exists")):
        expression = {"key": "node-role.kubernetes.io/control-plane", "operator": operator}
        put(
            store,
            kind,
            {
                "metadata": {"name": name, "namespace": "system-upgrade"},
                "spec": {
                    "concurrency": 1,
                    "cordon": True,
                    "nodeSelector": {"matchExpressions": [expression]},
                    "upgrade": {"image": "rancher/k3s-upgrade"},
                    "version": "v1.36.2+k3s1",
                },
                "status": {"latestHash": "f00d", "applying": list(applying) if name == "agents" else []},
            },
        )
    mark(store, labels={"plan.upgrade.cattle.io/agents": "f00d"})
    return kind


def kured(store: Store, *arguments: str, lock: str = "") -> None:
    """kured's DaemonSet, as its manifests have it."""
    labels = {"name": "kured"}
    container = {
        "name": "kured",
        "image": "ghcr.io/kubereboot/kured:1.16.0",
        "command": ["/usr/bin/kured", "--reboot-sentinel=/sentinel/reboot-required", *arguments],
    }
    store.create(
        DAEMON_SETS,
        {
            "metadata": {
                "name": "kured",
                "namespace": "kube-system",
                "annotations": {"weave.works/kured-node-lock": lock} if lock else {},
            },
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        },
    )
