"""Records of more than one line: klog's blocks, raw newlines of old releases, and what comes instead of their end."""

import pytest

from kdnsctl.logs.details import details_of
from kdnsctl.logs.scan import EDGE_LINES, MOST_LINE, MOST_OPEN_LINES
from tests.unit.logs.scanning import OWN, micro, scan
from tests.unit.logs.wrapping import CRI, TIME

HEAD = b'E0606 16:49:46.155398       1 proxier.go:1579] "Failed to execute iptables-restore" err=<'
INSIDE = b"\texit status 4: Another app is currently holding the xtables lock. Stopped waiting after 5s."
END = b' > ipFamily="IPv4"'
BLOCK = b"\n".join([HEAD, INSIDE, END])
NEXT = b'I0606 16:49:47.000000       1 proxier.go:822] "SyncProxyRules complete" ipFamily="IPv4" elapsed="1s"'
AT = micro("2026-06-06T16:49:46.155398")
THEN = micro("2026-06-06T16:49:47")
EARLY = ["a record that ends too early"]


def lines(*parts: bytes) -> bytes:
    return b"".join(part + b"\n" for part in parts)


def test_a_block_is_one_record_with_its_lines() -> None:
    found = scan(lines(BLOCK, NEXT))
    assert found.hits == [("IPT_RESTORE_FAIL", AT, BLOCK), ("SYNC_DONE", THEN, NEXT)]
    assert found.cuts == []


@pytest.mark.parametrize("repetitions", [1, 2, 3])
def test_a_block_cut_by_a_new_header_is_counted_and_reported(repetitions: int) -> None:
    found = scan(lines(HEAD, INSIDE, NEXT) * repetitions)
    assert found.ids == ["IPT_RESTORE_FAIL", "SYNC_DONE"] * repetitions
    assert found.hits[0] == ("IPT_RESTORE_FAIL", AT, HEAD + b"\n" + INSIDE)
    assert found.cuts == EARLY * repetitions


def test_a_block_cut_by_a_new_block_is_counted_twice() -> None:
    found = scan(lines(HEAD, INSIDE, BLOCK, NEXT))
    assert found.ids == ["IPT_RESTORE_FAIL", "IPT_RESTORE_FAIL", "SYNC_DONE"]
    assert found.cuts == EARLY


@pytest.mark.parametrize("text", [lines(HEAD), lines(HEAD, INSIDE), HEAD, HEAD + b"\n\tpart of a li"])
def test_a_block_that_ends_with_the_log_is_counted_and_reported(text: bytes) -> None:
    found = scan(text)
    assert found.hits == [("IPT_RESTORE_FAIL", AT, text.rstrip(b"\n"))]
    assert found.cuts == EARLY


@pytest.mark.parametrize("chunk", [100, 10_000, 1 << 20])
def test_a_block_without_end_is_taken_as_it_is_and_the_next_record_is_found(chunk: int) -> None:
    found = scan(lines(NEXT, HEAD, *[INSIDE] * (2 * MOST_OPEN_LINES), NEXT), chunk=chunk)
    assert found.ids == ["SYNC_DONE", "IPT_RESTORE_FAIL", "SYNC_DONE"]
    assert MOST_OPEN_LINES <= found.hits[1][2].count(b"\n") + 1 <= MOST_OPEN_LINES + 2
    assert found.cuts == EARLY


def test_a_block_whose_stamp_is_no_moment_is_a_record_without_a_time() -> None:
    block = BLOCK.replace(b"E0606", b"E0000")
    found = scan(lines(BLOCK, block, block, NEXT))
    assert found.hits == [
        ("IPT_RESTORE_FAIL", AT, BLOCK),
        *[("IPT_RESTORE_FAIL", None, block)] * 2,
        ("SYNC_DONE", THEN, NEXT),
    ]


def test_an_empty_block_is_a_record() -> None:
    assert scan(lines(HEAD, END)).hits == [("IPT_RESTORE_FAIL", AT, HEAD + b"\n" + END)]


def test_a_block_with_empty_lines_is_whole() -> None:
    block = b"\n".join([HEAD, b"\t", b"", INSIDE, END])
    found = scan(lines(block, NEXT))
    assert found.hits == [("IPT_RESTORE_FAIL", AT, block), ("SYNC_DONE", THEN, NEXT)]
    assert found.cuts == []


def test_a_second_block_in_one_record_does_not_hide_the_next_record() -> None:
    # klog prints each value with newlines as its own block; the record goes on behind the first end.
    record = lines(HEAD, INSIDE, b" > output=<", b"\tmore", b' > ipFamily="IPv4"', NEXT)
    assert scan(record).ids == ["IPT_RESTORE_FAIL", "SYNC_DONE"]


