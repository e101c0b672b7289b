"""verbosity and repair restart-kube-proxy as typed, on the lab's API with a kube-proxy that only answers HTTP.

Nothing else runs on these nodes, so nothing is captured or judged; tests/lab/test_verbosity.py does that in the kernel.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kdnsctl.changes.journal import Journal
from kdnsctl.changes.proxies import ANNOTATION
from kdnsctl.cluster import portforward
from kdnsctl.lab.api.faults import Fault, Respond
from kdnsctl.lab.api.server import ApiServer
from kdnsctl.lab.controllers.manager import ControllerManager
from kdnsctl.lab.kinds import CONFIG_MAPS, DAEMON_SETS, LEASES, NODES, PODS
from kdnsctl.lab.replies import Refused
from kdnsctl.lab.store import Store
from kdnsctl.model import KdnsctlError
from kdnsctl.repair import raising
from tests.lab.api.fake_kubelet import Cluster, settle
from tests.lab.api.memory_runtime import MemoryRuntime
from tests.lab.api.test_quarantine import grant
from tests.lab.conftest import ROOT, Kdnsctl, Ran

NODE = "knode1"
NAMESPACE = "kube-system"
RAISE = ("verbosity", "raise", NODE, "--yes", "--no-collect", "-o", "json")
RESTORE = ("verbosity", "restore", "--yes", "--no-collect", "-o", "json")


class Proxies(dict[tuple[str, str, int], tuple[str, int]]):
    """An HTTP server for every kube-proxy that is asked, with its level; `profiling` is as in its configuration."""

    def __init__(self) -> None:
        super().__init__()
        self.profiling = True
        self.failures: list[int] = []  # that their metrics tell of before a sync, one after the other
        self.put: list[tuple[str, str]] = []
        self._servers: dict[str, ThreadingHTTPServer] = {}

    def get(self, key: Any, default: Any = None) -> Any:  # as MemoryRuntime asks
        _, pod, port = key
        if port != 10249 or not pod.startswith("kube-proxy"):
            return default
        if pod not in self._servers:
            self._servers[pod] = self._serve(pod)
        return self._servers[pod].server_address

    def _serve(self, pod: str) -> ThreadingHTTPServer:
        everyone = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics" and everyone.failures:
                    failures = everyone.failures.pop(0)
                    name = "kubeproxy_sync_proxy_rules_iptables_restore_failures_total"
                    self._answer(200, f"{name} {failures}\n".encode())
                elif self.path == "/metrics":
                    self._answer(200, b"kubeproxy_sync_proxy_rules_last_timestamp_seconds 1.7e9\n")
                else:
                    self._answer(406 if everyone.profiling else 404, b"unsupported http method")

            def do_PUT(self) -> None:
                level = self.rfile.read(int(self.headers["Content-Length"])).decode()
                everyone.put.append((pod, level))
                self._answer(200, f"successfully set klog.logging.verbosity to {level}".encode())

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def close(self) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()


@pytest.fixture(autouse=True)
def cluster(store: Store) -> Iterator[Cluster]:
    """Controllers and kubelets at work."""
    manager = ControllerManager(store)
    settle(store, manager)
    with Cluster(store, manager) as cluster:
        yield cluster


@pytest.fixture
def proxies(runtime: MemoryRuntime) -> Iterator[Proxies]:
    proxies = Proxies()
    runtime.ports = proxies
    yield proxies
    proxies.close()


@pytest.fixture
def profiling_on(store: Store, proxies: Proxies) -> Proxies:
    config = store.get(CONFIG_MAPS, "kube-proxy", NAMESPACE)
    config["data"]["config.conf"] = config["data"]["config.conf"].replace("Profiling: false", "Profiling: true")
    store.update(CONFIG_MAPS, config)
    return proxies


@pytest.fixture(autouse=True)
def speaking_to_it(server: ApiServer, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    config = tmp_path / "kubeconfig"
    config.write_text(server.kubeconfig(), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def document(ran: Ran) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(ran.out)
    schema = json.loads((ROOT / "docs/schemas" / f"{data['kind']}.schema.json").read_text("utf-8"))
    jsonschema.validate(data, schema)
    return data


def daemon_set(store: Store) -> dict[str, Any]:
    return store.get(DAEMON_SETS, "kube-proxy", NAMESPACE)


def change_set(store: Store, change: Callable[[dict[str, Any]], object]) -> None:
    found = daemon_set(store)
    change(found)
    store.update(DAEMON_SETS, found)


def pods(store: Store) -> dict[str, str]:
    """The UIDs of the kube-proxies, by node."""
    found = [pod for pod in store.select(PODS) if pod["metadata"].get("labels", {}).get("k8s-app") == "kube-proxy"]
    return {pod["spec"]["nodeName"]: pod["metadata"]["uid"] for pod in found if "nodeName" in pod["spec"]}


def others(store: Store) -> dict[str, str]:
    return {node: uid for node, uid in pods(store).items() if node != NODE}


def left(store: Store) -> list[str]:
    """What still tells of a raised verbosity."""
    objects = [*store.select(NODES), *store.select(DAEMON_SETS)]
    return [one["metadata"]["name"] for one in objects if ANNOTATION in (one["metadata"].get("annotations") or {})]


def one(ran: Ran) -> dict[str, Any]:
    found: list[dict[str, Any]] = document(ran)["nodes"]
    assert len(found) == 1
    return found[0]


def test_at_runtime_nothing_restarts_and_it_goes_back(
    kdnsctl: Kdnsctl, store: Store, profiling_on: Proxies, server: ApiServer
) -> None:
    before = pods(store)

    ran = kdnsctl(*RAISE)

    assert ran.code == 0, ran.err
    node = one(ran)
    assert (node["result"], node["level"], node["way"]) == ("raised", 4, "runtime")
    assert [level for _, level in profiling_on.put] == ["4"]
    assert left(store) == [NODE]
    told = kdnsctl("status")
    assert f"{NODE}: kube-proxy's verbosity is raised to 4" in told.out + told.err
    assert kdnsctl(*RAISE).code == 0
    assert len(profiling_on.put) == 1  # it is raised already

    back = kdnsctl(*RESTORE)

    assert back.code == 0, back.err
    start = one(back)["level"]
    assert [level for _, level in profiling_on.put] == ["4", str(start)]
    assert (one(back)["result"], left(store), pods(store)) == ("restored", [], before)
    assert not [entry for entry in server.journal.entries() if entry.method == "DELETE" and "/pods/" in entry.path]
    assert store.select(LEASES) == []


def test_incident_undo_puts_it_back_too(kdnsctl: Kdnsctl, store: Store, profiling_on: Proxies) -> None:
    incident = document(kdnsctl(*RAISE))["incident"]

    undone = kdnsctl("incident", "undo", incident, "--yes", "-o", "json")

    assert undone.code == 0, undone.err
    assert [step["outcome"] for step in document(undone)["steps"]] == ["restored", "restored"]
    assert len(profiling_on.put) == 2
    assert left(store) == []


def test_a_pod_that_was_replaced_is_not_told_its_old_level(
    kdnsctl: Kdnsctl, store: Store, profiling_on: Proxies
) -> None:
    assert kdnsctl(*RAISE).code == 0
    node = store.get(NODES, NODE)
    record = json.loads(node["metadata"]["annotations"][ANNOTATION])
    node["metadata"]["annotations"][ANNOTATION] = json.dumps({**record, "uid": "of-a-pod-before"})
    store.update(NODES, node)

    back = kdnsctl(*RESTORE)

    assert (back.code, one(back)["reason"]["code"]) == (0, "replaced")
    assert len(profiling_on.put) == 1
    assert left(store) == []


@pytest.mark.usefixtures("profiling_on")
def test_overdue_is_said_by_every_command_that_lists_nodes(kdnsctl: Kdnsctl, store: Store) -> None:
    assert kdnsctl(*RAISE).code == 0
    node = store.get(NODES, NODE)
    record = json.loads(node["metadata"]["annotations"][ANNOTATION])
    node["metadata"]["annotations"][ANNOTATION] = json.dumps({**record, "until": "2026-01-01T00:00:00Z"})
    store.update(NODES, node)

    for command in (("status",), ("find-affected",), ("verbosity", "show"), ("release", "--yes"), ("cleanup",)):
        ran = kdnsctl(*command)
        said = " ".join((ran.out + ran.err).split())
        assert "OVERDUE" in said, command
        assert "kdnsctl verbosity restore" in said or command[0] == "verbosity", command


@pytest.mark.usefixtures("profiling_on")
def test_an_incident_says_what_it_has_left_raised(kdnsctl: Kdnsctl) -> None:
    incident = document(kdnsctl(*RAISE))["incident"]
    for words in (("list",), ("show", incident)):
        said = " ".join(kdnsctl("incident", *words).out.split())
        assert f"node {NODE}: kube-proxy's verbosity is raised to 4" in said
        assert "kdnsctl verbosity restore puts it back" in said
    assert kdnsctl(*RESTORE).code == 0
    for words in (("list",), ("show", incident)):
        assert "puts it back" not in kdnsctl("incident", *words).out


def test_a_daemon_set_that_was_raised_before_any_node_is_told_of(
    kdnsctl: Kdnsctl, store: Store, proxies: Proxies
) -> None:
    proxies.profiling = False
    with pytest.MonkeyPatch.context() as monkeypatch:
        die_at(monkeypatch, 8)
        with pytest.raises(Killed):
            kdnsctl(*RAISE)
    assert left(store) == ["kube-proxy"]
    told = kdnsctl("status")
    assert "DaemonSet kube-system/kube-proxy: kube-proxy's verbosity is raised to 4" in " ".join(told.out.split())
    assert "kdnsctl verbosity restore" in told.out
    status = document(kdnsctl("status", "-o", "json"))
    assert [one["daemonSet"] for one in status["raisedDaemonSets"]] == ["kube-system/kube-proxy"]
    for lease in store.select(LEASES):  # it would expire
        store.delete(LEASES, lease["metadata"]["name"], lease["metadata"]["namespace"])
    assert kdnsctl(*RESTORE).code == 0
    assert document(kdnsctl("status", "-o", "json"))["raisedDaemonSets"] == []


@pytest.mark.usefixtures("profiling_on")
def test_for_a_while_puts_it_back_by_itself(kdnsctl: Kdnsctl, store: Store) -> None:
    ran = kdnsctl(*RAISE, "--for", "1s")

    assert ran.code == 0, ran.err
    assert "raised until" in ran.err
    assert (one(ran)["result"], left(store)) == ("restored", [])


@pytest.mark.usefixtures("profiling_on")
def test_what_fails_while_it_is_raised_for_a_while_leaves_nothing_raised(
    kdnsctl: Kdnsctl, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> str:
        raise KdnsctlError("the disk is full")

    monkeypatch.setattr(raising, "hold", failing)
    ran = kdnsctl(*RAISE, "--for", "10m")

    assert ran.code == 1
    assert "the disk is full: putting it back" in ran.err
    assert (one(ran)["result"], left(store)) == ("restored", [])


@pytest.mark.usefixtures("profiling_on")
def test_interrupted_while_a_node_is_raised_the_answer_tells_that_it_may_be(
    kdnsctl: Kdnsctl, store: Store, proxies: Proxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = portforward.put

    def interrupted(*words: Any, **more: Any) -> Any:
        put(*words, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(portforward, "put", interrupted)
    ran = kdnsctl(*RAISE)
    assert (ran.code, len(proxies.put), left(store)) == (130, 1, [NODE])
    node = one(ran)
    assert (node["result"], node["reason"]["code"], node["raised"]["level"]) == ("failed", "ended", 4)
    assert "kdnsctl verbosity restore" in node["advice"]


class Killed(BaseException):
    """The process is gone: nothing that it has ahead of it is done."""


def die_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """End the run when it would write its record `number`; what was sent before has been done."""
    written = 0
    append = Journal.append

    def dying(self: Journal, kind: str, body: Any) -> Any:
        nonlocal written
        written += 1
        if written > number:
            raise Killed
        return append(self, kind, body)

    monkeypatch.setattr(Journal, "append", dying)


@pytest.mark.parametrize("profiling", [True, False])
def test_killed_at_any_step_it_can_be_put_back(
    kdnsctl: Kdnsctl, store: Store, proxies: Proxies, request: pytest.FixtureRequest, *, profiling: bool
) -> None:
    if profiling:
        request.getfixturevalue("profiling_on")
    proxies.profiling = profiling
    spec, beside = daemon_set(store)["spec"], others(store)
    deaths, finished = 0, False
    for number in range(2, 30):
        with pytest.MonkeyPatch.context() as monkeypatch:
            die_at(monkeypatch, number)
            try:
                finished = kdnsctl(*RAISE).code == 0
            except Killed:
                finished = False
        for lease in store.select(LEASES):  # it would expire
            store.delete(LEASES, lease["metadata"]["name"], lease["metadata"]["namespace"])
        deaths += not finished
        back = kdnsctl(*RESTORE)
        assert back.code == 0, (number, back.err, back.out)
        assert left(store) == [], number
        assert daemon_set(store)["spec"] == spec, number
        assert others(store) == beside, number
        if finished:
            break
    assert finished
    assert deaths >= (4 if profiling else 10)


def test_killed_while_putting_back_it_is_gone_on_with(kdnsctl: Kdnsctl, store: Store, proxies: Proxies) -> None:
    proxies.profiling = False
    spec, beside = daemon_set(store)["spec"], others(store)
    assert kdnsctl(*RAISE).code == 0
    finished = False
    for number in range(1, 30):
        with pytest.MonkeyPatch.context() as monkeypatch:
            die_at(monkeypatch, number)
            try:
                finished = kdnsctl(*RESTORE).code == 0
            except Killed:
                finished = False
        if finished:
            break
        # Before the strategy is back, no other node's pod may be of another revision.
        assert others(store) == beside, number
    assert finished
    assert (left(store), daemon_set(store)["spec"], others(store)) == ([], spec, beside)


def test_by_the_template_only_the_named_node_restarts(kdnsctl: Kdnsctl, store: Store, proxies: Proxies) -> None:
    proxies.profiling = False
    spec, before = daemon_set(store)["spec"], pods(store)

    ran = kdnsctl(*RAISE)

    assert ran.code == 0, ran.err
    assert one(ran)["way"] == "template"
    raised = daemon_set(store)["spec"]
    assert raised["updateStrategy"] == {"type": "OnDelete"}
    assert "--v=4" in raised["template"]["spec"]["containers"][0]["command"]
    now = pods(store)
    assert {node for node in before if before[node] != now[node]} == {NODE}
    assert proxies.put == []

    elsewhere = kdnsctl("verbosity", "restore", "knode2", *RESTORE[2:])
    assert (elsewhere.code, one(elsewhere)["reason"]["code"]) == (0, "notRaised")
    assert (daemon_set(store)["spec"], pods(store)) == (raised, now)

    assert kdnsctl(*RESTORE).code == 0
    assert daemon_set(store)["spec"] == spec
    assert others(store) == {node: uid for node, uid in before.items() if node != NODE}
    assert pods(store)[NODE] not in (before[NODE], now[NODE])


@pytest.mark.parametrize(("failures", "result"), [([1], "raised"), ([1, 2], "failed")], ids=["once", "for good"])
def test_rules_that_could_not_be_written_once_are_waited_for(
    kdnsctl: Kdnsctl, proxies: Proxies, failures: list[int], result: str
) -> None:
    proxies.profiling = False
    proxies.failures = failures
    node = one(kdnsctl(*RAISE))
    assert (node["result"], (node["reason"] or {}).get("code")) == (
        result,
        None if result == "raised" else "notWritten",
    )


def test_who_sets_the_strategy_back_stops_it_and_nobody_else_restarts(
    kdnsctl: Kdnsctl, store: Store, proxies: Proxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reconciler writes RollingUpdate again between the strategy and the command line."""
    proxies.profiling = False
    spec, before = daemon_set(store)["spec"], pods(store)
    append = Journal.append

    def meddling(self: Journal, kind: str, body: Any) -> Any:
        if kind == "stepBegun" and body["step"]["verb"] == "daemonSet.command":
            change_set(store, lambda found: found["spec"].update(updateStrategy=spec["updateStrategy"]))
        return append(self, kind, body)

    monkeypatch.setattr(Journal, "append", meddling)
    ran = kdnsctl(*RAISE)

    assert ran.code == 1
    assert one(ran)["reason"]["code"] == "drift"
    assert (daemon_set(store)["spec"], pods(store), left(store)) == (spec, before, [])


