"""What may be said of one node from its log: every reason, what beats what, and what must never be called clean."""

# ruff: noqa: E501 - records stay on one line

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from kdnsctl.find.judge import NodeLog, Question, judge
from kdnsctl.find.report import EarlierFailures, to_json
from kdnsctl.logs.tally import Tally
from kdnsctl.model import Basis, Reason, Verdict
from tests.unit.find.composing import (
    DNS,
    NOON,
    NOW,
    STATSD,
    VIP,
    bad,
    cut,
    failure,
    find,
    healthy,
    klog,
    kubelets,
    list_failure,
    minutes,
    one,
    only,
    restore_failure,
    said,
    service_failure,
    service_port,
    start,
    sync,
    verdicts,
)

LONG = "".join(sync(minutes(number / 60)) for number in range(4_000))


@pytest.mark.parametrize(
    ("text", "verdict", "code"),
    [
        pytest.param(bad(), "suspect", "failureLogged", id="failure"),
        pytest.param(healthy(), "clean", "nothingLogged", id="nothing logged, 1.27"),
        pytest.param(healthy("v1.31.14"), "clean", "nothingLogged", id="nothing logged, 1.31"),
        pytest.param(healthy("v1.32.0"), "unknown", "logProvesNothing", id="nothing logged, 1.32"),
        pytest.param(sync(NOON), "unknown", "versionUnknown", id="nothing logged, no version"),
        pytest.param("", "unknown", "emptyLog", id="empty"),
        pytest.param("hello\nworld\n", "unknown", "noRecords", id="no klog"),
        pytest.param(kubelets(NOON), "unknown", "notKubeProxy", id="the kubelet's"),
        pytest.param(cut(start() + LONG), "unknown", "cutOff", id="half a gzip"),
        pytest.param(b"\x1f\x8b\x08\x00garbage, not deflate", "unknown", "damaged", id="damaged gzip"),
        pytest.param(b"PK\x03\x04rest", "unknown", "unsupported", id="zip"),
        pytest.param("unable to retrieve container logs for containerd://0a1b", "unknown", "errorText", id="error text"),
        pytest.param(start() + f"I0312 12:09:00.0       1 proxier.go:799] {'x' * (17 << 20)}\n", "unknown", "cutRecord", id="a line of 17 MiB"),
    ],
)  # fmt: skip
def test_every_reason(tmp_path: Path, text: str | bytes, verdict: str, code: str) -> None:
    finding = one(tmp_path, text, paths=(str(tmp_path / "node-a/kube-proxy.log"),))
    assert (finding.verdict, finding.reason_code) == (Verdict(verdict), code)
    assert finding.reason


def test_a_log_without_any_time_is_unknown(tmp_path: Path) -> None:
    # 31 February is no day, and nothing else dates the lines.
    text = klog(NOON, '"SyncProxyRules complete" elapsed="31ms"').replace("I0312", "I0231") + "\n"
    finding = one(tmp_path, text)
    assert (finding.verdict, finding.reason_code, finding.span) == (Verdict.UNKNOWN, "noTimes", None)


SUSPECT: dict[str, str | bytes] = {
    "cut off": cut(start() + failure(minutes(1)) + LONG, 0.9),
    "silent release": healthy("v1.36.2") + restore_failure(minutes(61)),
    "unknown release": sync(NOON) + restore_failure(minutes(1)),
    "no time": klog(NOON, '"nftables sync failed" err="exit status 1"', severity="E").replace("0312", "0231") + "\n",
}


@pytest.mark.parametrize("name", SUSPECT)
def test_a_failure_counts_however_little_the_log_is_worth_else(tmp_path: Path, name: str) -> None:
    finding = one(tmp_path, SUSPECT[name])
    assert finding.verdict is Verdict.SUSPECT
    assert finding.reason.startswith("logged 1x ")
    assert finding.complete is (name != "cut off")
    assert finding.basis is Basis.LOG


def test_a_failure_beats_every_problem() -> None:
    tally = Tally()
    log = NodeLog("node-a", tally, problems=[])
    assert judge(log, Question()).reason_code == "emptyLog"
    text = said(NOON, '"Failed to list conntrack entries" err="x"', "cleanup.go:56", "E").partition(" ")[2].encode()
    from kdnsctl.logs.signatures import recognise

    known = recognise(b"cleanup.go", b"Failed to list conntrack entries", structured=True)
    assert known is not None
    tally.hit(known, None, text.rstrip())
    assert judge(log, Question()).verdict is Verdict.SUSPECT


