"""What one command needs to be allowed, gathered from the calls that it makes. Data; nothing is asked here.

The command's module gathers its `Needs` from the permissions that stand beside the calls, and the table of commands
(`cli.app.COMMANDS`) says where: `rbac`, `doctor` and preflights look there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from kdnsctl.access import Permission


@dataclass(frozen=True, slots=True)
class Needs:
    """The permissions of one command.

    Without one of `needed` it cannot do what it is for, or not for all nodes; without one of `helpful` it does, and
    knows less. `with_option` are those that one of its options (`--kubelet-logs`) needs on top.
    """

    needed: tuple[Permission, ...]
    helpful: tuple[Permission, ...] = ()
    with_option: Mapping[str, tuple[Permission, ...]] = field(default_factory=dict)

    @property
    def all(self) -> tuple[Permission, ...]:
        """Every one of them, each once, the needed first."""
        optional = (one for permissions in self.with_option.values() for one in permissions)
        return tuple(dict.fromkeys((*self.needed, *self.helpful, *optional)))


def granted(
    commands: Iterable[Needs], *, helpful: bool = True, options: Collection[str] = ()
) -> tuple[Permission, ...]:
    """What somebody must be allowed who runs these commands, each once; with those `options` where they have them."""
    wanted: list[Permission] = []
    for command in commands:
        wanted += command.needed
        wanted += command.helpful if helpful else ()
        wanted += [one for option in options for one in command.with_option.get(option, ())]
    return tuple(dict.fromkeys(wanted))
