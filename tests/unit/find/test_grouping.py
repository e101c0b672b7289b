"""Many inputs, one node: what is put together, what is kept apart, what is left aside, and that nothing is lost."""

# ruff: noqa: E501 - records stay on one line

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdnsctl.find.report import FindReport, NodeFinding
from kdnsctl.logs.sources import documents, files, repeats
from kdnsctl.logs.sources.opening import ByteSource
from kdnsctl.model import UsageError, Verdict
from tests.unit.find.composing import (
    DNS,
    NOON,
    UUID,
    VIP,
    bad,
    cri,
    cut,
    failure,
    find,
    healthy,
    klog,
    kubelets,
    minutes,
    only,
    peer,
    restore_failure,
    said,
    start,
    sync,
    tree,
    verdicts,
)

LONG = "".join(sync(minutes(number / 60)) for number in range(4_000))


def counts(finding: NodeFinding) -> dict[str, int]:
    return {signature.id: signature.count for signature in finding.signatures}


def skipped(report: FindReport) -> dict[str, str]:
    return {Path(problem.source).name: problem.message for problem in report.skipped}


# --- one node from many inputs


def test_rotated_and_previous_logs_are_one_node(tmp_path: Path) -> None:
    report = find(
        tmp_path,
        {
            "node-a/kube-proxy.log.1": start() + failure(minutes(1)),
            "node-a/kube-proxy.log": sync(minutes(10)) + failure(minutes(11)),
            "node-a/kube-proxy.previous.log": start(minutes(-30)) + restore_failure(minutes(-20)),
        },
    )
    finding = only(report)
    assert counts(finding) == {"CT_DEL_ENDPOINT": 2, "IPT_RESTORE_FAIL": 1, "IPT_SYNC_FAILED": 1}
    assert finding.restarts == (minutes(-30), NOON)
    assert finding.span is not None
    assert (finding.span.first, finding.span.last) == (minutes(-30), minutes(11))
    assert len(finding.sources) == 3
    assert report.notes == ()


def test_a_tree_of_the_runtime_and_its_links_are_one_node(tmp_path: Path) -> None:
    containers = tmp_path / "node-a/var/log/containers"
    containers.mkdir(parents=True)
    (containers / f"kube-proxy-x7x2p_kube-system_kube-proxy-{'0a1b2c3d' * 8}.log").symlink_to(f"/{tree()}")
    report = find(tmp_path, {f"node-a/{tree()}": cri(bad()), f"node-a/{tree(name='1.log')}": cri(healthy())})
    finding = only(report)
    assert (finding.name, finding.name_from, finding.kube_proxy.pods) == ("node-a", "path", ("kube-proxy-x7x2p",))
    assert counts(finding) == {"CT_DEL_ENDPOINT": 1}


def test_a_window_can_be_covered_by_an_older_file(tmp_path: Path) -> None:
    logs = {"node-a/kube-proxy.log": sync(minutes(40)) + sync(minutes(90))}
    assert only(find(tmp_path, logs, since_time=minutes(30), kube_proxy_version="1.30.8")).reason_code == "logBegins"
    logs = {"node-a/kube-proxy.log.1": healthy()}
    assert only(find(tmp_path, logs, since_time=minutes(30))).verdict is Verdict.CLEAN


def test_the_same_records_in_two_formats_are_counted_once(tmp_path: Path) -> None:
    text = start() + failure(minutes(1)) + failure(minutes(2), endpoint="10.244.3.9") + restore_failure(minutes(3))
    plain = "".join(line.partition(" ")[2] + "\n" for line in text.splitlines())
    report = find(
        tmp_path,
        {
            f"node-a/{tree()}": cri(text),
            "node-a/kube-proxy.log": text,
            "node-a/kube-proxy.previous.log": text.replace("\n", "\r\n"),
            "node-a/kube-proxy/current.log": plain,
            "node-a/kube-proxy.old": start() + failure(minutes(1)),
        },
        year=2026,
    )
    finding = only(report)
    assert counts(finding) == {"CT_DEL_ENDPOINT": 2, "IPT_RESTORE_FAIL": 1, "IPT_SYNC_FAILED": 1}
    assert [peer.count for peer in finding.peers] == [1, 1]
    assert (finding.restart_count, len(finding.sources)) == (1, 5)
    assert len([note for note in report.notes if note.endswith("it is counted once.")]) == 4


def test_logs_that_overlap_in_part_are_noted(tmp_path: Path) -> None:
    files = {
        "node-a/kube-proxy.log": failure(minutes(1)) + failure(minutes(2)),
        "node-a/kube-proxy.log.1": start() + failure(minutes(1)),
    }
    report = find(tmp_path, files)
    assert counts(only(report)) == {"CT_DEL_ENDPOINT": 3}
    (note,) = report.notes
    assert note.startswith("node-a: ")
    assert note.endswith("repeats a part of the node's other logs; counts can be too high.")


