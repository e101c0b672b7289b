"""What find-affected needs to be allowed: what it really asks for, no more, and what it does where that is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kdnsctl.access.needs import granted
from kdnsctl.access.review import PATH as REVIEWS
from kdnsctl.cancel import CancelScope
from kdnsctl.changes.incidents import NOTED
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.retries import NO_RETRIES
from kdnsctl.find.online import NEEDS, OnlineOptions, find_in_cluster
from kdnsctl.find.report import FindReport
from kdnsctl.model import SilentReporter
from tests.unit.cluster.apiserver import Answer, Exchange, Seen, Server, chunks, recorded, reply, status
from tests.unit.cluster.conftest import Connect
from tests.unit.cluster.test_kubeproxy import daemon_set, node
from tests.unit.find.clusters import FORBIDDEN, PODS, container_log, log_path, proxied, set_up
from tests.unit.find.composing import bad, healthy, minutes, verdicts

ALLOWED = reply({"status": {"allowed": True}}, status=201)
REFUSED = reply({"status": {"allowed": False, "reason": "no binding"}}, status=201)
LOGS = "get pods/log in kube-system"
Find = Callable[..., FindReport]


class Listening(SilentReporter):
    """Remembers what the operator was told, and what had been asked of the server by then."""

    def __init__(self, api: Server) -> None:
        self.api = api
        self.told: list[tuple[str, list[str]]] = []

    def noted(self, message: str) -> None:
        self.told.append((message, logs_asked_for(self.api)))


@pytest.fixture
def reporter(api: Server) -> Listening:
    return Listening(api)


@pytest.fixture
def find(api: Server, connect_to: Connect, scope: CancelScope, reporter: Listening) -> Find:
    def find(**options: Any) -> FindReport:
        connection = connect_to(api, retry=NO_RETRIES)
        return find_in_cluster(OnlineOptions(**options), connection, scope=scope, reporter=reporter, now=minutes(90))

    return find


def logs_asked_for(api: Server) -> list[str]:
    return [request.path for request in api.requests if request.path.endswith("/log")]


def nodes_with(api: Server, count: int, log: Answer) -> list[str]:
    names = [f"n{number:02}" for number in range(count)]
    nodes, pods = proxied(*names)
    set_up(api, nodes, pods, {f"proxy-{name}": log for name in names})
    return names


# --- what is declared is what is asked for


def permission_of(request: Seen) -> Permission:
    """What a request needs, by its path (k8s docs, "Determine the Request Verb")."""
    parts = request.path.strip("/").split("/")
    group = "" if parts[0] == "api" else parts[1]
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = None
    if rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    verb = {"GET": "get" if len(rest) > 1 else "list", "POST": "create"}[request.method]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    return Permission(verb, rest[0], group, subresource, namespace, name)


def covered(wanted: Permission, allowed: tuple[Permission, ...]) -> bool:
    return any(
        (one.verb, one.group, one.resource, one.subresource)
        == (wanted.verb, wanted.group, wanted.resource, wanted.subresource)
        and one.namespace in (None, wanted.namespace)
        and one.name in ("", wanted.name)
        for one in allowed
    )


def kubeadm(api: Server) -> None:
    nodes_with(api, 2, container_log(healthy()))


def cilium(api: Server) -> None:
    set_up(api, [node("a")], [], sets=[daemon_set("cilium", labels={"k8s-app": "cilium"})])
    config = {"metadata": {}, "data": {"kube-proxy-replacement": "true"}}
    api.on("/api/v1/namespaces/kube-system/configmaps/cilium-config", reply(config))


def k3s(api: Server) -> None:
    set_up(api, [node("k", version="v1.30.1+k3s1")], [])


def missing(api: Server) -> None:
    nodes, pods = proxied("a")
    set_up(api, [*nodes, node("m")], pods, {"proxy-a": container_log(healthy())})


def without_kube_dns(api: Server) -> None:
    nodes, pods = proxied("a")
    set_up(api, nodes, pods, {"proxy-a": container_log(healthy())}, services=reply({"items": []}))


def empty_log(api: Server) -> None:
    nodes_with(api, 1, recorded("log-empty-window"))
    api.on("/api/v1/nodes/n00/proxy/logs/kube-proxy.log", chunks(b"x\n"))


@pytest.mark.parametrize("cluster", [kubeadm, cilium, k3s, missing, without_kube_dns, empty_log])
def test_nothing_is_asked_for_that_is_not_declared(api: Server, find: Find, cluster: Callable[[Server], None]) -> None:
    cluster(api)
    api.on(REVIEWS, ALLOWED)
    report = find(kubelet_logs=cluster is empty_log)
    allowed = granted([NEEDS], options=["--kubelet-logs"] if cluster is empty_log else [])
    asked = {permission_of(request) for request in api.requests if request.path != REVIEWS}
    assert {str(one) for one in asked if not covered(one, allowed)} == set()
    assert not any("may not" in note or "cannot be read" in note for note in report.notes)


def test_nothing_is_declared_that_is_never_asked_for(api: Server, find: Find) -> None:
    asked: set[Permission] = set()
    for cluster in (kubeadm, cilium, empty_log):
        cluster(api)
        find(kubelet_logs=True)
        asked |= {permission_of(request) for request in api.requests if request.path != REVIEWS}
    of_logs = dict.fromkeys((*NEEDS.needed, *NEEDS.helpful, *NEEDS.with_option["--kubelet-logs"]))
    del of_logs[NOTED]  # asked for by the command, and only when an incident is named
    assert [one for one in of_logs if not any(covered(wanted, (one,)) for wanted in asked)] == []


def test_every_permission_says_what_is_lost_without_it() -> None:
    assert all(one.without for one in NEEDS.all)


def test_permissions_are_gathered_once_each_with_options_only_when_asked_for() -> None:
    nodes_proxy = NEEDS.with_option["--kubelet-logs"]
    assert granted([NEEDS, NEEDS]) == (*NEEDS.needed, *NEEDS.helpful)
    assert granted([NEEDS], helpful=False) == NEEDS.needed
    assert granted([NEEDS], helpful=False, options=["--kubelet-logs"]) == (*NEEDS.needed, *nodes_proxy)
    assert granted([NEEDS], options=["--other"]) == (*NEEDS.needed, *NEEDS.helpful)
    live = NEEDS.with_option["--live"]
    assert NEEDS.all == tuple(dict.fromkeys((*NEEDS.needed, *NEEDS.helpful, *nodes_proxy, *live)))


# --- preflight


def test_logs_that_may_not_be_read_are_said_first_and_not_asked_for_hundreds_of_times(
    api: Server, find: Find, reporter: Listening
) -> None:
    names = nodes_with(api, 40, FORBIDDEN)
    api.on(REVIEWS, REFUSED)
    report = find()
    assert verdicts(report) == dict.fromkeys(names, "unknown/forbidden")
    assert logs_asked_for(api) == [log_path("proxy-n00")]
    ((told, asked_before),) = reporter.told
    assert told.startswith(f"not allowed: {LOGS}, so the logs of kube-proxy cannot be read")
    assert asked_before == []
    spared = next(finding for finding in report.nodes if finding.name == "n01")
    assert spared.reason == f"not allowed: {LOGS} (no binding); not tried, since another node's log was refused"
    assert sum("`kdnsctl rbac find-affected` prints" in note for note in report.notes) == 1


def test_a_forecast_that_is_wrong_keeps_no_log_from_being_read(api: Server, find: Find) -> None:
    names = nodes_with(api, 3, container_log(healthy()))
    api.on(log_path("proxy-n01"), FORBIDDEN)
    api.on(REVIEWS, REFUSED)
    assert verdicts(find()) == {
        "n00": "clean/nothingLogged",
        "n01": "unknown/forbidden",
        "n02": "clean/nothingLogged",
    }
    assert {log_path(f"proxy-{name}") for name in names} == set(logs_asked_for(api))


@pytest.mark.parametrize(
    "answer",
    [ALLOWED, status(500, "InternalError", "broken"), reply(b"?", status=201)],
    ids=["allowed", "failed", "nonsense"],
)
def test_an_answer_that_refuses_nothing_changes_nothing(
    api: Server, find: Find, reporter: Listening, answer: Answer
) -> None:
    nodes_with(api, 3, container_log(bad()))
    api.on(REVIEWS, answer)
    assert set(verdicts(find()).values()) == {"suspect/failureLogged"}
    assert len([request for request in api.requests if request.path == REVIEWS]) == 1
    assert reporter.told == []


def test_the_question_is_about_logs_where_kube_proxy_is(api: Server, find: Find) -> None:
    nodes_with(api, 2, container_log(healthy()))
    asked: list[dict[str, str]] = []

    def answer(exchange: Exchange) -> None:
        asked.append(json.loads(exchange.seen.body)["spec"]["resourceAttributes"])
        ALLOWED(exchange)

    api.on(REVIEWS, answer)
    find()
    assert asked == [{"verb": "get", "resource": "pods", "subresource": "log", "namespace": "kube-system"}]


def test_without_a_log_to_read_nothing_is_asked(api: Server, find: Find) -> None:
    cilium(api)
    find()
    assert REVIEWS not in {request.path for request in api.requests}
    assert PODS in {request.path for request in api.requests}
