"""The single file for machines without pip, and the krew plug-in made of it: built from this environment, and run.

Nothing is fetched. The file is run with `-S -I`: without this environment's packages, and without anybody's variables.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import kdnsctl
from kdnsctl.cli.runbook.run import _ourselves

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"
LOGS = ROOT / "tests" / "recordings" / "incident"
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("file"))


def made(directory: Path) -> Path:
    words = [sys.executable, str(SCRIPTS / "singlefile.py"), "--directory", str(directory)]
    said = subprocess.run(words, check=True, capture_output=True, text=True, cwd="/").stdout
    (built,) = directory.iterdir()
    assert said == f"{built}\n"
    return built


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home directory of somebody who has run it before, or will."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def run(file: Path, home: Path) -> Run:
    def run(*words: str, file: Path = file, **changes: str) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(home), "PATH": "/nowhere", "KDNSCTL_CONFIG": os.devnull} | changes
        command = [sys.executable, "-S", "-I", str(file), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/")

    return run


def unpacked(home: Path) -> list[Path]:
    return list((home / ".cache" / "kdnsctl" / "app").iterdir())


def test_its_name_says_what_it_is_for(file: Path) -> None:
    assert re.fullmatch(rf"kdnsctl-{re.escape(kdnsctl.__version__)}-(linux|macos)-\w+\.pyz", file.name)
    assert file.stat().st_mode & 0o111 == 0o111
    assert file.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(file) as archive:
        told = json.loads(archive.read("about.json"))
    assert (told["version"], told["pythons"]) == (kdnsctl.__version__, [HERE])


def test_it_holds_what_is_imported_and_its_licences_and_no_tests(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        names = {name.removeprefix("app/") for name in archive.namelist()}
    tops = {name.partition("/")[0] for name in names}
    assert {"kdnsctl", "typer", "msgspec", "urllib3", "paramiko", "dns", "websocket", "yaml"} <= tops
    assert not {"kubernetes", "aiohttp", "pytest", "hypothesis", "mypy", "tests"} & tops
    own = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kdnsctl").rglob("*") if path.is_file()}
    assert {name for name in own if not name.endswith(".pyc")} <= names
    assert "kdnsctl.LICENSE" in names
    assert [name for name in names if re.search(r"paramiko-[^/]*\.dist-info/.*LICENSE", name)]
    assert not [name for name in names if name.endswith((".pyc", ".pth", "/RECORD"))]


def test_the_same_input_gives_the_same_file(file: Path, tmp_path: Path) -> None:
    assert made(tmp_path).read_bytes() == file.read_bytes()


def test_it_runs_without_any_package(run: Run, home: Path) -> None:
    ran = run("--version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"kdnsctl {kdnsctl.__version__}\n", "")
    (place,) = unpacked(home)
    assert place.stat().st_mode & 0o077 == 0
    before = place.stat().st_ctime_ns
    ran = run("find-affected", "--logs", str(LOGS), "-o", "json")
    assert ran.returncode == 3, ran.stderr
    report = json.loads(ran.stdout)
    assert {"node-a", "node-d"} <= {each["name"] for each in report["nodes"] if each["verdict"] == "suspect"}
    assert unpacked(home) == [place]
    assert place.stat().st_ctime_ns == before


def test_every_module_comes_from_the_file(run: Run, home: Path) -> None:
    """The compiled ones, too: a doctor that finds no server has imported most of what asks one."""
    ran = run("doctor", "--server", "https://127.0.0.1:9", "--request-timeout", "5s", "-o", "json", PYTHONVERBOSE="")
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["kind"] == "DoctorReport"
    (place,) = unpacked(home)
    told = "import sys; sys.path.insert(0, sys.argv[1]); import msgspec, re2, yaml, bcrypt, nacl.bindings, paramiko; "
    told += "print(*{m.__file__ for m in (msgspec._core, re2._re2, bcrypt, paramiko)}, sep='\\n')"
    files = subprocess.run(
        [sys.executable, "-S", "-I", "-c", told, str(place)], capture_output=True, text=True, check=True
    )
    assert [each for each in files.stdout.split() if not each.startswith(str(place))] == []


def test_many_first_runs_at_once_unpack_it_once(file: Path, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": "/nowhere"}
    command = [sys.executable, "-S", "-I", str(file), "--version"]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [each.communicate()[0] for each in running] == [f"kdnsctl {kdnsctl.__version__}\n"] * 4
    assert len(unpacked(tmp_path)) == 1


@pytest.mark.parametrize("cache", ["unwritable", "of-others"])
def test_a_cache_that_cannot_be_trusted_is_done_without(run: Run, file: Path, tmp_path: Path, cache: str) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    where = "/dev/null/cache"
    if cache == "of-others":
        with zipfile.ZipFile(file) as archive:
            digest = json.loads(archive.read("about.json"))["digest"]
        evil = tmp_path / "kdnsctl" / "app" / digest / "kdnsctl"
        evil.mkdir(parents=True)
        (evil / "__init__.py").write_text("__version__ = 'evil'")
        (evil / "__main__.py").write_text("def main():\n    print('evil')\n")
        evil.parent.chmod(0o777)
        where = str(tmp_path)
    # -I would have the temporary directory of the variable ignored, were it Python's own.
    ran = run("--version", XDG_CACHE_HOME=where, TMPDIR=str(temporary))
    assert (ran.returncode, ran.stdout) == (0, f"kdnsctl {kdnsctl.__version__}\n"), ran.stderr
    assert list(temporary.iterdir()) == []


def test_under_kubectls_name_it_says_kubectl(run: Run, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "kubectl-kdns"
    link.symlink_to(file)
    ran = run("find-affected", "--help", file=link)
    assert ran.stdout.startswith("Usage: kubectl kdns find-affected ")
    assert not re.search(r"(?<!/)\bkdnsctl (find-affected|collect|analyze)", ran.stdout)
    assert "kubectl kdns find-affected --live\n" in ran.stdout
    ran = run("find-affected", "--signature", "x", file=link)
    assert (ran.returncode, ran.stderr.count("kubectl kdns signatures")) == (2, 1)


def test_a_runbook_starts_the_file_again(run: Run, tmp_path: Path) -> None:
    step = "## 1. The catalogue\n\n**Reads:** nothing.\n\n```sh\nkdnsctl signatures CT_LIST_FAIL\n```\n"
    (tmp_path / "look.md").write_text(f"# Look\n\nFor a test.\n\n{step}")
    ran = run("runbook", "run", "look", "--runbook-dir", str(tmp_path), "--yes", XDG_STATE_HOME=str(tmp_path / "state"))
    assert ran.returncode == 0, ran.stderr
    assert "CT_LIST_FAIL" in ran.stdout


def test_from_elsewhere_a_runbook_starts_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _ourselves() == [sys.executable, "-P", "-m", "kdnsctl"]
    monkeypatch.setattr(sys.modules["__main__"], "SINGLE_FILE", "/opt/kdnsctl.pyz", raising=False)
    assert _ourselves() == [sys.executable, "/opt/kdnsctl.pyz"]


@pytest.fixture
def starter() -> Any:
    """What runs first in the file, as a module."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("singlefile_main", SCRIPTS / "singlefile_main.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_any_python_3_understands_what_runs_first() -> None:
    ast.parse((SCRIPTS / "singlefile_main.py").read_text(), feature_version=(3, 3))


