"""Every block of code in the pages is accounted for, and every command line of ours in them can be parsed."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.cli import app
from kdnsctl.cli.commands import LazyGroup
from tests.docs.blocks import ROOT, RUN_AS_RUNBOOKS, SHELLS, blocks_of, pages
from tests.docs.places import PLACES

PAGES = pages()
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
# Blocks that show no command: what a file holds, what a page draws.
OTHER_LANGUAGES = frozenset({"text", "mermaid", "json", "yaml", "toml"})
OURS = re.compile(r"^(?:\$ )?(?:kdnsctl|kubectl[ -]kdns) ")
NO_COMMAND = re.compile(r"COMMAND|\[.*|….*|.*-")  # what stands for a command, or for its beginning


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_that_shows_a_command_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language in SHELLS | OTHER_LANGUAGES, f"{block.where}: in which language is it?"
        if block.language not in SHELLS:
            shown = [line for line in block.lines if OURS.match(line)]
            assert not shown, f"{block.where}: {shown[0]!r} is a command: mark the block as console or sh"
            assert block.mark is None, f"{block.where}: a mark, and no command"
        elif page.is_relative_to(RUN_AS_RUNBOOKS):
            assert block.mark is None, f"{block.where}: runbooks are run as runbooks"
        else:
            assert block.mark is not None, f"{block.where}: say `<!-- run: PLACE -->` or `<!-- not run: REASON -->`"
            assert block.commands, f"{block.where}: no command"
            if block.mark.place is None:
                assert len(block.mark.reason.split()) >= 3, f"{block.where}: {block.mark.reason!r} is no reason"
            else:
                assert block.mark.place in PLACES, f"{block.where}: there is no place {block.mark.place!r}"
                assert len(block.mark.codes) in {0, len(block.commands)}, (
                    f"{block.where}: an exit code for each command"
                )


def our_lines(page: Path) -> list[str]:
    """Each command line of kdnsctl in a page, in its blocks and in its sentences."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in blocks_of(page) if block.language in SHELLS
             for command in block.commands for line in command.text.replace("\\\n", " ").splitlines()]  # fmt: skip
    inline = re.findall(r"(?<!`)`((?:kdnsctl|kubectl kdns) [^`]+)`(?!`)", re.sub(r"(?ms)^ *```.*?^ *```$", "", text))
    # A sentence may name an option without its value.
    inline = [f"{line} COMMAND" if line.split()[-1].startswith("--") else line for line in inline]
    return [line for line in [*lines, *inline] if OURS.match(line) or "| kdnsctl " in line]


def words_of(line: str) -> list[list[str]]:
    """The command lines of kdnsctl in a line of the shell, as words; those of other programs are left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;<>&")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    parts: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|;<>&"):
            parts.append([])
        else:
            parts[-1].append(word)
    ours = []
    for part in parts:
        if part[:2] == ["kubectl", "kdns"]:
            ours.append(part[2:])
        elif part[:1] == ["kdnsctl"]:
            ours.append(part[1:])
    return ours


@functools.cache
def command_of(*path: str) -> Any:
    """A command, or a group of them, by its names; the whole tree by none."""
    if not path:
        return app.build()
    parent = command_of(*path[:-1])
    assert path[-1] in parent.entries, f"there is no command {' '.join(path)!r}"
    return parent.load(path[-1])


def check(words: list[str]) -> None:
    """Find the command and its options, as the program does; values are not looked at, and nothing is run."""
    path: tuple[str, ...] = ()
    before: list[str] = []
    while isinstance(command_of(*path), LazyGroup):
        place = next((n for n, word in enumerate(words) if not word.startswith("-")), None)
        if place is None:
            break  # `kdnsctl --help`
        name = words[place]
        if NO_COMMAND.fullmatch(name):
            return
        path = (*path, name)
        before += words[:place]
        words = words[place + 1 :]
    command = command_of(*path)
    with command.context_class(command, info_name=command.name) as context:
        command.make_parser(context).parse_args([*before, *words])


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_line_of_ours_names_commands_and_options_that_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # tells what was once, too
    for line in our_lines(page):
        for words in words_of(line):
            try:
                check(words)
            except Exception as error:
                raise AssertionError(f"{page.relative_to(ROOT)}: `{line}`: {error!r}") from error


@pytest.mark.parametrize("line", ["find-afected", "find-affected --sinse 5m", "lab up --nodes", "bundle verfy x"])
def test_one_that_does_not_exist_is_found(line: str) -> None:
    with pytest.raises(Exception, match=r"there is no command|no such option|[Oo]ption|requires"):
        check(line.split())
