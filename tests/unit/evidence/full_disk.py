"""A bundle on a disk that fills up; run in a mount namespace of its own, prints what happened as JSON."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from kdnsctl.changes.journal import read
from kdnsctl.evidence.artefactfile import ArtefactFile, BundleWriteError, Source
from kdnsctl.evidence.bundle import JOURNAL, Bundle

EXEC = Source("kubeProxyExec")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        disk = Path(directory)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", str(disk)], check=True)
        try:
            print(json.dumps(fill(disk / "bundle")))  # noqa: T201 - read by the test
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def fill(place: Path) -> dict[str, Any]:
    with Bundle.create(place, {}) as bundle:
        bundle.begin("knode1", "whole", "whole.txt", EXEC).close(proof="trailer")
        file = bundle.begin("knode2", "cut", "cut.txt", EXEC)
        code = write_all(file, 4096)
        cut = file.close(proof="trailer")
        for number in range(500):  # more than the page that is left: it takes the reserve
            bundle.record("note", {"note": number})
        late = bundle.begin("knode3", "late", "late.txt", EXEC)
        write_all(late, 1)
        late.close()
        bundle.finish({})
    journal = read(place / JOURNAL)
    sums = subprocess.run(["sha256sum", "--check", "--strict", "--status", "SHA256SUMS"], cwd=place, check=False)
    return {
        "codeOfTheWrite": code,
        "problem": cut.problem and cut.problem.code,
        "proof": cut.proof,
        "sizeIsThatOfTheFile": cut.stored_size == (place / cut.path).stat().st_size > 1024 * 1024,
        "writtenAfterwards": (place / late.path).stat().st_size,
        "notes": sum(record.kind == "note" for record in journal.records),
        "journalProblem": journal.problem and journal.problem.message,
        "sha256sum": sums.returncode,
        "files": sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()),
    }


def write_all(file: ArtefactFile, kibibytes: int) -> str:
    try:
        for _ in range(kibibytes):
            file.write(os.urandom(1024))
    except BundleWriteError as error:
        return error.code
    return ""


if __name__ == "__main__":
    main()