def test_two_nodes_that_log_the_same_words_are_two(tmp_path: Path) -> None:
    report = find(tmp_path, {"node-a/kube-proxy.log": bad(), "node-b/kube-proxy.log": bad()})
    assert verdicts(report) == {"node-a": "suspect/failureLogged", "node-b": "suspect/failureLogged"}
    assert report.notes == ()


def test_many_repeats_are_noted_in_few_lines(tmp_path: Path) -> None:
    files = {f"node-{index}/{name}": bad() for index in range(4) for name in ("kube-proxy.log", "current.log", "0.log")}
    report = find(tmp_path, files)
    assert len(report.notes) == 6
    assert report.notes[-1] == "The same is so for 3 more logs that repeat others."


def test_a_failure_before_the_window_that_is_in_two_logs_is_one(tmp_path: Path) -> None:
    files = {"node-a/kube-proxy.log": bad(), "node-a/0.log": bad(), "node-a/kube-proxy.log.1": failure(minutes(-1))}
    earlier = only(find(tmp_path, files, since_time=minutes(30))).earlier_failures
    assert earlier is not None
    assert (earlier.count, earlier.last_seen, earlier.next_start) == (2, minutes(1), None)


@pytest.mark.parametrize("same", [True, False])
def test_logs_with_more_records_than_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    monkeypatch.setattr(repeats, "MOST_MARKS", 3)
    text = start() + "".join(failure(minutes(number)) for number in range(1, 6))
    report = find(
        tmp_path, {"node-a/kube-proxy.log": text, "node-a/0.log": text + ("" if same else failure(minutes(9)))}
    )
    assert counts(only(report)) == {"CT_DEL_ENDPOINT": 5 if same else 11}
    assert report.notes[0].endswith("counted once." if same else "counts can be too high.")


# --- whose it is


def test_what_kube_proxy_names_itself_holds_for_its_whole_folder(tmp_path: Path) -> None:
    report = find(
        tmp_path,
        {
            "rack7/kube-proxy.log.1": start(node="ip-10-0-0-1.ec2.internal") + sync(minutes(1)),
            "rack7/kube-proxy.log": failure(minutes(5)),
        },
    )
    finding = only(report)
    assert (finding.name, finding.name_from, finding.identified) == ("ip-10-0-0-1.ec2.internal", "flag", True)
    assert counts(finding) == {"CT_DEL_ENDPOINT": 1}


def test_an_unreadable_file_goes_to_the_node_that_its_folder_stands_for(tmp_path: Path) -> None:
    report = find(
        tmp_path, {"rack7/kube-proxy.log.1": start(node="n1") + sync(minutes(1)), "rack7/kube-proxy.log": b"PK\x03\x04"}
    )
    assert verdicts(report) == {"n1": "unknown/unsupported"}


def test_a_folder_in_which_two_nodes_name_themselves_is_neither(tmp_path: Path) -> None:
    report = find(
        tmp_path,
        {
            "both/kube-proxy.log.1": start(node="n1") + sync(minutes(1)),
            "both/kube-proxy.log.2": start(node="n2") + failure(minutes(1)),
            "both/kube-proxy.log": sync(minutes(5)),
        },
        kube_proxy_version="1.30.8",
    )
    assert verdicts(report) == {
        "n2": "suspect/failureLogged",
        "both": "clean/nothingLogged",
        "n1": "clean/nothingLogged",
    }


@pytest.mark.parametrize(
    ("more", "verdict"), [("", "unknown/severalNodes"), (failure(minutes(9)), "suspect/failureLogged")]
)
def test_lines_of_several_nodes_in_one_stream_are_nobodys(tmp_path: Path, more: str, verdict: str) -> None:
    mixed = start(node="n1") + sync(minutes(1)) + start(node="n2") + sync(minutes(1)) + more
    report = find(tmp_path, {"all/kube-proxy.log": mixed, "n2/kube-proxy.log": healthy()})
    assert verdicts(report) == {f"{tmp_path}/all/kube-proxy.log": verdict, "n2": "clean/nothingLogged"}
    mixture = next(finding for finding in report.nodes if not finding.identified)
    assert [problem.message for problem in mixture.problems] == ["lines of several nodes, not told apart: n1, n2"]


