"""Pods on a lab node: exactly their image's files, really dropped privileges, and what a kubelet does with them."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import websocket

from kdnsctl.lab import control, space
from kdnsctl.lab.kubeclient import ApiError, KubeClient
from kdnsctl.lab.spacedir import LabDir

NAMESPACE = "/api/v1/namespaces/default"
KUBE_PROXY_1_30 = "registry.k8s.io/kube-proxy:v1.30.14"
KUBE_PROXY_1_36 = "registry.k8s.io/kube-proxy:v1.36.2"
TOOLS = "kdnsctl.io/lab/tools:1"
# What a script may call in a kube-proxy image, and what it must not count on (kubernetes/release#4223).
PRESENT = (
    "sh",
    "cat",
    "grep",
    "wc",
    "sleep",
    "chmod",
    "ln",
    "rm",
    "iptables-save",
    "ip6tables-save",
    "ipset",
    "nft",
    "kmod",
)
ABSENT = ("ipvsadm", "date", "head", "tail", "tee", "timeout", "sha256sum", "tar", "python3", "curl", "ls", "id", "ps")


@dataclass(frozen=True)
class Done:
    """How an exec ended: both outputs, and the status message of the error channel."""

    stdout: str
    stderr: str
    status: dict[str, Any]

    @property
    def code(self) -> int:
        if self.status.get("status") == "Success":
            return 0
        causes = self.status.get("details", {}).get("causes", [])
        return next((int(each["message"]) for each in causes if each.get("reason") == "ExitCode"), -1)


Exec = Callable[..., Done]
MakePod = Callable[..., dict[str, Any]]


@pytest.fixture
def execute(lab: LabDir) -> Exec:
    server = urlsplit(space.status(lab.name, root=lab.root.parent).server)

    def run(pod: str, *command: str, container: str = "main", namespace: str = "default") -> Done:
        query = urlencode(
            [("container", container), ("stdout", "true"), ("stderr", "true"), *(("command", word) for word in command)]
        )
        link = websocket.create_connection(
            f"wss://{server.netloc}/api/v1/namespaces/{namespace}/pods/{pod}/exec?{query}",
            sslopt={"context": ssl.create_default_context(cafile=str(lab.ca_file))},
            header=[f"Authorization: Bearer {lab.token_file.read_text()}"],
            subprotocols=["v5.channel.k8s.io"],
            timeout=60,
            skip_utf8_validation=True,
        )
        channels: dict[int, bytes] = {}
        while True:
            opcode, data = link.recv_data()
            if opcode != websocket.ABNF.OPCODE_BINARY:
                break
            channels[data[0]] = channels.get(data[0], b"") + data[1:]
        link.shutdown()  # type: ignore[no-untyped-call]
        return Done(channels.get(1, b"").decode(), channels.get(2, b"").decode(), json.loads(channels.get(3, b"{}")))

    return run


def wait_for_pod(api: KubeClient, name: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Watch the pod until `condition` holds."""
    query = urlencode({"watch": "true", "fieldSelector": f"metadata.name={name}"})
    for line in api.lines(f"{NAMESPACE}/pods?{query}", timeout=60):
        pod = json.loads(line)["object"]
        if condition(pod):
            found: dict[str, Any] = pod
            return found
    raise AssertionError(f"pod {name} never got there")


def is_running(pod: dict[str, Any]) -> bool:
    return bool(pod.get("status", {}).get("phase") == "Running")


@pytest.fixture
def make_pod(api: KubeClient) -> Iterator[MakePod]:
    made: list[str] = []

    def make(
        name: str,
        image: str,
        command: list[str],
        *,
        until: Callable[[dict[str, Any]], bool] = is_running,
        context: Any = None,
        **spec: Any,
    ) -> dict[str, Any]:
        container = {"name": "main", "image": image, "command": command, "securityContext": context or {}}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "nodeName": "knode1", "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
                "containers": [container], **spec,
            },
        }  # fmt: skip
        api.create(f"{NAMESPACE}/pods", body)
        made.append(name)
        return wait_for_pod(api, name, until)

    yield make
    for name in made:
        with contextlib.suppress(ApiError):
            api.delete(f"{NAMESPACE}/pods/{name}", {"gracePeriodSeconds": 0})


