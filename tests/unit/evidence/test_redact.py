"""Redacted bundles: what was found in the original is found in them, and nothing tells whose it was."""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.changes.journal import read
from kdnsctl.evidence import redactlines, redactobjects
from kdnsctl.evidence.artefactfile import BundleWriteError, Source
from kdnsctl.evidence.artefacts import CLUSTER
from kdnsctl.evidence.bundle import JOURNAL, SUMS, Bundle
from kdnsctl.evidence.packing import Compression, archive_name, pack
from kdnsctl.evidence.pseudonyms import Pseudonyms
from kdnsctl.evidence.redact import BrokenBundleError, journal_of, learned, redact
from kdnsctl.evidence.redactfiles import handler_of
from kdnsctl.evidence.redactlines import LONGEST, lines_of
from kdnsctl.evidence.renaming import GONE, Renaming
from kdnsctl.evidence.verify import verify
from kdnsctl.find.analysis import AnalyzeReport, to_json
from kdnsctl.find.analyze_files import FileOptions, analyze_files
from kdnsctl.model import Reason, SilentReporter, UsageError
from kdnsctl.netfilter import names
from kdnsctl.netfilter.iptables import parse
from kdnsctl.netfilter.trailer import MARKER

RECORDINGS = Path(__file__).parents[2] / "recordings"
NODE, RULES, API = RECORDINGS / "node", RECORDINGS / "rules", RECORDINGS / "api"
KEY = b"a key that only this test knows."
QUIET = SilentReporter()
NAMING_PATHS = ("skipped", "nextCommands", "apiVersion")  # of a report: what it says of the files that were given
SEAL = f"{MARKER} 0123456789abcdef rc=0;\n".encode()
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJl"  # none of anybody's
LOG = f"""\
I1123 03:02:39.120345       1 proxier.go:796] "Syncing iptables rules"
I1123 03:02:40.120345       1 service.go:1] "Adding" portName="shop/cart:grpc-web" servicePort="10.96.7.7:53/UDP"
E1123 03:02:41.120345       1 proxier.go:1] "Failed to delete" err="10.244.1.2 on knode2.corp.example"
I1123 03:02:42.120345       1 node.go:1] node knode2 kube-proxy-knode2 has fd00:10::22 and aa:bb:cc:dd:ee:ff
E1123 03:02:43.120345       1 reflector.go:1] "https://apiserver.corp.example:6443/" Authorization: Bearer {TOKEN}
""".encode()
IPVS = b"""\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
UDP  0A60000A:0035 rr
  -> 0AF40102:0035      Masq    1      0          0
"""
SECRETS = [
    b"knode", b"corp.example", b"shop", b"cart", b"grpc-web", b"10.244.", b"10.96.", b"10.88.0.", b"0A60000A", b"0AF4",
    b"fd00:10::22", b"aa:bb:cc", TOKEN.encode(), b"TCOU7JCQXEZGVUNU-", b"demo/",
]  # fmt: skip

Make = Callable[[Path], Path]


def put(bundle: Bundle, node: str, item: str, name: str, content: bytes, errors: bytes = b"", cut: str = "") -> None:
    file = bundle.begin(node, item, name, Source("exec", ("cat", "x")), compress=not name.endswith(".json"))
    file.write(content)
    file.close(errors=errors, proof="trailer", exit_code=0, problem=Reason(cut, "knode2 went away") if cut else None)


def items_of(name: str) -> list[dict[str, Any]]:
    said = json.loads((API / name).read_text())
    items: list[dict[str, Any]] = said.get("items", [said])
    return items


def services() -> list[dict[str, Any]]:
    """That of DNS, one of every cluster, and one of somebody."""
    port = {"name": "grpc-web", "protocol": "UDP", "port": 53}
    shop = {"metadata": {"namespace": "shop", "name": "cart"}, "spec": {"clusterIP": "10.96.7.7", "ports": [port]}}
    every = {
        "metadata": {"namespace": "default", "name": "kubernetes", "labels": {"team": "corp.example"}},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]},
    }
    return [*items_of("service-kube-dns.json"), every, shop]


