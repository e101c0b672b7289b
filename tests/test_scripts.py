"""scripts/venv.sh, which ./try and ./check begin with: which Python is taken, and what is said when none will do.

Runs the real script in the system's sh, with a PATH that holds only stand-ins for Python; no environment is made.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WITHOUT_ENSUREPIP = """#!/bin/sh
case $2 in
*ensurepip*) exit 1 ;;
*print*) echo 3.11 ;;
esac
"""
OLD = "#!/bin/sh\nexit 1\n"
NOT_EXECUTABLE_HERE = "#!/no/such/interpreter\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "a bin"
    folder.mkdir()
    return folder


def put(path: Path, name: str, text: str) -> None:
    (path / name).write_text(text, encoding="utf-8")
    (path / name).chmod(0o755)


def find_python(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("sh") or "/bin/sh", "-c", 'root=$1; . "$root/scripts/venv.sh"; find_python', "try", str(ROOT)],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_python_that_runs_and_makes_environments_is_taken(path: Path) -> None:
    put(path, "python3.13", NOT_EXECUTABLE_HERE)
    put(path, "python3.12", WITHOUT_ENSUREPIP)
    put(path, "python3.11", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    put(path, "python3", OLD)
    found = find_python(path)
    assert (found.stdout, found.stderr, found.returncode) == (f"{path}/python3.11\n", "", 0)


def test_a_python_without_ensurepip_names_the_debian_package(path: Path) -> None:
    put(path, "python3", WITHOUT_ENSUREPIP)
    found = find_python(path)
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr.startswith("try: python3 (Python 3.11) cannot make virtual environments")
    assert "apt-get install python3-venv\n" in found.stderr
    assert "apt-get install python3.11-venv\n" in found.stderr


@pytest.mark.parametrize("present", [[], ["python3"]])
def test_no_python_that_is_new_enough_says_what_is_needed(path: Path, present: list[str]) -> None:
    for name in present:
        put(path, name, OLD)
    found = find_python(path)
    assert found.returncode == 1
    assert found.stderr.startswith("try: no Python 3.11 or newer was found")
    assert "apt-get install python3 python3-venv\n" in found.stderr
