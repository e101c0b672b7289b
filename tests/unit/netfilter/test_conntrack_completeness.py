"""Whether a dump was whole: every proof, every problem, and every place where a dump can be cut."""

from __future__ import annotations

import pytest

from kdnsctl.netfilter.conntrack import ConntrackReader, Form, Summary
from kdnsctl.netfilter.dump import Completeness, Proof
from kdnsctl.netfilter.entries import Seen
from kdnsctl.netfilter.trailer import MARKER, Trailer, TrailerSplitter
from tests.unit.netfilter.reading import FORMS, NODE, read

LIST = (NODE / "conntrack-stale.txt").read_bytes()
SAID = (NODE / "conntrack-stale.err").read_bytes()
XML = (FORMS / "list.xml").read_bytes()
PROC = (FORMS / "proc.txt").read_bytes()
NO_FLOWS = b"conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown.\n"
LABELS = (FORMS / "list-labels.err").read_bytes()


def proof_of(dump: bytes, errors: bytes = b"", trailer: Trailer | None = None) -> Completeness:
    return read(dump, errors=errors, trailer=trailer)[1].completeness


@pytest.mark.parametrize(
    ("dump", "errors", "trailer", "proof"),
    [
        (LIST, SAID, None, Proof.COUNT_LINE),
        (LIST, b"", Trailer(0), Proof.TRAILER),
        (LIST, SAID, Trailer(0), Proof.TRAILER),
        (LIST, b"", Trailer(0, 60), Proof.TRAILER),
        (LIST, b"", Trailer(0, 4_000), Proof.TRAILER),
        (LIST + SAID, b"", None, Proof.COUNT_LINE),
        (LIST + LIST, SAID + SAID, None, Proof.COUNT_LINE),
        (PROC, b"", Trailer(0), Proof.TRAILER),
        (b"", b"", Trailer(0), Proof.TRAILER),
        (b"", NO_FLOWS, None, Proof.COUNT_LINE),
        (NO_FLOWS, b"", None, Proof.COUNT_LINE),
        (XML, b"", None, Proof.CLOSED),
        (XML.rstrip(b"\n"), b"", None, Proof.CLOSED),
        (XML + XML, b"", None, Proof.CLOSED),
        (XML, (FORMS / "list.err").read_bytes(), None, Proof.COUNT_LINE),
        (XML + (FORMS / "list.err").read_bytes(), b"", None, Proof.COUNT_LINE),
        ((FORMS / "list.txt").read_bytes(), LABELS, None, Proof.COUNT_LINE),
        ((FORMS / "list-save.txt").read_bytes(), (FORMS / "list.err").read_bytes(), None, Proof.COUNT_LINE),
    ],
)
def test_a_whole_dump_is_proven(dump: bytes, errors: bytes, trailer: Trailer | None, proof: Proof) -> None:
    assert proof_of(dump, errors, trailer) == Completeness(proof)


def error(text: str) -> bytes:
    return f"conntrack v1.4.7 (conntrack-tools): {text}\n".encode()


@pytest.mark.parametrize(
    ("dump", "errors", "trailer", "code"),
    [
        (LIST, b"", None, "noProof"),
        (PROC, b"", None, "noProof"),
        (b"", b"", None, "noProof"),
        (LIST, b"", Trailer(1), "commandFailed"),
        (LIST, SAID, Trailer(137), "commandFailed"),
        (LIST, error("Operation failed: No such file or directory"), None, "commandFailed"),
        (LIST, SAID + error("Operation failed: Interrupted system call"), None, "commandFailed"),
        (LIST + error("Operation failed: sorry, you must be root"), SAID, None, "commandFailed"),
        (b"", b"cat: /proc/net/nf_conntrack: Permission denied\n", Trailer(0), "commandFailed"),
        (LIST, SAID.replace(b"shown", b"deleted"), None, "commandFailed"),
        (LIST, NO_FLOWS, None, "countDiffers"),
        (b"", SAID, None, "countDiffers"),
        (LIST + LIST, SAID, None, "countDiffers"),
        (LIST, b"", Trailer(0, 59), "countDiffers"),
        (LIST + b"???\n", SAID, None, "unreadable"),
        (LIST + b"???\n", b"", Trailer(0), "unreadable"),
        (LIST + b"x" * 20_000, b"", Trailer(0), "cut"),
        (LIST.rstrip(b"\n"), SAID, None, "cut"),
        (LIST.rstrip(b"\n"), b"", Trailer(0), "cut"),
        (XML.replace(b"</conntrack>", b""), b"", None, "cut"),
        (XML.replace(b"</conntrack>", b""), b"", Trailer(0), "cut"),
        (XML.replace(b"<conntrack>\n", b""), b"", None, "cut"),
        (XML + b"<conntrack>\n", b"", None, "cut"),
        (XML.replace(b"</conntrack>", b"text\n</conntrack>"), b"", None, "unreadable"),
        ((FORMS / "events.txt").read_bytes(), (FORMS / "events.err").read_bytes(), Trailer(0), "events"),
        ((FORMS / "events.xml").read_bytes(), b"", Trailer(0), "events"),
        ((FORMS / "events-save.txt").read_bytes(), b"", Trailer(0), "events"),
        (b"".join((FORMS / "events-save.txt").read_bytes().splitlines(keepends=True)[:3]), b"", Trailer(0), "events"),
        (b"", (FORMS / "events.err").read_bytes(), None, "events"),
    ],
)  # fmt: skip
def test_what_is_not_proven_or_not_right_is_not_complete(
    dump: bytes, errors: bytes, trailer: Trailer | None, code: str
) -> None:
    proof = proof_of(dump, errors, trailer)
    assert proof.problem is not None
    assert proof.problem.code == code
    assert not proof.complete


