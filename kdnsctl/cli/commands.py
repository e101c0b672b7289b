"""How commands are declared and loaded: functions become commands, and options work before and after them.

This is the one place that hooks into typer. It uses `TyperGroup` and `TyperCommand` only, by the names that typer's
documentation gives; what the commands and options are is said in `app` and `options`.

Three ideas:

* A command asks for a group of options by a parameter of that group's type (`connection: Connection`). `expand` shows
  typer the fields in its place and hands the command the filled dataclass. A group marked `Hidden` is accepted and
  left out of `--help`: for commands that can say why it has no effect. One with a `TITLE` has a section of its own
  there, behind the command's own options.
* An option before the command means what it means after it: the words before the command are handed on in front of the
  words after it, so that only the command itself interprets them.
* A command may be a `Group` of commands, built by the same recipe as the whole tree: its own module is imported to list
  them, theirs when they run.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from kdnsctl.cli.terminal import FALLBACK_WIDTH, as_called, columns, put, running

HELP_NAMES = ["-h", "--help"]
NOT_FROM_ENVIRONMENT = frozenset({"--help", "--version"})
_AFTER_DASHES = f"{__name__}.after_dashes"


class Entry(NamedTuple):
    """Where a command is ("package.module:name", a function or a Group) and its first line of help.

    `needs` is where the permissions are gathered (`access.needs.Needs`) that it makes use of; empty for commands that
    ask nothing of a cluster. `changes` is True for those that change something there, `partly` for a group of which
    some do: the needs are theirs.
    """

    path: str
    summary: str
    needs: str = ""
    changes: bool = False
    partly: bool = False


class Group(NamedTuple):
    """A command that only holds others: its function takes the options that go before their names, and has the help."""

    function: Callable[..., Any]
    entries: Mapping[str, Entry]


class Hidden:
    """Marks a group of options as accepted but not shown: `connection: Annotated[Connection, Hidden]`."""


def named_object(path: str) -> Any:
    """What an `Entry` names as "package.module:name", imported now."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def expand(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with each parameter that is a dataclass replaced by its fields, as typer must see it."""
    own: list[inspect.Parameter] = []
    shared: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        annotation, hidden = parameter.annotation, False
        if get_origin(annotation) is Annotated:
            annotation, *marks = get_args(annotation)
            hidden = Hidden in marks
        if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
            groups[parameter.name] = annotation
            shared += _fields(annotation, hidden=hidden)
        else:
            own.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    parameters = own + shared  # in this order in --help: what is the command's own comes first

    def call(**values: Any) -> Any:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        return function(**values)

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect looks for first
    return call


def _fields(group: type[Any], *, hidden: bool) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    parameters = []
    for field in dataclasses.fields(group):
        kind, option = get_args(hints[field.name])
        option = copy.copy(option)
        option.hidden = option.hidden or hidden
        option.rich_help_panel = getattr(group, "TITLE", None)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        parameters.append(
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
            )
        )
    return parameters


def _through_put(option: Any) -> Any:
    """The --help option, writing as everything here writes: a full disk or a gone reader is met in one place."""
    if option is not None:
        option.callback = _print_help
    return option


def _print_help(ctx: Any, _: Any, value: bool) -> None:  # noqa: FBT001  # typer calls it so
    if value and not ctx.resilient_parsing:
        ctx.terminal_width = min(columns(sys.stdout) or FALLBACK_WIDTH, FALLBACK_WIDTH)
        ctx.default_map = None  # the defaults shown are those of the program, also where a file is broken
        put(as_called(ctx.get_help()) + "\n")
        raise typer.Exit


class Command(TyperCommand):
    """A command whose long options can all be set in the environment: KDNSCTL_SINCE for --since.

    Where `obj` of its context is set, that gives the defaults of options that neither were said nor stand there: it is
    called with the command's words and its parameters, and `quiet` while TAB is answered.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = _laid_out(self.help)
        for parameter in self.params:
            if not isinstance(parameter, TyperOption):
                continue
            long = next((name for name in parameter.opts if name.startswith("--")), None)
            if long and long not in NOT_FROM_ENVIRONMENT:
                parameter.envvar = environment_name(long)
                parameter.show_envvar = False  # the root's help says it once, for all

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        running(_words_of(ctx))
        if ctx.obj is not None:
            ctx.default_map = ctx.obj(_words_of(ctx), self.params, quiet=ctx.resilient_parsing)
        # The parser drops the dashes, and with them where a command to run begins.
        ctx.meta[_AFTER_DASHES] = len(args) - args.index("--") - 1 if "--" in args else 0
        return super().parse_args(ctx, args)

    def get_help_option(self, ctx: Any) -> Any:
        return _through_put(super().get_help_option(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """First what is the command's own, then the groups that have a title, the last of them first."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                own = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or own, []).append(record)
        arguments, options, *titled = sections
        for title in (arguments, options, *reversed(titled)):
            if sections[title]:
                with formatter.section(title):
                    formatter.write_dl(sections[title])


