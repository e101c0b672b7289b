"""OpenSSH's known_hosts files: which host keys are known for a host, which are revoked, and whose certificates count.

Pure, and our own because paramiko (5.1) refuses a whole file for one `@cert-authority` line. The format: sshd(8),
"SSH_KNOWN_HOSTS FILE FORMAT". Names are compared in lower case, as OpenSSH does; a host on another port than 22 is
known as `[HOST]:PORT`; hashed names are HMAC-SHA-1 with the salt beside them.

Lines that cannot be read are left out and counted: they never make a key known.
"""

from __future__ import annotations

import base64
import binascii
import enum
import fnmatch
import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

DEFAULT_PORT: Final = 22
_HASHED: Final = re.compile(r"\|1\|([A-Za-z0-9+/=]+)\|([A-Za-z0-9+/=]+)")


class Marker(enum.StrEnum):
    """What a line says of its key, besides that it is the host's."""

    NONE = ""
    AUTHORITY = "@cert-authority"
    REVOKED = "@revoked"


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public key: its algorithm's name, and the key as it goes over the wire."""

    algorithm: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return f"SHA256:{digest}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file: for which names it stands, and which key."""

    marker: Marker
    names: tuple[str, ...]
    key: HostKey


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one host. A key in `revoked` must not be accepted, whatever else is known."""

    keys: frozenset[HostKey]
    authorities: frozenset[HostKey]
    revoked: frozenset[HostKey]


class Answer(enum.Enum):
    """Whether a key that a host shows is its own."""

    KNOWN = "the host's key is the known one"
    UNKNOWN = "nothing is known of the host"
    CHANGED = "another key is known of the host"
    REVOKED = "the key was revoked"
    NEEDS_CERTIFICATE = "the host is known by a certificate authority only"


def parse(text: str) -> tuple[list[Line], int]:
    """The lines of a file, in order, and how many could not be read."""
    lines: list[Line] = []
    unreadable = 0
    for raw in text.splitlines():
        words = raw.split()
        if not words or words[0].startswith("#"):
            continue
        marker = Marker.NONE
        if words[0].startswith("@"):
            try:
                marker = Marker(words.pop(0))
            except ValueError:
                unreadable += 1
                continue
        key = _key(words[1], words[2]) if len(words) >= 3 else None
        if key is None:
            unreadable += 1
            continue
        lines.append(Line(marker, tuple(words[0].split(",")), key))
    return lines, unreadable


def name_of(host: str, port: int, alias: str = "") -> str:
    """What a host is called in these files: its HostKeyAlias as it is, else its name or address and its port."""
    if alias:
        return alias.lower()
    return host.lower() if port == DEFAULT_PORT else f"[{host.lower()}]:{port}"


def known_of(lines: Iterable[Line], name: str) -> Known:
    """Everything that is known of the host that is called `name` (see `name_of`)."""
    found: dict[Marker, set[HostKey]] = {marker: set() for marker in Marker}
    for line in lines:
        if _stands_for(line.names, name):
            found[line.marker].add(line.key)
    return Known(*(frozenset(found[marker]) for marker in (Marker.NONE, Marker.AUTHORITY, Marker.REVOKED)))


def judge(known: Known, shown: HostKey) -> Answer:
    """Whether the plain key that a host shows is one that is known of it."""
    if shown in known.revoked:
        return Answer.REVOKED
    if shown in known.keys:
        return Answer.KNOWN
    if known.keys:
        return Answer.CHANGED
    return Answer.NEEDS_CERTIFICATE if known.authorities else Answer.UNKNOWN


def line_for(name: str, key: HostKey, *, hashed: bool) -> str:
    """The line, with its newline, that makes a key known for a host. `hashed` as with OpenSSH's HashKnownHosts."""
    if hashed:
        salt = os.urandom(20)
        name = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(_digest(salt, name)).decode()}"
    return f"{name} {key.algorithm} {base64.b64encode(key.blob).decode()}\n"


def _key(algorithm: str, encoded: str) -> HostKey | None:
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return None
    # The wire form names the algorithm itself (RFC 4253, 6.6): a line that says another was damaged.
    name = algorithm.encode("ascii", "replace")
    return HostKey(algorithm, blob) if blob.startswith(len(name).to_bytes(4, "big") + name) else None


def _stands_for(patterns: Iterable[str], name: str) -> bool:
    """A name that any negated pattern matches is not meant, wherever that stands (ssh_config(5), PATTERNS)."""
    matches = False
    for pattern in patterns:
        if pattern.startswith("!"):
            if _like(pattern[1:], name):
                return False
        elif pattern.startswith("|"):
            matches = matches or _is_hash_of(pattern, name)
        else:
            matches = matches or _like(pattern, name)
    return matches


def _like(pattern: str, name: str) -> bool:
    """`*` and `?` are wildcards; brackets are not, they belong to `[HOST]:PORT`."""
    return fnmatch.fnmatchcase(name, pattern.lower().replace("[", "[[]"))


def _is_hash_of(pattern: str, name: str) -> bool:
    match = _HASHED.fullmatch(pattern)
    if not match:
        return False
    try:
        salt, digest = base64.b64decode(match[1], validate=True), base64.b64decode(match[2], validate=True)
    except binascii.Error:
        return False
    return hmac.compare_digest(_digest(salt, name), digest)


def _digest(salt: bytes, name: str) -> bytes:
    return hmac.digest(salt, name.encode(), "sha1")