def test_a_folder_in_which_two_pods_worked_at_once_is_no_node(tmp_path: Path) -> None:
    report = find(
        tmp_path,
        {
            f"backup/{tree('kube-proxy-x7x2p')}": cri(healthy()),
            f"backup/{tree('kube-proxy-b4b4b')}": cri(bad()),
        },
    )
    assert verdicts(report) == {"kube-proxy-b4b4b": "suspect/failureLogged", "kube-proxy-x7x2p": "clean/nothingLogged"}
    assert not any(finding.identified for finding in report.nodes)
    assert report.next_commands == (f"conntrack -L -p udp --orig-dst {VIP} --reply-src 10.244.1.5",)


def test_one_pod_after_the_other_in_a_folder_is_one_node(tmp_path: Path) -> None:
    report = find(
        tmp_path,
        {
            f"node-a/{tree('kube-proxy-x7x2p')}": cri(healthy()),
            f"node-a/{tree('kube-proxy-b4b4b')}": cri(start(minutes(61)) + failure(minutes(62))),
        },
    )
    finding = only(report)
    assert (finding.name, finding.kube_proxy.pods) == ("node-a", ("kube-proxy-b4b4b", "kube-proxy-x7x2p"))


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        pytest.param(tree("kube-proxy-x7x2p"), tree("kube-proxy-b4b4b"), "versionUnknown", id="two pods"),
        pytest.param(
            tree("kube-proxy-node-a"),
            tree("kube-proxy-node-a").replace(UUID, f"2{UUID[1:]}"),
            "versionUnknown",
            id="a static pod and its successor",
        ),
        pytest.param("day1/kube-proxy.log", "day2/kube-proxy.log", "versionUnknown", id="two collections"),
        pytest.param(tree(name="0.log"), tree(name="1.log"), "nothingLogged", id="two containers of a pod"),
        pytest.param("kube-proxy.previous.log", "kube-proxy.log", "nothingLogged", id="the previous container"),
        pytest.param("kube-proxy.log.1.gz", "kube-proxy.log", "nothingLogged", id="rotated"),
    ],
)
def test_a_version_holds_for_the_kube_proxy_that_said_it(tmp_path: Path, first: str, second: str, code: str) -> None:
    named = "" if first.startswith("kube-proxy") or "var" in first else "var/log/"
    later = sync(minutes(90)) + sync(minutes(120))
    files: dict[str, str | bytes] = {f"node-a/{named}{first}": healthy("v1.30.8"), f"node-a/{named}{second}": later}
    if "var" in first:
        files = {name: cri(str(text)) for name, text in files.items()}
    elif first.endswith(".gz"):
        files[f"node-a/{first}"] = gzip.compress(healthy("v1.30.8").encode())
    assert verdicts(find(tmp_path, files)) == {
        "node-a": f"unknown/{code}" if code == "versionUnknown" else f"clean/{code}"
    }


def test_a_pod_that_another_input_places_is_placed(tmp_path: Path) -> None:
    report = find(
        tmp_path,
        {
            f"node-a/{tree()}": cri(healthy()),
            "saved/kube-proxy-x7x2p.log": start(minutes(80)) + failure(minutes(81)),
            "saved/kube-proxy-b4b4b.log": healthy(),
        },
    )
    assert verdicts(report) == {"node-a": "suspect/failureLogged", "kube-proxy-b4b4b": "clean/nothingLogged"}
    assert [finding.identified for finding in report.nodes] == [True, False]
    assert report.notes == ("1 log does not tell its node; it goes by pod or file name. Name the node with --node.",)


def test_streams_in_one_input_are_kept_apart(tmp_path: Path) -> None:
    def stern(pod: str, text: str) -> list[str]:
        return [f"{pod} kube-proxy {line}\n" for line in text.splitlines()]

    mixed = [
        line
        for pair in zip(stern("kube-proxy-x7x2p", bad()), stern("kube-proxy-b4b4b", healthy()), strict=True)
        for line in pair
    ]
    mixed.insert(
        2, "coredns-76f75df574-8kqhz coredns 2026-03-12T12:00:00.000000000Z [ERROR] plugin/errors: 2 i/o timeout\n"
    )
    report = find(tmp_path, {"stern.txt": "+ kube-proxy-x7x2p > kube-proxy\n" + "".join(mixed)})
    assert verdicts(report) == {"kube-proxy-x7x2p": "suspect/failureLogged", "kube-proxy-b4b4b": "clean/nothingLogged"}