def reconciling(monkeypatch: pytest.MonkeyPatch, store: Store, verb: str, kind: str, spec: dict[str, Any]) -> None:
    """A manager that writes this into the DaemonSet when a step of `verb` about a `kind` is about to be taken."""
    append = Journal.append

    def meddling(self: Journal, record: str, body: Any) -> Any:
        step = body.get("step") or {}
        if record == "stepBegun" and step["verb"] == verb and kind in str(step["args"]):
            monkeypatch.undo()
            change_set(store, lambda found: found["spec"].update(spec))
        return append(self, record, body)

    monkeypatch.setattr(Journal, "append", meddling)


@pytest.mark.parametrize(("verb", "kind"), [("verbosity.record", "/nodes/"), ("pod.delete", NODE)])
def test_a_manager_that_puts_the_command_line_back_stops_it_and_nobody_else_restarts(
    kdnsctl: Kdnsctl, store: Store, proxies: Proxies, verb: str, kind: str
) -> None:
    """GitOps, or an addon manager, has its manifest again after the command line was raised."""
    proxies.profiling = False
    spec, beside = daemon_set(store)["spec"], others(store)
    with pytest.MonkeyPatch.context() as monkeypatch:
        reconciling(monkeypatch, store, verb, kind, spec)
        ran = kdnsctl("verbosity", "raise", NODE, "knode2", *RAISE[3:])

    assert ran.code == 1, ran.err
    first, second = document(ran)["nodes"]
    assert (first["result"], first["reason"]["code"], second["result"]) == ("failed", "drift", "notTried")
    assert "kdnsctl verbosity restore" in first["advice"]
    assert (daemon_set(store)["spec"], others(store)) == (spec, beside)

    back = kdnsctl(*RESTORE)
    assert back.code == 0, back.err
    assert (left(store), daemon_set(store)["spec"], others(store)) == ([], spec, beside)


