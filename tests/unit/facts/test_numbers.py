from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.diagnosis.evidence import Fill, Timeouts
from kdnsctl.facts import numbers

RECORDED = Path(__file__).parents[2] / "recordings" / "node"
PROC = b"/proc/sys/net/netfilter/nf_conntrack_"


def test_fill_from_proc_and_from_sysctl() -> None:
    proc = PROC + b"count:146\n" + PROC + b"max:262144\n" + PROC + b"buckets:65536\n"
    assert numbers.fill(proc) == Fill(146, 262_144, 65_536)
    assert numbers.fill(b"net.netfilter.nf_conntrack_count = 7\nnet.netfilter.nf_conntrack_max = 9\n") == Fill(7, 9)


@pytest.mark.parametrize(
    "data", [b"", PROC + b"count:146\n", PROC + b"max:5\n", PROC + b"count:x\n" + PROC + b"max:5\n"]
)
def test_a_part_of_it_is_no_fill(data: bytes) -> None:
    assert numbers.fill(data) is None


def test_timeouts() -> None:
    both = PROC + b"udp_timeout:30\n" + PROC + b"udp_timeout_stream:180\n"
    assert numbers.timeouts(both) == Timeouts(30, 180)
    assert numbers.timeouts(PROC + b"udp_timeout_stream:180\n") is None


@pytest.mark.parametrize(
    ("data", "first_and_last"),
    [
        (b"32768\t60999\n", (32768, 60999)),
        (b"net.ipv4.ip_local_port_range = 1024\t65535\n", (1024, 65535)),
        (b"5 5", (5, 5)),
        (b"9 5", None),
        (b"", None),
        (b"32768", None),
        (b"a b", None),
    ],
)
def test_local_ports(data: bytes, first_and_last: tuple[int, int] | None) -> None:
    assert numbers.local_ports(data) == first_and_last


def test_counters_of_proc_are_hexadecimal_and_summed_but_for_the_global_one() -> None:
    recorded = numbers.counters((RECORDED / "proc-stat-nf_conntrack.txt").read_bytes())
    assert recorded is not None
    assert recorded["entries"] == 0x92
    assert recorded["insert_failed"] == 0
    text = b"entries  searched found insert_failed  expect_new\n00000010  00000001 00000002 0000000a  00000000\n"
    text += b"00000010  00000001 00000002 000000ff  00000000\n"
    assert numbers.counters(text) == {
        "entries": 16,
        "searched": 2,
        "found": 4,
        "insert_failed": 265,
        "expect_new": 0,
    }


def test_counters_of_proc_have_the_names_that_the_checks_look_for() -> None:
    """The kernel's own heading says clashres and chainlength: T2 and T3 would never see them."""
    recorded = numbers.counters((RECORDED / "proc-stat-nf_conntrack.txt").read_bytes())
    assert recorded is not None
    assert {"insert_failed", "clash_resolve", "chaintoolong", "search_restart", "drop", "early_drop"} <= recorded.keys()


def test_counters_of_conntrack_are_decimal() -> None:
    recorded = numbers.counters((RECORDED / "conntrack-stats.txt").read_bytes())
    assert recorded is not None
    assert recorded["insert_failed"] == 0
    assert "cpu" not in recorded
    assert numbers.counters(b"cpu=0   \tfound=1 drop=10 \ncpu=1   \tfound=2 drop=5 \n") == {"found": 3, "drop": 15}


def test_a_line_that_is_cut_is_not_counted() -> None:
    assert numbers.counters(b"entries drop\n00000001 00000001\n00000001 000\n0000") == {"entries": 1, "drop": 1}
    assert numbers.counters(b"entries drop\n00000001") is None


@given(
    st.binary(max_size=200) | st.text(alphabet="entris drop=cu0123456789abf\n /:net.fil_", max_size=200).map(str.encode)
)
def test_nothing_breaks_them(data: bytes) -> None:
    for parse in (numbers.fill, numbers.timeouts, numbers.local_ports, numbers.counters):
        assert parse(data) is None or data
