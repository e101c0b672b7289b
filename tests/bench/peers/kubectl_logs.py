"""`kubectl logs` for one pod after the other, 32 at once, each piped to grep: what an operator types without kdnsctl.

    python -m tests.bench.peers.kubectl_logs KUBECONFIG COUNT CACHE

prints `POD:LINE` for each line with the phrase. kubectl is the tests' own (tests/lab/kubectl.py); it keeps what it
learns of the server in CACHE, as it would at home.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.lab import kubectl

PARALLEL = 32
PHRASE = "Failed to delete endpoint connections"
_ONE = '"$KUBECTL" --cache-dir "$CACHE" -n kube-system logs --timestamps "$1" | grep -F "$PHRASE" | sed "s/^/$1:/"'
_ALL = f"""
number=0
while [ "$number" -lt "$COUNT" ]; do printf 'kube-proxy-%05d\\n' "$number"; number=$((number + 1)); done |
    xargs -n 1 -P {PARALLEL} sh -c '{_ONE}' sh
"""


def environment(kubeconfig: Path, count: int, cache: Path) -> dict[str, str]:
    """What the script needs to know."""
    return {
        "KUBECTL": str(kubectl.obtain()),
        "KUBECONFIG": str(kubeconfig),
        "COUNT": str(count),
        "CACHE": str(cache),
        "PHRASE": PHRASE,
        "LC_ALL": "C",
    }


def command() -> list[str]:
    """The command line."""
    return ["sh", "-c", _ALL]


def main(arguments: Sequence[str]) -> None:
    """Become the shell, so that what is measured from outside is that from here on."""
    variables = environment(Path(arguments[0]), int(arguments[1]), Path(arguments[2]))
    os.execvpe("sh", command(), {**os.environ, **variables})


if __name__ == "__main__":
    main(sys.argv[1:])