def test_the_reason_of_a_clean_node_says_of_which_time(tmp_path: Path) -> None:
    assert one(tmp_path, healthy()).reason == "no failure logged from 2026-03-12T12:00:00Z to 2026-03-12T13:00:00Z"
    finding = one(tmp_path, healthy(), since=timedelta(minutes=40))
    assert finding.reason == "no failure logged from 2026-03-12T12:20:00Z to 2026-03-12T13:00:00Z"


# --- releases


@pytest.mark.parametrize(
    ("text", "given", "code", "shown"),
    [
        pytest.param(sync(NOON), "1.31.2", "nothingLogged", "1.31", id="given, and the log tells"),
        pytest.param(sync(NOON), "1.31", "versionUnknown", "1.31", id="given, and not precisely"),
        pytest.param(sync(NOON), "v1.32.0", "logProvesNothing", "1.32", id="given, and the log proves nothing"),
        pytest.param(healthy("v1.36.2"), "1.30", "logProvesNothing", "1.36", id="the log says it better"),
        pytest.param(
            sync(NOON) + said(minutes(1), '"Finished reconciling conntrack entries" ipFamily="IPv4"', "cleanup.go:153"),
            "1.30", "logProvesNothing", "1.32+", id="wordings contradict what is given",
        ),
        pytest.param(
            said(NOON, "Stale udp service kube-system/kube-dns:dns -> 10.96.0.10", "proxier.go:858"),
            None, "nothingLogged", "1.7–1.20", id="wordings up to 1.20",
        ),
        pytest.param(
            said(NOON, '"Stale service" protocol="udp" servicePortName="a/dns:dns" clusterIP="1.1.1.1"', "proxier.go:823"),
            None, "versionUnknown", "1.21–1.26", id="wordings of 1.21 to 1.26",
        ),
        pytest.param(
            said(NOON, '"Newly-active UDP service may have stale conntrack entries" servicePortName="a/b:c"', "cleanup.go:51"),
            None, "versionUnknown", "1.27–1.31", id="wordings of 1.27 to 1.31",
        ),
        pytest.param(
            said(NOON, "Stale udp service a/b:c -> 10.96.0.10", "proxier.go:858") + sync(minutes(1)),
            None, "versionUnknown", "1.20+", id="two releases, the later one open",
        ),
        pytest.param(
            said(NOON, "Stale udp service a/b:c -> 10.96.0.10", "proxier.go:858") + sync(minutes(1)),
            "1.24", "nothingLogged", "1.20–1.24", id="two releases, the later one given",
        ),
        pytest.param(
            start(NOON, "v1.30.8") + start(minutes(5), "v1.33.1"), None, "logProvesNothing", "1.30–1.33", id="upgraded",
        ),
        pytest.param(
            start(NOON, "v1.30.8") + start(minutes(5), "v0.0.0-master+abc") + sync(minutes(9)),
            None, "versionUnknown", "1.23+", id="replaced by something that is no release",
        ),
        pytest.param(
            sync(NOON) + start(minutes(5), "v1.30.8"), None, "versionUnknown", "1.23+", id="nothing before the first start",
        ),
        pytest.param(sync(NOON) + start(minutes(5), "v1.30.8"), "1.31.2", "nothingLogged", "1.30–1.31", id="given for before it"),
        pytest.param(
            start(NOON, "v1.30.8")
            + said(minutes(9), '"Finished reconciling conntrack entries" ipFamily="IPv4"', "cleanup.go:153"),
            None, "logProvesNothing", "1.30+", id="upgraded, and the later start is missing",
        ),
    ],
)  # fmt: skip
def test_what_the_release_allows_to_say(tmp_path: Path, text: str, given: str | None, code: str, shown: str) -> None:
    finding = one(tmp_path, text, kube_proxy_version=given)
    assert (finding.reason_code, finding.kube_proxy.versions) == (code, shown)


def test_a_release_with_a_silent_bug_is_never_clean(tmp_path: Path) -> None:
    report = find(tmp_path, {"node-a/kube-proxy.log": healthy("v1.30.3"), "node-b/kube-proxy.log": healthy("v1.30.8")})
    assert verdicts(report) == {"node-a": "unknown/logProvesNothing", "node-b": "clean/nothingLogged"}
    assert report.nodes[0].reason == (
        "no failure logged, but v1.30.3 can leave stale entries without a line (kubernetes/kubernetes#127780)"
    )
    note, of_logs = report.notes
    assert of_logs.startswith("Clean is what the logs say")
    assert note.startswith("1 node runs a release of kube-proxy that can leave stale entries without logging anything")


