"""What is shipped: the wheel and the sdist hold what they must, and the lock files cover what is declared.

Runs from the source tree. Nothing is fetched: both are built by the hatchling of this environment.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import kdnsctl
from kdnsctl.model import ExitCode

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def build(target: str, into: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = into.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(build("wheel", tmp_path_factory.mktemp("wheel"))) as archive:
        yield archive


@pytest.fixture(scope="module")
def sdist_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with tarfile.open(build("sdist", tmp_path_factory.mktemp("sdist"))) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def dist_info(wheel: zipfile.ZipFile, name: str) -> bytes:
    return wheel.read(f"kdnsctl-{kdnsctl.__version__}.dist-info/{name}")


def wheel_metadata(wheel: zipfile.ZipFile) -> Message:
    return BytesParser().parsebytes(dist_info(wheel, "METADATA"))


def package_files() -> set[str]:
    """All files of the package: modules, the typing marker and whatever data is added later."""
    files = (path for path in (ROOT / "kdnsctl").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(ROOT).as_posix() for path in files}


def test_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    shipped = {name for name in wheel.namelist() if not re.match(r"kdnsctl-[^/]*\.(dist-info|data)/", name)}
    assert shipped == package_files()
    assert "kdnsctl/py.typed" in shipped


def test_wheel_carries_the_json_schemas(wheel: zipfile.ZipFile) -> None:
    prefix = f"kdnsctl-{kdnsctl.__version__}.data/"
    data = {name.removeprefix(prefix) for name in wheel.namelist() if name.startswith(prefix)}
    schemas = {path.name for path in (ROOT / "docs" / "schemas").glob("*.schema.json")}
    assert "FindReport.schema.json" in schemas
    assert data == {f"data/share/kdnsctl/schemas/{name}" for name in schemas}


def test_wheel_carries_the_licence(wheel: zipfile.ZipFile) -> None:
    assert dist_info(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert wheel_metadata(wheel)["License-Expression"] == "Apache-2.0"


def test_wheel_carries_the_readme(wheel: zipfile.ZipFile) -> None:
    assert dist_info(wheel, "METADATA").endswith((ROOT / "README.md").read_bytes())


def test_sdist_can_be_built_and_tested_from(sdist_names: set[str]) -> None:
    assert package_files() <= sdist_names
    needed = {
        "CHANGELOG.md",
        "LICENSE",
        "README.md",
        "check",
        "docs/index.md",
        "docs/schemas/FindReport.schema.json",
        "noxfile.py",
        "pyproject.toml",
        "requirements-dev.lock",
        "requirements.lock",
        "scripts/venv.sh",
        "tests/test_packaging.py",
        "try",
        "zensical.toml",
    }
    assert needed <= sdist_names
    assert not [name for name in sdist_names if "__pycache__" in name or name.startswith((".venv", ".nox", "site"))]


def test_the_version_is_written_once(wheel: zipfile.ZipFile) -> None:
    assert wheel_metadata(wheel)["Version"] == kdnsctl.__version__
    assert "version" not in PROJECT["project"]
    written = re.compile(rf"""["']{re.escape(kdnsctl.__version__)}["']""")
    modules = [path for path in (ROOT / "kdnsctl").rglob("*.py") if written.search(path.read_text(encoding="utf-8"))]
    assert modules == [ROOT / "kdnsctl" / "__init__.py"]


def test_the_installed_version_is_this_one() -> None:
    assert metadata.version("kdnsctl") == kdnsctl.__version__, (
        "the environment is older than the sources: install again"
    )


def test_every_console_entry_point_resolves(wheel: zipfile.ZipFile) -> None:
    scripts: dict[str, str] = PROJECT["project"]["scripts"]
    assert "kdnsctl" in scripts
    shipped = dist_info(wheel, "entry_points.txt").decode()
    for name, target in scripts.items():
        assert f"{name} = {target}" in shipped
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_every_dependency_has_a_lower_bound() -> None:
    for requirement in runtime_requirements():
        assert ">=" in {specifier.operator for specifier in requirement.specifier}, str(requirement)


def declared(group: str) -> list[Requirement]:
    """The requirements of a dependency group, those of the groups it includes among them."""
    requirements: list[Requirement] = []
    for item in PROJECT["dependency-groups"][group]:
        if isinstance(item, str):
            requirements.append(Requirement(item))
        else:
            requirements += declared(item["include-group"])
    return requirements


def locked(name: str) -> dict[str, list[Requirement]]:
    """What a lock file pins, by name. One name can be pinned differently for different Pythons."""
    entries = re.findall(r"^(\S+==.+?) \\$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    pins: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, entries):
        pins.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return pins


def assert_covered(requirements: list[Requirement], pins: dict[str, list[Requirement]]) -> None:
    for requirement in requirements:
        pinned = pins.get(canonicalize_name(requirement.name), [])
        assert pinned, f"{requirement} is in no lock: run `./check lock`"
        for pin in pinned:
            (exact,) = pin.specifier
            assert requirement.specifier.contains(exact.version), f"{pin} is not {requirement}: run `./check lock`"


def runtime_requirements() -> list[Requirement]:
    """What kdnsctl imports, with every extra: ./try plays the lab's demo from the lock."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    return [Requirement(line) for lines in (PROJECT["project"]["dependencies"], *extras) for line in lines]


def test_the_locks_cover_what_is_declared() -> None:
    runtime = runtime_requirements()
    assert_covered(runtime, locked("requirements.lock"))
    assert_covered([*runtime, *declared("dev")], locked("requirements-dev.lock"))


def test_the_development_lock_pins_the_same_as_the_runtime_lock() -> None:
    development = locked("requirements-dev.lock")
    for name, pins in locked("requirements.lock").items():
        assert [pin.specifier for pin in development[name]] == [pin.specifier for pin in pins]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_has_hashes_and_names_no_index(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", text)
    pins = [entry for entry in entries if not entry.startswith("#")]
    assert pins
    assert [pin for pin in pins if "--hash=sha256:" not in pin] == []
    assert re.findall(r"https?://|file:|--(?:extra-)?index-url|--find-links", text) == []


def test_every_exit_code_is_documented() -> None:
    page = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == {int(code) for code in ExitCode}
