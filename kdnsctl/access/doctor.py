"""Does the cluster answer, by which way, as whom, and which commands may do their work there?

Every check is made that can be, whatever failed before: a credential plug-in that fails does not hide that the server
answers, nor a resolver that hangs that its address is remembered. All of it is over within the request timeout; nothing
is changed. How it looks to a person is the business of `cli`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import email.utils
import math
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from kdnsctl import __version__, fleet
from kdnsctl.access.checkup import Ability, Check, CommandState, DoctorReport, State, ability_of
from kdnsctl.access.needs import Needs
from kdnsctl.access.review import Access, review
from kdnsctl.cancel import INTERRUPTED, CancelScope, duration
from kdnsctl.cluster.answers import decode
from kdnsctl.cluster.certificates import not_after
from kdnsctl.cluster.connection import ConnectOptions, connect, target_of
from kdnsctl.cluster.credentials import ANONYMOUS, Credential, nobody
from kdnsctl.cluster.errors import ApiError, CredentialError, KubeconfigError, UnauthorizedError
from kdnsctl.cluster.network import LookUp, is_address, look_up_time, look_up_within, system_look_up
from kdnsctl.cluster.objects import Version
from kdnsctl.cluster.retries import NO_RETRIES
from kdnsctl.cluster.target import Target
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import CancelledError, KdnsctlError, Reporter, SilentReporter

VERSION = "/version"
ORDER = ("kubeconfig", "credential", "name", "server", "clock", "version")  # of the checks, as they are reported
OLDEST = 21  # of Kubernetes 1.x: the first with discovery.k8s.io/v1, which serving endpoints are read from
CLOCKS_DIFFER = 5.0  # seconds: machines that ask for the time are closer than one
CONNECTING = 1.0  # seconds: an answer after more was slow to be asked for, and tells little about the time
UNRESOLVED = "cannot resolve"  # how the dialer's note begins, too
EXPIRES_SOON = dt.timedelta(days=1)


@dataclass(slots=True)
class _Found:
    """What the checks have found so far. Two threads write it, each what is its own."""

    checks: dict[str, Check] = field(default_factory=dict)
    connection: Connection | None = None
    notes: list[str] = field(default_factory=list)
    version: str | None = None
    clock: float | None = None


def examine(
    options: ConnectOptions,
    commands: Mapping[str, Needs],
    *,
    rungs: Mapping[str, Needs] | None = None,
    beside: Sequence[CommandState] = (),
    scope: CancelScope,
    reporter: Reporter | None = None,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    look_up: LookUp = system_look_up,
) -> DoctorReport:
    """Make all checks, within `options.request_timeout`. `commands` are those that are asked about, with their needs.

    `rungs` are the ways to nodes through the API, with theirs; `beside` those that the API has no say in.

    Raises UsageError for options that name what is not there; every other trouble is in the report. When `scope` ends
    meanwhile, the report has what is known by then.
    """
    found = _Found()
    try:
        target = target_of(options)
    except KubeconfigError as error:
        found.checks["kubeconfig"] = _failed("kubeconfig", error)
        return _report(commands, None, found, {}, now, _of_rungs(rungs or {}, {}, beside))
    found.checks["kubeconfig"] = Check("kubeconfig", State.OK, str(target))
    with scope.child(options.request_timeout) as whole:
        works = {
            "name": lambda limit: _look_for_name(target, options, found, limit, look_up),
            "server": lambda limit: _look_for_server(options, found, limit, now, look_up),
        }

        def work(name: str, limit: CancelScope) -> bool:
            works[name](limit)
            return True

        told = reporter or SilentReporter()
        asked = fleet.run(works, work, parallel=2, deadline=None, reporter=told, scope=whole, what="asking the server")
        for note in found.notes:
            if not note.startswith(UNRESOLVED):  # which is told with the name
                told.noted(note)
        for outcome in asked:
            if outcome.reason is not None:
                state = State.SKIPPED if outcome.reason.code == INTERRUPTED.code else State.FAILED
                found.checks.setdefault(outcome.node, Check(outcome.node, state, outcome.reason.message))
        answers: dict[object, Access] = {}
        if found.connection and whole.reason is None:
            asked_about = (*commands.values(), *(rungs or {}).values())
            permissions = dict.fromkeys(one for needs in asked_about for one in needs.all)
            reviewed = review(found.connection, permissions, scope=whole, reporter=told)
            answers = {answer.permission: answer for answer in reviewed}
        if whole.reason is INTERRUPTED:
            scope.cancel()
    report = _report(commands, target, found, answers, now, _of_rungs(rungs or {}, answers, beside))
    if found.connection:
        found.connection.close()
    return report


def _look_for_name(target: Target, options: ConnectOptions, found: _Found, scope: CancelScope, look_up: LookUp) -> None:
    """Whether this machine resolves the name that has to be connected to: the server's, or its proxy's."""
    parts = urlsplit(target.server)
    host = target.proxy.host if target.proxy else parts.hostname or ""
    fixed = {name.lower().rstrip("."): address for name, address in options.resolve.items()}
    given = fixed.get(host.lower().rstrip("."))
    if given:
        found.checks["name"] = Check("name", State.OK, f"{host} is {given} (--resolve), and was not looked up")
        return
    if is_address(host):
        found.checks["name"] = Check("name", State.OK, f"{host} is an address: nothing to look up")
        return
    started = scope.clock.now()
    try:
        addresses = look_up_within(look_up, host, parts.port or 443, look_up_time(scope), scope)
    except OSError as error:
        found.checks["name"] = Check(
            "name",
            State.WARNING,
            f"{UNRESOLVED} {host}: {error.strerror or error}",
            f"the DNS of this machine does not work for it; if you know the address: --resolve {host}=ADDRESS",
        )
        return
    took = duration(round(scope.clock.now() - started, 3))
    shown = ", ".join(addresses[:4]) + (" and others" if len(addresses) > 4 else "")
    found.checks["name"] = Check("name", State.OK, f"{host} is {shown} (after {took})")


def _look_for_server(
    options: ConnectOptions, found: _Found, scope: CancelScope, now: Callable[[], dt.datetime], look_up: LookUp
) -> None:
    """The credential, then the server's answer to what it tells everybody; with no credential if there is none."""
    # Half of the time for the credential, so that a plug-in that hangs leaves enough to ask the server.
    left = scope.remaining()
    halved = dataclasses.replace(options, request_timeout=None if left is None else left / 2)
    try:
        connection = connect(halved, scope, note=found.notes.append, retry=NO_RETRIES, look_up=look_up)
        found.checks["credential"] = _credential_check(connection.credential(scope), now())
    except CredentialError as error:
        found.checks["credential"] = _failed("credential", error)
        connection = connect(
            halved, scope, note=found.notes.append, retry=NO_RETRIES, look_up=look_up, credentials=nobody()
        )
    except KdnsctlError as error:
        scope.check()
        found.checks["credential"] = _failed("credential", error)
        found.checks["server"] = Check("server", State.SKIPPED, "not asked: see above")
        return
    left = scope.remaining()
    if left is not None:
        # What is left now, but for a moment: whoever asks should hear who did not answer, not only that time is up.
        connection.request_timeout = max(left / 2, math.floor(left * 10 - 0.5) / 10)
    _ask_version(connection, found, scope, now)
    if State.FAILED not in (found.checks["credential"].state, found.checks["server"].state):
        found.connection = connection
    else:
        connection.close()


