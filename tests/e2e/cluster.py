"""The cluster that the end-to-end tests run on, as an operator holds it: a kubeconfig, and perhaps an ssh_config.

Nothing here knows what kind of cluster it is. kdnsctl and a stock kubectl run as processes of their own; commands on a
node go over the machine's ssh, by the node's name, as root or through `sudo -n`.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tests.lab import kubectl

ROOT: Final = Path(__file__).resolve().parents[2]
KDNSCTL: Final = (sys.executable, "-P", "-m", "kdnsctl")
PATIENCE: Final = 300  # seconds after which a command counts as hanging
_AS_ROOT: Final = 'if [ "$(id -u)" = 0 ]; then exec "$@"; else exec sudo -n "$@"; fi'


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    command: Sequence[str]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out, self
        return json.loads(self.out)

    def well(self) -> Ran:
        """Itself, if it ended with 0."""
        assert self.code == 0, self
        return self


@dataclass(frozen=True)
class Cluster:
    """`home` is a directory of the tests' own, for caches. `ssh_config` leads to nodes by their names; None: no SSH."""

    kubeconfig: Path
    ssh_config: Path | None
    home: Path

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """What commands run in: the operator's environment, for credential plug-ins, without settings of kdnsctl."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KDNSCTL_")}
        own = {"XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": "state"}
        return {
            **kept,
            **{name: str(self.home / directory) for name, directory in own.items()},
            "KUBECONFIG": str(self.kubeconfig),
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
        }

    def kdnsctl(self, *words: str) -> Ran:
        """Run kdnsctl."""
        return self._run([*KDNSCTL, *words])

    def kubectl(self, *words: str, stdin: str = "") -> Ran:
        """Run kubectl."""
        return self._run([str(kubectl.obtain()), f"--cache-dir={self.home / 'kubectl'}", *words], stdin)

    def read(self, *words: str) -> Any:
        """What `kubectl get WORDS` shows, decoded."""
        return self.kubectl("get", *words, "-o", "json").well().json

    def shell(self, script: str) -> Ran:
        """Run a line of shell in which `$kdnsctl` and `$kubectl` are the two programs."""
        programs = {
            "kdnsctl": shlex.join(KDNSCTL),
            "kubectl": shlex.join([str(kubectl.obtain()), f"--cache-dir={self.home / 'kubectl'}"]),
        }
        return self._run(["bash", "-c", f"set -o pipefail; {script}"], more=programs)

    def on_node(self, node: str, *command: str) -> Ran:
        """Run a command on a node as root, over SSH."""
        assert self.ssh_config is not None, "KDNSCTL_E2E_SSH_CONFIG is not set"
        line = shlex.join(["sh", "-c", _AS_ROOT, "sh", *command])
        return self._run(["ssh", "-F", str(self.ssh_config), "-o", "BatchMode=yes", node, line])

    def nodes(self, *selection: str) -> list[str]:
        """The names of all nodes, or of those that `-l SELECTOR` selects."""
        return [node["metadata"]["name"] for node in self.read("nodes", *selection)["items"]]

    def _run(self, command: Sequence[str], stdin: str = "", more: Mapping[str, str] | None = None) -> Ran:
        ended = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            env={**self.environment, **(more or {})},
        )
        return Ran(command, ended.returncode, ended.stdout, ended.stderr)
