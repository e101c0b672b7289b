"""Three ways to ask, which are to tell the same of one server."""

from __future__ import annotations

import dataclasses
import socket
import threading
from dataclasses import replace

import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.cancel import CancelScope
from kdnsctl.model import CancelledError
from kdnsctl.probe.here import TIMEOUT, _read
from kdnsctl.probe.queries import EDNS_SIZE, NAME, Asker, Attempt, Batch, Over, tally
from tests.unit.probe.servers import Server, answer

SLOW = 60_000  # ms: what is answered need not hurry
SHORT = 60  # ms: what is not answered is not waited for long


def ask(asker: Asker, batch: Batch) -> list[Attempt]:
    told: list[Attempt] = []
    with CancelScope() as scope:
        asker.ask(batch, told.append, scope=scope)
    return told


def batch_for(server: Server, **more: object) -> Batch:
    return replace(Batch("127.0.0.1", server.port, interval=0, wait=SLOW), **more)  # type: ignore[arg-type]


def free_ports(count: int) -> tuple[int, ...]:
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = tuple(int(one.getsockname()[1]) for one in sockets)
    for one in sockets:
        one.close()
    return ports


@pytest.mark.parametrize("over", list(Over))
def test_each_query_has_a_port_of_its_own(asker: Asker, server: Server, over: Over) -> None:
    told = ask(asker, batch_for(server, count=4, over=over))
    assert [one.port for one in told] == [port for port, _ in server.asked]
    assert len({one.port for one in told}) == 4
    assert {(one.answered, one.rcode, one.answers, one.truncated, one.edns, one.error) for one in told} == {
        (True, 0, 1, False, False, "")
    }
    assert {query.question[0].name.to_text() for _, query in server.asked} == {NAME}
    assert len({query.id for _, query in server.asked}) > 1


def test_or_ports_that_are_held_take_turns_and_what_fails_for_one_fails_for_no_other(
    asker: Asker, server: Server
) -> None:
    one, other = free_ports(2)
    server.reply = lambda query, port: [] if port == other else [answer(query)]
    told = ask(asker, batch_for(server, count=4, ports=(one, other), wait=1000))
    assert [attempt.port for attempt in told] == [one, other, one, other]
    assert [attempt.answered for attempt in told] == [True, False, True, False]
    assert [attempt.error for attempt in told] == ["", TIMEOUT, "", TIMEOUT]


def test_a_port_that_is_in_use_is_left_to_whoever_has_it_and_is_no_lost_query(asker: Asker, server: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("", 0))
        (told,) = ask(asker, batch_for(server, ports=(other.getsockname()[1],)))
    assert (told.error, told.unsent) == ("Address already in use", True)
    assert tally([told]).lost == 0
    assert server.asked == []


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.NXDOMAIN, dns.rcode.REFUSED])
def test_whatever_it_says_it_has_answered(asker: Asker, server: Server, rcode: dns.rcode.Rcode) -> None:
    server.reply = lambda query, _: [answer(query, rcode)]
    (told,) = ask(asker, batch_for(server))
    assert (told.answered, told.rcode, told.answers) == (True, int(rcode), 0)


def test_a_cut_answer_is_told(asker: Asker, server: Server) -> None:
    server.reply = lambda query, _: [answer(query, cut=True)]
    assert ask(asker, batch_for(server))[0].truncated


@pytest.mark.parametrize("over", list(Over))
def test_edns_is_offered_and_whether_it_is_understood_is_told(asker: Asker, server: Server, over: Over) -> None:
    assert ask(asker, batch_for(server, edns=EDNS_SIZE, over=over))[0].edns
    assert (server.asked[0][1].edns, server.asked[0][1].payload) == (0, EDNS_SIZE)
    server.reply = lambda query, _: [answer(plain(query))]
    assert not ask(asker, batch_for(server, edns=EDNS_SIZE, over=over))[0].edns


def plain(query: dns.message.Message) -> dns.message.Message:
    """The query without EDNS, as a server sees it that does not know it."""
    return dns.message.make_query(query.question[0].name, "A", id=query.id)


def test_what_is_no_answer_to_the_query_is_passed_over(asker: Asker, server: Server) -> None:
    def others(query: dns.message.Message, _: int) -> list[bytes]:
        wrong_id = bytearray(answer(query))
        wrong_id[0] ^= 0xFF
        question = answer(dns.message.make_query("other.example", "A", id=query.id))
        return [bytes(wrong_id), question, query.to_wire(), b"\0", b"", answer(query)[:20]]

    server.reply = others
    assert ask(asker, batch_for(server, wait=SHORT))[0].error == TIMEOUT
    server.reply = lambda query, port: [*others(query, port), answer(query)]
    (told,) = ask(asker, batch_for(server))
    assert (told.rcode, told.answers) == (0, 1)


@given(st.binary(max_size=100), st.integers(0, 60), st.integers(0, 255))
def test_no_message_breaks_the_reading(wire: bytes, place: int, byte: int) -> None:
    valid = bytearray(answer(dns.message.make_query(NAME, "A", use_edns=0)))
    valid[place] = byte
    for one in (wire, bytes(valid), bytes(valid[:place])):
        assert _read(one) is None or isinstance(_read(one), dns.message.Message)


def test_a_late_answer_is_lost_and_does_no_harm_to_the_next(asker: Asker, server: Server) -> None:
    late: list[bytes] = []

    def reply(query: dns.message.Message, _: int) -> list[bytes]:
        late.append(answer(query))
        return late[:-1] if len(late) == 2 else [] if len(late) == 1 else [late[-1]]

    server.reply = reply
    told = ask(asker, batch_for(server, count=2, ports=free_ports(1), wait=SHORT))
    assert [one.error for one in told] == [TIMEOUT, TIMEOUT]
    assert ask(asker, batch_for(server))[0].answered


def test_nobody_there_is_told_at_once(asker: Asker) -> None:
    (port,) = free_ports(1)
    for over in Over:
        (told,) = ask(asker, Batch("127.0.0.1", port, over=over, wait=SLOW))
        assert (told.answered, told.error) == (False, "Connection refused")


def test_a_server_that_hangs_up_is_told(asker: Asker, server: Server) -> None:
    server.over_tcp = lambda *_: []
    assert ask(asker, batch_for(server, over=Over.TCP))[0].error == "the server closed the connection"


def test_an_interruption_ends_it_at_once_and_is_no_lost_query(asker: Asker, server: Server) -> None:
    arrived = threading.Event()

    def reply(*_: object) -> list[bytes]:
        arrived.set()
        return []

    server.reply = reply
    told: list[Attempt] = []
    with CancelScope() as scope:
        ends: list[BaseException] = []

        def work() -> None:
            try:
                asker.ask(batch_for(server, count=100), told.append, scope=scope)
            except CancelledError as error:
                ends.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        assert arrived.wait(60)
        scope.cancel()
        thread.join(60)
        assert len(ends) == 1
        assert told == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "kube-dns.kube-system"},
        {"address": "0.0.0.0"},
        {"address": "fe80::1%eth0"},
        {"address": "-x"},
        {"port": 0},
        {"ports": (70000,)},
        {"ports": tuple(range(1, 40))},
        {"name": "-n.example"},
        {"name": "a b"},
        {"name": "a..b"},
        {"name": ""},
        {"name": "x" * 64},
        {"name": "$(id)"},
        {"count": 0},
        {"count": 10**6},
        {"wait": 0},
        {"edns": 100},
    ],
)
def test_what_makes_no_sense_reaches_no_node(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        dataclasses.replace(Batch("127.0.0.1"), **wrong)  # type: ignore[arg-type]