def test_who_sets_only_the_strategy_back_has_the_command_line_put_back_at_once(
    kdnsctl: Kdnsctl, store: Store, proxies: Proxies
) -> None:
    proxies.profiling = False
    spec = daemon_set(store)["spec"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        reconciling(monkeypatch, store, "pod.delete", NODE, {"updateStrategy": spec["updateStrategy"]})
        ran = kdnsctl(*RAISE)

    assert (ran.code, one(ran)["reason"]["code"]) == (1, "drift")
    assert daemon_set(store)["spec"] == spec
    assert kdnsctl(*RESTORE).code == 0
    assert left(store) == []


def test_a_controller_that_is_first_at_the_pod_is_noticed_without_the_watch(
    kdnsctl: Kdnsctl, store: Store, proxies: Proxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxies.profiling = False
    spec = daemon_set(store)["spec"]

    def replaced(*_: Any, **__: Any) -> None:
        change_set(store, lambda found: found["spec"].update(updateStrategy=spec["updateStrategy"]))
        raise KdnsctlError("kube-proxy's pod was replaced meanwhile by somebody else", code="drift")

    monkeypatch.setattr(raising, "replace_proxy", replaced)
    monkeypatch.setattr(raising, "drift_of", lambda _: "")  # the watch has not told yet
    ran = kdnsctl(*RAISE)
    assert (ran.code, one(ran)["reason"]["code"]) == (1, "drift")
    assert daemon_set(store)["spec"] == spec


@pytest.mark.parametrize(
    ("metadata", "name", "way"),
    [
        ({"labels": {"addonmanager.kubernetes.io/mode": "Reconcile"}}, "addon manager", "Azure/AKS#2306"),
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, "Helm", "helm upgrade"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "a:b"}}, "Argo CD", "manifest is kept"),
    ],
)
def test_a_managed_daemon_set_is_refused_with_its_own_way(
    kdnsctl: Kdnsctl, store: Store, proxies: Proxies, metadata: dict[str, Any], name: str, way: str
) -> None:
    proxies.profiling = False
    for section, entries in metadata.items():
        change_set(store, lambda found, s=section, e=entries: found["metadata"].setdefault(s, {}).update(e))  # type: ignore[misc]
    before = daemon_set(store)

    ran = kdnsctl(*RAISE)

    assert ran.code == 5
    node = one(ran)
    assert name in node["reason"]["message"]
    assert way in node["advice"]
    assert daemon_set(store) == before
    assert left(store) == []


