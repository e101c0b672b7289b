"""The pure pieces under a verdict: releases, the race window, Services, notes, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.find.advice import notes
from kdnsctl.find.race import race_window
from kdnsctl.find.releases import Releases, known_silent, minor_of
from kdnsctl.find.report import NodeFinding, timestamp
from kdnsctl.find.services import checked, concerns, resolved
from kdnsctl.logs.klog import SECOND
from kdnsctl.logs.times import from_datetime
from kdnsctl.model import Basis, UsageError, Verdict
from tests.unit.find.composing import NOON, failure, find, healthy, minutes, one, restore_failure, start, sync

T0 = from_datetime(datetime(2026, 3, 12, 12, tzinfo=UTC))


# --- releases


@pytest.mark.parametrize(
    ("version", "minor"),
    [("v1.30.3", 30), ("1.30", 30), ("v1.30.3+k3s1", 30), ("v1.29.1-eks-1a2b", 29), ("1.9", 9)],
)
def test_the_minor_of_a_version(version: str, minor: int) -> None:
    assert minor_of(version) == minor


@pytest.mark.parametrize("version", ["", "30", "v2.1", "1.x", "v1.", "1.30 ", "1.3000"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(UsageError, match="is not a kube-proxy version"):
        minor_of(version)


@pytest.mark.parametrize(
    ("version", "issue"),
    [
        ("v1.22.3", "#105657"),
        ("v1.22.4", ""),
        ("v1.28.9", ""),
        ("v1.29.0", "#127780"),
        ("v1.29.10", ""),
        ("v1.30.5+k3s1", "#127780"),
        ("v1.30.6", ""),
        ("v1.31.1", "#127780"),
        ("v1.31.2", ""),
        ("v1.30", ""),
        ("nonsense", ""),
    ],
)
def test_releases_known_to_fail_without_a_line(version: str, issue: str) -> None:
    assert known_silent(version) == issue


@pytest.mark.parametrize(
    ("versions", "wordings", "given", "tells", "text"),
    [
        (["v1.31.14"], (0, 1_000), None, True, "1.31"),
        (["v1.32.0"], (0, 1_000), None, False, "1.32"),
        (["v1.30.6", "v1.31.2"], (0, 1_000), None, True, "1.30–1.31"),
        (["v1.30.1", "v1.31.2"], (0, 1_000), None, False, "1.30–1.31"),  # the first may have left some
        (["v1.30.8", "v0.0.0-master+abc"], (21, 1_000), None, None, "1.21+"),
        (["v0.0.0-master+abc", "v1.30.8"], (21, 1_000), "v1.31.2", True, "1.30–1.31"),
        (["v1.32.1", "v1.31.2"], (0, 1_000), None, False, "1.31–1.32"),  # rolled back
        (["v1.31.2"], (33, 1_000), None, False, "1.31+"),
        (["v1.25.2"], (21, 31), None, True, "1.25"),
        (["v1.20.2"], (28, 1_000), None, None, "1.20+"),
        (["v1.31.2"], (0, 26), None, True, "1.26–1.31"),
        (["nonsense"], (0, 1_000), None, None, ""),
        ([], (0, 1_000), None, None, ""),
        ([], (0, 31), None, None, "up to 1.31"),
        ([], (0, 20), None, True, "up to 1.20"),
        ([], (9, 20), None, True, "1.9–1.20"),
        ([], (32, 1_000), None, False, "1.32+"),
        ([], (21, 1_000), None, None, "1.21+"),
        ([], (27, 1_000), "1.31", None, "1.31"),
        ([], (27, 1_000), "1.31.1", False, "1.31"),
        ([], (27, 1_000), "1.31.2", True, "1.31"),
        ([], (27, 1_000), "1.28", True, "1.28"),
        ([], (27, 1_000), "1.32", False, "1.32"),
        ([], (27, 1_000), "1.20", None, "1.27+"),  # contradicted
        ([], (9, 20), "1.36", True, "1.9–1.20"),  # contradicted
        ([], (21, 20), None, None, "1.20+"),  # two releases
        ([], (32, 31), "1.30", False, "1.31+"),
        ([], (21, 20), "1.31.2", True, "1.20–1.31"),
    ],
)
def test_what_the_absence_of_failures_is_worth(
    versions: list[str], wordings: tuple[int, int], given: str | None, tells: bool | None, text: str
) -> None:
    releases = Releases.of(versions, *wordings, given)
    assert (releases.log_tells, releases.text) == (tells, text)


@given(
    st.lists(st.integers(2, 40).map(lambda minor: f"v1.{minor}.1"), max_size=3),
    st.integers(0, 40),
    st.integers(0, 40) | st.just(1_000),
    st.none() | st.integers(2, 40).map(lambda minor: f"1.{minor}"),
)
def test_a_log_with_a_trace_of_1_32_is_never_worth_anything(
    versions: list[str], first: int, last: int, given: str | None
) -> None:
    releases = Releases.of(versions, first, last, given)
    if first > 31 or any(minor_of(version) > 31 for version in versions):
        assert releases.log_tells is False
    assert releases.newest_from <= releases.newest_to


# --- the race window


def seconds(*numbers: float) -> list[int]:
    return [T0 + round(number * SECOND) for number in numbers]


@pytest.mark.parametrize(
    ("removals", "starts", "failed", "found"),
    [
        ([], [0], [0], None),
        ([0], [], [], (1, 0, 0)),
        ([0], [30, -30], [], (1, 2, 0)),
        ([0], [30.000001, -30.000001], [], (1, 0, 0)),
        ([0, 100], [70, 131], [], (2, 1, 0)),
        ([0], [], [5, 5.00009, 10, 10.9, 40], (1, 0, 2)),  # the error and "Sync failed" are one failed sync
        ([50, 0], [25], [49], (2, 1, 1)),
    ],
)
def test_the_race_window(
    removals: Sequence[float], starts: Sequence[float], failed: Sequence[float], found: tuple[int, int, int] | None
) -> None:
    window = race_window(seconds(*removals), seconds(*starts), seconds(*failed))
    assert (None if window is None else (window.endpoint_changes, len(window.restarts), window.sync_failures)) == found
    if window is not None:
        assert window.first == NOON + timedelta(seconds=min(removals))
        assert window.last == NOON + timedelta(seconds=max(removals))


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=8),
    st.lists(st.integers(0, 10**9), max_size=8),
)
def test_a_start_is_in_the_window_when_any_removal_is_near(removals: list[int], starts: list[int]) -> None:
    window = race_window([T0 + moment for moment in removals], [T0 + moment for moment in starts], [])
    assert window is not None
    near = [start for start in starts if any(abs(start - moment) <= 30 * SECOND for moment in removals)]
    assert len(window.restarts) == len(near)


def test_a_race_is_told_of_the_service_asked_for_only(tmp_path: Path) -> None:
    text = start() + failure(minutes(0.2)) + restore_failure(minutes(0.4)) + failure(minutes(30), "a/b:c", "1.1.1.1")
    race = one(tmp_path, text).race_window
    assert race is not None
    assert (race.first, race.last, race.endpoint_changes) == (minutes(0.2), minutes(0.2), 1)
    assert (len(race.restarts), race.sync_failures) == (1, 1)
    assert one(tmp_path, start() + sync(minutes(1))).race_window is None


# --- Services


@pytest.mark.parametrize("service", ["kube-dns", "a/", "/b", "a/b/c", "a/b:dns", ""])
def test_a_service_is_a_namespace_and_a_name(service: str) -> None:
    with pytest.raises(UsageError, match="is not NAMESPACE/NAME"):
        checked([service])
    assert checked(["kube-system/kube-dns"]) == ("kube-system/kube-dns",)


def test_which_lines_concern_dns() -> None:
    assert concerns("", [])
    assert concerns("", ["a/b"])
    assert concerns("kube-system/CoreDNS:udp", [])
    assert not concerns("dns/web:http", [])  # a namespace is not a Service
    assert concerns("a/b:c", ["a/b"])
    assert not concerns("a/bb:c", ["a/b"])


def test_of_several_ports_the_one_asked_for_is_meant() -> None:
    known = {"1.1.1.1": {"a/x:metrics", "a/x:dns", "a/b:c"}}
    assert resolved("said/it:self", "1.1.1.1", known, []) == "said/it:self"
    assert resolved("", "1.1.1.1", known, []) == "a/x:dns"
    assert resolved("", "1.1.1.1", known, ["a/b"]) == "a/b:c"
    assert resolved("", "1.1.1.1", known, ["z/z"]) == "a/b:c"
    assert resolved("", "2.2.2.2", known, []) == ""


# --- notes


def test_many_names_are_cut_short() -> None:
    others = {f"a/s{index}:udp": 1 for index in range(7)}
    of_logs, note = notes([NodeFinding("n", Verdict.CLEAN, Basis.LOG, "", other_services=others)], [])
    assert of_logs.startswith("Clean is what the logs say")
    assert note.endswith(
        "a/s0:udp, a/s1:udp, a/s2:udp, a/s3:udp, a/s4:udp and others; judge them with --service NAMESPACE/NAME."
    )


# --- what is refused, and values


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"services": ("kube-dns",)}, "is not NAMESPACE/NAME"),
        ({"signatures": ("NOPE",)}, "is not in the catalogue"),
        ({"signatures": ("START_VERSION",)}, "is not a failure"),
        ({"kube_proxy_version": "latest"}, "is not a kube-proxy version"),
        ({"since": timedelta(1), "since_time": NOON}, "exclude each other"),
        ({"paths": ("/nowhere/at/all",)}, "no such file or directory"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find(tmp_path, {"node-a/kube-proxy.log": healthy()}, **options)


def test_a_time_that_is_not_there_stays_away() -> None:
    assert timestamp(None) is None
    assert timestamp(NOON) == "2026-03-12T12:00:00.000000Z"
