"""The way in: `kdnsctl`, `kubectl kdns` and `python -m kdnsctl`.

`--version` alone is answered here, before anything heavy is imported: it costs no more than starting Python. Everything
else is handed to `cli.app`. This module parses nothing and decides nothing.
"""

import sys

from kdnsctl import __version__


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (None: the process's own) and return the exit code (`kdnsctl.model.ExitCode`).

    Nothing is raised: every failure has become one line on stderr.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        if arguments == ["--version"] and _wrote_version():
            return 0
        # Late: typer costs seven times what starting Python does.
        from kdnsctl.cli import app  # noqa: PLC0415

        return app.run(arguments, _program(sys.argv[0] if sys.argv else ""))
    except KeyboardInterrupt:
        # Only while modules were still being imported; `app.run` has its own words for the rest.
        sys.stderr.write("interrupted\n")
        return 130


def complete_for_kubectl() -> int:
    """Answer TAB behind `kubectl kdns`: the program `kubectl_complete-kdns`, which kubectl calls with the words so far.

    One candidate on each line, and `:4` at the end for "no files" (kubectl, pkg/cmd/plugin/plugin_completion.go).
    """
    from kdnsctl.cli import completion  # noqa: PLC0415

    return completion.answer_kubectl(sys.argv[1:])


def _wrote_version() -> bool:
    """Whether the version could be written; if not, `app.run` meets the same trouble and can say what it is."""
    try:
        sys.stdout.write(f"kdnsctl {__version__}\n")
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):  # full, closed, None
        return False
    return True


def _program(path: str) -> str:
    """How the operator called us: as a kubectl plugin the usage shows `kubectl kdns`."""
    return "kubectl kdns" if path.replace("\\", "/").rpartition("/")[2].startswith("kubectl-") else "kdnsctl"


if __name__ == "__main__":
    sys.exit(main())
