"""A node's side of a bundle: item after item, each by the first rung that yields it, each with its proof.

What cannot be read is recorded with the reason and does not end the rest. What kube-proxy tells over HTTP, and its
logs, come through the API whichever way the node is reached. Nothing is judged here.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster import logs
from kdnsctl.cluster.kubeproxy import PodPlace
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence.artefactfile import ArtefactFile, BundleWriteError, Source
from kdnsctl.evidence.bundle import Bundle
from kdnsctl.evidence.items import HAVE_TEXT, MODE, Item
from kdnsctl.evidence.resuming import Gap
from kdnsctl.model import Endpoint, Fact, KdnsctlError, Proof, Reason
from kdnsctl.netfilter.kubeproxy import parse_proxy_mode
from kdnsctl.netfilter.rules import Mode
from kdnsctl.netfilter.trailer import MARKER
from kdnsctl.reach.shell import NodeShell, Reading
from kdnsctl.reach.sshshell import OPENSSH, SSH

API: Final = "api"
MOST_LOG: Final = 512 << 20  # bytes of one log; a kubelet keeps 10 MiB of each file by default
LATE: Final = "deadline"
LOST: Final = frozenset({"cutOff", "noTrailer", "sshUnreachable", LATE})
"""What an output broke off with where the connection may be what is broken; a new one then serves the next item."""
MOST_TIMES_LATE: Final = 2  # commands that may get no answer in time before the node is given up: each is waited for
FAILED: Final = "commandFailed"  # where it ran: another way may have the program, the file or the privilege
HTTP_STATUS: Final = "httpStatus"  # an unhealthy kube-proxy answers 503: that is the evidence, not a gap in it
# Why an item that is only extra is not there on a node: no file, no program, no permission, no such answer.
LACKING: Final = frozenset({"noTool", "commandFailed", "sudo", HTTP_STATUS})


@dataclass(slots=True)
class NodeSide:
    """What came of one node: how many items are whole, and what is missing. `via` are the rungs that reached it.

    `own` tells whether anything came from the node itself, whole or not: what the API serves is not the node.
    `lacking` are extra items that the node does not have, or not for these rungs. `why_no_mode` tells why the mode of
    kube-proxy is not known, "" when it is, or when it was not asked for.
    """

    via: str = ""
    own: bool = False
    whole: int = 0
    gaps: list[Gap] = field(default_factory=list)
    lacking: list[Gap] = field(default_factory=list)
    why_no_mode: str = ""


@dataclass(frozen=True, slots=True)
class Way:
    """A rung that may reach a node: `open` gives its shell, or raises KdnsctlError.

    `can` tells beforehand whether a fact is worth opening it for.
    """

    rung: str
    open: Callable[[CancelScope], NodeShell]
    can: Callable[[Fact], bool] = lambda _: True


class NodeCollector:
    """Collects one node. `place` is its kube-proxy's pod, None without; `close` ends what a way has opened."""

    def __init__(
        self,
        bundle: Bundle,
        connection: Connection,
        node: str,
        place: PodPlace | None,
        ways: Sequence[Way],
        forward: NodeShell | None,
        *,
        seconds: int | None = None,
    ) -> None:
        self._bundle = bundle
        self._connection = connection
        self._node = node
        self._place = place
        self._ways = list(ways)
        self._forward = forward
        self._seconds = seconds
        self._opened: dict[str, NodeShell | KdnsctlError] = {}
        self._late = 0
        self._mode: Mode | None = None
        self._begun: set[str] = set()  # items of which at least a part came
        self._side = NodeSide()

    def collect(self, items: Iterable[Item], scope: CancelScope) -> NodeSide:
        """Collect what this capture does not have whole. Raises BundleWriteError without room, what ends the scope."""
        chosen = list(items)
        for item in chosen:
            scope.check()
            if not self._wanted(item):
                continue
            if self._bundle.has(self._node, item.id):
                self._side.whole += 1
                continue
            try:
                problem = self._read(item, scope) if item.fact else self._log(item, scope)
            except BundleWriteError:
                raise
            except KdnsctlError as error:
                scope.check()
                problem = Reason(error.code, str(error))
                self._missing(item, problem)
            if problem is None:
                self._side.whole += 1
            elif item.extra and problem.code in LACKING:
                self._side.lacking.append(Gap(item.id, problem))
            elif not self._optional(item):
                self._side.gaps.append(Gap(item.id, problem))
            if item is MODE and self._mode is None:
                self._side.why_no_mode = problem.message if problem else "its answer names no mode that is known"
        if self._place is None and self._side.via and any(item.modes for item in chosen):
            self._side.why_no_mode = "no kube-proxy pod can be asked"
        self._side.gaps = [gap for gap in self._side.gaps if not self._made_up_for(gap, chosen)]
        return self._side

    def _made_up_for(self, gap: Gap, items: Iterable[Item]) -> bool:
        """Whether all that may stand in an item's place is there."""
        others = [item.id for item in items if item.instead == gap.item]
        return bool(others) and all(self._bundle.has(self._node, other) for other in others)

    def _wanted(self, item: Item) -> bool:
        if item.modes and self._mode not in (item.modes if item.known else {*item.modes, None}):
            return False
        if item.instead and (not self._side.via or self._bundle.has(self._node, item.instead)):
            return False
        if item.never_beside and item.instead in self._begun:
            return False
        if self._place is None and (item.fact is None or item.fact.endpoint is not None):
            return False  # there is no pod of kube-proxy: nothing to ask
        if item.previous:
            return self._place is not None and self._place.restarts > 0
        return True

    def _optional(self, item: Item) -> bool:
        """Whether its absence is no gap: rules of a mode that kube-proxy may not run in, and what only stands in."""
        return bool(item.instead) or (bool(item.modes) and self._mode is None)

    def _read(self, item: Item, scope: CancelScope) -> Reason | None:
        fact = item.fact
        if fact is None:
            raise ValueError(f"{item.id} is no fact")
        if self._seconds is not None:
            fact = dataclasses.replace(fact, seconds=self._seconds)
        kept = bytearray()
        if fact.endpoint is not None:
            if self._forward is None:
                raise KdnsctlError("kube-proxy's pod does not run: it cannot be asked", code="notRunning")
            problem = self._read_by(self._forward, item, fact, scope, kept)
        else:
            problem = self._read_by_the_first(item, fact, scope, kept)
        if item is MODE and problem is None:
            self._mode = parse_proxy_mode(bytes(kept))
        return problem

    def _read_by_the_first(self, item: Item, fact: Fact, scope: CancelScope, kept: bytearray) -> Reason | None:
        """Read it by the first way that yields it. Raises why none does, once for each that was tried.

        For an extra no way is opened that nothing else needs: no pod is made for it, and no login.
        """
        failed: list[Reason] = []
        ways = [way for way in self._ways if way.can(fact)]
        if item.extra:
            opened = {rung for rung, shell in self._opened.items() if not isinstance(shell, KdnsctlError)}
            ways = [way for way in ways if way.rung in opened] if opened else ways
            if not ways:
                raise KdnsctlError(f"{fact.title} cannot be read by {self._side.via}: no tool for it", code="noTool")
        for way in ways:
            try:
                problem = self._read_over(way, item, fact, scope, kept)
            except BundleWriteError:
                raise
            except KdnsctlError as error:
                scope.check()
                problem = Reason(error.code, str(error))
            else:
                if problem is None or problem.code != FAILED or self._fails_elsewhere(item):
                    return problem
            failed.append(problem)
        why = "; ".join(dict.fromkeys(one.message for one in failed)) or "there is no way to it"
        raise KdnsctlError(why, code=failed[-1].code if failed else "noWay")

    def _read_over(self, way: Way, item: Item, fact: Fact, scope: CancelScope, kept: bytearray) -> Reason | None:
        """Read it by one way; anew, if it could not even be begun because the connection had been lost before."""
        was_open = way.rung in self._opened
        try:
            return self._read_once(way, item, fact, scope, kept)
        except BundleWriteError:
            raise
        except KdnsctlError as error:
            if not was_open or way.rung in self._opened or error.code == LATE:
                raise
            scope.check()
            return self._read_once(way, item, fact, scope, kept)

    def _read_once(self, way: Way, item: Item, fact: Fact, scope: CancelScope, kept: bytearray) -> Reason | None:
        shell = self._shell(way, scope)
        try:
            problem = self._read_by(shell, item, fact, scope, kept)
        except BundleWriteError:
            raise
        except KdnsctlError as error:
            self._maybe_lost(way, error.code)
            raise
        if problem is not None:
            self._maybe_lost(way, problem.code)
        return problem

    def _maybe_lost(self, way: Way, code: str) -> None:
        """Let go of a connection that may be what broke, and of the way when that has cost all patience."""
        if way.rung not in (SSH, OPENSSH) or code not in LOST:
            return
        del self._opened[way.rung]
        self._late += code == LATE
        if self._late >= MOST_TIMES_LATE:
            why = f"{self._late} commands before it got no answer in time; no further one was tried"
            self._opened[way.rung] = KdnsctlError(why, code=code)

    def _fails_elsewhere(self, item: Item) -> bool:
        """Whether a command's failure tells of the node: the rules are not there, or its nft cannot write JSON."""
        return self._optional(item) or item.id in HAVE_TEXT

    def _shell(self, way: Way, scope: CancelScope) -> NodeShell:
        """The shell of a way, opened once. Raises why it does not open, each time again."""
        known = self._opened.get(way.rung)
        if known is None:
            try:
                known = way.open(scope)
            except KdnsctlError as error:
                scope.check()
                known = error
            else:
                vias = self._side.via.split(", ") if self._side.via else []
                self._side.via = ", ".join(dict.fromkeys([*vias, known.rung]))
            self._opened[way.rung] = known
        if isinstance(known, KdnsctlError):
            raise known
        return known

    def _read_by(self, shell: NodeShell, item: Item, fact: Fact, scope: CancelScope, kept: bytearray) -> Reason | None:
        if not shell.can(fact):
            raise KdnsctlError(f"{fact.title} cannot be read by {shell.rung}: no tool for it", code="noTool")
        file = self._bundle.begin(
            self._node, item.id, item.name, Source(shell.rung, _words(shell, fact)), compress=item.compress
        )

        def sink(piece: bytes) -> None:
            self._begun.add(item.id)
            file.write(piece)
            if item is MODE:
                kept.extend(piece)

        try:
            reading = shell.read(fact, sink, scope=scope)
        except BaseException as error:
            _close_broken(file, error)
            raise
        self._side.own |= fact.endpoint is None and reading.received > 0
        if item.sealed:
            _seal(file, reading)
        problem = reading.problem
        if problem is not None:
            problem = _with_complaint(problem, reading)
        if problem is not None and problem.code == HTTP_STATUS and not item.extra:
            problem = None
        artefact = file.close(
            exit_code=reading.exit_code,
            errors=reading.stderr,
            proof=reading.completeness.proof.value,
            problem=None if problem is None else Reason(problem.code, problem.message),
            times=(reading.started, reading.ended),
        )
        return artefact.problem

    def _log(self, item: Item, scope: CancelScope) -> Reason | None:
        if self._place is None:
            raise ValueError("there is no pod whose log it is")
        place = self._place
        request = logs.LogRequest(
            place.namespace, place.pod, place.container, previous=item.previous, limit_bytes=MOST_LOG
        )
        try:
            with logs.open_log(self._connection, request, scope=scope) as log:
                file = self._bundle.begin(
                    self._node, item.id, item.name, Source(API, ("logs", place.pod)), compress=item.compress
                )
                try:
                    for piece in log:
                        file.write(piece)
                except BaseException as error:
                    _close_broken(file, error)
                    raise
                limited = Reason("tooLong", f"it is longer than {MOST_LOG} bytes; the rest was not read")
                return file.close(proof=Proof.CLOSED.value, problem=limited if log.limited else None).problem
        except logs.NoPreviousLogError:
            return None

    def _missing(self, item: Item, why: Reason) -> None:
        """Note in the journal what could not even be begun."""
        said = {"node": self._node, "item": item.id, "problem": {"code": why.code, "message": why.message}}
        self._bundle.record("missing", said)