def test_a_block_in_windows_line_ends_is_the_same_record() -> None:
    found = scan(lines(BLOCK, NEXT, BLOCK, NEXT).replace(b"\n", b"\r\n"))
    assert found.hits == [("IPT_RESTORE_FAIL", AT, BLOCK), ("SYNC_DONE", THEN, NEXT)] * 2
    assert found.cuts == []


def test_blocks_of_interleaved_streams_are_kept_apart() -> None:
    a, b = b"[pod/kube-proxy-a/kube-proxy] ", b"[pod/kube-proxy-b/kube-proxy] "
    inside_b = b"\texit status 1: iptables-restore: line 5 failed"
    text = lines(a + HEAD, b + HEAD, a + INSIDE, b + inside_b, b + END, b + NEXT, a + END, a + NEXT)
    found = scan(text)
    assert found.streams["", "kube-proxy-a", "kube-proxy"].hits == [
        ("IPT_RESTORE_FAIL", AT, BLOCK),
        ("SYNC_DONE", THEN, NEXT),
    ]
    assert found.streams["", "kube-proxy-b", "kube-proxy"].hits == [
        ("IPT_RESTORE_FAIL", AT, b"\n".join([HEAD, inside_b, END])),
        ("SYNC_DONE", THEN, NEXT),
    ]
    assert found.cuts == []


def test_a_block_cut_in_one_stream_does_not_disturb_the_others() -> None:
    a, b = b"kube-proxy-a kube-proxy ", b"kube-proxy-b kube-proxy "
    found = scan(lines(a + HEAD, b + HEAD, b + INSIDE, a + NEXT, b + END))
    assert found.streams["", "kube-proxy-a", "kube-proxy"].cuts == EARLY
    assert found.streams["", "kube-proxy-b", "kube-proxy"].cuts == []
    assert found.streams["", "kube-proxy-b", "kube-proxy"].hits == [("IPT_RESTORE_FAIL", AT, BLOCK)]


def test_a_stream_that_falls_silent_in_a_block_is_given_up_after_a_while() -> None:
    a, b = b"kube-proxy-a kube-proxy ", b"kube-proxy-b kube-proxy "
    text = lines(a + HEAD, *[b + NEXT] * (MOST_OPEN_LINES + 10), a + NEXT)
    found = scan(text)
    assert found.streams["", "kube-proxy-a", "kube-proxy"].hits == [
        ("IPT_RESTORE_FAIL", AT, HEAD),
        ("SYNC_DONE", THEN, NEXT),
    ]
    assert len(found.streams["", "kube-proxy-b", "kube-proxy"].hits) == MOST_OPEN_LINES + 10


OLD = (
    b"E1011 06:24:00.823099       1 proxier.go:1429] Failed to execute iptables-restore: exit status 4 (Another app is"
)
OLD_AT = micro("2026-10-11T06:24:00.823099")


@pytest.mark.parametrize(
    "rest",
    [
        [b"currently holding the xtables lock. Perhaps you want to use the -w option?", b")"],
        [b"currently holding the xtables lock (waited 5s", b"in vain)", b""],
        [b")"],
    ],
)
def test_an_old_error_with_raw_newlines_is_one_record(rest: list[bytes]) -> None:
    for repetitions in (1, 3):
        found = scan(lines(OLD, *rest, NEXT) * repetitions)
        assert found.ids == ["IPT_RESTORE_FAIL", "SYNC_DONE"] * repetitions
        assert found.hits[0][:2] == ("IPT_RESTORE_FAIL", OLD_AT)
        assert found.hits[0][2] == b"\n".join([OLD, *rest]).rstrip(b"\n")
        assert found.cuts == []


def test_the_cause_of_an_old_error_may_stand_on_its_next_line() -> None:
    ((_, _, payload),) = scan(lines(OLD, b"Another app is currently holding the xtables lock.", b")")).hits
    assert details_of(payload).cause == "xtablesLock"


def test_an_old_error_without_its_end_stops_at_the_next_header_or_an_empty_line() -> None:
    assert scan(lines(OLD, b"and so on", NEXT)).hits == [
        ("IPT_RESTORE_FAIL", OLD_AT, OLD + b"\nand so on"),
        ("SYNC_DONE", THEN, NEXT),
    ]
    assert scan(lines(OLD, b"and so on", b"", b"of another", NEXT)).hits == [
        ("IPT_RESTORE_FAIL", OLD_AT, OLD + b"\nand so on"),
        ("SYNC_DONE", THEN, NEXT),
    ]
    assert scan(lines(OLD, b"and so on")).cuts == EARLY


def test_an_old_error_without_parentheses_is_its_first_line() -> None:
    old = (
        b"E1011 06:24:00.823099       1 proxier.go:732] Failed to ensure that nat chain KUBE-X exists: exit status 3: a"
    )
    found = scan(lines(old, b"Try `iptables -h' or 'iptables --help' for more information.", NEXT))
    assert found.hits == [("IPT_CHAIN_FAIL", OLD_AT, old), ("SYNC_DONE", THEN, NEXT)]


