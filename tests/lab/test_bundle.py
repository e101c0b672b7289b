"""Bundles of a lab in which DNS really fails, in each way: analyze finds in them, redacted too, what it finds live."""

from __future__ import annotations

import gzip
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.evidence.packing import is_bundle
from kdnsctl.lab.incident import Mode
from kdnsctl.lab.spacedir import LabDir
from kdnsctl.logs.sources.opening import decompressed, from_file
from tests.lab.conftest import Kdnsctl, lab_up

NAME = "bundles"
BROKEN = "knode2"


@pytest.fixture(scope="module")
def lab(command_home: Path) -> Iterator[LabDir]:
    with lab_up(command_home, NAME) as where:
        yield where


@pytest.fixture(autouse=True)
def speaking_to_it(lab: LabDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(lab.kubeconfig))


def analyzed(kdnsctl: Kdnsctl, *words: str) -> list[dict[str, Any]]:
    ran = kdnsctl("analyze", *words, "-o", "json")
    assert ran.code in (0, 3), ran.err
    nodes: list[dict[str, Any]] = json.loads(ran.out)["nodes"]
    return nodes


def of_node(nodes: list[dict[str, Any]], verdict: str) -> tuple[str, dict[str, int]]:
    """The one node with a verdict: its name, and how many findings it has of each kind."""
    (node,) = (one for one in nodes if one["verdict"] == verdict)
    kinds = [finding["id"] for finding in node["findings"]]
    return node["name"], {kind: kinds.count(kind) for kind in kinds}


def counts(nodes: list[dict[str, Any]]) -> list[Any]:
    """What is said of each node, without names and addresses."""
    return sorted(
        [
            node["verdict"],
            node["reasonCode"],
            node["staleEntries"],
            node["complete"],
            sorted([finding["id"], finding.get("count"), len(finding["backends"])] for finding in node["findings"]),
        ]
        for node in nodes
    )


@pytest.mark.parametrize("mode", list(Mode))
def test_a_bundle_tells_what_the_nodes_tell(kdnsctl: Kdnsctl, lab: LabDir, tmp_path: Path, mode: Mode) -> None:
    made = kdnsctl("lab", "break", NAME, "--mode", mode.value, "--node", BROKEN)
    try:
        assert made.code == 0, made.err
        place = tmp_path / "evidence"
        live = analyzed(kdnsctl, "--all", "--settle", "3s")
        patience = ("--timeout", "5s") if mode is Mode.DOWN else ()  # what nobody answers is not waited for long
        ran = kdnsctl("collect", "--all", "-O", str(place), "--via", "exec", *patience)
        assert ran.code == (4 if mode is Mode.DOWN else 0), ran.out  # a kube-proxy that is down tells nothing of itself
    finally:
        healed = kdnsctl("lab", "heal", NAME)
    assert healed.code == 0, healed.err
    offline = analyzed(kdnsctl, str(place))
    (name, found), (seen, at_once) = of_node(offline, "affected"), of_node(live, "affected")
    if mode is Mode.DOWN:  # how a stopped process fails to answer differs from one question to the next
        assert found.pop("P1", None) or at_once.pop("P1", None)
        at_once.pop("P1", None)
    assert (name, found) == (seen, at_once)
    assert name == BROKEN

    archive = tmp_path / "evidence.tar.zst"
    assert is_bundle(archive)
    assert kdnsctl("bundle", "verify", str(archive)).code == 0
    assert analyzed(kdnsctl, str(archive)) == [
        {**node, "sources": archived["sources"]}
        for node, archived in zip(offline, analyzed(kdnsctl, str(archive)), strict=True)
    ]

    copy = tmp_path / "redacted"
    assert kdnsctl("bundle", "redact", str(archive), "-O", str(copy)).code == 0
    assert kdnsctl("bundle", "verify", str(copy)).code == 0
    assert counts(analyzed(kdnsctl, str(copy))) == counts(offline)
    assert not [where for where, said in contents(copy) if re.search(rb"knode|10\.244\.\d|lab-bundles", said)]

    secrets = [
        (lab.root / "operator.token").read_bytes().strip(),
        b"PRIVATE KEY",
        b"client-key-data",
        b"apiVersion: v1",
    ]
    assert not [
        (where, one) for place_ in (place, copy) for where, said in contents(place_) for one in secrets if one in said
    ]
    assert not [one for said in in_archive(archive) for one in secrets if one in said]


def contents(place: Path) -> Iterator[tuple[str, bytes]]:
    for path in place.rglob("*"):
        yield "the path", path.relative_to(place).as_posix().encode()
        if path.is_file():
            said = path.read_bytes()
            yield str(path), said
            if path.suffix == ".gz":
                yield str(path), gzip.decompress(said)


def in_archive(archive: Path) -> Iterator[bytes]:
    """Every member as it is, and as it is unpacked."""
    with archive.open("rb", buffering=0) as raw, tarfile.open(fileobj=_Reader(raw), mode="r|") as tar:  # type: ignore[call-overload]
        for member in tar:
            content = tar.extractfile(member)
            said = content.read() if content else b""
            yield said
            if member.name.endswith(".gz"):
                yield gzip.decompress(said)


class _Reader:
    def __init__(self, raw: Any) -> None:
        self._source = decompressed(from_file(raw))

    def read(self, size: int) -> bytes:
        pieces: list[bytes] = []
        while size > 0 and (block := self._source.read(size)):
            pieces.append(block)
            size -= len(block)
        return b"".join(pieces)
