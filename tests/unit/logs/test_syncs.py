"""The ends of syncs, counted by the block and one by one: the two say the same of any log."""

import itertools
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from kdnsctl.logs.framing import Line
from kdnsctl.logs.klog import TextClock
from kdnsctl.logs.scan import Scanner
from kdnsctl.logs.sinks import StreamKey
from kdnsctl.logs.sources.repeats import MarkedTally
from kdnsctl.logs.syncs import syncs_in
from kdnsctl.logs.times import rfc3339
from tests.unit.logs.scanning import WRITTEN

KLOG = b"I1123 03:02:40.880272       1 proxier.go:799] "
SYNC = KLOG + b'"SyncProxyRules complete" elapsed="37.556645ms"'
STAMPS = [
    b"2026-11-23T03:%02d:31.%09dZ " % (minute, fraction) for minute in (2, 3, 59) for fraction in (0, 7, 238869880)
]
OLD_FAILURE = b"E1123 03:02:40.880272       1 proxier.go:799] Failed to execute iptables-restore: exit status 1 (x"
BLOCK = b'E1123 03:02:40.880272       1 proxier.go:799] "Failed to delete endpoint connections" err=<'
PAYLOADS = [
    *[SYNC] * 6,
    KLOG + b'"SyncProxyRules complete" ipFamily="IPv4" elapsed="1s"',
    KLOG + b'"SyncProxyRules complete" elapsed="1s" more',
    KLOG + b'"syncProxyRules complete" elapsed="1s"',
    KLOG + b'"Syncing iptables rules"',
    SYNC.replace(b"proxier.go", b"other.go"),
    SYNC.replace(b"I1123", b"I1399"),
    SYNC + b"\r",
    SYNC + b" <",
    BLOCK,
    b"\tsyntax error",
    b" >",
    OLD_FAILURE,
    b")",
    b"",
    b"conntrack v1.4.4",
]
ODD_STAMPS = [
    b"",
    b"2026-11-23T03:02:31.23Z ",
    b"2026-02-30T03:02:31.238869880Z ",
    b"1969-11-23T03:02:31.238869880Z ",
    b"2026-11-23T03:02:31.238869880Z stderr F ",
    b"2026-11-23T03:02:31.238869880Z stderr P ",
    b"[pod/kube-proxy-x/kube-proxy] ",
]
LINES = st.tuples(st.sampled_from([*STAMPS, *STAMPS, *ODD_STAMPS]), st.sampled_from(PAYLOADS)).map(b"".join)


class Everything:
    """One tally for all streams."""

    def __init__(self, tally: MarkedTally) -> None:
        self.tally = tally

    def stream(self, key: StreamKey, line: Line | None) -> MarkedTally:  # noqa: ARG002 - the protocol's
        return self.tally


def told(chunks: list[bytes], since: int | None, *, at_once: bool) -> dict[str, Any]:
    """All that a tally says in the end."""
    tally = MarkedTally(since=since)
    scanner = Scanner(Everything(tally), TextClock(WRITTEN), at_once=at_once)
    for chunk in chunks:
        scanner.feed(chunk)
    scanner.finish()
    tally.settle()
    counts = {name: (count.count, count.first, count.last) for name, count in tally.counts.items()}
    fields = ("peers", "causes", "starts", "first", "last", "ours", "records", "logs_syncs", "cuts", "first_text")
    wording = (tally.oldest_possible, tally.newest_possible)
    return {"counts": counts, "wording": wording, **{name: getattr(tally, name) for name in fields}}


@given(
    st.lists(LINES, max_size=30),
    st.lists(st.integers(0, 3000), max_size=4),
    st.sampled_from([None, *map(rfc3339, (stamp[:-1] for stamp in STAMPS))]),
)
@example([STAMPS[0] + SYNC, STAMPS[8] + SYNC], [], rfc3339(STAMPS[4][:-1]))
@example([STAMPS[0] + BLOCK, STAMPS[0] + SYNC, STAMPS[1] + SYNC], [], None)
@example([STAMPS[0] + OLD_FAILURE, STAMPS[0] + SYNC], [130], None)
@example([ODD_STAMPS[5], STAMPS[0] + SYNC], [], None)
def test_by_the_block_and_one_by_one_the_tally_is_the_same(
    lines: list[bytes], cuts: list[int], since: int | None
) -> None:
    text = b"\n".join(lines)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[begin:end] for begin, end in itertools.pairwise(edges)]
    assert told(chunks, since, at_once=True) == told(chunks, since, at_once=False)


def test_of_what_is_counted_the_header_is_left() -> None:
    first, other, last = STAMPS[5] + SYNC, STAMPS[4] + KLOG + b'"Syncing iptables rules"', STAMPS[0] + SYNC
    syncs = syncs_in(b"\n".join([first, other, last, b""]))
    assert syncs is not None
    assert (syncs.count, syncs.payload) == (2, SYNC)
    assert (syncs.first, syncs.last) == (rfc3339(STAMPS[0][:-1]), rfc3339(STAMPS[5][:-1]))
    assert syncs.rest == b"\n".join([STAMPS[5] + KLOG, other, STAMPS[0] + KLOG, b""])


def test_what_is_no_moment_is_left_to_the_scan() -> None:
    assert syncs_in(b"2026-02-30T03:02:31.238869880Z " + SYNC + b"\n") is None
    assert syncs_in(b"2026-11-23T03:02:31.23Z " + SYNC + b"\n") is None


def test_what_only_looks_like_a_header_is_left_to_the_scan() -> None:
    header = b"2026-11-23T03:02:31.238869880Z "
    assert syncs_in(header + SYNC + b"\n") is not None
    for damaged in (header.replace(b"T", b"t"), header.replace(b"Z", b"x"), b"x" * 30 + b" "):
        assert syncs_in(header + SYNC + b"\n" + damaged + SYNC + b"\n") is None


def test_headers_of_several_widths_are_counted() -> None:
    header = b"2026-11-23T03:02:31.238869880Z "
    other = header + SYNC.replace(b"proxier.go:", b"proxier.go:1")
    found = syncs_in(header + SYNC + b"\n" + other + b"\n")
    assert found is not None
    assert (found.count, found.payload) == (2, SYNC)
