"""Configuration files: defaults of options, for all commands or one, where command line and environment say nothing.

Files are TOML: `/etc/kdnsctl/config.toml` of the machine, and over it `$XDG_CONFIG_HOME/kdnsctl/config.toml` of the
user, or only the one that --config names. `[defaults]` is for every command that has the option, `[find-affected]` or
`[repair.flush]` for one. Nothing is read from the working directory: who can put a file there must not decide which
cluster is changed. What options mean is not known here.

A file is read when an option is first looked for in it, so --help and --version do without. What it says wrong is a
UsageError that names the file; no setting is ever left out silently.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from kdnsctl.cli.commands import Entry, Group, environment_name, named_object
from kdnsctl.model import KdnsctlError, UsageError

OPTION = "--config"
MACHINE = Path("/etc/kdnsctl/config.toml")
DEFAULTS = "defaults"  # the section for every command
MAX_BYTES = 1 << 20
# What is agreed to, or which guard is off, has to be seen where the command is typed.
NEVER = frozenset(
    {
        *("help", "version", "config"),
        *("yes", "yes-to-reads", "force", "disable-eviction", "drain-anyway", "unchecked", "no-collect"),
        *("allow-control-plane", "allow-privileged"),
    }
)

Path_ = tuple[str, ...]  # the words of a command


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of a file: the section's command (empty: of all), the option's name without dashes, the value."""

    command: Path_
    option: str
    value: Any
    file: Path

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        return f"{self.option} in [{'.'.join(self.command) or DEFAULTS}] of {self.file}"


class Settings:
    """What the files say; read once, when it is first asked."""

    def __init__(self, files: Sequence[Path], entries: Mapping[str, Entry]) -> None:
        """`files`: later ones win. `entries` are the commands there are."""
        self.files = tuple(files)
        self._entries = entries
        self._read: list[Setting] | None = None

    @property
    def all(self) -> list[Setting]:
        """Every setting, in the order of the files. Raises UsageError for a file that cannot be understood."""
        if self._read is None:
            self._read = [one for file in self.files for one in _settings_of(file, self._entries)]
        return self._read

    def of(self, command: Path_, parameters: Sequence[Any]) -> dict[str, Setting]:
        """The settings of one command, by parameter. What is said of it wins over what is said of all.

        Raises UsageError for an option that it does not have.
        """
        command = canonical(command, self._entries)
        options = by_option(parameters)
        found: dict[str, Setting] = {}
        for said in ((), command):
            for setting in self.all:
                if setting.command != said:
                    continue
                parameter = options.get(setting.option)
                if parameter is not None:
                    if said or _applies(parameter, setting):
                        found[parameter.name] = setting
                elif said:
                    raise _unknown(setting, options, f"'kdnsctl {' '.join(command)}' has no such option")
                else:
                    self._check_default(setting)
        return found

    def _check_default(self, setting: Setting) -> None:
        """Whether any command has this option. Imports all of them: only for options that this one does not have."""
        known = {name for _, command in commands(self._entries) for name in by_option(command.params)}
        if setting.option not in known:
            raise _unknown(setting, known, "no command has such an option")


class Defaults(MutableMapping[str, Any]):
    """The defaults of one command, as typer asks for them: by parameter, each when it is needed."""

    def __init__(self, settings: Settings, command: Path_, parameters: Sequence[Any], *, quiet: bool) -> None:
        self._settings, self._command, self._parameters, self._quiet = settings, command, parameters, quiet
        self._found: dict[str, Setting] | None = None
        self._known = {one.name: one for one in parameters}

    def setting(self, name: str) -> Setting | None:
        """Where the value of parameter `name` is from. Raises UsageError, but while TAB is answered (`quiet`)."""
        if self._found is None:
            try:
                self._found = self._settings.of(self._command, self._parameters)
            except KdnsctlError:
                if not self._quiet:
                    raise
                self._found = {}
        return self._found.get(name)

    def __getitem__(self, name: str) -> Any:
        setting = self.setting(name)
        if setting is None:
            raise KeyError(name)
        return fitted(setting, self._known[name])

    def __setitem__(self, name: str, value: Any) -> None:
        raise TypeError("settings come from files")

    def __delitem__(self, name: str) -> None:
        raise TypeError("settings come from files")

    def __iter__(self) -> Iterator[str]:
        return iter([name for name in self._known if self.setting(name) is not None])

    def __len__(self) -> int:
        return len(list(iter(self)))


def files_of(arguments: Sequence[str], environment: Mapping[str, str]) -> list[Path]:
    """The files to read, by the command line before it is parsed. Raises UsageError for a named one that is none."""
    words = list(arguments)
    words = words[: words.index("--")] if "--" in words else words
    named = environment.get(environment_name(OPTION)) or None
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == OPTION:
            named = following  # without one, parsing will say so
        elif word.startswith(OPTION + "="):
            named = word.partition("=")[2]
    if named:
        file = Path(named)
        if not file.exists():
            raise UsageError(f"there is no configuration file {named}", hint="--config /dev/null reads none")
        return [file]
    return [file for file in (MACHINE, user_file(environment)) if file.is_file()]


def user_file(environment: Mapping[str, str]) -> Path:
    """$XDG_CONFIG_HOME/kdnsctl/config.toml, by default below ~/.config. It need not exist."""
    base, home = environment.get("XDG_CONFIG_HOME", ""), environment.get("HOME")
    directory = Path(base) if base.startswith("/") else (Path(home) if home else Path("~").expanduser()) / ".config"
    return directory / "kdnsctl" / "config.toml"


