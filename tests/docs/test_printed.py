"""What counts as the same output, and what does not."""

from __future__ import annotations

import pytest

from tests.docs.printed import difference

SHOWN = (
    "NODE     VERDICT   SIGNATURES           LAST-SEEN",
    "knode2   suspect   CT_DEL_ENDPOINT(2)   2026-11-24T04:59:30Z",
    "…",
    "3 nodes in scope, 3 judged: 1 suspect, 2 clean.",
)


def printed(*changes: tuple[str, str]) -> list[str]:
    text = "\n".join(SHOWN).replace("…", "a line\nanother")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text.splitlines()


@pytest.mark.parametrize(
    "changes",
    [
        (),
        (("2026-11-24T04:59:30Z", "2027-01-02T23:00:01Z"),),
        (("knode2   ", "knode2 "),),
        (("a line\nanother\n", ""),),
    ],
)
def test_the_same(changes: tuple[tuple[str, str], ...]) -> None:
    assert difference(SHOWN, printed(*changes)) is None


@pytest.mark.parametrize(
    "change",
    [
        ("knode2", "knode3"),
        ("suspect ", "clean "),
        ("1 suspect, 2 clean", "2 suspect, 1 clean"),
        ("CT_DEL_ENDPOINT(2)", "CT_DEL_ENDPOINT(3)"),
        ("2026-11-24T04:59:30Z", "yesterday"),
        ("2 clean.", "2 clean.\nand a line more"),
        ("NODE ", "note: something\nNODE "),
    ],
)
def test_not_the_same(change: tuple[str, str]) -> None:
    assert difference(SHOWN, printed(change)) is not None


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ("pod coredns-5575d847cb-x2k9p (10.244.1.3)", "pod coredns-75c6bcdf86-6jncp (10.244.2.17)"),
        ("incident 20261128t064900z-1a2b took 4m10s", "incident 20270101t000000z-ffff took 12s"),
        ("https://127.0.0.1:42293 after 0.036s", "https://127.0.0.1:1 after 2s"),
        ("held: 0 % (0 of 6), 1.2 MB", "held: 0 % (0 of 26), 900 KB"),
        ("kdnsctl 0.1.0 on Python 3.11.7; the", "kdnsctl 1.2.0rc1 on Python 3.14.0; the"),
        ("deleted 1 stale UDP entry", "deleted 23 stale UDP entries"),
        ("knode2 affected both 23 CT(2)", "knode2 affected both 1 CT(2)"),
    ],
)
def test_what_changes_from_run_to_run(shown: str, real: str) -> None:
    assert difference((shown,), (real,)) is None
    assert difference((shown,), (real + " more",)) is not None


@pytest.mark.parametrize(("shown", "real"), [("10.96.0.10", "10.96.0.11"), ("0 % (0 of 6)", "100 % (6 of 6)")])
def test_what_does_not_change(shown: str, real: str) -> None:
    assert difference((shown,), (real,)) is not None


def test_dots_stand_for_lines_wherever_they_are() -> None:
    assert difference(("…", "b"), ("a", "b", "b")) is None
    assert difference(("a", "…"), ("a",)) is None
    assert difference(("a", "…", "c"), ("a", "b")) is not None
    assert difference(("a … c",), ("a b c",)) is None
