"""Counting what one stream says, and one node's many streams: right numbers, first and last, in bounded memory."""

import random
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.logs import tally as tally_module
from kdnsctl.logs.framing import Line
from kdnsctl.logs.klog import SECOND, TextClock, parse
from kdnsctl.logs.scan import Scanner
from kdnsctl.logs.signatures import Known, recognise
from kdnsctl.logs.sinks import StreamKey
from kdnsctl.logs.tally import LONGEST_EXAMPLE, Count, Tally
from tests.unit.logs.scanning import WRITTEN, micro

DNS = "kube-system/kube-dns:dns"
DAY0 = micro("2026-06-06T00:00:00")


class Into:
    def __init__(self, tally: Tally) -> None:
        self.tally = tally

    def stream(self, _key: StreamKey, _line: Line | None) -> Tally:
        return self.tally


def count(lines: Iterable[str], tally: Tally | None = None) -> Tally:
    tally = Tally() if tally is None else tally
    scanner = Scanner(Into(tally), TextClock(WRITTEN))
    scanner.feed("".join(line + "\n" for line in lines).encode())
    scanner.finish()
    return tally


def klog(seconds: float, place: str, message: str, severity: str = "I") -> str:
    whole, rest = divmod(round(seconds * SECOND), SECOND)
    clock = f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.{rest:06}"
    return f"{severity}0606 {clock}       1 {place}:7] {message}"


def failure(
    seconds: float, vip: str = "10.96.0.10", endpoint: str = "10.244.1.5", service: str = DNS, inner: str = "x"
) -> str:
    err = f"error deleting conntrack entries for UDP peer {{{vip}, {endpoint}}}, error: {inner}"
    return klog(
        seconds, "cleanup.go", f'"Failed to delete endpoint connections" err="{err}" servicePortName="{service}"', "E"
    )


def version(seconds: float, text: str = "v1.30.3") -> str:
    return klog(seconds, "server.go", f'"Version info" version="{text}"')


def mode(seconds: float, text: str = "iptables") -> str:
    return klog(seconds, "server_linux.go", f'"Using {text} Proxier"')


def known_of(line: str) -> Known:
    head = parse(line.encode())
    assert head is not None
    known = recognise(head.file, head.message, structured=head.structured)
    assert known is not None
    return known


# --- counts


def test_failures_are_counted_by_signature_by_peer_and_by_cause() -> None:
    tally = count(
        [
            failure(10, inner="such conntrack doesn't exist"),
            failure(20),
            failure(30, endpoint="10.244.2.2"),
            failure(40, service="a/b:c"),
            klog(50, "proxier.go", '"Failed to execute iptables-restore" err="exit status 4: permission denied"', "E"),
            klog(50.1, "proxier.go", '"Sync failed" retryingTime="30s"'),
        ]
    )
    deleted = tally.counts["CT_DEL_ENDPOINT"]
    assert (deleted.count, deleted.first, deleted.last) == (4, DAY0 + 10 * SECOND, DAY0 + 40 * SECOND)
    assert deleted.example == failure(10, inner="such conntrack doesn't exist")
    assert {key: found.count for key, found in tally.peers.items() if key[0] == "CT_DEL_ENDPOINT"} == {
        ("CT_DEL_ENDPOINT", DNS, "10.96.0.10", "10.244.1.5"): 2,
        ("CT_DEL_ENDPOINT", DNS, "10.96.0.10", "10.244.2.2"): 1,
        ("CT_DEL_ENDPOINT", "a/b:c", "10.96.0.10", "10.244.1.5"): 1,
    }
    assert {key: found.count for key, found in tally.causes.items()} == {
        ("CT_DEL_ENDPOINT", "enoentRace"): 1,
        ("CT_DEL_ENDPOINT", "other"): 3,
        ("IPT_RESTORE_FAIL", "permission"): 1,
    }
    assert tally.deletions_failed == [
        (DAY0 + seconds * SECOND, "a/b:c" if seconds == 40 else DNS) for seconds in (10, 20, 30, 40)
    ]
    assert tally.syncs_failed == [DAY0 + 50 * SECOND, DAY0 + 50 * SECOND + 100_000]
    assert tally.ours
    assert (tally.oldest_possible, tally.newest_possible) == (21, 31)