def test_without_profiling_and_without_restart_nothing_is_done(
    kdnsctl: Kdnsctl, store: Store, proxies: Proxies
) -> None:
    proxies.profiling = False
    before = daemon_set(store)
    assert kdnsctl(*RAISE, "--no-restart").code == 5
    assert daemon_set(store) == before


def test_the_printed_role_is_enough_and_without_it_nothing_is_changed(
    kdnsctl: Kdnsctl, store: Store, server: ApiServer, proxies: Proxies
) -> None:
    proxies.profiling = False
    before = daemon_set(store)["spec"]
    manifests = json.loads(kdnsctl("rbac", "verbosity", "-o", "json").out)["items"]
    grant(server, manifests, "jane")
    grant(server, manifests, "joe", without="patch daemonsets")

    refused = kdnsctl(*RAISE, "--as", "joe")
    assert refused.code == 5
    assert "not allowed: patch daemonsets" in refused.err
    assert (daemon_set(store)["spec"], left(store)) == (before, [])

    ran = kdnsctl(*RAISE, "--as", "jane")
    assert ran.code == 0, ran.err
    assert kdnsctl(*RESTORE, "--as", "jane").code == 0
    assert (daemon_set(store)["spec"], left(store)) == (before, [])


@pytest.mark.usefixtures("profiling_on")
def test_where_leases_are_forbidden_it_is_said_that_nothing_locks(
    kdnsctl: Kdnsctl, store: Store, server: ApiServer
) -> None:
    refusal = Refused(403, "Forbidden", "leases is forbidden: you may not", details={}).status()
    server.faults.add(Fault(Respond(403, status=refusal), path="/leases", times=None))
    for words in (RAISE, RESTORE, ("repair", "restart-kube-proxy", NODE, "--no-collect", "--yes")):
        told = " ".join(kdnsctl(*words).err.split())
        assert f"no Lease for {NODE}: nothing keeps another operator off it meanwhile" in told, words
        assert "is the lock" not in told
    assert left(store) == []


