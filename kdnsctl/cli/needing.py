"""Which commands ask something of a cluster, and what: the words of `rbac` and `doctor`.

The answer stands in `app.COMMANDS`; here it is only looked up.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from kdnsctl.cli.commands import Entry, named_object

if TYPE_CHECKING:
    from kdnsctl.access.needs import Needs


def command(word: str) -> str:
    """The name of a command that asks something of a cluster."""
    known = sorted(_asking())
    if word in known:
        return word
    if word in _commands():
        raise typer.BadParameter(f"'{word}' asks nothing of a cluster: it needs no permission")
    close = difflib.get_close_matches(word, known, n=1)
    guess = f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(known)}"
    raise typer.BadParameter(f"no command '{word}'{guess}" if word else f"empty{guess}")


def complete_command(incomplete: str) -> list[tuple[str, str]]:
    """What TAB offers for a command."""
    return [(name, entry.summary) for name, entry in _asking().items() if name.startswith(incomplete)]


Commands = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[COMMAND]...",
        parser=command,
        autocompletion=complete_command,
        help="Commands that are to work. Default: all that change nothing.",
    ),
]


def needs_of(words: Sequence[str] | None) -> dict[str, Needs]:
    """What each of the commands needs; without words, each that changes nothing. Imports what they import."""
    asking = _asking()
    reading = [name for name, entry in asking.items() if not entry.changes and not entry.partly]
    return {name: named_object(asking[name].needs) for name in dict.fromkeys(words or reading)}


def command_for(words: Sequence[str]) -> str:
    """The word of `rbac` for a command that runs: of `repair flush` it is `flush`; "" when it needs no permission."""
    known = _asking()
    return next((word for word in reversed(words) if word in known), "")


def _asking() -> dict[str, Entry]:
    return {name: entry for name, entry in _commands().items() if entry.needs}


def _commands() -> Mapping[str, Entry]:
    from kdnsctl.cli.app import COMMANDS  # noqa: PLC0415  # which imports what everything here is part of

    return COMMANDS
