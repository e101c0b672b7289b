"""One artefact of a bundle as a record: what it is, how it was read, and whether it is whole.

Records are what the bundle's journal and manifest hold, as JSON. Nothing is read or written here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self
from urllib.parse import unquote_to_bytes

from kdnsctl.model import KdnsctlError, Reason

CLUSTER: Final = ""  # stands for the cluster where a node could stand
_SAFE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Artefact:
    """One file of evidence.

    `path` is relative to the bundle, with slashes. `size` and `sha256` are of the content, `stored_size` and
    `stored_sha256` of the file, which may be compressed; where a write failed, there is more of the content than of the
    file. `problem` is why it is not all there was, None when it is known to be whole; `proof` says how that is known.
    `via` is the way it was read (a rung of the ladder), `command` what was run or asked, `exit_code` None where nothing
    was run. `errors` is the file with what came on stderr, "" when nothing did. `capture` counts the times that
    evidence was collected into the bundle, from 1.
    """

    node: str
    item: str
    capture: int
    path: str
    size: int
    sha256: str
    stored_size: int
    stored_sha256: str
    started: datetime
    ended: datetime
    via: str
    command: tuple[str, ...] = ()
    exit_code: int | None = None
    errors: str = ""
    proof: str = ""
    problem: Reason | None = None

    @property
    def complete(self) -> bool:
        """Whether what is not in it was not there."""
        return self.problem is None

    def to_json(self) -> dict[str, Any]:
        """As the journal and the manifest hold it."""
        return {
            "node": self.node,
            "item": self.item,
            "capture": self.capture,
            "path": self.path,
            "size": self.size,
            "sha256": self.sha256,
            "storedSize": self.stored_size,
            "storedSha256": self.stored_sha256,
            "started": self.started.isoformat(),
            "ended": self.ended.isoformat(),
            "via": self.via,
            "command": list(self.command),
            "exitCode": self.exit_code,
            "errors": self.errors,
            "proof": self.proof,
            "complete": self.complete,
            "problem": self.problem and {"code": self.problem.code, "message": self.problem.message},
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """The record that `to_json` wrote. Raises KdnsctlError for anything else: a bundle can come from anybody."""
        try:
            problem = said["problem"]
            artefact = cls(
                node=_text(said["node"]),
                item=_text(said["item"]),
                capture=_count(said["capture"]),
                path=checked_path(_text(said["path"])),
                size=_count(said["size"]),
                sha256=_digest(said["sha256"]),
                stored_size=_count(said["storedSize"]),
                stored_sha256=_digest(said["storedSha256"]),
                started=_moment(said["started"]),
                ended=_moment(said["ended"]),
                via=_text(said["via"]),
                command=tuple(_text(word) for word in said["command"]),
                exit_code=None if said["exitCode"] is None else int(said["exitCode"]),
                errors=checked_path(_text(said["errors"])) if said["errors"] else "",
                proof=_text(said["proof"]),
                problem=None if problem is None else Reason(_text(problem["code"]), _text(problem["message"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise KdnsctlError(f"not the record of an artefact: {error}", code="bundleBroken") from error
        if artefact.complete != said.get("complete"):
            raise KdnsctlError(f"{artefact.path} is called complete and has a problem, or neither", code="bundleBroken")
        return artefact


def safe_name(name: str) -> str:
    """`name` as one part of a path on any system: letters, digits, dot, dash, underscore; the rest as %XX of UTF-8.

    Two different names never become the same, so a hostile one cannot take another's place.
    """
    if _SAFE.fullmatch(name) and "%" not in name:
        return name
    escaped = "".join(
        chr(byte)
        if chr(byte).isascii() and (chr(byte).isalnum() or (chr(byte) in "._-" and position))
        else f"%{byte:02X}"
        for position, byte in enumerate(name.encode("utf-8", "surrogateescape"))
    )
    if not escaped or len(escaped) > 128:
        raise ValueError(f"not usable as a name of a file: {name[:40]!r}")
    return escaped


def unsafe_name(part: str) -> str:
    """The name that `safe_name` made `part` of."""
    return unquote_to_bytes(part).decode("utf-8", "surrogateescape")


def checked_path(path: str) -> str:
    """`path` if it leads to a file inside the bundle, on every system; else ValueError."""
    parts = path.split("/")
    if not path or len(path) > 1024 or any(not _PART.fullmatch(part) for part in parts):
        raise ValueError(f"not a path inside a bundle: {path[:80]!r}")
    return path


_PART: Final = re.compile(r"[A-Za-z0-9_%-][A-Za-z0-9._%-]{0,140}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text is expected, not {type(value).__name__}")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"a count is expected, not {value!r}")
    return value


def _digest(value: Any) -> str:
    if not _SHA256.fullmatch(_text(value)):
        raise ValueError(f"a SHA-256 is expected, not {value!r}")
    return str(value)


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError(f"a time with its zone is expected, not {value!r}")
    return moment