def _words_of(ctx: Any) -> tuple[str, ...]:
    """The words of a command, without the program's name."""
    return () if ctx.parent is None else (*_words_of(ctx.parent), ctx.info_name)


def words_after_dashes(ctx: Any, words: list[str] | None) -> tuple[list[str], list[str]]:
    """The words of a command line, parted at the first `--`: those before it, and those after it."""
    known = list(words or ())
    place = len(known) - ctx.meta.get(_AFTER_DASHES, 0)
    return known[:place], known[place:]


def _laid_out(text: str | None) -> str:
    """Help in which examples keep their lines."""
    return "\n\n".join(_keep_lines(paragraph) for paragraph in (text or "").split("\n\n"))


def _keep_lines(paragraph: str) -> str:
    """Mark a paragraph with indented lines (examples) so that it is not filled: a backspace, says typer, does that."""
    return "\b\n" + paragraph if "\n " in paragraph else paragraph


def environment_name(option: str) -> str:
    """The environment variable of a long option: "--since-time" is KDNSCTL_SINCE_TIME."""
    return "KDNSCTL_" + option.removeprefix("--").replace("-", "_").upper()


class LazyGroup(TyperGroup):
    """Commands that are imported when they run, and that also take the options written before their name."""

    entries: ClassVar[Mapping[str, Entry]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = _laid_out(self.help)
        for name, entry in self.entries.items():
            self.add_command(Command(name, help=entry.summary, short_help=entry.summary, rich_markup_mode=None))

    def get_help_option(self, ctx: Any) -> Any:
        return _through_put(super().get_help_option(ctx))

    def overview(self, program: str) -> str:
        """What a group without a word after it prints: its commands, and where the rest is."""
        room = max(len(name) for name in self.entries)
        lines = [f"Usage: {program} COMMAND [OPTIONS]", "", (self.help or "").partition("\n")[0], ""]
        lines += [f"  {name.ljust(room)}  {entry.summary}" for name, entry in self.entries.items()]
        lines += ["", f"'{program} COMMAND --help' explains a command and its options."]
        width = columns(sys.stdout) or FALLBACK_WIDTH
        wrapped = [
            textwrap.fill(line, width, subsequent_indent=" " * (room + 4 if line.startswith(" ") else 0))
            for line in lines
        ]
        return "\n".join(wrapped) + "\n"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            put(self.overview(ctx.command_path))
            raise typer.Exit
        words = list(args)  # the parser empties the list it is given
        rest = super().parse_args(ctx, args)
        leading = words[: len(words) - len(rest) - 1]  # 1: the command's name; without one nothing is handed on
        ctx.meta[self._key(ctx)] = [word for word in leading if word != "--"]
        return rest

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, stub, rest = super().resolve_command(ctx, args)
        if name is None or stub is None:
            return name, stub, rest
        return name, self.load(name), [*ctx.meta.get(self._key(ctx), ()), *rest]

    def load(self, name: str) -> Any:
        """Import the command `name` and build it."""
        return build_command(name, named_object(self.entries[name].path))

    @staticmethod
    def _key(ctx: Any) -> str:
        return f"{__name__}.leading.{ctx.command_path}"


def build_command(name: str, target: Callable[..., Any] | Group) -> Any:
    """Make `target` the command `name`; a function's docstring is the help."""
    app = typer.Typer(
        cls=type("Commands", (LazyGroup,), {"entries": target.entries}) if isinstance(target, Group) else None,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": HELP_NAMES},
    )
    if isinstance(target, Group):
        app.callback()(expand(target.function))
    else:
        app.command(name, cls=Command, context_settings={"help_option_names": HELP_NAMES})(expand(target))
    command = typer.main.get_command(app)
    command.name = name
    return command
