from __future__ import annotations

import dataclasses
import datetime as dt
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.errors import ForbiddenError
from kdnsctl.cluster.kubeproxy import PodPlace
from kdnsctl.cluster.retries import NO_RETRIES
from kdnsctl.model import CancelledError, Endpoint, Fact, KdnsctlError, Privilege, Proof, Toolset
from kdnsctl.netfilter.trailer import MARKER
from kdnsctl.reach.kubeproxyexec import KubeProxyExec, needed
from kdnsctl.reach.shell import MAX_STDERR, NodeShell, Reading
from tests.unit.cluster.apiserver import Answer, Exchange, Server, status
from tests.unit.cluster.conftest import Connect
from tests.unit.cluster.websocketserver import (
    CLOSED,
    STDERR,
    STDOUT,
    V4,
    V5,
    exit_code,
    hang,
    message,
    received,
    success,
    switch,
    websocket,
)

PLACE = PodPlace("kube-system", "kube-proxy-x", "uid-1", "kube-proxy", "kube-proxy:v1.30.3", 0, running=True)
EXEC = "/api/v1/namespaces/kube-system/pods/kube-proxy-x/exec"
FORWARD = "/api/v1/namespaces/kube-system/pods/kube-proxy-x/portforward"

Change = Callable[[bytes], bytes]


def fact(*command: str, **given: object) -> Fact:
    plain = Fact(
        id="test",
        title="something",
        privilege=Privilege.NONE,
        proof=Proof.TRAILER,
        max_bytes=1 << 20,
        seconds=50,
        commands={Toolset.KUBE_PROXY: command},
    )
    return dataclasses.replace(plain, **given)  # type: ignore[arg-type]


def running(change: Change = lambda out: out, *, then: bytes | None = None) -> Answer:
    """Run the command for real; `change` is what happens to its output on the way, `then` replaces its Status."""

    def answer(exchange: Exchange) -> None:
        ran = subprocess.run(exchange.seen.query["command"], capture_output=True, check=False, timeout=50)
        switch(exchange, V5)
        out = change(ran.stdout)
        frames = [message(STDOUT, out[start : start + 1000]) for start in range(0, len(out), 1000)]
        frames += [message(STDERR, ran.stderr)] if ran.stderr else []
        said = success() if ran.returncode == 0 else exit_code(ran.returncode)
        exchange.wfile.write(b"".join(frames) + (said + CLOSED if then is None else then))
        exchange.wfile.flush()
        exchange.close_connection = True

    return answer


class Node:
    """The shell of a node, and what its sink got."""

    def __init__(self, shell: NodeShell, scope: CancelScope) -> None:
        self.shell = shell
        self.scope = scope
        self.got = bytearray()

    def read(self, what: Fact) -> Reading:
        return self.shell.read(what, self.got.extend, scope=self.scope)


@pytest.fixture
def node(api: Server, connect_to: Connect, scope: CancelScope) -> Node:
    return Node(KubeProxyExec(connect_to(api), "knode1", PLACE), scope)


@pytest.fixture
def table(tmp_path: Path) -> str:
    file = tmp_path / "table"
    file.write_bytes(b"udp dst=10.96.0.10 a\nudp dst=10.9.9.9 b\nudp dst=10.96.0.10 c\n\xff no newline at the end")
    return str(file)


@pytest.fixture
def lines(tmp_path: Path) -> str:
    file = tmp_path / "lines"
    file.write_bytes(b"udp dst=10.96.0.10 a\nudp dst=10.9.9.9 b\nudp dst=10.96.0.10 c\n")
    return str(file)


def test_a_whole_output_comes_with_its_proof_and_without_its_trailer(api: Server, node: Node, table: str) -> None:
    api.on(EXEC, running())
    before = dt.datetime.now(dt.UTC)
    reading = node.read(fact("cat", table))
    assert bytes(node.got) == Path(table).read_bytes()
    assert (reading.exit_code, reading.received, reading.total) == (0, len(node.got), None)
    assert (reading.complete, reading.completeness.proof) == (True, Proof.TRAILER)
    assert (reading.fact, reading.node, reading.rung) == ("test", "knode1", "exec")
    assert before <= reading.started <= reading.ended <= dt.datetime.now(dt.UTC)
    assert reading.seconds >= 0
    assert reading.trailer is not None


