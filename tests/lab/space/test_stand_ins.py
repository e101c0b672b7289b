"""The parts of the stand-ins that need no kernel: names, words, logs, messages, against recordings and examples."""

# ruff: noqa: PLE1205 - Klog is no logger of the logging module
from __future__ import annotations

import io
import json
import re
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from kdnsctl.lab import dns as lab_dns
from kdnsctl.lab import images, kubeproxyclean
from kdnsctl.lab.clients import Counters, ask
from kdnsctl.lab.container import Launch, Mount, StartError, find_executable, resolve_inside
from kdnsctl.lab.kubeproxylog import Klog, Version, go_duration
from kdnsctl.lab.kubeproxyrules import (
    Endpoint,
    ServicePort,
    endpoint_chain,
    render,
    service_chain,
    slice_endpoints,
    used_endpoints,
)
from kdnsctl.lab.measure import Success
from kdnsctl.lab.netlink import Entry, Tuple
from kdnsctl.lab.nodefaults import Fault, inject, lift
from kdnsctl.lab.podlogs import ContainerLog, LogOptions, LogReader
from kdnsctl.lab.podspec import capabilities, expand
from kdnsctl.lab.spacedir import LabError, lab_dir

DNS = ServicePort("kube-system/kube-dns:dns", "UDP", "10.96.0.10", 53)
DNS_TCP = ServicePort("kube-system/kube-dns:dns-tcp", "TCP", "10.96.0.10", 53)


def endpoint(ip: str, *, ready: bool = True, serving: bool = True) -> Endpoint:
    return Endpoint(ip, 53, ready, serving)


class TestRules:
    def test_chain_names_are_kube_proxys(self) -> None:
        assert service_chain(DNS) == "KUBE-SVC-TCOU7JCQXEZGVUNU"
        assert service_chain(DNS_TCP) == "KUBE-SVC-ERIFXISQEP7F7OF4"
        metrics = ServicePort("kube-system/kube-dns:metrics", "TCP", "10.96.0.10", 9153)
        assert service_chain(metrics) == "KUBE-SVC-JD5MR3NA4I4DYORP"
        assert endpoint_chain(DNS, endpoint("10.244.0.2")) == "KUBE-SEP-YIL6JZP7A3QYXJU2"

    def test_the_recorded_nodes_rules_come_out_again(self) -> None:
        """Same Services and endpoints as on the recorded node: the same chains, and the same rules in them."""
        api = ServicePort("default/kubernetes:https", "TCP", "10.96.0.1", 443)
        backends = [endpoint("10.244.1.2"), endpoint("10.244.2.2")]
        endpoints = {
            (DNS.name, "UDP"): backends,
            (DNS_TCP.name, "TCP"): backends,
            (api.name, "TCP"): [Endpoint("10.88.0.1", 6443, ready=True, serving=True)],
        }
        recorded = Path("tests/recordings/node/iptables-nft-save-stale.txt").read_text().partition("*nat\n")[2]
        ours = render([DNS, DNS_TCP, api], endpoints, "").text.partition("*nat\n")[2]

        def chains(text: str) -> set[str]:
            return {name for name in re.findall(r"^:(\S+)", text, re.MULTILINE) if name.startswith("KUBE-")}

        def jumps(text: str) -> list[str]:
            """Which chain leads to which, in order; the rest of a rule is written differently by iptables-save."""
            return sorted(re.findall(r"-A (KUBE-S\S+ ).*(-j KUBE-S\S+|--to-destination \S+)", text))

        assert chains(recorded) - chains(ours) == {"KUBE-KUBELET-CANARY"}
        assert chains(ours) <= chains(recorded)
        assert jumps(ours) == jumps(recorded)

    def test_a_service_without_endpoints_is_rejected_in_filter(self) -> None:
        text = render([DNS], {}, "").text
        assert '-A KUBE-SERVICES -m comment --comment "kube-system/kube-dns:dns has no endpoints"' in text
        assert "KUBE-SVC-TCOU7JCQXEZGVUNU" not in text

    def test_odds_are_even(self) -> None:
        three = {(DNS.name, "UDP"): [endpoint(f"10.244.1.{number}") for number in (2, 3, 4)]}
        assert re.findall(r"--probability ([\d.]+)", render([DNS], three, "").text) == ["0.3333333333", "0.5000000000"]

    def test_dead_chains_are_deleted_and_jumps_are_made_once(self) -> None:
        jump = '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
        saved = f"*nat\n:KUBE-SEP-OLDOLDOLDOLDOLDO - [0:0]\n{jump}\nCOMMIT\n"
        text = render([DNS], {(DNS.name, "UDP"): [endpoint("10.244.1.2")]}, saved).text
        assert "-X KUBE-SEP-OLDOLDOLDOLDOLDO" in text
        nat = text.partition("*nat\n")[2]
        assert "-I OUTPUT" not in nat
        assert "-I PREROUTING 1" in nat

    def test_terminating_endpoints_are_used_only_when_nothing_else_serves(self) -> None:
        going = endpoint("10.244.1.2", ready=False)
        assert used_endpoints([going, endpoint("10.244.1.3")]) == [endpoint("10.244.1.3")]
        assert used_endpoints([going]) == [going]

    def test_slices_are_read_as_recorded(self) -> None:
        recorded = json.loads(Path("tests/recordings/api/endpointslices-kube-dns.json").read_text())["items"][0]
        found = slice_endpoints(recorded)
        assert {each.text for each in found["kube-system/kube-dns:dns", "UDP"]} == {"10.244.2.2:53", "10.244.1.2:53"}


