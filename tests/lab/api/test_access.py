from __future__ import annotations

import pytest

from kdnsctl.lab.api.access import Identity, Policy, Rule
from kdnsctl.lab.api.server import ApiServer
from tests.lab.api.client import Client

REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@pytest.mark.parametrize(
    ("rule", "request_", "allowed"),
    [
        (Rule(("get",), ("",), ("pods",)), ("get", "", "pods", "x", "d"), True),
        (Rule(("get",), ("",), ("pods",)), ("list", "", "pods", "", "d"), False),
        (Rule(("get",), ("",), ("pods",)), ("get", "", "pods/log", "x", "d"), False),
        (Rule(("get",), ("",), ("pods/log",)), ("get", "", "pods/log", "x", "d"), True),
        (Rule(("get",), ("",), ("*/log",)), ("get", "", "pods/log", "x", "d"), True),
        (Rule(("get",), ("apps",), ("pods",)), ("get", "", "pods", "x", "d"), False),
        (Rule(("*",), ("*",), ("*",)), ("patch", "apps", "daemonsets", "x", "d"), True),
        (Rule(("get",), ("",), ("pods",), names=("y",)), ("get", "", "pods", "x", "d"), False),
        (Rule(("get",), ("",), ("pods",), namespaces=("e",)), ("get", "", "pods", "x", "d"), False),
        (Rule(("get",), ("",), ("pods",), namespaces=("d",)), ("get", "", "pods", "x", "d"), True),
    ],
)
def test_rules(rule: Rule, request_: tuple[str, str, str, str, str], allowed: bool) -> None:
    assert rule.allows(*request_) is allowed


def test_paths_outside_resources() -> None:
    policy = Policy()
    jane = Identity("jane", ("system:authenticated",))
    assert policy.allows_path(jane, "get", "/apis/apps/v1")
    assert not policy.allows_path(jane, "get", "/metrics")
    anonymous = Identity("system:anonymous", ("system:unauthenticated",))
    assert policy.allows_path(anonymous, "get", "/version")
    assert not policy.allows_path(anonymous, "get", "/api")


def test_what_is_granted_to_a_user_or_a_group_is_allowed(server: ApiServer) -> None:
    server.policy.grant_group("viewers", Rule(("get", "list"), ("",), ("nodes",)))
    server.policy.grant_user("jane", Rule(("patch",), ("",), ("nodes",), names=("knode1",)))
    with Client(server, "jane", ("viewers",)) as jane:
        assert jane.get("/api/v1/nodes").code == 200
        assert jane.get("/api/v1/pods").code == 403
        media = {"Content-Type": "application/merge-patch+json"}
        assert jane.send("PATCH", "/api/v1/nodes/knode1", {}, media).code == 200
        assert jane.send("PATCH", "/api/v1/nodes/knode2", {}, media).code == 403


def test_a_watch_needs_its_own_verb(server: ApiServer) -> None:
    server.policy.grant_user("jane", Rule(("list",), ("",), ("nodes",)))
    with Client(server, "jane", ()) as jane:
        reply = jane.get("/api/v1/nodes?watch=true")
    assert reply.code == 403
    assert 'cannot watch resource "nodes"' in reply.json["message"]


def test_exec_by_websocket_needs_create_as_well_as_get(server: ApiServer) -> None:
    server.policy.grant_user("jane", Rule(("get",), ("",), ("pods/exec",)))
    path = "/api/v1/namespaces/default/pods/web/exec?command=true&stdout=true"
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Protocol": "v5.channel.k8s.io"}
    with Client(server, "jane", ()) as jane:
        reply = jane.get(path, headers)
    assert reply.code == 403
    assert 'cannot create resource "pods/exec" in API group "" in the namespace "default"' in reply.json["message"]


def test_tokens_and_strangers(server: ApiServer) -> None:
    server.policy.tokens["secret"] = Identity("robot", ("system:masters",))
    with Client(server, "nobody", ()) as client:
        assert client.get("/api/v1/nodes", {"Authorization": "Bearer secret"}).code == 200
        unknown = client.get("/api/v1/nodes", {"Authorization": "Bearer wrong"})
    assert (unknown.code, unknown.json["reason"]) == (401, "Unauthorized")


def test_without_certificate_or_token_one_is_anonymous(server: ApiServer) -> None:
    with Client(server, certificate=False) as stranger:
        reply = stranger.get("/api/v1/nodes")
        assert stranger.get("/version").code == 200
    assert reply.code == 403
    assert 'User "system:anonymous" cannot list resource "nodes"' in reply.json["message"]


def test_who_may_not_impersonate_is_told_so(server: ApiServer) -> None:
    with Client(server, "jane", ()) as jane:
        reply = jane.get("/api/v1/nodes", {"Impersonate-User": "root"})
    assert reply.code == 403
    assert reply.json["message"] == (
        'users "root" is forbidden: User "jane" cannot impersonate resource "users" in API group "" '
        "at the cluster scope"
    )


def test_impersonated_groups_count(server: ApiServer, client: Client) -> None:
    server.policy.grant_group("viewers", Rule(("list",), ("",), ("nodes",)))
    as_jane = {"Impersonate-User": "jane"}
    assert client.get("/api/v1/nodes", as_jane).code == 403
    assert client.get("/api/v1/nodes", as_jane | {"Impersonate-Group": "viewers"}).code == 200
    assert client.get("/api/v1/nodes", {"Impersonate-Group": "viewers"}).code == 500


def test_reviews_answer_for_the_impersonated(server: ApiServer, client: Client) -> None:
    server.policy.grant_user("jane", Rule(("create",), ("",), ("pods/exec",), namespaces=("kube-system",)))
    asked = {"verb": "create", "resource": "pods", "subresource": "exec", "namespace": "kube-system"}
    as_jane = {"Impersonate-User": "jane"}

    def allowed(**attributes: str) -> bool:
        spec = {"resourceAttributes": asked | attributes}
        return bool(client.send("POST", REVIEW, {"spec": spec}, as_jane).json["status"]["allowed"])

    assert allowed()
    assert not allowed(namespace="default")
    assert not allowed(verb="get")
    path = {"spec": {"nonResourceAttributes": {"verb": "get", "path": "/version"}}}
    assert client.send("POST", REVIEW, path, as_jane).json["status"] == {"allowed": True}
    rules = client.send(
        "POST", REVIEW.replace("access", "rules"), {"spec": {"namespace": "kube-system"}}, as_jane
    ).json["status"]
    assert {"verbs": ["create"], "apiGroups": [""], "resources": ["pods/exec"]} in rules["resourceRules"]
    assert rules["incomplete"] is False


@pytest.mark.parametrize(
    ("asked", "groups"),
    [
        ("", ("system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated")),
        ("own", ("own", "system:authenticated")),
    ],
)
def test_an_impersonated_service_account_has_its_groups(client: Client, asked: str, groups: tuple[str, ...]) -> None:
    headers = {"Impersonate-User": "system:serviceaccount:kube-system:coredns"}
    headers |= {"Impersonate-Group": asked} if asked else {}
    reply = client.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, headers)
    assert tuple(reply.json["status"]["userInfo"]["groups"]) == groups