def test_the_command_runs_in_the_container_of_kube_proxy(api: Server, node: Node, table: str) -> None:
    api.on(EXEC, running())
    node.read(fact("cat", table))
    assert api.requests[0].query["container"] == ["kube-proxy"]
    assert api.requests[0].query["command"][-2:] == ["cat", table]


def test_every_reading_has_a_token_of_its_own(api: Server, node: Node, table: str) -> None:
    api.on(EXEC, running())
    node.read(fact("cat", table))
    node.read(fact("cat", table))
    first, second = (seen.query["command"] for seen in api.requests)
    assert first != second


def test_a_filter_leaves_out_lines_and_tells_how_many_there_were(api: Server, node: Node, lines: str) -> None:
    api.on(EXEC, running())
    reading = node.read(fact("cat", lines, filterable=True, patterns=(" dst=10.96.0.10 ",)))
    assert bytes(node.got) == b"udp dst=10.96.0.10 a\nudp dst=10.96.0.10 c\n"
    assert (reading.complete, reading.exit_code, reading.received) == (True, 0, len(node.got))
    assert reading.total == 3
    assert reading.trailer is not None
    assert reading.trailer.total == reading.total


def test_no_line_that_passes_the_filter_is_no_failure(api: Server, node: Node, lines: str) -> None:
    api.on(EXEC, running())
    reading = node.read(fact("cat", lines, filterable=True, patterns=("10.0.0.1",)))
    assert (bytes(node.got), reading.complete) == (b"", True)


@pytest.mark.parametrize("patterns", [(), ("udp",)], ids=["whole", "filtered"])
def test_an_exec_that_loses_its_end_and_still_says_success_is_not_whole(
    api: Server, connect_to: Connect, scope: CancelScope, lines: str, patterns: tuple[str, ...]
) -> None:
    # kubernetes#124571: stdout is cut, the exit code is 0. Here at every place but the last newline.
    length = 0

    def measure(out: bytes) -> bytes:
        nonlocal length
        length = len(out)
        return out

    api.on(EXEC, running(measure))
    shell = KubeProxyExec(connect_to(api), "knode1", PLACE)
    what = fact("cat", lines, filterable=True, patterns=patterns)
    assert shell.read(what, lambda _: None, scope=scope).complete
    for kept in range(0, length - 1, 3):
        api.on(EXEC, running(lambda out, kept=kept: out[:kept]))  # type: ignore[misc]
        reading = shell.read(what, lambda _: None, scope=scope)
        assert not reading.complete, kept
        assert reading.trailer is None
        assert reading.problem is not None
        assert reading.problem.code == "noTrailer"


def test_an_output_that_pretends_to_be_over_is_not_believed(api: Server, node: Node, tmp_path: Path) -> None:
    liar = tmp_path / "liar"
    liar.write_text(f"{MARKER} 0123456789abcdef rc=0;\n")
    api.on(EXEC, running(lambda out: out[:-10]))
    assert not node.read(fact("cat", str(liar))).complete


def test_a_command_that_fails_is_a_reading_with_its_complaint(api: Server, node: Node) -> None:
    api.on(EXEC, running())
    reading = node.read(fact("cat", "/proc/net/no_such_table"))
    assert reading.exit_code == 1
    assert reading.problem is not None
    assert reading.problem.code == "commandFailed"
    assert b"No such file" in reading.stderr


def test_a_program_that_is_not_there_is_a_reading_too(api: Server, node: Node) -> None:
    api.on(EXEC, running())
    reading = node.read(fact("kdnsctl-no-such-program"))
    assert (reading.exit_code, reading.complete) == (127, False)


def test_a_command_that_hangs_is_stopped_on_the_node(api: Server, node: Node) -> None:
    api.on(EXEC, running())
    reading = node.read(fact("sleep", "600", seconds=1))
    assert reading.problem is not None
    assert (reading.problem.code, reading.problem.message) == (
        "lateOnNode",
        "the command was stopped on the node after 1s",
    )


