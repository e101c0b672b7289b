"""The table of what answers mean together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.probe.queries import UNSENT, Attempt, Tally, tally
from kdnsctl.probe.verdict import ORDER, UNTOLD, Held, Result, Seen, gravest, held_state, judge, judge_local

WELL = {"coredns-a": Tally(3, 3), "coredns-b": Tally(3, 3)}
ONE_DOWN = {"coredns-a": Tally(3, 3), "coredns-b": Tally(3, 0)}
ALL_DOWN = {"coredns-a": Tally(3, 0), "coredns-b": Tally(3, 0)}
ALIVE = {1: Held.ANSWERED, 2: Held.ANSWERED}
FINE = Seen("dns", 2, inside=True, fresh=Tally(7, 7), tcp=Tally(4, 4), held=ALIVE, pods=WELL)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (FINE, [Result.ANSWERS]),
        (replace(FINE, held={1: Held.DEAD, 2: Held.ANSWERED}), [Result.STALE_ENTRIES]),
        (replace(FINE, held={1: Held.DIED, 2: Held.ANSWERED}), [Result.STALE_ENTRIES]),
        (replace(FINE, held={1: Held.LOSSY}), [Result.LOSSY]),
        (replace(FINE, held={1: Held.NOT_ASKED}), [Result.ANSWERS]),
        (replace(FINE, fresh=Tally(7, 4), tcp=Tally(4, 2)), [Result.STALE_RULES]),
        (
            replace(FINE, fresh=Tally(7, 4), held={1: Held.DEAD}),
            [Result.STALE_RULES, Result.STALE_ENTRIES],
        ),
        (replace(FINE, fresh=Tally(44, 43), backends=10), [Result.LOSSY]),
        (replace(FINE, fresh=Tally(44, 40), backends=10), [Result.STALE_RULES]),
        (replace(FINE, fresh=Tally(7, 0)), [Result.UDP_BLOCKED]),
        (replace(FINE, fresh=Tally(7, 0), tcp=Tally(4, 0)), [Result.NOT_PROGRAMMED]),
        (replace(FINE, tcp=Tally(4, 0)), [Result.TCP_BLOCKED]),
        (replace(FINE, tcp=Tally(4, 2)), [Result.STALE_RULES]),  # TCP has rules of its own
        (replace(FINE, tcp=Tally(8, 7)), [Result.LOSSY]),
        (replace(FINE, pods={**WELL, "coredns-c": Tally(3, 2)}), [Result.LOSSY]),
        (replace(FINE, pods=ONE_DOWN), [Result.POD_DOWN]),
        # One pod that is dead and still serves explains lost queries: no rule is stale.
        (replace(FINE, pods=ONE_DOWN, fresh=Tally(7, 4)), [Result.POD_DOWN]),
        (replace(FINE, pods=ALL_DOWN, fresh=Tally(7, 0), tcp=Tally(4, 0)), [Result.DNS_DOWN]),
        # From here pods may not be reached at all while the Service is: no pod is called down.
        (replace(FINE, pods=ALL_DOWN), [Result.ANSWERS]),
        (replace(FINE, pods={}, backends=0, fresh=Tally(7, 0), tcp=Tally(4, 0)), [Result.DNS_DOWN]),
        (replace(FINE, pods={}, fresh=Tally(7, 0), tcp=Tally(4, 0)), [Result.UNKNOWN]),
        (replace(FINE, inside=False, pods=ALL_DOWN, fresh=Tally(7, 0), tcp=Tally(4, 0)), [Result.UNREACHABLE]),
        (replace(FINE, fresh=Tally(7, 7, rcodes=((2, 7),))), [Result.SERVER_FAILS]),
        (replace(FINE, pods={**WELL, "coredns-b": Tally(3, 3, rcodes=((0, 2), (2, 1)))}), [Result.SERVER_FAILS]),
        (replace(FINE, fresh=Tally(7, 7, rcodes=((3, 4), (5, 3)))), [Result.ANSWERS]),
        (
            replace(FINE, fresh=Tally(7, 4, rcodes=((2, 4),))),
            [Result.STALE_RULES, Result.SERVER_FAILS],
        ),
        (replace(FINE, fresh=None), [Result.UNKNOWN]),
        (replace(FINE, fresh=Tally(0, 0, unsent=7)), [Result.UNKNOWN]),
    ],
)
def test_what_answers_together_mean(seen: Seen, expected: list[Result]) -> None:
    assert [finding.result for finding in judge(seen)] == expected


def test_too_few_queries_to_meet_a_dead_pod_are_told() -> None:
    (finding,) = judge(replace(FINE, backends=10, fresh=Tally(1, 1)))
    assert (finding.result, "1 query meets one dead pod among 10 with" in finding.message) == (Result.ANSWERS, True)
    assert "10%" in finding.message
    assert "probability" not in judge(replace(FINE, backends=10, fresh=Tally(44, 44)))[0].message


def test_a_cache_that_cannot_answer_is_no_cache_that_is_down() -> None:
    (finding,) = judge_local("169.254.20.10:53", Tally(3, 3, rcodes=((2, 3),)), Tally(3, 3), others_answer=True)
    assert finding.result is Result.SERVER_FAILS
    assert "3 of 6 answers SERVFAIL" in finding.message


def test_why_it_could_not_be_asked_is_told() -> None:
    error = next(iter(UNSENT))
    (finding,) = judge(replace(FINE, fresh=tally([Attempt(0, 0, error=error)])))
    assert finding.message.endswith(f"could not be asked over UDP: {error}")


counts = st.integers(0, 20).flatmap(lambda sent: st.tuples(st.just(sent), st.integers(0, sent)))
tallies = st.none() | counts.map(lambda pair: Tally(*pair))


@given(
    fresh=tallies,
    tcp=tallies,
    held=st.dictionaries(st.integers(1, 4), st.sampled_from(list(Held))),
    pods=st.dictionaries(st.sampled_from("abc"), counts.map(lambda pair: Tally(*pair))),
    backends=st.integers(0, 20),
    inside=st.booleans(),
)
def test_nothing_that_was_lost_or_not_asked_is_called_well(
    fresh: Tally | None,
    tcp: Tally | None,
    held: dict[int, Held],
    pods: dict[str, Tally],
    backends: int,
    inside: bool,
) -> None:
    findings = judge(Seen("dns", backends, inside, fresh, tcp, held, pods))
    assert findings
    assert [ORDER.index(one.result) for one in findings] == sorted(ORDER.index(one.result) for one in findings)
    worst = gravest(findings)
    assert worst is not None
    if worst.result is Result.ANSWERS:
        assert fresh is not None
        assert fresh.sent == fresh.answered > 0
        assert not {Held.DEAD, Held.DIED, Held.LOSSY} & set(held.values())
        assert tcp is None or (tcp.sent and not tcp.lost)
        assert not any(pod.lost and pod.answered for pod in pods.values())
    if not inside and not (fresh and fresh.answered) and not any(pod.answered for pod in pods.values()):
        assert worst.result in UNTOLD or (tcp and tcp.answered)


@pytest.mark.parametrize(
    ("answered", "state"),
    [
        ("", Held.NOT_ASKED),
        ("+++", Held.ANSWERED),
        ("---", Held.DEAD),
        ("--", Held.DEAD),
        ("-", Held.LOSSY),
        ("+--", Held.DIED),
        ("-+-", Held.LOSSY),
        ("--+", Held.LOSSY),
        ("++-", Held.LOSSY),
    ],
)
def test_what_became_of_a_held_port(answered: str, state: Held) -> None:
    attempts = [Attempt(1, 1, rcode=0) if one == "+" else Attempt(1, 9, error="timeout") for one in answered]
    assert held_state(attempts) is state
    taken = Attempt(1, 0, error=next(iter(UNSENT)))
    assert held_state([*attempts, taken]) is state  # what was not sent tells nothing


def test_of_a_nodes_own_cache_all_is_told_that_was_lost_or_not_asked() -> None:
    where, unsent = "169.254.20.10:53", tally([Attempt(0, 0, error=next(iter(UNSENT)))])

    def told(udp: Tally, tcp: Tally | None = None) -> list[tuple[Result, str]]:
        found = judge_local(where, udp, tcp, others_answer=True)
        return [(one.result, one.message.removeprefix(f"node-local-dns at {where}")) for one in found]

    assert told(Tally(3, 3), Tally(3, 3)) == told(Tally(3, 3)) == []
    assert told(Tally(3, 0), Tally(3, 0)) == [(Result.NODE_LOCAL_DOWN, " does not answer while the Service does")]
    assert told(Tally(3, 3), Tally(3, 0)) == [
        (Result.NODE_LOCAL_DOWN, " does not answer over TCP while the Service does")
    ]
    assert told(Tally(3, 2), Tally(3, 3)) == [(Result.LOSSY, ": 1 of 3 queries over UDP are lost")]
    assert [result for result, _ in told(unsent, Tally(3, 3))] == [Result.UNKNOWN]
