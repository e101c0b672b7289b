"""Files in a directory that its owner rearranges: nothing is written, read or removed through a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdnsctl.lab import beneath
from kdnsctl.lab.nodefaults import Fault, inject, lift
from kdnsctl.lab.podlogs import ContainerLog, LogOptions, LogReader


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What must stay as it is."""
    target = tmp_path / "machine"
    target.mkdir()
    (target / "0.log").write_text("precious")
    return target


@pytest.fixture
def log_root(tmp_path: Path) -> Path:
    root = tmp_path / "var-log"
    root.mkdir()
    return root


@pytest.mark.parametrize("swapped", ["pods", "pods/p", "pods/p/main"])
def test_no_log_is_written_through_a_directory_that_became_a_link(outside: Path, log_root: Path, swapped: str) -> None:
    (log_root / swapped).parent.mkdir(parents=True, exist_ok=True)
    (log_root / swapped).symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        beneath.new_file(log_root, "pods/p/main", "0.log")
    assert [(each.name, each.read_text()) for each in outside.iterdir()] == [("0.log", "precious")]


def test_a_file_that_became_a_link_is_replaced_not_followed(outside: Path, log_root: Path) -> None:
    (log_root / "pods/p").mkdir(parents=True)
    (log_root / "pods/p/0.log").symlink_to(outside / "0.log")
    log = ContainerLog(log_root / "pods/p/0.log", beneath.new_file(log_root, "pods/p", "0.log"))
    log.write("stdout", b"hello\n")
    (log_root / "pods/p/0.log").unlink()
    (log_root / "pods/p/0.log").symlink_to(outside / "0.log")
    log.write("stdout", b"again\n")
    log.end()
    assert b"".join(LogReader(log, LogOptions())) == b"hello\nagain\n"
    assert (outside / "0.log").read_text() == "precious"


@pytest.mark.parametrize("inside", ["..", "pods/../..", "/etc"])
def test_a_path_that_climbs_is_refused(log_root: Path, inside: str) -> None:
    with pytest.raises(ValueError, match="leads out"):
        beneath.new_file(log_root, inside, "x")
    with pytest.raises(ValueError, match="no file name"):
        beneath.new_file(log_root, "pods", "../x")


def test_removal_stays_inside(outside: Path, log_root: Path) -> None:
    (log_root / "pods/p").mkdir(parents=True)
    (log_root / "pods/p/link").symlink_to(outside)
    beneath.remove_tree(log_root, "pods", "p")
    assert list((log_root / "pods").iterdir()) == []
    (log_root / "containers").symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        beneath.remove_matching(log_root, "containers", "*.log")
    assert (outside / "0.log").read_text() == "precious"


def test_a_fault_stays_in_the_containers_own_tree(tmp_path: Path, outside: Path) -> None:
    root = tmp_path / "container"
    (root / "usr").mkdir(parents=True)
    (root / "usr/sbin").symlink_to(outside)  # for the container this leads to a directory below its own root
    inside = root / outside.relative_to("/")
    inside.mkdir(parents=True)
    (inside / "conntrack").touch()
    (inside / ".conntrack.new").symlink_to(outside / "0.log")
    inject(root, Fault.CONNTRACK)
    assert "such conntrack doesn't exist" in (inside / "conntrack").read_text()
    image = tmp_path / "image"
    (image / "usr/sbin").mkdir(parents=True)
    (image / "usr/sbin/conntrack").touch()
    lift(root, image, Fault.CONNTRACK)
    assert (inside / "conntrack").read_text() == ""
    assert [(each.name, each.read_text()) for each in outside.iterdir()] == [("0.log", "precious")]
