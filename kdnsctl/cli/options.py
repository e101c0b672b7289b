"""The options that several commands share, in groups that a command asks for by type (see `commands`).

Only what is said on the command line is described here; what follows from it is the command's business. A command that
does not ask for a group does not accept it: an option that would be ignored is an error.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from kdnsctl import __version__
from kdnsctl.cli import completing, values
from kdnsctl.cli.terminal import Color, put
from kdnsctl.model import UsageError


class Format(enum.StrEnum):
    """How to print the answer."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Form(enum.StrEnum):
    """How to print an answer that has neither wide rows nor names."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def _print_version(ctx: typer.Context, value: bool) -> None:  # noqa: FBT001  # typer calls it so
    if value and not ctx.resilient_parsing:
        put(f"kdnsctl {__version__}\n")
        raise typer.Exit


@dataclass(frozen=True, slots=True)
class Common:
    """What every command accepts."""

    TITLE: ClassVar = "Options of every command"

    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Say more on stderr (repeatable).", show_default=False)
    ] = 0
    color: Annotated[
        Color,
        typer.Option("--color", help="Colour: auto is on for a terminal, off with NO_COLOR.", case_sensitive=False),
    ] = Color.AUTO
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="File with options' defaults, instead of those in their places."),
    ] = None
    no_input: Annotated[
        bool, typer.Option("--no-input", help="Never ask; fail where a question would be asked.", show_default=False)
    ] = False
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an internal error.", show_default=False)
    ] = False
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True, show_default=False
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class Connection:
    """Which cluster, as whom: for commands that talk to the API. Names and meanings are kubectl's."""

    TITLE: ClassVar = "Which cluster, as whom"

    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", metavar="FILE", help="Kubeconfig file to use instead of KUBECONFIG.")
    ] = None
    context: Annotated[
        str | None,
        typer.Option(
            "--context",
            metavar="NAME",
            autocompletion=completing.complete_context,
            help="Kubeconfig context to use.",
        ),
    ] = None
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="NAME",
            autocompletion=completing.complete_cluster,
            help="Kubeconfig cluster to use.",
        ),
    ] = None
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="NAME", autocompletion=completing.complete_user, help="Kubeconfig user to use."),
    ] = None
    server: Annotated[
        str | None, typer.Option("--server", "-s", metavar="URL", help="Address of the Kubernetes API server.")
    ] = None
    tls_server_name: Annotated[
        str | None,
        typer.Option("--tls-server-name", metavar="NAME", help="Name to check the server's certificate against."),
    ] = None
    impersonate: Annotated[
        str | None, typer.Option("--as", metavar="USER", help="User to impersonate, on every request.")
    ] = None
    impersonate_groups: Annotated[
        list[str], typer.Option("--as-group", metavar="GROUP", help="Group to impersonate (repeatable).")
    ] = field(default_factory=list)
    impersonate_uid: Annotated[str | None, typer.Option("--as-uid", metavar="UID", help="UID to impersonate.")] = None
    request_timeout: Annotated[
        timedelta | None,
        typer.Option(
            "--request-timeout",
            metavar="DURATION",
            parser=values.duration,
            help="How long one request to the API may take, such as 30s.",
        ),
    ] = None
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="File that holds the bearer token.")
    ] = None
    resolve: Annotated[
        list[str],
        typer.Option(
            "--resolve",
            metavar="HOST=IP",
            parser=values.host_address,
            help="Use this address for HOST instead of asking DNS; TLS still checks HOST (repeatable).",
        ),
    ] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Record:
    """Which incident a run belongs to: for commands that write to an incident's journal.

    Those that change something begin an incident where none is named; others then write nothing.
    """

    incident: Annotated[
        str | None, typer.Option("--incident", metavar="ID", help="Incident that this run belongs to.")
    ] = None


@dataclass(frozen=True, slots=True)
class NodeChoice:
    """Which nodes, beside those that are named as words: for commands that look at many."""

    selector: Annotated[
        str | None, typer.Option("--selector", "-l", metavar="SELECTOR", help="The nodes with these labels.")
    ] = None
    all_nodes: Annotated[bool, typer.Option("--all", help="All nodes.", show_default=False)] = False


@dataclass(frozen=True, slots=True)
class Rendering:
    """How the answer is printed."""

    output: Annotated[Format, typer.Option("--output", "-o", help="How to print the answer.", case_sensitive=False)] = (
        Format.TABLE
    )
    no_headers: Annotated[
        bool,
        typer.Option("--no-headers", help="Rows only: no headings, and the summary on stderr.", show_default=False),
    ] = False


@dataclass(frozen=True, slots=True)
class Answer:
    """How an answer is printed that has neither wide rows nor names."""

    output: Annotated[Form, typer.Option("--output", "-o", help="How to print the answer.", case_sensitive=False)] = (
        Form.TABLE
    )

    @property
    def format(self) -> Format:
        """The same, as the output of every command is called."""
        return Format(self.output.value)


class ListForm(enum.StrEnum):
    """How to print a list of what has names and no wide rows."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


# Options that several commands have and mean alike.
Deadline = Annotated[
    timedelta | None,
    typer.Option(
        "--deadline",
        metavar="DURATION",
        parser=values.duration,
        help="Stop after this time and report what is known by then. Default: 5m.",
    ),
]
DEADLINE = timedelta(minutes=5)
Settle = Annotated[
    timedelta | None,
    typer.Option(
        "--settle",
        metavar="DURATION",
        parser=values.duration,
        help="How long an endpoint must be gone before entries to it count at once; else what is still there in a "
        "second look counts, after 15s or this time. Default: 30s.",
    ),
]
KubeProxyVersion = Annotated[
    str | None,
    typer.Option(
        "--kube-proxy-version",
        metavar="VERSION",
        parser=values.kube_proxy_version,
        help="The release of kube-proxy, such as v1.30, where nothing else tells it.",
    ),
]

GLOBAL_GROUPS: tuple[type[Any], ...] = (Common, Connection, Record)


def check_rendering(ctx: typer.Context, rendering: Rendering) -> None:
    """Refuse --no-headers where there are no headings to leave out."""
    if rendering.output not in (Format.TABLE, Format.WIDE) and said(ctx, "no_headers"):
        raise UsageError(f"--no-headers has no effect with -o {rendering.output}")


def said(ctx: typer.Context, *names: str) -> list[str]:
    """Which of the parameters `names` were given on the command line itself, as the options' own spelling.

    The environment does not count: a KDNSCTL_CONTEXT that is always set must not make offline commands fail.
    """
    spelled = []
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            spelled.append(parameter.opts[0])
    return spelled
