"""What the commands of `lab` have in common: naming a lab, the lab's errors as ours, and being interrupted.

Nothing here imports the lab itself before it is needed: `--help` and TAB must stay light.
"""

from __future__ import annotations

import contextlib
import enum
import importlib.util
import re
import shlex
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, TypeVar

import typer

from kdnsctl.cli.terminal import columns, flush, put, tell, width_of
from kdnsctl.model import CancelledError, KdnsctlError, UsageError

T = TypeVar("T")
DEFAULT_NAME = "default"
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,30}[a-z0-9])?", re.ASCII)
# What the extra `lab` brings: the name to install, and the name to import.
_PACKAGES = {"aiohttp": "aiohttp", "cryptography": "cryptography", "dnspython": "dns"}
GET_PACKAGES = "pip install 'kdnsctl[lab]'"
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Mode(enum.StrEnum):
    """The ways to break a node; a test holds them to the lab's own."""

    DELETE_FAILS = "delete-fails"
    DOWN = "down"
    RESTORE_FAILS = "restore-fails"


def lab_name(word: str) -> str:
    """The name of a lab, checked."""
    if not _NAME.fullmatch(word):
        shown = f"'{word}' is no name for a lab" if word else "empty"
        raise typer.BadParameter(f"{shown}; use 1 to 32 of a-z, 0-9 and '-', not '-' at an end")
    return word


def complete_lab(incomplete: str) -> list[str]:
    """What TAB offers for a lab: those of this user."""
    from kdnsctl.lab.spacedir import labs_root  # noqa: PLC0415  # only when a lab is named

    with contextlib.suppress(OSError):
        return sorted(each.name for each in labs_root().iterdir() if each.name.startswith(incomplete))
    return []


def complete_node(ctx: typer.Context, incomplete: str) -> list[str]:
    """What TAB offers for a node: those of the lab that the line names so far."""
    from kdnsctl.lab.spacedir import LabDir, labs_root  # noqa: PLC0415  # only when a node is named

    # A word before an option that waits for its value is not an argument yet.
    said = [*ctx.args, *(ctx.params.get("words") or ()), ctx.params.get("name") or DEFAULT_NAME][0]
    with contextlib.suppress(OSError):
        nodes = LabDir(labs_root() / str(said)).root / "nodes"
        return sorted(each.name for each in nodes.iterdir() if each.name.startswith(incomplete))
    return []


Name = Annotated[
    str,
    typer.Argument(
        metavar="[NAME]", parser=lab_name, autocompletion=complete_lab, show_default=False, help="The lab's name."
    ),
]


def named(name: str) -> str:
    """The word that names a lab in a command suggested, with the space before it; nothing for the default lab."""
    return "" if name == DEFAULT_NAME else f" {name}"


def need_packages() -> None:
    """Refuse to begin what would end in the middle for want of a Python package, or of Linux."""
    if not sys.platform.startswith("linux"):
        raise KdnsctlError(
            "the lab needs Linux: its nodes are made of the kernel's own namespaces",
            hint="find-affected and signatures work here; run the lab in a virtual machine with Linux",
        )
    missing = [name for name, module in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise KdnsctlError(
            f"the lab needs Python packages that are not installed: {', '.join(missing)}; nothing was done",
            hint=f"they come with the extra 'lab': {GET_PACKAGES}",
        )


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Turn what the lab raises into errors of this tool: one line that says it, and what to do as the hint."""
    # The lab's own modules may be imported inside the block only: what they need is checked there first.
    try:
        yield
    except Exception as error:
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        if kind == "kdnsctl.lab.spacedir.LabError":
            raise _as_ours(str(error)) from error
        if kind == "kdnsctl.lab.kubeclient.ApiError":
            raise KdnsctlError(f"the lab's API did not do it: {error}", hint="kdnsctl lab status") from error
        raise


def _as_ours(text: str) -> KdnsctlError:
    """The first line is the error; what to do, behind a full stop or on a last line, is the hint; the rest is told."""
    first, *more = text.splitlines() or ["the lab failed without a word"]
    hint = ""
    if more and "kdnsctl lab" in more[-1]:
        hint = more.pop()
    for line in more:
        tell(line)
    return KdnsctlError(first, hint=hint.replace("`", "'"))


@contextlib.contextmanager
def interruptible(name: str, *, leaves: str) -> Iterator[None]:
    """Let Ctrl-C (or SIGTERM, SIGHUP) end the block once; a second one does not stop the cleaning up.

    Afterwards nothing of lab `name` is left, unless it was there before; `leaves` then says how it was left.

    Raises:
        CancelledError: it was interrupted.
    """
    from kdnsctl.lab import space  # noqa: PLC0415  # see the module

    existed = space.status(name).exists
    before = {number: signal.getsignal(number) for number in _INTERRUPTS}
    wanted = False

    def again(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # signal calls it so
        tell("still cleaning up; it takes a moment")

    def once(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal wanted
        wanted = True
        for each in before:
            signal.signal(each, again)
        raise KeyboardInterrupt

    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # nohup
                signal.signal(number, once)
        try:
            yield
        except KeyboardInterrupt:
            wanted = True
        # Not by what was raised alone: Python drops what a handler raises while an object is finalized.
        if not wanted:
            return
        if existed:
            raise CancelledError(f"interrupted; {leaves}")
        with contained():
            space.down(name)
        raise CancelledError(f"interrupted; the lab '{name}' is gone, and nothing of it is left")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def each_of(names: Iterable[str], act: Callable[[str], T]) -> tuple[list[T], bool]:
    """Do something with each lab; one that fails is told and does not keep the others from it. True: one failed."""
    done, failed = [], False
    for name in names:
        try:
            with contained():
                done.append(act(name))
        except KdnsctlError as error:
            failed = True
            tell(f"error: {name}: {error}")
    return done, failed


def say(*lines: str) -> None:
    """A part of the answer, brought to its reader at once: what follows takes time."""
    put("".join(f"{line}\n" for line in lines))
    flush()


def say_filled(*lines: str) -> None:
    """Like `say`, with sentences filled to the terminal. What is indented (a table, a command) stays as it is."""
    width = columns(sys.stdout)
    for line in lines:
        if width is None or line.startswith(" ") or width_of(line) <= width:
            say(line)
        else:
            say(*textwrap.wrap(line, max(width, 20), break_long_words=False, break_on_hyphens=False))


def shown_path(path: Path) -> str:
    """A path as one would type it."""
    quoted = shlex.quote(str(path))
    with contextlib.suppress(RuntimeError):  # who has no home directory types the whole path
        home = Path.home()
        if quoted == str(path) and path.is_relative_to(home) and home != Path("/"):
            return f"~/{path.relative_to(home)}"
    return quoted


def kube_proxy_logs(root: Path) -> str:
    """The glob, to be expanded by a shell, of the log files that the nodes' kube-proxies write."""
    return f"{shown_path(root / 'nodes')}/*/var/log/pods/kube-system_kube-proxy-*"


def one_at_most(words: list[str], what: str) -> str:
    """The lab that `words` name, the default one when there are none.

    Raises:
        UsageError: there are more, or it is no name.
    """
    if len(words) > 1:
        raise UsageError(f"one lab at a time; {what}")
    try:
        return lab_name(words[0]) if words else DEFAULT_NAME
    except typer.BadParameter as error:
        raise UsageError(error.message) from None