def cluster(bundle: Bundle) -> None:
    lists = {
        "services": ("v1", "ServiceList", services()),
        "endpointslices": ("discovery.k8s.io/v1", "EndpointSliceList", items_of("endpointslices-after-rollout.json")),
        "nodes": ("v1", "NodeList", items_of("nodes.json")),
        "pods": ("v1", "PodList", items_of("pods-kube-system.json")),
    }
    for name, (version, kind, items) in lists.items():
        said = {"apiVersion": version, "kind": kind, "metadata": {"resourceVersion": "7"}, "items": items}
        put(bundle, CLUSTER, name, f"{name}.json", json.dumps(said).encode())


def common(bundle: Bundle, node: str, mode: str) -> None:
    table = (NODE / "proc-nf_conntrack-stale.txt").read_bytes()
    put(bundle, node, "kubeProxy.mode", "proxy-mode.txt", mode.encode())
    put(bundle, node, "conntrack.a", "conntrack.a.txt", table + SEAL)
    put(bundle, node, "conntrack.b", "conntrack.b.txt", table[: len(table) // 2], cut="noTrailer")
    put(bundle, node, "conntrack.counters", "conntrack-counters.txt", (NODE / "conntrack-stats.txt").read_bytes())
    put(bundle, node, "kubeProxy.metrics", "metrics.txt", (RECORDINGS / "kube-proxy-1.36/metrics.txt").read_bytes())
    put(bundle, node, "kubeProxy.log", "kube-proxy.log", LOG)


def in_iptables_mode(bundle: Bundle) -> None:
    common(bundle, "knode2", "iptables")
    stale = (NODE / "iptables-nft-save-stale.txt").read_bytes()
    put(bundle, "knode2", "rules.iptables4", "iptables-save.txt", stale, errors=b"# Warning: on knode2\n")
    common(bundle, "knode1", "iptables")
    every = (RULES / "iptables-nft-save.txt").read_bytes()
    put(bundle, "knode1", "rules.iptables4", "iptables-save.txt", every)
    put(bundle, "knode1", "rules.iptables6", "ip6tables-save.txt", (RULES / "ip6tables-nft-save.txt").read_bytes())


def in_nftables_mode(bundle: Bundle) -> None:
    for node, generation in (("knode1", "maps"), ("knode2", "endpoint-chains")):
        common(bundle, node, "nftables")
        put(bundle, node, "nft.4", "nft-ip.json", (RULES / f"nft-ip-{generation}.json").read_bytes())
        six = (RULES / f"nft-ip6-{generation}.txt").read_bytes()
        put(bundle, node, "nft.6.text", "nft-ip6.txt", six + SEAL)
    common(bundle, "knode3", "nftables")
    put(bundle, "knode3", "nft.4", "nft-ip.json", (NODE / "nft-kube-proxy.json").read_bytes())
    left = (NODE / "iptables-nft-save-after-switch-to-nftables.txt").read_bytes()
    put(bundle, "knode3", "rules.iptables4", "iptables-save.txt", left)


def in_ipvs_mode(bundle: Bundle) -> None:
    common(bundle, "knode2", "ipvs")
    put(bundle, "knode2", "ipvs", "ip_vs.txt", IPVS + SEAL)


MODES = {"iptables": in_iptables_mode, "nftables": in_nftables_mode, "ipvs": in_ipvs_mode}


def make(place: Path, mode: str) -> Path:
    moment = datetime(2026, 11, 23, 3, 2, tzinfo=UTC)
    with Bundle.create(place, {"nodes": ["knode1", "knode2", "knode4"], "operator": "alice"}, lambda: moment) as bundle:
        cluster(bundle)
        MODES[mode](bundle)
        bundle.record("missing", {"node": "knode1", "item": "x", "problem": {"code": "gone", "message": "knode1: no"}})
        bundle.finish({"nodes": {"knode1": "complete", "knode2": "complete", "knode4": "failed"}})
    return place


@pytest.fixture(scope="module", params=sorted(MODES))
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return make(tmp_path_factory.mktemp(request.param) / "evidence", request.param)


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return make(tmp_path / "evidence", "iptables")


def redacted(place: Path) -> Path:
    """The copy beside a bundle, made once."""
    copy = place.with_name("redacted")
    if not copy.exists():
        assert redact(place, copy, KEY, reporter=QUIET).left_out == ()
    return copy


def analyze(place: Path) -> AnalyzeReport:
    return analyze_files(FileOptions((str(place),)), stdin=io.BytesIO(), reporter=QUIET, now=datetime.now(UTC))


def told(report: AnalyzeReport, renamed: Callable[[str], str] = str) -> Any:
    """A report with all its texts under other names, where the order of names says nothing.

    What other software has written beside a rule is not kept.
    """

    def made(value: Any) -> Any:
        if isinstance(value, dict):
            return {renamed(key): made(each) for key, each in value.items() if key not in ("generatedAt", "sources")}
        if isinstance(value, list):
            return sorted((made(each) for each in value), key=lambda each: json.dumps(each, sort_keys=True))
        if isinstance(value, str):
            return sorted(re.findall(r"[^\s,;]+", renamed(re.sub(r'--comment "(?:[^"\\]|\\.)*"', "", value))))
        return value

    return made({key: value for key, value in to_json(report).items() if key not in NAMING_PATHS})


def renaming_of(place: Path) -> Renaming:
    return learned(place, journal_of(place), KEY, reporter=QUIET)[0]


def contents(place: Path) -> Iterator[tuple[str, bytes]]:
    """Every name of a file, and every file, also as it is unpacked."""
    for path in place.rglob("*"):
        yield "the path", path.relative_to(place).as_posix().encode()
        if path.is_file():
            content = path.read_bytes()
            yield path.name, content
            if path.suffix == ".gz":
                yield path.name, gzip.decompress(content)


class TestTheCopy:
    def test_the_same_is_found_under_other_names(self, original: Path) -> None:
        before, after = analyze(original), analyze(redacted(original))
        assert told(after) == told(before, renaming_of(original).prose)
        assert any(node.findings for node in after.nodes)
        assert {node.name for node in after.nodes}.isdisjoint(node.name for node in before.nodes)

    def test_nothing_tells_whose_it_was(self, original: Path) -> None:
        found = [
            (where, secret) for where, said in contents(redacted(original)) for secret in SECRETS if secret in said
        ]
        assert found == []
        whole = b"".join(said for _, said in contents(original))
        assert [secret for secret in SECRETS if secret in whole]  # they were there

    def test_it_is_a_sound_bundle_and_quotes_the_old_one(self, original: Path) -> None:
        place = redacted(original)
        verification = verify(place)
        assert (verification.flaws, verification.finished) == ((), True)
        checked = subprocess.run(["sha256sum", "--check", "--strict", "--status", SUMS], cwd=place, check=False)
        assert checked.returncode == 0
        first, *_ = read(place / JOURNAL).records
        old = verify(original)
        assert (first.kind, first.body["sumsSha256"]) == ("redacted", old.sums_digest)
        assert first.body["journalHead"] == read(original / JOURNAL).head
        assert [one.problem and one.problem.code for one in verification.artefacts] == [
            one.problem and one.problem.code for one in old.artefacts
        ]
        assert {path.stat().st_mode & 0o777 for path in place.rglob("*") if path.is_file()} == {0o600}

    def test_it_can_be_redacted_once_more(self, original: Path) -> None:
        first = redacted(original)
        again = redact(first, first.with_name("twice"), b"another key, of sixteen bytes", reporter=QUIET)
        assert verify(again.place).sound
        assert sorted(node.verdict for node in analyze(first).nodes) == sorted(
            node.verdict for node in analyze(again.place).nodes
        )
        assert read(again.place / JOURNAL).records[0].body["sumsSha256"] == verify(first).sums_digest

    def test_the_key_is_not_in_it_and_another_gives_other_names(self, one: Path) -> None:
        place = redacted(one)
        assert not any(KEY in said or KEY.hex().encode() in said for _, said in contents(place))
        other = redact(one, one.with_name("other"), b"0123456789abcdef", reporter=QUIET).place
        nodes = {path.name for path in place.glob("nodes/*")}
        assert nodes.isdisjoint(path.name for path in other.glob("nodes/*"))

    @pytest.mark.parametrize("compression", list(Compression))
    def test_an_archive_is_redacted_as_its_directory_is(self, one: Path, compression: Compression) -> None:
        archive = archive_name(one, compression)
        pack(one, archive, compression)
        made = redact(archive, one.with_name("of-archive"), KEY, reporter=QUIET)
        assert told(analyze(made.place)) == told(analyze(redacted(one)))


class TestWhatIsRefused:
    def test_a_bundle_that_was_changed_gets_no_new_seal(self, one: Path) -> None:
        victim = next(one.glob("nodes/*/01/conntrack.a.txt.gz"))
        victim.write_bytes(victim.read_bytes()[:-1])
        with pytest.raises(BrokenBundleError):
            redact(one, one.with_name("redacted"), KEY, reporter=QUIET)
        assert not one.with_name("redacted").exists()

    def test_one_that_is_not_finished(self, tmp_path: Path) -> None:
        with Bundle.create(tmp_path / "evidence", {}) as bundle:
            put(bundle, "knode1", "kubeProxy.mode", "proxy-mode.txt", b"iptables")
        with pytest.raises(BrokenBundleError) as caught:
            redact(tmp_path / "evidence", tmp_path / "redacted", KEY, reporter=QUIET)
        assert "resume" in caught.value.hint

    def test_a_directory_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("x")
        with pytest.raises(UsageError):
            redact(tmp_path, tmp_path / "redacted", KEY, reporter=QUIET)
        assert not (tmp_path / "redacted").exists()

    def test_a_directory_with_something_in_it(self, one: Path) -> None:
        there = one.with_name("redacted")
        there.mkdir()
        (there / "mine").write_text("kept")
        with pytest.raises(UsageError):
            redact(one, there, KEY, reporter=QUIET)
        assert [path.name for path in there.iterdir()] == ["mine"]

    @pytest.mark.parametrize("there", [False, True])
    @pytest.mark.parametrize("ends", [BundleWriteError("no room", code="bundleFull"), KeyboardInterrupt()])
    def test_one_that_breaks_off_leaves_nothing_in_the_way(
        self, one: Path, monkeypatch: pytest.MonkeyPatch, ends: BaseException, there: bool
    ) -> None:
        place = one.with_name("redacted")
        if there:
            place.mkdir()

        def fails(*_: object) -> str:
            assert any(place.iterdir())  # all files were made by then
            raise ends

        with monkeypatch.context() as patched:
            patched.setattr("kdnsctl.evidence.redact.seal", fails)
            with pytest.raises(type(ends)):
                redact(one, place, KEY, reporter=QUIET)
        assert place.exists() == there
        assert not there or not list(place.iterdir())
        assert verify(redact(one, place, KEY, reporter=QUIET).place).sound

    @pytest.mark.parametrize(
        "said",
        [None, "knode1", "my knode1", 7, ["knode1", {"code": "knode1"}], {"item": "knode1", "code": "my knode1"}],
    )
    def test_a_journal_may_say_anything(self, tmp_path: Path, said: Any) -> None:
        with Bundle.create(tmp_path / "evidence", {"nodes": ["knode1"], "kept": said, "via": said}) as bundle:
            put(bundle, "knode1", "kubeProxy.mode", "proxy-mode.txt", b"iptables")
            bundle.record("node", {"node": "knode1", "items": said, "missing": said, "whole": said, "via": said})
            bundle.record("missing", {"node": "knode1", "item": said, "problem": said})
            bundle.finish({"nodes": {"knode1": said}})
        made = redact(tmp_path / "evidence", tmp_path / "redacted", KEY, reporter=QUIET)
        assert verify(made.place).sound
        assert not any(b"knode1" in content for _, content in contents(made.place))

    def test_a_file_that_nobody_knows_is_left_out_and_said(self, tmp_path: Path) -> None:
        with Bundle.create(tmp_path / "evidence", {"nodes": ["knode1"]}) as bundle:
            put(bundle, "knode1", "kubeProxy.mode", "proxy-mode.txt", b"iptables")
            put(bundle, "knode1", "diary", "diary.txt", b"dear knode1")
            bundle.finish({})
        made = redact(tmp_path / "evidence", tmp_path / "redacted", KEY, reporter=QUIET)
        assert made.left_out == ("nodes/knode1/01/diary.txt.gz",)
        assert verify(made.place).sound
        assert not list(made.place.rglob("diary*"))
        problems = [one.body["problem"]["code"] for one in journal_of(made.place) if one.kind == "missing"]
        assert problems == ["leftOut"]


@pytest.fixture
def renaming() -> Renaming:
    made = Renaming(Pseudonyms(KEY))
    made.learn("node", "knode1")
    made.learn_service("shop/cart:grpc-web")
    made.learn_endpoint("shop/cart:grpc-web", "udp", "10.244.1.5", 53)
    made.settle()
    return made


class TestRenaming:
    @pytest.mark.parametrize("protocol", ["udp", "tcp"])
    def test_a_chain_is_still_that_services(self, renaming: Renaming, protocol: str) -> None:
        service = renaming.service("shop/cart:grpc-web")
        for made in (names.service_chain, names.local_chain, names.external_chain, names.firewall_chain):
            assert renaming.rules(made("shop/cart:grpc-web", protocol)) == made(service, protocol)

    def test_an_endpoints_chain_is_still_that_endpoints(self, renaming: Renaming) -> None:
        before = names.endpoint_chain("shop/cart:grpc-web", "udp", "10.244.1.5", 53)
        service, address = renaming.service("shop/cart:grpc-web"), renaming.address("10.244.1.5")
        assert renaming.rules(before) == names.endpoint_chain(service, "udp", address, 53)

    @pytest.mark.parametrize("address", ["10.244.1.5", "fd00::a"])
    def test_chains_of_nftables_mode_keep_their_form(self, renaming: Renaming, address: str) -> None:
        service, renamed = renaming.service("shop/cart:grpc-web"), renaming.address(address)
        chain = names.nft_endpoint_chain("shop/cart:grpc-web", "udp", address, 53)
        assert renaming.rules(f"goto {chain} ,") == f"goto {names.nft_endpoint_chain(service, 'udp', renamed, 53)} ,"
        chain = names.nft_service_chain("shop/cart:grpc-web", "udp", "external-")
        assert renaming.rules(f'"{chain}"') == f'"{names.nft_service_chain(service, "udp", "external-")}"'

    def test_a_hash_that_was_wrong_stays_wrong(self, renaming: Renaming) -> None:
        chain = "service-AAAAAAAA-shop/cart/udp/grpc-web"
        assert not names.nft_chain_is_genuine(chain)
        made = renaming.rules(chain)
        assert not names.nft_chain_is_genuine(made)
        assert "cart" not in made

    def test_a_name_that_was_cut_off_says_no_more_than_before(self, renaming: Renaming) -> None:
        made = renaming.rules("service-AAAAAAAA-shop/cart-with-a-long...")
        assert made.endswith("...")
        assert "cart" not in made

    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            ("at 12:34:56 [1:29] 0x4000/0x4000", "at 12:34:56 [1:29] 0x4000/0x4000"),
            ("::1 and 127.0.0.1 and 169.254.20.10", "::1 and 127.0.0.1 and 169.254.20.10"),
            (
                "proxier.go:796 v1.36.2 net.netfilter.nf_conntrack_max",
                "proxier.go:796 v1.36.2 net.netfilter.nf_conntrack_max",
            ),
            ("k8s.io/client-go/informers/factory.go:160", "k8s.io/client-go/informers/factory.go:160"),
            ("kube-system/kube-dns:dns-tcp", "kube-system/kube-dns:dns-tcp"),
        ],
    )
    def test_what_is_nobodys_stays(self, renaming: Renaming, text: str, kept: str) -> None:
        assert renaming.prose(text) == kept

    @pytest.mark.parametrize(
        "text",
        [
            "knode1",
            "kube-proxy-knode1",
            "knode1.corp",
            "bastion.corp.example",
            "shop",
            "cart",
            "x/cart:y",
            "10.244.1.5/24",
        ],
    )
    def test_what_is_somebodys_does_not(self, renaming: Renaming, text: str) -> None:
        made = renaming.prose(f"to {text}, and")
        assert text not in made
        assert not re.search("knode1|corp|cart|shop", made)

    def test_a_network_keeps_its_length_and_its_own_addresses(self, renaming: Renaming) -> None:
        network = renaming.address("10.244.0.0/16")
        assert network.endswith(".0.0/16")
        assert renaming.address("10.244.9.9").startswith(network.partition("0.0/")[0])


