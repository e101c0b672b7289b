from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from kdnsctl.facts import conntrack, pairs
from kdnsctl.facts.catalogue import ALLOWED, FACTS, KEPT, allowed
from kdnsctl.model import Endpoint, Fact, Privilege, Proof, Toolset
from kdnsctl.netfilter import trailer
from kdnsctl.reach.limits import LIMIT, limited

ROOT = Path(__file__).parents[3]
# kubernetes/release, images/build/distroless-iptables: what kube-proxy's image holds, beside the shell's own words.
IMAGE = {"sh", "cat", "grep", "wc", "sleep", "chmod", "ln", "rm", "ipset", "nft", "kmod"} | {
    f"{family}tables{flavour}{verb}"
    for family in ("ip", "ip6")
    for flavour in ("", "-nft", "-legacy")
    for verb in ("", "-save", "-restore")
}
TOOLS = {
    Toolset.KUBE_PROXY: IMAGE,
    Toolset.TOOLS: IMAGE | {"conntrack", "ipvsadm", "date", "nsenter"},
    Toolset.HOST: {"conntrack", "ip", "dmesg", "readlink", "cat"},
}
SHELLS_OWN = {"echo", "export", "shift", "wait", "kill", "trap", "exit", "["}


def test_each_fact_has_a_name_of_its_own() -> None:
    assert len({fact.id for fact in FACTS}) == len(FACTS)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.id)
def test_a_fact_runs_what_is_allowed_and_there_and_nothing_else(fact: Fact) -> None:
    assert all(allowed(command) for command in fact.commands.values())
    if not fact.endpoint and fact is not conntrack.TOOL:  # which asks whether the program is there
        assert all(fact.commands[where][0] in programs for where, programs in TOOLS.items() if where in fact.commands)
    if fact.endpoint:
        assert fact.endpoint.port in (10249, 10256)
        assert fact.endpoint.path in ("/proxyMode", "/healthz", "/metrics", "/configz")
    assert fact.proof is not Proof.NONE
    assert 0 < fact.seconds <= 60
    assert fact.max_bytes > 0


def test_every_program_of_the_allow_list_is_used() -> None:
    assert set(ALLOWED) == {command[0] for fact in FACTS for command in fact.commands.values()}


@pytest.mark.parametrize(
    "command",
    [
        "iptables -L",
        "iptables -t nat -S",
        "iptables-save -c -M /bin/sh",
        "iptables-save",
        "iptables-restore",
        "conntrack -D -p udp",
        "conntrack --version -D",
        "conntrack -L",
        "conntrack -L -o extended,id -z",
        "cat /etc/shadow",
        "cat /proc/../etc/shadow",
        "cat /proc/net/nf_conntrack /etc/shadow",
        "cat /etc/resolv.conf.d",
        "conntrack -L -f ipv4 -o extended,id -D",
        "conntrack -F",
        "ipset destroy",
        "ip link set lo down",
        "ip -j -4 route flush table all",
        "ip -batch /tmp/x -j neigh show",
        "dmesg -C",
        "dmesg -r -c",
        "readlink /etc/shadow",
        "grep -h -e '^btime ' /etc/shadow",
        "cat -v /proc/net/nf_conntrack",
        "grep -r '' /proc/sys/net",
        "grep -H '' /etc/shadow",
        "grep -H -f /etc/shadow /proc/net/nf_conntrack",
        "nft flush ruleset",
        "nft -j list ruleset",
        "nft -f /proc/x list table ip kube-proxy",
        "nft list table ip 'kube-proxy; flush ruleset'",
        "sh -c id",
        "rm /proc/x",
        "kmod list",
    ],
)
def test_what_writes_resolves_or_reads_elsewhere_is_not_allowed(command: str) -> None:
    assert not allowed(tuple(shlex.split(command)))


