"""The tools image, as far as it can be tried without building it: the prober for real, the rest by what it installs."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from kdnsctl.facts.catalogue import FACTS
from kdnsctl.model import Toolset
from kdnsctl.reach.limits import limited
from kdnsctl.reach.podspec import ENTER_HOST
from tests.unit.probe.servers import Server, serving

IMAGE: Final = Path(__file__).parents[2] / "images/tools"
# Where Debian has each program; the shell and the first three are in every Debian.
PACKAGES: Final = {
    "sh": "",
    "cat": "",
    "grep": "",
    "sleep": "",
    "conntrack": "conntrack",
    "dmesg": "util-linux",
    "ip": "iproute2",
    "ip6tables-save": "iptables",
    "ipset": "ipset",
    "iptables-save": "iptables",
    "nft": "nftables",
    "nsenter": "util-linux",
    "readlink": "",
}
NAME: Final = "kubernetes.default.svc.cluster.local"


def test_the_image_installs_what_commands_are_written_for() -> None:
    text = (IMAGE / "Containerfile").read_text("utf-8")
    last = text.rpartition("FROM ")[2]
    installed = set(re.findall(r"--no-install-recommends ([^\\]+)", last)[0].split())
    used = {"sleep", ENTER_HOST[0], limited(["x"], 1)[0]}
    for fact in FACTS:
        used |= {fact.commands[one][0] for one in (Toolset.TOOLS, Toolset.KUBE_PROXY) if one in fact.commands}
    assert {PACKAGES[program] for program in used} - {""} <= installed
    assert {"conntrack", "nftables", "ipvsadm"} <= installed
    assert "dnsprobe" in last


def test_the_image_is_built_as_the_tests_build_its_prober() -> None:
    assert f"RUN {' '.join(compiler('/src/dnsprobe', '/src/dnsprobe.c'))}\n" in (IMAGE / "Containerfile").read_text()


def compiler(target: str, source: str) -> list[str]:
    return f"cc -std=c11 -O2 -Wall -Wextra -Werror -static -o {target} {source}".split()


@pytest.fixture(scope="module")
def prober(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("prober") / "dnsprobe"
    built = subprocess.run(
        compiler(str(target), str(IMAGE / "dnsprobe.c")), capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return target


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        server.reply = lambda query, _: [answered(query)]
        yield server


def answered(query: dns.message.Message, rcode: dns.rcode.Rcode = dns.rcode.NOERROR, *, cut: bool = False) -> bytes:
    reply = dns.message.make_response(query)
    reply.set_rcode(rcode)
    if rcode == dns.rcode.NOERROR:
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 5, "IN", "A", "10.96.0.1", "10.96.0.2"))
    if cut:
        reply.flags |= dns.flags.TC
    return reply.to_wire()


@pytest.fixture
def probe(prober: Path, server: Server) -> Callable[..., tuple[int, list[dict[str, Any]]]]:
    def run(*words: str) -> tuple[int, list[dict[str, Any]]]:
        command = [str(prober), "-s", "127.0.0.1", "-P", str(server.port), "-n", NAME, "-w", "60000", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    return run


Probe = Callable[..., tuple[int, list[dict[str, Any]]]]


def test_each_query_has_a_port_of_its_own(probe: Probe, server: Server) -> None:
    code, told = probe("-c", "5")
    assert code == 0
    assert [one["sourcePort"] for one in told] == [port for port, _ in server.asked]
    assert len({one["sourcePort"] for one in told}) == 5
    assert {(one["rcode"], one["answers"], one["truncated"]) for one in told} == {(0, 2, False)}
    assert {str(query.question[0].name) for _, query in server.asked} == {NAME + "."}
    assert len({query.id for _, query in server.asked}) > 1


def test_or_all_have_the_same_that_was_named(probe: Probe, server: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code, told = probe("-c", "3", "-p", str(port))
    assert (code, {one["sourcePort"] for one in told}) == (0, {port})
    assert [asked for asked, _ in server.asked] == [port] * 3


def test_silence_is_a_timeout_and_not_an_answer(probe: Probe, server: Server) -> None:
    server.reply = lambda *_: []
    code, (told,) = probe("-w", "50")
    assert (code, told["error"]) == (1, "timeout")


def test_what_does_not_answer_the_query_does_not_count(probe: Probe, server: Server) -> None:
    def other(query: dns.message.Message, _: int) -> list[bytes]:
        wrong_id = bytearray(answered(query))
        wrong_id[0] ^= 0xFF
        question = dns.message.make_query("other.example", "A", id=query.id)
        return [bytes(wrong_id), answered(question), query.to_wire(), b"\0", b""]

    server.reply = other
    assert probe("-w", "50")[1][0]["error"] == "timeout"
    server.reply = lambda query, port: [*other(query, port), answered(query)]
    assert probe()[1][0]["answers"] == 2


def test_rcode_and_truncation_are_told(probe: Probe, server: Server) -> None:
    server.reply = lambda query, _: [answered(query, dns.rcode.NXDOMAIN)]
    code, (told,) = probe("-q", "AAAA")
    assert (code, told["rcode"], told["answers"]) == (0, 3, 0)
    assert server.asked[0][1].question[0].rdtype == 28
    server.reply = lambda query, _: [answered(query, cut=True)]
    assert probe()[1][0]["truncated"] is True


def test_tcp_is_asked_too(probe: Probe, server: Server) -> None:
    code, (told,) = probe("-t")
    assert (code, told["answers"], told["sourcePort"]) == (0, 2, server.asked[0][0])
    server.reply = lambda *_: []
    assert probe("-t")[1][0]["error"] == "the server closed the connection"


def test_a_port_where_nobody_is_refuses(prober: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for way in ([], ["-t"]):
        command = [str(prober), "-s", "127.0.0.1", "-P", str(port), "-n", NAME, *way]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, json.loads(done.stdout)["error"]) == (1, "Connection refused")


@pytest.mark.parametrize(
    "words",
    [
        "-n a",
        "-s 127.0.0.1",
        "-s localhost -n a",
        "-s 127.0.0.1 -n a -p 0",
        "-s 127.0.0.1 -n a -p 70000",
        "-s 127.0.0.1 -n a -p 1,",
        "-s 127.0.0.1 -n a -p 1,x",
        "-s 127.0.0.1 -n a -p " + ",".join(["1"] * 33),
        "-s 127.0.0.1 -n a -e 100",
        "-s 127.0.0.1 -n a -c 1x",
        "-s 127.0.0.1 -n a -q MX",
        "-s 127.0.0.1 -n a..b",
        "-s 127.0.0.1 -n " + "a" * 64,
        "-s 127.0.0.1 -n " + ".".join(["a" * 60] * 5),
        "-s 127.0.0.1 -n a more",
    ],
)
def test_what_makes_no_sense_is_refused(prober: Path, words: str) -> None:
    done = subprocess.run([str(prober), *words.split()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: dnsprobe" in done.stderr
