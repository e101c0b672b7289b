"""Writes docs/reference: a page for each command, from what the command itself says of its options and permissions.

    nox -s reference

Everything comes from the command line's own tree, as `--help` does; how-tos are written by hand and linked. A test
holds the pages to it.
"""

from __future__ import annotations

import html
import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kdnsctl.access.needs import Needs
from kdnsctl.cli import app
from kdnsctl.cli.commands import LazyGroup, environment_name, named_object
from kdnsctl.cli.options import Common, Connection
from tests.docs.blocks import ROOT

PLACE = ROOT / "docs" / "reference"
GENERATED = "<!-- Written by `nox -s reference` from the commands themselves. Change their help, not this page. -->"
SHARED_TITLES = (Connection.TITLE, Common.TITLE)  # described once, on the index
# Commands whose how-to has another name than they have.
HOW_TO = {
    "completion": "find-affected.md#tab",
    "flush": "repair.md#flush-delete-what-is-stale-and-nothing-else",
    "release": "quarantine.md#release",
    "signatures": "find-affected.md#what-is-judged",
    "status": "quarantine.md",
}


def pages() -> dict[str, str]:
    """Every page of the reference: its file's name, and what is in it."""
    tree = app.build()
    made = {f"{name}.md": _page(name, tree.load(name)) for name in app.COMMANDS}
    return {"index.md": _index(tree), **made}


def _index(tree: LazyGroup) -> str:
    lines = [
        "# All commands",
        "",
        GENERATED,
        "",
        "What `--help` says, for reading and for links. How to use a command is on its own page, which each links.",
        "",
        "| command | what it does |",
        "|---|---|",
        *(f"| [{name}]({name}.md) | {_cell(entry.summary)} |" for name, entry in app.COMMANDS.items()),
        "",
        "Options go before or after the command, and each long one can be set in the environment:",
        "[configuration](../configuration.md).",
        "",
    ]
    command = tree.load("find-affected")
    for title in SHARED_TITLES:
        lines += [f"## {title}", "", *_options(command, only=title)]
    return _joined(lines)


def _page(name: str, command: Any) -> str:
    how_to = HOW_TO.get(name, f"{name}.md")
    lines = [f"# kdnsctl {name}", "", GENERATED, ""]
    if (ROOT / "docs" / how_to.partition("#")[0]).exists():
        lines += [f"How to use it: [{how_to.partition('.')[0]}](../{how_to}).", ""]
    lines += _described(f"kdnsctl {name}", command)
    if isinstance(command, LazyGroup):
        for inner in command.entries:
            lines += [f"## kdnsctl {name} {inner}", "", *_described(f"kdnsctl {name} {inner}", command.load(inner))]
    needs = app.COMMANDS[name].needs
    if needs:
        lines += _permissions(name, named_object(needs))
    return _joined(lines)


def _described(program: str, command: Any) -> Iterator[str]:
    with command.context_class(command, info_name=program) as context:
        usage = " ".join([program, *command.collect_usage_pieces(context)])
    yield from (f"Usage: `{usage}`", "")
    for paragraph in inspect.cleandoc((command.help or "").replace("\b\n", "")).split("\n\n"):
        if paragraph.startswith("Examples:"):
            yield from ("<!-- not run: examples of --help, whose commands and options are held to those that exist -->",
                        "```sh", *inspect.cleandoc(paragraph.partition("\n")[2]).splitlines(), "```", "")  # fmt: skip
        else:
            yield from (_plain(" ".join(paragraph.split())), "")
    shared = {getattr(each, "rich_help_panel", None) for each in command.params if not getattr(each, "hidden", False)}
    yield from _options(command, only=None)
    links = [f"[{title}](index.md#{title.lower().replace(',', '').replace(' ', '-')})"
             for title in SHARED_TITLES if title in shared]  # fmt: skip
    if links:
        yield from (f"And: {', '.join(links)}.", "")


def _options(command: Any, only: str | None) -> Iterator[str]:
    """A table of the options of one section; without `only`, of all that are the command's own."""
    rows = []
    with command.context_class(command, info_name=command.name) as context:
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            title = getattr(parameter, "rich_help_panel", None)
            if record is None or "--help" in parameter.opts or (title if title in SHARED_TITLES else None) != only:
                continue
            long = next((name for name in parameter.opts if name.startswith("--")), None)
            variable = f"`{environment_name(long)}`" if getattr(parameter, "envvar", None) and long else ""
            rows.append(f"| {_code(record[0])} | {_plain(_cell(' '.join(record[1].split())))} | {variable} |")
    if rows:
        yield from ("| | what it does | environment |", "|---|---|---|", *rows, "")


def _permissions(name: str, needs: Needs) -> Iterator[str]:
    yield from ("## Permissions", "", f"`kdnsctl rbac {name}` prints them as a Role; [Permissions](../permissions.md)",
                "says what to mind.", "")  # fmt: skip
    yield from ("| permission | | without it |", "|---|---|---|")
    optional = [(f"`{option}`", permissions) for option, permissions in needs.with_option.items()]
    for kind, permissions in (("needed", needs.needed), ("helpful", needs.helpful), *optional):
        yield from (f"| {one} | {kind} | {_plain(_cell(one.without))} |" for one in permissions)
    yield ""


def _code(text: str) -> str:
    """Code in a table, with its bars: no escape of them in Markdown's own means the same everywhere."""
    return f"<code>{html.escape(text, quote=False).replace('|', '&#124;')}</code>"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return text.replace("<", "&lt;").replace("*", "\\*").replace("[", "\\[")


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> int:
    """Write the pages, and remove those of commands that are gone."""
    PLACE.mkdir(exist_ok=True)
    made = pages()
    for path in PLACE.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        Path(PLACE / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
