"""An archive whose writer is killed by SIGKILL: never half done under its name, and made whole by the next run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kdnsctl.evidence.artefactfile import Source
from kdnsctl.evidence.bundle import Bundle
from kdnsctl.evidence.packing import Compression, archive_name, is_bundle, pack
from kdnsctl.evidence.verify import verify

# Kills itself when so many files are in the archive, with what was packed of them on the disk.
KILLED = """
import os, signal, sys, tarfile
from pathlib import Path
from kdnsctl.evidence import packing

add, left = tarfile.TarFile.addfile, [int(sys.argv[3])]

def added(self, about, content=None):
    add(self, about, content)
    left[0] -= 1
    if not left[0]:
        self.fileobj.fileobj.flush() if hasattr(self.fileobj, "fileobj") else None
        os.kill(os.getpid(), signal.SIGKILL)

tarfile.TarFile.addfile = added
packing.pack(Path(sys.argv[1]), Path(sys.argv[2]), packing.compression_of(Path(sys.argv[2])), replace=True)
"""
FILES = 20


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with Bundle.create(tmp_path / "evidence", {"nodes": ["knode1"]}) as bundle:
        for number in range(FILES):
            file = bundle.begin("knode1", "conntrack.a", f"{number}.txt", Source("exec"))
            file.write(os.urandom(64 << 10))
            file.close(proof="trailer")
        bundle.finish({"nodes": {"knode1": "complete"}})
    return tmp_path / "evidence"


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("files", [1, 3, FILES // 2, FILES + 3])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_half_archive_is_never_taken_for_a_whole_one(
    place: Path, compression: Compression, files: int, earlier: bool
) -> None:
    archive = archive_name(place, compression)
    before = b""
    if earlier:  # one of this bundle as it was
        pack(place, archive, compression)
        before = archive.read_bytes()
    ran = subprocess.run([sys.executable, "-c", KILLED, place, archive, str(files)], check=False)
    assert ran.returncode == -signal.SIGKILL
    assert (archive.read_bytes() if archive.exists() else b"") == before
    half = archive.with_name(f"{archive.name}.part")
    assert half.exists()
    renamed = place.with_name(f"half{archive.name}")
    shutil.copy(half, renamed)  # should somebody take it for one
    if is_bundle(renamed):
        assert not verify(renamed).sound
    pack(place, archive, compression, replace=True)
    assert not half.exists()
    found = verify(archive)
    assert (found.flaws, found.finished, len(found.artefacts)) == ((), True, FILES)