def test_a_silent_release_that_was_replaced_before_the_window_does_not_matter_in_it(tmp_path: Path) -> None:
    text = start(NOON, "v1.30.3") + sync(minutes(5)) + start(minutes(10), "v1.30.8") + sync(minutes(60))
    assert one(tmp_path, text).reason_code == "logProvesNothing"
    assert one(tmp_path, text, since_time=minutes(9)).reason_code == "logProvesNothing"
    assert one(tmp_path, text, since_time=minutes(20)).verdict is Verdict.CLEAN


# --- Services


def test_without_a_service_it_is_dns_that_counts(tmp_path: Path) -> None:
    finding = one(tmp_path, start() + failure(minutes(1), STATSD, "10.96.81.203"))
    assert (finding.verdict, finding.other_services) == (Verdict.CLEAN, {STATSD: 1})
    assert finding.reason.endswith(f"; failures were logged for {STATSD}")
    assert not finding.signatures


@pytest.mark.parametrize(
    "service",
    [DNS, "kube-system/rke2-coredns-rke2-coredns:udp-53", "openshift-dns/dns-default:dns", "infra/resolver:dns"],
)
def test_dns_has_many_names(tmp_path: Path, service: str) -> None:
    assert one(tmp_path, start() + failure(minutes(1), service)).verdict is Verdict.SUSPECT


def test_another_service_can_be_asked_for(tmp_path: Path) -> None:
    text = start() + failure(minutes(1)) + failure(minutes(2), STATSD, "10.96.81.203")
    finding = one(tmp_path, text, services=("monitoring/statsd",))
    assert finding.verdict is Verdict.SUSPECT
    assert [(peer.service, peer.vip) for peer in finding.peers] == [(STATSD, "10.96.81.203")]
    assert finding.other_services == {DNS: 1}


@pytest.mark.parametrize(
    ("lines", "verdict", "others"),
    [
        pytest.param("", "suspect", {}, id="nothing ties the address to a Service"),
        pytest.param(service_port(NOON, DNS, VIP), "suspect", {}, id="to DNS"),
        pytest.param(service_port(NOON, STATSD, VIP), "clean", {STATSD: 1}, id="to another"),
        pytest.param(failure(NOON, STATSD), "clean", {STATSD: 2}, id="to another, by a peer"),
        pytest.param(
            service_port(NOON, "infra/resolver:dns", VIP) + service_port(NOON, "infra/resolver:metrics", VIP, "9153/TCP"),
            "suspect", {}, id="to one with several ports, one of them dns",
        ),
        pytest.param(
            said(NOON, f'"Failed to delete endpoint connections for LoadBalancerIP" err="x" servicePortName="{STATSD}" '
                 f'loadBalancerIP="{VIP}"', "cleanup.go:108", "E"),
            "suspect", {STATSD: 1}, id="an external address can be shared",
        ),
    ],
)  # fmt: skip
def test_a_failure_that_names_an_address_only(tmp_path: Path, lines: str, verdict: str, others: dict[str, int]) -> None:
    finding = one(tmp_path, start() + lines + service_failure(minutes(3)))
    assert (finding.verdict, finding.other_services) == (Verdict(verdict), others)


def test_failures_about_no_service_always_count(tmp_path: Path) -> None:
    finding = one(tmp_path, start() + restore_failure(minutes(1)), services=("monitoring/statsd",))
    assert [signature.id for signature in finding.signatures] == ["IPT_RESTORE_FAIL", "IPT_SYNC_FAILED"]


# --- signatures


def test_asking_for_one_signature_leaves_no_room_for_clean(tmp_path: Path) -> None:
    finding = one(tmp_path, bad(), signatures=("IPT_RESTORE_FAIL",))
    assert (finding.verdict, finding.reason_code, finding.signatures) == (Verdict.UNKNOWN, "otherSignatures", ())
    finding = one(tmp_path, bad() + restore_failure(minutes(61)), signatures=("IPT_RESTORE_FAIL",))
    assert [(signature.id, signature.count) for signature in finding.signatures] == [("IPT_RESTORE_FAIL", 1)]


def test_failures_of_other_services_are_not_left_out_by_a_signature(tmp_path: Path) -> None:
    text = start() + failure(minutes(1), STATSD, "10.96.81.203")
    assert one(tmp_path, text, signatures=("IPT_RESTORE_FAIL",)).verdict is Verdict.CLEAN


# --- windows


