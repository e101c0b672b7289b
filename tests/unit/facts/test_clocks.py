"""A node's clock from /proc, and full tables in the kernel's log, in each of its forms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.facts import clocks

FULL = b"nf_conntrack: nf_conntrack: table full, dropping packet"


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def test_the_clock_is_the_start_and_the_time_since_then() -> None:
    read = clocks.clock(b"btime 1795829762\n19086.47 25816.65\n")
    assert read is not None
    assert read.at == datetime.fromtimestamp(1795829762.5, UTC) + seconds(19086.47)
    assert (read.within, read.uptime) == (seconds(0.5), 19086.47)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"btime 1795829762\n",
        b"19086.47 25816.65\n",
        b"btime x\n19086.47 25816.65\n",
        b"btime 999999999999\n19086.47 25816.65\n",
        b"not btime 1795829762\n19086.47 25816.65\n",
    ],
)
def test_half_a_clock_is_none(data: bytes) -> None:
    assert clocks.clock(data) is None


@given(
    truth=st.floats(1e9, 2e9),
    uptime=st.floats(0, 1e7),
    skew=st.floats(-1e5, 1e5),
    before=st.floats(0, 30),
    after=st.floats(0, 30),
)
def test_the_true_offset_is_always_within_what_is_said(
    truth: float, uptime: float, skew: float, before: float, after: float
) -> None:
    # The kernel cuts the second of its start off, and /proc/uptime the hundredth.
    shown = int(truth + skew - uptime), int(uptime * 100) / 100
    read = clocks.clock(f"btime {shown[0]}\n{shown[1]:.2f} 0.00\n".encode())
    assert read is not None
    now = datetime.fromtimestamp(truth, UTC)
    found = clocks.ahead(read, now - seconds(before), now + seconds(after))
    assert abs(found.by - seconds(skew)) <= found.within + seconds(0.02)
    assert found.within >= seconds(0.5)


@pytest.mark.parametrize(
    ("line", "uptime", "number"),
    [
        (b"<4>[18792.822982] " + FULL, None, 1),
        (b"[ 8792.822982] " + FULL, 8800.0, 1),
        (b"<4>[   92.822982] " + FULL, 18800.0, 0),
        (b"<4>[18792.822982] nf_conntrack: table full in netns 4026531992, dropping packet", 18800.0, 1),
        (b"2026-11-23T03:02:39,123456+00:00 " + FULL, 18800.0, 1),
        (b"Nov 23 03:02:39 knode2 kernel: " + FULL, None, 1),
        (b"<6>[18792.822982] ipset: hash table full", None, 0),
        (b"<4>[18792.822982] nf_conntrack: expectation\n<4>[18792.9] table full", None, 0),
        (b"", 1.0, 0),
    ],
)
def test_full_tables_of_the_last_hour_are_counted(line: bytes, uptime: float | None, number: int) -> None:
    log = b"<6>[    0.000000] Linux version 6.18\n" + line + b"\n<6>[18793.000000] other\n"
    assert clocks.table_full(log, uptime) == number


def test_each_line_counts_once() -> None:
    log = b"".join(b"<4>[%d.000000] %b\n" % (at, FULL) for at in (100, 4000, 7000, 7199))
    assert clocks.table_full(log) == 4
    assert clocks.table_full(log, 7200.0) == 3
