from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from kdnsctl.access import Permission
from kdnsctl.access.review import Access, missing, review, review_of
from kdnsctl.access.roles import bindings, roles
from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.retries import NO_RETRIES
from kdnsctl.cluster.transport import Connection
from tests.unit.cluster.apiserver import API, Exchange, Server, status

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
NODES = Permission("list", "nodes")
LOGS = Permission("get", "pods", subresource="log", namespace="kube-system")
EVICT = Permission("create", "pods", subresource="eviction", namespace="default")


@pytest.fixture
def api() -> Iterator[Server]:
    with Server(None) as server:
        yield server


@pytest.fixture
def scope() -> Iterator[CancelScope]:
    with CancelScope(60) as whole:
        yield whole


@pytest.fixture
def connection(api: Server, scope: CancelScope) -> Iterator[Connection]:
    options = ConnectOptions(server=api.url, as_user="jane", environment={"HOME": "/nonexistent"})
    made = connect(options, scope, retry=NO_RETRIES)
    yield made
    made.close()


def test_each_permission_is_asked_once_and_answered_in_order(
    api: Server, connection: Connection, scope: CancelScope
) -> None:
    recording = (API / "selfsubjectaccessreview.json").read_bytes()

    def answer(exchange: Exchange) -> None:
        asked = json.loads(exchange.seen.body)["spec"]["resourceAttributes"]
        if asked["resource"] == "nodes":
            exchange.send(201, b'{"status": {"allowed": false, "reason": "no binding"}}')
        elif asked.get("subresource") == "log":
            exchange.send(201, b'{"status": {"allowed": false, "evaluationError": "webhook is away"}}')
        else:
            exchange.send(201, recording)

    api.on(REVIEWS, answer)
    answers = review(connection, [NODES, LOGS, EVICT, NODES], scope=scope)
    assert answers == [
        Access(NODES, False, "no binding"),
        Access(LOGS, None, "webhook is away"),
        Access(EVICT, True),
    ]
    assert [one.permission for one in missing(answers)] == [NODES, LOGS]
    assert len(api.requests) == 3
    assert {request.header("Impersonate-User") for request in api.requests} == {"jane"}


def test_a_review_that_fails_is_not_a_refusal(api: Server, connection: Connection, scope: CancelScope) -> None:
    api.on(REVIEWS, status(500, "InternalError", "broken"))
    (answer,) = review(connection, [NODES], scope=scope)
    assert answer.allowed is None
    assert answer.why.startswith("broken (HTTP 500")
    assert answer.reason is not None
    assert answer.reason.code == "serverError"


def test_a_review_asks_for_exactly_what_is_needed() -> None:
    named = Permission("patch", "daemonsets", group="apps", namespace="kube-system", name="kube-proxy")
    body = json.loads(review_of(named))
    assert (body["kind"], body["apiVersion"]) == ("SelfSubjectAccessReview", "authorization.k8s.io/v1")
    assert body["spec"]["resourceAttributes"] == {
        "verb": "patch",
        "group": "apps",
        "resource": "daemonsets",
        "namespace": "kube-system",
        "name": "kube-proxy",
    }


def test_permissions_read_like_rbac() -> None:
    assert str(NODES) == "list nodes"
    assert str(LOGS) == "get pods/log in kube-system"
    assert str(Permission("patch", "daemonsets", group="apps", name="kube-proxy")) == "patch daemonsets.apps kube-proxy"


def test_the_least_roles_for_a_set_of_permissions() -> None:
    wanted = [
        NODES,
        Permission("get", "nodes"),
        Permission("watch", "services"),
        Permission("list", "services"),
        Permission("list", "endpointslices", group="discovery.k8s.io"),
        Permission("watch", "endpointslices", group="discovery.k8s.io"),
        Permission("list", "pods", namespace="kube-system"),
        Permission("get", "configmaps", namespace="kube-system", name="kube-proxy"),
        LOGS,
        LOGS,
        EVICT,
    ]
    found = roles(wanted, "kdnsctl")
    assert yaml.safe_dump(found, sort_keys=False) == yaml.safe_dump(
        [
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "kdnsctl"},
                "rules": [
                    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]},
                    {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]},
                    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
                ],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": {"name": "kdnsctl", "namespace": "default"},
                "rules": [{"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]}],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": {"name": "kdnsctl", "namespace": "kube-system"},
                "rules": [
                    {
                        "apiGroups": [""],
                        "resources": ["configmaps"],
                        "resourceNames": ["kube-proxy"],
                        "verbs": ["get"],
                    },
                    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
                    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
                ],
            },
        ],
        sort_keys=False,
    )


def test_nothing_is_granted_twice_and_nothing_more() -> None:
    everywhere = [Permission("get", "pods"), Permission("get", "pods", namespace="default")]
    assert [role["kind"] for role in roles(everywhere, "x")] == ["ClusterRole"]
    named = [Permission("get", "pods", namespace="a", name="p"), Permission("get", "pods", namespace="a")]
    (role,) = roles(named, "x")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    nameless = [Permission("create", "leases", group="coordination.k8s.io", namespace="a", name="kdnsctl-x")]
    (role,) = roles(nameless, "x")
    assert "resourceNames" not in role["rules"][0]  # RBAC cannot narrow create to a name
    assert roles([], "x") == []


def test_resources_share_a_rule_only_with_the_same_verbs() -> None:
    (role,) = roles([Permission("get", "a"), Permission("get", "b"), Permission("patch", "b")], "x")
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["a"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["b"], "verbs": ["get", "patch"]},
    ]
    (role,) = roles([Permission("get", "b"), Permission("get", "a")], "x")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["a", "b"], "verbs": ["get"]}]


def test_roles_are_bound_to_somebody() -> None:
    made = roles([NODES, LOGS], "kdnsctl")
    cluster, local = bindings(made, [{"kind": "User", "name": "jane"}])
    assert (cluster["kind"], local["kind"]) == ("ClusterRoleBinding", "RoleBinding")
    assert local["metadata"] == {"name": "kdnsctl", "namespace": "kube-system"}
    assert local["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "kdnsctl"}
    assert cluster["subjects"] == [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]
