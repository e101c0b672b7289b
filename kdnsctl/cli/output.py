"""The answer as JSON or YAML: plain data in, text on stdout.

Both are UTF-8, end with a newline and have no colour. Characters that do not print as themselves are escaped, so that
the text is safe to look at and still means the same: reading it gives back exactly what was written.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from kdnsctl.cli.options import Format
from kdnsctl.cli.terminal import put

_PERHAPS_UNPRINTABLE = re.compile(r"[^\x20-\x7e\n]")


def document(data: Mapping[str, Any], form: Format) -> None:
    """Write `data` to stdout as JSON or YAML, keys in their own order."""
    text = as_yaml(data) if form is Format.YAML else as_json(data)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # JSON and YAML are UTF-8 whatever the locale is
    put(text)


def as_json(data: Mapping[str, Any]) -> str:
    """`data` as indented JSON."""
    text = json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False)
    return _PERHAPS_UNPRINTABLE.sub(_json_escape, text) + "\n"


def _json_escape(match: re.Match[str]) -> str:
    # Outside strings JSON is ASCII, so whatever is found stands inside one, where an escape means the same.
    character = match[0]
    return character if character.isprintable() else json.dumps(character)[1:-1]


def as_yaml(data: Mapping[str, Any]) -> str:
    """`data` as one YAML document, made from the JSON: what the two say cannot differ."""
    import yaml  # noqa: PLC0415  # only for -o yaml

    fastest: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(fastest):  # type: ignore[misc]  # chosen at run time
        """A dumper that writes text as we want it, and leaves other users of PyYAML alone."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
            return True

    Dumper.add_representer(str, _represent_text)
    text: str = yaml.dump(
        json.loads(as_json(data)),
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=2**31 - 1,
    )
    return _PERHAPS_UNPRINTABLE.sub(_yaml_escape, text)


def _represent_text(dumper: Any, text: str) -> Any:
    # Half a surrogate pair is how Python spells an undecodable byte of a file name; YAML has no spelling for it.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _yaml_escape(match: re.Match[str]) -> str:
    # Text with such characters is double-quoted, see above, and there an escape means the same.
    character = match[0]
    if character.isprintable():
        return character
    point = ord(character)
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