def test_a_command_that_is_killed_says_what_that_may_mean(api: Server, node: Node) -> None:
    api.on(EXEC, running())
    reading = node.read(fact("sh", "-c", "echo part; kill -9 $$"))
    assert bytes(node.got) == b"part\n"
    assert reading.problem is not None
    assert reading.problem.code == "killedOnNode"


def test_no_more_than_the_cap_is_taken(api: Server, node: Node, table: str) -> None:
    api.on(EXEC, running())
    for cap in (0, 1, 20, Path(table).stat().st_size - 1):
        node.got.clear()
        reading = node.read(fact("cat", table, max_bytes=cap))
        assert bytes(node.got) == Path(table).read_bytes()[:cap]
        assert reading.received == cap
        assert reading.problem is not None
        assert (reading.problem.code, reading.trailer) == ("tooLong", None)
    assert node.read(fact("cat", table, max_bytes=Path(table).stat().st_size)).complete


def test_a_connection_that_breaks_leaves_a_reading_of_what_had_come(api: Server, node: Node, table: str) -> None:
    api.on(EXEC, running(lambda out: out[:50], then=b""))
    reading = node.read(fact("cat", table, max_bytes=1 << 20))
    assert reading.problem is not None
    assert reading.problem.code == "truncated"
    assert Path(table).read_bytes().startswith(bytes(node.got))
    assert reading.exit_code is None


def test_the_trailer_proves_the_output_although_the_connection_then_breaks(api: Server, node: Node, table: str) -> None:
    api.on(EXEC, running(then=b""))
    assert node.read(fact("cat", table)).complete
    assert bytes(node.got) == Path(table).read_bytes()


def test_a_node_that_falls_silent_leaves_a_reading(api: Server, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdnsctl.reach.kubeproxyexec.SLACK", 0)
    api.on(EXEC, websocket([message(STDOUT, b"x" * 500)], then=hang))
    reading = node.read(fact("cat", "x", seconds=1))
    assert reading.problem is not None
    assert reading.problem.code == "deadline"
    assert bytes(node.got) == b"x" * 500  # what a trailer might have been, too


def test_a_refusal_is_no_reading(api: Server, node: Node) -> None:
    api.on(EXEC, status(403, "Forbidden", 'pods "kube-proxy-x" is forbidden'))
    with pytest.raises(ForbiddenError):
        node.read(fact("cat", "x"))
    assert not node.got


def test_ctrl_c_is_no_reading(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    came = threading.Event()
    whole = scope.child()

    def interrupt() -> None:
        came.wait(30)
        whole.cancel()

    threading.Thread(target=interrupt, daemon=True).start()
    api.on(EXEC, websocket([message(STDOUT, b"x" * 500)], then=hang))
    with pytest.raises(CancelledError):
        KubeProxyExec(connect_to(api), "knode1", PLACE).read(fact("cat", "x"), lambda _: came.set(), scope=whole)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KdnsctlError("the bundle is full")])
def test_what_the_sink_raises_is_raised(
    api: Server, connect_to: Connect, scope: CancelScope, table: str, error: Exception
) -> None:
    def full(_: bytes) -> None:
        raise error

    api.on(EXEC, running())
    with pytest.raises(type(error)) as caught:
        KubeProxyExec(connect_to(api), "knode1", PLACE).read(fact("cat", table), full, scope=scope)
    assert caught.value is error


def test_of_a_flood_of_complaints_the_beginning_is_kept(api: Server, node: Node) -> None:
    complaints = [message(STDERR, b"first "), *[message(STDERR, b"!" * 10_000)] * 20]
    api.on(EXEC, websocket([*complaints, exit_code(2), CLOSED]))
    reading = node.read(fact("cat", "x"))
    assert (len(reading.stderr), reading.stderr_bytes) == (MAX_STDERR, 200_006)
    assert reading.stderr.startswith(b"first !")


