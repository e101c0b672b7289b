"""The columns `kubectl get` prints for each served kind, and how an object fills them.

Names, types, formats, priorities and cells equal `api/table-nodes.json` and `api/table-pods.json` of the recordings;
the other kinds follow Kubernetes 1.36, pkg/printers/internalversion/printers.go. Priority 1 is `-o wide`. The
descriptions are our own. Pod rows, which need more thought, are in `pod_rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kdnsctl.lab import kinds
from kdnsctl.lab.api.durations import age, interval_text
from kdnsctl.lab.api.pod_rows import pod_cells
from kdnsctl.lab.kinds import Kind

Cells = list[Any]
RowOf = Callable[[Mapping[str, Any], datetime], Cells]
NONE: Final = "<none>"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a Table; the fields are those of its definition in the reply."""

    name: str
    description: str
    priority: int = 0
    type: str = "string"
    format: str = ""

    def definition(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a kind and the cells of one object, in the same order."""

    columns: tuple[Column, ...]
    row: RowOf


_NAME: Final = Column("Name", "The object's name, unique within its namespace and kind.", format="name")
_AGE: Final = Column("Age", "Time since the object was created.")


def layout_of(kind: Kind) -> Layout:
    """How the kind is printed; name and creation time for a kind without columns of its own, as a real server does."""
    return _LAYOUTS.get(kind, _PLAIN)


def _name(obj: Mapping[str, Any]) -> str:
    return str(obj["metadata"]["name"])


def _age(obj: Mapping[str, Any], now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _plain(obj: Mapping[str, Any], _: datetime) -> Cells:
    return [_name(obj), obj["metadata"].get("creationTimestamp", "")]


_PLAIN: Final = Layout(
    (_NAME, Column("Created At", "When the object was created.", type="date")),
    _plain,
)


def _node(obj: Mapping[str, Any], now: datetime) -> Cells:
    status = obj.get("status", {})
    ready = [item["status"] == "True" for item in status.get("conditions", []) if item["type"] == "Ready"]
    words = [("Ready" if ready[0] else "NotReady") if ready else "Unknown"]
    if obj.get("spec", {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    labels = obj["metadata"].get("labels") or {}
    roles = {key.partition("/")[2] for key in labels if key.startswith("node-role.kubernetes.io/")}
    if labels.get("kubernetes.io/role"):
        roles.add(labels["kubernetes.io/role"])
    info = status.get("nodeInfo", {})
    addresses = {address["type"]: address["address"] for address in reversed(status.get("addresses", []))}
    kernel = info.get("kernelVersion") or "<unknown>"
    if info.get("kernelVersion") and info.get("architecture"):
        kernel = f"{kernel} ({info['architecture']})"
    return [
        _name(obj), ",".join(words), ",".join(sorted(role for role in roles if role)) or NONE, _age(obj, now),
        info.get("kubeletVersion", ""), addresses.get("InternalIP", NONE), addresses.get("ExternalIP", NONE),
        info.get("osImage") or "<unknown>", kernel, info.get("containerRuntimeVersion") or "<unknown>",
    ]  # fmt: skip


def _ports(ports: list[Mapping[str, Any]]) -> str:
    texts = []
    for port in ports:
        node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
        texts.append(f"{port['port']}{node_port}/{port.get('protocol', 'TCP')}")
    return ",".join(texts) or NONE


def _selector(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def _label_selector(selector: Mapping[str, Any] | None) -> str:
    if selector is None:
        return NONE
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or []:
        values = ",".join(sorted(expression.get("values", [])))
        operator = expression["operator"]
        if operator in ("In", "NotIn"):
            terms.append(f"{expression['key']} {operator.lower()} ({values})")
        else:
            terms.append(expression["key"] if operator == "Exists" else "!" + expression["key"])
    return ",".join(terms) or NONE


def _service(obj: Mapping[str, Any], now: datetime) -> Cells:
    spec = obj["spec"]
    external = list(spec.get("externalIPs") or [])
    if spec["type"] == "LoadBalancer":
        ingress = obj.get("status", {}).get("loadBalancer", {}).get("ingress") or []
        external = [item.get("ip") or item.get("hostname") for item in ingress] + external
        shown = ",".join(external) or "<pending>"
    elif spec["type"] == "ExternalName":
        shown = spec.get("externalName", "")
    else:
        shown = ",".join(external) or NONE
    return [
        _name(obj), spec["type"], spec.get("clusterIP") or NONE, shown, _ports(spec.get("ports") or []),
        _age(obj, now), _selector(spec.get("selector")),
    ]  # fmt: skip


def _containers(obj: Mapping[str, Any]) -> tuple[str, str]:
    containers = obj["spec"]["template"]["spec"].get("containers", [])
    return (
        ",".join(container["name"] for container in containers),
        ",".join(container.get("image", "") for container in containers),
    )


def _daemon_set(obj: Mapping[str, Any], now: datetime) -> Cells:
    status = obj.get("status", {})
    counts = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled")
    return [
        _name(obj), *(status.get(count, 0) for count in counts), status.get("numberAvailable", 0),
        _selector(obj["spec"]["template"]["spec"].get("nodeSelector")), _age(obj, now), *_containers(obj),
        _label_selector(obj["spec"].get("selector")),
    ]  # fmt: skip


def _deployment(obj: Mapping[str, Any], now: datetime) -> Cells:
    status = obj.get("status", {})
    return [
        _name(obj), f"{status.get('readyReplicas', 0)}/{obj['spec'].get('replicas', 1)}",
        status.get("updatedReplicas", 0), status.get("availableReplicas", 0), _age(obj, now), *_containers(obj),
        _label_selector(obj["spec"].get("selector")),
    ]  # fmt: skip


def _replica_set(obj: Mapping[str, Any], now: datetime) -> Cells:
    status = obj.get("status", {})
    return [
        _name(obj), obj["spec"].get("replicas", 1), status.get("replicas", 0), status.get("readyReplicas", 0),
        _age(obj, now), *_containers(obj), _label_selector(obj["spec"].get("selector")),
    ]  # fmt: skip


def _stateful_set(obj: Mapping[str, Any], now: datetime) -> Cells:
    ready = f"{obj.get('status', {}).get('readyReplicas', 0)}/{obj['spec'].get('replicas', 1)}"
    return [_name(obj), ready, _age(obj, now), *_containers(obj)]


def _revision(obj: Mapping[str, Any], now: datetime) -> Cells:
    owner = next((owner for owner in obj["metadata"].get("ownerReferences", []) if owner.get("controller")), None)
    shown = NONE
    if owner is not None:
        group = owner["apiVersion"].rpartition("/")[0]
        shown = f"{owner['kind'].lower()}{'.' + group if group else ''}/{owner['name']}"
    return [_name(obj), shown, obj.get("revision", 0), _age(obj, now)]


def _more(texts: list[str], limit: int = 3) -> str:
    """At most three, then how many were left out, as endpoint lists are printed."""
    if len(texts) <= limit:
        return ",".join(texts)
    return ",".join(texts[:limit]) + f" + {len(texts) - limit} more..."


def _endpoint_slice(obj: Mapping[str, Any], now: datetime) -> Cells:
    ports = [str(port.get("port", "*")) for port in obj.get("ports") or []]
    addresses = [address for endpoint in obj.get("endpoints") or [] for address in endpoint["addresses"]]
    return [
        _name(obj), obj.get("addressType", ""), _more(ports) or "<unset>", _more(addresses) or "<unset>",
        _age(obj, now),
    ]  # fmt: skip


def _event(obj: Mapping[str, Any], now: datetime) -> Cells:
    last = obj.get("series", {}).get("lastObservedTime") or obj.get("lastTimestamp")
    seen = interval_text(obj.get("firstTimestamp") or obj.get("eventTime"), last, obj.get("count", 1), now)
    about = obj.get("involvedObject", {})
    source = obj.get("source", {})
    where = ", ".join(text for text in (source.get("component") or obj.get("reportingComponent"), source.get("host"))
                      if text)  # fmt: skip
    return [
        seen, obj.get("type", ""), obj.get("reason", ""), f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        about.get("fieldPath", ""), where, str(obj.get("message", "")).strip(),
        age(obj.get("firstTimestamp") or obj.get("eventTime"), now), obj.get("count", 1), _name(obj),
    ]  # fmt: skip


def _budget(obj: Mapping[str, Any], now: datetime) -> Cells:
    spec = obj.get("spec", {})
    return [
        _name(obj), str(spec.get("minAvailable", "N/A")), str(spec.get("maxUnavailable", "N/A")),
        obj.get("status", {}).get("disruptionsAllowed", 0), _age(obj, now),
    ]  # fmt: skip


def _lease(obj: Mapping[str, Any], now: datetime) -> Cells:
    return [_name(obj), obj.get("spec", {}).get("holderIdentity", ""), _age(obj, now)]


def _config_map(obj: Mapping[str, Any], now: datetime) -> Cells:
    return [_name(obj), len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), _age(obj, now)]


def _secret(obj: Mapping[str, Any], now: datetime) -> Cells:
    return [_name(obj), obj.get("type", ""), len(obj.get("data") or {}), _age(obj, now)]


def _namespace(obj: Mapping[str, Any], now: datetime) -> Cells:
    return [_name(obj), obj.get("status", {}).get("phase", ""), _age(obj, now)]


def _service_account(obj: Mapping[str, Any], now: datetime) -> Cells:
    return [_name(obj), _age(obj, now)]


def _pod(obj: Mapping[str, Any], now: datetime) -> Cells:
    return pod_cells(obj, now)


_TEMPLATE_COLUMNS: Final = (
    Column("Containers", "Names of the containers of the template.", 1),
    Column("Images", "Images of the containers of the template.", 1),
    Column("Selector", "Which pods belong to the object.", 1),
)


def _count(name: str, description: str) -> Column:
    return Column(name, description, type="integer")


_LAYOUTS: Final[dict[Kind, Layout]] = {
    kinds.NODES: Layout(
        (
            _NAME, Column("Status", "Readiness, and whether pods may be scheduled."),
            Column("Roles", "The roles that labels give the node."), _AGE,
            Column("Version", "Version of the kubelet."), Column("Internal-IP", "Address inside the cluster.", 1),
            Column("External-IP", "Address outside the cluster.", 1), Column("OS-Image", "The node's system.", 1),
            Column("Kernel-Version", "Kernel and architecture.", 1), Column("Container-Runtime", "Its version.", 1),
        ),
        _node,
    ),
    kinds.PODS: Layout(
        (
            _NAME, Column("Ready", "Ready containers of all containers."), Column("Status", "State of the pod."),
            Column("Restarts", "How often its containers restarted, and when last."), _AGE,
            Column("IP", "Address of the pod.", 1), Column("Node", "Node the pod runs on.", 1),
            Column("Nominated Node", "Node that is being freed for the pod.", 1),
            Column("Readiness Gates", "Conditions beyond its containers that make it ready.", 1),
        ),
        _pod,
    ),
    kinds.SERVICES: Layout(
        (
            _NAME, Column("Type", "How the Service is reached."), Column("Cluster-IP", "Its address in the cluster."),
            Column("External-IP", "Its addresses outside."), Column("Port(s)", "Its ports."), _AGE,
            Column("Selector", "Which pods serve it.", 1),
        ),
        _service,
    ),
    kinds.CONFIG_MAPS: Layout((_NAME, Column("Data", "Number of entries."), _AGE), _config_map),
    kinds.SECRETS: Layout(
        (_NAME, Column("Type", "Kind of secret."), Column("Data", "Number of entries."), _AGE), _secret
    ),
    kinds.NAMESPACES: Layout((_NAME, Column("Status", "Active or Terminating."), _AGE), _namespace),
    kinds.SERVICE_ACCOUNTS: Layout((_NAME, _AGE), _service_account),
    kinds.EVENTS: Layout(
        (
            Column("Last Seen", "Time since it happened last."), Column("Type", "Normal or Warning."),
            Column("Reason", "Why, in one word."), Column("Object", "What it is about."),
            Column("Subobject", "The part of the object.", 1), Column("Source", "Who reported it.", 1),
            Column("Message", "What happened."), Column("First Seen", "Time since it happened first.", 1),
            Column("Count", "How often it happened.", 1), Column("Name", "Name of the event.", 1, format="name"),
        ),
        _event,
    ),
    kinds.DAEMON_SETS: Layout(
        (
            _NAME, _count("Desired", "Nodes that should run a pod."), _count("Current", "Nodes that run one."),
            _count("Ready", "Pods that are ready."), _count("Up-to-date", "Pods of the current revision."),
            _count("Available", "Pods that are available."), Column("Node Selector", "Which nodes."), _AGE,
            *_TEMPLATE_COLUMNS,
        ),
        _daemon_set,
    ),
    kinds.DEPLOYMENTS: Layout(
        (
            _NAME, Column("Ready", "Ready pods of all wanted."), Column("Up-to-date", "Pods of the current template."),
            Column("Available", "Pods that are available."), _AGE, *_TEMPLATE_COLUMNS,
        ),
        _deployment,
    ),
    kinds.REPLICA_SETS: Layout(
        (
            _NAME, _count("Desired", "Wanted pods."), _count("Current", "Existing pods."),
            _count("Ready", "Ready pods."), _AGE, *_TEMPLATE_COLUMNS,
        ),
        _replica_set,
    ),
    kinds.STATEFUL_SETS: Layout(
        (_NAME, Column("Ready", "Ready pods of all wanted."), _AGE, *_TEMPLATE_COLUMNS[:2]), _stateful_set
    ),
    kinds.CONTROLLER_REVISIONS: Layout(
        (_NAME, Column("Controller", "Whose revision."), Column("Revision", "Its number."), _AGE), _revision
    ),
    kinds.ENDPOINT_SLICES: Layout(
        (
            _NAME, Column("AddressType", "Family of the addresses."), Column("Ports", "Ports of every endpoint."),
            Column("Endpoints", "The first addresses."), _AGE,
        ),
        _endpoint_slice,
    ),
    kinds.DISRUPTION_BUDGETS: Layout(
        (
            _NAME, Column("Min Available", "Pods that must stay."), Column("Max Unavailable", "Pods that may go."),
            _count("Allowed Disruptions", "Pods that may be evicted now."), _AGE,
        ),
        _budget,
    ),
    kinds.LEASES: Layout((_NAME, Column("Holder", "Who holds it."), _AGE), _lease),
}  # fmt: skip
