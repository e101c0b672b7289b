"""Layers one by one: what each says of its line, and what is left alone because its shape does not fit."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdnsctl.logs.envelopes import encode, open_envelope, split_document
from kdnsctl.logs.framing import MOST_LAYERS, strip_ansi, unwrap
from tests.unit.logs.scanning import micro, scan
from tests.unit.logs.wrapping import CRI, NODE, POD, STAMP, TIME

KLOG = "I0606 16:49:46.155398       1 proxier.go:1] Syncing"


def dumps(**fields: object) -> bytes:
    return json.dumps(fields).encode()


# --- text layers


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        KLOG,
        "goroutine 1 [running]:",
        "udp      17 23 src=10.244.2.7 dst=10.96.0.10 sport=34152 dport=53",
        "\texit status 4: Another app is currently holding the xtables lock.",
        ' > ipFamily="IPv4"',
        "conntrack v1.4.5 (conntrack-tools): 1 flow entries have been deleted.",
        "-- Boot 8a1c0e7a3a5b4a0c9d5c0b6b3c1f2e4d --",
        "-- No entries --",
        "-- Logs begin at Mon 2026-11-23 02:00:00 UTC. --",
        "[pod/x] y",
        "[pod/x/y",
        "[ 1.2] host",
        "2026-11-23",
        "2026-11-23T03:03:31.238869880Zx",
        "Nov 23 03:03:31",
        "Nov 23 03:03:31 host no colon",
        "Error occurred: x",
        "{",
        "{}",
        "[]",
        '{"a":1}',
        '{"log":5}',
        '{"MESSAGE":[300]}',
        '{"MESSAGE":["x"]}',
        '{"MESSAGE":[true]}',
        '{"message":{"msg":"x"}}',
        '{"message":{"msg":1,"caller":"x"}}',
    ],
)
def test_what_is_no_layer_is_left_as_it_is(text: str) -> None:
    line = unwrap(text.encode())
    assert line.payload == text.encode()
    assert line.key == ("", "", "")
    assert (line.time, line.partial, line.interleaved) == (None, False, False)


@pytest.mark.parametrize(
    "text",
    [
        "Error occurred: iptables",
        "Bad argument: x",
        "INFO main: started",
        "iptables-restore v1.8.9: x",
        "",
    ],
)
def test_a_dated_line_that_only_looks_like_a_journal_is_a_dated_line(text: str) -> None:
    line = unwrap(f"{STAMP} {text}".encode())
    assert (line.payload, line.time, line.interleaved) == (text.encode(), TIME, False)


def test_a_dated_line_without_anything_behind_its_time_is_empty() -> None:
    assert (unwrap(STAMP.encode()).payload, unwrap(STAMP.encode()).time) == (b"", TIME)


@pytest.mark.parametrize("tag", ["F", "F:x=y", "F:"])
def test_cri_tags_are_taken(tag: str) -> None:
    line = unwrap(f"{STAMP} stderr {tag} {KLOG}".encode())
    assert (line.payload, line.time, line.partial, line.piece) == (KLOG.encode(), TIME, False, True)


@pytest.mark.parametrize("tag", ["P", "P:x=y"])
def test_a_cri_fragment_is_not_looked_into(tag: str) -> None:
    line = unwrap(f"{STAMP} stderr {tag} [pod/a/b] {STAMP} x".encode())
    assert (line.payload, line.partial) == (f"[pod/a/b] {STAMP} x".encode(), True)


def test_an_empty_cri_line_is_empty() -> None:
    assert unwrap(f"{STAMP} stdout F".encode()).payload == b""
    assert unwrap(f"{STAMP} stdout F ".encode()).payload == b""


@pytest.mark.parametrize("rest", ["stderr X y", "stdlog F y", "stderr"])
def test_what_is_nearly_cri_is_a_dated_line(rest: str) -> None:
    line = unwrap(f"{STAMP} {rest}".encode())
    assert (line.payload, line.time, line.piece) == (rest.encode(), TIME, False)


@pytest.mark.parametrize(
    ("text", "node", "process"),
    [
        (f"Nov 23 03:03:31 node-1.a k3s[34223]: {KLOG}", "node-1.a", "k3s"),
        (f"Nov  3 03:03:31 node1 kube-proxy: {KLOG}", "node1", "kube-proxy"),
        (f"Nov 23 03:03:31.238869 node1 k3s-agent[1]: {KLOG}", "node1", "k3s-agent"),
        (f"2026-11-23T03:03:31+0000 node1 kube-proxy: {KLOG}", "node1", "kube-proxy"),
        (
            f"2026-11-23T03:03:31+0000 node1 snap.microk8s.daemon-kubelite[1]: {KLOG}",
            "node1",
            "snap.microk8s.daemon-kubelite",
        ),
        (f"Mon 2026-11-23 03:03:31 UTC node1 user@1000[1]: {KLOG}", "node1", "user@1000"),
        (f"1795403011.238869 node1 k3s[1]: {KLOG}", "node1", "k3s"),
        (f"[    0.000001] node1 k3s[1]: {KLOG}", "node1", "k3s"),
        (f"[12345.000001] node1 k3s[1]: {KLOG}", "node1", "k3s"),
    ],
)
def test_a_journal_line_names_its_node_and_process(text: str, node: str, process: str) -> None:
    line = unwrap(text.encode())
    assert line.payload == KLOG.encode()
    assert line.key == (node, "", process)
    assert line.interleaved


def test_lines_of_a_block_in_the_journal_keep_their_indent() -> None:
    assert unwrap(b"Nov 23 03:03:31 node1 k3s[1]: \texit status 4").payload == b"\texit status 4"
    assert unwrap(b'Nov 23 03:03:31 node1 k3s[1]:  > ipFamily="IPv4"').payload == b' > ipFamily="IPv4"'


@pytest.mark.parametrize(
    ("prefix", "pod", "container"),
    [
        (f"{POD} kube-proxy ", POD, "kube-proxy"),
        (f"kube-system {POD} kube-proxy ", POD, "kube-proxy"),
        ("5d4b-x sdn ", "5d4b-x", "sdn"),
        (f"openshift-sdn sdn-x sdn {STAMP} ", "sdn-x", "sdn"),
        ("a b 11-23 03:03:31 ", "a", "b"),
        ("0a b ", "0a", "b"),
    ],
)
def test_stern_names_pod_and_container(prefix: str, pod: str, container: str) -> None:
    line = unwrap((prefix + KLOG).encode())
    assert (line.payload, line.key) == (KLOG.encode(), ("", pod, container))


def test_further_lines_of_a_record_are_stern_s_only_for_kube_proxy() -> None:
    assert unwrap(f"{POD} kube-proxy \texit status 4".encode()).payload == b"\texit status 4"
    assert unwrap(b"connection reset by peer").payload == b"connection reset by peer"


def test_layers_are_peeled_up_to_a_limit() -> None:
    text = f"[pod/{POD}/kube-proxy] " * (MOST_LAYERS + 2) + KLOG
    assert unwrap(text.encode()).payload == f"[pod/{POD}/kube-proxy] ".encode() * 2 + KLOG.encode()


def test_the_outermost_date_counts() -> None:
    assert unwrap(f"{STAMP} 2020-01-01T00:00:00Z {KLOG}".encode()).time == TIME
    inner = dumps(log=f"2020-01-01T00:00:00Z {KLOG}", time=STAMP)
    assert unwrap(inner).time == TIME


@given(st.binary(max_size=200))
@example(b"\x1b")
@example(b"\x1b[")
@example(b"\x1b]\x1b]\x07")
def test_stripping_leaves_no_sequence_and_no_bytes_are_added(text: bytes) -> None:
    stripped = strip_ansi(text)
    assert len(stripped) <= len(text)
    if b"\x1b" not in text:
        assert stripped == text


@pytest.mark.parametrize(
    "sequence",
    [
        "\x1b[m",
        "\x1b[0;1;31m",
        "\x1b[2K",
        "\x1b[?25h",
        "\x1b]0;title\x07",
        "\x1b]8;;x\x1b\\",
        "\x1b(B",
        "\x1b7",
        "\x1bc",
        "\x1bM",
    ],
)
def test_terminal_sequences_are_stripped_and_text_is_not(sequence: str) -> None:
    assert strip_ansi(f"a{sequence}b\n{sequence}c".encode()) == b"ab\nc"


# --- JSON layers


@pytest.mark.parametrize("key", ["MESSAGE", "log", "message", "textPayload", "line", "@message", "body"])
def test_the_line_is_found_by_the_name_of_its_field(key: str) -> None:
    envelope = open_envelope(dumps(**{key: KLOG + "\r\n", "x": 1}))
    assert envelope is not None
    assert envelope.text == KLOG.encode()
    assert not envelope.names_stream


@pytest.mark.parametrize("key", ["message", "log"])
def test_the_line_is_found_in_json_payload(key: str) -> None:
    for fields in ({"jsonPayload": {key: KLOG}}, {f"jsonPayload.{key}": KLOG}):
        envelope = open_envelope(json.dumps(fields).encode())
        assert envelope is not None
        assert envelope.text == KLOG.encode()


RECORD = {
    "ts": 1795403022716.3643,
    "caller": "conntrack/cleanup.go:58",
    "msg": "Failed to list conntrack entries",
    "err": "x",
}


@pytest.mark.parametrize("key", ["message", "log", "jsonPayload", "log_processed", "json", "body"])
def test_a_record_that_an_agent_has_parsed_is_put_together_again(key: str) -> None:
    text = json.dumps({key: RECORD, "podName": POD, "nodeName": NODE}).encode()
    ((signature, time, payload),) = scan(text + b"\n").hits
    assert (signature, time) == ("CT_LIST_FAIL", 1795403022716364)
    assert json.loads(payload) == RECORD
    line = unwrap(text)
    assert (line.node, line.pod) == (NODE, POD)


def nested(path: str, value: str) -> dict[str, object]:
    head, _, rest = path.partition(".")
    return (
        {head: nested(rest, value)}
        if rest and head in ("kubernetes", "resource", "labels", "node", "k8s")
        else {path: value}
    )


@pytest.mark.parametrize(
    ("path", "which"),
    [
        ("nodeName", "node"),
        ("kubernetes.node.name", "node"),
        ("kubernetes.host", "node"),
        ("kubernetes.node_name", "node"),
        ("k8s.node.name", "node"),
        ("resource.labels.node_name", "node"),
        ("labels.compute.googleapis.com/resource_name", "node"),
        ("labels.node", "node"),
        ("labels.node_name", "node"),
        ("labels.nodename", "node"),
        ("labels.hostname", "node"),
        ("labels.instance", "node"),
        ("node", "node"),
        ("_HOSTNAME", "node"),
        ("podName", "pod"),
        ("kubernetes.pod.name", "pod"),
        ("kubernetes.pod_name", "pod"),
        ("resource.labels.pod_name", "pod"),
        ("labels.pod", "pod"),
        ("pod", "pod"),
        ("containerName", "container"),
        ("kubernetes.container.name", "container"),
        ("kubernetes.container_name", "container"),
        ("labels.container", "container"),
        ("container_name", "container"),
        ("SYSLOG_IDENTIFIER", "process"),
        ("_COMM", "process"),
    ],
)
def test_names_are_found_nested_and_dotted(path: str, which: str) -> None:
    for fields in (nested(path, "name-1"), {path: "name-1"}):
        envelope = open_envelope(json.dumps({"message": KLOG, **fields}).encode())
        assert envelope is not None
        assert getattr(envelope, which) == "name-1"
        assert envelope.names_stream
        for odd in (5, None, ["x"], {"x": "y"}, ""):
            other = open_envelope(json.dumps({"message": KLOG, path: odd}).encode())
            assert other is not None
            assert getattr(other, which) == ""


def test_a_name_that_cannot_be_printed_is_made_printable() -> None:
    envelope = open_envelope(b'{"message":"x","nodeName":"a\\ud800b","podName":"\xff"}')
    assert envelope is not None
    assert envelope.node.encode() == b"a?b"
    assert envelope.pod.encode() == "\ufffd".encode()


@pytest.mark.parametrize(
    ("fields", "time"),
    [
        ({"time": STAMP}, TIME),
        ({"timestamp": STAMP}, TIME),
        ({"@timestamp": STAMP}, TIME),
        ({"timestamp": 1795403011238}, micro("2026-11-23T03:03:31.238")),
        ({"date": 1795403011.238869}, TIME),
        ({"date": "2026-11-23T03:03:31.238869Z"}, TIME),
        ({"timestamp": "1795403011238869880"}, TIME),
        ({"__REALTIME_TIMESTAMP": "1795403011238869"}, TIME),
        ({"@timestamp": "2026-11-23 03:03:31.238"}, micro("2026-11-23T03:03:31.238")),
        ({"time": "yesterday", "@timestamp": STAMP}, TIME),
        ({"time": True, "timestamp": STAMP}, TIME),
        ({"time": "", "timestamp": STAMP}, TIME),
        ({"time": "²"}, None),
        ({"time": "٣"}, None),
        ({"time": "9" * 30}, None),
        ({"time": -5}, None),
        ({"time": "\ud800"}, None),
        ({"time": "0001-01-01T00:00:00Z"}, None),
        ({}, None),
    ],
)
def test_the_time_of_an_envelope(fields: dict[str, object], time: int | None) -> None:
    envelope = open_envelope(json.dumps({"message": KLOG, **fields}).encode())
    assert envelope is not None
    assert envelope.time == time


HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("stream", "key"),
    [
        (
            f"{NODE}-dataplane.tail.var.log.containers.{POD}_kube-system_kube-proxy-{HASH}.log",
            (NODE, POD, "kube-proxy"),
        ),
        (f"{NODE}-application.var.log.containers.{POD}_kube-system_kube-proxy-{HASH}.log", (NODE, POD, "kube-proxy")),
        ("kube-proxy-abc", ("", "kube-proxy-abc", "")),
        ("", ("", "", "")),
    ],
)
@pytest.mark.parametrize("name", ["logStreamName", "@logStream", "logStream"])
def test_a_cloudwatch_stream_names_what_it_can(stream: str, key: tuple[str, str, str], name: str) -> None:
    assert unwrap(dumps(message=KLOG, **{name: stream})).key == key


def test_fields_go_before_the_name_of_a_stream() -> None:
    stream = f"{NODE}-dataplane.tail.var.log.containers.{POD}_kube-system_kube-proxy-{HASH}.log"
    assert unwrap(dumps(message=KLOG, logStreamName=stream, node="n", pod="p", container="c")).key == ("n", "p", "c")
    assert unwrap(dumps(message=KLOG, logStreamName="s", node="n")).key == ("n", "", "")


def test_alloys_instance_is_a_container_and_no_node() -> None:
    labels = {"instance": f"kube-system/{POD}:kube-proxy", "job": "loki.source.kubernetes.pods"}
    assert unwrap(dumps(labels=labels, line=KLOG)).key == ("", POD, "kube-proxy")
    assert unwrap(dumps(labels={"instance": "node-1:9100"}, line=KLOG)).key == ("node-1:9100", "", "")


@pytest.mark.parametrize(
    ("fields", "header"),
    [
        (
            {"severity": "ERROR", "sourceLocation": {"file": "proxier.go", "line": "758"}},
            "E0000 00:00:00.000000       1 proxier.go:758] ",
        ),
        (
            {"severity": "WARNING", "sourceLocation": {"file": "a/iptables.go"}},
            "W0000 00:00:00.000000       1 iptables.go:0] ",
        ),
        (
            {"severity": "CRITICAL", "jsonPayload": {"source": "proxier.go:7"}},
            "I0000 00:00:00.000000       1 proxier.go:7] ",
        ),
        ({"source": "proxier.go:7"}, "I0000 00:00:00.000000       1 proxier.go:7] "),
        ({"sourceLocation": {"file": "proxier.go", "line": "x"}}, "I0000 00:00:00.000000       1 proxier.go:0] "),
        ({"sourceLocation": {"file": "main.py", "line": "1"}}, ""),
        ({"source": "/var/log/containers/x.log"}, ""),
        ({}, ""),
    ],
)
def test_a_header_that_was_taken_off_is_put_back(fields: dict[str, object], header: str) -> None:
    message = '"Failed to list conntrack entries" err="x"'
    envelope = open_envelope(json.dumps({"message": message, **fields}).encode())
    assert envelope is not None
    assert envelope.text.decode() == header + message
    for whole in (KLOG, '{"ts":1}'):
        envelope = open_envelope(json.dumps({"message": whole, **fields}).encode())
        assert envelope is not None
        assert envelope.text.decode() == whole


def test_a_header_put_back_makes_up_no_time() -> None:
    text = dumps(
        severity="ERROR",
        sourceLocation={"file": "cleanup.go", "line": "58"},
        message='"Failed to list conntrack entries" err="x"',
    )
    ((signature, time, _),) = scan(text).hits
    assert (signature, time) == ("CT_LIST_FAIL", None)


def test_docker_s_pieces_are_told_from_whole_lines() -> None:
    for log, partial in ((KLOG, True), (KLOG + "\n", False)):
        for extra in ({}, {"attrs": {"tag": "x"}}):
            envelope = open_envelope(dumps(log=log, stream="stderr", time=STAMP, **extra))
            assert envelope is not None
            assert (envelope.partial, envelope.piece) == (partial, True)
    for fields in ({"log": KLOG, "time": STAMP}, {"log": KLOG, "stream": "stderr", "kubernetes": {}}):
        envelope = open_envelope(json.dumps(fields).encode())
        assert envelope is not None
        assert (envelope.partial, envelope.piece) == (False, False)


def test_records_of_docker_shape_without_newlines_are_not_glued_together() -> None:
    failure = 'E0515 23:23:01.196425       1 cleanup.go:53] "Failed to list conntrack entries" err="x"'
    text = dumps(log=failure, stream="stderr", time=STAMP) + b"\n"
    assert scan(text * 4).ids == ["CT_LIST_FAIL"] * 4


# --- documents


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"5",
        b'"x"',
        b"{}",
        b'{"a":[]}',
        b'{"hits":5}',
        b'{"hits":{"hits":5}}',
        b'{"data":{"result":5}}',
        b'{"events":5}',
        b"[" * 100_000,
    ],
    ids=lambda document: document[:20].decode(),
)
def test_what_is_no_document_of_lines_is_not_split(document: bytes) -> None:
    assert split_document(document) is None


@pytest.mark.parametrize(
    ("document", "lines"),
    [
        (b"[]", []),
        (b'[{"a":1},5,"x",{"b":2}]', [{"a": 1}, {"b": 2}]),
        (b'{"events":[{"message":"x"},5]}', [{"message": "x"}]),
        (b'{"results":[[{"field":"@message","value":"x"},5],7,[]]}', [{"@message": "x"}, {}]),
        (b'{"hits":{"hits":[{"_source":{"message":"x"}}]}}', [{"_source": {"message": "x"}}]),
        (
            b'{"data":{"result":[{"stream":{"a":"b"},"values":[["1","x"],["2","y",{}],["3"],5]},7,{"values":5},{"values":[["4","z"]]}]}}',
            [
                {"labels": {"a": "b"}, "timestamp": "1", "line": "x"},
                {"labels": {"a": "b"}, "timestamp": "2", "line": "y"},
                {"labels": {}, "timestamp": "4", "line": "z"},
            ],
        ),
        (b'[{"message":"\xff"}]', [{"message": "\ufffd"}]),
        (b'[{"message":"a\x01b"}]', [{"message": "a\x01b"}]),
        (b'[{"message":"\\ud800"}]', [{"message": "\ud800"}]),
        (b'[{"n":' + b"9" * 100 + b"}]", [{"n": int("9" * 100)}]),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, bytes) else "",
)
def test_a_document_is_split_into_its_objects(document: bytes, lines: list[object]) -> None:
    found = split_document(document)
    assert found is not None
    written = list(found)
    assert [json.loads(line) for line in written] == lines
    assert all(b"\n" not in line for line in written)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "events",
                        "results",
                        "hits",
                        "data",
                        "result",
                        "values",
                        "stream",
                        "message",
                        "log",
                        "time",
                        "labels",
                        "_source",
                    ]
                )
                | st.text(max_size=3),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_no_json_makes_the_readers_raise(value: object) -> None:
    data = json.dumps(value).encode()
    open_envelope(data)
    for line in split_document(data) or ():
        assert unwrap(line).payload is not None
    assert json.loads(encode(value)) == value


def test_elasticsearch_s_source_is_looked_into_once_per_level() -> None:
    envelope = open_envelope(dumps(_source={"message": KLOG, "kubernetes": {"node": {"name": NODE}}}, _index="x"))
    assert envelope is not None
    assert (envelope.text.decode(), envelope.node) == (KLOG, NODE)
    assert open_envelope(dumps(_source={})) is None


def test_cri_in_an_envelope_keeps_the_names_of_the_envelope() -> None:
    line = unwrap(dumps(log=CRI + KLOG, kubernetes={"pod_name": POD, "host": NODE, "container_name": "kube-proxy"}))
    assert (line.payload.decode(), line.key, line.time) == (KLOG, (NODE, POD, "kube-proxy"), TIME)


def test_two_records_without_a_header_differ_by_the_entrys_time() -> None:
    fields = {"textPayload": '"Sync failed" retryingTime="30s"', "sourceLocation": {"file": "proxier.go", "line": "7"}}
    texts = []
    for day in (6, 7):
        envelope = open_envelope(json.dumps({**fields, "timestamp": f"2026-06-0{day}T10:00:00.123456789Z"}).encode())
        assert envelope is not None
        texts.append(envelope.text.partition(b"]")[0])
    assert texts == [f"I060{day} 10:00:00.123456       1 proxier.go:7".encode() for day in (6, 7)]


def test_dockers_journald_driver_names_pod_and_container() -> None:
    envelope = open_envelope(
        json.dumps(
            {
                "MESSAGE": "x",
                "_HOSTNAME": "n1",
                "CONTAINER_NAME": "k8s_kube-proxy_kube-proxy-x7x2p_kube-system_0a1b-2c_0",
                "SYSLOG_IDENTIFIER": "0123456789ab",
                "_COMM": "dockerd",
            }
        ).encode()
    )
    assert envelope is not None
    assert (envelope.node, envelope.pod, envelope.container) == ("n1", "kube-proxy-x7x2p", "kube-proxy")
    assert envelope.process == ""
