"""Scripts around recorded commands, followed: the same as a real shell says with real files, and nothing half done."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from kdnsctl.lab.recorded.playback import answer
from kdnsctl.lab.recorded.shellplay import play
from kdnsctl.lab.recorded.shelltools import NotRecordedError
from kdnsctl.netfilter.trailer import TrailerSplitter, filtered, whole
from kdnsctl.reach.limits import limited

TABLE = "/proc/net/nf_conntrack"
LINES = b"udp one dport=53 \nudp two dport=80 \ntcp three dport=53 \n"


@pytest.mark.parametrize(
    "words",
    [
        ["cat", "FILE"],
        ["grep", "-c", "dport=53 ", "FILE"],
        ["grep", "-H", "", "FILE", "FILE"],
        ["grep", "-n", "^udp", "FILE"],
        ["grep", "-v", "two", "FILE"],
        ["grep", "-c", "d.ort=53.$", "FILE"],
        ["grep", "nothing", "FILE"],
        ["grep", "-q", "two", "FILE"],
        ["wc", "-l", "FILE"],
        ["sh", "-c", "cat FILE; echo trailer $?"],
        ["sh", "-c", "wc -c < FILE"],
        whole(["cat", "FILE"], "t0k"),
        whole(limited(["cat", "FILE"], 60), "t0k"),
        filtered(limited(["cat", "FILE"], 60), ["dport=80", "three"], "t0k"),
        filtered(["cat", "FILE"], ["nowhere"], "t0k"),
        limited(["sh", "-c", "cat FILE; exit 7"], 60),
        ["sh", "-c", 'count=$(grep -c udp FILE); echo "$count lines"; [ $count -gt 1 ] && echo many || echo few'],
        ["sh", "-c", "if grep -q tcp FILE; then echo yes; else echo no; fi; if false; then echo no; fi; echo $?"],
        ["sh", "-c", "cat FILE | grep udp | wc -l"],
        ["sh", "-c", "(exit 3); echo $?; { exit 4; }; echo never"],
        ["sh", "-c", "echo out; echo err >&2; echo gone >/dev/null; { echo both; echo two >&2; } 2>&1"],
        ["sh", "-c", "! false; echo $?; true && false || echo else; printf '%s-%d\\n' a 5; echo -n end"],
        ["sh", "-c", "set_=1 ; X='a  b'; echo $X; echo \"$X\"; echo ${X}c \"$#\" \"$@\"", "n", "1", "2 3"],
        ["sh", "-c", 'echo first & wait $!; echo "code $?"; false & wait "$!"; echo $?'],
        ["sh", "-c", "echo 'a # b' # comment\necho two"],
        ["sh", "-c", 'for_="$0"; echo "$for_" "" "$*" \'$0\' \\$0 "\\"q\\""', "name"],
        ["sh", "-c", "exit"],
    ],
)  # fmt: skip
def test_it_says_what_a_shell_says(words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "table"
    file.write_bytes(LINES)
    named = [word.replace("FILE", str(file)) for word in words]
    real = subprocess.run(named, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    played = play(named, lambda _: None, {str(file): LINES}.get)
    assert (played.stdout, played.stderr, played.code) == (real.stdout, real.stderr, real.returncode)


@pytest.mark.parametrize(
    "script",
    [
        "id",
        "cat /etc/passwd",
        "cat TABLE; id",
        "cat TABLE > /tmp/stolen",
        "cat TABLE >> x",
        "while :; do cat TABLE; done",
        "for each in 1 2; do echo $each; done",
        "echo `id`",
        "echo $(id)",
        "echo $((1 + 1))",
        "echo ${X:-1}",
        "rm *",
        "cat <<EOF\nEOF",
        "eval id",
        "exec id",
        "sleep 1; id",
        "grep -r udp TABLE",
        "grep 'u.*p' TABLE",
        "printf '%x' 5",
        "echo 'a\\n'",
        "wc TABLE",
        "'unfinished",
        "(echo",
        "if true; then echo",
        "echo one two | ",
        "[ -e TABLE ]",
        "[[ a == a ]]",
        "kill -9 1; cat /x",
        "case x in x) echo;; esac",
        "(" * 3000,
    ],
)
def test_what_it_cannot_follow_it_refuses_as_a_whole(script: str) -> None:
    with pytest.raises(NotRecordedError):
        play(["sh", "-c", script.replace("TABLE", TABLE)], lambda _: None, {TABLE: LINES}.get)


def test_a_script_without_end_is_ended() -> None:
    script = ": ; " * 20_000
    with pytest.raises(NotRecordedError, match="too long"):
        play(["sh", "-c", script], lambda _: None, lambda _: None)


@pytest.mark.parametrize("node", ["knode1", "knode2", "knode3"])
@pytest.mark.parametrize("command", [("cat", TABLE), ("iptables-save", "-c"), ("iptables-save", "-t", "nat")])
def test_a_wrapped_command_of_a_recorded_node(node: str, command: Sequence[str]) -> None:
    plain = answer(node, command)
    assert plain is not None
    wrapped = answer(node, whole(limited(command, 60), "t0k3n"))
    assert wrapped is not None
    splitter = TrailerSplitter("t0k3n")
    first = splitter.feed(wrapped.stdout)
    rest, end = splitter.finish()
    assert end is not None
    assert (first + rest, end.exit_code) == (plain.stdout, 0)
    assert (wrapped.stderr, wrapped.code) == (b"", 0)


def test_a_filter_on_a_recorded_node() -> None:
    plain = answer("knode2", ["cat", TABLE])
    found = answer("knode2", filtered(limited(["cat", TABLE], 60), [" dst=10.96.0.10 "], "t0k"))
    assert plain is not None
    assert found is not None
    splitter = TrailerSplitter("t0k", numbered=True)
    first = splitter.feed(found.stdout)
    rest, end = splitter.finish()
    lines = plain.stdout.splitlines(keepends=True)
    assert end is not None
    assert (end.exit_code, end.total) == (0, len(lines))
    assert first + rest == b"".join(line for line in lines if b" dst=10.96.0.10 " in line)
    assert answer("knode2", whole(limited(["conntrack", "-L"], 60), "t0k")) is None