def _ask_version(connection: Connection, found: _Found, scope: CancelScope, now: Callable[[], dt.datetime]) -> None:
    before, started = now(), scope.clock.now()
    try:
        reply = connection.request("GET", VERSION, scope=scope)
        took = scope.clock.now() - started
        found.checks["server"] = Check(
            "server", State.OK, f"{_way(connection)} answers after {duration(round(took, 3))}"
        )
        if took > CONNECTING:  # once more, now that there is a connection
            before, started = now(), scope.clock.now()
            reply = connection.request("GET", VERSION, scope=scope)
    except UnauthorizedError as error:
        # It answers, and that is what was asked; as whom is the credential's affair.
        if found.checks["credential"].state is not State.FAILED:
            found.checks["credential"] = _failed("credential", error)
        found.checks["server"] = Check("server", State.OK, f"{_way(connection)} answers")
        return
    except ApiError as error:
        found.checks["server"] = Check("server", State.OK, f"{_way(connection)} answers")
        found.checks["version"] = Check("version", State.WARNING, f"the server's is not known: {error}", error.hint)
        return
    except CancelledError:
        raise
    except KdnsctlError as error:
        found.checks["server"] = _failed("server", error)
        return
    took = scope.clock.now() - started
    found.clock = _clock(reply.date, before, took)
    found.checks["clock"] = _clock_check(found.clock, took, connection.target)
    try:
        found.version = decode(reply.body, Version, f"GET {VERSION}").git_version
    except KdnsctlError as error:
        found.checks["server"] = _failed("server", error)
        return
    found.checks["version"] = _version_check(found.version)


def _way(connection: Connection) -> str:
    target = connection.target
    through = f" through the proxy {target.proxy}" if target.proxy else ""
    address = f" ({connection.address})" if connection.address and connection.address not in target.address else ""
    return f"{target.address}{address}{through}"


def _clock(date: str, before: dt.datetime, took: float) -> float | None:
    """Seconds by which our clock is ahead. HTTP's dates are cut to the second, so half of one is added."""
    try:
        server = email.utils.parsedate_to_datetime(date)
    except ValueError:
        return None
    if server.tzinfo is None:
        return None
    middle = before + dt.timedelta(seconds=took / 2)
    return round((middle - server).total_seconds() - 0.5, 1)


