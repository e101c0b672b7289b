"""What commands that change something have in common: the plan on the screen, the question before it, --dry-run, --yes.

The answer to a question comes from the terminal itself (/dev/tty), never from standard input, which may be a pipe of
nodes. What a plan is, and whether it is wise, is known to `changes` and the rooms above.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from kdnsctl.changes.plan import DryRun
from kdnsctl.cli import completing, confirming
from kdnsctl.cli.ending import interruptible
from kdnsctl.cli.noting import opened
from kdnsctl.cli.options import Answer, Form
from kdnsctl.cli.terminal import columns, put, tell
from kdnsctl.model import CancelledError, ExitCode, RefusedError, UsageError

if TYPE_CHECKING:
    from kdnsctl.cancel import CancelScope
    from kdnsctl.changes.incidents import Actor, Incident
    from kdnsctl.changes.plan import Plan
    from kdnsctl.cluster.target import Target
    from kdnsctl.cluster.transport import Connection as Connected

MOST_LINES = 40  # of a plan in a question; --dry-run=client shows all


@dataclass(frozen=True, slots=True)
class Changing:
    """How far to go, and whether to ask before."""

    dry_run: Annotated[
        DryRun,
        typer.Option("--dry-run", help="client: print the plan. server: also ask the server whether it would."),
    ] = DryRun.NONE
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)] = False


def plan_lines(plan: Plan, target: Target, width: int | None) -> list[str]:
    """The plan for people, at most `width` cells wide: where, as whom, and what will be sent, node by node.

    A command that is to be run by hand is one line, however long: it is there to be copied.
    """
    from kdnsctl.changes.plan import sentences  # noqa: PLC0415
    from kdnsctl.cli.table import wrapped  # noqa: PLC0415
    from kdnsctl.cli.terminal import visible  # noqa: PLC0415

    lines = wrapped(visible(f"{plan.command} on {target}"), width, 0, 2)
    for node in plan.nodes:
        lines.append(visible(f"  {node.node}:"))
        for place, sentence in enumerate(sentences(node)):
            refused = (plan.refused or {}).get((node.node, place))
            said = sentence + (f"  [the server refuses: {refused.message}]" if refused else "")
            lines += wrapped(visible(said), width, 4, 2)
        for note in node.notes:
            lines += wrapped(visible(f"note: {note}"), width, 4, 2)
        lines += [visible(f"    by hand: {command}") for command in node.by_hand]
    for note in plan.notes:
        lines += wrapped(visible(f"note: {note}"), width, 0, 2)
    return lines


def confirm(plan: Plan, target: Target, *, yes: bool, no_input: bool) -> None:
    """Show what will be done and ask. Raises RefusedError for a no, and where there is nobody to ask."""
    if yes:
        return
    lines = plan_lines(plan, target, columns(sys.stderr))
    for line in lines[:MOST_LINES]:
        tell(line)
    if len(lines) > MOST_LINES:
        tell(f"… and {len(lines) - MOST_LINES} more lines: --dry-run=client shows all")
        for line in _all_nodes(plan):
            tell(line)
    confirming.confirm("Go on?", yes=False, no_input=no_input)


def _all_nodes(plan: Plan) -> list[str]:
    """The names of all nodes: nobody agrees to what they have not been shown."""
    from kdnsctl.cli.table import wrapped  # noqa: PLC0415
    from kdnsctl.cli.terminal import visible  # noqa: PLC0415

    names = [node.node for node in plan.nodes]
    return wrapped(visible(f"all {len(names)} nodes: {', '.join(names)}"), columns(sys.stderr), 0, 2)


LockNamespace = Annotated[
    str,
    typer.Option("--lock-namespace", metavar="NAMESPACE", help="Where the nodes' locks (Leases) are."),
]
LOCK_NAMESPACE = "kube-system"


NodeWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NODE]...",
        autocompletion=completing.complete_node,
        help="Nodes; - reads names, or a report, from standard input.",
    ),
]
Selector = Annotated[
    str | None, typer.Option("--selector", "-l", metavar="SELECTOR", help="The nodes with these labels.")
]


AllNodes = Annotated[bool, typer.Option("--all", help="All nodes.", show_default=False)]


def nodes_of(words: list[str] | None) -> tuple[str, ...]:
    """The nodes that are named: as words, or on standard input for the word `-`, of a report the affected only.

    Ends the command, as done, when standard input names none.
    """
    from kdnsctl.cli import nodenames, values  # noqa: PLC0415

    if nodenames.STDIN not in (words or ()):
        try:
            return tuple(dict.fromkeys(values.node(word) for word in words or ()))
        except typer.BadParameter as error:
            raise UsageError(error.message) from error
    if len(words or ()) > 1:
        raise UsageError("NODE and - exclude each other: choose nodes in one way")
    named = nodenames.from_stdin(nodenames.stdin())
    for note in named.notes:
        tell(f"note: {note}")
    if not named.names:
        tell("nothing to do: standard input names no node")
        raise typer.Exit(ExitCode.OK)
    return named.names


def one_way(chosen: Sequence[str], selector: str | None, *, all_nodes: bool = False) -> bool:
    """Whether nodes were chosen at all: by name, by --selector, or by --all. Raises UsageError for two of them."""
    ways = [*(["NODE"] if chosen else []), *(["--selector"] if selector is not None else [])]
    ways += ["--all"] if all_nodes else []
    if len(ways) > 1:
        raise UsageError(f"{' and '.join(ways)} exclude each other: choose nodes in one way")
    return bool(ways)


def chosen_nodes(
    ctx: typer.Context, words: list[str] | None, selector: str | None, *, all_nodes: bool | None = None
) -> tuple[str, ...]:
    """`nodes_of`, for a command that has to be told which: by name, or by --selector or --all (then none).

    `all_nodes` None: the command has no --all. Raises UsageError.
    """
    chosen = nodes_of(words)
    if not one_way(chosen, selector, all_nodes=bool(all_nodes)):
        how = "Name them, or -l SELECTOR, or -" if all_nodes is None else "Name them, or --all, or -l SELECTOR, or -"
        raise UsageError(f"which nodes? {how}", hint=f"see {ctx.command_path} --help")
    return chosen


@contextlib.contextmanager
def at_work(
    cluster: Connected,
    name: str,
    nodes: Sequence[str],
    actor: Actor,
    namespace: str,
    scope: CancelScope,
    *,
    recorded: bool = True,
) -> Iterator[tuple[Incident, CancelScope]]:
    """The incident `name`, open for writing, and the scope in which its nodes are locked, for the length of the block.

    `recorded`: the work writes a record on each node, which is the lock where Leases are forbidden; where it does not,
    it is said that there is none. From here on every request names the incident. Raises RefusedError before anything
    was changed.
    """
    from kdnsctl.changes import incidents, runs  # noqa: PLC0415
    from kdnsctl.changes.lock import UNPROTECTED, WITHOUT, locked  # noqa: PLC0415
    from kdnsctl.cluster.connection import user_agent  # noqa: PLC0415

    uid = incidents.cluster_uid(cluster, scope=scope)
    cluster.user_agent = user_agent(name)
    alive = runs.runs_directory(os.environ)
    with interruptible(), runs.running(alive, actor) as run:
        try:
            with locked(
                cluster,
                nodes,
                actor,
                scope=scope,
                namespace=namespace,
                note=tell,
                is_over=lambda other: runs.is_over(alive, other),
                instead=WITHOUT if recorded else UNPROTECTED,
            ) as held:
                yield from _in_incident(cluster, name, uid, actor, held.scope)
            if held.left:
                return
        except RefusedError:  # nothing bears the run's name
            run.done()
            raise
        run.done()


def _in_incident(
    cluster: Connected, name: str, uid: str, actor: Actor, scope: CancelScope
) -> Iterator[tuple[Incident, CancelScope]]:
    incident = opened(cluster, name, uid, actor)
    try:
        with incident.journal:
            yield incident, scope
    except (KeyboardInterrupt, CancelledError):
        tell(
            f"interrupted; what was done is on the nodes and in incident {incident.id}: run the same again to go on, "
            f"or take it back with kdnsctl incident undo {incident.id}"
        )
        raise


def show_plan(plan: Plan, cluster: Connected, answer: Answer, dry_run: DryRun, scope: CancelScope) -> int:
    """Print a plan that is not carried out, rehearsed by the server when that is asked for.

    The exit code tells whether the server would take it. Raises what ended `scope`.
    """
    from kdnsctl.changes.plan import rehearsed, to_json  # noqa: PLC0415
    from kdnsctl.changes.verbs import Means  # noqa: PLC0415
    from kdnsctl.cli import output  # noqa: PLC0415

    if dry_run is DryRun.SERVER:
        plan = rehearsed(plan, Means(cluster, scope))
    plan = replace(plan, dry_run=dry_run)
    if answer.output is Form.TABLE:
        lines = plan_lines(plan, cluster.target, columns(sys.stdout))
        put("\n".join([*lines, f"nothing was changed (--dry-run={dry_run})"]) + "\n")
    else:
        output.document(to_json(plan), answer.format)
    return ExitCode.REFUSED if plan.refused else ExitCode.OK