def test_the_programs_around_a_command_run_nothing_that_is_not_there() -> None:
    # `whole` and `filtered` as they come from `trailer`, around the limit, around the command.
    inner = limited(["cat", "x"], 1)
    for words in (trailer.whole(inner, "t"), trailer.filtered(inner, ["p"], "t")):
        assert words[:2] == ["sh", "-c"]
        assert words[-len(inner) :] == inner
        for program in (words[2], LIMIT):
            assert "iptables" not in program
            bare = re.sub(r"'[^']*'|\"[^\"]*\"", "Q", program)  # without what is quoted
            started = {part.split()[0] for part in re.split(r"[;&|(){}]+|\btrue\b", bare) if part.split()}
            names = {word for word in started if re.fullmatch(r"[a-z\[]+", word)}
            assert names <= IMAGE | SHELLS_OWN


def test_only_what_is_read_line_by_line_may_be_filtered() -> None:
    assert [fact.id for fact in FACTS if fact.filterable] == ["conntrack"]
    assert not any(fact.patterns for fact in FACTS)


def test_what_needs_the_capabilities_of_kube_proxy_says_so() -> None:
    for fact in FACTS:
        for toolset, command in fact.commands.items():
            netlink = command[0] in {"nft", "iptables-save", "ip6tables-save", "conntrack", "ipset"}
            assert (fact.needs(toolset) is Privilege.NET_ADMIN) == netlink
    assert conntrack.TABLE.privilege is Privilege.ROOT
    assert conntrack.TABLE.needs(Toolset.KUBE_PROXY) is Privilege.ROOT
    assert conntrack.TABLE.needs(Toolset.TOOLS) is Privilege.NET_ADMIN


def places(fact: Fact, command: tuple[str, ...]) -> list[str]:
    return [where.value for where, words in fact.commands.items() if words == command]


def test_iptables_are_never_listed_and_nothing_is_waited_for_by_the_kernel_log() -> None:
    words = [command for fact in FACTS for command in fact.commands.values()]
    assert not any(word in ("-L", "-S", "--list") for command in words if "tables" in command[0] for word in command)
    assert not any(word in ("/dev/kmsg", "/proc/kmsg", "-w", "--follow") for command in words for word in command)


def test_security_md_tells_exactly_what_is_run() -> None:
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    table = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    told = {tuple(cell.strip(" `") for cell in row) for row in table}
    assert told == {
        (shlex.join(command), fact.id, ", ".join(places(fact, command)), fact.needs(toolset).value)
        for fact in FACTS
        for toolset, command in fact.commands.items()
    } | {(f"GET {fact.endpoint.path}", fact.id, "-", fact.privilege.value) for fact in FACTS if fact.endpoint}
    for program in (LIMIT, trailer.whole(["x"], "t")[2], trailer.filtered(["x"], ["p"], "t")[2]):
        assert f"\n{program}\n" in text


def test_a_fact_is_a_command_or_an_endpoint() -> None:
    with pytest.raises(ValueError, match="either commands or an endpoint"):
        Fact("x", "x", Privilege.NONE, Proof.CLOSED, 1, 1)
    with pytest.raises(ValueError, match="either commands or an endpoint"):
        Fact("x", "x", Privilege.NONE, Proof.CLOSED, 1, 1, {Toolset.KUBE_PROXY: ("cat", "x")}, Endpoint(1, "/"))
    with pytest.raises(ValueError, match="may not be filtered"):
        Fact("x", "x", Privilege.NONE, Proof.CLOSED, 1, 1, {Toolset.KUBE_PROXY: ("cat", "x")}, patterns=("y",))


def test_every_fact_has_its_parser_or_is_kept_as_it_is() -> None:
    paired = {pair.fact.id for pair in (pairs.FILL, pairs.COUNTERS, pairs.TIMEOUTS, pairs.LOCAL_PORTS, pairs.TOOL)}
    paired |= {pair.fact.id for pair in (pairs.MODE, pairs.HEALTH, pairs.METRICS)}
    paired |= {pair.fact.id for both in (pairs.IPTABLES, pairs.NFT, pairs.NFT_TEXT) for pair in both.values()}
    paired |= {pair.fact.id for pair in (pairs.CLOCK, pairs.KERNEL_LOG, pairs.CONFIG, pairs.IPVS)}
    tables = {conntrack.TABLE.id, *(fact.id for fact in conntrack.WITH_TOOL.values())}
    kept = {fact.id for fact in KEPT}
    assert not kept & (paired | tables)
    assert paired | tables | kept == {fact.id for fact in FACTS}