def _clock_check(ahead: float | None, took: float, target: Target) -> Check:
    if ahead is None:
        return Check("clock", State.SKIPPED, "the server does not say its time")
    if abs(ahead) - took / 2 - 0.5 <= CLOCKS_DIFFER:
        return Check("clock", State.OK, f"as the server's, within {duration(round(0.5 + took / 2 + abs(ahead), 1))}")
    shown = duration(round(abs(ahead), 0 if abs(ahead) >= 60 else 1))
    return Check(
        "clock",
        State.WARNING,
        f"this machine's clock is {shown} {'ahead of' if ahead > 0 else 'behind'} that of {target.address}",
        "windows such as --since are counted by this machine's clock, and credentials may seem to have ended",
    )


def _version_check(version: str) -> Check:
    here = f"kdnsctl {__version__} on Python {platform.python_version()}"
    match = re.match(r"v1\.(\d+)", version)
    if match and int(match[1]) < OLDEST:
        return Check(
            "version",
            State.WARNING,
            f"{here}; the server is {version}, older than 1.{OLDEST}",
            "the endpoints of Services cannot be read from it",
        )
    return Check("version", State.OK, f"{here}; the server is {version or 'of an unknown version'}")


def _credential_check(credential: Credential, now: dt.datetime) -> Check:
    if credential is ANONYMOUS:
        hint = "name a user that has one: --user, --token-file"
        return Check("credential", State.WARNING, "the kubeconfig holds none for the user", hint)
    ends = not_after(credential.client.certificate) if credential.client else None
    if ends is not None and ends <= now:
        ended = f"the {credential.origin} expired on {ends:%Y-%m-%dT%H:%M:%SZ}"
        return Check("credential", State.FAILED, ended, "sign in again, or have the certificate renewed")
    if ends is not None and ends - now <= EXPIRES_SOON:
        return Check("credential", State.WARNING, f"{credential.origin}, which expires at {ends:%Y-%m-%dT%H:%M:%SZ}")
    until = ends or credential.until
    return Check("credential", State.OK, credential.origin + (f", until {until:%Y-%m-%dT%H:%M:%SZ}" if until else ""))


def _report(
    commands: Mapping[str, Needs],
    target: Target | None,
    found: _Found,
    answers: Mapping[object, Access],
    now: Callable[[], dt.datetime],
    rungs: tuple[CommandState, ...],
) -> DoctorReport:
    checks = found.checks
    for name in ("name", "credential", "server", "clock"):
        checks.setdefault(name, Check(name, State.SKIPPED, "not looked at: see above"))
    checks.setdefault("version", Check("version", State.OK, f"kdnsctl {__version__}; the server's is not known"))
    if checks["name"].state is State.WARNING:
        checks["name"] = _name_in_the_end(checks["name"], checks["server"], found.notes)
    if answers:
        states = tuple(ability_of(name, needs, answers) for name, needs in commands.items())
    else:
        failed = [check.detail for check in _in_order(checks) if check.state is State.FAILED and check.name != "name"]
        ability, why = (Ability.FAILS, failed[0]) if failed else (Ability.UNKNOWN, "the server was not asked")
        states = tuple(CommandState(name, ability, why=why) for name in commands)
    return DoctorReport(
        generated_at=now(),
        client_version=__version__,
        target=target,
        checks=tuple(_in_order(checks)),
        permissions=tuple(answers[one] for one in dict.fromkeys(p for needs in commands.values() for p in needs.all))
        if answers
        else (),
        commands=states,
        rungs=rungs,
        server_version=found.version,
        address=found.connection.address or None if found.connection else None,
        clock=found.clock,
    )


def _of_rungs(
    rungs: Mapping[str, Needs], answers: Mapping[object, Access], beside: Sequence[CommandState]
) -> tuple[CommandState, ...]:
    unknown = "the server was not asked"
    through = (
        ability_of(name, needs, answers) if answers else CommandState(name, Ability.UNKNOWN, why=unknown)
        for name, needs in rungs.items()
    )
    return (*through, *beside)


def _name_in_the_end(name: Check, server: Check, notes: Sequence[str]) -> Check:
    """A name that cannot be resolved, once it is known whether there was another way to the server."""
    if server.state is State.FAILED:
        return Check(name.name, State.FAILED, name.detail, name.hint)
    recalled = next((note for note in notes if note.startswith(UNRESOLVED)), name.detail)
    return Check(name.name, State.WARNING, recalled, name.hint)


def _in_order(checks: Mapping[str, Check]) -> list[Check]:
    return [checks[name] for name in ORDER if name in checks]


def _failed(name: str, error: KdnsctlError) -> Check:
    return Check(name, State.FAILED, str(error), error.hint)
