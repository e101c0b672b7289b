"""The few fields that are read of Kubernetes' objects, as records. Everything else in a reply is skipped while
decoding.

Nothing here asks a server or judges an object. Field names are those of the API (core/v1, apps/v1, discovery.k8s.io/v1,
authorization.k8s.io/v1, meta/v1) in Python's spelling; a field that the API may leave out has a default. Lists that the
API declares without `omitempty` can be `null` on the wire and are therefore optional here (`items` of every list,
`endpoints`, `ports` and `addresses` of EndpointSlices).
"""

from __future__ import annotations

import datetime as dt
from typing import Generic, TypeVar

import msgspec
from msgspec import field

T = TypeVar("T")

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"  # on the API's copy of a static pod; k8s.io/api/core/v1


class Object(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What all records here have in common."""


class OwnerReference(Object, frozen=True):
    """Who made an object."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class Metadata(Object, frozen=True):
    """An object's identity."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: dt.datetime | None = None
    deletion_timestamp: dt.datetime | None = None
    finalizers: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that manages the object, if there is one."""
        return next((owner for owner in self.owner_references if owner.controller), None)


class ManagedFields(Object, frozen=True):
    """Who wrote some fields of an object, and when they last changed one (k8s.io/apimachinery meta/v1 types.go)."""

    manager: str = ""
    time: dt.datetime | None = None


class SliceMetadata(Metadata, frozen=True):
    """An EndpointSlice's identity, and when what is in it was last changed."""

    managed_fields: tuple[ManagedFields, ...] = ()


class PartialObjectMetadata(Object, frozen=True):
    """Any object, of which only the identity was asked for."""

    metadata: Metadata = Metadata()


class ListMetadata(Object, frozen=True):
    """Where a list stands: `continue_` is empty on the last page."""

    resource_version: str = ""
    continue_: str = field(default="", name="continue")


class Page(Object, Generic[T], frozen=True):
    """One page of a list."""

    metadata: ListMetadata = ListMetadata()
    items: tuple[T, ...] | None = None


class Cause(Object, frozen=True):
    """One cause of a refusal: `reason` is FieldValueInvalid, DisruptionBudget, …"""

    reason: str = ""
    message: str = ""
    field: str = ""


class StatusDetails(Object, frozen=True):
    """What a refusal is about."""

    name: str = ""
    kind: str = ""
    causes: tuple[Cause, ...] = ()
    retry_after_seconds: int = 0


class Status(Object, frozen=True):
    """What the server says when it does not do what it was asked to."""

    kind: str = ""
    status: str = ""
    message: str = ""
    reason: str = ""
    details: StatusDetails | None = None
    code: int = 0


class Taint(Object, frozen=True):
    """What keeps pods off a node."""

    key: str
    value: str = ""
    effect: str = ""


class NodeSpec(Object, frozen=True):
    """What was decided about a node."""

    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    provider_id: str = field(default="", name="providerID")


class NodeAddress(Object, frozen=True):
    """One address of a node: `type` is InternalIP, ExternalIP, Hostname, InternalDNS or ExternalDNS."""

    type: str
    address: str


class Condition(Object, frozen=True):
    """One condition of a node or pod: `status` is True, False or Unknown."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: dt.datetime | None = None


class NodeSystemInfo(Object, frozen=True):
    """What runs on a node."""

    kubelet_version: str = ""
    kernel_version: str = ""
    os_image: str = ""
    container_runtime_version: str = ""
    operating_system: str = ""
    architecture: str = ""
    boot_id: str = field(default="", name="bootID")


class NodeStatus(Object, frozen=True):
    """What a node reports. `capacity` holds quantities as the API writes them (`4`, `3920m`)."""

    capacity: dict[str, str | int] = {}
    addresses: tuple[NodeAddress, ...] = ()
    conditions: tuple[Condition, ...] = ()
    node_info: NodeSystemInfo = NodeSystemInfo()


class Node(Object, frozen=True):
    """A node."""

    metadata: Metadata = Metadata()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def os(self) -> str:
        """`linux` or `windows`: what the kubelet reports, else what the label says; empty when neither does."""
        return self.status.node_info.operating_system or self.metadata.labels.get("kubernetes.io/os", "")

    @property
    def ready(self) -> bool:
        """Whether the control plane holds the node for working."""
        return any(condition.type == "Ready" and condition.status == "True" for condition in self.status.conditions)


class EnvVar(Object, frozen=True):
    """One variable of a container's environment, where its value is written down."""

    name: str
    value: str = ""


class VolumeMount(Object, frozen=True):
    """Where a container sees a volume."""

    name: str
    mount_path: str


class Container(Object, frozen=True):
    """A container as it was asked for."""

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()


class ConfigMapVolume(Object, frozen=True):
    """The ConfigMap that a volume shows."""

    name: str = ""


class EmptyDirVolume(Object, frozen=True):
    """A directory that goes with the pod; what it is made of does not matter here."""


class Volume(Object, frozen=True):
    """A volume; only those that show a ConfigMap, or go with the pod, matter here."""

    name: str
    config_map: ConfigMapVolume | None = None
    empty_dir: EmptyDirVolume | None = None


class PodSpec(Object, frozen=True):
    """What a pod was asked to be."""

    node_name: str = ""
    host_network: bool = False
    node_selector: dict[str, str] = {}
    containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()


class ContainerWaiting(Object, frozen=True):
    """Why a container does not run yet, or again."""

    reason: str = ""
    message: str = ""


class ContainerRunning(Object, frozen=True):
    """Since when a container runs."""

    started_at: dt.datetime | None = None


class ContainerTerminated(Object, frozen=True):
    """How a container ended."""

    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None


class ContainerState(Object, frozen=True):
    """Exactly one of the three, or none when nothing is known."""

    waiting: ContainerWaiting | None = None
    running: ContainerRunning | None = None
    terminated: ContainerTerminated | None = None


class ContainerStatus(Object, frozen=True):
    """A container as it is. `last_state.terminated` tells of the run before."""

    name: str
    ready: bool = False
    restart_count: int = 0
    image: str = ""
    image_id: str = field(default="", name="imageID")
    container_id: str = field(default="", name="containerID")
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodIP(Object, frozen=True):
    """One address of a pod."""

    ip: str = ""


class PodStatus(Object, frozen=True):
    """What became of a pod. `pod_ips` holds `pod_ip` first, and the address of the other family of dual stack."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = field(default=(), name="podIPs")
    host_ip: str = field(default="", name="hostIP")
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(Object, frozen=True):
    """A pod."""

    metadata: Metadata = Metadata()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ready(self) -> bool:
        """Whether it counts as healthy, for Services and disruption budgets."""
        return any(condition.type == "Ready" and condition.status == "True" for condition in self.status.conditions)

    @property
    def ended(self) -> bool:
        """Whether all its containers ended for good."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def static(self) -> bool:
        """Whether it comes from a file on the node, and this is only the API's copy."""
        return MIRROR_ANNOTATION in self.metadata.annotations

    def container_status(self, name: str) -> ContainerStatus | None:
        """The status of the container of that name."""
        return next((status for status in self.status.container_statuses if status.name == name), None)


class PodTemplate(Object, frozen=True):
    """What a workload's pods look like."""

    spec: PodSpec = PodSpec()


class DaemonSetSpec(Object, frozen=True):
    """What a DaemonSet was asked to be."""

    template: PodTemplate = PodTemplate()


class DaemonSet(Object, frozen=True):
    """A DaemonSet."""

    metadata: Metadata = Metadata()
    spec: DaemonSetSpec = DaemonSetSpec()


class ServicePort(Object, frozen=True):
    """A port of a Service. `target_port` is a number or the name of a container's port."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str = 0
    node_port: int = 0


class ServiceSpec(Object, frozen=True):
    """What a Service offers. `cluster_ips` holds `cluster_ip` first; a headless Service says `None` there."""

    cluster_ip: str = field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = field(default=(), name="clusterIPs")
    external_ips: tuple[str, ...] = field(default=(), name="externalIPs")
    type: str = ""
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = {}
    internal_traffic_policy: str = ""
    external_traffic_policy: str = ""
    traffic_distribution: str = ""


class LoadBalancerIngress(Object, frozen=True):
    """One address of a load balancer. kube-proxy handles it unless `ip_mode` is Proxy (KEP-1860)."""

    ip: str = ""
    ip_mode: str = ""


class LoadBalancerStatus(Object, frozen=True):
    """Where a load balancer takes traffic for a Service."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Object, frozen=True):
    """What became of a Service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(Object, frozen=True):
    """A Service."""

    metadata: Metadata = Metadata()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class ObjectReference(Object, frozen=True):
    """What an address stands for."""

    kind: str = ""
    name: str = ""
    namespace: str = ""
    uid: str = ""


class EndpointConditions(Object, frozen=True):
    """A condition that is not given is unknown, and each has its own reading: see `Endpoint.is_serving`."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ZoneHint(Object, frozen=True):
    """A zone that should use an endpoint."""

    name: str = ""


class EndpointHints(Object, frozen=True):
    """Who should use an endpoint: then kube-proxy may leave it out elsewhere (topology-aware routing)."""

    for_zones: tuple[ZoneHint, ...] = ()


class Endpoint(Object, frozen=True):
    """One backend in an EndpointSlice."""

    addresses: tuple[str, ...] | None = None
    conditions: EndpointConditions = EndpointConditions()
    node_name: str = ""
    target_ref: ObjectReference | None = None
    hints: EndpointHints | None = None

    @property
    def is_serving(self) -> bool:
        """Whether it answers, be it terminating or not.

        An unknown `serving` is to be read as `ready`, an unknown `ready` as true (k8s.io/api/discovery/v1 types.go).
        """
        if self.conditions.serving is not None:
            return self.conditions.serving
        return self.conditions.ready is not False


class EndpointPort(Object, frozen=True):
    """A port that all endpoints of a slice have. Port 0 stands for all ports."""

    name: str = ""
    protocol: str = "TCP"
    port: int = 0


class EndpointSlice(Object, frozen=True):
    """Some backends of a Service."""

    metadata: SliceMetadata = SliceMetadata()
    address_type: str = ""
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None

    @property
    def service(self) -> str:
        """The name of the Service, in the slice's own namespace."""
        return self.metadata.labels.get("kubernetes.io/service-name", "")


class ServiceCIDRSpec(Object, frozen=True):
    """Ranges that ClusterIPs are taken from."""

    cidrs: tuple[str, ...] = ()


class ServiceCIDR(Object, frozen=True):
    """Where ClusterIPs come from (networking.k8s.io/v1)."""

    metadata: Metadata = Metadata()
    spec: ServiceCIDRSpec = ServiceCIDRSpec()


class ConfigMap(Object, frozen=True):
    """A ConfigMap's texts."""

    metadata: Metadata = Metadata()
    data: dict[str, str] = {}


class AccessReviewStatus(Object, frozen=True):
    """Whether something is allowed; `evaluation_error` says that not everything could be asked."""

    allowed: bool = False
    denied: bool = False
    reason: str = ""
    evaluation_error: str = ""


class SelfSubjectAccessReview(Object, frozen=True):
    """The server's answer to "may I?"."""

    status: AccessReviewStatus = AccessReviewStatus()


class Version(Object, frozen=True):
    """The reply of /version."""

    git_version: str = ""
    major: str = ""
    minor: str = ""
