"""What to run next: matched to what failed, safe to paste, and every node and address in it one that can be."""

# ruff: noqa: E501 - tables keep a case on a line

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.find.advice import notes
from kdnsctl.find.commands import next_commands
from kdnsctl.find.report import CauseCount, NodeFinding, Peer, SignatureCount
from kdnsctl.model import Basis, Verdict
from tests.unit.find.composing import DNS, VIP, bad, failure, find, healthy, minutes, restore_failure, start

DEAD = "10.244.1.5"
COMPARE = "kubectl -n kube-system get endpointslices -l kubernetes.io/service-name=kube-dns -o wide"


def suspect(
    name: str = "node-a",
    *,
    peers: Sequence[tuple[str, str]] = (),
    examples: dict[str, str] | None = None,
    service: str = "",
    cause: str = "enoentRace",
    identified: bool = True,
) -> NodeFinding:
    examples = examples or {"CT_DEL_ENDPOINT": ""}
    return NodeFinding(
        name,
        Verdict.SUSPECT,
        Basis.LOG,
        "logged",
        signatures=tuple(SignatureCount(id_, 1, None, None, example) for id_, example in examples.items()),
        peers=tuple(Peer(vip, endpoint, service, 1, None, None) for vip, endpoint in peers),
        causes=(CauseCount(cause, 1, ""),),
        identified=identified,
    )


@pytest.mark.parametrize(
    ("peers", "commands"),
    [
        ([(VIP, DEAD)], [f"conntrack -L -p udp --orig-dst {VIP} --reply-src {DEAD}"]),
        ([(VIP, DEAD), (VIP, "10.244.1.6")], [f"conntrack -L -p udp --orig-dst {VIP} --reply-src {DEAD}", f"conntrack -L -p udp --orig-dst {VIP} --reply-src 10.244.1.6"]),
        ([(VIP, DEAD), (VIP, "10.244.1.6"), (VIP, "10.244.1.7")], [f"conntrack -L -p udp --orig-dst {VIP}", COMPARE]),
        ([(VIP, "")], [f"conntrack -L -p udp --orig-dst {VIP}", COMPARE]),
        ([(VIP, DEAD), ("10.96.0.11", "")], [f"conntrack -L -p udp --orig-dst {VIP}", "conntrack -L -p udp --orig-dst 10.96.0.11", COMPARE]),
        ([("fd00::a", "fd00:1::5")], ["conntrack -L -f ipv6 -p udp --orig-dst fd00::a --reply-src fd00:1::5"]),
        ([("fd00::a", "")], ["conntrack -L -f ipv6 -p udp --orig-dst fd00::a", COMPARE]),
        ([(VIP, "fd00:1::5")], [f"conntrack -L -p udp --orig-dst {VIP}", COMPARE]),  # conntrack would refuse it
        ([("10.96", DEAD)], ["conntrack -L -p udp --orig-port-dst 53", COMPARE]),
    ],
)  # fmt: skip
def test_the_entries_of_what_could_not_be_deleted(peers: list[tuple[str, str]], commands: list[str]) -> None:
    there = [command if command == COMPARE else f"ssh node-a sudo {command}" for command in commands]
    assert list(next_commands([suspect(peers=peers)])) == there
    assert list(next_commands([suspect(peers=peers, identified=False)])) == commands


