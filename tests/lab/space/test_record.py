"""The record of a lab's first process: one that cannot be read is not taken for none, and `down` then does nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdnsctl.lab import space
from kdnsctl.lab.spacedir import (
    Identity,
    LabDir,
    LabError,
    create,
    lab_dir,
    locked,
    read_identity,
    remove,
    start_time,
    write_identity,
)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Stands for a lab's first process; it lives as long as nobody ends it."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        yield running
        running.kill()


@pytest.fixture
def where(tmp_path: Path, process: subprocess.Popen[bytes]) -> LabDir:
    lab = lab_dir("l", tmp_path)
    create(lab)
    write_identity(lab, Identity(process.pid, start_time(process.pid) or 0, rootless=False))
    return lab


def test_fields_of_another_version_are_ignored(where: LabDir, process: subprocess.Popen[bytes]) -> None:
    raw = json.loads(where.identity_file.read_text())
    where.identity_file.write_text(json.dumps({**raw, "colour": "blue"}))
    assert read_identity(where) == Identity(process.pid, raw["started"], rootless=False)
    assert space.down("l", root=where.root.parent)
    assert process.wait(30) == -9
    assert not where.root.exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"pid": 5}', '{"pid": "5", "started": 1, "rootless": true}', "\udcff",
             '{"pid": true, "started": 1, "rootless": true}', '{"pid": 0, "started": 1, "rootless": true}'],
)  # fmt: skip
def test_down_leaves_everything_when_the_record_is_illegible(
    where: LabDir, process: subprocess.Popen[bytes], text: str
) -> None:
    where.identity_file.write_text(text, errors="surrogateescape")
    with pytest.raises(LabError, match="Nothing was ended or removed"):
        space.down("l", root=where.root.parent)
    assert process.poll() is None
    assert where.log_file.parent.is_dir()
    assert where.identity_file.exists()


def test_a_lab_without_a_record_is_removed(where: LabDir) -> None:
    where.identity_file.unlink()
    assert read_identity(where) is None
    assert space.down("l", root=where.root.parent)
    assert not where.root.exists()


def test_a_directory_of_somebody_else_is_left(where: LabDir, process: subprocess.Popen[bytes]) -> None:
    os.chown(where.root, 65534, 65534)
    with pytest.raises(LabError, match="belongs to the user with id 65534; nothing was ended or removed"):
        space.down("l", root=where.root.parent)
    assert process.poll() is None
    assert where.identity_file.exists()


def test_a_link_is_no_lab(where: LabDir) -> None:
    (where.root.parent / "m").symlink_to(where.root)
    with pytest.raises(LabError, match="no directory of a lab"):
        space.down("m", root=where.root.parent)
    assert where.identity_file.exists()


@pytest.mark.parametrize("again", [False, True], ids=["removed", "removed and made again"])
def test_nobody_is_recorded_in_a_directory_that_was_removed_meanwhile(where: LabDir, again: bool) -> None:
    said: list[str] = []

    def record() -> None:
        with pytest.raises(LabError) as refused:
            write_identity(where, Identity(1, 1, rootless=False))
        said.append(str(refused.value))

    late = threading.Thread(target=record)
    with locked(where) as present:
        assert present
        late.start()  # finds the directory locked, or gone
        remove(where)
        if again:
            create(where)
    late.join(30)
    assert said == [f"{where.root} was removed while the lab came up"]
    assert where.root.exists() is again
    assert not where.identity_file.exists()


def test_two_who_take_it_down_do_not_meet(where: LabDir, process: subprocess.Popen[bytes]) -> None:
    took: list[bool] = []
    both = [threading.Thread(target=lambda: took.append(space.down("l", root=where.root.parent))) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join(30)
    assert sorted(took) == [False, True]
    assert process.wait(30) == -9