class TestCleaning:
    def test_what_stopped_serving_is_stale(self) -> None:
        old = {(DNS.name, "UDP"): {endpoint("10.244.1.2"), endpoint("10.244.1.3")}}
        new = {(DNS.name, "UDP"): {endpoint("10.244.1.3", ready=False), endpoint("10.244.1.4")}}
        stale = kubeproxyclean.find_stale(old, new, [DNS, DNS_TCP])
        assert [each.ip for _, each in stale.endpoints] == ["10.244.1.2"]
        assert stale.services == ()

    def test_a_service_with_its_first_endpoint_is_flushed(self) -> None:
        stale = kubeproxyclean.find_stale({}, {(DNS.name, "UDP"): {endpoint("10.244.1.2")}}, [DNS])
        assert stale.services == (DNS,)

    @pytest.mark.parametrize(
        ("reply", "endpoints", "expected"),
        [
            ("10.244.1.9", ["10.244.1.2"], True),
            ("10.244.1.2", ["10.244.1.2"], False),
            ("10.96.0.10", ["10.244.1.2"], True),
            ("10.244.1.9", [], False),  # kubernetes#139628
        ],
    )
    def test_the_reconcilers_rule(self, reply: str, endpoints: list[str], expected: bool) -> None:
        entry = Entry(Tuple("10.244.1.7", "10.96.0.10", 20000, 53, 17), Tuple(reply, "10.244.1.7", 53, 20000, 17))
        current = {(DNS.name, "UDP"): [endpoint(ip) for ip in endpoints]}
        assert kubeproxyclean.is_stale(entry, [DNS], current) is expected

    @pytest.mark.parametrize(("expiring", "fails"), [(1, False), (1000, True)], ids=["by chance", "each time"])
    def test_an_entry_that_expires_in_the_middle_is_no_failure_unless_it_stays_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expiring: int, fails: bool
    ) -> None:
        program = tmp_path / "conntrack"
        program.write_text(
            f'#!/bin/sh\nfor left in "{tmp_path}"/left.*; do [ -e "$left" ] || break; /bin/rm "$left"\n'
            'echo "conntrack v1.4.7 (conntrack-tools): Operation failed: such conntrack doesn\'t exist" >&2; exit 1\n'
            "done\necho 'conntrack v1.4.7 (conntrack-tools): 2 flow entries have been deleted.' >&2\n"
        )
        program.chmod(0o755)
        for number in range(expiring):
            (tmp_path / f"left.{number}").touch()
        monkeypatch.setenv("PATH", str(tmp_path))
        log, out = TestWords.line("v1.30.14")
        stale = kubeproxyclean.Stale(((DNS, endpoint("10.244.1.2")),), ())
        kubeproxyclean.delete_by_command(stale, log)
        assert ("Failed to delete endpoint connections" in out.getvalue()) is fails