def commands(entries: Mapping[str, Entry], before: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every command that runs, by its words, imported and built."""
    from kdnsctl.cli.commands import build_command  # noqa: PLC0415

    for name, entry in entries.items():
        target = named_object(entry.path)
        if isinstance(target, Group):
            yield from commands(target.entries, (*before, name))
        else:
            yield (*before, name), build_command(name, target)


def canonical(command: Path_, entries: Mapping[str, Entry]) -> Path_:
    """The words under which a command has its settings: `flush` is `repair flush`, and has no section of its own."""
    if len(command) != 1 or command[0] not in entries:
        return command
    path = entries[command[0]].path
    for name, entry in entries.items():
        if path.startswith(entry.path.partition(":")[0] + "."):  # a module in the package of a group
            inside = named_object(entry.path).entries
            return next(((name, one) for one, other in inside.items() if other.path == path), command)
    return command


def by_option(parameters: Sequence[Any]) -> dict[str, Any]:
    """The options among `parameters`, by their long name without dashes."""
    named = ((one, next((name for name in one.opts if name.startswith("--")), None)) for one in parameters)
    return {long.removeprefix("--"): one for one, long in named if long and one.param_type_name == "option"}


def fitted(setting: Setting, parameter: Any) -> Any:
    """The value as the parameter's parser takes it. Raises UsageError for one of another kind."""
    value = setting.value
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{setting.place} is true or false, not {value!r}")
        return value
    if parameter.count:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UsageError(f"{setting.place} is a number, not {value!r}")
        return value
    if parameter.multiple:
        return [_word(setting, one) for one in (value if isinstance(value, list) else [value])]
    return _word(setting, value)


def _word(setting: Setting, value: Any) -> str:
    """A value as somebody would type it; a shell would have replaced the `~`."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"{setting.place} is one value, not {value!r}")
    word = str(value)
    return str(Path(word).expanduser()) if word.startswith("~/") else word


def _applies(parameter: Any, setting: Setting) -> bool:
    """Whether a default of all commands is for this one: `output = "wide"` means only those that print wide rows."""
    choices = getattr(parameter.type, "choices", None)
    if setting.option != "output" or choices is None:
        return True
    from kdnsctl.cli.options import Format  # noqa: PLC0415

    known = {one.value for one in Format}
    return setting.value not in known or setting.value in {str(getattr(one, "value", one)) for one in choices}


def _settings_of(file: Path, entries: Mapping[str, Entry]) -> Iterator[Setting]:
    for name, content in _parsed(file).items():
        if not isinstance(content, dict):
            raise UsageError(
                f"{name} in {file} stands before the first section",
                hint=f"options for all commands go below [{DEFAULTS}], those of one below [COMMAND]",
            )
        if name == DEFAULTS:
            yield from _of_section((), content, file)
        else:
            yield from _of_command((name,), content, file, entries, entries)


def _of_command(
    command: Path_, content: dict[str, Any], file: Path, entries: Mapping[str, Entry], all_: Mapping[str, Entry]
) -> Iterator[Setting]:
    section = ".".join(command)
    entry = entries.get(command[-1])
    if entry is None:
        raise UsageError(
            f"[{section}] in {file}: there is no command '{' '.join(command)}'{_close(command[-1], entries)}"
        )
    real = canonical(command, all_)
    if real != command:
        raise UsageError(f"[{section}] in {file}: write [{'.'.join(real)}], which is the same command")
    target = named_object(entry.path)
    if isinstance(target, Group):
        for name, inner in content.items():
            if not isinstance(inner, dict):
                raise UsageError(
                    f"{name} in [{section}] of {file}: '{section}' is a group of commands",
                    hint=f"options go below one of {', '.join(f'[{section}.{one}]' for one in target.entries)}",
                )
            yield from _of_command((*command, name), inner, file, target.entries, all_)
    else:
        yield from _of_section(command, content, file)


def _of_section(command: Path_, content: dict[str, Any], file: Path) -> Iterator[Setting]:
    for option, value in content.items():
        setting = Setting(command, option, value, file)
        if option in NEVER:
            raise UsageError(f"{setting.place} cannot be set in a file", hint="say it where the command is typed")
        yield setting


def _parsed(file: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415  # only where there is a file

    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise UsageError(f"{file} is larger than {MAX_BYTES >> 20} MiB; this is no configuration")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{file} is not TOML: {error}", hint="mend it, or leave it out: --config /dev/null") from error


def _unknown(setting: Setting, known: Collection[str], why: str) -> UsageError:
    hint = "underscores are dashes" if setting.option.replace("_", "-") in known else ""
    return UsageError(f"{setting.place}: {why}{_close(setting.option, known)}", hint=hint)


def _close(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def check(settings: Settings, entries: Mapping[str, Entry]) -> None:
    """Hold every setting to the command it is for. Imports all commands. Raises UsageError for the first that is wrong.

    Values are only checked for their kind here: what a command takes, it says when it runs.
    """
    for words, command in commands(entries):
        known = {one.name: one for one in command.params}
        for name, setting in settings.of(words, command.params).items():
            fitted(setting, known[name])


def environment_settings(entries: Mapping[str, Entry], environment: Mapping[str, str] = os.environ) -> dict[str, bool]:
    """The variables KDNSCTL_… that are set, and whether each is an option of some command. Imports all commands."""
    known = {environment_name(f"--{name}") for _, one in commands(entries) for name in by_option(one.params)}
    return {name: name in known for name in sorted(environment) if name.startswith("KDNSCTL_")}
