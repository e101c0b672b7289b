"""`kdnsctl lab demo`: the lab's story on the screen, and in the middle of it the commands an operator would type.

The story is `kdnsctl.lab.demo`. What is shown as a command here is run as that command: `find-affected` goes through
the same door as from a shell, and what it prints is what a user would see.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from kdnsctl.cli.lab.incident import BreakMode
from kdnsctl.cli.lab.shared import (
    Mode,
    Name,
    contained,
    interruptible,
    kube_proxy_logs,
    named,
    need_packages,
    say,
    say_filled,
    shown_path,
)
from kdnsctl.cli.lab.up import LAST_VERSION, Nodes, ProxyVerbosity, ProxyVersion
from kdnsctl.cli.options import Common
from kdnsctl.cli.terminal import has_color, visible
from kdnsctl.model import ExitCode, KdnsctlError

if TYPE_CHECKING:
    from kdnsctl.lab.spacedir import LabDir

NAME = "demo"
INCIDENT = "demo"
TOOLS_IMAGE = "kdnsctl.io/lab/tools:1"
LAST_WITH_CONNTRACK = 31  # of Kubernetes 1: kube-proxy's image has no conntrack from then on
SETTLE = "3s"  # the lab's kube-proxy cleans up at once, if it does
# What the log can and cannot tell of each failure, said between the log's answer and the kernel's.
PROOF = {
    Mode.DELETE_FAILS: "A log line is a suspicion. The node's conntrack table is the proof: the held port of a client",
    Mode.DOWN: "The logs are clean, and a node is broken all the same: a kube-proxy that is stopped writes nothing. "
    "Only the node's state tells: the held port of a client",
    Mode.RESTORE_FAILS: "A log line is a suspicion. The node's conntrack table is the proof: the held port of a client",
}


def demo(
    common: Common,
    name: Name = NAME,
    mode: BreakMode = Mode.DELETE_FAILS,
    nodes: Nodes = 3,
    kube_proxy_version: ProxyVersion = LAST_VERSION,
    kube_proxy_verbosity: ProxyVerbosity = 2,
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the lab, healed, to try things in.", show_default=False)
    ] = False,
) -> int:
    """Play the whole incident: up, break, find-affected, quarantine, collect, analyze, repair, release, down.

    Examples:
      # kube-proxy cannot delete stale entries
      kdnsctl lab demo
      # The failure that no log shows
      kdnsctl lab demo --mode down
      # And keep the lab
      kdnsctl lab demo --keep

    DNS is measured on every node after each step, by clients that keep their source port and by clients that
    take a fresh one for each query.
    """
    need_packages()

    from kdnsctl.cli.lab.doctor import require_machine  # noqa: PLC0415
    from kdnsctl.lab import demo as story  # noqa: PLC0415
    from kdnsctl.lab import incident, space  # noqa: PLC0415

    options = story.DemoOptions(
        mode=incident.Mode(mode.value),
        up=space.UpOptions(
            name=name, nodes=nodes, kube_proxy_version=kube_proxy_version, kube_proxy_verbosity=kube_proxy_verbosity
        ),
        keep=keep,
    )

    def find(where: LabDir) -> None:
        _find(where, common)
        _prove(where, mode, name, common)
        _explain(where, common)

    acts = story.Acts(
        find=find,
        contain=lambda where: _contain(where, common),
        repair=lambda where: _repair(where, mode, kube_proxy_version, common),
        release=lambda where: _release(where, common),
    )
    with contained(), interruptible(name, leaves=f"the lab '{name}', which was there before, is as it was"):
        require_machine()
        story.run(options, say_filled, acts)
    return 0


def _command(line: str, common: Common) -> None:
    say("", f"\x1b[1m$ {line}\x1b[0m" if has_color(sys.stdout, common.color) else f"$ {line}")


def _find(where: LabDir, common: Common) -> None:
    """find-affected on the nodes' log files, as a user would start it."""
    _command(f"kdnsctl find-affected --logs {kube_proxy_logs(where.root)}", common)
    files = sorted(str(path) for path in (where.root / "nodes").glob("*/var/log/pods/kube-system_kube-proxy-*"))
    _run(["find-affected", "--color", common.color.value, "--logs", *files])


def _explain(where: LabDir, common: Common) -> None:
    """The same from the nodes' own tables, read through the API: which node, and what is wrong with it."""
    from kdnsctl.lab import incident  # noqa: PLC0415

    made = incident.current(where)
    if made is None:
        raise KdnsctlError("the lab was healed by somebody else while the demo ran")
    cluster = f"--kubeconfig {shown_path(where.kubeconfig)}"
    arguments = ["--settle", SETTLE, "--color", common.color.value, "--kubeconfig", str(where.kubeconfig)]
    say_filled(
        "kdnsctl reads that table itself, on all nodes at once, through kube-proxy's pods, and joins it with the logs:"
    )
    _command(f"kdnsctl find-affected --live --settle {SETTLE} {cluster}", common)
    _run(["find-affected", "--live", *arguments])
    say_filled(f"And it says what is wrong with {made.node}, who is hurt, and what to do:")
    _command(f"kdnsctl analyze {made.node} --settle {SETTLE} {cluster}", common)
    _run(["analyze", made.node, *arguments])


