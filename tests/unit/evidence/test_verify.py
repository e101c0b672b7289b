import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.evidence.artefactfile import Source
from kdnsctl.evidence.artefacts import CLUSTER
from kdnsctl.evidence.bundle import JOURNAL, MANIFEST, SUMS, Bundle
from kdnsctl.evidence.packing import Compression, archive_name, compression_of, is_bundle, pack
from kdnsctl.evidence.verify import Verification, verify
from kdnsctl.model import Reason, UsageError

EXEC = Source("kubeProxyExec", ("cat", "/proc/net/nf_conntrack"))
TABLE = b"udp      17 29 src=10.244.2.3 dst=10.96.0.10 sport=20034 dport=53\n" * 50


def make_bundle(place: Path) -> Path:
    with Bundle.create(place, {"operator": "alice"}) as bundle:
        services = bundle.begin(CLUSTER, "services", "services.json", Source("api"))
        services.write(b'{"kind": "ServiceList"}\n')
        services.close(proof="closed")
        table = bundle.begin("knode1", "conntrack.a", "conntrack.a.txt", EXEC, compress=True)
        table.write(TABLE)
        table.close(proof="trailer", exit_code=0)
        rules = bundle.begin("knode1", "iptables", "iptables.txt", EXEC)
        rules.write(b"*nat\n")
        rules.close(errors=b"killed\n", problem=Reason("truncated", "no COMMIT"))
        bundle.finish({})
    return place


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle to copy, never to change."""
    return make_bundle(tmp_path_factory.mktemp("original") / "bundle")


def flaws(verification: Verification) -> set[tuple[str, str]]:
    return {(flaw.code, flaw.path) for flaw in verification.flaws}


@pytest.fixture(params=["directory", *Compression, "tar"])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], Path]:
    """What makes one form of a bundle of its directory."""

    def as_is(directory: Path) -> Path:
        return directory

    def as_archive(directory: Path) -> Path:
        archive = archive_name(directory, request.param)
        pack(directory, archive, request.param)
        return archive

    def by_tar(directory: Path) -> Path:
        archive = tmp_path / "by-hand.tar"
        subprocess.run(["tar", "--create", f"--file={archive}", "--directory", directory, "."], check=True)
        return archive

    return {"directory": as_is, "tar": by_tar}.get(request.param, as_archive)


class TestASoundBundle:
    def test_it_is_found_to_be_sound_in_every_form(self, place: Path, packed: Callable[[Path], Path]) -> None:
        verification = verify(packed(place))
        assert flaws(verification) == set()
        assert verification.sound
        assert verification.finished
        assert [one.path for one in verification.artefacts] == [
            "cluster/01/services.json",
            "nodes/knode1/01/conntrack.a.txt.gz",
            "nodes/knode1/01/iptables.txt",
        ]
        assert verification.sums_digest == hashlib.sha256((place / SUMS).read_bytes()).hexdigest()

    def test_one_that_is_not_finished_says_so(self, tmp_path: Path) -> None:
        with Bundle.create(tmp_path / "bundle", {}) as bundle:
            bundle.begin("knode1", "conntrack.a", "conntrack.a.txt", EXEC).close()
        verification = verify(tmp_path / "bundle")
        assert not verification.finished
        assert flaws(verification) == {("missing", MANIFEST), ("missing", SUMS)}

    def test_verifying_changes_nothing(self, place: Path) -> None:
        before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        verify(place)
        assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


class TestWhatWasChanged:
    @given(data=st.data())
    def test_any_flipped_bit_of_any_file_is_found(
        self, original: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        place = tmp_path_factory.mktemp("flipped") / "bundle"
        shutil.copytree(original, place)
        path = data.draw(st.sampled_from(sorted(path for path in place.rglob("*") if path.is_file())))
        content = bytearray(path.read_bytes())
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        assert not verify(place).sound

    def test_any_file_that_is_gone_is_found(self, original: Path, tmp_path: Path) -> None:
        paths = sorted(path.relative_to(original) for path in original.rglob("*") if path.is_file())
        assert len(paths) == 7
        for number, path in enumerate(paths):
            place = tmp_path / str(number)
            shutil.copytree(original, place)
            (place / path).unlink()
            assert ("missing", path.as_posix()) in flaws(verify(place))

    def test_a_file_that_was_added_is_found(self, place: Path, packed: Callable[[Path], Path]) -> None:
        (place / "nodes/knode2").mkdir(mode=0o700)
        (place / "nodes/knode2/conntrack.a.txt").write_bytes(TABLE)
        assert ("added", "nodes/knode2/conntrack.a.txt") in flaws(verify(packed(place)))

    def test_an_artefact_that_was_cut_says_by_how_much(self, place: Path, packed: Callable[[Path], Path]) -> None:
        path = place / "cluster/01/services.json"
        path.write_bytes(path.read_bytes()[:-5])
        verification = verify(packed(place))
        assert ("changed", "cluster/01/services.json") in flaws(verification)
        assert any("it has 19 bytes; 24 were collected" in flaw.message for flaw in verification.flaws)

    def test_a_forger_who_writes_new_sums_is_still_found(self, place: Path) -> None:
        path = place / "cluster/01/services.json"
        old = hashlib.sha256(path.read_bytes()).hexdigest()
        path.write_bytes(b'{"kind": "ServiceLisT"}\n')
        sums = (place / SUMS).read_text()
        (place / SUMS).write_text(sums.replace(old, hashlib.sha256(path.read_bytes()).hexdigest()))
        assert flaws(verify(place)) == {("changed", "cluster/01/services.json")}

    def test_a_manifest_that_tells_something_else_is_found(self, place: Path) -> None:
        manifest = json.loads((place / MANIFEST).read_bytes())
        manifest["artefacts"] = manifest["artefacts"][:1]
        (place / MANIFEST).write_text(json.dumps(manifest))
        assert ("manifestMismatch", MANIFEST) in flaws(verify(place))

    @pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
    def test_a_manifest_that_is_none_is_found(self, place: Path, content: bytes) -> None:
        (place / MANIFEST).write_bytes(content)
        assert ("manifestMismatch", MANIFEST) in flaws(verify(place))

    def test_other_content_behind_the_same_size_and_a_broken_packing_is_found(self, place: Path) -> None:
        path = place / "nodes/knode1/01/conntrack.a.txt.gz"
        stored = path.read_bytes()
        path.write_bytes(stored[:30] + bytes(len(stored) - 30))
        assert ("changed", "nodes/knode1/01/conntrack.a.txt.gz") in flaws(verify(place))

    @given(data=st.data())
    def test_an_archive_that_was_cut_anywhere_is_never_sound(
        self, original: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        folder = tmp_path_factory.mktemp("cut")
        whole = folder / "whole.tar.gz"
        pack(original, whole, Compression.GZIP)
        content = whole.read_bytes()
        cut = folder / "cut.tar.gz"
        cut.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        assert not is_sound(cut)


def is_sound(location: Path) -> bool:
    """A file of which too little is left is none that could be a bundle."""
    try:
        return verify(location).sound
    except UsageError:
        return False


class TestHostileArchives:
    @pytest.fixture
    def archive(self, place: Path, tmp_path: Path) -> Iterator[tuple[tarfile.TarFile, Path]]:
        path = tmp_path / "hostile.tar"
        with tarfile.open(path, "w") as tar:
            tar.add(place, "bundle")
            yield tar, path

    @pytest.mark.parametrize(
        "name",
        ["../outside", "/tmp/outside", "bundle/../../outside", "nodes/../up", "nodes//x", "nodes/.hidden", "C:\\x"],
    )  # fmt: skip
    def test_a_path_that_leads_out_is_refused(self, archive: tuple[tarfile.TarFile, Path], name: str) -> None:
        tar, path = archive
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        tar.close()
        (flaw,) = verify(path).flaws
        assert flaw.code == "unsafeMember"
        assert not (path.parent / "outside").exists()

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
    def test_what_is_no_file_is_refused(self, archive: tuple[tarfile.TarFile, Path], kind: bytes) -> None:
        tar, path = archive
        member = tarfile.TarInfo("bundle/nodes/knode1/01/passwd")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
        tar.close()
        assert flaws(verify(path)) == {("unsafeMember", "bundle/nodes/knode1/01/passwd")}

    def test_two_files_of_one_name_are_not_both_believed(
        self, archive: tuple[tarfile.TarFile, Path], place: Path
    ) -> None:
        tar, path = archive
        tar.add(place / JOURNAL, f"bundle/{JOURNAL}")
        tar.close()
        assert flaws(verify(path)) == {("twice", JOURNAL)}

    def test_a_bomb_ends_where_the_limit_is(self, archive: tuple[tarfile.TarFile, Path]) -> None:
        tar, path = archive
        bomb = gzip.compress(bytes(64 * 1024 * 1024), 9)
        member = tarfile.TarInfo("bundle/nodes/knode1/01/bomb.gz")
        member.size = len(bomb)
        tar.addfile(member, io.BytesIO(bomb))
        tar.close()
        verification = verify(path, limit=16 * 1024 * 1024)
        assert ("tooLarge", "") in flaws(verification)

    def test_something_else_is_no_bundle(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("hello\n")
        with pytest.raises(UsageError):
            verify(tmp_path / "notes.txt")
        with pytest.raises(UsageError):
            verify(tmp_path / "absent")


class TestHostileDirectories:
    def test_links_and_pipes_are_told_and_not_opened(self, place: Path) -> None:
        (place / "nodes/knode1/01/link").symlink_to("/etc/passwd")
        (place / "nodes/away").symlink_to("/etc")
        os.mkfifo(place / "nodes/knode1/01/pipe")
        assert flaws(verify(place)) == {
            ("unsafeMember", "nodes/knode1/01/link"),
            ("unsafeMember", "nodes/away"),
            ("unsafeMember", "nodes/knode1/01/pipe"),
        }


class TestPacking:
    @pytest.mark.parametrize("compression", Compression)
    def test_tar_unpacks_what_was_packed(self, place: Path, tmp_path: Path, compression: Compression) -> None:
        archive = archive_name(place, compression)
        size = pack(place, archive, compression)
        assert size == archive.stat().st_size
        out = tmp_path / "out"
        out.mkdir()
        if compression is Compression.GZIP:
            subprocess.run(["tar", "--extract", "--gzip", f"--file={archive}", "--directory", out], check=True)
            assert verify(out / "bundle").sound
        assert archive.stat().st_mode & 0o777 == 0o600
        assert not list(tmp_path.glob("*.part"))

    def test_an_archive_that_is_there_is_left_alone(self, place: Path) -> None:
        archive = archive_name(place, Compression.GZIP)
        archive.write_bytes(b"mine")
        with pytest.raises(UsageError):
            pack(place, archive, Compression.GZIP)
        assert archive.read_bytes() == b"mine"

    def test_an_archive_inside_the_bundle_is_refused(self, place: Path) -> None:
        with pytest.raises(UsageError):
            pack(place, place / "nodes" / "all.tar.gz", Compression.GZIP)
        assert verify(place).sound

    def test_an_archive_of_the_bundle_as_it_was_is_replaced_when_asked_for(self, place: Path) -> None:
        archive = archive_name(place, Compression.ZSTD)
        pack(place, archive, Compression.ZSTD)
        (archive.with_name(archive.name + ".part")).write_bytes(b"of a process that was killed")
        with Bundle.resume(place, {}, again=False) as bundle:
            bundle.record("note", {})
            bundle.finish({})
        assert is_bundle(archive)
        pack(place, archive, Compression.ZSTD, replace=True)
        assert verify(archive).sums_digest == verify(place).sums_digest
        assert not list(place.parent.glob("*.part"))

    @pytest.mark.parametrize("content", [b"", b"mine", b"\x28\xb5\x2f\xfd" * 4])
    def test_what_is_no_archive_of_a_bundle_is_known(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "evidence.tar.zst").write_bytes(content)
        assert not is_bundle(tmp_path / "evidence.tar.zst")

    def test_the_name_of_an_archive_says_how_it_is_packed(self) -> None:
        assert compression_of(Path("a/b.tar.gz")) is Compression.GZIP
        assert compression_of(Path("b.tar.zst")) is Compression.ZSTD
        with pytest.raises(UsageError) as caught:
            compression_of(Path("b.zip"))
        assert ".tar.gz" in str(caught.value)
