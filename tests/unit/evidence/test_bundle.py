import gzip
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kdnsctl.changes.journal import JournalError, read
from kdnsctl.evidence.artefactfile import BundleWriteError, Source
from kdnsctl.evidence.artefacts import CLUSTER
from kdnsctl.evidence.bundle import JOURNAL, MANIFEST, RESERVE, SUMS, Bundle, sealed
from kdnsctl.model import Reason, RefusedError, UsageError

EXEC = Source("kubeProxyExec", ("cat", "/proc/net/nf_conntrack"))
MOMENT = datetime(2026, 11, 23, 3, 2, 39, tzinfo=UTC)
CUT_OFF = Reason("truncated", "the trailer is missing")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "bundle"


@pytest.fixture
def bundle(place: Path) -> Iterator[Bundle]:
    with Bundle.create(place, {"operator": "alice"}, now=lambda: MOMENT) as bundle:
        yield bundle


def collect(bundle: Bundle, node: str = "knode1", item: str = "conntrack.a", content: bytes = b"udp 17\n") -> None:
    file = bundle.begin(node, item, f"{item}.txt", EXEC)
    file.write(content)
    file.close(exit_code=0, proof="trailer")


def files(place: Path) -> set[str]:
    return {path.relative_to(place).as_posix() for path in place.rglob("*") if not path.is_dir()}


def checked(place: Path) -> subprocess.CompletedProcess[str]:
    """By somebody else's tool."""
    command = ["sha256sum", "--check", "--strict", SUMS]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)