class TestObjects:
    def test_fields_that_nobody_listed_are_left_out(self, renaming: Renaming) -> None:
        pod = {
            "kind": "Pod",
            "metadata": {
                "name": "shop-7d4b9c6f5b-x7x2p",
                "annotations": {"note": "knode1"},
                "labels": {"team": "corp", "k8s-app": "kube-proxy"},
                "brandNew": "knode1",
            },
            "spec": {
                "nodeName": "knode1",
                "containers": [
                    {
                        "name": "app",
                        "image": "registry.corp.example/team/app:v1.2.3",
                        "args": ["--password=x"],
                        "env": [],
                    }
                ],
            },
            "status": {
                "phase": "Running",
                "podIP": "10.244.1.9",
                "conditions": [{"type": "Ready", "status": "True", "message": "m"}],
            },
        }
        made = json.loads(redactobjects.redacted(json.dumps(pod).encode(), "Pod", renaming))
        assert made["metadata"].keys() == {"name", "annotations", "labels"}
        assert (made["metadata"]["annotations"], made["metadata"]["labels"]) == ({}, {"k8s-app": "kube-proxy"})
        assert made["spec"]["nodeName"] == renaming.name("node", "knode1")
        (container,) = made["spec"]["containers"]
        assert container.keys() == {"name", "image"}
        assert re.fullmatch(r"image-\w+:v1\.2\.3", container["image"])
        assert made["status"]["conditions"] == [{"type": "Ready", "status": "True"}]
        assert not re.search("corp|knode1|shop|password", json.dumps(made))

    def test_what_kube_proxy_is_stays_known(self, renaming: Renaming) -> None:
        image = redactobjects.FIELDS["image"]("registry.corp.example/eks/kube-proxy:v1.29.0-x@sha256:1", renaming, "")
        assert image == "kube-proxy:v1.29.0"