def has_ended(pod: dict[str, Any]) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def logs(api: KubeClient, pod: str, **query: str) -> str:
    return b"".join(api.lines(f"{NAMESPACE}/pods/{pod}/log?{urlencode(query)}", timeout=30)).decode()


def test_the_kube_proxy_image_holds_its_tools_and_no_others(make_pod: MakePod, execute: Exec) -> None:
    make_pod("kp36", KUBE_PROXY_1_36, ["/bin/sleep", "600"])
    for tool in PRESENT:
        found = execute("kp36", "sh", "-c", f"command -v {tool}")
        assert (tool, found.code) == (tool, 0)
    for tool in (*ABSENT, "conntrack"):
        found = execute("kp36", tool)
        assert (tool, found.code, found.stdout) == (tool, -1, "")
        assert f'exec: "{tool}": executable file not found in $PATH' in found.status["message"]


def test_the_old_kube_proxy_image_has_conntrack(make_pod: MakePod, execute: Exec) -> None:
    make_pod("kp30", KUBE_PROXY_1_30, ["/bin/sleep", "600"])
    assert "conntrack v1.4" in execute("kp30", "conntrack", "--version").stdout


def test_a_script_meets_dash_and_exit_codes_come_back(make_pod: MakePod, execute: Exec) -> None:
    make_pod("shell", KUBE_PROXY_1_36, ["/bin/sleep", "600"])
    done = execute("shell", "/bin/sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.code) == ("out\n", "err\n", 3)
    # The bashism fails, as it does in the real image.
    assert execute("shell", "sh", "-c", "[[ a == a ]]").code == 127
    listing = execute("shell", "sh", "-c", "for each in /*; do echo $each; done").stdout.split()
    assert listing == [
        "/bin",
        "/dev",
        "/etc",
        "/lib",
        "/lib64",
        "/proc",
        "/run",
        "/sbin",
        "/sys",
        "/tmp",
        "/usr",
        "/var",
    ]


def test_capabilities_are_really_dropped(make_pod: MakePod, execute: Exec) -> None:
    make_pod("bare", TOOLS, ["sleep", "600"], context={"capabilities": {"drop": ["ALL"]}}, hostNetwork=True)
    status = execute("bare", "grep", "Cap", "/proc/self/status").stdout
    assert {line.split()[1] for line in status.splitlines()} == {"0000000000000000"}
    # The table can be read with no capability at all, the rules cannot (recorded on a real cluster).
    assert "dst=10.96.0.10" in execute("bare", "cat", "/proc/net/nf_conntrack").stdout
    rules = execute("bare", "iptables-save")
    assert (rules.stdout, rules.code != 0) == ("", True)
    assert "Permission denied" in rules.stderr


def test_net_admin_alone_reads_the_rules(make_pod: MakePod, execute: Exec) -> None:
    context = {"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}
    make_pod("admin", TOOLS, ["sleep", "600"], context=context, hostNetwork=True)
    assert execute("admin", "grep", "CapEff", "/proc/self/status").stdout.split()[1] == "0000000000001000"
    assert "KUBE-SVC-TCOU7JCQXEZGVUNU" in execute("admin", "iptables-save", "-t", "nat").stdout


def test_another_user_is_another_user(make_pod: MakePod, execute: Exec) -> None:
    make_pod(
        "user",
        TOOLS,
        ["sleep", "600"],
        context={"runAsUser": 1234, "runAsGroup": 99, "allowPrivilegeEscalation": False},
        hostNetwork=True,
    )
    assert execute("user", "id", "-u").stdout == "1234\n"
    assert execute("user", "id", "-g").stdout == "99\n"
    denied = execute("user", "cat", "/proc/net/nf_conntrack")
    assert (denied.code, denied.stdout) == (1, "")
    assert "NoNewPrivs:\t1" in execute("user", "cat", "/proc/self/status").stdout


def test_a_pod_has_its_own_network_and_processes(make_pod: MakePod, execute: Exec) -> None:
    pod = make_pod("alone", TOOLS, ["sleep", "600"])
    assert execute("alone", "cat", "/proc/1/cmdline").stdout == "sleep\x00600\x00"
    assert pod["status"]["podIP"] in execute("alone", "ip", "-4", "addr", "show", "dev", "eth0").stdout
    assert pod["status"]["podIP"].startswith("10.244.1.")
    assert execute("alone", "hostname").stdout == "alone\n"
    assert "nameserver 10.96.0.10" in execute("alone", "cat", "/etc/resolv.conf").stdout


def test_host_paths_and_host_pid_show_the_node(make_pod: MakePod, execute: Exec) -> None:
    volume = {"name": "logs", "hostPath": {"path": "/var/log"}}
    body = {
        "name": "main",
        "image": TOOLS,
        "command": ["sleep", "600"],
        "volumeMounts": [{"name": "logs", "mountPath": "/logs", "readOnly": True}],
    }
    make_pod("host", TOOLS, [], hostPID=True, hostNetwork=True, volumes=[volume], containers=[body])
    assert "kube-system_kube-proxy-" in execute("host", "ls", "/logs/pods").stdout
    assert execute("host", "touch", "/logs/x").code == 1
    assert execute("host", "cat", "/proc/1/cmdline").stdout.startswith("lab-node knode1")


def test_32_mb_of_output_arrive_whole(make_pod: MakePod, execute: Exec) -> None:
    make_pod("big", TOOLS, ["sleep", "600"])
    size = 32 * 1024 * 1024
    done = execute("big", "sh", "-c", f"head -c {size} /dev/zero | tr '\\0' x")
    assert (len(done.stdout), done.code) == (size, 0)


def test_the_deadline_ends_the_pod(make_pod: MakePod) -> None:
    pod = make_pod("late", TOOLS, ["sleep", "600"], until=has_ended, activeDeadlineSeconds=1)
    assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "DeadlineExceeded")


def test_exit_codes_become_phases(make_pod: MakePod) -> None:
    good = make_pod("good", TOOLS, ["sh", "-c", "exit 0"], until=has_ended)
    bad = make_pod("bad", TOOLS, ["sh", "-c", "exit 42"], until=has_ended)
    assert good["status"]["phase"] == "Succeeded"
    assert bad["status"]["phase"] == "Failed"
    assert bad["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 42


def test_logs_of_now_and_of_the_previous_run(make_pod: MakePod, api: KubeClient, lab: LabDir) -> None:
    script = "echo run; echo error >&2; cat /state/n; echo again > /state/n; sleep 0.2; exit 1"
    body = {
        "name": "main", "image": TOOLS, "command": ["sh", "-c", f"touch /state/n; {script}"],
        "volumeMounts": [{"name": "state", "mountPath": "/state"}],
    }  # fmt: skip

    def restarted(pod: dict[str, Any]) -> bool:
        status = pod.get("status", {}).get("containerStatuses", [{}])[0]
        return status.get("restartCount") == 1 and "waiting" in status.get("state", {})

    pod = make_pod(
        "again",
        TOOLS,
        [],
        until=restarted,
        restartPolicy="Always",
        containers=[body],
        volumes=[{"name": "state", "emptyDir": {}}],
    )
    assert pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert sorted(logs(api, "again", previous="true").split()) == ["error", "run"]
    assert sorted(logs(api, "again").split()) == ["again", "error", "run"]
    assert logs(api, "again", tailLines="1") in ("again\n", "error\n")
    stamped = logs(api, "again", timestamps="true").splitlines()
    assert all(line.split(" ")[0].endswith("Z") for line in stamped)
    uid = pod["metadata"]["uid"]
    files = sorted((lab.node_log("knode1") / "pods" / f"default_again_{uid}" / "main").iterdir())
    assert [file.name for file in files] == ["0.log", "1.log"]
    assert " stderr F error\n" in files[0].read_text()


def test_what_the_lab_cannot_run_says_why(make_pod: MakePod) -> None:
    def waiting(pod: dict[str, Any]) -> bool:
        statuses = pod.get("status", {}).get("containerStatuses", [])
        return bool(statuses) and statuses[0]["state"].get("waiting", {}).get("reason") not in (
            None,
            "ContainerCreating",
        )

    unknown = make_pod("unknown", "docker.io/library/busybox:1", ["sleep", "1"], until=waiting)
    assert unknown["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull"
    no_file = make_pod("nofile", KUBE_PROXY_1_36, ["/usr/bin/python3"], until=waiting)
    message = no_file["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
    assert message == 'exec: "/usr/bin/python3": stat /usr/bin/python3: no such file or directory'
    root = make_pod("root", TOOLS, ["sleep", "1"], until=waiting, context={"runAsNonRoot": True})
    assert root["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"


def test_a_node_that_bends_its_log_directory_makes_nobody_write_elsewhere(
    make_pod: MakePod, lab: LabDir, tmp_path: Path
) -> None:
    """The supervisor writes the logs from outside, where a link of the node's would lead to the machine's files."""
    pods = lab.node_log("knode3") / "pods"
    aside = pods.with_name("pods-aside")
    body = {"name": "main", "image": TOOLS, "command": ["sh", "-c", "echo text"]}

    def refused(pod: dict[str, Any]) -> bool:
        statuses = pod.get("status", {}).get("containerStatuses", [])
        return bool(statuses) and statuses[0]["state"].get("waiting", {}).get("reason") == "CreateContainerError"

    pods.rename(aside)
    pods.symlink_to(tmp_path)
    try:
        pod = make_pod("bent", TOOLS, [], until=refused, containers=[body], nodeName="knode3")
        message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
        assert "nothing was started or written" in message
        assert list(tmp_path.iterdir()) == []
    finally:
        pods.unlink()
        aside.rename(pods)


def test_a_working_directory_leads_nowhere_else(make_pod: MakePod, execute: Exec, tmp_path: Path) -> None:
    away = tmp_path / "made"
    body = {
        "name": "main",
        "image": TOOLS,
        "command": ["sleep", "600"],
        "workingDir": "/../../../../../../.." + str(away),
    }
    make_pod("climber", TOOLS, [], containers=[body])
    assert execute("climber", "sh", "-c", "readlink /proc/self/cwd").stdout == f"{away}\n"
    assert not away.exists()


def test_kube_proxys_own_endpoints(lab: LabDir) -> None:
    """From the node itself, as a port-forward to a host-network pod would see them."""

    def fetch(*arguments: str) -> str:
        code = (
            "import sys, urllib.request as u; "
            "r = u.Request(sys.argv[1], method=sys.argv[2], data=sys.argv[3].encode() or None); "
            "print(u.urlopen(r).read().decode())"
        )
        argv = ["/usr/bin/env", "python3", "-c", code, *arguments]
        output = control.ask(lab, {"op": "run", "node": "knode2", "argv": argv})["output"]
        assert isinstance(output, str)
        return output.strip()

    assert fetch("http://127.0.0.1:10249/proxyMode", "GET", "") == "iptables"
    assert json.loads(fetch("http://127.0.0.1:10256/healthz", "GET", ""))["nodeEligible"] is True
    metrics = fetch("http://127.0.0.1:10249/metrics", "GET", "")
    assert "kubeproxy_sync_proxy_rules_iptables_restore_failures_total 0" in metrics
    said = fetch("http://127.0.0.1:10249/debug/flags/v", "PUT", "4")
    assert said == "successfully set klog.logging.verbosity to 4"
    assert fetch("http://127.0.0.1:10249/debug/flags/v", "PUT", "2") == "successfully set klog.logging.verbosity to 2"


def test_a_deleted_pod_takes_its_address_and_files_with_it(make_pod: MakePod, api: KubeClient, lab: LabDir) -> None:
    pod = make_pod("gone", TOOLS, ["sleep", "600"])
    address, uid = pod["status"]["podIP"], pod["metadata"]["uid"]
    api.delete(f"{NAMESPACE}/pods/gone", {"gracePeriodSeconds": 1})
    version = pod["metadata"]["resourceVersion"]
    for event in api.watch(f"{NAMESPACE}/pods", {"resourceVersion": version, "fieldSelector": "metadata.name=gone"}):
        if event["type"] == "DELETED":
            break
    argv = ["ip", "netns", "list"]
    assert uid not in control.ask(lab, {"op": "run", "node": "knode1", "argv": argv})["output"]
    again = make_pod("gone-too", TOOLS, ["sleep", "600"])
    assert again["status"]["podIP"] != address