@given(st.lists(st.integers(0, 86_399), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_first_and_last_do_not_depend_on_the_order(moments: list[int], rng: random.Random) -> None:
    lines = [failure(moment) for moment in moments]
    rng.shuffle(lines)
    found = count(lines).counts["CT_DEL_ENDPOINT"]
    assert (found.count, found.first, found.last) == (
        len(moments),
        DAY0 + min(moments) * SECOND,
        DAY0 + max(moments) * SECOND,
    )


def test_a_failure_without_a_time_is_counted_without_one() -> None:
    tally = count([failure(10).replace("E0606", "E0000")])
    assert tally.counts["CT_DEL_ENDPOINT"].count == 1
    assert (tally.first, tally.last, tally.deletions_failed) == (None, None, [])


def test_an_example_is_cut_and_repaired() -> None:
    tally = count([failure(10, inner="y" * 5_000)])
    assert len(tally.counts["CT_DEL_ENDPOINT"].example) == LONGEST_EXAMPLE
    tally = Tally()
    line = failure(10)
    tally.hit(known_of(line), 5, line.encode() + b"\xff")
    assert tally.counts["CT_DEL_ENDPOINT"].example == line + "\ufffd"


def test_what_is_only_seen_widens_the_span_and_tells_whose_log_it_is() -> None:
    tally = Tally()
    assert (tally.first, tally.last, tally.ours) == (None, None, False)
    tally.seen(50, "kubelet.go")
    assert not tally.ours
    tally.seen(40, "proxier.go")
    tally.seen(60, "")
    assert (tally.first, tally.last, tally.ours) == (40, 60, True)
    line = failure(0)
    tally.hit(known_of(line), 10, line.encode())
    assert (tally.first, tally.last) == (10, 60)


def test_cuts_are_counted_by_their_reason() -> None:
    tally = Tally()
    for why in ("a", "b", "a"):
        tally.cut(why)
    assert tally.cuts == {"a": 2, "b": 1}


# --- the window


def test_before_the_window_nothing_is_counted_but_what_runs_is_learnt() -> None:
    since = DAY0 + 100 * SECOND
    lines = [version(1), mode(2), klog(3, "flags.go", 'FLAG: --v="4"'), failure(99.9), failure(100), failure(101)]
    tally = count(lines, Tally(since=since))
    assert {signature: found.count for signature, found in tally.counts.items()} == {"CT_DEL_ENDPOINT": 2}
    assert (tally.mode, tally.verbosity) == ("iptables", 4)
    assert tally.versions == [(DAY0 + SECOND, "v1.30.3")]
    assert (tally.starts, tally.start_count) == ([], 0)
    assert tally.first == DAY0 + SECOND
    assert tally.counts["CT_DEL_ENDPOINT"].first == since
    assert [time for time, _ in tally.deletions_failed] == [since, since + SECOND]


def test_a_record_without_a_time_is_in_every_window() -> None:
    tally = count([failure(10).replace("E0606", "E0000")], Tally(since=DAY0))
    assert tally.counts["CT_DEL_ENDPOINT"].count == 1


# --- starts


@pytest.mark.parametrize(
    ("lines", "starts"),
    [
        ([version(0), mode(0.1)], [0]),
        ([mode(0), version(0.1)], [0]),
        ([version(0)], [0]),
        ([version(0), version(10), version(20)], [0, 10, 20]),  # a crash loop that does not come to its mode
        ([version(0), mode(1), version(10), mode(11), version(30), mode(31)], [0, 10, 30]),
        ([mode(0), version(1), mode(10), version(11)], [0, 10]),
        ([version(0), mode(61)], [0, 61]),
        ([version(0), mode(1), version(4000), mode(4001)], [0, 4000]),
    ],
)
def test_a_version_and_a_mode_within_a_minute_are_one_start(lines: list[str], starts: list[int]) -> None:
    tally = count(lines)
    assert tally.starts == [DAY0 + start * SECOND for start in starts]
    assert tally.start_count == len(starts)


def test_starts_without_a_time_are_counted() -> None:
    lines = [line.replace("I0606", "I0000") for line in (version(0), mode(1), version(2), mode(3))]
    tally = count(lines)
    assert (tally.starts, tally.start_count) == ([], 2)
    assert tally.versions == [(0, "v1.30.3"), (0, "v1.30.3")]


def test_the_last_word_on_mode_verbosity_and_node_counts() -> None:
    flags = 'FLAG: --v="2"', 'FLAG: --hostname-override="node-1"', 'FLAG: --v="4"', 'FLAG: --hostname-override=""'
    tally = count([mode(0), *(klog(1 + n, "flags.go", flag) for n, flag in enumerate(flags)), mode(100, "ipvs")])
    assert (tally.mode, tally.verbosity, tally.hostname) == ("ipvs", 4, "node-1")


def test_starts_that_others_in_the_process_also_log_are_not_kube_proxys() -> None:
    lines = [
        version(0, "v1.30.3+k3s1"),
        klog(1, "flags.go", 'FLAG: --v="9"'),
        klog(1, "flags.go", 'FLAG: --hostname-override="x"'),
        klog(2, "shared_informer.go", "Caches are synced for service config"),
        klog(
            3,
            "server.go",
            '"Error running ProxyServer" err="content of the proxy server\'s configuration file was updated"',
        ),
    ]
    tally = count(lines, Tally(shared_process=True))
    assert (tally.counts, tally.versions, tally.start_count, tally.verbosity, tally.hostname) == ({}, [], 0, None, None)
    assert (tally.oldest_possible, tally.newest_possible, tally.ours) == (0, 1_000, False)
    count([mode(10), failure(11)], tally)
    assert (tally.mode, tally.start_count, tally.ours) == ("iptables", 1, True)
    own = count(lines)
    assert own.start_count == 1
    assert own.versions == [(DAY0, "v1.30.3+k3s1")]


# --- entries and clients


def listing(first: int, last: int) -> str:
    entries = "".join(
        f"udp      17 23 src=10.1.{n // 250}.{n % 250} dst=10.96.0.10 sport=3 dport=53 [UNREPLIED] src=x use=1 "
        for n in range(first, last)
    )
    return entries + "such conntrack doesn't exist"


def test_quoted_entries_add_up_and_clients_are_told_apart() -> None:
    tally = count([failure(1, inner=listing(0, 3)), failure(2, inner=listing(2, 5)), failure(3)])
    assert tally.entries == 6
    assert tally.clients == {f"10.1.0.{n}" for n in range(5)}
    assert tally.clients_complete


def test_more_clients_than_are_kept_are_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = count([failure(1, inner=listing(0, 300))])
    assert (tally.entries, len(tally.clients), tally.clients_complete) == (300, 256, False)
    monkeypatch.setattr(tally_module, "MOST_CLIENTS", 5)
    tally = count([failure(1, inner=listing(0, 6)), failure(2, inner=listing(3, 5))])
    assert (len(tally.clients), tally.clients_complete) == (6, True)
    tally = count([failure(1, inner=listing(0, 6)), failure(2, inner=listing(6, 7))])
    assert (len(tally.clients), tally.clients_complete) == (6, False)


# --- what ties failures to their moment


def endpoints(seconds: float, *addresses: str, service: str = DNS) -> str:
    listed = ",".join(f'"{address}"' for address in addresses)
    message = f'"Setting endpoints for service port name" portName="{service}" endpoints=[{listed}]'
    return klog(seconds, "endpointslicecache.go", message)


def test_endpoints_change_when_their_list_does() -> None:
    tally = count(
        [
            endpoints(1, "10.0.0.1:53"),
            endpoints(2, "10.0.0.1:53"),
            endpoints(3, "10.0.0.2:53"),
            endpoints(4, "10.0.0.9:53", service="a/b:c"),
            endpoints(5),
            klog(6, "endpoints.go", f'"Stale endpoint" portName="{DNS}" endpoint="10.0.0.1:53"'),
            endpoints(7).replace("I0606", "I0000"),
            endpoints(8, "10.0.0.1:53").replace("I0606", "I0000"),
        ]
    )
    assert tally.endpoint_changes == [(DAY0 + seconds * SECOND, DNS) for seconds in (3, 5, 6)]


def test_addresses_are_tied_to_their_service_ports() -> None:
    def added(service: str, address: str) -> str:
        return klog(1, "service.go", f'"Adding new service port" portName="{service}" servicePort="{address}/UDP"')

    lines = [
        added(DNS, "10.96.0.10:53"),
        added("a/b:c", "[fd00::a]:1"),
        added("kube-system/kube-dns:m", "10.96.0.10:9153"),
    ]
    tally = count([*lines, klog(2, "service.go", '"Adding new service port" portName="a/b:c" servicePort="x"')])
    assert tally.addresses == {"10.96.0.10": {DNS, "kube-system/kube-dns:m"}, "fd00::a": {"a/b:c"}}


# --- bounds


def test_what_is_kept_apart_is_bounded_and_the_counts_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally_module, "MOST_PEERS", 10)
    monkeypatch.setattr(tally_module, "MOST_MOMENTS", 10)
    monkeypatch.setattr(tally_module, "MOST_PORTS", 2)
    lines = []
    for n in range(30):
        lines += [
            failure(n * 100, endpoint=f"10.0.0.{n}"),
            klog(n * 100, "proxier.go", '"Sync failed" retryingTime="30s"'),
            version(n * 100 + 50),
            endpoints(n * 100 + 1, f"10.0.0.{n}:1"),
            endpoints(n * 100 + 2, service=f"x/{n}:y"),
            klog(
                n, "service.go", f'"Adding new service port" portName="a/{n}:c" servicePort="10.96.0.{n % 20}:53/UDP"'
            ),
            klog(n, "service.go", f'"Adding new service port" portName="b/{n}:c" servicePort="10.96.0.1:53/UDP"'),
        ]
    tally = count(lines)
    assert tally.counts["CT_DEL_ENDPOINT"].count == 30
    assert sum(found.count for key, found in tally.peers.items() if key[0] == "CT_DEL_ENDPOINT") == 30
    assert len(tally.peers) <= 12
    assert tally.peers["CT_DEL_ENDPOINT", "", "", ""].count >= 20
    assert (
        len(tally.deletions_failed) == len(tally.syncs_failed) == len(tally.starts) == len(tally.endpoint_changes) == 10
    )
    assert len(tally.versions) == 10
    assert tally.start_count == 30
    assert len(tally._endpoints) <= 10
    assert len(tally.addresses) == 10
    assert all(len(names) <= 2 for names in tally.addresses.values())
    tally.settle()
    assert (tally._details, tally._endpoints, tally._wordings) == ({}, {}, set())


def test_what_failures_say_is_remembered_within_bounds() -> None:
    tally = Tally()
    known = known_of(failure(0))
    for n in range(6_000):
        tally.hit(known, n, failure(0, endpoint=f"10.0.{n // 250}.{n % 250}").encode())
    assert len(tally._details) <= 5_001
    assert len([key for key in tally.peers if key[0] == "CT_DEL_ENDPOINT"]) == 6_000


def test_a_remembered_failure_differs_from_one_that_only_begins_alike() -> None:
    json_ = '{"ts":%d.5,"caller":"a/cleanup.go:99","msg":"Failed to delete endpoint connections",'
    json_ += '"servicePortName":"%s","err":"x"}'
    base = 1780704000000
    tally = count([json_ % (base, DNS), json_ % (base + 1, "a/b:c"), json_ % (base + 2, DNS), failure(1), failure(2)])
    services = {key[1]: found.count for key, found in tally.peers.items() if key[2] == ""}
    assert services == {DNS: 2, "a/b:c": 1}


# --- many streams of one node


def whole_log(rng: random.Random) -> list[str]:
    lines, seconds = [], 0.0
    for _ in range(rng.randint(2, 60)):
        seconds += rng.randint(1, 500)
        lines.append(
            rng.choice(
                [
                    failure(seconds, endpoint=f"10.0.0.{rng.randint(0, 3)}", inner=listing(0, rng.randint(0, 4))),
                    klog(seconds, "proxier.go", '"Sync failed" retryingTime="30s"'),
                    klog(seconds, "proxier.go", '"Failed to execute iptables-restore" err="exit status 4"', "E"),
                    version(seconds),
                    klog(seconds, "proxier.go", '"SyncProxyRules complete" elapsed="1s"'),
                    klog(
                        seconds,
                        "service.go",
                        f'"Adding new service port" portName="{DNS}" servicePort="10.96.0.10:53/UDP"',
                    ),
                ]
            )
        )
    return lines


@pytest.mark.parametrize("seed", range(30))
def test_merging_the_parts_of_a_log_gives_the_whole(seed: int) -> None:
    rng = random.Random(seed)
    lines = whole_log(rng)
    cuts = sorted(rng.randint(0, len(lines)) for _ in range(rng.randint(0, 3)))
    parts = [lines[start:end] for start, end in zip([0, *cuts], [*cuts, len(lines)], strict=True)]
    rng.shuffle(parts)
    merged = Tally()
    for part in parts:
        merged.merge(count(part))
    whole = count(lines)

    def plain(counts: Mapping[Any, Count]) -> dict[object, tuple[int, int | None, int | None]]:
        return {key: (found.count, found.first, found.last) for key, found in counts.items()}

    assert plain(merged.counts) == plain(whole.counts)
    assert plain(merged.peers) == plain(whole.peers)
    assert plain(merged.causes) == plain(whole.causes)
    for name in (
        "entries",
        "clients",
        "clients_complete",
        "start_count",
        "starts",
        "deletions_failed",
        "syncs_failed",
        "addresses",
        "versions",
        "oldest_possible",
        "newest_possible",
        "first",
        "last",
        "ours",
    ):
        assert getattr(merged, name) == getattr(whole, name), name


def test_of_two_streams_the_newer_knows_what_runs() -> None:
    old = count(
        [mode(0, "ipvs"), klog(1, "flags.go", 'FLAG: --v="4"'), klog(1, "flags.go", 'FLAG: --hostname-override="a"')]
    )
    new = count([mode(1000), klog(1001, "flags.go", 'FLAG: --v="2"')])
    for first, second in ((old, new), (new, old)):
        merged = Tally()
        merged.merge(first)
        merged.merge(second)
        assert (merged.mode, merged.verbosity, merged.hostname) == ("iptables", 2, "a")
    silent = count([failure(2000)])
    merged = Tally()
    merged.merge(new)
    merged.merge(silent)
    assert (merged.mode, merged.verbosity) == ("iptables", 2)
    merged.merge(Tally(cuts={"x": 2}))
    merged.merge(Tally(cuts={"x": 1}, clients_complete=False))
    assert (merged.cuts, merged.clients_complete) == ({"x": 3}, False)


def test_merging_nothing_changes_nothing() -> None:
    merged = Tally()
    merged.merge(Tally())
    assert merged == Tally()
    one = Count(2, 5, 9, "x")
    one.merge(Count(1))
    assert one == Count(3, 5, 9, "x")
    none = Count()
    none.merge(Count(1, 5, 9, "x"))
    assert none == Count(1, 5, 9, "x")