def made_of(name: str, content: str, renaming: Renaming) -> str:
    handler = handler_of(name)
    assert handler is not None
    return b"".join(handler[0]([content.encode()], renaming)).decode()


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("resolv.conf", "search corp.example\nnameserver 127.0.0.1\n", r"search host-\w+\nnameserver 127\.0\.0\.1\n"),
        (
            "resolv.conf",
            "# corp\nsearch corp svc.cluster.local\noptions ndots:5 corp:1\ncorp\nnameserver fe80::1%corp0\n",
            r"search host-\w+ svc\.cluster\.local\noptions ndots:5\nnameserver\n",
        ),
        (
            "kernel.log",
            "<4>[   12.345678] usb: corp stick\n<4>[   99.5] nf_conntrack: nf_conntrack: table full, dropping packet\n",
            r"<4>\[   99\.5\] nf_conntrack: table full, dropping packet\n",
        ),
        (
            "configz.json",
            '{"kubeproxy.config.k8s.io": {"Mode": "ipvs", "HostnameOverride": "knode1"}, "x": "corp"}',
            r'\{"kubeproxy\.config\.k8s\.io":\{"mode":"ipvs"\}\}',
        ),
        (
            "identity.txt",
            "/proc/sys/kernel/osrelease:6.18.44\n/proc/sys/kernel/hostname:knode1\n",
            "/proc/sys/kernel/osrelease:6\\.18\\.44\n",
        ),
        (
            "healthz.json",
            '{"lastUpdated": "2026-11-23T03:02:39Z", "note": "knode1"}',
            r'\{"lastUpdated":"2026-[^"]+"\}',
        ),
        ("proxy-mode.txt", "knode1\n", r"node-\w+\n"),
        (
            "metrics.txt",
            'rest_client{host="corp"} 1\nkubeproxy_x{node="knode1",le="1"} 2\n',
            r'kubeproxy_x\{le="1"\} 2\n',
        ),
    ],
)
def test_of_each_kind_of_file_what_a_judgement_needs_is_kept(
    renaming: Renaming, name: str, before: str, after: str
) -> None:
    assert re.fullmatch(after, made_of(f"nodes/knode1/01/{name}", before, renaming))


