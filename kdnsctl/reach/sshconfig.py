"""How to get to a host over SSH: what the operator's own ssh_config says, as a record.

OpenSSH reads its configuration best, so it is asked (`ssh -G`, which connects to nothing). Where no OpenSSH client is
installed, paramiko's reader is used, with Include files put in where that means the same; where it does not, it is an
error and not a guess. Nothing here connects anywhere, looks a name up or reads a key.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kdnsctl.model import KdnsctlError

ASKING: Final = 10.0  # seconds that `ssh -G` may take: it runs the commands of `Match exec`
MOST_HOPS: Final = 8
DEEPEST: Final = 16  # of Include in Include, as OpenSSH has it (readconf.c, READCONF_MAX_DEPTH)
BROADEST: Final = 1024  # files that are read for one configuration

_HOP: Final = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@\s]+)@)?(?:\[(?P<bracketed>[^]\s]+)\]|(?P<host>[^:@\[\]\s]+))(?::(?P<port>[0-9]{1,5}))?/?"
)
_KEYWORD: Final = re.compile(r"\s*(?P<key>[A-Za-z]+)(?:\s*=\s*|\s+)(?P<value>.*?)\s*")


class SshConfigError(KdnsctlError):
    """What the ssh_config says cannot be known, or cannot be done."""

    code = "sshConfig"


# What is said of one host: keyword in lower case → its values, in order.
Settings = dict[str, list[str]]
# A host's settings, and those of one that no file says anything about.
Reader = Callable[[str], tuple[Settings, Settings]]


@dataclass(frozen=True, slots=True)
class Hop:
    """One host on the way, the last one included, and how to log in there.

    `name` is what it was called, `hostname` where to connect; paths have no `~` any more. `identity_files` are those
    to try, in order; most need not exist. `proxy_command` is a line for the shell, of the operator's own making, whose
    stdin and stdout lead there, "" for none. `agent` is the socket of the agent, "" for none.
    """

    name: str
    hostname: str
    port: int
    user: str
    identity_files: tuple[str, ...] = ()
    certificate_files: tuple[str, ...] = ()
    identities_only: bool = False
    agent: str = ""
    known_hosts: tuple[str, ...] = ()
    host_key_alias: str = ""
    hash_known_hosts: bool = False
    proxy_command: str = ""


@dataclass(frozen=True, slots=True)
class SshOptions:
    """What the operator said on the command line; it wins over every file. None and empty: nothing was said.

    `config` is the file to read instead of the usual ones; `home` and `environment` are whose.
    """

    config: str | None = None
    user: str | None = None
    port: int | None = None
    identity_files: tuple[str, ...] = ()
    jumps: tuple[str, ...] = ()
    known_hosts: str | None = None
    environment: Mapping[str, str] | None = None
    home: str | None = None


def way_to(name: str, options: SshOptions, *, address: str | None = None, alias: str = "") -> tuple[Hop, ...]:
    """The hosts to go through, in order; the last is `name` itself, the only one that `options` are about.

    `address` is where it is known to be: it counts where the configuration has no HostName for the name. `alias` is the
    name under which its key is known, unless the configuration has one. Raises SshConfigError.
    """
    reader = _reader(options)
    hop, jumps = _hop(name, reader, options, address, alias)
    chain = [*_through(options.jumps or jumps, reader, options, ()), hop]
    if len(chain) > MOST_HOPS:
        raise SshConfigError(f"the way to {name} leads through more than {MOST_HOPS} hosts")
    return tuple(chain)


def _through(jumps: Sequence[str], reader: Reader, options: SshOptions, seen: tuple[str, ...]) -> Iterable[Hop]:
    """As `ssh -J a,b`: the first is reached as its own configuration says, each further one through the one before."""
    for number, jump in enumerate(jumps):
        match = _HOP.fullmatch(jump)
        if not match:
            raise SshConfigError(f"ProxyJump {jump!r} is not [USER@]HOST[:PORT]")
        host = match["host"] or match["bracketed"]
        if host in seen:
            raise SshConfigError(f"ProxyJump goes round in a circle: {' → '.join([*seen, host])}")
        said = SshOptions(
            user=match["user"], port=int(match["port"]) if match["port"] else None,
            known_hosts=options.known_hosts, environment=options.environment, home=options.home,
        )  # fmt: skip
        hop, further = _hop(host, reader, said, None, "")
        if number == 0:
            yield from _through(further, reader, options, (*seen, host))
        yield hop


def _reader(options: SshOptions) -> Reader:
    """What gives the settings of a host, and of one that no file says anything about."""
    client = shutil.which("ssh", path=_environment(options).get("PATH"))
    if client:
        defaults = _ask_openssh(client, "host", options, "none")
        return lambda host: (_ask_openssh(client, host, options, options.config), defaults)
    return lambda host: (_read_with_paramiko(host, options), {})


def _ask_openssh(client: str, host: str, options: SshOptions, config: str | None) -> Settings:
    if host.startswith("-"):
        raise SshConfigError(f"{host!r} is no name of a host")
    command = [client, "-G", *(["-F", config] if config else []), "--", host]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=ASKING, check=False, stdin=subprocess.DEVNULL, env=options.environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SshConfigError(f"ssh did not say how to reach {host}: {error}") from error
    if done.returncode:
        why = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SshConfigError(f"ssh cannot read its configuration for {host}: {why[-1] if why else done.returncode}")
    settings: Settings = {}
    for line in done.stdout.decode("utf-8", "surrogateescape").splitlines():
        key, _, value = line.partition(" ")
        settings.setdefault(key.lower(), []).append(value)
    return settings


def _read_with_paramiko(host: str, options: SshOptions) -> Settings:
    import paramiko  # noqa: PLC0415  # 0.35 s, and only where there is no OpenSSH

    home = _home(options)
    files = [Path(options.config)] if options.config else [home / ".ssh" / "config", Path("/etc/ssh/ssh_config")]
    text = "\n".join(with_includes(file, home) for file in files if options.config or file.is_file())
    try:
        found: Mapping[str, str | list[str]] = paramiko.SSHConfig.from_text(text).lookup(host)
    except (paramiko.ConfigParseError, paramiko.CouldNotCanonicalize, ImportError) as error:
        raise SshConfigError(f"the ssh configuration for {host} cannot be read: {error}") from error
    return {key.lower(): [value] if isinstance(value, str) else value for key, value in found.items()}


def with_includes(file: Path, home: Path, depth: int = 0) -> str:
    """The text of a configuration with its Include files in their places, where the text then means the same.

    A file that is included for all hosts can have Host blocks of its own: what follows it holds for all again. One that
    is included inside a block can not (OpenSSH would make both conditions count): that raises SshConfigError, as does
    what cannot be read. Relative names are of ~/.ssh (ssh_config(5), Include).
    """
    if depth > DEEPEST:
        raise SshConfigError(f"Include goes deeper than {DEEPEST} files, in {file}")
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise SshConfigError(f"{file} cannot be read: {error.strerror}") from error
    lines: list[str] = []
    for_all = True
    for line in text.splitlines():
        match = _KEYWORD.fullmatch(line)
        key = match["key"].lower() if match else ""
        if key in ("host", "match"):
            for_all = match is not None and match["value"].lower() in ("*", "all")
        if key != "include" or not match:
            lines.append(line)
            continue
        for included in _included(match["value"], home):
            inner = with_includes(included, home, depth + 1)
            blocks = re.search(r"(?im)^\s*(host|match)\b", inner)
            if blocks and not for_all:
                raise SshConfigError(
                    f"{file} includes {included}, which has Host blocks, for certain hosts only",
                    hint="install the OpenSSH client: it reads such a configuration",
                )
            lines += [inner, *(["Host *"] if blocks else [])]
    return "\n".join(lines)


def _included(value: str, home: Path) -> list[Path]:
    found: list[Path] = []
    for word in value.replace('"', "").split():
        pattern = Path(str(home) + word[1:] if word.startswith("~/") else word)
        pattern = pattern if pattern.is_absolute() else home / ".ssh" / pattern
        found += [Path(path) for path in sorted(glob.glob(str(pattern)))]  # noqa: PTH207 - an absolute pattern
    if len(found) > BROADEST:
        raise SshConfigError(f"Include {value} stands for more than {BROADEST} files")
    return found


def _hop(
    name: str, reader: Reader, options: SshOptions, address: str | None, alias: str
) -> tuple[Hop, tuple[str, ...]]:
    settings = _settings(name, reader, address)
    environment = _environment(options)
    home = str(_home(options))
    hostname = _one(settings, "hostname") or name
    user = options.user or _one(settings, "user") or environment.get("USER", "")
    port = options.port or _port(_one(settings, "port") or "22", name)
    alias = _one(settings, "hostkeyalias") or alias
    tokens = {
        "%%": "%", "%d": home, "%h": hostname, "%k": alias or name, "%n": name, "%p": str(port), "%r": user,
        "%u": environment.get("USER", ""),
    }  # fmt: skip

    def expanded(value: str) -> str:
        path = re.sub("%.", lambda match: tokens.get(match[0], match[0]), value)
        return home + path[1:] if path.startswith("~/") else path

    jumps, command = _one(settings, "proxyjump"), _one(settings, "proxycommand")
    known_hosts = (
        [options.known_hosts]
        if options.known_hosts
        else [*_words(settings, "userknownhostsfile"), *_words(settings, "globalknownhostsfile")]
    )
    hop = Hop(
        name=name,
        hostname=hostname,
        port=port,
        user=user,
        identity_files=tuple(map(expanded, options.identity_files or settings.get("identityfile", ()))),
        certificate_files=tuple(expanded(file) for file in settings.get("certificatefile", ()) if file != "none"),
        identities_only=bool(options.identity_files) or _one(settings, "identitiesonly") == "yes",
        agent=_agent(_one(settings, "identityagent"), environment, expanded),
        known_hosts=tuple(expanded(file) for file in known_hosts if file != "none"),
        host_key_alias=alias,
        hash_known_hosts=_one(settings, "hashknownhosts") == "yes",
        proxy_command="" if command == "none" else expanded(command),
    )
    return hop, () if jumps in ("", "none") else tuple(jumps.split(","))


def _settings(name: str, reader: Reader, address: str | None) -> Settings:
    """What is said of a host. Where its name leads nowhere, what is said of its address counts too, and the address.

    People write their files for names (`Host *.internal`) or for addresses (`Host 10.0.*`); DNS may be what is broken.
    """
    settings, defaults = reader(name)
    if address is None or _one(settings, "hostname") not in ("", name):
        return settings
    of_address, _ = reader(address)
    said = {key: values for key, values in settings.items() if values != defaults.get(key)}
    return of_address | said | {"hostname": [_one(of_address, "hostname") or address]}


def _agent(said: str, environment: Mapping[str, str], expanded: Callable[[str], str]) -> str:
    """IdentityAgent is a path, `none`, SSH_AUTH_SOCK, or $NAME of a variable that holds the path (ssh_config(5))."""
    match said:
        case "none":
            return ""
        case "" | "SSH_AUTH_SOCK":
            return environment.get("SSH_AUTH_SOCK", "")
        case _ if said.startswith("$"):
            return environment.get(said[1:], "")
        case _:
            return expanded(said)


def _environment(options: SshOptions) -> Mapping[str, str]:
    return os.environ if options.environment is None else options.environment


def _home(options: SshOptions) -> Path:
    return Path(options.home or _environment(options).get("HOME") or "~").expanduser()


def _one(settings: Mapping[str, Sequence[str]], key: str) -> str:
    values = settings.get(key)
    return values[0] if values else ""


def _words(settings: Mapping[str, Sequence[str]], key: str) -> list[str]:
    return [word for value in settings.get(key, ()) for word in value.split()]


def _port(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise SshConfigError(f"the ssh configuration gives {name} the port {text!r}")
    return int(text)
