"""Where the commands of pages run: a shell for all blocks of a page, at a place that the page's marks name.

| place | what it is |
|---|---|
| `files` | a directory with this checkout's own files in it; no cluster |
| `broken lab` | a lab that all pages share, in which knode2 is broken (`delete-fails`); commands there only read |
| `own broken lab` | the same, for this page alone: commands there change something |
| `own lab` | no lab yet: the page builds it |
| `demo` | what tests/lab/test_demo.py runs in any case, and compares with the page |

Examples name nodes and images as they are called in a cluster; `STAND_INS` says what stands for them in a lab.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.docs.blocks import ROOT, Block, Command

FILES, SHARED, OWN_BROKEN, OWN, DEMO = "files", "broken lab", "own broken lab", "own lab", "demo"
PLACES = frozenset({FILES, SHARED, OWN_BROKEN, OWN, DEMO})

BROKEN = "knode2"
STAND_INS = {
    "ip-10-0-0-1": BROKEN,
    "ip-10-0-0-2": "knode3",
    "ec2-user": "operator",
    "registry.example.com/kdnsctl-tools:1": "kdnsctl.io/lab/tools:1",
}
_STAND_IN = re.compile("|".join(rf"\b{re.escape(name)}\b(?!-)" for name in STAND_INS))

# A query gets all the time that may be given to it: a busy machine is not a broken node.
PROGRAM = f"""#!/bin/sh
case $1 in probe) export KDNSCTL_TIMEOUT=10s ;; esac
exec {sys.executable} -P -m kdnsctl "$@"
"""

# Seconds for all of a page. A shell that says nothing must not hang the run; a page takes a twentieth of it.
PATIENCE = 600


@dataclass(frozen=True, slots=True)
class Ended:
    """How one command ended: its exit code, and all it printed, errors among it as on a terminal."""

    block: Block
    command: Command
    code: int
    printed: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"{self.block.page.relative_to(ROOT)}:{self.command.line}"


def stood_in(text: str) -> str:
    """A command with the names of the lab."""
    return _STAND_IN.sub(lambda found: STAND_INS[found[0]], text)


def environment(home: Path, kubectl: Path) -> dict[str, str]:
    """What a shell begins with: nothing of whoever runs the tests, and no question is ever put."""
    programs = home / "bin"
    if not programs.exists():
        programs.mkdir(parents=True)
        (programs / "kdnsctl").write_text(PROGRAM, encoding="utf-8")
        (programs / "kdnsctl").chmod(0o755)
        (programs / "kubectl").symlink_to(kubectl)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "KDNSCTL_YES": "1",
        "KDNSCTL_SETTLE": "1s",  # nobody here waits half a minute for what the lab has just broken
    }


def labs_of(home: Path) -> Path:
    """Where the labs of a home are."""
    return home / ".local" / "state" / "kdnsctl" / "lab"


def broken_lab(home: Path, kubectl: Path) -> dict[str, str]:
    """Make a lab of this home in which a node is broken; the environment of a shell that speaks to it."""
    variables = environment(home, kubectl)
    for words in (("up",), ("break", "--node", BROKEN)):
        made = subprocess.run(
            [f"{home}/bin/kdnsctl", "lab", *words], env=variables, capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stderr
    where = labs_of(home) / "default"
    return {**variables, "KUBECONFIG": f"{where}/kubeconfig", "KDNSCTL_SSH_CONFIG": f"{where}/ssh/config"}


def run(blocks: Sequence[Block], directory: Path, variables: Mapping[str, str]) -> list[Ended]:
    """Run the commands of some blocks in one shell, in order, each to its end whatever became of those before it."""
    token = f"ended-{secrets.token_hex(8)}"
    commands = [(block, command) for block in blocks for command in block.commands]
    # Behind each command its code, which the next one can ask for as if nothing were in between.
    after = f"}} </dev/null\nended=$?; printf '\\n{token} %s\\n' $ended; (exit $ended)\n"
    lines = [f"{{ {stood_in(command.text)}\n{after}" for _, command in commands]
    shell = subprocess.run(
        ["bash", "--norc", "-c", "".join(lines)],
        cwd=directory,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
        check=False,
        timeout=PATIENCE,
    )
    said = shell.stdout.replace(variables["HOME"], "~")
    *parts, rest = re.split(rf"^{token} ([0-9]+)\n", said, flags=re.MULTILINE)
    printed, codes = parts[::2], parts[1::2]
    assert len(codes) == len(commands), f"the shell ended at {commands[len(codes)][1].text!r}: {rest}"
    return [
        Ended(block, command, int(code), tuple(text.removesuffix("\n").splitlines()))
        for (block, command), code, text in zip(commands, codes, printed, strict=True)
    ]