@pytest.mark.parametrize(
    ("examples", "commands"),
    [
        ({"CT_LIST_FAIL": ""}, ["conntrack -L -p udp --orig-port-dst 53", COMPARE]),
        ({"CT_DEL_PORT": "E0310 … Failed to clear udp conntrack for port 30053, error: x"}, ["conntrack -L -p udp --orig-port-dst 30053", COMPARE]),
        ({"CT_DEL_PORT": 'E0310 … "Failed to clear udp conntrack" err="x" nodePort=30054'}, ["conntrack -L -p udp --orig-port-dst 30054", COMPARE]),
        ({"CT_DEL_PORT": '{"msg":"Failed to clear udp conntrack","nodePort":30055,"err":"x"}'}, ["conntrack -L -p udp --orig-port-dst 30055", COMPARE]),
        ({"CT_DEL_PORT": "nothing"}, ["conntrack -L -p udp", COMPARE]),
        ({"CT_DEL_PORT": "Failed to clear udp conntrack for port 99999, error: x"}, ["conntrack -L -p udp", COMPARE]),
        ({"IPT_RESTORE_FAIL": "", "IPT_SYNC_FAILED": ""}, ["iptables-save -t nat | grep dns"]),
        ({"NFT_SYNC_FAIL": ""}, ["nft list table ip kube-proxy | grep dns"]),
        ({"NFT_SYNC_FAIL": '"nftables sync failed" ipFamily="IPv6" err="x"'}, ["nft list table ip6 kube-proxy | grep dns"]),
        ({"IPT_SYNC_FAILED": '"Sync failed" ipFamily="IPv6" retryingTime="30s"'}, ["ip6tables-save -t nat | grep dns"]),
        ({"IPT_RESTORE_FAIL": "", "IPT_CHAIN_FAIL": "exec ip6tables: x"}, ["iptables-save -t nat | grep dns", "ip6tables-save -t nat | grep dns"]),
        ({"CT_CLEAR_FAIL": "", "IPT_SAVE_FAIL": ""}, ["conntrack -L -p udp --orig-port-dst 53", "iptables-save -t nat | grep dns", COMPARE]),
    ],
)  # fmt: skip
def test_the_commands_for_failures_without_an_address(examples: dict[str, str], commands: list[str]) -> None:
    there = [command if command == COMPARE else f"ssh node-a sudo {command}" for command in commands]
    assert list(next_commands([suspect(examples=examples)])) == there
    assert list(next_commands([suspect(examples=examples, identified=False)])) == commands


@pytest.mark.parametrize(
    ("peers", "examples", "pattern"),
    [
        ([(VIP, DEAD)], {"CT_DEL_ENDPOINT": ""}, f"dst={VIP} .* src={DEAD} "),
        ([(VIP, "")], {"CT_DEL_SVC": ""}, f"dst={VIP} "),
        ([("fd00::a", "")], {"CT_DEL_SVC": ""}, "dst=fd00:0000:0000:0000:0000:0000:0000:000a "),
        ([], {"CT_RETURN_OLD": ""}, "udp .* dport=53 "),
    ],
)
def test_without_the_program_the_kernels_own_list_is_read(
    peers: list[tuple[str, str]], examples: dict[str, str], pattern: str
) -> None:
    here, *_ = next_commands([suspect(peers=peers, examples=examples, cause="noBinary", identified=False)])
    assert shlex.split(here) == ["grep", pattern, "/proc/net/nf_conntrack"]
    there, *_ = next_commands([suspect(peers=peers, examples=examples, cause="noBinary")])
    program, node, *words = shlex.split(there)
    # What ssh does: the words, joined, go through a second shell.
    assert (program, node) == ("ssh", "node-a")
    assert shlex.split(" ".join(words)) == ["sudo", "grep", pattern, "/proc/net/nf_conntrack"]


def test_every_identified_suspect_gets_its_own_command() -> None:
    found = [
        suspect("some.log", peers=[(VIP, "10.244.9.9")], identified=False),
        suspect("node-a", peers=[(VIP, DEAD)]),
        suspect("node-b", peers=[(VIP, DEAD), (VIP, "10.244.1.6")]),
        suspect("node-c", examples={"NFT_SYNC_FAIL": ""}),
        suspect("node-d", peers=[(VIP, "")], service=DNS),
    ]
    assert list(next_commands(found)) == [
        f"ssh node-a sudo conntrack -L -p udp --orig-dst {VIP} --reply-src {DEAD}",
        f"ssh node-b sudo conntrack -L -p udp --orig-dst {VIP}",
        "ssh node-c sudo nft list table ip kube-proxy | grep kube-dns",
        f"ssh node-d sudo conntrack -L -p udp --orig-dst {VIP}",
        COMPARE,
    ]
    assert not [note for note in notes(found, []) if note.startswith("Commands")]