def test_headerless_output_of_a_deletion_is_passed_over_and_hides_nothing() -> None:
    out = b"I0815 12:15:14.624700       1 conntrack.go:71] Conntrack entries deleted udp      17 23 src=10.244.2.7 x"
    entry = b"udp      17 23 src=10.244.2.8 dst=10.96.0.10 sport=34152 dport=53 [UNREPLIED] src=10.244.1.5 use=1"
    tail = b"conntrack v1.4.5 (conntrack-tools): 3 flow entries have been deleted."
    found = scan(lines(out, entry, entry, tail, NEXT))
    assert found.hits == [("V4_CT_OUT", micro("2026-08-15T12:15:14.624700"), out), ("SYNC_DONE", THEN, NEXT)]
    assert found.cuts == []


@pytest.mark.parametrize("chunk", [1000, 1 << 20])
def test_a_log_that_ends_in_much_headerless_output_still_covers_its_last_record(chunk: int) -> None:
    first = b"I0815 12:15:14.000000       1 proxier.go:1] Syncing"
    out = b"I0815 12:15:15.000000       1 conntrack.go:71] Running"
    text = lines(first, out, *[b"udp      17 23 src=10.244.2.8 dst=10.96.0.10"] * (20 * EDGE_LINES))
    assert scan(text, chunk=chunk).one.span == (micro("2026-08-15T12:15:14"), micro("2026-08-15T12:15:15"))


def test_a_fragment_whose_rest_was_lost_does_not_swallow_the_next_record() -> None:
    start = (
        CRI.replace(" F ", " P ").encode()
        + b'E0606 16:49:46.155398       1 cleanup.go:53] "Failed to list conntrack ent'
    )
    whole = CRI.encode() + NEXT
    found = scan(lines(start, whole))
    assert found.hits == [("SYNC_DONE", TIME, NEXT)]
    assert found.cuts == EARLY


def test_the_rest_of_a_lost_fragment_at_the_beginning_is_no_record() -> None:
    rest = CRI.encode() + b'"Failed to list conntrack entries" err="x"'
    found = scan(lines(rest, CRI.encode() + NEXT))
    assert found.hits == [("SYNC_DONE", TIME, NEXT)]
    assert found.cuts == ["a failure in a form that is not understood"]


def test_a_fragment_that_never_ends_is_taken_as_it_is() -> None:
    start = CRI.replace(" F ", " P ").encode()
    text = lines(start + NEXT, *[start + b"x"] * (MOST_OPEN_LINES + 100), CRI.encode() + BLOCK.split(b"\n")[0])
    found = scan(text)
    assert found.ids == ["SYNC_DONE", "IPT_RESTORE_FAIL"]
    assert found.cuts.count(EARLY[0]) >= 2


def test_a_fragment_too_long_is_cut_and_counted() -> None:
    start = CRI.replace(" F ", " P ").encode()
    piece = b"x" * (MOST_LINE // 8)
    text = lines(
        start + NEXT.replace(b'elapsed="1s"', b'elapsed="'),
        *[start + piece] * 9,
        CRI.encode() + b'"',
        CRI.encode() + NEXT,
    )
    found = scan(text)
    assert found.ids == ["SYNC_DONE", "SYNC_DONE"]
    assert len(found.hits[0][2]) <= MOST_LINE
    assert found.cuts == EARLY


def test_fragments_of_interleaved_streams_are_joined_apart() -> None:
    a, b = (f"kube-proxy-{pod} kube-proxy 2026-11-23T03:03:31.238869880Z stderr ".encode() for pod in "ab")
    text = lines(
        a + b"P " + NEXT[:90], b + b"P " + HEAD[:50], a + b"F " + NEXT[90:], b + b"F " + HEAD[50:], b + b"F " + END
    )
    found = scan(text)
    assert found.streams["", "kube-proxy-a", "kube-proxy"].hits == [("SYNC_DONE", TIME, NEXT)]
    assert found.streams["", "kube-proxy-b", "kube-proxy"].hits == [("IPT_RESTORE_FAIL", TIME, HEAD + b"\n" + END)]


def test_a_fragment_that_looks_like_a_layer_is_not_taken_apart() -> None:
    p, f = CRI.replace(" F ", " P ").encode(), CRI.encode()
    for rest in (
        b"[pod/a/b] x",
        b"kube-proxy-x kube-proxy E",
        b"2026-11-23T03:03:31Z x",
        b"Nov 23 03:03:31 h k3s[1]: x",
        b'{"log":"x"}',
    ):
        record = b'E0606 16:49:46.155398       1 cleanup.go:53] "Failed to list conntrack entries" err="' + rest
        cut = len(record) - len(rest)
        found = scan(lines(p + record[:cut], p + rest, f + b'"'))
        assert found.hits == [("CT_LIST_FAIL", TIME, record + b'"')], rest
        assert set(found.streams) == {OWN}
