"""Failures behind prefixes that are not known, and failures that can only be guessed at."""

import pytest

from tests.unit.logs.scanning import micro, scan
from tests.unit.logs.test_near_misses import DELETE_ERR, OTHERS, klog

FAILURE = klog(
    "cleanup.go:99", f'"Failed to delete endpoint connections" err="{DELETE_ERR}" servicePortName="kube-system/dns:dns"'
)
JSON_FAILURE = (
    '{"ts":1795400883132.6384,"caller":"conntrack/cleanup.go:99","msg":"Failed to delete endpoint connections",'
    '"servicePortName":"kube-system/dns:dns","err":"exit status 1"}'
)
GUESS = "a failure in a form that is not understood"

PREFIXES = {
    "RFC 5424": "<11>1 2026-06-06T11:00:00.0Z n1 kube-proxy 1 - - ",
    "RFC 5424 with data": '<11>1 2026-06-06T11:00:00.0Z n1 kube-proxy 1 - [meta sequenceId="1"] ',
    "RFC 3164": "<11>Jun  6 11:00:00 n1 kube-proxy[1]: ",
    "compose": "kube-proxy-x  | ",
    "time and name": "10:00:00.1 kube-proxy-x | ",
    "pdsh": "node1: ",
    "logfmt": "ts=2026-06-06T11:00:00Z line=",
    "NUL bytes": "\0" * 4096,
    "half a record": "I0606 16:49:45.155398       1 proxier.go:7",
    "half a record and NUL bytes": "I0606 16:49:45.155398       1 proxier.go:7" + "\0" * 99,
}


@pytest.mark.parametrize("record", [FAILURE, JSON_FAILURE], ids=["text", "JSON"])
@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_a_failure_behind_an_unknown_prefix_is_a_failure(prefix: str, record: str) -> None:
    found = scan((prefix + record + "\n").encode())
    assert [(signature, payload) for signature, _, payload in found.hits] == [("CT_DEL_ENDPOINT", record.encode())]
    assert found.cuts == []
    assert found.klog_records


def test_it_has_the_time_that_its_own_header_says() -> None:
    ((_, time, _),) = scan((PREFIXES["compose"] + FAILURE + "\n").encode()).hits
    assert time == micro("2026-06-06 16:49:46.155398")


def test_what_stands_between_such_lines_is_read_as_ever() -> None:
    lines = [FAILURE, PREFIXES["compose"] + FAILURE, "\0\0" + FAILURE, PREFIXES["RFC 5424"] + FAILURE, FAILURE]
    assert scan("".join(line + "\n" for line in lines).encode()).ids == ["CT_DEL_ENDPOINT"] * 5


def test_a_block_behind_a_prefix_holds_back_nothing_that_follows() -> None:
    block = klog("cleanup.go:99", '"Failed to delete endpoint connections" err=<')
    lines = [block, "\tx", " >", FAILURE]
    assert scan("".join(f"kube-proxy-x | {line}\n" for line in lines).encode()).ids == ["CT_DEL_ENDPOINT"] * 2


UNCLEAR = {
    "a record inside another's JSON": f'{{"data":"{klog("cleanup.go:99", "Failed to delete endpoint connections")}"}}',
    "a record quoted": f'retried: "{FAILURE}"',
    "behind words": f"saw: {FAILURE}",
    "behind a long prefix": "1" * 2_000 + FAILURE,
    "without a header": f'"Failed to delete endpoint connections" err="{DELETE_ERR}"',
    "without a header, old": f"Failed to delete kube-system/kube-dns:dns endpoint connections, error: {DELETE_ERR}",
    "half a header": FAILURE[6:],
    "another time": FAILURE.replace("E0606 16:49:46.155398", "2026/06/06 16:49:46"),
    "JSON with another time": JSON_FAILURE.replace("1795400883132.6384", '"2026-06-06T11:00:00Z"'),
    "JSON broken": JSON_FAILURE.replace('{"ts"', '{"ts"":'),
}


@pytest.mark.parametrize("line", UNCLEAR.values(), ids=UNCLEAR)
def test_what_can_be_a_failure_and_cannot_be_read_is_told(line: str) -> None:
    found = scan((line + "\n").encode())
    assert (found.ids, found.cuts) == ([], [GUESS])


CLEARLY_NONE = [
    name for name in OTHERS if name.startswith(("kubelet", "other", "configuration", "quoted in", "longer"))
]


@pytest.mark.parametrize("name", [*CLEARLY_NONE, "CoreDNS", "shell", "shell history", "kubectl event", "cilium JSON"])
def test_what_is_certainly_none_is_not_guessed_at(name: str) -> None:
    for prefix in ("", "kube-proxy-x | "):
        found = scan((prefix + OTHERS[name] + "\n").encode())
        assert (found.ids, found.cuts) == ([], [])


DONE = 'I0606 12:00:00.000000       1 proxier.go:799] "SyncProxyRules complete" elapsed="1.2s"'
OLD = "I0606 12:00:00.000000       1 proxier.go:799] syncProxyRules took 1.2s"
DOCKER = '{"log":"I0606 12:00:00.000000       1 x.go:1] x\\n","stream":"stderr","time":"2026-06-06T12:00:00.0Z"}'
BROKEN_OFF = "the last line ends in the middle of a record"


WHOLE_TOO = {FAILURE.index('" err') + 1, FAILURE.index('" service') + 1}
"""Where a record may as well be over: behind its message, and behind a value."""
ENDS = sorted({*range(1, len(FAILURE))} - WHOLE_TOO)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("prefix", ["", "[pod/kube-proxy-a/kube-proxy] ", "2026-06-06T12:00:00.123456789Z "])
def test_a_log_that_ends_inside_a_record_is_cut(prefix: str, end: int) -> None:
    assert scan(f"{prefix}{DONE}\n{prefix}{FAILURE[:end]}".encode()).cuts == [BROKEN_OFF]


@pytest.mark.parametrize("line", [DOCKER, JSON_FAILURE], ids=["Docker", "klog JSON"])
def test_json_that_ends_inside_is_cut(line: str) -> None:
    for end in range(1, len(line)):
        assert BROKEN_OFF in scan(f"{line}\n{line[:end]}".encode()).cuts, line[:end]
    assert scan(f"{line}\n{line}".encode()).cuts == []


def test_a_cri_line_without_its_newline_is_cut_wherever_it_ends() -> None:
    assert scan(f"2026-06-06T12:00:00.123456789Z stderr F {DONE}".encode()).cuts == [BROKEN_OFF]


@pytest.mark.parametrize(
    "line", [DONE, OLD, FAILURE, "Error from server", "{}", DONE + " peers=[a b]", "", "Wednesday"]
)
def test_a_whole_last_line_needs_no_newline(line: str) -> None:
    assert scan(f"{DONE}\n{line}".encode()).cuts == []
