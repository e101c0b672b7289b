"""find-affected on a cluster: every node in scope is in the report once, with the verdict that its log proves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdnsctl.cancel import INTERRUPTED, CancelScope
from kdnsctl.cluster.retries import NO_RETRIES
from kdnsctl.find import online
from kdnsctl.find.online import OnlineOptions, find_in_cluster
from kdnsctl.find.report import FindReport, NodeFinding, to_json
from kdnsctl.find.scope import Chosen
from kdnsctl.model import KdnsctlError, Reason, Scope, SilentReporter, UsageError, Verdict, exit_code_of
from tests.unit.cluster.apiserver import (
    Answer,
    Exchange,
    Server,
    chunks,
    chunks_then_reset,
    hang,
    recorded,
    reply,
    status,
)
from tests.unit.cluster.conftest import Connect
from tests.unit.cluster.test_kubeproxy import daemon_set, node, pod
from tests.unit.find.clusters import FORBIDDEN, PODS, SLICES, container_log, log_path, proxied, set_up
from tests.unit.find.composing import STATSD, bad, failure, healthy, list_failure, minutes, start, sync, verdicts

NOW = minutes(90)
UNREACHABLE = status(500, "InternalError", 'Get "https://10.0.0.1:10250/containerLogs/": dial tcp: i/o timeout')


@pytest.fixture
def find(api: Server, connect_to: Connect, scope: CancelScope) -> Callable[..., FindReport]:
    def find(*names: str, selector: str | None = None, within: CancelScope | None = None, **options: Any) -> FindReport:
        connection = connect_to(api, retry=NO_RETRIES, **options.pop("connecting", {}))
        now = options.pop("now", NOW)
        asked = OnlineOptions(chosen=Chosen(names, selector), **options)
        return find_in_cluster(asked, connection, scope=within or scope, reporter=SilentReporter(), now=now)

    return find


Find = Callable[..., FindReport]


def only(report: FindReport) -> NodeFinding:
    (finding,) = report.nodes
    return finding


def code_of(report: FindReport) -> int:
    return int(exit_code_of([finding.verdict for finding in report.nodes], report.coverage))


def one_node(api: Server, answer: Answer, **about: Any) -> None:
    nodes, pods = proxied("a", **about)
    set_up(api, nodes, pods, {"proxy-a": answer})


def test_a_failure_makes_a_node_suspect_and_a_whole_log_of_an_old_release_clean(api: Server, find: Find) -> None:
    nodes, pods = proxied("a", "b", "c")
    logs = {"proxy-a": container_log(healthy()), "proxy-b": container_log(bad()), "proxy-c": UNREACHABLE}
    set_up(api, nodes, pods, logs)
    report = find()
    assert verdicts(report) == {
        "b": "suspect/failureLogged",
        "c": "unknown/kubeletUnreachable",
        "a": "clean/nothingLogged",
    }
    assert [finding.name for finding in report.nodes] == ["b", "c", "a"]
    assert (report.coverage.in_scope, report.coverage.judged, report.coverage.unknown) == (3, 2, 1)
    assert (code_of(report), report.coverage.scope) == (3, Scope.FULL)
    assert report.cluster == f"here ({api.url})"
    assert report.services == ("kube-system/kube-dns",)
    assert report.nodes[0].kube_proxy.pods == ("proxy-b",)
    assert report.next_commands == (
        "kdnsctl find-affected --live b",
        "ssh b sudo conntrack -L -p udp --orig-dst 10.96.0.10 --reply-src 10.244.1.5",
    )
    assert report.nodes[2].reason == "no failure logged from 2026-03-12T12:00:00Z to 2026-03-12T13:30:00Z"


def test_the_report_is_as_its_schema_says(api: Server, find: Find, pytestconfig: pytest.Config) -> None:
    schema = json.loads((pytestconfig.rootpath / "docs/schemas/FindReport.schema.json").read_text())
    nodes, pods = proxied("a", "b")
    set_up(
        api, [*nodes, node("w", os="windows"), node("m")], pods, {"proxy-a": container_log(bad()), "proxy-b": FORBIDDEN}
    )
    jsonschema.validate(to_json(find(since=timedelta(hours=1))), schema)


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (UNREACHABLE, "kubeletUnreachable", "i/o timeout"),
        (FORBIDDEN, "forbidden", "you may not"),
        (recorded("log-empty-window"), "emptyLog", "the log is empty"),
        (recorded("log-pod-missing"), "podGone", "if it was replaced"),
        (chunks_then_reset(healthy().encode()), "cutOff", "closed the connection"),
        (chunks(b"unable to retrieve container logs for containerd://e788ff6eb312b2594610"), "kubeletError", "kubelet"),
        (chunks(healthy().encode()[:-10]), "cutOff", "in the middle of a line"),
        (
            container_log("2026-03-12T12:00:00.000000000Z exec /kube-proxy: no such file\n"),
            "noRecords",
            "no log records",
        ),
    ],
)
def test_a_node_whose_log_proves_nothing_is_unknown_with_its_reason(
    api: Server, find: Find, answer: Answer, code: str, said: str
) -> None:
    one_node(api, answer)
    report = find()
    finding = only(report)
    assert (finding.verdict, finding.reason_code) == (Verdict.UNKNOWN, code)
    assert said in finding.reason
    assert code_of(report) == 4


def test_a_node_that_does_not_answer_costs_its_own_time_only(api: Server, find: Find) -> None:
    nodes, pods = proxied("a", "b")
    set_up(api, nodes, pods, {"proxy-a": hang, "proxy-b": container_log(healthy())})
    report = find(connecting={"request_timeout": 2.0})
    assert verdicts(report) == {"a": "unknown/unreachable", "b": "clean/nothingLogged"}
    assert code_of(report) == 4


def test_a_failure_in_what_came_of_a_broken_log_makes_suspect(api: Server, find: Find) -> None:
    one_node(api, chunks_then_reset(bad().encode()))
    report = find()
    finding = only(report)
    assert (finding.verdict, finding.complete, code_of(report)) == (Verdict.SUSPECT, False, 3)
    assert [problem.code for problem in finding.problems] == ["cutOff"]


# --- the window


def test_a_log_rotated_away_or_of_a_new_pod_begins_inside_the_window(api: Server, find: Find) -> None:
    one_node(api, container_log(sync(minutes(30)) + sync(minutes(60))))
    report = find(since=timedelta(hours=1.5))
    finding = only(report)
    assert (finding.verdict, finding.reason_code, code_of(report)) == (Verdict.UNKNOWN, "logBegins", 4)
    assert finding.reason == "log begins at 2026-03-12T12:30:00Z, inside the window"


def test_a_silent_window_inside_the_covered_time_is_clean(api: Server, find: Find) -> None:
    one_node(api, container_log(healthy()))
    report = find(since=timedelta(minutes=20))
    assert verdicts(report) == {"a": "clean/nothingLogged"}
    assert report.since == minutes(70)
    span = only(report).span
    assert span is not None
    assert (span.first, span.last) == (minutes(0), NOW)


def test_without_a_window_a_note_says_since_when_clean_holds(api: Server, find: Find) -> None:
    nodes, pods = proxied("a", "b")
    logs = {"proxy-a": container_log(healthy()), "proxy-b": container_log(start(minutes(85)) + sync(minutes(86)))}
    set_up(api, nodes, pods, logs)
    note, unlogged = find().notes
    assert "the latest begins at 2026-03-12T13:25:00Z (b)" in note
    *others, young = find(since=timedelta(hours=1)).notes
    assert others == [unlogged]
    assert young.startswith("1 log begins inside the window")
    assert "without --since" in young
    windows = re.findall(r"--since-time (\S+?)\.?$", young)
    assert windows == ["2026-03-12T13:25:01Z"]
    covered = find(since_time=datetime.fromisoformat(windows[0]))
    assert [finding.verdict for finding in covered.nodes] == [Verdict.CLEAN, Verdict.CLEAN]


def test_what_no_log_shows_is_said_where_nothing_was_found(api: Server, find: Find) -> None:
    one_node(api, container_log(healthy()))
    (note,) = find(since=timedelta(hours=1)).notes
    assert "what kube-proxy left undone while it was down" in note
    api.on(log_path("proxy-a"), container_log(bad()))
    assert find().notes == ()


def test_a_failure_before_the_window_keeps_from_clean_unless_kube_proxy_started_again(api: Server, find: Find) -> None:
    one_node(api, container_log(bad()))
    assert verdicts(find(since_time=minutes(30))) == {"a": "unknown/failureBeforeWindow"}
    api.on(log_path("proxy-a"), container_log(bad() + start(minutes(61))))
    finding = only(find(since_time=minutes(30)))
    assert (finding.verdict, finding.reason_code) == (Verdict.CLEAN, "nothingLogged")
    assert finding.earlier_failures is not None


# --- the release


def test_the_images_tag_says_what_a_log_without_a_start_does_not(api: Server, find: Find) -> None:
    one_node(api, container_log(sync(minutes(0)) + sync(minutes(30))))
    finding = only(find())
    assert (finding.verdict, finding.kube_proxy.version) == (Verdict.CLEAN, "v1.27.3")


def test_an_image_by_digest_leaves_the_release_unknown_unless_it_is_given(api: Server, find: Find) -> None:
    one_node(api, container_log(sync(minutes(0))), image="registry/kube-proxy@sha256:0123")
    assert verdicts(find()) == {"a": "unknown/versionUnknown"}
    assert verdicts(find(kube_proxy_version="v1.30.8")) == {"a": "clean/nothingLogged"}


def test_from_1_32_on_a_silent_log_proves_nothing_and_a_failure_still_counts(api: Server, find: Find) -> None:
    new = "registry.k8s.io/kube-proxy:v1.33.1"
    one_node(api, container_log(healthy("v1.33.1")), image=new)
    report = find()
    assert verdicts(report) == {"a": "unknown/logProvesNothing"}
    assert any("1.32 and later" in note for note in report.notes)
    assert code_of(report) == 4
    api.on(log_path("proxy-a"), container_log(start(version="v1.33.1") + list_failure(minutes(1))))
    assert verdicts(find()) == {"a": "suspect/failureLogged"}


# --- which Service


def test_only_the_clusters_dns_services_make_suspect_whatever_others_are_called(api: Server, find: Find) -> None:
    other = "team-a/dns-cache:dns"
    one_node(api, container_log(start() + failure(minutes(1), other, "10.96.9.9") + sync(minutes(2))))
    finding = only(find())
    assert (finding.verdict, finding.other_services) == (Verdict.CLEAN, {other: 1})
    assert verdicts(find(services=("team-a/dns-cache",))) == {"a": "suspect/failureLogged"}


def test_where_services_may_not_be_read_names_decide_and_a_note_says_so(api: Server, find: Find) -> None:
    nodes, pods = proxied("a")
    log = start() + failure(minutes(1), STATSD, "10.96.0.50") + sync(minutes(2))
    set_up(api, nodes, pods, {"proxy-a": container_log(log)}, services=FORBIDDEN)
    report = find()
    assert verdicts(report) == {"a": "clean/nothingLogged"}
    assert any("The DNS Services cannot be read" in note for note in report.notes)
    assert report.services == ()


# --- nodes without a log


def test_windows_virtual_and_nodes_without_kube_proxy_by_design_are_not_applicable(api: Server, find: Find) -> None:
    nodes = [node("w", os="windows"), node("v", labels={"type": "virtual-kubelet"}), node("a")]
    set_up(api, nodes, [pod("proxy-a", on="a")], {"proxy-a": container_log(healthy())})
    report = find()
    assert verdicts(report) == {
        "a": "clean/nothingLogged",
        "v": "notApplicable/noKubeProxy",
        "w": "notApplicable/noKubeProxy",
    }
    assert (code_of(report), report.coverage.not_applicable) == (0, 2)


def test_with_cilium_instead_of_kube_proxy_nothing_is_to_be_judged(api: Server, find: Find) -> None:
    set_up(api, [node("a"), node("b")], [], sets=[daemon_set("cilium", labels={"k8s-app": "cilium"})])
    config = {"metadata": {}, "data": {"kube-proxy-replacement": "true"}}
    api.on(
        "/api/v1/namespaces/kube-system/configmaps/cilium-config", lambda e: e.send(200, json.dumps(config).encode())
    )
    report = find()
    assert {finding.verdict for finding in report.nodes} == {Verdict.NOT_APPLICABLE}
    assert "Cilium" in report.nodes[0].reason
    assert code_of(report) == 0


def test_a_missing_kube_proxy_is_a_fault_and_unknown(api: Server, find: Find) -> None:
    nodes, pods = proxied("a")
    kube_proxy = daemon_set("kube-proxy", labels={"k8s-app": "kube-proxy"})
    set_up(api, [*nodes, node("m")], pods, {"proxy-a": container_log(healthy())}, sets=[kube_proxy])
    report = find()
    assert verdicts(report) == {"m": "unknown/kubeProxyMissing", "a": "clean/nothingLogged"}
    assert any("a fault by itself" in note for note in report.notes)
    assert code_of(report) == 4


def test_an_embedded_kube_proxy_is_unknown_and_the_next_command_gets_its_log(api: Server, find: Find) -> None:
    set_up(api, [node("k", version="v1.30.1+k3s1")], [])
    report = find()
    assert (verdicts(report), code_of(report)) == ({"k": "unknown/embedded"}, 4)
    assert report.next_commands == (
        "ssh k sudo journalctl -o short-iso -u k3s-agent | kdnsctl find-affected --logs - --node k",
    )


def test_a_kube_proxy_that_does_not_run_is_never_clean(api: Server, find: Find) -> None:
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    set_up(api, [node("a")], [pod("proxy-a", on="a", state=waiting)], {"proxy-a": container_log(healthy())})
    report = find()
    finding = only(report)
    assert (finding.verdict, finding.reason_code, code_of(report)) == (Verdict.UNKNOWN, "notRunning", 4)
    assert "CrashLoopBackOff" in finding.reason


def test_an_empty_log_says_how_to_read_the_kubelets_and_then_does(api: Server, find: Find) -> None:
    one_node(api, recorded("log-empty-window"))
    assert find().next_commands == ("kdnsctl find-affected a --kubelet-logs",)
    file = "".join(line.partition(" ")[2] for line in bad().splitlines(keepends=True))
    api.on("/api/v1/nodes/a/proxy/logs/kube-proxy.log", chunks(file.encode()))
    assert verdicts(find(kubelet_logs=True)) == {"a": "suspect/failureLogged"}


# --- which nodes


def test_named_nodes_and_no_others_are_judged_each_once(api: Server, find: Find) -> None:
    nodes, pods = proxied("a", "b", "c")
    set_up(api, nodes, pods, {f"proxy-{name}": container_log(healthy()) for name in "abc"})
    report = find("c", "a", "c")
    assert [finding.name for finding in report.nodes] == ["a", "c"]
    assert log_path("proxy-b") not in {request.path for request in api.requests}


def test_a_selector_chooses_nodes(api: Server, find: Find) -> None:
    nodes = [node("a", labels={"pool": "x"}), node("b")]
    set_up(api, nodes, [pod("proxy-a", on="a"), pod("proxy-b", on="b")], {"proxy-a": container_log(healthy())})
    assert verdicts(find(selector="pool=x")) == {"a": "clean/nothingLogged"}
    with pytest.raises(UsageError, match="no node has pool=y in") as refused:
        find(selector="pool=y")
    assert "--show-labels" in refused.value.hint


def test_an_unknown_node_is_an_error_before_anything_is_read(api: Server, find: Find) -> None:
    nodes, pods = proxied("node-a", "node-b")
    set_up(api, nodes, pods)
    with pytest.raises(UsageError, match=r"no node node-x in .*; nothing was done") as caught:
        find("node-a", "node-x")
    assert "node-a" in caught.value.hint
    assert {request.path for request in api.requests} == {"/api/v1/nodes"}


def test_where_nodes_cannot_be_listed_the_scope_is_partial_and_never_exit_0(api: Server, find: Find) -> None:
    _, pods = proxied("a", "b")
    set_up(api, FORBIDDEN, pods, {"proxy-a": container_log(healthy()), "proxy-b": container_log(healthy())})
    report = find()
    assert verdicts(report) == {"a": "clean/nothingLogged", "b": "clean/nothingLogged"}
    assert (report.coverage.scope, code_of(report)) == (Scope.PARTIAL, 4)
    assert any("Nodes may not be listed" in note for note in report.notes)
    assert verdicts(find("z")) == {
        "z": "unknown/noKubeProxyPod",
        "a": "clean/nothingLogged",
        "b": "clean/nothingLogged",
    }
    with pytest.raises(KdnsctlError, match="which nodes have pool=x cannot be known"):
        find(selector="pool=x")


def test_where_pods_cannot_be_listed_every_node_is_unknown(api: Server, find: Find) -> None:
    set_up(api, [node("a"), node("b"), node("k", version="v1.30.1+k3s1"), node("w", os="windows")], FORBIDDEN)
    report = find()
    assert verdicts(report) == {
        "a": "unknown/forbidden",
        "b": "unknown/forbidden",
        "k": "unknown/embedded",
        "w": "notApplicable/noKubeProxy",
    }
    assert code_of(report) == 4


def test_where_neither_may_be_listed_named_nodes_are_unknown_and_no_nodes_are_an_error(api: Server, find: Find) -> None:
    set_up(api, FORBIDDEN, FORBIDDEN)
    assert verdicts(find("a")) == {"a": "unknown/forbidden"}
    with pytest.raises(KdnsctlError, match="no node can be found") as caught:
        find()
    assert "list nodes" in caught.value.hint


def test_a_cluster_without_nodes_is_an_error_not_health(api: Server, find: Find) -> None:
    set_up(api, [], [])
    with pytest.raises(UsageError, match="there are no nodes"):
        find()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"since": timedelta(1), "since_time": NOW}, "exclude each other"),
        ({"since_time": NOW + timedelta(hours=1)}, "in the future"),
        ({"signatures": ("NONSENSE",)}, "not in the catalogue"),
        ({"services": ("kube-dns",)}, "NAMESPACE/NAME"),
        ({"kube_proxy_version": "latest"}, "not a kube-proxy version"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_the_cluster_is_asked(
    api: Server, find: Find, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        find(**options)
    assert api.requests == []


# --- ending early


@pytest.mark.parametrize("end", [Reason("deadline", "not finished within 5m"), INTERRUPTED], ids=["deadline", "ctrl-c"])
def test_when_time_is_up_or_somebody_interrupts_what_is_known_is_reported(api: Server, find: Find, end: Reason) -> None:
    nodes, pods = proxied("a", "b", "c")
    with CancelScope(60) as within:

        def ending(exchange: Exchange) -> None:
            within.cancel(end)
            exchange.hang()

        set_up(api, nodes, pods, {"proxy-a": container_log(bad()), "proxy-b": ending, "proxy-c": hang})
        report = find(within=within, parallel=1)
        assert within.reason is end
    assert verdicts(report) == {"a": "suspect/failureLogged", "b": f"unknown/{end.code}", "c": f"unknown/{end.code}"}
    assert code_of(report) == 3


@pytest.mark.parametrize("where", ["judge_nodes", "_states", "in_order"])
def test_ctrl_c_beside_the_reading_of_nodes_keeps_what_their_logs_say(
    api: Server, find: Find, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    usual, times = getattr(online, where), list[int]()

    def once(*given: Any, **named: Any) -> Any:
        times.append(1)
        if len(times) == 1:
            raise KeyboardInterrupt
        return usual(*given, **named)

    nodes, pods = proxied("a", "b")
    set_up(api, nodes, pods, {"proxy-a": container_log(bad()), "proxy-b": container_log(healthy())})
    monkeypatch.setattr(online, where, once)
    with CancelScope(60) as within:
        report = find(within=within, live=where != "in_order")
        assert within.reason is INTERRUPTED
    assert verdicts(report) == {"a": "suspect/failureLogged", "b": "clean/nothingLogged"}
    told = {problem.code for finding in report.nodes for problem in finding.problems}
    assert told == (set() if where == "in_order" else {"cancelled"})
    again = "kdnsctl find-affected --live a"
    assert report.next_commands[0] == again


def test_where_no_table_can_be_judged_the_logs_still_are(api: Server, find: Find) -> None:
    nodes, pods = proxied("a")
    set_up(api, nodes, pods, {"proxy-a": container_log(bad())})
    api.on("/api/v1/namespaces/kube-system/services/kube-dns", FORBIDDEN)
    report = find(live=True)
    assert verdicts(report) == {"a": "suspect/failureLogged"}
    assert [problem.code for problem in only(report).problems] == ["forbidden"]
    assert any(note.startswith("No node's tables could be judged: you may not") for note in report.notes)


def test_a_deadline_before_the_nodes_are_known_is_an_error(api: Server, find: Find) -> None:
    set_up(api, hang, [])
    with CancelScope(0.2) as within, pytest.raises(KdnsctlError) as caught:
        find(within=within)
    assert caught.value.code == "deadline"
    assert str(caught.value) == (
        "the nodes and their kube-proxy could not be listed: not finished within 0.2s; no log was read"
    )


def test_warnings_of_the_server_are_said_once(api: Server, find: Find, notes: list[str]) -> None:
    nodes, pods = proxied("a", "b")

    def warned(exchange: Exchange) -> None:
        body = healthy().encode()
        exchange.send(200, body, "text/plain", [("Warning", '299 - "this goes away"')])

    set_up(api, nodes, pods, {"proxy-a": warned, "proxy-b": warned})
    find()
    assert notes == ["the API server warns: this goes away"]


def test_three_hundred_nodes(api: Server, find: Find) -> None:
    names = [f"n{number:03}" for number in range(300)]
    nodes, pods = proxied(*names)
    logs = {f"proxy-{name}": container_log(bad() if name.endswith("7") else healthy()) for name in names}
    set_up(api, nodes, pods, logs)
    report = find()
    assert [finding.name for finding in report.nodes if finding.verdict is Verdict.SUSPECT] == names[7::10]
    assert (report.coverage.in_scope, report.coverage.judged) == (300, 300)
    logs_read = [request.path for request in api.requests if request.path.endswith("/log")]
    assert sorted(logs_read) == sorted([log_path(f"proxy-{name}") for name in names] * 2)  # current and previous
    assert PODS in {request.path for request in api.requests}


def changed_at(api: Server, moment: str) -> None:
    """The endpoints of DNS, and when they last changed."""
    about = {"name": "kube-dns-x", "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": moment}}
    api.on(SLICES, reply({"metadata": {}, "items": [{"metadata": about, "addressType": "IPv4", "endpoints": []}]}))


# The log is one from 12:00 to 13:00, read at 13:30.
@pytest.mark.parametrize("window", [None, timedelta(minutes=80), timedelta(minutes=10)])
def test_who_logs_syncs_and_did_not_when_dns_changed_is_not_at_work(
    api: Server, find: Find, window: timedelta | None
) -> None:
    one_node(api, container_log(healthy()))
    changed_at(api, "2026-03-12T13:20:00Z")
    finding = only(find(since=window))
    assert (finding.verdict, finding.reason_code, finding.complete) == (Verdict.UNKNOWN, "notFollowing", False)
    assert "changed at 2026-03-12T13:20:00Z" in finding.reason
    assert "nothing since 2026-03-12T13:00:00Z" in finding.reason


@pytest.mark.parametrize(("moment", "seconds"), [("13:29:30", 31), ("13:29:00", 1), ("13:45:00", 61)])
@pytest.mark.parametrize("log", [healthy(), start()], ids=["v2", "v0"])
def test_after_a_change_just_now_no_silent_log_proves_health(
    api: Server, find: Find, moment: str, seconds: int, log: str
) -> None:
    one_node(api, container_log(log))
    changed_at(api, f"2026-03-12T{moment}Z")
    report = find()
    finding = only(report)
    assert (finding.verdict, finding.reason_code, finding.complete) == (Verdict.UNKNOWN, "justChanged", False)
    assert f"look again in {seconds} s; the node's tables tell now (--live)" in finding.reason
    assert "kdnsctl find-affected --live" in report.next_commands
    assert only(find(since=timedelta(minutes=10))).reason_code == "justChanged"


def test_who_has_logged_since_a_change_just_now_is_clean(api: Server, find: Find) -> None:
    one_node(api, container_log(healthy()))
    changed_at(api, "2026-03-12T13:00:00Z")
    finding = only(find(now=NOW - timedelta(minutes=29, seconds=55)))
    assert (finding.verdict, finding.reason_code) == (Verdict.CLEAN, "nothingLogged")


@pytest.mark.parametrize(
    ("moment", "log"),
    [
        ("2026-03-12T13:00:00Z", healthy()),  # it told of that sync
        ("2026-03-12T13:20:00Z", start()),  # at -v=0 it tells of none
        ("yesterday", healthy()),
        ("", healthy()),
    ],
)
def test_silence_is_no_reason_to_doubt_where_nothing_would_have_been_said(
    api: Server, find: Find, moment: str, log: str
) -> None:
    one_node(api, container_log(log))
    changed_at(api, moment)
    finding = only(find())
    assert (finding.verdict, finding.reason_code) == (Verdict.CLEAN, "nothingLogged")
    assert "to 2026-03-12T13:30:00Z" in finding.reason


def test_a_failure_counts_also_of_one_that_is_not_at_work(api: Server, find: Find) -> None:
    one_node(api, container_log(bad()))
    changed_at(api, "2026-03-12T13:20:00Z")
    finding = only(find())
    assert (finding.verdict, finding.complete) == (Verdict.SUSPECT, False)


KINDS: dict[str, Answer | None] = {
    "healthy": container_log(healthy()),
    "bad": container_log(bad()),
    "empty": recorded("log-empty-window"),
    "forbidden": FORBIDDEN,
    "unreachable": UNREACHABLE,
    "reset": chunks_then_reset(bad().encode()),
    "gone": recorded("log-pod-missing"),
    "windows": None,
    "virtual": None,
    "embedded": None,
    "missing": None,
}
NEVER_CLEAN = {*KINDS} - {"healthy"}


@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=8),
    listed=st.booleans(),
    parallel=st.integers(1, 5),
    data=st.data(),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_there_is_exactly_one_entry_for_each_node_in_scope(
    api: Server, find: Find, kinds: list[str], listed: bool, parallel: int, data: st.DataObject
) -> None:
    about = {f"n{number}": kind for number, kind in enumerate(kinds)}
    special: dict[str, dict[str, Any]] = {
        "windows": {"os": "windows"},
        "virtual": {"labels": {"type": "virtual-kubelet"}},
        "embedded": {"version": "v1.30.1+k3s1"},
    }
    nodes = [node(name, **special.get(kind, {})) for name, kind in about.items()]
    pods = [pod(f"proxy-{name}", on=name) for name, kind in about.items() if KINDS[kind]]
    logs = {f"proxy-{name}": answer for name, kind in about.items() if (answer := KINDS[kind])}
    named = data.draw(st.lists(st.sampled_from(sorted(about)), max_size=4))
    set_up(api, nodes if listed else FORBIDDEN, pods, logs)
    visible = {one.spec.node_name for one in pods}
    expected = (set(named) or set(about)) if listed else set(named) | visible
    if not expected:
        with pytest.raises(KdnsctlError, match="no node can be found"):
            find(*named, parallel=parallel)
        return
    report = find(*named, parallel=parallel)
    assert sorted(finding.name for finding in report.nodes) == sorted(expected)
    assert report.coverage.in_scope == len(expected)
    for finding in report.nodes:
        assert finding.reason
        assert finding.reason_code
        assert finding.verdict is not Verdict.CLEAN or about[finding.name] not in NEVER_CLEAN
    assert listed or code_of(report) != 0
