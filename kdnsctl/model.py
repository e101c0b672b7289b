"""The nouns that every room shares: verdicts, outcomes, coverage, progress and errors.

This module is pure: it does no input or output and imports nothing but the standard library. It does not judge
anything; who reaches a verdict and why is the business of `find` and `diagnosis`.

Errors, all with a message for an operator and an optional hint that says what to do next:

    KdnsctlError            exit 1   an operation failed
    ├── UsageError          exit 2   the command line does not make sense
    ├── RefusedError        exit 5   a safety guard, or the operator, said no; nothing was changed
    └── CancelledError      exit 130 the operator interrupted the command
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

API_VERSION = "kdnsctl.io/v1"
"""The version of every document that is written for programs: keys may be added to it, none changes its meaning."""


class ExitCode(enum.IntEnum):
    """What the process tells its caller. 3 wins over 4; 130 is the shell's convention for SIGINT."""

    OK = 0
    FAILED = 1
    USAGE = 2
    FOUND = 3
    INCOMPLETE = 4
    REFUSED = 5
    INTERRUPTED = 130


class Verdict(enum.StrEnum):
    """What is said of one node, in the same words by every command."""

    AFFECTED = "affected"
    SUSPECT = "suspect"
    CLEAN = "clean"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "notApplicable"


class Basis(enum.StrEnum):
    """What a verdict rests on: what kube-proxy said, what the kernel holds, or both."""

    LOG = "log"
    STATE = "state"
    BOTH = "both"


class Scope(enum.StrEnum):
    """Whether the nodes looked at are all that were meant, or only those that could be listed."""

    FULL = "full"
    PARTIAL = "partial"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a node could not be judged.

    `code` is stable and short, so that nodes can be grouped by it; `message` says the particulars of this node.
    `error` is the exception behind it, if any, for --debug: it is no part of what two reasons are compared by.
    """

    code: str
    message: str
    error: BaseException | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What came of one node: a value, or the reason why there is none. Never both, never neither."""

    node: str
    value: T | None = None
    reason: Reason | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"an outcome needs either a value or a reason: {self.node}")


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of what was in scope could be judged. `in_scope` is the sum of the other three counts."""

    in_scope: int
    judged: int
    unknown: int
    not_applicable: int
    scope: Scope = Scope.FULL

    @classmethod
    def of(cls, verdicts: Iterable[Verdict], scope: Scope = Scope.FULL) -> Coverage:
        """Count verdicts, one per node in scope."""
        counted = list(verdicts)
        unknown = counted.count(Verdict.UNKNOWN)
        not_applicable = counted.count(Verdict.NOT_APPLICABLE)
        return cls(len(counted), len(counted) - unknown - not_applicable, unknown, not_applicable, scope)


class Proof(enum.StrEnum):
    """What shows that an output was not cut off."""

    NONE = "none"
    TRAILER = "trailer"  # the node wrote a last line after it, with the exit code; see `netfilter.trailer`
    COUNT_LINE = "countLine"  # `conntrack -L` on stderr: N flow entries have been shown
    COMMIT = "commit"  # every table of iptables-save ends with COMMIT
    CLOSED = "closed"  # the document's own end: `</conntrack>`, the last bracket of JSON, the length of an HTTP answer


class Privilege(enum.StrEnum):
    """What reading a fact needs in the node's network namespace, least first."""

    NONE = "none"
    ROOT = "root"  # uid 0, no capability: /proc/net/nf_conntrack is 0440
    NET_ADMIN = "netAdmin"  # netlink: iptables-nft-save, nft, conntrack
    NET_ADMIN_RAW = "netAdminRaw"  # and CAP_NET_RAW: iptables-legacy-save


