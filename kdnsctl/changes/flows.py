"""The verb that deletes conntrack entries on a node: all that have one key, and no others.

The key names the reply source, which does not serve; so a flow that has healed cannot match. Which keys are stale, and
that the rules would not make such entries again, is judged by the rooms above. There is no way back: an entry that is
deleted is made anew by its flow's next packet, by the rules as they are then.

What was deleted is journaled while it comes: `flows`, of each entry its original source address and port.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any, Final

from kdnsctl.changes.verbs import Effect, Means, Verb
from kdnsctl.model import KdnsctlError, NodeChange, Privilege, Step, Toolset
from kdnsctl.netfilter import deletion
from kdnsctl.netfilter.conntrack import ConntrackReader
from kdnsctl.netfilter.entries import Entry, Key
from kdnsctl.reach.shell import Reading

DELETE: Final = "conntrack.delete"
SECONDS: Final = 120  # for one walk over a table of a million entries, and deleting many of them
MOST_BYTES: Final = 1 << 30  # as of the table itself
PART: Final = 1000  # entries in one record of the journal
_ARGUMENTS: Final = frozenset({"node", "protocol", "destination", "port", "replySource", "replyPort"})


def step_of(node: str, uid: str, key: Key, count: int) -> Step:
    """The step that deletes the entries of `key` on a node; `count` is how many there are now."""
    args = {
        "node": node,
        "protocol": key.protocol,
        "destination": key.destination,
        "port": key.destination_port,
        "replySource": key.reply_source,
        "replyPort": key.reply_source_port,
    }
    return Step(DELETE, args, uid, before=count, after=0)


def key_of(step: Step) -> Key:
    """The key whose entries a step deletes."""
    args = step.args
    return Key(args["protocol"], args["destination"], args["port"], args["replySource"], args["replyPort"])


class _Deletion:
    """The verb `conntrack.delete`."""

    def check(self, step: Step) -> None:
        args = step.args
        if set(args) != _ARGUMENTS or not isinstance(args["node"], str) or not args["node"]:
            raise ValueError(f"its arguments are {', '.join(sorted(_ARGUMENTS))}")
        if args["protocol"] not in ("udp", "tcp"):
            raise ValueError(f"it is about {args['protocol']!r}, which is neither udp nor tcp")
        versions = {ipaddress.ip_address(_text(args[name])).version for name in ("destination", "replySource")}
        if len(versions) != 1:
            raise ValueError("its addresses are of two families")
        for name in ("port", "replyPort"):
            if type(args[name]) is not int or not 0 < args[name] < 1 << 16:
                raise ValueError(f"its {name} is {args[name]!r}")

    def says(self, step: Step) -> str:
        key = key_of(step)
        entries = "entry" if step.before == 1 else "entries"
        return (
            f"delete {step.before} {key.protocol.upper()} {entries} from {_endpoint(key.destination)}"
            f":{key.destination_port} to {_endpoint(key.reply_source)}:{key.reply_source_port} on {step.args['node']}"
        )

    def inverse(self, step: Step) -> None:  # noqa: ARG002
        """None: the next packet of a flow makes its entry again."""
        return

    def apply(self, step: Step, means: Means) -> Effect:
        if means.dry_run:
            return Effect(changed=False)
        if means.shell is None:
            raise KdnsctlError(f"there is no way to {step.args['node']} for this step", code="noWay")
        shell = means.shell(step.args["node"])
        command = deletion.command(key_of(step))
        change = NodeChange(step, Privilege.NET_ADMIN, MOST_BYTES, SECONDS, dict.fromkeys(Toolset, command))
        deleted = _Deleted(means.note)
        try:
            reading = shell.change(change, deleted.feed, scope=means.scope)
        finally:
            deleted.finish()
        return _effect(step, reading, deleted.count)


class _Deleted:
    """Takes what `conntrack -D` prints, and journals it in parts."""

    def __init__(self, note: Callable[[Mapping[str, Any]], object]) -> None:
        self.count = 0
        self._note = note
        self._reader = ConntrackReader()
        self._part: list[list[Any]] = []

    def feed(self, block: bytes) -> None:
        for entry in self._reader.feed(block):
            self._take(entry)

    def finish(self) -> None:
        for entry in self._reader.finish().last:
            self._take(entry)
        self._write()

    def _take(self, entry: Entry) -> None:
        self.count += 1
        self._part.append([entry.original.source, entry.original.source_port])
        if len(self._part) >= PART:
            self._write()

    def _write(self) -> None:
        part, self._part = self._part, []
        if part:
            self._note({"flows": part})


def _effect(step: Step, reading: Reading, count: int) -> Effect:
    """What came of it. Raises KdnsctlError when that is not known, or conntrack could not do it."""
    said = deletion.said(reading.stderr)
    details = {"deleted": max(count, said.count or 0), "via": reading.rung, "aborted": said.aborted}
    done = reading.exit_code == 0 and reading.complete
    if done or (reading.exit_code == 1 and (said.count == 0 or said.aborted)):
        return Effect(changed=bool(details["deleted"]), details=details)
    why = said.problem or (reading.problem.message if reading.problem else "it is not known how it ended")
    some = f"{count} were deleted before" if count else "none is known to be deleted"
    code = reading.problem.code if reading.problem else "failed"
    raise KdnsctlError(f"entries on {step.args['node']} could not be deleted: {why} ({some})", code=code)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no address")  # noqa: TRY004  # its content is wrong, not the call
    return value


def _endpoint(address: str) -> str:
    return f"[{address}]" if ":" in address else address


FLOW_VERBS: Final[Mapping[str, Verb]] = {DELETE: _Deletion()}
