"""`kdnsctl config`: what configuration files and the environment set, and where (kind `ConfigReport`).

Every setting is held to the command it is for: `settings` knows the rules. No value is changed here.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from kdnsctl.cli.options import Answer, Common, Form
from kdnsctl.cli.terminal import put, tell
from kdnsctl.model import API_VERSION

HEADINGS = ("COMMAND", "OPTION", "VALUE", "FROM")


def config(common: Common, answer: Answer) -> int:
    """Show what files and the environment set, and check it.

    Examples:
      # What holds here, and from where?
      kdnsctl config
      # Is this file right?
      kdnsctl config --config ./config.toml

    Options are looked for on the command line, then in the environment (KDNSCTL_SINCE for --since), then in
    ~/.config/kdnsctl/config.toml ($XDG_CONFIG_HOME), then in /etc/kdnsctl/config.toml. Options for all commands stand
    there below [defaults], those of one below its name: [find-affected], [repair.flush].

    Exit codes: 0 all of it is understood, 2 wrong usage, or an error in a file; 1 failed, 130 interrupted.
    """
    from kdnsctl.cli import output  # noqa: PLC0415
    from kdnsctl.cli.app import COMMANDS  # noqa: PLC0415
    from kdnsctl.cli.settings import DEFAULTS, Settings, check, environment_settings, files_of  # noqa: PLC0415

    files = files_of([] if common.config is None else ["--config", str(common.config)], os.environ)
    settings = Settings(files, COMMANDS)
    check(settings, COMMANDS)
    variables = environment_settings(COMMANDS)
    rows: list[tuple[str, str, Any, str]] = [
        ("*" if not one.command else " ".join(one.command), one.option, one.value, str(one.file))
        for one in settings.all
    ]
    rows += [("*", name, os.environ[name], "environment") for name, known in variables.items() if known]
    ignored = [name for name, known in variables.items() if not known]
    if answer.output is not Form.TABLE:
        output.document(
            {
                "apiVersion": API_VERSION,
                "kind": "ConfigReport",
                "files": [str(file) for file in files],
                "settings": [
                    {"command": command, "option": option, "value": _plain(value), "from": source}
                    for command, option, value, source in rows
                ],
                "ignored": ignored,
            },
            answer.format,
        )
        return 0
    put(_table(rows, common) if rows else "Nothing is set in files or in the environment.\n")
    for file in files:
        tell(f"read: {file}")
    if ignored:
        tell(f"no option has these variables: {', '.join(ignored)}")
    if not files:
        tell(f"there is no configuration file; [{DEFAULTS}] and its lines go into ~/.config/kdnsctl/config.toml")
    return 0


def _table(rows: list[tuple[str, str, Any, str]], common: Common) -> str:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color  # noqa: PLC0415

    cells = [[table.Cell.of(_shown(cell)) for cell in row] for row in rows]
    paint = table.painter(color=has_color(sys.stdout, common.color))
    return "\n".join(table.lay_out(HEADINGS, cells, width=columns(sys.stdout), paint=paint)) + "\n"


def _plain(value: Any) -> Any:
    """A value as JSON has it: TOML has dates, too."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value if isinstance(value, str | int | float) else str(value)


def _shown(value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