def _contain(where: LabDir, common: Common) -> None:
    """Hold and cordon the node, secure the evidence, and let it speak."""
    node = _broken(where)
    say_filled(f"{node} is held and cordoned before anything else is done. Its pods stay here: they measure DNS on.")
    with _own_state(where):
        _typed(where, common, "quarantine", node, "--no-drain", "--no-collect", "--incident", INCIDENT, "--yes")
        say_filled("A repair destroys evidence, so it is secured first, and judged without the cluster:")
        bundle = where.root / "state" / "evidence"
        _typed(where, common, "collect", node, "-O", str(bundle), "--no-archive", "--timeout", "5s")
        _command(f"kdnsctl analyze {shown_path(bundle)}", common)
        _run(["analyze", str(bundle), "--color", common.color.value])


def _repair(where: LabDir, mode: Mode, version: str, common: Common) -> bool:
    """Flush, or restart kube-proxy where flush refuses for its rules; whether that has healed the node."""
    image = ["--image", TOOLS_IMAGE] if _minor(version) > LAST_WITH_CONNTRACK else []
    say_filled("What is stale goes, and nothing else; the node's rules are judged before:")
    with _own_state(where):
        code = _typed(
            where,
            common,
            "repair",
            "flush",
            _broken(where),
            "--settle",
            SETTLE,
            *image,
            "--incident",
            INCIDENT,
            "--yes",
        )
    if mode is Mode.DELETE_FAILS and code != ExitCode.OK:
        raise KdnsctlError("flush did not heal the node in the lab", hint="please report it")
    if mode is not Mode.DELETE_FAILS and code != ExitCode.REFUSED:
        raise KdnsctlError("flush did not refuse, though the rules lead to a pod that is gone", hint="please report it")
    if mode is Mode.DOWN:
        say_filled("It says what comes first: kube-proxy must write its rules anew. The evidence is safe, so:")
        with _own_state(where):
            code = _typed(
                where,
                common,
                "repair",
                "restart-kube-proxy",
                _broken(where),
                "--no-collect",
                "--incident",
                INCIDENT,
                "--yes",
            )
        if code != ExitCode.OK:
            raise KdnsctlError("restarting kube-proxy did not heal the node in the lab", hint="please report it")
    return mode in (Mode.DELETE_FAILS, Mode.DOWN)


def _release(where: LabDir, common: Common) -> None:
    """Give the node back, and show what was done in all."""
    with _own_state(where):
        _typed(where, common, "release", _broken(where), "--incident", INCIDENT, "--yes")
        _command(f"kdnsctl incident report {INCIDENT}", common)
        _run(["incident", "report", INCIDENT])


def _broken(where: LabDir) -> str:
    """The node that broke; the lab's own note of it is gone once it was healed."""
    from kdnsctl.lab import incident  # noqa: PLC0415

    made = incident.current(where)
    place = where.root / "state" / "node"
    if made is None:
        return place.read_text(encoding="utf-8")
    place.parent.mkdir(exist_ok=True)
    place.write_text(made.node, encoding="utf-8")
    return made.node


@contextlib.contextmanager
def _own_state(where: LabDir) -> Iterator[None]:
    """For the length of the block incidents are kept with the lab: they go with it."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(where.root / "state")
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_STATE_HOME"]
        else:
            os.environ["XDG_STATE_HOME"] = before


def _typed(where: LabDir, common: Common, *words: str) -> int:
    """Show a command on the lab's cluster, run it, and tell how it ended."""
    _command(f"kdnsctl {shlex.join(words)} --kubeconfig {shown_path(where.kubeconfig)}", common)
    return _run([*words, "--color", common.color.value, "--kubeconfig", str(where.kubeconfig)], ExitCode.REFUSED)


def _minor(version: str) -> int:
    return int(version.lstrip("v").split(".")[1])


def _run(arguments: list[str], *more: int) -> int:
    """Run one command line as from a shell, tell its exit code, and return it. `more` are codes that are no failure."""
    from kdnsctl.cli import app  # noqa: PLC0415  # it lists this command, too

    code = app.run(arguments, "kdnsctl")
    if code == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if code not in (ExitCode.OK, ExitCode.FOUND, ExitCode.INCOMPLETE, *more):
        raise KdnsctlError(f"{arguments[0]} failed on the lab; its message is above", hint="please report it")
    say(f"(exit {code})", "")
    return code


def _prove(where: LabDir, mode: Mode, name: str, common: Common) -> None:
    """The entry of the held port in the broken node's conntrack table, next to the pods that are gone."""
    from kdnsctl.lab import control, incident  # noqa: PLC0415
    from kdnsctl.lab.clients import HELD_PORT  # noqa: PLC0415
    from kdnsctl.lab.network import DNS_ADDRESS  # noqa: PLC0415

    made = incident.current(where)
    if made is None:
        raise KdnsctlError(f"the lab '{name}' was healed by somebody else while the demo ran")
    arguments = ["conntrack", "-L", "-p", "udp", "--orig-dst", DNS_ADDRESS]
    arguments += ["--orig-port-src", str(HELD_PORT)]
    say_filled(f"{PROOF[mode]} on {made.node} leads to a pod that is gone ({' or '.join(made.dead)}).")
    _command(f"kdnsctl lab shell{named(name)} --node {made.node} -- {shlex.join(arguments)}", common)
    output = control.ask(where, {"op": "run", "node": made.node, "argv": arguments})["output"]
    say(*(visible(line) for line in output.splitlines()), "")
