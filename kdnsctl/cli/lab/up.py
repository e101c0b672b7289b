"""`kdnsctl lab up`: options into `UpOptions`, one call, and what to do with the lab next."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Annotated

import typer

from kdnsctl.cli import values
from kdnsctl.cli.lab.shared import DEFAULT_NAME, Name, contained, interruptible, named, need_packages, say
from kdnsctl.cli.options import Common, said
from kdnsctl.model import UsageError

LAST_VERSION = "v1.30.14"
"""The default: the last minor but one whose kube-proxy logs the failure. A test holds it to the lab's own."""


def proxy_version(word: str) -> str:
    """A release that the lab's kube-proxy can speak as."""
    from kdnsctl.lab.kubeproxylog import Version  # noqa: PLC0415  # only when a version is given

    try:
        return Version.parse(word).text
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Nodes = Annotated[int, typer.Option("--nodes", min=1, max=50, metavar="COUNT", help="How many nodes (1 to 50).")]
ProxyVersion = Annotated[
    str,
    typer.Option(
        "--kube-proxy-version",
        metavar="VERSION",
        parser=proxy_version,
        help="The release that kube-proxy behaves, and logs, as: v1.28.0 to v1.36.x.",
    ),
]
ProxyVerbosity = Annotated[
    int, typer.Option("--kube-proxy-verbosity", min=0, max=10, metavar="LEVEL", help="kube-proxy's -v.")
]
Patience = Annotated[
    timedelta,
    typer.Option(
        "--timeout", metavar="DURATION", parser=values.duration, help="How long the lab may take until its DNS answers."
    ),
]


def up(
    ctx: typer.Context,
    common: Common,
    name: Name = DEFAULT_NAME,
    nodes: Nodes = 3,
    kube_proxy_version: ProxyVersion = LAST_VERSION,
    kube_proxy_verbosity: ProxyVerbosity = 2,
    timeout: Patience = "60s",  # type: ignore[assignment]  # typer gives it to the parser
    *,
    ssh: Annotated[bool, typer.Option("--ssh/--no-ssh", help="Whether a real sshd runs on every node.")] = True,
    recorded: Annotated[
        bool,
        typer.Option(
            "--recorded",
            help="Serve five nodes whose state is played from recordings: no namespaces, no tools, nothing to break.",
            show_default=False,
        ),
    ] = False,
) -> int:
    """Build a lab and wait until its DNS answers.

    Examples:
      # Three nodes, kube-proxy 1.30
      kdnsctl lab up
      # A second lab beside it, with a kube-proxy that reconciles
      kdnsctl lab up new --kube-proxy-version v1.36.2
      # On a machine that cannot run one ('kdnsctl lab doctor' tells why)
      kdnsctl lab up --recorded

    Root is used when the command has it; without, the lab lives in a user namespace. It stays until 'kdnsctl lab down'
    or until the machine restarts, and touches nothing but its own directory.
    """
    if recorded:
        _check_recorded(ctx)
    need_packages()

    from kdnsctl.cli import progress  # noqa: PLC0415
    from kdnsctl.cli.lab.doctor import require_machine  # noqa: PLC0415
    from kdnsctl.lab import recorded as recordings  # noqa: PLC0415
    from kdnsctl.lab import space  # noqa: PLC0415

    began = time.monotonic()
    with (
        contained(),
        interruptible(name, leaves=f"the lab '{name}', which was there before, is as it was"),
        progress.reporting(common.color) as reporter,
    ):
        reporter.started(f"building the lab '{name}'", None)
        if recorded:
            state = recordings.up(name)
        else:
            require_machine()
            state = space.up(
                space.UpOptions(
                    name=name,
                    nodes=nodes,
                    kube_proxy_version=kube_proxy_version,
                    kube_proxy_verbosity=kube_proxy_verbosity,
                    ssh=ssh,
                    timeout=timeout.total_seconds(),
                )
            )
    seconds = time.monotonic() - began
    if recorded:
        say(
            f"lab '{name}' plays recordings at {state.server}: knode2 is broken, and stays so",
            "Use it:",
            f'  eval "$(kdnsctl lab env{named(name)})"   # kubectl and kdnsctl speak to it',
            f"  kdnsctl lab down{named(name)}",
        )
        return 0
    count = f"{nodes} node{'' if nodes == 1 else 's'}"
    kind = "without root" if state.rootless else "as root"
    say(
        f"lab '{name}' is up ({kind}, {seconds:.1f} s): {count}, kube-proxy {kube_proxy_version}; DNS answers on each",
        "Use it:",
        f"  kdnsctl lab break{named(name)}           # make DNS fail on one node",
        f"  kdnsctl lab status{named(name)}          # what the DNS clients see",
        f'  eval "$(kdnsctl lab env{named(name)})"   # kubectl and kdnsctl speak to it',
        f"  kdnsctl lab shell{named(name)}           # look around inside",
        f"  kdnsctl lab down{named(name)}            # remove it",
    )
    return 0


def _check_recorded(ctx: typer.Context) -> None:
    """Refuse options that a lab of recordings would ignore."""
    useless = said(ctx, "nodes", "kube_proxy_version", "kube_proxy_verbosity", "ssh", "timeout")
    if useless:
        raise UsageError(f"{', '.join(useless)} has no effect with --recorded: the recordings are what they are")
