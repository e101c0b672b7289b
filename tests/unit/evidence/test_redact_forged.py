"""Bundles that somebody has forged and sealed: whatever stands in their journals, no name of it gets into a copy."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdnsctl.changes.journal import Journal, Record, read
from kdnsctl.evidence import redactobjects
from kdnsctl.evidence.artefactfile import ERRORS, BundleWriteError, Source
from kdnsctl.evidence.artefacts import CLUSTER, Artefact
from kdnsctl.evidence.bundle import JOURNAL, Bundle, seal
from kdnsctl.evidence.contents import Allowance, files
from kdnsctl.evidence.packing import Compression, archive_name, is_bundle, pack
from kdnsctl.evidence.pseudonyms import Pseudonyms
from kdnsctl.evidence.redact import BrokenBundleError, redact, redact_to_archive
from kdnsctl.evidence.renaming import Renaming
from kdnsctl.evidence.resuming import Gap, node_record
from kdnsctl.evidence.verify import verify
from kdnsctl.model import KdnsctlError, Reason, RefusedError, SilentReporter, UsageError

API = Path(__file__).parents[2] / "recordings" / "api"
KEY = b"a key that only this test knows."
QUIET = SilentReporter()
NODE = "acme-node7"
NAMES = (NODE, "acme", "acme.example", "pod, acme", "see acme", "ACME", "1.0acme", "acme/acme:acme", "../acme")
HIDDEN = b"acme"
MOMENT = datetime(2026, 11, 23, 3, 2, tzinfo=UTC)

Where = tuple[str | int, ...]


def original(place: Path) -> Path:
    """A small bundle with a record of every kind, and every field that records have."""
    about = {"nodes": [NODE], "kept": {NODE: 1}, "items": ["conntrack.a"], "via": "auto", "kdnsctl": "1.2.3"}
    with Bundle.create(
        place, {**about, "operator": "acme", "server": "https://acme.example"}, lambda: MOMENT
    ) as bundle:
        for node, item, name in ((CLUSTER, "services", "services.json"), (NODE, "kubeProxy.mode", "proxy-mode.txt")):
            file = bundle.begin(node, item, name, Source("exec", ("cat", "/proc/net/nf_conntrack")))
            file.write(b"iptables" if node else b'{"kind": "ServiceList", "items": []}')
            file.close(errors=b"hm", proof="trailer", exit_code=0, problem=None if node else Reason("cutOff", "acme"))
        gap = Gap("conntrack.a", Reason("deadline", "acme-node7 did not answer"))
        bundle.record("missing", {"node": NODE, "item": "conntrack.a", "problem": {"code": "deadline", "message": "x"}})
        bundle.record("node", node_record(NODE, "partial", "exec, pod", 1, [gap], ["kubeProxy.mode", "conntrack.a"]))
        bundle.finish({"nodes": {NODE: "partial"}, "kept": {NODE: 1}})
    return place


def strings_in(value: Any, at: Where = ()) -> Iterator[Where]:
    """Where in JSON a text stands, or something that a text can stand in the place of; of keys, where they are."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield (*at, key, "its key")
            yield from strings_in(each, (*at, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from strings_in(each, (*at, number))
    yield at


def changed(value: Any, at: Where, said: str) -> Any:
    """The same with something else at a place."""
    if not at:
        return said
    first, *rest = at
    if rest == ["its key"]:
        return {said if key == first else key: each for key, each in value.items()}
    if isinstance(value, dict):
        return {key: changed(each, tuple(rest), said) if key == first else each for key, each in value.items()}
    return [changed(each, tuple(rest), said) if number == first else each for number, each in enumerate(value)]


def positions(records: Sequence[Record]) -> list[tuple[int, Where]]:
    """Every place in the bodies of a journal, but for a body as a whole: that is an object in every journal."""
    return [(number, at) for number, one in enumerate(records) for at in strings_in(one.body) if at]


def forge(place: Path, records: Sequence[Record], changes: Sequence[tuple[int, Where, str]]) -> None:
    """Give a bundle another journal, with a chain, a manifest and sums that are right for it."""
    (place / JOURNAL).unlink()
    bodies = [one.body for one in records]
    for number, at, said in changes:
        bodies[number] = changed(bodies[number], at, said)
    with Journal.open(place / JOURNAL, lambda: MOMENT) as journal:
        for one, body in zip(records, bodies, strict=True):
            journal.append(one.kind, body)
    artefacts: list[Artefact] = []
    for one in read(place / JOURNAL).records:
        if one.kind == "artefact":
            try:
                artefacts.append(Artefact.from_json(one.body))
            except KdnsctlError:  # as `verify` passes over it, and tells
                continue
    seal(place, artefacts)


def all_of(place: Path) -> Iterator[tuple[str, bytes]]:
    """Every name of a file, and every file as it is and as it is unpacked."""
    for path in place.rglob("*"):
        yield "the path", path.relative_to(place).as_posix().encode()
        if path.is_file():
            content = path.read_bytes()
            yield path.name, content
            if content.startswith(b"\x1f\x8b"):
                yield path.name, gzip.decompress(content)


def survivors(place: Path) -> list[str]:
    return [where for where, said in all_of(place) if HIDDEN in said.lower()]


@pytest.fixture(scope="module", autouse=True)
def without_waiting_for_the_disk() -> Iterator[None]:
    """Hundreds of bundles are made here, and none has to outlive a crash of the machine."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[tuple[int, Where, str]]], Path]:
    """What makes a forged bundle of one, and redacts it; the copy, which is not there where it was refused."""
    place = original(tmp_path_factory.mktemp("original") / "evidence")
    records = read(place / JOURNAL).records

    def made(changes: Sequence[tuple[int, Where, str]]) -> Path:
        forge(place, records, changes)
        copy = tmp_path_factory.mktemp("copies") / "copy"
        try:
            redact(place, copy, KEY, reporter=QUIET)
        except BrokenBundleError:
            assert not copy.exists()
        else:
            assert verify(copy).sound
        return copy

    made.records = records  # type: ignore[attr-defined]
    return made


def test_of_a_bundle_that_nobody_forged_no_name_is_left(bundle: Any) -> None:
    copy = bundle([])
    assert verify(copy).finished
    assert survivors(copy) == []
    kinds = [record.kind for record in read(copy / JOURNAL).records]
    assert kinds == ["redacted", *(one.kind for one in bundle.records)]


@pytest.mark.parametrize("said", [NODE, "acme"])
def test_a_name_that_stands_anywhere_in_a_journal_does_not_survive(bundle: Any, said: str) -> None:
    """One place after the other, so that one which makes the bundle unsound does not hide the others."""
    refused = 0
    for number, at in positions(bundle.records):
        copy = bundle([(number, at, said)])
        refused += not copy.exists()
        assert not copy.exists() or survivors(copy) == [], (number, at)
    assert refused < len(positions(bundle.records)) / 2  # most of it can be anything in a sound bundle


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nor_do_several_at_once(bundle: Any, data: st.DataObject) -> None:
    # Places of one artefact's record at a time: two of them in a path would be one.
    places = [(number, at) for number, at in positions(bundle.records) if len(at) == 1 or at[-1] == "its key"]
    chosen = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=6, unique_by=lambda one: one[:1]))
    copy = bundle([(number, at, data.draw(st.sampled_from(NAMES))) for number, at in chosen])
    assert not copy.exists() or survivors(copy) == []


def test_a_file_is_not_called_what_somebody_called_it(tmp_path: Path) -> None:
    with Bundle.create(tmp_path / "evidence", {"nodes": [NODE]}) as made:
        for name in (f"acme{ERRORS}", f"proxy-mode-acme.txt{ERRORS}", "proxy-mode.acme.txt", "proxy-mode.txt"):
            file = made.begin(NODE, "kubeProxy.mode", name, Source("exec"))
            file.write(b"iptables")
            file.close(proof="closed")
        made.finish({"nodes": {NODE: "complete"}})
    copy = redact(tmp_path / "evidence", tmp_path / "copy", KEY, reporter=QUIET)
    assert (copy.artefacts, len(copy.left_out)) == (1, 3)
    assert survivors(copy.place) == []


LISTS = ("nodes.json", "endpointslices-after-rollout.json", "service-kube-dns.json", "pods-kube-system.json")


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("said", [NODE, "acme7", "Acme"])
def test_a_known_name_that_stands_anywhere_in_a_list_does_not_survive(name: str, said: str) -> None:
    """In one object at a time, for the fields of objects are kept by a list, whatever their values."""
    whole = json.loads((API / name).read_text())
    (first, *_) = whole.get("items", [whole])
    kind = first.get("kind") or whole["kind"].removesuffix("List")
    renaming = Renaming(Pseudonyms(KEY))
    renaming.learn("node", said)
    places = [at for at in strings_in(first) if at]
    assert len(places) > 50
    for at in places:
        made = redactobjects.redacted(json.dumps(changed(first, at, said)).encode(), kind, renaming)
        assert HIDDEN not in made.lower(), at


class TestArchives:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return original(tmp_path / "evidence")

    @pytest.mark.parametrize("name", ["copy.tar.zst", "copy.tar.gz"])
    def test_from_a_directory_from_an_archive_and_once_more(self, place: Path, tmp_path: Path, name: str) -> None:
        packed = archive_name(place, Compression.ZSTD)
        pack(place, packed, Compression.ZSTD)
        (tmp_path / "out").mkdir()
        sources = [place, packed]
        for number in range(4):
            archive = tmp_path / "out" / f"{number}-{name}"
            assert redact_to_archive(sources[number], archive, KEY, reporter=QUIET).place == archive
            assert is_bundle(archive)
            found = verify(archive)
            assert (found.flaws, found.finished, archive.stat().st_mode & 0o777) == ((), True, 0o600)
            members = list(in_archive(archive))
            assert len(members) > len(found.artefacts) > 0
            assert not [where for where, said in members if HIDDEN in said.lower()]
            sources.append(archive)
        assert len(list((tmp_path / "out").iterdir())) == 4  # and nothing that it was made in

    @pytest.mark.parametrize("there", ["a file", "a directory", "a dangling link"])
    def test_what_is_there_is_not_written_over(self, place: Path, tmp_path: Path, there: str) -> None:
        archive = tmp_path / "copy.tar.zst"
        if there == "a file":
            archive.write_text("kept")
        elif there == "a directory":
            archive.mkdir()
        else:
            archive.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UsageError):
            redact_to_archive(place, archive, KEY, reporter=QUIET)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.tar.zst", "evidence"]
        assert there != "a file" or archive.read_text() == "kept"

    @pytest.mark.parametrize("name", ["copy", "copy.tar.zst"])
    def test_nothing_is_written_into_the_bundle_itself(self, place: Path, name: str) -> None:
        into = redact_to_archive if name.endswith(".zst") else redact
        with pytest.raises(UsageError):
            into(place, place / "nodes" / name, KEY, reporter=QUIET)
        assert verify(place).sound

    def test_one_that_breaks_off_leaves_nothing(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(directory: Path, *_: object) -> int:
            assert verify(directory).sound  # all of it was there, and only had to be packed
            raise BundleWriteError("no room", code="bundleFull")

        monkeypatch.setattr("kdnsctl.evidence.redact.pack", fails)
        with pytest.raises(BundleWriteError):
            redact_to_archive(place, tmp_path / "copy.tar.zst", KEY, reporter=QUIET)
        assert [path.name for path in tmp_path.iterdir()] == ["evidence"]

    def test_where_nothing_can_be_written(self, place: Path, tmp_path: Path) -> None:
        with pytest.raises(RefusedError):
            redact_to_archive(place, tmp_path / "nowhere" / "copy.tar.zst", KEY, reporter=QUIET)


def in_archive(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Every name of a member, and every member as it is and as it is unpacked."""
    for file in files(archive, Allowance()):
        yield "the path", file.path.encode()
        said = b""
        while block := file.content.read(1 << 16):
            said += block
        yield file.path, gzip.decompress(said) if file.path.endswith(".gz") else said