def test_the_message_says_what_conntrack_said() -> None:
    proof = proof_of(LIST, error("Operation failed: No such file or directory") + SAID)
    assert proof.problem is not None
    assert proof.problem.message.endswith("Operation failed: No such file or directory")
    proof = proof_of(b"", b"x" * 10_000 + b"\n")
    assert proof.problem is not None
    assert len(proof.problem.message) <= 500


def test_what_a_node_wrote_is_shown_without_control_characters() -> None:
    hostile = b"\x1b]0;owned\x07\x1b[2J\xff\r"
    _, summary = read(hostile + b"\n", errors=error("Operation failed: ") + hostile)
    assert summary.example.isprintable()
    assert "owned" in summary.example
    proof = proof_of(b"", hostile)
    assert proof.problem is not None
    assert proof.problem.message.isprintable()


def test_only_messages_are_a_form_of_their_own() -> None:
    assert read(b"", errors=NO_FLOWS)[1].form is Form.MESSAGES
    assert read(b"", errors=(FORMS / "events.err").read_bytes())[1].form is Form.MESSAGES
    assert read(b"")[1].form is None


# --- cut anywhere


def first(name: str, entries: int) -> bytes:
    """The beginning of a recorded dump, as if there had been no more entries."""
    lines = (FORMS / name).read_bytes().splitlines(keepends=True)
    return b"".join([*lines[: entries + 2], lines[-1]] if name.endswith(".xml") else lines[:entries])


def through_trailer(output: bytes) -> tuple[int, Summary]:
    splitter, reader = TrailerSplitter("t0k3n"), ConntrackReader()
    found = len(reader.feed(splitter.feed(output)))
    payload, trailer = splitter.finish()
    found += len(reader.feed(payload))
    summary = reader.finish(trailer=trailer)
    return found + len(summary.last), summary


@pytest.mark.parametrize("name", ["list.txt", "proc.txt", "list-save.txt", "list.xml"])
def test_cut_at_any_byte_a_dump_with_a_trailer_is_never_complete(name: str) -> None:
    dump = first(name, 4)
    output = dump + f"{MARKER} t0k3n rc=0;\n".encode()
    whole, summary = through_trailer(output)
    assert summary.completeness == Completeness(Proof.TRAILER)
    assert whole == summary.entries == 4
    before = 0
    for length in range(len(output) - 1):
        found, summary = through_trailer(output[:length])
        if name != "list.xml" or length < len(dump) - 1:  # from there on the end tag is proof enough
            assert not summary.completeness.complete
        assert found == summary.entries
        assert before <= found <= whole
        before = found
    assert before == whole


@pytest.mark.parametrize("name", ["list.txt", "list-save.txt", "list.xml"])
def test_cut_at_any_byte_a_dump_does_not_have_what_the_count_line_says(name: str) -> None:
    dump = first(name, 4)
    said = NO_FLOWS.replace(b" 0 flow", b" 4 flow")
    assert proof_of(dump, said).complete
    for length in range(len(dump) - 1):  # the last byte of all is a newline, which XML does not need
        assert not proof_of(dump[:length], said).complete


@pytest.mark.parametrize(
    "name", ["list.txt", "list-save.txt", "proc.txt", "list.xml", "list-extended-id.txt", "events.txt"]
)
def test_what_is_read_of_a_cut_dump_is_true(name: str) -> None:
    """A port or address that lost its end would make another key, and of a healthy entry a stale one."""
    dump = first(name, 5)
    true, _ = read(dump)
    assert len(true) == 5
    for length in range(len(dump)):
        entries, _ = read(dump[:length])
        for entry, whole in zip(entries, true, strict=False):
            assert (entry.key, entry.original, entry.timeout) == (whole.key, whole.original, whole.timeout)
            assert entry.seen in (whole.seen, Seen.REPLIED)
            assert {entry.id, entry.mark} <= {None, whole.id, whole.mark}