def test_what_is_withheld_is_no_failure(tmp_path: Path) -> None:
    with Bundle.create(tmp_path / "evidence", {"nodes": ["knode1"]}) as bundle:
        put(bundle, "knode1", "ip.neighbours", "ip-neigh.json", b"[]")
        bundle.finish({})
    made = redact(tmp_path / "evidence", tmp_path / "redacted", KEY, reporter=QUIET)
    assert (made.left_out, made.withheld) == ((), ("nodes/knode1/01/ip-neigh.json",))
    assert verify(made.place).sound


class TestForeignRules:
    RULES = (
        "*filter\n:cali-SECRET - [0:0]\n:KUBE-SERVICES - [0:0]\n"
        '-A INPUT -m comment --comment "knode1 of corp" -j cali-SECRET\n'
        '-A cali-SECRET -s 10.244.1.9/32 -j LOG --log-prefix "corp says "\nCOMMIT\n'
    )

    def test_other_softwares_names_and_words_are_left_out(self, renaming: Renaming) -> None:
        made = made_of("nodes/x/01/iptables-save.txt.gz", self.RULES, renaming)
        assert not re.search(r"cali|corp|knode1|10\.244", made)
        assert made.count(GONE) == 2
        assert parse([made.encode()])  # it still is a dump of rules

    @pytest.mark.parametrize(
        "said",
        [
            "-m recent --set --name corp --mask 255.255.255.255 --rsource",
            '-m hashlimit --hashlimit-upto 5/sec --hashlimit-name "corp x"',
            "-m cgroup --path corp.slice/x",
            "-j SET --add-set corp src",
            "-j CT --helper corp",
            "-j CT --timeout corp",
        ],
    )
    def test_so_are_names_in_options(self, renaming: Renaming, said: str) -> None:
        made = made_of("nodes/x/01/iptables-save.txt", f"*filter\n-A INPUT {said}\nCOMMIT\n", renaming)
        assert "corp" not in made
        assert GONE in made


