"""Lines made to cost time: each is read in time that grows with its length, so a long one ends within the test."""

import json

from kdnsctl.logs.details import endpoints_of
from kdnsctl.logs.envelopes import open_envelope
from kdnsctl.logs.framing import unwrap

LONG = 1_000_000


def test_a_name_that_begins_like_a_container_without_end() -> None:
    line = b"a b " + b"kube-proxy" * (LONG // 10) + b"!"
    assert unwrap(line).payload == line
    assert unwrap(b"a" * LONG).pod == ""


def test_names_of_the_longest_kind_are_still_read() -> None:
    pod, container = b"p" * 253, b"my-kube-proxy-" + b"c" * 200
    line = unwrap(pod + b" " + container + b" further text")
    assert (line.pod, line.container) == (pod.decode(), container.decode())
    assert unwrap(b"p" * 254 + b" kube-proxy text").pod == ""


def test_lists_of_endpoints_that_never_end() -> None:
    assert endpoints_of(b'Setting endpoints for "a/b:c"' + b" to [" * (LONG // 5)) == b""


def test_a_list_of_ipv6_endpoints_is_taken_whole() -> None:
    endpoints = b'["[fd00::1]:53" "[fd00::2]:53"]'
    assert (
        endpoints_of(b'"Setting endpoints for service port name" portName="a/b:c" endpoints=' + endpoints) == endpoints
    )


def test_a_stream_name_of_container_insights_repeated_without_end() -> None:
    for name in (
        "-application.var.log.containers." * (LONG // 32),
        "n-application.var.log.containers.p_n_" + "-a" * LONG,
    ):
        envelope = open_envelope(json.dumps({"log": "x", "logStream": name}).encode())
        assert envelope is not None
        assert envelope.container == ""