class Toolset(enum.StrEnum):
    """Which programs there are where a command runs; a fact has one command for each that can yield it."""

    KUBE_PROXY = "kubeProxy"  # kube-proxy's image: a shell, cat, grep, sleep, iptables, nft; no conntrack, no timeout
    TOOLS = "tools"  # our tools image: all of that, conntrack, ipvsadm, date, nsenter
    HOST = "host"  # the node's own, over SSH or by nsenter: which there are differs from node to node


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An HTTP endpoint of a program on the node: a GET of `path` on `port` of the node's loopback address."""

    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that can be read from a node without changing it. Plain data: `facts` is the catalogue.

    `commands` are argument lists, never shell text; `privileges` has what the command of a tool set needs where that is
    not `privilege`; `endpoint` is what is asked instead where a fact is an answer over
    HTTP. `proof` says how it is known that an output is whole. `filterable`: the node may leave out lines that hold
    none of `patterns` (fixed strings); without patterns all lines come. `max_bytes` of output are taken and no more;
    `seconds` is how long the command may run on the node.
    """

    id: str
    title: str
    privilege: Privilege
    proof: Proof
    max_bytes: int
    seconds: int
    commands: Mapping[Toolset, tuple[str, ...]] = field(default_factory=dict)
    endpoint: Endpoint | None = None
    filterable: bool = False
    patterns: tuple[str, ...] = ()
    privileges: Mapping[Toolset, Privilege] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.commands) == (self.endpoint is not None):
            raise ValueError(f"a fact has either commands or an endpoint: {self.id}")
        if self.patterns and not self.filterable:
            raise ValueError(f"{self.id} may not be filtered: what is left out would be missed")

    def command(self, toolsets: Iterable[Toolset]) -> tuple[str, ...] | None:
        """The command for the first of these tool sets that can yield it; None when none can."""
        return next((self.commands[toolset] for toolset in toolsets if toolset in self.commands), None)

    def needs(self, toolset: Toolset) -> Privilege:
        """What its command for a tool set needs."""
        return self.privileges.get(toolset, self.privilege)


@dataclass(frozen=True, slots=True)
class Step:
    """One change, as plain data: another machine must be able to understand and to undo it. `changes` has the verbs.

    `args` say what is changed (`{"path": "/api/v1/nodes/knode1"}`), `uid` which object that is, for a node may be
    replaced by another of its name. `before` and `after` are values as JSON has them, None for one that is absent: a
    step is only taken where the value is `before`, and only undone where it still is `after`. `precondition` is what
    else must hold, in the verb's own words.
    """

    verb: str
    args: Mapping[str, Any]
    uid: str = ""
    before: Any = None
    after: Any = None
    precondition: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The step as a journal, a plan and a node's record hold it."""
        return {
            "verb": self.verb,
            "args": dict(self.args),
            "uid": self.uid,
            "precondition": dict(self.precondition),
            "before": self.before,
            "after": self.after,
        }

    @classmethod
    def from_json(cls, data: Any) -> Step:
        """What `to_json` gave. Raises ValueError for anything else: what it is read from may be damaged or forged."""
        if not isinstance(data, Mapping):
            raise ValueError("a step is an object")  # noqa: TRY004  # its content is wrong, not the call
        verb, args, uid = data.get("verb"), data.get("args"), data.get("uid", "")
        precondition = data.get("precondition", {})
        if not (isinstance(verb, str) and isinstance(uid, str)):
            raise ValueError("a step has a verb and a uid, both text")  # noqa: TRY004
        if not (isinstance(args, Mapping) and isinstance(precondition, Mapping)):
            raise ValueError("the args and the precondition of a step are objects")  # noqa: TRY004
        return cls(verb, dict(args), uid, data.get("before"), data.get("after"), dict(precondition))


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A step that runs on a node, as a rung carries it out: made from the step by its verb, as a `Fact` is for reading.

    `commands` are argument lists, never shell text. `privilege` is what the command needs there; `max_bytes` of its
    output are taken and no more; `seconds` is how long it may run on the node.
    """

    step: Step
    privilege: Privilege
    max_bytes: int
    seconds: int
    commands: Mapping[Toolset, tuple[str, ...]]


def exit_code_of(verdicts: Iterable[Verdict], coverage: Coverage) -> ExitCode:
    """The exit code of a command that looked at nodes: found (3) wins over incomplete (4), else all is well (0)."""
    if any(verdict in (Verdict.AFFECTED, Verdict.SUSPECT) for verdict in verdicts):
        return ExitCode.FOUND
    if coverage.unknown or coverage.scope is Scope.PARTIAL:
        return ExitCode.INCOMPLETE
    return ExitCode.OK


class Reporter(Protocol):
    """Where long work says how far it is. Implementations write to stderr or nowhere; the work never prints."""

    def started(self, what: str, total: int | None) -> None:
        """Work of `total` units (None: unknown) begins; `what` names it for a person."""

    def advanced(self, done: int, total: int | None = None) -> None:
        """`done` units in all are finished now; `total` is given again when it has become known."""

    def noted(self, message: str) -> None:
        """Something the operator should read now, in one line."""

    def finished(self) -> None:
        """The work that `started` announced is over, well or badly."""


class SilentReporter:
    """A Reporter that says nothing."""

    def started(self, what: str, total: int | None) -> None:
        pass

    def advanced(self, done: int, total: int | None = None) -> None:
        pass

    def noted(self, message: str) -> None:
        pass

    def finished(self) -> None:
        pass


class KdnsctlError(Exception):
    """An operation failed. `str(error)` says what failed and where; `hint` what to do next.

    `code` names the kind of failure as `Reason.code` does, when the error becomes the reason of one node's outcome.
    """

    exit_code = ExitCode.FAILED
    code = "failed"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if code is not None:
            self.code = code


class UsageError(KdnsctlError):
    """The command line, or what it names, does not make sense. Nothing was done."""

    exit_code = ExitCode.USAGE
    code = "usage"


class RefusedError(KdnsctlError):
    """A safety guard or the operator said no. Nothing was changed."""

    exit_code = ExitCode.REFUSED
    code = "refused"


class CancelledError(KdnsctlError):
    """The operator interrupted the command; the message says where things were left."""

    exit_code = ExitCode.INTERRUPTED
    code = "cancelled"
