"""What hatchling runs when it builds a wheel: writes the man page, and has it go to share/man/man1."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SCRIPTS = Path(__file__).resolve().parent


class ManPage(BuildHookInterface[Any]):
    """The man page of the wheel; an editable install goes without."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the page, before the files of the wheel are gathered."""
        self._directory = Path(tempfile.mkdtemp(prefix="kdnsctl-man-"))
        if version == "editable":
            return
        sys.path.insert(0, str(SCRIPTS))
        try:
            import manpage  # noqa: PLC0415  # which imports the commands

            written = self._directory / "kdnsctl.1"
            written.write_text(manpage.page(), encoding="utf-8")
        finally:
            sys.path.remove(str(SCRIPTS))
        build_data["shared_data"][str(written)] = "share/man/man1/kdnsctl.1"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Take the page away again: the wheel has it."""
        shutil.rmtree(self._directory, ignore_errors=True)
