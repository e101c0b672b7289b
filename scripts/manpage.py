#!/usr/bin/env python3
"""Writes the man page kdnsctl(1) from the commands themselves, so it cannot say anything else than they do.

The wheel is built with it (build_hook.py); from a checkout: `scripts/manpage.py > kdnsctl.1; man -l kdnsctl.1`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ("Which cluster, as whom", "Options of every command")  # sections of help that are the same everywhere
FILES = (
    ("~/.config/kdnsctl/config.toml", "Defaults of options; $XDG_CONFIG_HOME moves it, --config names another."),
    ("/etc/kdnsctl/config.toml", "The same for everybody on the machine; the user's own wins."),
    ("~/.config/kdnsctl/runbooks", "Runbooks of one's own."),
    ("~/.local/state/kdnsctl/incidents", "Journals of incidents; $XDG_STATE_HOME moves them."),
    ("~/.cache/kdnsctl", "What may be lost; $XDG_CACHE_HOME moves it."),
)


def page() -> str:
    """The page, in the macros of man(7)."""
    sys.path.insert(0, str(ROOT))
    from kdnsctl import __version__  # noqa: PLC0415
    from kdnsctl.cli import app  # noqa: PLC0415
    from kdnsctl.cli.settings import commands  # noqa: PLC0415

    tree = app.build()
    about = tree.help or ""
    built = list(commands(app.COMMANDS))
    lines = [
        f'.TH KDNSCTL 1 "" "kdnsctl {__version__}" "kdnsctl"',
        ".SH NAME",
        rf"kdnsctl \- {_text(_lowered(about.partition(chr(10))[0]))}",
        ".SH SYNOPSIS",
        ".B kdnsctl",
        r".I COMMAND",
        "[OPTIONS]",
        ".SH DESCRIPTION",
        *_paragraphs(about),
        ".SH COMMANDS",
    ]
    shared: dict[str, list[tuple[str, str]]] = {title: [] for title in SHARED}
    for words, command in built:
        lines += [f".SS kdnsctl {_text(' '.join(words))}", *_paragraphs(command.help)]
        ctx = command.make_context(f"kdnsctl {' '.join(words)}", [], resilient_parsing=True)
        for parameter in command.get_params(ctx):
            record = parameter.get_help_record(ctx)
            title = getattr(parameter, "rich_help_panel", None)
            if record is None or "--help" in record[0]:
                continue
            if title in shared:
                if record not in shared[title]:
                    shared[title].append(record)
            else:
                lines += _option(*record)
    for title, records in shared.items():
        lines.append(f".SH {title.upper()}")
        for record in records:
            lines += _option(*record)
    lines += [".SH EXIT STATUS", *_exit_codes()]
    lines.append(".SH ENVIRONMENT")
    lines.append("Every long option has a variable: KDNSCTL_SINCE for")
    lines.append(r".BR \-\-since .")
    lines.append("What is said on the command line wins.")
    lines.append(".SH FILES")
    for name, text in FILES:
        lines += _option(name, text)
    lines += [".SH SEE ALSO", ".BR kubectl (1),", ".BR conntrack (8),", ".BR iptables (8)"]
    return "\n".join(lines) + "\n"


def _lowered(sentence: str) -> str:
    """As the rest of a line: no capital, no full stop."""
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _paragraphs(text: str) -> Iterator[str]:
    """Help as paragraphs; what typer is told to keep (after a backspace) keeps its lines here, too."""
    for paragraph in text.split("\n\n"):
        kept = "\b" in paragraph
        lines = [line for line in paragraph.replace("\b", "").splitlines() if line.strip()]
        if not lines:
            continue
        yield ".PP"
        if kept:
            yield from (".nf", *map(_text, lines), ".fi")
        else:
            yield from map(_text, (line.strip() for line in lines))


def _option(name: str, text: str) -> list[str]:
    return [".TP", f".B {_text(name)}", _text(" ".join(text.split())) or r"\&"]


def _exit_codes() -> Iterator[str]:
    """The table of docs/exit-codes.md."""
    for line in (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0].isdecimal():
            yield from _option(cells[0], cells[1])


def _text(text: str) -> str:
    """`text` as roff prints it: nothing in it is a request, an escape or a hyphen that could be broken."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("…", "...")
    return r"\&" + escaped if escaped[:1] in {".", "'"} else escaped


if __name__ == "__main__":
    sys.stdout.write(page())