def test_streams_of_other_pods_in_an_export_are_left_aside(tmp_path: Path) -> None:
    entries = [
        {"kubernetes": {"pod_name": pod, "host": node} if node else {"pod_name": pod}, "log": text}
        for pod, node, text in [
            ("kube-proxy-x7x2p", "node-a", klog(NOON, '"Version info" version="v1.27.3"', "server.go:872")),
            (
                "kube-proxy-x7x2p",
                "node-a",
                klog(
                    minutes(1),
                    f'"Failed to delete endpoint connections" err={peer(VIP, "10.244.1.5")} servicePortName="{DNS}"',
                    "cleanup.go:99",
                    "E",
                ),
            ),
            ("cert-manager-7d4b8c9f-x7x2p", "", klog(NOON, "Starting up", "main.go:1")),
        ]
    ]
    report = find(tmp_path, {"export.jsonl": "".join(json.dumps(entry) + "\n" for entry in entries)}, year=2026)
    assert verdicts(report) == {"node-a": "suspect/failureLogged"}
    assert skipped(report) == {"export.jsonl": "the log of pod cert-manager-7d4b8c9f-x7x2p"}


def test_an_option_names_what_nothing_else_names(tmp_path: Path) -> None:
    report = find(tmp_path, {"a.log": bad(), "kube-proxy-node-b.log": healthy()}, node="node-x")
    assert [(finding.name, finding.name_from) for finding in report.nodes] == [("node-x", "option"), ("node-b", "path")]


@pytest.mark.parametrize(
    ("paths", "name", "identified"),
    [
        pytest.param("home/ops/kube-proxy.log", "ops", False, id="a file"),
        pytest.param("home/ops", "ops", False, id="a directory"),
        pytest.param("home/ops/", "ops", False, id="a directory with a slash"),
        pytest.param("home/./ops", "ops", False, id="a directory with a dot"),
        pytest.param("home/ops/*.log", "ops", False, id="a glob in it"),
        pytest.param("home", "ops", True, id="the directory above"),
        pytest.param("home/*/kube-proxy.log", "ops", True, id="a glob above"),
        pytest.param(".", "ops", True, id="the working directory"),
        pytest.param("home home/ops/kube-proxy.log", "ops", True, id="the directory above, and a file"),
    ],
)
def test_a_folder_names_a_node_only_below_what_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: str, name: str, identified: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    finding = only(find(tmp_path, {"home/ops/kube-proxy.log": bad()}, paths=tuple(paths.split())))
    assert (finding.name, finding.identified) == (name, identified)
    absolute = tuple(f"{tmp_path}/{path}" for path in paths.split())
    assert only(find(tmp_path, {}, paths=absolute)).identified is identified
    finding = only(find(tmp_path, {}, paths=tuple(paths.split()), node="node-x"))
    assert (finding.name, finding.identified, finding.name_from) == ("node-x", True, "option")


def test_a_copy_of_a_nodes_files_names_it_wherever_it_is(tmp_path: Path) -> None:
    for path in ("node-a", f"node-a/{tree()}", "node-a/var/log"):
        finding = only(find(tmp_path, {f"node-a/{tree()}": cri(bad())}, paths=(f"{tmp_path}/{path}",)))
        assert (finding.name, finding.identified) == ("node-a", True)


def test_the_name_of_an_archive_is_no_nodes(tmp_path: Path) -> None:
    text = bad().encode()
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/ticket-4711.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("kube-proxy.log")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    for path, identified in (("in/ticket-4711.tar.gz", False), ("in", True)):
        finding = only(find(tmp_path, {}, paths=(f"{tmp_path}/{path}",)))
        assert (finding.name, finding.identified) == ("ticket-4711", identified)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"a/kube-proxy.log": start(node="n1") + sync(minutes(1))}, ["n1"]),
        ({"n1/kube-proxy.log": healthy(), "n2/kube-proxy.log": healthy()}, ["n1", "n2"]),
    ],
)
def test_a_name_that_contradicts_the_logs_is_said_and_not_believed(
    tmp_path: Path, files: dict[str, str | bytes], names: list[str]
) -> None:
    report = find(tmp_path, files, node="node-x")
    assert [finding.name for finding in report.nodes] == names
    contradictions = [note for note in report.notes if "--node node-x is not believed of " in note]
    assert [note.partition(":")[0] for note in contradictions] == names


def test_only_the_nodes_asked_for_are_reported(tmp_path: Path) -> None:
    files = {"node-a/kube-proxy.log": bad(), "node-b/kube-proxy.log": healthy("v1.30.3")}
    report = find(tmp_path, files, nodes=("node/node-a",))
    assert (verdicts(report), report.coverage.in_scope, report.notes) == ({"node-a": "suspect/failureLogged"}, 1, ())
    with pytest.raises(UsageError, match="no log of node-z in what was given") as refused:
        find(tmp_path, {}, nodes=("node-z",))
    assert refused.value.hint == "there are logs of node-a, node-b"


# --- what is no evidence


