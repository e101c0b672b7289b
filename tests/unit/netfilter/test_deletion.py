"""Deleting with conntrack: the words, and what it says of how it went."""

from __future__ import annotations

import pytest

from kdnsctl.netfilter.deletion import Said, command, said, version
from kdnsctl.netfilter.entries import Key


def test_the_dead_backend_is_always_in_the_filter() -> None:
    assert " ".join(command(Key("udp", "10.96.0.10", 53, "10.244.1.2", 5353))) == (
        "conntrack -D -p udp --orig-dst 10.96.0.10 --orig-port-dst 53 --reply-src 10.244.1.2 --reply-port-src 5353"
    )
    assert command(Key("tcp", "fd00::a", 53, "fd00::2", 53))[:5] == ("conntrack", "-D", "-f", "ipv6", "-p")


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        (b"conntrack v1.4.7 (conntrack-tools): 12 flow entries have been deleted.\n", Said(12)),
        (b"conntrack v1.4.6 (conntrack-tools): 0 flow entries have been deleted.\n", Said(0)),
        (
            b"conntrack v1.4.7 (conntrack-tools): Operation failed: such conntrack doesn't exist\n",
            Said(None, True, "conntrack v1.4.7 (conntrack-tools): Operation failed: such conntrack doesn't exist"),
        ),
        (b"sudo: conntrack: command not found\n", Said(None, problem="sudo: conntrack: command not found")),
        (b"12 flow entries have been deleted.\n", Said(None, problem="12 flow entries have been deleted.")),
        (b"", Said()),
    ],
)
def test_what_it_says(errors: bytes, expected: Said) -> None:
    assert said(errors) == expected


def test_the_release_is_told_by_conntrack_and_by_nothing_else() -> None:
    assert version(b"conntrack v1.4.7 (conntrack-tools)\n") == "1.4.7"
    assert version(b"sh: conntrack: not found\n") is None
    assert version(b"") is None