@pytest.mark.parametrize(
    ("since", "verdict", "code"),
    [
        (minutes(-1), "unknown", "logBegins"),
        (NOON, "suspect", "failureLogged"),
        (minutes(1), "suspect", "failureLogged"),
        (minutes(1.5), "unknown", "failureBeforeWindow"),
        (minutes(60), "unknown", "failureBeforeWindow"),
        (minutes(60.5), "unknown", "failureBeforeWindow"),
    ],
)
def test_an_absolute_window(tmp_path: Path, since: object, verdict: str, code: str) -> None:
    text = start() + failure(minutes(1)) + sync(minutes(60)) if since != minutes(-1) else healthy()
    finding = one(tmp_path, text, since_time=since)
    assert (finding.verdict, finding.reason_code) == (Verdict(verdict), code)


def test_a_log_that_ends_before_the_window_is_unknown(tmp_path: Path) -> None:
    assert one(tmp_path, healthy(), since_time=minutes(60.5)).reason_code == "logEnds"


def test_a_failure_before_the_window_lives_on(tmp_path: Path) -> None:
    text = (
        start() + failure(minutes(1)) + failure(minutes(2)) + failure(minutes(2), STATSD, "1.1.1.1") + sync(minutes(60))
    )
    report = find(tmp_path, {"node-a/kube-proxy.log": text}, since_time=minutes(30))
    finding = only(report)
    assert finding.reason == (
        "2 failures were logged before the window, the last at 2026-03-12T12:02:00Z, and kube-proxy did not start again "
        "since: what was left then may be there still"
    )
    assert (finding.signatures, finding.restarts, finding.earlier_failures) == (
        (),
        (),
        EarlierFailures(2, minutes(2), None),
    )
    assert to_json(report)["nodes"][0]["earlierFailures"] == {
        "count": 2, "lastSeen": "2026-03-12T12:02:00.000000Z", "nextStart": None,
    }  # fmt: skip
    assert one(tmp_path, text).earlier_failures is None


@pytest.mark.parametrize("at", [20, 40])
def test_a_start_after_a_failure_before_the_window_heals(tmp_path: Path, at: int) -> None:
    text = start() + failure(minutes(1)) + start(minutes(at)) + start(minutes(50)) + sync(minutes(60))
    report = find(tmp_path, {"node-a/kube-proxy.log": text}, since_time=minutes(30))
    finding = only(report)
    assert (finding.verdict, finding.earlier_failures) == (Verdict.CLEAN, EarlierFailures(1, minutes(1), minutes(at)))
    assert finding.reason.endswith(
        f"; 1 failure was logged before the window, at 2026-03-12T12:01:00Z, but kube-proxy started again at 2026-03-12T12:{at}:00Z"
    )
    of_logs, note = report.notes
    assert of_logs.startswith("Clean is what the logs say")
    assert note.startswith("1 clean node failed before the window (node-a); kube-proxy started again since")


def test_the_second_half_of_a_start_is_no_later_start(tmp_path: Path) -> None:
    text = start().replace("12:00:01", "12:00:40") + failure(minutes(0.5)) + sync(minutes(60))
    assert one(tmp_path, text, since_time=minutes(0.6)).reason_code == "failureBeforeWindow"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param(start() + failure(minutes(1), STATSD, "1.1.1.1") + sync(minutes(60)), "nothingLogged", id="another Service"),
        pytest.param(
            start() + service_port(NOON, STATSD, VIP) + service_failure(minutes(1)) + sync(minutes(60)),
            "nothingLogged", id="another Service by its address",
        ),
        pytest.param(start() + restore_failure(minutes(1)) + sync(minutes(60)), "failureBeforeWindow", id="no Service"),
        pytest.param(start(version="v1.32.0") + list_failure(minutes(1)) + sync(minutes(60)), "failureBeforeWindow", id="1.32"),
        pytest.param(bad() + failure(minutes(61)), "failureLogged", id="one in the window as well"),
    ],
)  # fmt: skip
def test_which_failures_before_the_window_matter(tmp_path: Path, text: str, code: str) -> None:
    assert one(tmp_path, text, since_time=minutes(30)).reason_code == code


def test_a_signature_does_not_hide_a_failure_before_the_window(tmp_path: Path) -> None:
    finding = one(tmp_path, bad(), since_time=minutes(30), signatures=("IPT_RESTORE_FAIL",))
    assert finding.reason_code == "failureBeforeWindow"


def test_a_failure_in_a_window_that_is_not_covered_counts(tmp_path: Path) -> None:
    assert one(tmp_path, bad(), since_time=minutes(-600)).verdict is Verdict.SUSPECT


def test_a_version_said_before_the_window_holds_in_it(tmp_path: Path) -> None:
    finding = one(tmp_path, healthy(), since_time=minutes(15))
    assert (finding.verdict, finding.kube_proxy.version, finding.restart_count) == (Verdict.CLEAN, "v1.27.3", 0)