def test_the_kubelets_log_does_not_stretch_the_time_that_is_covered(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "node-a/var/log/kube-proxy.log": start(minutes(30)) + sync(minutes(60)),
        "node-a/var/log/kubelet.log": kubelets(minutes(-300)) + kubelets(minutes(300)),
        "node-a/var/log/unknown.log": kubelets(minutes(-300)) + kubelets(minutes(300)),
        "node-a/var/log/kubelet.log.gz": cut(kubelets(NOON) * 500),
    }
    report = find(tmp_path, files, since_time=NOON)
    assert verdicts(report) == {"node-a": "unknown/logBegins"}
    by_name = "nothing that only kube-proxy logs, and by its name the log of kubelet"
    assert skipped(report) == {
        "kubelet.log": by_name,
        "kubelet.log.gz": by_name,
        "unknown.log": "klog records, but nothing that only kube-proxy logs",
    }


def test_a_foreign_log_is_never_clean(tmp_path: Path) -> None:
    foreign = said(NOON, '"Version info" version="v1.27.3"', "server.go:200") + kubelets(minutes(1))
    assert verdicts(find(tmp_path, {"some.log": foreign}, kube_proxy_version="1.27")) == {
        f"{tmp_path}/some.log": "unknown/notKubeProxy"
    }
    report = find(tmp_path, {}, paths=(str(tmp_path / "some.log"),), node="node-a")
    assert verdicts(report) == {"node-a": "unknown/notKubeProxy"}


def test_a_quiet_log_in_kube_proxys_own_place_is_kube_proxys(tmp_path: Path) -> None:
    quiet = said(NOON, "watch of *v1.Service ended with: too old resource version", "reflector.go:462", "W")
    finding = only(find(tmp_path, {f"node-a/{tree()}": cri(quiet)}, kube_proxy_version="1.30.8"))
    assert (finding.verdict, finding.reason_code) == (Verdict.CLEAN, "nothingLogged")
    (tmp_path / f"node-a/{tree()}").unlink()
    finding = only(find(tmp_path, {"node-a/kube-proxy.log": quiet}, kube_proxy_version="1.30.8"))
    assert finding.reason_code == "notKubeProxy"  # a mere name is no proof


def test_other_containers_are_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[ByteSource] = []

    def counted(source: ByteSource) -> Iterator[bytes]:
        opened.append(source)
        return documents.chunks(source)

    monkeypatch.setattr(files, "chunks", counted)
    report = find(
        tmp_path,
        {
            f"node-a/{tree()}": cri(healthy()),
            f"node-a/{tree('coredns-76f75df574-8kqhz', 'coredns')}": cri(bad()),
            f"node-a/{tree('etcd-m1', 'etcd', '0.log.gz')}": cut(cri(bad())),
            "mg/namespaces/openshift-dns/pods/dns-default-2xx7q/dns/dns/logs/current.log": bad(),
        },
    )
    assert verdicts(report) == {"node-a": "clean/nothingLogged"}
    assert len(opened) == 1
    assert [problem.message for problem in report.skipped] == [
        "the log of container dns",
        "the log of container coredns",
        "the log of container etcd",
    ]


def test_another_container_named_on_the_command_line_is_read_and_not_clean(tmp_path: Path) -> None:
    path = tmp_path / f"node-a/{tree('kube-controller-manager-m1', 'kube-controller-manager')}"
    report = find(tmp_path, {str(path.relative_to(tmp_path)): cri(kubelets(NOON))}, paths=(str(path),))
    assert verdicts(report) == {"node-a": "unknown/notKubeProxy"}


def test_journals_of_other_units_are_left_aside(tmp_path: Path) -> None:
    journal = f"Mar 12 12:00:00 node-a kubelet[812]: {klog(NOON, 'x', 'kubelet.go:1')}\n"
    journal += 'Mar 12 12:00:01 node-a containerd[700]: time="2026-03-12T12:00:01Z" level=info\n'
    report = find(tmp_path, {"kind-worker/journal.log": journal, "node-a/kube-proxy.log": healthy()}, year=2026)
    assert verdicts(report) == {"node-a": "clean/nothingLogged"}
    assert skipped(report) == {"journal.log": "only what containerd, kubelet logged"}


def test_a_journal_of_k3s_is_kube_proxys_when_it_says_so(tmp_path: Path) -> None:
    lines = [
        klog(NOON, '"Version info" version="v1.27.3"', "server.go:872"),
        klog(minutes(1), '"SyncProxyRules complete" elapsed="31ms"'),
        klog(
            minutes(2),
            f'"Failed to delete endpoint connections" err={peer(VIP, "10.42.0.3")} servicePortName="{DNS}"',
            "cleanup.go:99",
            "E",
        ),
    ]
    journal = "".join(f"Mar 12 12:00:0{index} node-a k3s[812]: {line}\n" for index, line in enumerate(lines))
    finding = only(find(tmp_path, {"journal.txt": journal}, year=2026))
    assert (finding.name, finding.name_from, finding.verdict) == ("node-a", "field", Verdict.SUSPECT)
    assert finding.kube_proxy.version is None  # many components of k3s say a version


