#!/usr/bin/env python3
"""Makes kdnsctl one file that runs where Python is and pip is not: `kdnsctl-VERSION-SYSTEM-MACHINE.pyz`.

It holds kdnsctl from this checkout and what it imports, as installed here, for the Python that runs this; with --python
and --platform as requirements.lock pins it, fetched for those. Compiled modules of several Pythons lie side by side in
one file. `kubernetes` is left out: it is three quarters of the size, for renewing the tokens of `auth-provider` users,
who are told to do that with kubectl.

The same input gives the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import stat
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = frozenset({"kubernetes"})
NOT_SHIPPED = frozenset({"RECORD", "INSTALLER", "REQUESTED", "WHEEL", "direct_url.json"})  # of a dist-info
FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of machine: as it names itself, and as uv names it."""

    system: str
    machine: str
    libc: str
    uv: str

    @property
    def name(self) -> str:
        """As in the name of the file."""
        return f"{'macos' if self.system == 'Darwin' else self.system.lower()}-{self.machine}"


TARGETS = (
    Target("Linux", "x86_64", "glibc", "x86_64-manylinux_2_28"),
    Target("Linux", "aarch64", "glibc", "aarch64-manylinux_2_28"),
    Target("Darwin", "arm64", "", "aarch64-apple-darwin"),
    Target("Darwin", "x86_64", "", "x86_64-apple-darwin"),
)


def this_machine() -> Target:
    """The target that this machine is."""
    libc = "glibc" if platform.libc_ver()[0] == "glibc" else ""
    return Target(platform.system(), platform.machine(), libc, "")


def needed(directories: Sequence[str] | None = None, python: str = "") -> dict[str, metadata.Distribution]:
    """The distributions that kdnsctl imports, by name: those installed here, or in `directories` for another Python."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"} if python else {}
    there = metadata.distributions(path=list(directories)) if directories else metadata.distributions()
    installed = {canonicalize_name(one.metadata["Name"]): one for one in there}
    found: dict[str, metadata.Distribution] = {}
    waiting = [Requirement(line) for line in own_requirements()]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate({**environment, "extra": ""})
        if name in found or name in LEFT_OUT or not applies:
            continue
        if name not in installed:
            sys.exit(f"error: {name} is not installed; install kdnsctl first")
        found[name] = installed[name]
        waiting += [Requirement(line) for line in installed[name].requires or ()]
    return found


def own_requirements() -> list[str]:
    """What pyproject.toml declares, without extras."""
    import tomllib  # noqa: PLC0415

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return list(project["project"]["dependencies"])


def files_of(distribution: metadata.Distribution) -> Iterator[tuple[str, bytes]]:
    """What a distribution installs and is imported or must go with it (licences): name and content."""
    for file in distribution.files or ():
        path = PurePosixPath(file.as_posix())
        if ".." in path.parts or path.is_absolute() or path.suffix in (".pyc", ".pth"):
            continue
        if path.parts[0].endswith(".dist-info") and path.name in NOT_SHIPPED:
            continue
        yield path.as_posix(), Path(str(file.locate())).read_bytes()


def own_files() -> Iterator[tuple[str, bytes]]:
    """The package itself, from this checkout."""
    for path in sorted((ROOT / "kdnsctl").rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            yield path.relative_to(ROOT).as_posix(), path.read_bytes()
    yield "kdnsctl.LICENSE", (ROOT / "LICENSE").read_bytes()


def gathered(trees: Iterable[Mapping[str, metadata.Distribution]]) -> dict[str, bytes]:
    """The content of the file, by name. Two trees may differ in what is compiled only."""
    content = dict(own_files())
    for tree in trees:
        for distribution in tree.values():
            for name, data in files_of(distribution):
                if content.setdefault(name, data) != data and not name.endswith("/METADATA"):
                    sys.exit(f"error: {name} is not the same for all Pythons")
    return content


def write(content: Mapping[str, bytes], target: Target, pythons: Sequence[str], directory: Path) -> Path:
    """Write the file into `directory`, and return its path."""
    digest = hashlib.sha256()
    for name in sorted(content):
        digest.update(f"{name}\0{hashlib.sha256(content[name]).hexdigest()}\n".encode())
    version = re.search(r'^__version__ = "(.+)"$', content["kdnsctl/__init__.py"].decode(), re.MULTILINE)
    if version is None:
        sys.exit("error: kdnsctl/__init__.py has no version")
    told = {
        "version": version[1],
        "pythons": list(pythons),
        "system": target.system,
        "machine": target.machine,
        "libc": target.libc,
        "digest": digest.hexdigest()[:32],
    }
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"kdnsctl-{version[1]}-{target.name}.pyz"
    with file.open("wb") as written:
        written.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            _add(archive, "__main__.py", (ROOT / "scripts" / "singlefile_main.py").read_bytes())
            _add(archive, "about.json", json.dumps(told, indent=2).encode())
            for name in sorted(content):
                _add(archive, f"app/{name}", content[name])
    file.chmod(file.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return file


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, FIXED_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    archive.writestr(entry, data)


def fetched(target: Target, python: str, into: Path) -> dict[str, metadata.Distribution]:
    """What requirements.lock pins, for another Python or machine, installed into `into` by uv."""
    names = needed().keys() | {"backports-zstd"}  # which Python 3.14 does without
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    pinned = [
        one for one in entries if (match := re.match(r"[\w.-]+(?===)", one)) and canonicalize_name(match[0]) in names
    ]
    wanted = into.with_suffix(".txt")
    wanted.write_text("\n".join(pinned) + "\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--target",
        str(into),
        "--python-version",
        python,
    ]
    command += [
        "--python-platform",
        target.uv,
        "--only-binary=:all:",
        "--no-deps",
        "--require-hashes",
        "-r",
        str(wanted),
    ]
    subprocess.run(command, check=True)
    return needed([str(into)], python)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--directory", type=Path, default=ROOT / "dist", help="where to (default: dist)")
    parser.add_argument("--python", action="append", choices=PYTHONS, help="fetch for this Python (repeatable)")
    parser.add_argument("--platform", choices=[one.name for one in TARGETS], help="fetch for this kind of machine")
    said = parser.parse_args(arguments)
    here = this_machine()
    if not said.python and not said.platform:
        if sysconfig.get_config_var("EXT_SUFFIX") is None or sys.implementation.name != "cpython":
            sys.exit("error: only CPython is supported")
        this = f"{sys.version_info.major}.{sys.version_info.minor}"
        sys.stdout.write(f"{write(gathered([needed()]), here, [this], said.directory)}\n")
        return
    target = next((one for one in TARGETS if one.name == (said.platform or here.name)), None)
    if target is None:
        sys.exit(f"error: nothing can be fetched for {here.name}; there are {', '.join(one.name for one in TARGETS)}")
    pythons = said.python or list(PYTHONS)
    with tempfile.TemporaryDirectory() as directory:
        trees = [fetched(target, python, Path(directory) / python) for python in pythons]
        sys.stdout.write(f"{write(gathered(trees), target, pythons, said.directory)}\n")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
