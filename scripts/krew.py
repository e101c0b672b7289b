#!/usr/bin/env python3
"""Makes the krew plug-in `kubectl kdns` of single files: an archive of each, and the manifest with their checksums.

The manifest is krew.yaml with the version and the platforms filled in. Nothing is uploaded; the same files give the
same archives, byte for byte.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "scripts" / "krew.yaml"
BIN = "kubectl-kdns"
OS = {"Linux": "linux", "Darwin": "darwin"}  # as Go names them, which krew does
ARCH = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def about(file: Path) -> dict[str, Any]:
    """What a single file says of itself."""
    with zipfile.ZipFile(file) as archive:
        told: dict[str, Any] = json.loads(archive.read("about.json"))
    return told


def packed(file: Path, told: dict[str, Any], directory: Path) -> Path:
    """The archive that krew installs from: the single file under the plug-in's name, and the licence."""
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / f"{BIN}-v{told['version']}-{OS[told['system']]}-{ARCH[told['machine']]}.tar.gz"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, mode, source in ((BIN, 0o755, file), ("LICENSE", 0o644, ROOT / "LICENSE")):
            entry = tarfile.TarInfo(name)
            data = source.read_bytes()
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    archive.write_bytes(gzip.compress(content.getvalue(), mtime=0))
    return archive


def manifest(files: Sequence[Path], url: str, directory: Path) -> dict[str, Any]:
    """Pack the files, all of one version, and return the manifest; `url` is where the archives will be."""
    platforms, versions = [], set()
    for file in files:
        told = about(file)
        archive = packed(file, told, directory)
        versions.add(told["version"])
        platforms.append(
            {
                "selector": {"matchLabels": {"os": OS[told["system"]], "arch": ARCH[told["machine"]]}},
                "uri": f"{url.rstrip('/')}/{archive.name}",
                "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
                "bin": BIN,
            }
        )
    if len(versions) != 1:
        sys.exit(f"error: these are not files of one release: {', '.join(sorted(versions))}")
    filled: dict[str, Any] = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    spec = {"version": f"v{versions.pop()}", **filled.pop("spec"), "platforms": platforms}
    return {**filled, "spec": spec}


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as people write them."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="single files, one for each platform")
    parser.add_argument("--url", required=True, help="where the archives will be: https://…/download/v1.2.3")
    parser.add_argument("--directory", type=Path, default=ROOT / "dist", help="where to (default: dist)")
    said = parser.parse_args(arguments)
    filled = manifest(said.files, said.url, said.directory)
    written = said.directory / f"{filled['metadata']['name']}.yaml"
    written.write_text(
        yaml.dump(filled, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8"
    )
    sys.stdout.write(f"{written}\n")


if __name__ == "__main__":
    main()