def test_a_bare_kube_proxy_in_a_journal_is_known_by_its_unit(tmp_path: Path) -> None:
    line = klog(NOON, "watch of *v1.Service ended", "reflector.go:462", "W")
    finding = only(find(tmp_path, {"journal.txt": f"Mar 12 12:00:00 node-a kube-proxy[812]: {line}\n"}, year=2026))
    assert (finding.name, finding.reason_code) == ("node-a", "versionUnknown")


def test_what_holds_no_log_is_skipped_and_nothing_else(tmp_path: Path) -> None:
    report = find(
        tmp_path,
        {
            "node-a/kube-proxy.log": healthy(),
            "node-a/metrics.txt": "kubeproxy_x 1\n",
            "node-a/kube-proxy-config.yaml": "mode: iptables\n",
            "node-b/kube-proxy.log": "Forwarding from 127.0.0.1:10249\n",
            "pods.json": json.dumps({"kind": "PodList", "items": []}),
        },
    )
    assert verdicts(report) == {"node-a": "clean/nothingLogged", "node-b": "unknown/noRecords"}
    assert skipped(report) == dict.fromkeys(("metrics.txt", "kube-proxy-config.yaml", "pods.json"), "no klog records")


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("unable to retrieve container logs for containerd://0a1b\n", "unable to retrieve container logs for containerd://0a1b"),
        ('Error from server (NotFound): pods "kube-proxy-x7x2p" not found\n', 'Error from server (NotFound): pods "kube-proxy-x7x2p" not found'),
        ("error: You must be logged in\nto the server \x1b[31m", "error: You must be logged in to the server ?[31m"),
        ('{\n "kind": "Status",\n "status": "Failure",\n "message": "pods \\"nope\\" not found",\n "code": 404\n}', 'pods "nope" not found'),
        ("rpc error: " + "x" * 500, "rpc error: " + "x" * 189 + "…"),
    ],
)  # fmt: skip
def test_a_saved_error_message_is_reported_as_what_it_is(tmp_path: Path, body: str, shown: str) -> None:
    report = find(tmp_path, {"node-a.log": body, "node-b/kube-proxy.log": healthy()})
    assert verdicts(report) == {f"{tmp_path}/node-a.log": "unknown/errorText", "node-b": "clean/nothingLogged"}
    assert report.nodes[0].reason == f"holds an error message instead of a log: {shown}"


TALK = 'Defaulted container "kube-proxy" out of: kube-proxy, kube-proxy-bootstrap (init)\n'


@pytest.mark.parametrize(
    ("first", "second", "body", "code"),
    [
        ("aks-1.log", "aks-2.log", f"{TALK}Error from server: dial tcp 10.0.0.5:10250: i/o timeout\n", "errorText"),
        ("n1/kube-proxy.txt", "n2/kube-proxy.txt", f"{TALK}error: no\n", "errorText"),
        ("n1/kube-proxy.txt", "n2/kube-proxy.txt", "bash: kubectl: command not found\n", "errorText"),
        ("n1/kube-proxy.txt", "n2/kube-proxy.txt", "-bash: line 1: kubectl: command not found\n", "errorText"),
        ("n1/kube-proxy.txt", "n2/kube-proxy.txt", "Permission denied (publickey).\n", "noRecords"),
        ("n1/out.txt", "n2/out.txt", "ssh: connect to host n2 port 22: No route to host\n", "noRecords"),
        ("n1.txt", "n2.txt", "ssh: connect to host n2 port 22: No route to host\n", "noRecords"),
        ("kube-proxy-n1.txt", "kube-proxy-n2.txt", "Connection closed by n2\n", "noRecords"),
    ],
)
def test_a_node_whose_file_holds_a_message_does_not_vanish(
    tmp_path: Path, first: str, second: str, body: str, code: str
) -> None:
    report = find(tmp_path, {first: healthy(), second: body})
    assert sorted(verdicts(report).values()) == ["clean/nothingLogged", f"unknown/{code}"]
    assert report.skipped == ()


@pytest.mark.parametrize("other", ["n1/metrics.txt", "n1/sub/metrics.txt", "notes.txt", "make.py"])
def test_small_files_that_stand_for_no_node_are_skipped(tmp_path: Path, other: str) -> None:
    report = find(tmp_path, {"n1/kube-proxy.txt": healthy(), other: "kubeproxy_x 1\n"})
    assert verdicts(report) == {"n1": "clean/nothingLogged"}
    assert len(report.skipped) == 1


