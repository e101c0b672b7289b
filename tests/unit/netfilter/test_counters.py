"""Numbers of the connection tracking table: both sets of keys, hexadecimal columns by name, and plain files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.netfilter.counters import (
    MOST_NAMES,
    Counters,
    read_counters,
)
from tests.unit.netfilter.reading import NODE

HEADER = (NODE / "proc-stat-nf_conntrack.txt").read_bytes().splitlines()[0]
OVER_PROC = (
    b"cpu=0   \tentries=10 clashres=1 found=0 new=0 invalid=2 ignore=0 delete=0 chainlength=3 insert=12 "
    b"insert_failed=4 drop=5 early_drop=6 icmp_error=7 expect_new=0 expect_create=0 expect_delete=0 search_restart=8 \n"
)


def test_recorded_counters_are_read() -> None:
    listed = read_counters((NODE / "conntrack-stats.txt").read_bytes())
    assert listed is not None
    assert (listed.cpus, listed.unreadable, listed.entries) == (2, 0, None)
    assert listed.totals["insert_failed"] == 0
    assert len(listed.totals) == 10
    table = read_counters((NODE / "proc-stat-nf_conntrack.txt").read_bytes())
    assert table is not None
    assert (table.cpus, table.unreadable, table.entries) == (2, 0, 0x92)
    assert listed.totals.keys() <= table.totals.keys()


def test_sums_are_over_all_cpus_but_for_the_fill() -> None:
    one = read_counters(OVER_PROC)
    two = read_counters(OVER_PROC + OVER_PROC.replace(b"cpu=0", b"cpu=1"))
    assert one is not None
    assert two is not None
    assert (one.entries, two.entries) == (10, 10)
    assert two.totals == {name: 2 * value for name, value in one.totals.items()}
    assert (two.cpus, two.totals["insert"]) == (2, 24)


def test_names_of_proc_become_those_of_netlink() -> None:
    counters = read_counters(OVER_PROC)
    assert counters is not None
    named = {"clash_resolve": 1, "chaintoolong": 3, "error": 7, "search_restart": 8}
    assert named.items() <= counters.totals.items()
    assert not {"clashres", "chainlength", "icmp_error"} & counters.totals.keys()


def test_columns_are_hexadecimal_and_found_by_the_header() -> None:
    counters = read_counters(b"entries  drop searched insert_failed\n0000001f  0000000a 00000000 000000ff\n")
    assert counters == Counters(1, {"drop": 10, "searched": 0, "insert_failed": 255}, 31)


def test_old_releases_print_one_name_on_a_line() -> None:
    counters = read_counters(b"entries                 \t\t146\nsearched                \t\t20\ninsert_failed \t3\n")
    assert counters == Counters(1, {"searched": 20, "insert_failed": 3}, 146)


@pytest.mark.parametrize(
    ("dump", "unreadable"),
    [
        (OVER_PROC + OVER_PROC[:40], 1),
        (OVER_PROC + b"cpu=1 found=x\n", 1),
        (OVER_PROC + b"cpu=1\n", 1),
        (HEADER + b"\n" + b"00000092 " * 17 + b"\n00000092 0000\n", 1),
        (HEADER + b"\n" + b"00000092 " * 17 + b"\n" + b"0000009z " * 17 + b"\n", 1),
        (b"entries 1\ndrop 2\nwhat is this\n", 1),
    ],
)
def test_what_cannot_be_read_is_counted(dump: bytes, unreadable: int) -> None:
    counters = read_counters(dump)
    assert counters is not None
    assert counters.unreadable == unreadable


@pytest.mark.parametrize(
    "dump",
    [b"", b"\n \n", b"cpu=\n", HEADER, b"entries\n", b"entries a=b\n00\n", b"udp 17 29 src=10.0.0.1\n", b"\xff\xfe\n"],
)
def test_what_is_no_counters_is_none(dump: bytes) -> None:
    assert read_counters(dump) is None


def test_names_without_end_are_not_kept() -> None:
    names = [b"n" + bytes([97 + number // 26, 97 + number % 26]) for number in range(600)]
    counters = read_counters(b"cpu=0 " + b" ".join(name + b"=1" for name in names))
    assert counters is not None
    assert len(counters.totals) == MOST_NAMES


@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from(OVER_PROC.split(b" ") + HEADER.split(b" ") + [b"\n"])).map(b" ".join)
)
def test_no_bytes_make_it_fail(dump: bytes) -> None:
    counters = read_counters(dump)
    assert counters is None or (counters.cpus > 0 and len(counters.totals) <= MOST_NAMES)
