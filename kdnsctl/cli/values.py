"""Words into values: the parsers of option values, each with a message that says what is accepted.

Each takes the word as typed and returns the value or raises `typer.BadParameter`; typer adds the option's name. What
the values mean is the commands' business.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from datetime import UTC, datetime, timedelta

import typer

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}  # seconds
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[dhms])+", re.ASCII)
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([dhms])", re.ASCII)
# RFC 1123 subdomain, at most 253 characters: what the API server accepts as the name of a Node.
_NODE = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_SERVICE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?/[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_KUBE_PROXY = re.compile(r"v?(1\.[0-9]{1,2}(?:\.[0-9]+)?)(?:[-+][0-9A-Za-z.+-]+)?", re.ASCII)
FIRST_YEAR, LAST_YEAR = 2014, 2100  # Kubernetes was published in 2014


def duration(word: str) -> timedelta:
    """A length of time as kubectl writes it: 90s, 10m, 24h, 1h30m, and 2d. Never a bare number."""
    accepted = "write it like 90s, 10m, 24h, 1h30m or 2d"
    if not word:
        raise typer.BadParameter(f"empty; {accepted}")
    if re.fullmatch(r"[0-9.]+", word):
        raise typer.BadParameter(f"'{word}' has no unit; {accepted}")
    weeks = re.fullmatch(r"([0-9]{1,4})w", word, re.ASCII)
    if weeks:
        raise typer.BadParameter(f"'{word}': weeks are written as days, {7 * int(weeks[1])}d")
    if not _DURATION.fullmatch(word):
        raise typer.BadParameter(f"'{word}' is not a duration; {accepted}")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(word))
    if seconds == 0:
        raise typer.BadParameter(f"'{word}' is no time at all; {accepted}")
    if seconds > timedelta(days=36500).total_seconds():
        raise typer.BadParameter(f"'{word}' is more than a hundred years")
    return timedelta(seconds=seconds)


def moment(word: str) -> datetime:
    """A moment in RFC 3339, with its zone, as UTC."""
    accepted = "write it like 2026-11-23T03:00:00Z or 2026-11-23T04:00:00+01:00"
    if not word:
        raise typer.BadParameter(f"empty; {accepted}")
    try:
        read = datetime.fromisoformat(word)
        if "T" not in word.upper() and " " not in word:
            raise typer.BadParameter(f"'{word}' is a day; say the time too, like {read:%Y-%m-%d}T00:00:00Z")
        if read.tzinfo is None:
            raise typer.BadParameter(f"'{word}' has no time zone; {accepted}")
        return read.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"'{word}' is not a time; {accepted}") from None


def year(word: str) -> int:
    """A calendar year that a kube-proxy log can be from."""
    if not re.fullmatch(r"[0-9]{4}", word, re.ASCII) or not FIRST_YEAR <= int(word) <= LAST_YEAR:
        raise typer.BadParameter(f"'{word}' is not a year; write it like 2026")
    return int(word)


def is_node_name(word: str) -> bool:
    """Whether the API server would accept `word` as the name of a Node."""
    return _NODE.fullmatch(word) is not None


def node(word: str) -> str:
    """The name of a node, as NAME or node/NAME."""
    name = word.removeprefix("node/")
    if not is_node_name(name):
        shown = f"'{word}' is not a node name" if word else "empty"
        raise typer.BadParameter(f"{shown}; write it like ip-10-0-0-1 or node/ip-10-0-0-1")
    return name


def namespace(word: str) -> str:
    """The name of a namespace: an RFC 1123 label."""
    if not re.fullmatch(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?", word, re.ASCII):
        shown = f"'{word}' is not the name of a namespace" if word else "empty"
        raise typer.BadParameter(f"{shown}; write it like kube-system")
    return word


def service(word: str) -> str:
    """A Service as NAMESPACE/NAME."""
    if not _SERVICE.fullmatch(word):
        shown = f"'{word}' is not a Service" if word else "empty"
        raise typer.BadParameter(f"{shown}; write it as NAMESPACE/NAME, like kube-system/kube-dns")
    return word


def kube_proxy_version(word: str) -> str:
    """A release of kube-proxy, as "v1.30" or "v1.30.3"; what a vendor adds after it is dropped."""
    match = _KUBE_PROXY.fullmatch(word)
    if match is None:
        shown = f"'{word}' is not a kube-proxy version" if word else "empty"
        raise typer.BadParameter(f"{shown}; write it like v1.30 or v1.30.3")
    return "v" + match[1]


def subject(word: str) -> str:
    """Whom a role is bound to, checked: user:NAME, group:NAME or serviceaccount:NAMESPACE:NAME."""
    subject_of(word)
    return word


def subject_of(word: str) -> dict[str, str]:
    """The same as a subject of a RoleBinding, without its apiGroup."""
    kind, _, name = word.partition(":")
    if kind == "serviceaccount":
        namespace, _, account = name.partition(":")
        if is_node_name(namespace) and is_node_name(account):
            return {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    elif kind in ("user", "group") and name.strip():
        return {"kind": kind.capitalize(), "name": name}
    shown = f"'{word}' is nobody" if word else "empty"
    raise typer.BadParameter(f"{shown}; write it like user:jane, group:on-call or serviceaccount:ops:kdnsctl")


def path(word: str) -> str:
    """The path of a log, or - for stdin."""
    if not word:
        raise typer.BadParameter("empty; give a file, a directory, or - for stdin")
    return word


def host_address(word: str) -> str:
    """HOST=IP, checked."""
    host, _, address = word.partition("=")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        host = ""
    if not host:
        raise typer.BadParameter(f"'{word}' is not HOST=IP; write it like api.example.com=192.0.2.10")
    return word


def signature(word: str) -> str:
    """The id of a signature in the catalogue, in any case."""
    ids = [identity for identity, _ in signature_ids()]
    if word.upper() in ids:
        return word.upper()
    close = difflib.get_close_matches(word.upper(), ids, n=1)
    guess = f"; did you mean '{close[0]}'?" if close else ""
    title = dict(_checks()).get(word.upper())
    if title:
        raise typer.BadParameter(
            f"'{word}' is a finding of analyze ({title}), not a message in a log ('kdnsctl signatures' lists those)"
        )
    shown = f"no signature '{word}'" if word else "empty"
    raise typer.BadParameter(f"{shown}{guess} ('kdnsctl signatures' lists them)")


def _checks() -> list[tuple[str, str]]:
    from kdnsctl.diagnosis.catalogue import CHECKS  # noqa: PLC0415  # only when no signature has this name

    return [(check.id, check.title) for check in CHECKS]


def signature_ids() -> list[tuple[str, str]]:
    """Every signature's id with its summary, for checking and for TAB."""
    from kdnsctl.logs.signatures import CATALOGUE  # noqa: PLC0415  # only when a signature is named

    return [(entry.id, entry.summary) for entry in CATALOGUE]


def complete_signature(incomplete: str) -> list[tuple[str, str]]:
    """What TAB offers for a signature."""
    return [(identity, summary) for identity, summary in signature_ids() if identity.startswith(incomplete)]