@pytest.mark.parametrize(
    "body",
    [
        'Error from server (BadRequest): previous terminated container "kube-proxy" in pod "kube-proxy-x7x2p" not found\n',
        '{"kind":"Status","status":"Failure","message":"previous terminated container \\"kube-proxy\\" in pod \\"x\\" not found"}',
        '{"kind":"Pod"}',
        '{"kind":"Status"}',
        "{",
        "error: " + "x" * 5_000,
    ],
)
def test_that_there_was_no_previous_container_is_no_error(tmp_path: Path, body: str) -> None:
    report = find(tmp_path, {"node-a/kube-proxy.log": healthy(), "node-a/kube-proxy.previous.log": body})
    assert verdicts(report) == {"node-a": "clean/nothingLogged"}


def test_a_file_without_records_named_on_the_command_line_is_unknown(tmp_path: Path) -> None:
    report = find(tmp_path, {"metrics.txt": "kubeproxy_x 1\n"}, paths=(str(tmp_path / "metrics.txt"),))
    assert verdicts(report) == {f"{tmp_path}/metrics.txt": "unknown/noRecords"}


@pytest.mark.parametrize("names", [("metrics.txt", "x.json"), ()])
def test_no_log_at_all_is_a_usage_error(tmp_path: Path, names: tuple[str, ...]) -> None:
    tree_only = (
        {f"node-a/{tree('coredns-76f75df574-8kqhz', 'coredns')}": "x"} if not names else dict.fromkeys(names, "x\n")
    )
    with pytest.raises(UsageError, match="no log of kube-proxy in ") as refused:
        find(tmp_path, tree_only)
    looked = "2 files were" if names else "1 file was"
    assert refused.value.hint == f"{looked} looked at, and none is one"


# --- damage, and what is left of it


@pytest.mark.parametrize(("keep", "verdict"), [(0.95, "suspect"), (0.001, "unknown")])
def test_half_a_gzip_counts_as_far_as_it_goes(tmp_path: Path, keep: float, verdict: str) -> None:
    report = find(tmp_path, {"node-a/kube-proxy.log.gz": cut(start() + failure(minutes(1)) + LONG, keep)})
    finding = only(report)
    assert (finding.verdict, finding.complete) == (Verdict(verdict), False)
    # Where the text breaks off inside a record, that is told beside it.
    assert ("cutOff", f"{tmp_path}/node-a/kube-proxy.log.gz") in [
        (problem.code, problem.source) for problem in finding.problems
    ]
    assert {problem.code for problem in finding.problems} <= {"cutOff", "cutRecord"}


def test_one_unreadable_file_among_many_costs_one_node(tmp_path: Path) -> None:
    logs: dict[str, str | bytes] = {f"node-{index}/kube-proxy.log": healthy() for index in range(20)}
    logs["node-7/kube-proxy.log"] = b"7z\xbc\xaf\x27\x1c"
    os.mkfifo(tmp_path / "pipe")
    report = find(tmp_path, logs)
    said_of = verdicts(report)
    assert said_of.pop("node-7") == "unknown/unsupported"
    assert said_of.pop(f"{tmp_path}/pipe") == "unknown/notAFile"
    assert set(said_of.values()) == {"clean/nothingLogged"}
    assert (report.coverage.in_scope, report.coverage.judged, report.coverage.unknown) == (21, 19, 2)


def test_a_link_to_another_containers_missing_log_is_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "node-a/var/log/containers"
    folder.mkdir(parents=True)
    for name in ("coredns-76f75df574-8kqhz_kube-system_coredns", "kube-proxy-x7x2p_kube-system_kube-proxy"):
        (folder / f"{name}-{'0a1b2c3d' * 8}.log").symlink_to("/nowhere/0.log")
    report = find(tmp_path, {"node-b/kube-proxy.log": healthy()})
    assert verdicts(report) == {"node-a": "unknown/danglingLink", "node-b": "clean/nothingLogged"}
    assert [problem.code for problem in report.skipped] == ["danglingLink"]


