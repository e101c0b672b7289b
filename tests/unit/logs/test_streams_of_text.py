"""Streams that hold nothing but text: an error message of whoever was asked for the log."""

import pytest

from kdnsctl.logs.framing import Line
from kdnsctl.logs.klog import TextClock
from kdnsctl.logs.scan import Scanner
from kdnsctl.logs.sinks import StreamKey
from kdnsctl.logs.tally import LONGEST_TEXT, Tally
from tests.unit.logs.scanning import WRITTEN

RECORD = 'I0606 10:00:00.000000       1 server.go:872] "Version info" version="v1.30.3"'
REFUSAL = "unable to retrieve container logs for containerd://abc"


class Tallies:
    """A sink of tallies."""

    def __init__(self) -> None:
        self.tallies: dict[StreamKey, Tally] = {}

    def stream(self, key: StreamKey, line: Line | None) -> Tally:
        assert line is None or line.key == key
        return self.tallies.setdefault(key, Tally())


def tally(*lines: str) -> dict[str, Tally]:
    tallies = Tallies()
    scanner = Scanner(tallies, TextClock(WRITTEN))
    scanner.feed("".join(f"{line}\n" for line in lines).encode())
    scanner.finish()
    return {pod: tally for (_, pod, _), tally in tallies.tallies.items()}


WRAPPINGS = {
    "--prefix": "[pod/kube-proxy-{0}/kube-proxy] {1}",
    "--prefix --timestamps": "[pod/kube-proxy-{0}/kube-proxy] 2026-06-06T10:00:00.0Z {1}",
    "stern": "kube-proxy-{0} kube-proxy {1}",
}


@pytest.mark.parametrize("wrapping", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize("text_first", [True, False])
def test_a_stream_of_text_alone_is_there_and_says_what_it_holds(wrapping: str, text_first: bool) -> None:
    lines = [wrapping.format("a", RECORD)] * 3 + [wrapping.format("b", REFUSAL)] * 3
    found = tally(*(reversed(lines) if text_first else lines))
    assert {pod: (one.records, one.first_text) for pod, one in found.items()} == {
        "kube-proxy-a": (True, ""),
        "kube-proxy-b": (False, REFUSAL),
    }


def test_a_stream_has_records_when_any_line_is_one() -> None:
    wrapping = WRAPPINGS["--prefix"]
    lines = [wrapping.format("a", REFUSAL), *[wrapping.format("b", REFUSAL)] * 3, wrapping.format("a", RECORD)]
    found = tally(*lines)
    assert (found["kube-proxy-a"].records, found["kube-proxy-b"].records) == (True, False)


def test_of_a_long_text_only_the_beginning_is_kept() -> None:
    found = tally(WRAPPINGS["--prefix"].format("a", "x" * 1_000_000))
    assert found["kube-proxy-a"].first_text == "x" * LONGEST_TEXT
    assert not found["kube-proxy-a"].records


def test_a_merged_tally_has_records_when_either_had() -> None:
    one, other = Tally(), Tally()
    one.text(REFUSAL.encode())
    other.seen(1, "x.go")
    one.merge(other)
    assert (one.records, one.first_text) == (True, REFUSAL)