class TestWords:
    @staticmethod
    def line(version: str, *, as_json: bool = False) -> tuple[Klog, io.StringIO]:
        out = io.StringIO()
        return Klog(Version.parse(version), 2, as_json=as_json, out=out), out

    def test_the_posts_line(self) -> None:
        log, out = self.line("v1.30.14")
        error = 'error, error: conntrack command returned: "a\\n", error message: exit status 1'
        log.error(
            "delete_endpoint_failed",
            "Failed to delete endpoint connections",
            error,
            servicePortName="kube-system/kube-dns:dns",
        )
        header, _, message = out.getvalue().partition("] ")
        assert re.fullmatch(r"E\d{4} \d\d:\d\d:\d\d\.\d{6}       1 cleanup\.go:99", header)
        assert message == (
            '"Failed to delete endpoint connections" err="error, error: conntrack command returned: \\"a\\\\n\\", '
            'error message: exit status 1" servicePortName="kube-system/kube-dns:dns"\n'
        )

    def test_newlines_become_a_block(self) -> None:
        log, out = self.line("v1.36.2")
        log.error("restore_failed", "Failed to execute iptables-restore", "exit status 2: one\ntwo\n", ipFamily="IPv4")
        message = out.getvalue().partition("] ")[2]
        assert (
            message == '"Failed to execute iptables-restore" err=<\n\texit status 2: one\n\ttwo\n > ipFamily="IPv4"\n'
        )

    def test_json_has_err_last_and_no_level_for_errors(self) -> None:
        log, out = self.line("v1.36.2", as_json=True)
        log.error("clear_failed", "Failed to clear all conntrack entries", "no", ipFamily="IPv4", entriesDeleted=3)
        record = json.loads(out.getvalue())
        assert list(record) == ["ts", "caller", "msg", "ipFamily", "entriesDeleted", "err"]
        assert record["caller"] == "conntrack/cleanup.go:151"

    def test_verbosity_holds_back_and_can_be_raised(self) -> None:
        log, out = self.line("v1.30.14")
        log.info("clearing", "Clearing conntrack entries", 4)
        assert out.getvalue() == ""
        log.verbosity = 4
        log.info("clearing", "Clearing conntrack entries", 4, parameters=["-D", "-p", "udp"])
        assert out.getvalue().endswith('"Clearing conntrack entries" parameters=["-D","-p","udp"]\n')

    def test_versions_it_cannot_speak_as(self) -> None:
        with pytest.raises(ValueError, match=r"v1\.27\.1"):
            Version.parse("v1.27.1")
        assert [Version.parse(text).reconciles for text in ("v1.31.14", "v1.32.0")] == [False, True]

    @pytest.mark.parametrize(("seconds", "text"), [(0.220597617, "220.597617ms"), (30.0, "30s"), (1.5, "1.5s")])
    def test_durations(self, seconds: float, text: str) -> None:
        assert go_duration(seconds) == text


