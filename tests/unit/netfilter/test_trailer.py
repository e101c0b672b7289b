"""What proves that an output of a node is whole: the command lines run in a real shell, and every way to be cut."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.netfilter.dump import Proof
from kdnsctl.netfilter.trailer import MARKER, Trailer, TrailerSplitter, completeness, filtered, whole

TOKEN = "a1B2c3"
TRAILER = f"{MARKER} {TOKEN} rc=0;\n".encode()
SPLITTING = st.lists(st.integers(0, 400), max_size=8)


def run(command: Sequence[str]) -> bytes:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, timeout=60).stdout


def split(
    output: bytes, cuts: Sequence[int] = (), *, token: str | None = TOKEN, numbered: bool = False
) -> tuple[bytes, Trailer | None]:
    splitter = TrailerSplitter(token, numbered=numbered)
    bounds = [0, *sorted(cuts), len(output)]
    payload = b"".join(splitter.feed(output[start:end]) for start, end in itertools.pairwise(bounds))
    rest, trailer = splitter.finish()
    return payload + rest, trailer


@pytest.mark.parametrize(
    "payload", [b"", b"\n", b"one line\n", b"no newline", b"a\nb", b"x" * 5000 + b"\n", b"\0\xff\n"]
)
def test_an_output_comes_back_byte_for_byte(payload: bytes, tmp_path: Path) -> None:
    (tmp_path / "output").write_bytes(payload)
    assert split(run(whole(["cat", str(tmp_path / "output")], TOKEN))) == (payload, Trailer(0))


@pytest.mark.parametrize(
    ("command", "code"),
    [(["false"], 1), (["no-such-program-at-all"], 127), (["sh", "-c", "kill -9 $$"], 137), (["sh", "-c", "exit 3"], 3)],
)
def test_the_exit_code_is_the_commands_own(command: list[str], code: int) -> None:
    payload, trailer = split(run(whole(command, TOKEN)))
    assert (payload, trailer) == (b"", Trailer(code))
    proof = completeness(trailer)
    assert not proof.complete
    assert proof.problem is not None
    assert str(code) in proof.problem.message


def test_arguments_are_data_and_no_shell_reads_them(tmp_path: Path) -> None:
    hostile = "$(touch pwned); `touch pwned` \"' * \\n"
    (tmp_path / "table").write_text(f"{hostile}\nother\n", encoding="utf-8")
    payload, _ = split(run(whole(["printf", "%s", hostile], TOKEN)))
    assert payload.decode() == hostile
    payload, trailer = split(run(filtered(["cat", str(tmp_path / "table")], [hostile], TOKEN)), numbered=True)
    assert payload.decode() == f"{hostile}\n"
    assert trailer == Trailer(0, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_a_filter_tells_how_many_lines_there_were(tmp_path: Path) -> None:
    lines = [f"17:udp src=10.0.0.{number} dst=10.96.0.{number % 3}\n" for number in range(250)]
    (tmp_path / "table").write_text("".join(lines), encoding="utf-8")
    command = filtered(["cat", str(tmp_path / "table")], [" dst=10.96.0.1\n".strip("\n"), "dst=10.96.0.9"], TOKEN)
    payload, trailer = split(run(command), numbered=True)
    assert payload.decode() == "".join(lines[1::3])
    assert trailer == Trailer(0, 250)


def test_a_filter_that_lets_nothing_through_still_proves_that_it_ran(tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(b"")
    assert split(run(filtered(["cat", str(tmp_path / "table")], ["x"], TOKEN)), numbered=True) == (b"", Trailer(0, 0))
    payload, trailer = split(run(filtered(["cat", str(tmp_path / "missing")], ["x"], TOKEN)), numbered=True)
    assert (payload, trailer) == (b"", Trailer(1, 0))


@pytest.mark.parametrize("token", ["", "a b", "a;b", "a\n", "ä", "x" * 65, "$(id)"])
def test_a_token_that_is_not_letters_and_digits_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        whole(["cat"], token)


def test_a_command_or_filter_that_would_mean_something_else_is_refused() -> None:
    for patterns in ([], [""], ["a", ""], ["a\nb"]):
        with pytest.raises(ValueError, match="patterns"):
            filtered(["cat"], patterns, TOKEN)
    for command in ([], [""]):
        with pytest.raises(ValueError, match="no command"):
            whole(command, TOKEN)
        with pytest.raises(ValueError, match="no command"):
            filtered(command, ["x"], TOKEN)


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"payload\n",
        TRAILER + b"and more\n",
        TRAILER.replace(TOKEN.encode(), b"other"),
        TRAILER.replace(b"rc=0;", b"rc=;"),
        TRAILER.replace(b"rc=0;", b"rc=0"),
        TRAILER.replace(b"rc=0;", b"rc=-1;"),
        TRAILER.replace(b"#", b""),
    ],
)
def test_what_is_not_a_trailer_is_payload(output: bytes) -> None:
    assert split(output) == (output, None)
    assert completeness(None).proof is Proof.NONE
    assert not completeness(None).complete


def test_in_a_numbered_output_the_trailer_must_be_numbered_too() -> None:
    assert split(b"1:a\n" + TRAILER, numbered=True) == (b"a\n" + TRAILER, None)
    assert split(b"1:a" + b"2:" + TRAILER, numbered=True) == (b"a2:" + TRAILER, None)
    assert split(b"1:a\n2:" + TRAILER, numbered=True) == (b"a\n", Trailer(0, 1))


def test_from_a_file_any_token_and_a_missing_last_newline_will_do() -> None:
    assert split(b"payload\n" + TRAILER, token=None) == (b"payload\n", Trailer(0))
    assert split(b"payload\n" + TRAILER.rstrip(b"\n"), token=None) == (b"payload\n", Trailer(0))
    assert split(b"payload\n" + TRAILER.replace(b"\n", b"\r\n"), token=None) == (b"payload\n", Trailer(0))


@given(st.binary(max_size=400), SPLITTING)
def test_any_payload_comes_back_from_any_blocks(payload: bytes, cuts: list[int]) -> None:
    assert split(payload + TRAILER, cuts) == (payload, Trailer(0))


@given(st.lists(st.text("1:a", max_size=30), max_size=12), SPLITTING, st.booleans())
def test_numbers_are_taken_from_any_lines_in_any_blocks(lines: list[str], cuts: list[int], whole_: bool) -> None:
    output = "".join(f"{number}:{line}\n" for number, line in enumerate(lines, 1)).encode()
    payload = "".join(f"{line}\n" for line in lines).encode()
    if whole_:
        output += f"{len(lines) + 1}:".encode() + TRAILER
    assert split(output, cuts, numbered=True) == (payload, Trailer(0, len(lines)) if whole_ else None)


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=6), st.booleans())
def test_cut_anywhere_an_output_is_never_whole(lines: list[bytes], numbered: bool) -> None:
    pieces = [*(line + b"\n" for line in lines), TRAILER]
    output = b"".join(f"{number}:".encode() + piece if numbered else piece for number, piece in enumerate(pieces, 1))
    for length in range(len(output) - 1):  # the very last byte is the newline, which proves nothing more
        _, trailer = split(output[:length], numbered=numbered)
        assert trailer is None
        assert not completeness(trailer).complete
    assert completeness(split(output, numbered=numbered)[1]).complete