class TestWriting:
    def test_content_and_its_record_say_the_same(self, bundle: Bundle, place: Path) -> None:
        collect(bundle, content=b"one\ntwo\n")
        (artefact,) = bundle.artefacts
        assert artefact.path == "nodes/knode1/01/conntrack.a.txt"
        assert (place / artefact.path).read_bytes() == b"one\ntwo\n"
        assert (artefact.size, artefact.sha256) == (8, hashlib.sha256(b"one\ntwo\n").hexdigest())
        assert (artefact.via, artefact.command, artefact.exit_code, artefact.proof) == (
            "kubeProxyExec",
            ("cat", "/proc/net/nf_conntrack"),
            0,
            "trailer",
        )

    def test_the_journal_holds_what_the_bundle_says(self, bundle: Bundle, place: Path) -> None:
        collect(bundle)
        begun, record = read(place / JOURNAL).records
        assert (begun.kind, begun.body["operator"], begun.body["capture"]) == ("begun", "alice", 1)
        assert (record.kind, record.body["path"]) == ("artefact", "nodes/knode1/01/conntrack.a.txt")

    def test_compressed_it_is_what_zcat_reads(self, bundle: Bundle, place: Path) -> None:
        file = bundle.begin("knode1", "conntrack.a", "conntrack.a.txt", EXEC, compress=True)
        content = b"udp      17 29 src=10.244.2.3\n" * 10_000
        for start in range(0, len(content), 65_536):
            file.write(content[start : start + 65_536])
        artefact = file.close(proof="trailer")
        stored = (place / artefact.path).read_bytes()
        assert artefact.path.endswith("conntrack.a.txt.gz")
        assert gzip.decompress(stored) == content
        assert (artefact.size, artefact.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert (artefact.stored_size, artefact.stored_sha256) == (len(stored), hashlib.sha256(stored).hexdigest())
        assert len(stored) < len(content) / 10

    def test_what_came_on_stderr_lies_beside_it(self, bundle: Bundle, place: Path) -> None:
        file = bundle.begin("knode1", "iptables", "iptables.txt", EXEC)
        artefact = file.close(exit_code=4, errors=b"Permission denied\n", problem=Reason("exitCode", "exit code 4"))
        assert (place / artefact.errors).read_bytes() == b"Permission denied\n"
        assert (artefact.complete, artefact.exit_code) == (False, 4)

    def test_nobody_else_can_read_it(self, bundle: Bundle, place: Path) -> None:
        collect(bundle)
        bundle.finish({})
        modes = {stat.S_IMODE(path.stat().st_mode) for path in place.rglob("*") if path.is_file()}
        folders = {stat.S_IMODE(path.stat().st_mode) for path in [place, *place.rglob("*")] if path.is_dir()}
        assert (modes, folders) == ({0o600}, {0o700})

    def test_an_artefact_has_its_name_only_when_it_is_finished(self, bundle: Bundle, place: Path) -> None:
        file = bundle.begin("knode1", "conntrack.a", "conntrack.a.txt", EXEC)
        file.write(b"half")
        assert {"nodes/knode1/01/conntrack.a.txt.part"} == {path for path in files(place) if path.startswith("nodes")}
        file.close()
        assert {"nodes/knode1/01/conntrack.a.txt"} == {path for path in files(place) if path.startswith("nodes")}

    def test_a_second_attempt_overwrites_nothing(self, bundle: Bundle) -> None:
        bundle.begin("knode1", "conntrack.a", "conntrack.a.txt", EXEC).close(problem=CUT_OFF)
        collect(bundle)
        assert [(one.path, one.complete) for one in bundle.artefacts] == [
            ("nodes/knode1/01/conntrack.a.txt", False),
            ("nodes/knode1/01/conntrack-2.a.txt", True),
        ]

    def test_threads_write_side_by_side(self, bundle: Bundle, place: Path) -> None:
        threads = [threading.Thread(target=collect, args=(bundle, f"knode{n}")) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        bundle.finish({})
        assert len(bundle.artefacts) == 20
        assert read(place / JOURNAL).problem is None
        assert checked(place).returncode == 0

    @pytest.mark.parametrize("name", ["../../etc/passwd", "..", ".", "/etc/passwd", "a/b", "C:\\x", "kno\nde", "ä"])
    def test_a_hostile_node_name_stays_inside(self, bundle: Bundle, place: Path, name: str) -> None:
        before = files(place)
        collect(bundle, node=name)
        (new,) = files(place) - before
        assert new.startswith("nodes/")
        assert len(Path(new).parts) == 4
        assert bundle.artefacts[0].node == name

    def test_a_link_in_the_bundle_is_not_followed(self, bundle: Bundle, place: Path, tmp_path: Path) -> None:
        folder = place / "nodes/knode1/01"
        folder.mkdir(parents=True)
        (folder / "conntrack.a.txt").symlink_to(tmp_path / "elsewhere")
        (folder / "conntrack-2.a.txt.part").symlink_to(tmp_path / "elsewhere")
        collect(bundle)
        assert bundle.artefacts[0].path == "nodes/knode1/01/conntrack-3.a.txt"
        assert not (tmp_path / "elsewhere").exists()


class TestFinishing:
    def test_sums_hold_for_every_file(self, bundle: Bundle, place: Path) -> None:
        collect(bundle)
        file = bundle.begin(CLUSTER, "services", "services.json", Source("api"))
        file.close(errors=b"warning\n")
        digest = bundle.finish({"nodes": 1})
        assert checked(place).returncode == 0
        listed = {line.split("  ")[1] for line in (place / SUMS).read_text().splitlines()}
        assert listed == files(place) - {SUMS}
        assert digest == hashlib.sha256((place / SUMS).read_bytes()).hexdigest()

    def test_the_sums_are_of_what_was_read_not_of_what_is_there_now(self, bundle: Bundle, place: Path) -> None:
        collect(bundle)
        (place / bundle.artefacts[0].path).write_bytes(b"forged\n")
        bundle.finish({})
        result = checked(place)
        assert result.returncode == 1
        assert "nodes/knode1/01/conntrack.a.txt: FAILED" in result.stdout

    def test_the_manifest_is_bound_to_the_journal(self, bundle: Bundle, place: Path) -> None:
        collect(bundle)
        bundle.finish({"judged": 1})
        manifest = json.loads((place / MANIFEST).read_bytes())
        assert manifest["journalHead"] == read(place / JOURNAL).head
        assert [one["path"] for one in manifest["artefacts"]] == ["nodes/knode1/01/conntrack.a.txt"]
        (capture,) = manifest["captures"]
        assert [event["what"] for event in capture["events"]] == ["begun", "finished"]
        assert capture["events"][0]["operator"] == "alice"

    def test_nothing_of_its_own_is_left(self, bundle: Bundle, place: Path) -> None:
        bundle.finish({})
        bundle.close()
        assert files(place) == {MANIFEST, JOURNAL, SUMS}


class TestBeginning:
    def test_a_directory_with_something_in_it_is_left_alone(self, place: Path) -> None:
        place.mkdir()
        (place / "notes.txt").write_text("mine")
        with pytest.raises(UsageError) as caught:
            Bundle.create(place, {})
        assert "not empty" in str(caught.value)
        assert files(place) == {"notes.txt"}

    def test_a_place_that_cannot_be_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RefusedError) as caught:
            Bundle.create(tmp_path / "file" / "bundle", {})
        assert "nothing was collected" in str(caught.value)

    def test_two_cannot_write_into_one(self, bundle: Bundle, place: Path) -> None:
        with pytest.raises(RefusedError) as caught:
            Bundle.resume(place, {}, again=False)
        assert "somebody else" in str(caught.value)
        collect(bundle)
        assert read(place / JOURNAL).problem is None


class TestGoingOn:
    def test_what_is_there_need_not_be_read_again(self, bundle: Bundle, place: Path) -> None:
        collect(bundle)
        bundle.begin("knode2", "conntrack.a", "conntrack.a.txt", EXEC).close(problem=CUT_OFF)
        bundle.close()
        with Bundle.resume(place, {"operator": "bob"}, again=False) as resumed:
            assert resumed.capture == 1
            assert resumed.has("knode1", "conntrack.a")
            assert not resumed.has("knode2", "conntrack.a")
            assert not resumed.has("knode1", "iptables")

    def test_again_is_a_capture_of_its_own(self, bundle: Bundle, place: Path) -> None:
        collect(bundle)
        bundle.finish({})
        bundle.close()
        with Bundle.resume(place, {}, again=True) as second:
            assert not second.has("knode1", "conntrack.a")
            collect(second)
            second.finish({})
        assert [one.path for one in second.artefacts] == [
            "nodes/knode1/01/conntrack.a.txt",
            "nodes/knode1/02/conntrack.a.txt",
        ]
        assert checked(place).returncode == 0

    def test_what_a_crash_left_is_kept_and_never_called_whole(self, bundle: Bundle, place: Path) -> None:
        file = bundle.begin("knode1", "conntrack.a", "conntrack.a.txt", EXEC)
        file.write(b"half")
        collect(bundle, item="iptables")
        unrecorded = place / "nodes/knode1/01/sysctl.txt"  # renamed, and killed before the journal
        unrecorded.write_bytes(b"whole?")
        bundle.close()
        with Bundle.resume(place, {}, again=False) as resumed:
            left = {one.path: one for one in resumed.artefacts if one.problem}
            assert left.keys() == {"nodes/knode1/01/conntrack.a.txt.cut", "nodes/knode1/01/sysctl.txt.cut"}
            assert {one.problem.code for one in left.values() if one.problem} == {"interrupted"}
            assert (place / "nodes/knode1/01/conntrack.a.txt.cut").read_bytes() == b"half"
            assert not resumed.has("knode1", "conntrack.a")
            collect(resumed)
            resumed.finish({})
        assert checked(place).returncode == 0
        with Bundle.resume(place, {}, again=False) as once_more:
            assert len(once_more.artefacts) == 4

    def test_a_bundle_that_was_changed_is_not_gone_on_with(self, bundle: Bundle, place: Path) -> None:
        collect(bundle)
        bundle.close()
        lines = (place / JOURNAL).read_bytes().splitlines(keepends=True)
        (place / JOURNAL).write_bytes(lines[1])
        with pytest.raises(JournalError):
            Bundle.resume(place, {}, again=False)
        assert (place / JOURNAL).read_bytes() == lines[1]

    def test_without_a_bundle_there_is_nothing_to_go_on_with(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError) as caught:
            Bundle.resume(tmp_path, {}, again=False)
        assert "no bundle" in str(caught.value)
        assert files(tmp_path) == set()


class TestSealed:
    def test_one_that_is_finished_is_sealed_and_any_other_is_not(self, bundle: Bundle, place: Path) -> None:
        assert sealed(place) == ""
        collect(bundle)
        digest = bundle.finish({})
        assert sealed(place) == digest
        bundle.record("note", {})
        assert sealed(place) == ""
        assert sealed(place.parent) == ""

    @pytest.mark.parametrize("name", [MANIFEST, SUMS])
    def test_nor_is_one_whose_seal_was_not_written_to_its_end(self, bundle: Bundle, place: Path, name: str) -> None:
        bundle.finish({})
        (place / name).write_bytes((place / name).read_bytes()[:-100])
        assert sealed(place) == ""


class TestAFullDisk:
    def test_what_was_had_by_then_is_a_bundle_that_can_be_checked(self) -> None:
        """On a disk of 2 MiB, which a process in a mount namespace of its own makes; see full_disk.py."""
        own_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        command = ["unshare", *own_root, "--mount", sys.executable, "-m", "tests.unit.evidence.full_disk"]
        said = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert said == {
            "codeOfTheWrite": "bundleFull",
            "problem": "bundleFull",
            "proof": "",
            "sizeIsThatOfTheFile": True,
            "writtenAfterwards": 0,
            "notes": 500,
            "journalProblem": None,
            "sha256sum": 0,
            "files": [
                "SHA256SUMS",
                "journal.jsonl",
                "manifest.json",
                "nodes/knode1/01/whole.txt",
                "nodes/knode2/01/cut.txt",
                "nodes/knode3/01/late.txt",
            ],
        }

    def test_what_was_set_aside_is_not_taken_by_a_write_that_is_under_way(
        self, bundle: Bundle, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The journal gives the reserve up for itself; an artefact of another thread must not get there first."""
        file = bundle.begin("knode1", "conntrack.a", "conntrack.a.txt", EXEC)
        real, began, go_on = os.write, threading.Event(), threading.Event()
        seen: list[bool] = []

        def slowly(descriptor: int, data: bytes) -> int:
            if threading.current_thread().name == "artefact":
                began.set()
                go_on.wait(60)
                seen.append((place / RESERVE).exists())
            return real(descriptor, data)

        monkeypatch.setattr("kdnsctl.evidence.artefactfile.os.write", slowly)
        writing = threading.Thread(target=file.write, args=(b"udp 17\n",), name="artefact")
        writing.start()
        assert began.wait(60)
        giving_up = threading.Thread(target=bundle.finish, args=({},))
        giving_up.start()
        giving_up.join(0.5)  # time to do it too early
        go_on.set()
        writing.join()
        giving_up.join()
        assert seen == [True]
        with pytest.raises(BundleWriteError) as caught:
            file.write(b"udp 17\n")
        assert caught.value.code == "bundleFull"
        assert file.close(errors=b"too late").errors == ""
        assert not list(place.rglob("*.err"))
