"""JSON objects that carry a log line: Docker's json-file, journald, stern, Fluent Bit, and exports of log stores.

`open_envelope` finds the line, its time and where it comes from by the names of the fields alone, so that one reader
serves Loki (logcli), CloudWatch, Cloud Logging, Elasticsearch and OpenSearch, and whatever else keeps the usual
names. `split_document` turns a whole JSON document (an API reply) into such objects. Pure; nothing is judged.

Field names: shared by the agents that write them (Filebeat, Fluent Bit, Promtail/Alloy, the OpenTelemetry collector)
and by the stores' APIs: Loki query_range, CloudWatch FilterLogEvents and Insights, Cloud Logging LogEntry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from kdnsctl.logs.klog import decode, decode_object
from kdnsctl.logs.times import epoch, rfc3339, to_datetime


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a JSON object says about the line that it carries; "" and None where it says nothing."""

    text: bytes
    time: int | None = None
    node: str = ""
    pod: str = ""
    container: str = ""
    process: str = ""
    partial: bool = False
    piece: bool = False
    """Whether such objects hold pieces of lines: `partial` tells whether more of this line follows."""

    @property
    def names_stream(self) -> bool:
        """Whether the object tells the stream, so that its neighbours may be of another."""
        return bool(self.node or self.pod or self.container or self.process)


_TEXT = (
    "MESSAGE",
    "log",
    "message",
    "textPayload",
    "jsonPayload.message",
    "jsonPayload.log",
    "line",
    "@message",
    "body",
)
_NODE = (
    "nodeName",
    "kubernetes.node.name",
    "kubernetes.host",
    "kubernetes.node_name",
    "k8s.node.name",
    "resource.labels.node_name",
    "labels.compute.googleapis.com/resource_name",
    "labels.node",
    "labels.node_name",
    "labels.nodename",
    "labels.k8s_node_name",
    "labels.host",
    "labels.hostname",
    "labels.instance",
    "node",
    "node_name",
    "_HOSTNAME",
)
_POD = (
    "podName",
    "kubernetes.pod.name",
    "kubernetes.pod_name",
    "k8s.pod.name",
    "resource.labels.pod_name",
    "labels.pod",
    "labels.pod_name",
    "labels.k8s_pod_name",
    "pod",
    "pod_name",
)
_CONTAINER = (
    "containerName",
    "kubernetes.container.name",
    "kubernetes.container_name",
    "k8s.container.name",
    "resource.labels.container_name",
    "labels.container",
    "labels.container_name",
    "labels.k8s_container_name",
    "container",
    "container_name",
)
_TIME = ("time", "timestamp", "@timestamp", "ts", "date", "__REALTIME_TIMESTAMP", "_SOURCE_REALTIME_TIMESTAMP")
_RECORD = ("message", "log", "jsonPayload", "log_processed", "json", "body")
"""Where agents and `stern -o extjson` put a JSON log record that they have parsed, as an object."""
_STREAM_NAMES = ("logStreamName", "@logStream", "logStream")
_SOURCE_FILES = ("sourceLocation.file", "jsonPayload.source", "jsonPayload.source_file", "source")

_CONTAINER_INSIGHTS = re.compile(
    r"(?P<node>[^_]{1,253}?)-(?:application|dataplane)\.(?:tail\.)?var\.log\.containers\."
    r"(?P<pod>[^_]{1,253})_(?P<namespace>[^_]{1,253})_(?P<container>[^_]{1,253})-[0-9a-f]{64}"
)
_INSTANCE = re.compile(r"[^/:]+/(?P<pod>[^/:]+):(?P<container>[^/:]+)")
"""Alloy's loki.source.kubernetes calls a container "namespace/pod:container" and says so in the label `instance`."""
_DOCKERS_NAME = re.compile(r"k8s_(?P<container>[^_]{1,253})_(?P<pod>[^_]{1,253})_[^_]{1,253}_")
"""The field CONTAINER_NAME of Docker's journald driver; its SYSLOG_IDENTIFIER is only the container's id."""
_KLOG_TEXT = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} ")
_GO_FILE = re.compile(r"(?:.*/)?([\w.\-]+\.go)(?::(\d+))?$")
_DOCKER_KEYS = frozenset({"log", "stream", "time", "attrs"})


def open_envelope(payload: bytes) -> Envelope | None:
    """What a JSON object carries, or None when it is not JSON or carries no line of text."""
    record = decode_object(payload)
    return None if record is None else _open(record)


def _open(record: dict[str, Any]) -> Envelope | None:
    source = record.get("_source")
    if isinstance(source, dict):
        return _open(source)
    text = _line_of(record)
    if text is None:
        return None
    stream = _first(record, _STREAM_NAMES)
    node, pod, container = _first(record, _NODE), _first(record, _POD), _first(record, _CONTAINER)
    insights = _CONTAINER_INSIGHTS.match(stream)
    instance = _INSTANCE.fullmatch(node)
    if insights:
        # Container Insights names the node only in the stream, and keeps no Kubernetes fields for kube-proxy.
        node, pod, container = node or insights["node"], pod or insights["pod"], container or insights["container"]
    elif instance:
        node, pod, container = "", pod or instance["pod"], container or instance["container"]
    elif stream and not (node or pod):
        pod = stream
    dockers = _DOCKERS_NAME.match(_string(record.get("CONTAINER_NAME")))
    if dockers:
        pod, container = pod or dockers["pod"], container or dockers["container"]
    docker = record.keys() <= _DOCKER_KEYS and "stream" in record
    # Docker cuts lines at 16 KiB and ends only the last piece with a newline.
    partial = not text.endswith("\n") if docker else record.get("logtag") == "P"
    time = _time_of(record)
    return Envelope(
        text=_with_header(record, text.rstrip("\r\n"), time).encode("utf-8", "replace"),
        time=time,
        node=node,
        pod=pod,
        container=container,
        process="" if dockers else _string(record.get("SYSLOG_IDENTIFIER")) or _string(record.get("_COMM")),
        partial=partial,
        piece=docker or "logtag" in record,
    )