def test_two_readings_of_one_node_take_turns(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    now, most = 0, 0
    lock = threading.Lock()
    run = running()

    def counted(exchange: Exchange) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        run(exchange)
        with lock:
            now -= 1

    api.on(EXEC, counted)
    shell = KubeProxyExec(connect_to(api), "knode1", PLACE)
    readings: list[Reading] = []

    def read() -> None:
        readings.append(shell.read(fact("sh", "-c", "sleep 0.05; echo x"), lambda _: None, scope=scope))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reading.complete for reading in readings] == [True] * 4
    assert most == 1


def test_whoever_waits_for_a_turn_is_not_kept_beyond_the_end(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    came = threading.Event()
    api.on(EXEC, websocket([message(STDOUT, b"x" * 500)], then=hang))
    shell = KubeProxyExec(connect_to(api, retry=NO_RETRIES), "knode1", PLACE)
    first = scope.child()

    def hold() -> None:
        with pytest.raises(CancelledError):
            shell.read(fact("cat", "x"), lambda _: came.set(), scope=first)

    holder = threading.Thread(target=hold)
    holder.start()
    assert came.wait(30)
    with scope.child(0.1) as limit, pytest.raises(KdnsctlError) as caught:
        shell.read(fact("cat", "x"), lambda _: None, scope=limit)
    assert caught.value.code == "deadline"
    first.cancel()
    holder.join()
    assert len(api.requests) == 1


def test_a_fact_without_a_tool_here_is_refused_before_anything_is_sent(api: Server, node: Node) -> None:
    foreign = Fact("x", "x", Privilege.NONE, Proof.TRAILER, 10, 10, endpoint=Endpoint(1, "/"))
    assert node.shell.can(foreign)
    elsewhere = fact("cat", "x")
    object.__setattr__(elsewhere, "commands", {})
    assert not node.shell.can(elsewhere)
    with pytest.raises(KdnsctlError, match="no tool for it"):
        node.read(elsewhere)
    assert api.requests == []


def endpoint(max_bytes: int = 100) -> Fact:
    return Fact("mode", "mode", Privilege.NONE, Proof.CLOSED, max_bytes, 50, endpoint=Endpoint(10249, "/proxyMode"))


def answering(answer: bytes) -> Answer:
    def serve(exchange: Exchange) -> None:
        switch(exchange, V4)
        exchange.wfile.write(message(0, b"\x09\x28") + message(1, b"\x09\x28"))
        exchange.wfile.flush()
        received(exchange)
        exchange.wfile.write(message(0, answer) + CLOSED)
        exchange.wfile.flush()
        exchange.close_connection = True

    return serve


@pytest.mark.parametrize(
    ("answer", "code", "complete", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\niptables", 200, True, None),
        (b"HTTP/1.1 503 No\r\nContent-Length: 8\r\n\r\niptables", 503, False, "httpStatus"),
        (b"HTTP/1.1 200 OK\r\n\r\niptables", 200, False, "unbounded"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\niptables", None, False, "truncated"),
    ],
    ids=["whole", "503", "unbounded", "cut"],
)
def test_an_endpoint_is_read_through_a_port_forward(
    api: Server, node: Node, answer: bytes, code: int | None, complete: bool, problem: str | None
) -> None:
    api.on(FORWARD, answering(answer))
    reading = node.read(endpoint())
    assert bytes(node.got) == b"iptables"
    assert (reading.exit_code, reading.complete) == (code, complete)
    assert (reading.problem.code if reading.problem else None) == problem
    assert reading.trailer is None


def test_an_endpoint_that_says_too_much_is_cut(api: Server, node: Node) -> None:
    api.on(FORWARD, answering(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\niptables"))
    reading = node.read(endpoint(max_bytes=3))
    assert bytes(node.got) == b"ipt"
    assert reading.problem is not None
    assert reading.problem.code == "tooLong"


def test_permissions_are_those_of_the_facts() -> None:
    assert {str(one) for one in needed([fact("cat", "x"), fact("cat", "y")], "kube-system")} == {
        "get pods/exec in kube-system",
        "create pods/exec in kube-system",
    }
    assert {one.subresource for one in needed([endpoint()], "kube-system")} == {"portforward"}
