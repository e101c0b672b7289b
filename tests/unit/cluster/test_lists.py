from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.errors import AnswerError, ForbiddenError, GoneError
from kdnsctl.cluster.lists import list_all, list_metadata
from kdnsctl.cluster.objects import EndpointSlice, Node, Pod
from tests.unit.cluster.apiserver import API, Exchange, Server, recorded, reply
from tests.unit.cluster.conftest import Connect, Kubeconfig


def node_page(names: list[str], place: str = "", version: str = "7") -> dict[str, object]:
    items = [{"metadata": {"name": name}} for name in names]
    return {"metadata": {"resourceVersion": version, "continue": place}, "items": items}


def test_the_recorded_list_of_nodes(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/api/v1/nodes", reply((API / "nodes.json").read_bytes()))
    listing = list_all(connect_to(api), "/api/v1/nodes", Node, labels="a=b", scope=scope)
    assert listing.resource_version == "2148"
    node = listing.items[0]
    assert (node.metadata.name, node.os, node.ready) == ("knode1", "linux", True)
    assert node.status.addresses[0].address == "10.88.0.11"
    assert node.status.node_info.kubelet_version == "v1.36.2"
    assert api.requests[0].query == {"labelSelector": ["a=b"], "limit": ["500"]}


def test_pages_are_followed_to_the_end(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/n", reply(node_page(["a", "b"], "p2")), reply(node_page(["c"], "p3")), reply(node_page([], version="9")))
    listing = list_all(connect_to(api), "/n", Node, page=2, scope=scope)
    assert [node.metadata.name for node in listing.items] == ["a", "b", "c"]
    assert listing.resource_version == "9"
    assert [request.query.get("continue") for request in api.requests] == [None, ["p2"], ["p3"]]
    assert all(request.query["limit"] == ["2"] for request in api.requests)


def test_a_list_that_expired_on_the_way_is_started_again_once(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    expired = recorded("nodes-expired-continue")
    api.on("/n", reply(node_page(["a"], "p2")), expired, reply(node_page(["b", "c"])))
    listing = list_all(connect_to(api), "/n", Node, scope=scope)
    assert [node.metadata.name for node in listing.items] == ["b", "c"]
    api.on("/n", expired)
    with pytest.raises(GoneError):
        list_all(connect_to(api), "/n", Node, scope=scope)


def test_only_metadata_is_asked_for(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/api/v1/nodes", reply((API / "nodes-partial-metadata.json").read_bytes()))
    listing = list_metadata(connect_to(api), "/api/v1/nodes", scope=scope)
    assert [one.metadata.name for one in listing.items] == ["knode1", "knode2", "knode3"]
    assert "as=PartialObjectMetadataList" in (api.requests[0].header("Accept") or "")


def test_a_list_that_may_not_be_read_is_an_error_and_not_empty(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on("/api/v1/nodes", recorded("forbidden-list-nodes"))
    with pytest.raises(ForbiddenError) as caught:
        list_all(connect_to(api), "/api/v1/nodes", Node, scope=scope)
    assert caught.value.hint == "`kdnsctl rbac` prints the permissions that are needed"


def test_null_where_the_api_sends_it(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/s", reply({"metadata": {}, "items": None}))
    connection = connect_to(api)
    assert list_all(connection, "/s", EndpointSlice, scope=scope).items == []
    api.on("/s", reply({"metadata": {}, "items": [{"addressType": "IPv4", "endpoints": None, "ports": None}]}))
    assert list_all(connection, "/s", EndpointSlice, scope=scope).items[0].endpoints is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"metadata": {"continue": "again"}, "items": []}, "go round in a circle"),
        ({"items": [{"metadata": {"name": 7}}]}, r"Expected `str`, got `int`"),
        ([], "Expected `object`, got `array`"),
    ],
)
def test_lists_that_are_none(api: Server, connect_to: Connect, scope: CancelScope, body: object, said: str) -> None:
    api.on("/n", reply(body))
    with pytest.raises(AnswerError, match=said):
        list_all(connect_to(api), "/n", Node, scope=scope)


def test_five_thousand_nodes_and_pods_need_less_than_100_mb(
    api: Server, kubeconfig: Kubeconfig, tmp_path: Path
) -> None:
    def in_pages(file: str) -> object:
        one = json.loads((API / file).read_text())["items"][-1]
        text = msgspec.json.encode(one)
        page = b'{"metadata":{"resourceVersion":"1","continue":"%d"},"items":[' + b",".join([text] * 500) + b"]}"

        def answer(exchange: Exchange) -> None:
            number = int(exchange.seen.query.get("continue", ["0"])[0]) + 1
            exchange.send(200, page % number if number < 10 else page.replace(b"%d", b""))

        return answer

    api.on("/api/v1/nodes", in_pages("nodes.json"))  # type: ignore[arg-type]
    api.on("/api/v1/pods", in_pages("pods-kube-system.json"))  # type: ignore[arg-type]
    kubeconfig(api.url)
    program = f"""
        import re
        from kdnsctl.cancel import CancelScope
        from kdnsctl.cluster.connection import ConnectOptions, connect
        from kdnsctl.cluster.lists import list_all
        from kdnsctl.cluster.objects import Node, Pod
        with CancelScope(300) as scope:
            connection = connect(ConnectOptions(environment={{"HOME": {str(tmp_path)!r}}}, request_timeout=None), scope)
            nodes = list_all(connection, "/api/v1/nodes", Node, scope=scope).items
            pods = list_all(connection, "/api/v1/pods", Pod, scope=scope).items
        peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
        print(len(nodes), len(pods), int(peak[1]) // 1024)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    nodes, pods, peak = (int(word) for word in done.stdout.split())
    assert (nodes, pods) == (5000, 5000)
    assert peak < 100


def test_the_recorded_pods_are_read(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/p", reply((API / "pods-kube-system.json").read_bytes()))
    pods = list_all(connect_to(api), "/p", Pod, scope=scope).items
    proxy = next(pod for pod in pods if pod.metadata.name == "kube-proxy-5wt8d")
    status = proxy.container_status("kube-proxy")
    assert (proxy.spec.node_name, proxy.spec.host_network, proxy.static) == ("knode3", True, False)
    assert proxy.metadata.controller is not None
    assert proxy.metadata.controller.kind == "DaemonSet"
    assert status is not None
    assert status.state.running is not None
    assert status.state.running.started_at is not None
    assert status.restart_count == 0