def _line_of(record: dict[str, Any]) -> str | None:
    for path in _TEXT:
        value = _dig(record, path)
        if isinstance(value, str):
            return value
        if (
            path == "MESSAGE"
            and isinstance(value, list)
            and all(type(byte) is int and 0 <= byte < 256 for byte in value)
        ):
            # journald prints a message that is not UTF-8 as its bytes.
            return bytes(value).decode("utf-8", "replace")
    for name in _RECORD:
        value = record.get(name)
        if isinstance(value, dict) and isinstance(value.get("msg"), str) and "caller" in value:
            return encode(value).decode()
    return None


def _with_header(record: dict[str, Any], text: str, time: int | None) -> str:
    """Put klog's header back where an agent (Cloud Logging's glog parser) took it off and kept its parts in fields.

    The agent has made the record's time the entry's own. It goes back as well, as two records of the same text are
    told apart by it; month 0 is no time.
    """
    if _KLOG_TEXT.match(text) or text.startswith("{"):
        return text
    for path in _SOURCE_FILES:
        found = _GO_FILE.match(_string(_dig(record, path)))
        if found:
            severity = _string(record.get("severity"))[:1].upper()
            severity = severity if severity in "IWEF" and severity else "I"
            line = found[2] or _string(_dig(record, "sourceLocation.line")) or "0"
            moment = to_datetime(time)
            stamp = "0000 00:00:00.000000" if moment is None else f"{moment:%m%d %H:%M:%S.%f}"
            return f"{severity}{stamp}       1 {found[1]}:{line if line.isdigit() else 0}] {text}"
    return text


def _time_of(record: dict[str, Any]) -> int | None:
    for path in _TIME:
        value = record.get(path)
        if isinstance(value, bool):
            continue
        if isinstance(value, int | float):
            return epoch(value)
        if isinstance(value, str) and value:
            if value.isascii() and value.isdigit() and len(value) <= 20:
                return epoch(int(value))
            moment = rfc3339(value.encode("utf-8", "replace"))
            if moment is not None:
                return moment
    return None


def _first(record: dict[str, Any], paths: tuple[str, ...]) -> str:
    for path in paths:
        value = _string(_dig(record, path))
        if value:
            return value
    return ""


def _string(value: object) -> str:
    if not isinstance(value, str):
        return ""
    # Half a surrogate pair can be read from JSON, but not be printed.
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _dig(record: dict[str, Any], path: str) -> Any:
    """The value at a dotted path, whether the store nests objects or keeps dotted names."""
    if path in record:
        return record[path]
    if "." not in path:
        return None
    head, _, rest = path.partition(".")
    inner = record.get(head)
    return _dig(inner, rest) if isinstance(inner, dict) else None


def split_document(document: bytes) -> Iterator[bytes] | None:
    """The objects of a whole JSON document as JSON lines, or None when it is not a document of log lines.

    Taken: an array of objects (`gcloud logging read --format=json`), CloudWatch's `{"events": […]}` and Insights'
    `{"results": [[{"field", "value"}]]}`, Elasticsearch's `{"hits": {"hits": […]}}` and Loki's
    `{"data": {"result": [{"stream": {…}, "values": [[time, line]]}]}}`.
    """
    records = _records(decode(document))
    return None if records is None else map(encode, records)


def encode(value: Any) -> bytes:
    """JSON on one line; numbers and texts that the quick encoder refuses are escaped by the patient one."""
    try:
        return msgspec.json.encode(value)
    except (ValueError, OverflowError):
        return json.dumps(value).encode()


def _records(value: Any) -> Iterator[dict[str, Any]] | None:
    if isinstance(value, list):
        return (record for record in value if isinstance(record, dict))
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("events"), list):
        return _records(value["events"])
    if isinstance(value.get("results"), list):
        return (
            {str(cell.get("field")): cell.get("value") for cell in row if isinstance(cell, dict)}
            for row in value["results"]
            if isinstance(row, list)
        )
    hits = value.get("hits")
    if isinstance(hits, dict) and isinstance(hits.get("hits"), list):
        return _records(hits["hits"])
    data = value.get("data")
    if isinstance(data, dict) and isinstance(data.get("result"), list):
        return _loki(data["result"])
    return None


def _loki(streams: list[Any]) -> Iterator[dict[str, Any]]:
    for stream in streams:
        if not isinstance(stream, dict) or not isinstance(stream.get("values"), list):
            continue
        for value in stream["values"]:
            if isinstance(value, list) and len(value) >= 2:
                yield {"labels": stream.get("stream", {}), "timestamp": value[0], "line": value[1]}
