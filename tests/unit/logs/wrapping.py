"""The ways in which a kube-proxy record reaches somebody's disk: written here by hand, one function for each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kdnsctl.logs.envelopes import split_document
from tests.unit.logs.scanning import micro

NODE = "ip-10-0-1-23.ec2.internal"
POD = "kube-proxy-x7k2p"
CONTAINER = "kube-proxy"
STAMP = "2026-11-23T03:03:31.238869880Z"
TIME = micro("2026-11-23T03:03:31.238869")
SECOND = micro("2026-11-23T03:03:31")
MILLISECOND = micro("2026-11-23T03:03:31.238")
NANOSECONDS = "1795403011238869880"

Lines = list[bytes]
Key = tuple[str, str, str]
OWN: Key = ("", "", "")


@dataclass(frozen=True)
class Wrapping:
    """`wrap` makes a file's bytes of a record's lines; `key` is the stream it names, `time` what it says of the time.

    `exact` is False where the record's own bytes do not survive the way.
    """

    name: str
    wrap: Callable[[Lines], bytes]
    key: Key = OWN
    time: int | None = None
    exact: bool = True
    json_only: bool = False
    text_only: bool = False


def each(prefix: str | bytes, *, end: bytes = b"\n") -> Callable[[Lines], bytes]:
    start = prefix.encode() if isinstance(prefix, str) else prefix
    return lambda lines: b"".join(start + line + end for line in lines)


def jsonl(make: Callable[[str], object]) -> Callable[[Lines], bytes]:
    def wrap(lines: Lines) -> bytes:
        return b"".join(compact(make(line.decode("utf-8", "surrogateescape"))) + b"\n" for line in lines)

    return wrap


def document(make: Callable[[list[str]], object]) -> Callable[[Lines], bytes]:
    """A JSON document, pretty-printed as tools do, that the reader takes apart."""

    def wrap(lines: Lines) -> bytes:
        objects = split_document(json.dumps(make([line.decode() for line in lines]), indent=2).encode())
        assert objects is not None
        return b"".join(line + b"\n" for line in objects)

    return wrap


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def journald(message: object) -> dict[str, object]:
    return {
        "__CURSOR": "s=8",
        "__REALTIME_TIMESTAMP": NANOSECONDS[:16],
        "_HOSTNAME": NODE,
        "PRIORITY": "6",
        "_COMM": "k3s-server",
        "SYSLOG_IDENTIFIER": "k3s",
        "_PID": "34223",
        "MESSAGE": message,
    }


KUBERNETES = {"pod_name": POD, "namespace_name": "kube-system", "host": NODE, "container_name": CONTAINER}
LABELS = {"namespace": "kube-system", "pod": POD, "container": CONTAINER, "node_name": NODE}
RESOURCE = {
    "type": "k8s_container",
    "labels": {"cluster_name": "c1", "pod_name": POD, "container_name": CONTAINER, "namespace_name": "kube-system"},
}
GKE_LABELS = {"compute.googleapis.com/resource_name": NODE, "k8s-pod/component": "kube-proxy"}
DATAPLANE = f"{NODE}-dataplane.tail.var.log.containers.{POD}_kube-system_{CONTAINER}-{'0123456789abcdef' * 4}.log"
CRI = f"{STAMP} stderr F "


def fluent_bit(line: str) -> dict[str, object]:
    return {
        "date": 1795403011.238869,
        "stream": "stderr",
        "logtag": "F",
        "log": line,
        "kubernetes": KUBERNETES,
    }


def stern_json(line: str) -> dict[str, object]:
    return {
        "message": line,
        "nodeName": NODE,
        "namespace": "kube-system",
        "podName": POD,
        "containerName": CONTAINER,
    }


def extjson(lines: Lines) -> bytes:
    """stern prints a message that is JSON as it is, and any other as a JSON string."""
    out = b""
    for line in lines:
        message = line if line.startswith(b"{") else json.dumps(line.decode()).encode()
        out += b'{"pod": "%s", "container": "%s", "message": %s}\n' % (POD.encode(), CONTAINER.encode(), message)
    return out


def logcli(line: str) -> dict[str, object]:
    return {"labels": LABELS, "line": line, "timestamp": STAMP}


def loki(lines: Iterable[str]) -> object:
    values = [[NANOSECONDS, line] for line in lines]
    result = {"stream": LABELS, "values": values}
    return {"status": "success", "data": {"resultType": "streams", "result": [result], "stats": {}}}


def cloudwatch(lines: Iterable[str], stream: str = DATAPLANE) -> object:
    return {
        "events": [
            {"logStreamName": stream, "timestamp": 1795403011238, "message": line, "ingestionTime": 1795403012000}
            for line in lines
        ],
        "searchedLogStreams": [],
    }


def insights(lines: Iterable[str]) -> object:
    return {
        "results": [
            [
                {"field": "@timestamp", "value": "2026-11-23 03:03:31.238"},
                {"field": "@message", "value": line},
                {"field": "@logStream", "value": DATAPLANE},
                {"field": "@ptr", "value": "CmEK"},
            ]
            for line in lines
        ],
        "status": "Complete",
    }


def log_entry(payload: dict[str, Any]) -> dict[str, object]:
    return {"insertId": "1", "timestamp": STAMP, "resource": RESOURCE, "labels": GKE_LABELS, **payload}


HEADER = re.compile(r"([IWEF])\d{4} \S+ +\d+ (\S+):(\d+)\] (.*)", re.DOTALL)
SEVERITY = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}


def without_header(line: str) -> dict[str, Any]:
    """What Cloud Logging keeps of a line whose glog header its agent has parsed."""
    match = HEADER.fullmatch(line)
    if match is None:
        return {"jsonPayload": {"message": line}}
    return {
        "severity": SEVERITY[match[1]],
        "sourceLocation": {"file": match[2], "line": match[3]},
        "jsonPayload": {"message": match[4], "pid": "1"},
    }


def elastic_nested(line: str) -> dict[str, object]:
    return {
        "@timestamp": STAMP,
        "message": line,
        "stream": "stderr",
        "kubernetes": {"node": {"name": NODE}, "pod": {"name": POD}, "container": {"name": CONTAINER}},
    }


def elastic_dotted(line: str) -> dict[str, object]:
    return {
        "@timestamp": STAMP,
        "message": line,
        "kubernetes.node.name": NODE,
        "kubernetes.pod.name": POD,
        "kubernetes.container.name": CONTAINER,
    }


IN_POD: Key = ("", POD, CONTAINER)
IN_NODE: Key = (NODE, POD, CONTAINER)
IN_JOURNAL: Key = (NODE, "", "k3s")

WRAPPINGS = (
    Wrapping("bare", each("")),
    Wrapping("CRLF", each("", end=b"\r\n")),
    Wrapping("CRI", each(CRI), time=TIME),
    Wrapping("CRI stdout with an offset", each("2026-11-23T04:03:31.23886988+01:00 stdout F "), time=TIME),
    Wrapping("kubectl logs --timestamps", each(f"{STAMP} "), time=TIME),
    Wrapping("kubectl logs --timestamps, no fraction", each("2026-11-23T03:03:31Z "), time=SECOND),
    Wrapping("kubectl logs --timestamps, offset", each("2026-11-23T08:33:31.238869+05:30 "), time=TIME),
    Wrapping("kubectl logs --prefix", each(f"[pod/{POD}/{CONTAINER}] "), IN_POD),
    Wrapping("kubectl logs --prefix --timestamps", each(f"[pod/{POD}/{CONTAINER}] {STAMP} "), IN_POD, TIME),
    Wrapping("stern", each(f"{POD} {CONTAINER} "), IN_POD),
    Wrapping("stern -A", each(f"kube-system {POD} {CONTAINER} "), IN_POD),
    Wrapping("stern --timestamps", each(f"{POD} {CONTAINER} {STAMP} "), IN_POD, TIME),
    Wrapping("stern --timestamps=short", each(f"{POD} {CONTAINER} 11-23 03:03:31 "), IN_POD),
    Wrapping("stern -A --timestamps", each(f"kube-system {POD} {CONTAINER} {STAMP} "), IN_POD, TIME),
    Wrapping("stern in colour", each(f"\x1b[36m{POD}\x1b[0m \x1b[96;1m{CONTAINER}\x1b[m "), IN_POD),
    Wrapping("stern -o json", jsonl(stern_json), IN_NODE),
    Wrapping("stern -o extjson", extjson, IN_POD, exact=False),
    Wrapping(
        "Docker json-file",
        jsonl(lambda line: {"log": line + "\n", "stream": "stderr", "time": STAMP}),
        time=TIME,
    ),
    Wrapping("journald short", each(f"Nov 23 03:03:31 {NODE} k3s[34223]: "), IN_JOURNAL),
    Wrapping("journald short-precise", each(f"Nov  3 03:03:31.238869 {NODE} k3s[34223]: "), IN_JOURNAL),
    Wrapping("journald short-iso", each(f"2026-11-23T03:03:31+0000 {NODE} k3s[34223]: "), IN_JOURNAL, SECOND),
    Wrapping(
        "journald short-iso-precise", each(f"2026-11-23T03:03:31.238869+00:00 {NODE} k3s[34223]: "), IN_JOURNAL, TIME
    ),
    Wrapping("journald short-full", each(f"Mon 2026-11-23 03:03:31 UTC {NODE} k3s[34223]: "), IN_JOURNAL, SECOND),
    Wrapping("journald short-full, local zone", each(f"Mon 2026-11-23 04:03:31 CET {NODE} k3s[34223]: "), IN_JOURNAL),
    Wrapping("journald short-unix", each(f"1795403011.238869 {NODE} k3s[34223]: "), IN_JOURNAL, TIME),
    Wrapping("journald short-monotonic", each(f"[  123.238869] {NODE} k3s[34223]: "), IN_JOURNAL),
    Wrapping("journald json", jsonl(journald), IN_JOURNAL, TIME),
    Wrapping("journald json, bytes", jsonl(lambda line: journald(list(line.encode()))), IN_JOURNAL, TIME),
    Wrapping("Fluent Bit", jsonl(fluent_bit), IN_NODE, TIME),
    Wrapping("Loki, logcli", jsonl(logcli), IN_NODE, TIME),
    Wrapping("Loki, API", document(loki), IN_NODE, TIME),
    Wrapping("CloudWatch events", document(cloudwatch), IN_NODE, MILLISECOND),
    Wrapping("CloudWatch Insights", document(insights), IN_NODE, MILLISECOND),
    Wrapping(
        "Cloud Logging textPayload",
        document(lambda lines: [log_entry({"textPayload": line}) for line in lines]),
        IN_NODE,
        TIME,
    ),
    Wrapping(
        "Cloud Logging, glog header parsed",
        document(lambda lines: [log_entry(without_header(line)) for line in lines]),
        IN_NODE,
        TIME,
        exact=False,
        text_only=True,
    ),
    Wrapping(
        "Cloud Logging, JSON record parsed",
        document(lambda lines: [log_entry({"jsonPayload": json.loads(line)}) for line in lines]),
        IN_NODE,
        TIME,
        exact=False,
        json_only=True,
    ),
    Wrapping("Elasticsearch, nested", jsonl(lambda line: {"_source": elastic_nested(line)}), IN_NODE, TIME),
    Wrapping("Elasticsearch, dotted", jsonl(lambda line: {"_source": elastic_dotted(line)}), IN_NODE, TIME),
    Wrapping(
        "Elasticsearch, reply",
        document(lambda lines: {"took": 1, "hits": {"hits": [{"_source": elastic_nested(line)} for line in lines]}}),
        IN_NODE,
        TIME,
    ),
    # --- one in the other
    Wrapping("CRI in Loki", jsonl(lambda line: logcli(CRI + line)), IN_NODE, TIME),
    Wrapping("CRI in JSON in CloudWatch", document(lambda lines: cloudwatch(in_agent(lines))), IN_NODE, MILLISECOND),
    Wrapping(
        "Docker in Elasticsearch",
        jsonl(lambda line: elastic_nested(json.dumps({"log": line + "\n", "stream": "stderr", "time": STAMP}))),
        IN_NODE,
        TIME,
    ),
    Wrapping("kubectl --prefix in stern", each(f"{POD} {CONTAINER} [pod/{POD}/{CONTAINER}] {STAMP} "), IN_POD, TIME),
    Wrapping("journald around CRI", each(f"Nov 23 03:03:31 {NODE} k3s[34223]: {CRI}"), IN_JOURNAL, TIME),
    Wrapping("journald json in CRI", lambda lines: each(CRI)(jsonl(journald)(lines).splitlines()), IN_JOURNAL, TIME),
)


def in_agent(lines: Iterable[str]) -> list[str]:
    return [json.dumps({"log": CRI + line, "kubernetes": KUBERNETES}) for line in lines]


KLOG = re.compile(rb'[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} |\{"ts":')


def bare(record: bytes) -> bytes:
    """The record without the layers that the example was found in."""
    match = KLOG.search(record)
    return record[match.start() :] if match else record