def about(**changes: Any) -> dict[str, Any]:
    known = os.uname()
    return {"system": known.sysname, "machine": known.machine, "libc": "", "pythons": [HERE], **changes}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"pythons": ["3.2", "3.3"]}, f"it is for CPython 3.2, 3.3, and {sys.executable} is {HERE}"),
        ({"machine": "s390x"}, "it is for Linux on s390x, and this is "),
        ({"libc": "musl"}, "it is for systems with musl, and this has another C library"),
    ],
)
def test_a_machine_that_it_is_not_for_is_told_so(starter: Any, changes: dict[str, Any], why: str) -> None:
    said = starter.mismatch(about(**changes))
    assert said.startswith(why)
    assert bool(said) == bool(why)


def test_another_python_on_the_path_is_taken_once(
    starter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = tmp_path / "python3.2"
    newer.write_text("#!/bin/sh\n")
    newer.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert starter.other_python(about(pythons=["3.1", "3.2"])) == str(newer)
    assert starter.other_python(about(pythons=["3.1"])) is None
    monkeypatch.setenv(starter.TRIED, "1")
    assert starter.other_python(about(pythons=["3.1", "3.2"])) is None
    assert starter.TRIED not in os.environ


URL = "https://example.com/download/v1"
KEYS = {"selector", "uri", "sha256", "bin", "files"}  # of a platform (krew, pkg/index/types.go)


@pytest.fixture(scope="module")
def krew(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("krew")
    words = [sys.executable, str(SCRIPTS / "krew.py"), str(file), "--url", URL, "--directory", str(directory)]
    subprocess.run(words, check=True, capture_output=True)
    return directory


def test_the_manifest_is_one_that_krew_takes(krew: Path) -> None:
    """Its rules: krew, internal/index/validation/validate.go, and the naming guide."""
    plugin = yaml.safe_load((krew / "kdns.yaml").read_text())
    assert set(plugin) == {"apiVersion", "kind", "metadata", "spec"}
    assert (plugin["apiVersion"], plugin["kind"]) == ("krew.googlecontainertools.github.com/v1alpha2", "Plugin")
    name, spec = plugin["metadata"]["name"], plugin["spec"]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)  # lower-case kebab, and the file's name
    assert not name.startswith("kube")
    assert set(spec) == {"version", "homepage", "shortDescription", "description", "caveats", "platforms"}
    assert spec["version"] == f"v{kdnsctl.__version__}"
    assert re.fullmatch(r"v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", spec["version"])
    assert len(spec["shortDescription"]) <= 50
    assert "\n" not in spec["shortDescription"]
    assert spec["homepage"].startswith("https://")
    for platform in spec["platforms"]:
        assert set(platform) <= KEYS
        labels = platform["selector"]["matchLabels"]
        assert labels.keys() == {"os", "arch"}
        assert labels["os"] in {"linux", "darwin"}
        assert labels["arch"] in {"amd64", "arm64"}
        archive = krew / platform["uri"].removeprefix(f"{URL}/")
        assert platform["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
        with tarfile.open(archive) as tar:
            assert platform["bin"] in tar.getnames()


def test_what_krew_installs_runs_as_kubectl_kdns(krew: Path, run: Run, tmp_path: Path) -> None:
    (archive,) = krew.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    installed = tmp_path / "kubectl-kdns"
    assert installed.stat().st_mode & 0o111
    ran = run(file=installed)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Usage: kubectl kdns COMMAND [OPTIONS]\n")


def test_files_of_two_releases_make_no_manifest(file: Path, tmp_path: Path) -> None:
    other = tmp_path / file.name
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(other, "w") as new:
        new.writestr("about.json", json.dumps(json.loads(old.read("about.json")) | {"version": "9.9.9"}))
    words = [
        sys.executable,
        str(SCRIPTS / "krew.py"),
        str(file),
        str(other),
        "--url",
        URL,
        "--directory",
        str(tmp_path),
    ]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (
        1,
        f"error: these are not files of one release: {kdnsctl.__version__}, 9.9.9\n",
    )
    assert not (tmp_path / "kdns.yaml").exists()