def test_labels_and_taints_that_somebody_made_up_are_left_out(renaming: Renaming) -> None:
    taints = [{"key": "corp.kubernetes.io/team", "effect": "NoExecute"}, {"key": "node.kubernetes.io/not-ready"}]
    labels = {"node-role.kubernetes.io/corp": "", "node-role.kubernetes.io/control-plane": ""}
    node = {"kind": "Node", "metadata": {"name": "knode1", "labels": labels}, "spec": {"taints": taints}}
    made = json.loads(redactobjects.redacted(json.dumps(node).encode(), "Node", renaming))
    assert made["metadata"]["labels"] == {"node-role.kubernetes.io/control-plane": ""}
    assert [taint["key"] for taint in made["spec"]["taints"]] == ["node.kubernetes.io/not-ready"]


def test_a_bomb_in_a_sound_bundle_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redactlines, "MOST_WHOLE", 1000)
    with Bundle.create(tmp_path / "evidence", {"nodes": ["knode1"]}) as bundle:
        put(bundle, "knode1", "nft.4", "nft-ip.json", b"[" * 100_000)
        bundle.finish({})
    made = redact(tmp_path / "evidence", tmp_path / "redacted", KEY, reporter=QUIET)
    (artefact,) = verify(made.place).artefacts
    assert (artefact.size, artefact.problem and artefact.problem.code) == (0, "leftOut")


def test_lines_that_are_too_long_are_cut_and_do_not_fill_the_memory() -> None:
    lines = list(lines_of([b"a b " * (LONGEST // 4), b"c" * LONGEST, b"\nlast"]))
    assert [len(line) <= LONGEST + 16 for line in lines] == [True] * len(lines)
    assert lines[-1] == "last"