def _words(shell: NodeShell, fact: Fact) -> tuple[str, ...]:
    return shell.command(fact) or () if fact.endpoint is None else command_of_endpoint(fact.endpoint)


def command_of_endpoint(endpoint: Endpoint) -> tuple[str, ...]:
    """A request to kube-proxy as the record of its answer has it."""
    return ("GET", f"http://127.0.0.1:{endpoint.port}{endpoint.path}")


def _with_complaint(problem: Reason, reading: Reading) -> Reason:
    """The reason with the first thing that a command which failed has said about it."""
    lines = reading.stderr.decode("utf-8", "replace").strip().splitlines()
    if not reading.exit_code or not lines or reading.trailer is None:
        return problem
    said = "".join(character if character.isprintable() else "?" for character in lines[0])[:200]
    return Reason(problem.code, f"{problem.message}: {said}", problem.error)


def _seal(file: ArtefactFile, reading: Reading) -> None:
    """Keep the node's trailer: it came, was checked and taken off, and offline it is what proves the output whole."""
    if reading.trailer is not None:
        file.write(f"{MARKER} {secrets.token_hex(8)} rc={reading.trailer.exit_code};\n".encode())


def _close_broken(file: ArtefactFile, error: BaseException) -> None:
    code = error.code if isinstance(error, KdnsctlError) else "interrupted"
    file.close(problem=Reason(code, str(error) or type(error).__name__))
