"""What is shipped: the wheel and the sdist hold what they must, and the lock files cover what is declared.

Runs from the source tree. Nothing is fetched: both are built by the hatchling of this environment.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import sysconfig
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
from kdnsctl.cli import app
from kdnsctl.cli.settings import by_option, commands
from kdnsctl.model import ExitCode

ROOT = Path(__file__).parent.parent
MAN_PAGE = "data/share/man/man1/kdnsctl.1"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def build(target: str, into: Path, source: Path = ROOT) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into)],
        cwd=source,
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


def test_wheel_carries_the_json_schemas_and_the_man_page(wheel: zipfile.ZipFile) -> None:
    prefix = f"kdnsctl-{kdnsctl.__version__}.data/"
    data = {name.removeprefix(prefix) for name in wheel.namelist() if name.startswith(prefix)}
    schemas = {path.name for path in (ROOT / "docs" / "schemas").glob("*.schema.json")}
    assert "FindReport.schema.json" in schemas
    assert data == {f"data/share/kdnsctl/schemas/{name}" for name in schemas} | {MAN_PAGE}


def test_the_man_page_is_what_the_commands_say(wheel: zipfile.ZipFile) -> None:
    page = wheel.read(f"kdnsctl-{kdnsctl.__version__}.data/{MAN_PAGE}").decode()
    lines = page.splitlines()
    assert lines[0] == f'.TH KDNSCTL 1 "" "kdnsctl {kdnsctl.__version__}" "kdnsctl"'
    assert [line for line in lines if line.startswith(("'", "."))  # no word of help became a request
            and not re.match(r"\.(TH|SH|SS|PP|TP|B|BR|I|nf|fi)\b", line)] == []  # fmt: skip
    assert re.findall(r"\\(?![-&e])", page) == []
    shown = page.replace(r"\-", "-").replace(r"\&", "")
    built = list(commands(app.COMMANDS))
    assert re.findall(r"^\.SS kdnsctl (.+)$", shown, re.MULTILINE) == [" ".join(words) for words, _ in built]
    options = {f"--{name}" for _, command in built for name, option in by_option(command.params).items()
               if not option.hidden}  # fmt: skip
    assert {name for name in options if not re.search(rf"^\.B .*{name}\b", shown, re.MULTILINE)} == set()
    codes = re.findall(r"^\.TP\n\.B (\d+)$", page, re.MULTILINE)
    assert {int(code) for code in codes} == {int(code) for code in ExitCode}


def test_what_the_man_page_imports_is_there_when_a_wheel_is_built() -> None:
    """pip builds in an environment that holds only what `build-system.requires` brings."""
    told = "import sys; sys.path.insert(0, 'scripts'); import manpage; manpage.page(); "
    told += "print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    words = [sys.executable, "-c", told]
    imported = set(subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split())
    waiting = [Requirement(line) for line in PROJECT["build-system"]["requires"]]
    there: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in there or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        there.add(name)
        waiting += [Requirement(line) for line in metadata.requires(requirement.name) or ()]
    owners = metadata.packages_distributions()
    needed = {canonicalize_name(name) for module in imported for name in owners.get(module, ())} - {"kdnsctl"}
    assert "typer" in needed
    optional = {"typing-extensions"}  # msgspec takes it where it is
    assert needed - there - optional - {"setuptools", "coverage"} == set()  # which put themselves into every Python


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
        "scripts/build_hook.py",
        "scripts/manpage.py",
        "scripts/singlefile.py",
        "scripts/venv.sh",
        "tests/test_packaging.py",
        "try",
        "zensical.toml",
    }
    assert needed <= sdist_names
    assert not [name for name in sdist_names if "__pycache__" in name or name.startswith((".venv", ".nox", "site"))]


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    with zipfile.ZipFile(build("wheel", tmp_path / "wheel", source)) as other:
        assert sorted(other.namelist()) == sorted(wheel.namelist())
        assert [name for name in other.namelist() if other.read(name) != wheel.read(name)] == []


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it, and what it needs as this one has it: nothing is fetched."""
    directory = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory / "venv")], check=True)
    python = directory / "venv" / "bin" / "python"
    wheel = build("wheel", directory / "wheel")
    install = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--offline",
        "--no-deps",
        "--python",
        str(python),
        str(wheel),
    ]
    subprocess.run([*install, "--cache-dir", str(directory / "cache")], check=True, capture_output=True)
    (packages,) = (directory / "venv" / "lib").glob("python*/site-packages")
    # A .pth of a directory: its packages, but not its .pth files, of which one is this checkout.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return directory / "venv"


def ran_in(clean: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/nowhere", "HOME": str(clean), "KDNSCTL_CONFIG": os.devnull}
    command = [str(clean / "bin" / program), *words]
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)


def test_the_wheel_runs_in_a_clean_environment(clean: Path) -> None:
    where = ran_in(clean, "python", "-c", "import kdnsctl; print(kdnsctl.__file__)").stdout
    assert where.startswith(str(clean))
    ran = ran_in(clean, "kdnsctl", "--version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"kdnsctl {kdnsctl.__version__}\n", "")
    logs = str(ROOT / "tests" / "recordings" / "incident")
    ran = ran_in(clean, "kdnsctl", "find-affected", "--logs", logs, "-o", "name", "--include", "suspect")
    assert (ran.returncode, ran.stdout.split()[0]) == (3, "node/node-a"), ran.stderr
    assert "dns-blackhole" in ran_in(clean, "kdnsctl", "runbook", "list").stdout  # what is read beside the modules


def test_the_wheel_brings_kubectls_plug_in_its_completion_and_the_man_page(clean: Path) -> None:
    assert ran_in(clean, "kubectl-kdns").stdout.startswith("Usage: kubectl kdns COMMAND ")
    ran = ran_in(clean, "kubectl_complete-kdns", "find-affected", "--since-")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[0].startswith("--since-time\t")
    assert ran.stdout.splitlines()[1:] == [":4"]
    assert (clean / "share" / "man" / "man1" / "kdnsctl.1").is_file()
    assert (clean / "share" / "kdnsctl" / "schemas" / "FindReport.schema.json").is_file()


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