def test_an_archive_with_hostile_names(tmp_path: Path) -> None:
    members = {
        "../../../etc/passwd": b"root:x:0:0\n",
        "/etc/cron.d/kube-proxy-node-a.log": bad().encode(),
        "$(touch pwned)/kube-proxy.log": bad().encode(),
        "node-b;reboot/kube-proxy.log": healthy().encode(),
        "-oProxyCommand=id/kube-proxy.log": restore_failure(minutes(1)).encode(),
        "\x1b[2J\n[bold]/kube-proxy.log": bad().encode(),
        "node-c/../node-d/kube-proxy.log": healthy().encode(),
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("node-e/kube-proxy.log")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
        archive.addfile(link)
    before = set(tmp_path.rglob("*"))
    report = find(tmp_path, {"bundle.tgz": packed.getvalue()})
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "bundle.tgz"}
    named = {finding.name: finding.verdict.value for finding in report.nodes if finding.identified}
    assert named == {"node-a": "suspect", "node-d": "clean", "node-e": "unknown"}
    unnamed = [finding for finding in report.nodes if not finding.identified]
    assert sorted(finding.verdict.value for finding in unnamed) == ["clean", "suspect", "suspect", "suspect"]
    assert all(finding.name.isprintable() and finding.name.startswith(str(tmp_path)) for finding in unnamed)
    for command in report.next_commands:
        assert not set(command) & set(";$`|&<>()\n"), command
    assert len(report.nodes) + len(report.skipped) == len(members) + 1


@pytest.mark.parametrize("field", ["n1; reboot", "-oProxyCommand=id", "$(id)", "N1", "a b", "n1."])
def test_a_name_from_a_log_gets_into_a_command_only_as_a_nodes_name(tmp_path: Path, field: str) -> None:
    record = {
        "nodeName": field,
        "podName": "kube-proxy-x7x2p",
        "containerName": "kube-proxy",
        "message": klog(
            NOON,
            f'"Failed to delete endpoint connections" err={peer(VIP, "10.244.1.5")} servicePortName="{DNS}"',
            "cleanup.go:99",
            "E",
        ),
    }
    report = find(tmp_path, {"stern.json": json.dumps(record) + "\n"})
    assert only(report).name == field
    assert report.next_commands == (f"conntrack -L -p udp --orig-dst {VIP} --reply-src 10.244.1.5",)


# --- the fixed denominator

KINDS: dict[str, str | bytes] = {
    "good": healthy(),
    "bad": bad(),
    "empty": "",
    "cut": cut(start() + LONG),
    "zip": b"PK\x03\x04",
    "foreign": kubelets(NOON),
    "text": "hello\n",
    "refused": "unable to retrieve container logs for containerd://0a1b\n",
}
PLACES = ("node-{}/kube-proxy.log", "kube-proxy-node-{}.log", "kube-proxy-b4b4{}.log", "some-{}.txt", "node-{}/kubelet.log", "node-{}/var/log/pods/kube-system_coredns-a_" + UUID + "/coredns/0.log")  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    inputs=st.dictionaries(
        st.tuples(st.sampled_from(PLACES), st.sampled_from("2456")),
        st.sampled_from(sorted(KINDS)),
        min_size=1,
        max_size=10,
    )
)
def test_every_input_is_in_one_place_and_every_node_is_counted(
    tmp_path_factory: pytest.TempPathFactory, inputs: dict[tuple[str, str], str]
) -> None:
    root = tmp_path_factory.mktemp("inputs")
    logs = {place.format(index): KINDS[kind] for (place, index), kind in inputs.items()}
    try:
        report = find(root, logs)
    except UsageError:
        # Nothing of kube-proxy, and nothing that could not be read.
        assert not {"good", "bad", "cut", "zip", "refused"} & {
            kind for (place, _), kind in inputs.items() if "coredns" not in place and "kubelet" not in place
        }
        return
    places = [source for finding in report.nodes for source in finding.sources]
    places += [problem.source for problem in report.skipped]
    assert sorted(places) == sorted(str(root / name) for name in logs)
    coverage = report.coverage
    assert coverage.in_scope == len(report.nodes) == coverage.judged + coverage.unknown + coverage.not_applicable
    assert len({finding.name for finding in report.nodes}) == len(report.nodes)
    for finding in report.nodes:
        kinds = {kind for (place, index), kind in inputs.items() if str(root / place.format(index)) in finding.sources}
        if "bad" in kinds:
            assert finding.verdict is Verdict.SUSPECT
        elif finding.verdict is Verdict.CLEAN:
            assert "good" in kinds
            assert not {"cut", "zip", "refused"} & kinds
        else:
            assert finding.verdict is Verdict.UNKNOWN
            assert finding.reason


def test_in_several_processes_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs: dict[str, str | bytes] = {
        "node-a/kube-proxy.log": bad(),
        "node-a/0.log": bad(),
        "node-b/kube-proxy.log.gz": cut(start() + LONG),
        f"node-b/{tree('coredns-a', 'coredns')}": "x",
    }
    monkeypatch.setattr(files, "cores", lambda: 2)
    here = find(tmp_path, logs, since=timedelta(hours=2))
    monkeypatch.setattr(files, "WORTH_PROCESSES", 1)
    assert find(tmp_path, {}, since=timedelta(hours=2)) == here
    assert counts(here.nodes[0]) == {"CT_DEL_ENDPOINT": 1}