class TestLogs:
    def test_lines_and_fragments(self, tmp_path: Path) -> None:
        log = ContainerLog(tmp_path / "0.log")
        log.write("stdout", b"one\nhalf ")
        log.write("stderr", b"E\n")
        log.write("stdout", b"line\n" + b"x" * 20000 + b"\nend")
        log.finish("stdout")
        log.end()
        lines = [line.split(" ", 3) for line in log.path.read_text().splitlines()]
        assert [(stream, tag, len(text)) for _, stream, tag, text in lines] == [
            ("stdout", "F", 3), ("stderr", "F", 1), ("stdout", "F", 9), ("stdout", "P", 16384), ("stdout", "F", 3616),
            ("stdout", "F", 3),
        ]  # fmt: skip
        whole = b"".join(LogReader(log, LogOptions()))
        assert whole == b"one\nE\nhalf line\n" + b"x" * 20000 + b"\nend\n"
        assert b"".join(LogReader(log, LogOptions(tail_lines=2))) == b"x" * 20000 + b"\nend\n"
        assert b"".join(LogReader(log, LogOptions(limit_bytes=5))) == b"one\nE"
        assert b"".join(LogReader(log, LogOptions(since=datetime(2200, 1, 1, tzinfo=UTC)))) == b""
        stamped = b"".join(LogReader(log, LogOptions(timestamps=True))).splitlines()
        assert len(stamped) == 5
        assert all(re.match(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", line) for line in stamped)

    def test_following_ends_with_the_container(self, tmp_path: Path) -> None:
        log = ContainerLog(tmp_path / "0.log")
        log.write("stdout", b"first\n")
        reader = LogReader(log, LogOptions(follow=True))
        assert next(reader) == b"first\n"
        log.write("stdout", b"second\n")
        assert next(reader) == b"second\n"
        log.end()
        assert list(reader) == []

    def test_an_end_is_told_when_everything_is_in_the_file(self, tmp_path: Path) -> None:
        log = ContainerLog(tmp_path / "0.log")
        seen: list[bytes] = []
        log.when_ended(lambda: seen.append(b"".join(LogReader(log, LogOptions()))))
        log.write("stdout", b"last words")
        assert seen == []
        log.finish("stdout")
        log.end()
        assert seen == [b"last words\n"]
        log.when_ended(lambda: seen.append(b"at once"))
        assert seen[1:] == [b"at once"]

    def test_a_blocked_reader_can_be_closed(self, tmp_path: Path) -> None:
        log = ContainerLog(tmp_path / "0.log")
        reader = LogReader(log, LogOptions(follow=True))
        got: list[bytes] = []
        thread = threading.Thread(target=lambda: got.extend(reader))
        thread.start()
        reader.close()
        thread.join(30)
        assert not thread.is_alive()
        assert got == []
        log.end()


class TestDns:
    @pytest.mark.parametrize(
        ("name", "kind", "code", "answers"),
        [
            ("kubernetes.default.svc.cluster.local.", "A", dns.rcode.NOERROR, 1),
            ("KUBERNETES.default.svc.cluster.local.", "A", dns.rcode.NOERROR, 1),
            ("kubernetes.default.svc.cluster.local.", "AAAA", dns.rcode.NOERROR, 0),
            ("nobody.default.svc.cluster.local.", "A", dns.rcode.NXDOMAIN, 0),
            ("example.com.", "A", dns.rcode.REFUSED, 0),
        ],
    )
    def test_answers(self, name: str, kind: str, code: int, answers: int) -> None:
        names = lab_dns.Names()
        names.on_service("default/kubernetes", {"spec": {"clusterIP": "10.96.0.1"}})
        wire = lab_dns.answer(dns.message.make_query(name, kind).to_wire(), names.find)
        assert wire is not None
        reply = dns.message.from_wire(wire)
        assert (reply.rcode(), len(reply.answer)) == (code, answers)

    def test_what_is_no_query_gets_no_answer(self) -> None:
        reply = dns.message.make_response(dns.message.make_query("a.", "A")).to_wire()
        assert lab_dns.answer(reply, lambda name: name) is None
        assert lab_dns.answer(b"rubbish", lambda name: name) is None

    def test_a_query_waits_for_its_own_answer_only(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as link:
            server.bind(("127.0.0.1", 0))
            link.bind(("127.0.0.1", 0))

            def reply() -> None:
                wire, client = server.recvfrom(4096)
                names = lab_dns.Names()
                names.on_service("default/kubernetes", {"spec": {"clusterIP": "10.96.0.1"}})
                own = lab_dns.answer(wire, names.find)
                assert own is not None
                other = bytes([own[0] ^ 1]) + own[1:]
                for each in (b"rubbish", other, own):
                    server.sendto(each, client)

            thread = threading.Thread(target=reply)
            thread.start()
            name = "kubernetes.default.svc.cluster.local."
            assert ask(link, server.getsockname(), name, 60)
            thread.join()
            assert not ask(link, server.getsockname(), name, 0.01)  # nobody answers any more

    def test_counters_count_what_comes_in_a_row(self) -> None:
        counters = Counters("fixed", 20000)
        for answered in (True, True, False, False, False):
            counters = counters.add(answered=answered, port=20000)
        assert (counters.answered, counters.lost, counters.last_answered, counters.in_a_row) == (2, 3, False, 3)


@pytest.mark.parametrize(
    ("answered", "lost", "percent"), [(0, 5, 0), (1, 999, 1), (1, 1, 50), (999, 1, 99), (5, 0, 100), (0, 0, 0)]
)
def test_only_whole_success_is_100_and_only_whole_loss_0(answered: int, lost: int, percent: int) -> None:
    assert Success("knode1", "fresh", answered, lost).percent == percent


class TestImages:
    @pytest.mark.parametrize(
        ("tag", "has"), [("v1.30.14", True), ("v1.31.14", True), ("v1.32.13", False), ("v1.36.2", False)]
    )
    def test_conntrack_left_the_kube_proxy_image(self, tag: str, has: bool) -> None:
        assert ("conntrack" in images.describe(f"registry.k8s.io/kube-proxy:{tag}").tools) is has

    def test_unknown_images_are_refused(self) -> None:
        with pytest.raises(images.UnknownImageError):
            images.describe("docker.io/library/busybox:1")

    def test_nothing_is_missing_on_this_machine(self) -> None:
        assert {name: images.missing(name) for name in images.names()} == dict.fromkeys(images.names(), ())

    def test_a_clones_files_can_go_without_touching_the_image(self, tmp_path: Path) -> None:
        image = images.Library(tmp_path / "images").path("registry.k8s.io/kube-proxy:v1.30.14")
        images.clone(image, tmp_path / "root")
        for fault in Fault:
            inject(tmp_path / "root", fault)
        assert (image / "usr/sbin/conntrack").stat().st_size > 10000
        assert (tmp_path / "root/usr/sbin/conntrack").read_text().startswith("#!/bin/sh")
        for _ in range(2):
            for fault in Fault:
                lift(tmp_path / "root", image, fault)
        assert (tmp_path / "root/usr/sbin/conntrack").samefile(image / "usr/sbin/conntrack")
        assert (tmp_path / "root/usr/sbin/iptables-restore").readlink() == (
            image / "usr/sbin/iptables-restore"
        ).readlink()


class TestSpecs:
    def test_links_of_an_image_never_lead_out_of_it(self, tmp_path: Path) -> None:
        (tmp_path / "var").mkdir()
        (tmp_path / "var/run").symlink_to("/run")
        (tmp_path / "up").symlink_to("../../..")
        assert resolve_inside(tmp_path, "/var/run/secrets") == tmp_path / "run/secrets"
        assert resolve_inside(tmp_path, "/up/etc") == tmp_path / "etc"
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises(StartError, match="too many levels"):
            resolve_inside(tmp_path, "/loop/x")

    @pytest.mark.parametrize(
        ("context", "some", "none"),
        [
            ({"capabilities": {"drop": ["ALL"]}}, set(), {"NET_RAW", "CHOWN"}),
            ({"capabilities": {"drop": ["ALL"], "add": ["CAP_NET_ADMIN"]}}, {"NET_ADMIN"}, {"NET_RAW"}),
            ({}, {"NET_RAW", "CHOWN"}, {"NET_ADMIN", "SYS_ADMIN"}),
        ],
    )
    def test_capabilities(self, context: dict[str, object], some: set[str], none: set[str]) -> None:
        found = set(capabilities(context) or ())
        assert some <= found
        assert not none & found

    def test_privileged_is_all(self) -> None:
        assert capabilities({"privileged": True, "capabilities": {"drop": ["ALL"]}}) is None

    def test_variables(self) -> None:
        assert expand("$(A)-$(B)-$$(A)-$X", {"A": "1"}) == "1-$(B)-$(A)-$X"

    def test_a_launch_survives_the_wire(self) -> None:
        launch = Launch(
            ("sh", "-c", "x"), "/r", {"A": "1"}, capabilities=("CHOWN",), mounts=(Mount("/a", "/b", read_only=True),)
        )
        assert Launch.from_json(launch.to_json()) == launch

    def test_a_missing_program_is_named_as_runc_names_it(self) -> None:
        with pytest.raises(StartError, match=r'exec: "no-such-tool": executable file not found in \$PATH'):
            find_executable("no-such-tool", "/usr/bin:/bin")

    @pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-a", "x" * 40])
    def test_names_that_are_no_labs(self, name: str) -> None:
        with pytest.raises(LabError, match="is no name for a lab"):
            lab_dir(name)