def test_of_many_suspects_the_first_get_commands_and_the_rest_are_counted(tmp_path: Path) -> None:
    report = find(tmp_path, {f"node-{index}/kube-proxy.log": bad() for index in range(7)})
    assert [command.split()[1] for command in report.next_commands] == [f"node-{index}" for index in range(5)]
    (note,) = report.notes
    assert note.startswith("Commands are given for 5 of 7 suspect nodes")


def test_the_service_that_is_known_is_the_one_to_compare_with(tmp_path: Path) -> None:
    text = start() + failure(minutes(1), "infra/resolver:dns", endpoint="10.244.1.5") + restore_failure(minutes(2))
    text += failure(minutes(3), "infra/resolver:dns", endpoint="10.244.1.6").replace(", 10.244.1.6", "")
    report = find(tmp_path, {"node-a/kube-proxy.log": text})
    assert report.next_commands[1:] == (
        "ssh node-a sudo iptables-save -t nat | grep resolver",
        "kubectl -n infra get endpointslices -l kubernetes.io/service-name=resolver -o wide",
    )
    found = [suspect(examples={"CT_LIST_FAIL": ""})]
    assert list(next_commands(found, ["monitoring/statsd"])) == [
        "ssh node-a sudo conntrack -L -p udp",
        "kubectl -n monitoring get endpointslices -l kubernetes.io/service-name=statsd -o wide",
    ]


@pytest.mark.parametrize("version", ["v1.32.0", "v1.30.3"])
def test_where_the_log_proves_nothing_there_is_one_example(tmp_path: Path, version: str) -> None:
    files = {f"node-{name}/kube-proxy.log": healthy(version) for name in "ab"}
    example = ("ssh node-a sudo conntrack -L -p udp --orig-port-dst 53", COMPARE)
    assert find(tmp_path, files).next_commands == example
    assert find(tmp_path, {"node-c/kube-proxy.log": bad()}).next_commands == (
        f"ssh node-c sudo conntrack -L -p udp --orig-dst {VIP} --reply-src {DEAD}",
    )


def test_without_a_suspect_and_a_mute_log_there_is_nothing_to_run(tmp_path: Path) -> None:
    assert find(tmp_path, {"node-a/kube-proxy.log": healthy()}).next_commands == ()
    assert find(tmp_path, {}, paths=(f"{tmp_path}/node-a/kube-proxy.log",)).next_commands == ()
    mute = NodeFinding("some.log", Verdict.UNKNOWN, Basis.LOG, "", "logProvesNothing", identified=False)
    assert list(next_commands([mute])) == []


HOSTILE = st.text(st.sampled_from("a1.:-/;$(`|&<>' \"\n"), max_size=12) | st.sampled_from(
    [VIP, "fd00::a", "fe80::1%$(id)", "a/b:c"]
)


@given(
    peers=st.lists(st.tuples(HOSTILE, HOSTILE), max_size=3),
    service=HOSTILE,
    name=HOSTILE,
    example=HOSTILE,
    cause=st.sampled_from(["noBinary", "other"]),
)
def test_nothing_from_a_log_is_more_than_a_word(
    peers: list[tuple[str, str]], service: str, name: str, example: str, cause: str
) -> None:
    examples = {"CT_DEL_ENDPOINT": example, "CT_DEL_PORT": example, "IPT_SAVE_FAIL": example}
    found = suspect(name, peers=peers, examples=examples, service=service, cause=cause)
    for command in next_commands([found]):
        words = shlex.split(re.sub(r" \| grep [a-z0-9-]+$", "", command))
        if words[0] == "ssh":
            assert words[1] == name
            assert not set(name) & set(";$(`|&<>' \"\n/:")
            words = shlex.split(" ".join(words[2:]))[1:]
        assert words[0] in ("conntrack", "grep", "iptables-save", "ip6tables-save", "kubectl")
        assert not any(set(word) & set(';$(`|&<>"\n') for word in words)
        for option in ("--orig-dst", "--reply-src"):
            if option in words:
                ipaddress.ip_address(words[words.index(option) + 1])