def test_a_relative_window_counts_from_the_newest_record_of_all(tmp_path: Path) -> None:
    files = {
        "node-a/kube-proxy.log": bad(),
        "node-b/kube-proxy.log": start(minutes(-300)) + sync(minutes(180)),
        "node-c/kube-proxy.log": start(minutes(100)) + sync(minutes(180)),
        "node-d/kube-proxy.log": start(minutes(-300)) + failure(minutes(170)),
    }
    report = find(tmp_path, files, since=timedelta(hours=2, minutes=30))
    assert report.since == minutes(30)
    assert verdicts(report) == {
        "node-a": "unknown/failureBeforeWindow",
        "node-b": "clean/nothingLogged",
        "node-c": "unknown/logBegins",
        "node-d": "suspect/failureLogged",
    }


def test_other_files_do_not_move_a_relative_window(tmp_path: Path) -> None:
    files = {"node-a/kube-proxy.log": bad(), "node-a/kubelet.log": kubelets(minutes(3000))}
    assert find(tmp_path, files, since=timedelta(hours=1)).since == NOON
    assert find(tmp_path, {}, since=timedelta(hours=1)).nodes[0].verdict is Verdict.SUSPECT


def test_a_relative_window_on_logs_without_times_ends_now(tmp_path: Path) -> None:
    report = find(tmp_path, {"node-a/kube-proxy.log": ""}, since=timedelta(hours=1))
    assert report.since == NOW
    assert only(report).reason_code == "emptyLog"


def test_stdin_can_be_judged_relative_to_its_end(tmp_path: Path) -> None:
    options = {"paths": ("-",), "node": "node-a", "since": timedelta(minutes=70), "stdin": bad().encode()}
    finding = only(find(tmp_path, {}, **options))
    assert (finding.name, finding.name_from, finding.verdict) == ("node-a", "option", Verdict.SUSPECT)
    finding = only(find(tmp_path, {}, **{**options, "since": timedelta(minutes=30)}))
    assert finding.reason_code == "failureBeforeWindow"


def test_a_window_does_not_make_a_log_that_ends_early_clean(tmp_path: Path) -> None:
    files = {"node-a/kube-proxy.log": healthy(), "node-b/kube-proxy.log": start(minutes(200)) + sync(minutes(300))}
    report = find(tmp_path, files, since=timedelta(hours=2))
    assert verdicts(report) == {"node-a": "unknown/logEnds", "node-b": "unknown/logBegins"}


# --- what else is told


def test_peers_causes_and_entries_are_told(tmp_path: Path) -> None:
    quoted = "udp      17 23 src=10.244.2.7 dst=10.96.0.10 sport=34152 dport=53 [UNREPLIED] src=10.244.1.5 ..."
    text = failure(minutes(1)).replace("conntrack v1.4.7", f"{quoted}\\\\nconntrack v1.4.7")
    finding = one(tmp_path, start() + text + failure(minutes(2)) + failure(minutes(3), endpoint="10.244.3.9"))
    assert [(peer.endpoint, peer.count, peer.first_seen, peer.last_seen) for peer in finding.peers] == [
        ("10.244.1.5", 2, minutes(1), minutes(2)),
        ("10.244.3.9", 1, minutes(3), minutes(3)),
    ]
    assert [(cause.id, cause.count) for cause in finding.causes] == [("enoentRace", 3)]
    assert finding.embedded_entries is not None
    assert (finding.embedded_entries.count, finding.embedded_entries.clients) == (1, ("10.244.2.7",))
    assert finding.embedded_entries.complete


def test_an_unknown_cause_comes_last_with_its_example(tmp_path: Path) -> None:
    other = failure(minutes(1)).replace("such conntrack doesn't exist", "the moon is full")
    finding = one(tmp_path, start() + other + other.replace("12:01", "12:02") + failure(minutes(3)))
    assert [(cause.id, cause.count) for cause in finding.causes] == [("enoentRace", 1), ("other", 2)]
    assert "the moon is full" in finding.causes[1].example
    assert finding.causes[1].meaning == "not in the catalogue; see the example"


def test_a_failure_of_1_32_names_no_peer(tmp_path: Path) -> None:
    finding = one(tmp_path, start(version="v1.33.2") + list_failure(minutes(2)))
    assert (finding.verdict, finding.peers, finding.reason) == (Verdict.SUSPECT, (), "logged 1x CT_LIST_FAIL")


def test_reasons_are_values() -> None:
    assert Reason("a", "b") == Reason("a", "b", error=ValueError())
