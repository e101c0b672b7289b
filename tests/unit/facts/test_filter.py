"""The filter on the node, run for real: what it lets through, and above all what it must."""

from __future__ import annotations

import ipaddress
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdnsctl.cluster.answers import encoded
from kdnsctl.facts.conntrack import MAX_PATTERNS, TABLE, table_of
from kdnsctl.model import Toolset
from kdnsctl.netfilter.conntrack import ConntrackReader
from kdnsctl.netfilter.trailer import TrailerSplitter, filtered
from kdnsctl.reach.limits import limited

RECORDED = Path(__file__).parents[2] / "recordings" / "node" / "proc-nf_conntrack-stale.txt"

v4 = st.sampled_from(["10.96.0.10", "10.96.0.1", "110.96.0.10", "10.96.0.100", "10.244.1.2", "1.2.3.4"])
v6 = st.sampled_from(["fd00::10", "fd00::1", "fd00:0:0:1::10", "2001:db8::", "::1", "fd00::a:10"])
ports = st.sampled_from([53, 5353, 530, 30053, 130, 1, 65535])


def through(table: Path, patterns: tuple[str, ...]) -> tuple[bytes, int | None]:
    """What the node would send of a table, and how many lines it had."""
    command = filtered(limited(["cat", str(table)], 50), patterns, "t0ken")
    ran = subprocess.run(command, capture_output=True, check=True, timeout=60)
    splitter = TrailerSplitter("t0ken", numbered=True)
    payload = splitter.feed(ran.stdout)
    rest, end = splitter.finish()
    assert end is not None
    assert end.exit_code == 0
    return payload + rest, end.total


@st.composite
def entry(draw: st.DrawFn) -> tuple[str, str, int]:
    """A line as /proc/net/nf_conntrack has it, with its original destination."""
    family = draw(st.sampled_from([4, 6]))
    addresses = v4 if family == 4 else v6
    client, target, backend = draw(addresses), draw(addresses), draw(addresses)
    sport, dport, bport = draw(ports), draw(ports), draw(ports)
    protocol = draw(st.sampled_from(["udp      17", "tcp      6", "sctp     132"]))
    acct = "packets=1 bytes=29 " if draw(st.booleans()) else ""
    state = draw(st.sampled_from(["", "ESTABLISHED ", "TIME_WAIT "]))
    unreplied = draw(st.sampled_from(["", "[UNREPLIED] "]))
    end = draw(st.sampled_from(["", "[ASSURED] ", "[OFFLOAD] "]))
    zone = draw(st.sampled_from(["", "zone-orig=7 "]))

    def shown(text: str) -> str:
        return ipaddress.ip_address(text).exploded  # the kernel's %pI6

    line = (
        f"ipv{family}     {2 if family == 4 else 10} {protocol} 29 {state}src={shown(client)} dst={shown(target)} "
        f"sport={sport} dport={dport} {zone}{acct}{unreplied}src={shown(backend)} dst={shown(client)} sport={bport} "
        f"dport={sport} {acct}{end}mark=0 zone=0 use=2"
    )
    return line, target, dport


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(entry(), max_size=60),
    st.lists(st.one_of(v4, v6), max_size=3),
    st.lists(ports, max_size=2),
)
def test_an_entry_to_a_wanted_address_or_port_is_never_left_out(
    tmp_path: Path, entries: list[tuple[str, str, int]], addresses: list[str], node_ports: list[int]
) -> None:
    table = tmp_path / "table"
    table.write_text("".join(f"{line}\n" for line, _, _ in entries))
    patterns = table_of(addresses, node_ports).patterns
    if not patterns:
        assert not addresses
        assert not node_ports
        return
    payload, total = through(table, patterns)
    came = payload.decode().splitlines()
    must = [line for line, target, port in entries if target in addresses or port in node_ports]
    rest = iter(came)
    assert all(line in rest for line in must), "in order, each as often as it was there"
    assert total == len(entries)
    reader = ConntrackReader()
    seen = {(entry.original.destination, entry.original.destination_port) for entry in reader.feed(payload)}
    assert {(target, port) for _, target, port in entries if target in addresses} <= seen


def test_of_the_recorded_table_the_stale_entries_come() -> None:
    payload, total = through(RECORDED, table_of(["10.96.0.10"]).patterns)
    lines = RECORDED.read_text().splitlines()
    assert payload.decode().splitlines() == [line for line in lines if " dst=10.96.0.10 " in line]
    assert total == len(lines)
    assert payload.count(b"sport=53 dport=") == 60
    assert through(RECORDED, table_of(["10.96.0.1"]).patterns)[0].count(b"dst=10.96.0.10 ") == 0


def test_ipv6_is_looked_for_in_both_forms() -> None:
    assert table_of(["FD00::0010"]).patterns == (
        " dst=fd00:0000:0000:0000:0000:0000:0000:0010 ",
        " dst=fd00::10 ",
    )


def test_nothing_to_look_for_and_too_much_of_it_is_the_whole_table() -> None:
    assert table_of([]) == TABLE
    many = [str(ipaddress.ip_address("10.0.0.0") + number) for number in range(300)]
    assert table_of(many) == TABLE
    few = table_of(many[:150])
    assert len("\n".join(few.patterns)) < MAX_PATTERNS
    assert few.patterns[0] == " dst=10.0.0.0 "


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        table_of(["10.96.0.10 \n"])


def test_the_longest_command_fits_into_the_url_that_proxies_allow() -> None:
    addresses = [f"fd00:{number:x}::{number:x}" for number in range(1000)]
    fitting = max(
        (table_of(addresses[:count]).patterns for count in range(1000)), key=lambda patterns: len("\n".join(patterns))
    )
    assert MAX_PATTERNS - 100 < len("\n".join(fitting)) <= MAX_PATTERNS
    command = filtered(limited(list(TABLE.commands[Toolset.KUBE_PROXY]), TABLE.seconds), fitting, "0" * 16)
    assert len(encoded({"container": "kube-proxy", "command": command, "stdout": True, "stderr": True})) < 8000