@pytest.mark.usefixtures("profiling_on")
def test_a_record_that_is_none_is_not_acted_on(kdnsctl: Kdnsctl, store: Store, proxies: Proxies) -> None:
    node = store.get(NODES, NODE)
    node["metadata"].setdefault("annotations", {})[ANNOTATION] = '{"version": 1, "level": 99}'
    store.update(NODES, node)
    assert kdnsctl(*RAISE).code == 5
    assert kdnsctl("verbosity", "restore", NODE, "--yes", "-o", "json").code == 5
    assert proxies.put == []
    # One that a node has been given, as by its own kubelet, keeps no other node from being put back.
    assert kdnsctl("verbosity", "raise", "knode2", "--yes", "--no-collect", "-o", "json").code == 0
    proxies.put.clear()
    ran = kdnsctl(*RESTORE)
    assert {node["name"]: node["result"] for node in document(ran)["nodes"]} == {NODE: "refused", "knode2": "restored"}
    assert (ran.code, len(proxies.put)) == (4, 1)


def test_the_plan_of_a_restart_says_that_the_next_kube_proxy_is_another_one(kdnsctl: Kdnsctl, store: Store) -> None:
    """Under OnDelete, or in the middle of a rollout: who restarts a kube-proxy then upgrades it."""

    def newer(found: dict[str, Any]) -> None:
        found["spec"]["updateStrategy"] = {"type": "OnDelete"}
        found["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.k8s.io/kube-proxy:v9.9.9"

    change_set(store, newer)
    plan = document(kdnsctl("repair", "restart-kube-proxy", NODE, "--dry-run=client", "-o", "json"))
    assert (
        "the next kube-proxy has image registry.k8s.io/kube-proxy:v9.9.9 instead of " in plan["nodes"][0]["notes"][-1]
    )


def test_without_evidence_no_kube_proxy_is_restarted(kdnsctl: Kdnsctl, store: Store, runtime: MemoryRuntime) -> None:
    for pod in store.select(PODS, NAMESPACE):
        runtime.unreachable[pod["metadata"]["name"]] = "the node's kubelet does not answer"
    plan = document(kdnsctl("repair", "restart-kube-proxy", NODE, "--dry-run=client", "-o", "json"))
    assert [step["verb"] for step in plan["nodes"][0]["steps"]] == ["pod.delete"]
    assert plan["nodes"][0]["steps"][0]["uid"] == pods(store)[NODE]
    assert plan["nodes"][0]["notes"] == ["its evidence is captured before"]
    before = pods(store)
    ran = kdnsctl("repair", "restart-kube-proxy", NODE, "--yes", "-o", "json")
    assert ran.code == 5
    assert one(ran)["reason"]["code"] == "notCaptured"
    assert pods(store) == before
