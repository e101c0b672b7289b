"""`kdnsctl lab down`: one call, and a word about whether there was anything."""

from __future__ import annotations

from typing import Annotated

import typer

from kdnsctl.cli.lab.shared import DEFAULT_NAME, Name, contained, each_of, say
from kdnsctl.cli.options import Common, said
from kdnsctl.model import ExitCode, UsageError


def down(
    ctx: typer.Context,
    common: Common,  # noqa: ARG001
    name: Name = DEFAULT_NAME,
    *,
    every: Annotated[bool, typer.Option("--all", help="Remove every lab of this user.", show_default=False)] = False,
) -> int:
    """Remove a lab and everything of it.

    Examples:
      kdnsctl lab down
      # A lab of another name
      kdnsctl lab down demo
      # All of them
      kdnsctl lab down --all

    Safe to repeat, and after anything: a lab whose processes were killed is cleared away the same.
    """
    if every and said(ctx, "name"):
        raise UsageError("--all and a NAME exclude each other")

    from kdnsctl.cli.lab.status import names  # noqa: PLC0415
    from kdnsctl.lab import space  # noqa: PLC0415

    def remove(each: str) -> None:
        gone = space.down(each)
        say(f"the lab '{each}' is gone" if gone else f"there is no lab '{each}'")

    if not every:
        with contained():
            remove(name)
        return ExitCode.OK
    wanted = names()
    if not wanted:
        say("there is no lab")
    _, failed = each_of(wanted, remove)
    return ExitCode.FAILED if failed else ExitCode.OK
