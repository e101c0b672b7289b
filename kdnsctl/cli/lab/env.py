"""`kdnsctl lab env`: the lab's variables as lines for a shell."""

from __future__ import annotations

import sys

from kdnsctl.cli.lab.shared import DEFAULT_NAME, Name, contained, named
from kdnsctl.cli.options import Common
from kdnsctl.cli.terminal import put, tell
from kdnsctl.model import KdnsctlError


def env(common: Common, name: Name = DEFAULT_NAME) -> int:  # noqa: ARG001
    """Print what makes kubectl and kdnsctl in this shell speak to a lab.

    Examples:
      # This shell speaks to the lab from now on
      eval "$(kdnsctl lab env)"
      kubectl get nodes
      # And no longer
      unset KUBECONFIG KDNSCTL_SSH_CONFIG

    Where the lab does not run, the lines make a shell speak to nothing, so that what is meant for a lab never reaches
    the cluster of before.
    """
    from kdnsctl.lab import space  # noqa: PLC0415

    try:
        with contained():
            put(space.env(name))
    except KdnsctlError:
        if not sys.stdout.isatty():
            put(space.no_env(name))
        raise
    if sys.stdout.isatty():
        tell(f'To use these lines: eval "$(kdnsctl lab env{named(name)})"')
    return 0
