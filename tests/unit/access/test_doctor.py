"""The checks of `doctor`: each is made that can be, whatever failed before, and in time."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
import trustme

from kdnsctl.access import Permission, doctor
from kdnsctl.access.checkup import DoctorReport, State, exit_code, to_json
from kdnsctl.access.doctor import examine
from kdnsctl.access.needs import Needs
from kdnsctl.access.review import PATH as REVIEWS
from kdnsctl.cancel import INTERRUPTED, CancelScope
from kdnsctl.cluster.connection import ConnectOptions
from kdnsctl.cluster.network import LookUp
from kdnsctl.model import Reporter, SilentReporter, UsageError
from tests.unit.cluster.apiserver import Answer, Exchange, Server, hang, recorded, reply, status
from tests.unit.cluster.conftest import Kubeconfig, encoded

NODES = Permission("list", "nodes", without="nothing is known")
SERVICES = Permission("list", "services", without="less is known")
PROXY = Permission("get", "nodes", subresource="proxy")
COMMANDS = {"look": Needs((NODES,), (SERVICES,), {"--closely": (PROXY,)}), "glance": Needs((SERVICES,))}
NOW = dt.datetime(2026, 3, 12, 12, tzinfo=dt.UTC)
Examine = Callable[..., DoctorReport]


@pytest.fixture
def api(tls: Any) -> Iterator[Server]:
    with Server(tls) as server:
        server.on("/version", dated(NOW))
        server.on(REVIEWS, reviews(lambda _: {"allowed": True}))
        yield server


@pytest.fixture
def look(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Examine:
    monkeypatch.setattr(doctor, "CONNECTING", 60.0)  # a slow machine is no slow server

    def look(
        *,
        look_up: LookUp = lambda *_: ["127.0.0.1"],
        within: CancelScope | None = None,
        reporter: Reporter | None = None,
        **said: Any,
    ) -> Any:
        options = ConnectOptions(environment=environment | said.pop("variables", {}), **{"request_timeout": 30, **said})
        with within or CancelScope(60) as scope:
            return examine(options, COMMANDS, scope=scope, reporter=reporter, now=lambda: NOW, look_up=look_up)

    return look


def dated(moment: dt.datetime, answer: Answer | None = None) -> Answer:
    """The recorded version, or another answer, from a server with this time."""

    def at(exchange: Exchange) -> None:
        exchange.date_time_string = lambda *_: moment.strftime("%a, %d %b %Y %H:%M:%S GMT")  # type: ignore[method-assign]
        (answer or recorded("version"))(exchange)

    return at


def reviews(decide: Callable[[dict[str, str]], dict[str, object]]) -> Answer:
    def answer(exchange: Exchange) -> None:
        asked = json.loads(exchange.seen.body)["spec"]["resourceAttributes"]
        exchange.send(201, json.dumps({"status": decide(asked)}).encode())

    return answer


def states(report: DoctorReport) -> dict[str, str]:
    return {check.name: check.state.value for check in report.checks}


def check(report: DoctorReport, name: str) -> Any:
    return next(one for one in report.checks if one.name == name)


def abilities(report: DoctorReport) -> dict[str, str]:
    return {command.name: command.ability.value for command in report.commands}


ALL_WELL = dict.fromkeys(("kubeconfig", "credential", "name", "server", "clock", "version"), "ok")
UNREACHED = {"kubeconfig": "ok", "credential": "ok", "clock": "skipped", "version": "ok"}


def test_all_is_well(api: Server, kubeconfig: Kubeconfig, look: Examine, pytestconfig: pytest.Config) -> None:
    kubeconfig(api.url)
    report = look()
    assert states(report) == ALL_WELL
    assert list(states(report)) == ["kubeconfig", "credential", "name", "server", "clock", "version"]
    assert abilities(report) == {"look": "works", "glance": "works"}
    assert (report.address, report.server_version) == ("127.0.0.1", "v1.36.2")
    assert "localhost is 127.0.0.1" in check(report, "name").detail
    assert [answer.permission for answer in report.permissions] == [NODES, SERVICES, PROXY]
    assert exit_code(report) == 0
    schema = json.loads((pytestconfig.rootpath / "docs/schemas/DoctorReport.schema.json").read_text())
    jsonschema.validate(to_json(report), schema)


def test_a_missing_permission_says_which_command_does_what_without_it(
    api: Server, kubeconfig: Kubeconfig, look: Examine
) -> None:
    kubeconfig(api.url)
    api.on(REVIEWS, reviews(lambda asked: {"allowed": asked["resource"] == "nodes" and "subresource" not in asked}))
    report = look()
    assert abilities(report) == {"look": "limited", "glance": "fails"}
    limited, fails = report.commands
    assert [str(answer.permission) for answer in limited.decisive] == ["list services"]
    assert (limited.options, fails.options) == ((("--closely", False),), ())
    assert exit_code(report) == 1
    api.on(REVIEWS, reviews(lambda asked: {"allowed": asked["resource"] == "services"}))
    report = look()
    assert abilities(report) == {"look": "fails", "glance": "works"}
    assert [str(answer.permission) for answer in report.commands[0].decisive] == ["list nodes"]


def test_what_could_not_be_asked_is_not_known_and_not_refused(
    api: Server, kubeconfig: Kubeconfig, look: Examine, pytestconfig: pytest.Config
) -> None:
    kubeconfig(api.url)
    api.on(REVIEWS, status(500, "InternalError", "broken"))
    report = look()
    assert abilities(report) == {"look": "unknown", "glance": "unknown"}
    assert exit_code(report) == 4
    schema = json.loads((pytestconfig.rootpath / "docs/schemas/DoctorReport.schema.json").read_text())
    jsonschema.validate(to_json(report), schema)
    api.on(REVIEWS, reviews(lambda asked: {"allowed": asked["resource"] == "nodes"}))
    assert exit_code(look()) == 1


def test_only_helpful_permissions_missing_make_exit_4(api: Server, kubeconfig: Kubeconfig, look: Examine) -> None:
    kubeconfig(api.url)
    api.on(REVIEWS, reviews(lambda asked: {"allowed": asked.get("subresource") != "proxy"}))
    assert exit_code(look()) == 0  # an option that does not work is no command that does not
    report = look()
    assert report.commands[0].options == (("--closely", False),)


# --- this machine's DNS


def never(over: threading.Event) -> LookUp:
    def hanging(_: str, __: int) -> list[str]:
        over.wait(60)
        return []

    return hanging


@pytest.fixture
def hanging() -> Iterator[LookUp]:
    over = threading.Event()
    yield never(over)
    over.set()


def test_a_resolver_that_hangs_and_an_address_that_is_remembered(
    api: Server, kubeconfig: Kubeconfig, look: Examine, hanging: LookUp
) -> None:
    kubeconfig(f"https://api.cluster.test:{api.port}")
    assert states(look()) == ALL_WELL
    report = look(look_up=hanging, request_timeout=6.0)  # half of it for the resolver
    assert states(report) == ALL_WELL | {"name": "warning"}
    assert "the resolver did not answer within" in check(report, "name").detail
    assert "using 127.0.0.1, which answered last at" in check(report, "name").detail
    assert "--resolve api.cluster.test=ADDRESS" in check(report, "name").hint
    assert (report.address, abilities(report)) == ("127.0.0.1", {"look": "works", "glance": "works"})


def test_a_resolver_that_hangs_and_nothing_remembered(
    api: Server, kubeconfig: Kubeconfig, look: Examine, hanging: LookUp
) -> None:
    kubeconfig(f"https://api.cluster.test:{api.port}")
    report = look(look_up=hanging, request_timeout=0.8)
    assert states(report) == UNREACHED | {"name": "failed", "server": "failed"}
    assert check(report, "server").detail.startswith("cannot resolve api.cluster.test: the resolver did not answer")
    assert abilities(report) == {"look": "fails", "glance": "fails"}
    assert report.commands[0].why == check(report, "server").detail
    assert (report.permissions, exit_code(report), api.requests) == ((), 1, [])


def test_a_given_address_is_used_and_nothing_is_looked_up(
    api: Server, kubeconfig: Kubeconfig, look: Examine, hanging: LookUp
) -> None:
    kubeconfig(f"https://api.cluster.test:{api.port}")
    report = look(look_up=hanging, resolve={"API.cluster.test.": "127.0.0.1"})
    assert states(report) == ALL_WELL
    assert check(report, "name").detail == "api.cluster.test is 127.0.0.1 (--resolve), and was not looked up"
    kubeconfig(f"https://127.0.0.1:{api.port}")
    assert check(look(look_up=hanging), "name").detail == "127.0.0.1 is an address: nothing to look up"


# --- the server


def test_a_server_that_says_nothing_is_given_up_in_time(
    kubeconfig: Kubeconfig, look: Examine, silent_port: int
) -> None:
    kubeconfig(f"https://127.0.0.1:{silent_port}")
    report = look(request_timeout=1.0)
    assert states(report) == UNREACHED | {"name": "ok", "server": "failed"}
    assert f"127.0.0.1:{silent_port}" in check(report, "server").detail
    assert check(report, "version").detail.endswith("the server's is not known")


def test_a_certificate_that_is_not_to_be_trusted(api: Server, kubeconfig: Kubeconfig, look: Examine) -> None:
    other = trustme.CA(key_type=trustme.KeyType.ECDSA)
    kubeconfig(api.url, **{"certificate-authority-data": encoded(other.cert_pem.bytes())})
    report = look()
    assert states(report) == UNREACHED | {"name": "ok", "server": "failed"}
    assert "certificate" in check(report, "server").detail
    assert api.requests == []


def test_something_that_is_no_api_server(api: Server, kubeconfig: Kubeconfig, look: Examine) -> None:
    kubeconfig(api.url)
    api.on("/version", dated(NOW, reply(b"<html>sign in</html>", content_type="text/html")))
    report = look()
    assert check(report, "server").state is State.FAILED
    assert "is not what Kubernetes sends" in check(report, "server").detail
    assert exit_code(report) == 1


def test_a_server_that_keeps_its_version_to_itself_answers_all_the_same(
    api: Server, kubeconfig: Kubeconfig, look: Examine
) -> None:
    kubeconfig(api.url)
    api.on("/version", status(403, "Forbidden", "no"))
    report = look()
    assert states(report) == ALL_WELL | {"version": "warning", "clock": "skipped"}
    assert abilities(report) == {"look": "works", "glance": "works"}


@pytest.mark.parametrize(("version", "state"), [("v1.20.4", "warning"), ("v1.21.0", "ok"), ("odd", "ok")])
def test_an_old_server_is_warned_of(
    api: Server, kubeconfig: Kubeconfig, look: Examine, version: str, state: str
) -> None:
    kubeconfig(api.url)
    api.on("/version", dated(NOW, reply({"gitVersion": version})))
    report = look()
    assert check(report, "version").state == state
    assert version in check(report, "version").detail


@pytest.mark.parametrize(
    ("off", "state", "said"),
    [
        (0, "ok", "as the server's"),
        (4, "ok", "as the server's"),
        (90, "warning", "behind that of localhost"),
        (-90, "warning", "ahead of that of localhost"),
    ],
)
def test_clocks_are_compared(
    api: Server, kubeconfig: Kubeconfig, look: Examine, off: float, state: str, said: str
) -> None:
    kubeconfig(api.url)
    api.on("/version", dated(NOW + dt.timedelta(seconds=off)))
    report = look()
    assert check(report, "clock").state == state
    assert said in check(report, "clock").detail
    assert report.clock is not None
    assert abs(report.clock + off) < 30  # half of how long the answer took is added


def test_the_time_is_asked_for_again_where_connecting_took_long(
    api: Server, kubeconfig: Kubeconfig, look: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CONNECTING", -1.0)
    kubeconfig(api.url)
    api.on("/version", dated(NOW - dt.timedelta(seconds=90)), dated(NOW))
    assert check(look(), "clock").state is State.OK
    assert [request.path for request in api.requests].count("/version") == 2


# --- who we are


def test_a_plug_in_that_fails_does_not_hide_that_the_server_answers(
    api: Server, kubeconfig: Kubeconfig, look: Examine, tmp_path: Path
) -> None:
    kubeconfig(api.url, plug_in(tmp_path, "echo 'session expired' >&2; exit 3"))
    report = look()
    assert states(report) == ALL_WELL | {"credential": "failed"}
    assert "session expired" in check(report, "credential").detail
    assert abilities(report) == {"look": "fails", "glance": "fails"}
    assert "session expired" in report.commands[0].why
    assert {request.path for request in api.requests} == {"/version"}
    assert api.requests[0].header("Authorization") is None


def test_a_plug_in_that_hangs_leaves_time_to_ask_the_server(
    api: Server, kubeconfig: Kubeconfig, look: Examine, tmp_path: Path
) -> None:
    fifo = tmp_path / "never-written"
    os.mkfifo(fifo)
    kubeconfig(api.url, plug_in(tmp_path, f"cat '{fifo}'"))
    report = look(request_timeout=6.0)
    assert states(report) == ALL_WELL | {"credential": "failed"}
    assert "did not finish within" in check(report, "credential").detail


def test_a_server_that_hangs_has_all_of_the_time_but_for_a_moment(
    api: Server, kubeconfig: Kubeconfig, look: Examine
) -> None:
    api.on("/version", hang)
    kubeconfig(api.url, {"token": "t"})
    detail = check(look(request_timeout=2.0), "server").detail
    assert re.search(r"did not answer GET /version within [01](\.\d)?s$", detail), detail  # a round figure


def plug_in(tmp_path: Path, script: str) -> dict[str, Any]:
    file = tmp_path / "sign-in"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(file), "interactiveMode": "Never"}}


def test_a_credential_that_is_not_accepted(api: Server, kubeconfig: Kubeconfig, look: Examine) -> None:
    kubeconfig(api.url)
    api.on("/version", status(401, "Unauthorized", "Unauthorized"))
    report = look()
    assert (check(report, "server").state, check(report, "credential").state) == (State.OK, State.FAILED)
    assert "sign in again" in check(report, "credential").hint
    assert (report.permissions, exit_code(report)) == ((), 1)


@pytest.mark.parametrize(
    ("ends", "state", "said"),
    [
        (NOW - dt.timedelta(hours=1), "failed", "expired on 2026-03-12T11:00:00Z"),
        (NOW + dt.timedelta(hours=1), "warning", "expires at 2026-03-12T13:00:00Z"),
        (NOW + dt.timedelta(days=9), "ok", "until 2026-03-21T12:00:00Z"),
    ],
)
def test_a_client_certificate_ends(
    api: Server,
    kubeconfig: Kubeconfig,
    look: Examine,
    authority: trustme.CA,
    ends: dt.datetime,
    state: str,
    said: str,
) -> None:
    leaf = authority.issue_cert(
        common_name="admin", key_type=trustme.KeyType.ECDSA, not_before=NOW - dt.timedelta(days=9), not_after=ends
    )
    certificate, key = leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()
    kubeconfig(api.url, {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)})
    found = check(look(), "credential")
    assert (found.state, said in found.detail) == (state, True)


def test_no_credential_at_all_is_said(api: Server, kubeconfig: Kubeconfig, look: Examine) -> None:
    kubeconfig(api.url, {})
    report = look()
    assert states(report) == ALL_WELL | {"credential": "warning"}


def test_no_kubeconfig_is_a_check_that_failed_and_a_wrong_context_is_wrong_usage(
    api: Server, kubeconfig: Kubeconfig, look: Examine, pytestconfig: pytest.Config
) -> None:
    report = look()
    assert states(report)["kubeconfig"] == "failed"
    assert set(states(report).values()) == {"failed", "skipped", "ok"}  # the version of this tool is known
    assert (abilities(report), exit_code(report)) == ({"look": "fails", "glance": "fails"}, 1)
    schema = json.loads((pytestconfig.rootpath / "docs/schemas/DoctorReport.schema.json").read_text())
    jsonschema.validate(to_json(report), schema)
    kubeconfig(api.url)
    with pytest.raises(UsageError, match="no context 'there'"):
        look(context="there")
    assert api.requests == []


def test_what_the_server_warns_of_is_said(api: Server, kubeconfig: Kubeconfig, look: Examine) -> None:
    class Listening(SilentReporter):
        told: ClassVar[list[str]] = []

        def noted(self, message: str) -> None:
            self.told.append(message)

    kubeconfig(api.url)
    api.on("/version", dated(NOW, reply({"gitVersion": "v1.30.3"}, headers=[("Warning", '299 - "this goes away"')])))
    look(reporter=Listening())
    assert Listening.told == ["the API server warns: this goes away"]


def test_questions_are_asked_as_whoever_is_impersonated(api: Server, kubeconfig: Kubeconfig, look: Examine) -> None:
    kubeconfig(api.url)
    report = look(as_user="jane", as_groups=("ops",))
    assert {request.header("Impersonate-User") for request in api.requests} == {"jane"}
    assert to_json(report)["impersonating"] == "jane"


def test_ctrl_c_reports_what_is_known(api: Server, kubeconfig: Kubeconfig, look: Examine) -> None:
    kubeconfig(api.url)
    within = CancelScope(60)

    def interrupting(exchange: Exchange) -> None:
        within.cancel(INTERRUPTED)
        hang(exchange)

    api.on("/version", interrupting)
    report = look(within=within)
    assert states(report)["server"] == "skipped"
    assert "interrupted" in check(report, "server").detail
    assert abilities(report) == {"look": "unknown", "glance": "unknown"}
    assert within.reason is INTERRUPTED
