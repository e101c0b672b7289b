"""ipvsadm-save and /proc/net/ip_vs: both forms of one node give one model."""

import pytest

from kdnsctl.netfilter import ipvs
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.netfilter.rules import Mode, NodeRules, Target
from tests.unit.netfilter.judging import WHOLE, code

SAVED = """\
-A -t 10.96.0.1:443 -s rr
-a -t 10.96.0.1:443 -r 10.88.0.1:6443 -m -w 1
-A -u 10.96.0.10:53 -s rr -p 10800
-a -u 10.96.0.10:53 -r 10.244.1.5:53 -m -w 1
-a -u 10.96.0.10:53 -r 10.244.1.6:53 -m -w 0
-a -u 10.96.0.10:53 -r 10.244.1.7:53 -m -w 1
-A -u 10.96.0.20:53 -s wrr
-a -u 10.96.0.20:53 -r 10.244.1.8:53 -m -w 3
-a -u 10.96.0.20:53 -r 10.244.1.9:53 -m -w 1
-A -u 10.96.0.30:53 -s lc
-a -u 10.96.0.30:53 -r 10.244.1.8:53 -m -w 1
-a -u 10.96.0.30:53 -r 10.244.1.9:53 -m -w 0
-A -u 10.96.0.40:53 -s rr
-A --sctp-service 10.96.0.50:7 -s rr
-A -f 7 -s rr
-a -f 7 -r 10.0.0.1:0 -m -w 1
-A -u [fd00::10]:53 -s rr
-a -u [fd00::10]:53 -r [fd00::a]:53 -m -w 1
"""

PROC = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:01BB rr
  -> 0A580001:192B      Masq    1      2          0
UDP  0A60000A:0035 rr persistent 10800 FFFFFFFF
  -> 0AF40105:0035      Masq    1      0          0
  -> 0AF40106:0035      Masq    0      0          0
  -> 0AF40107:0035      Masq    1      0          0
UDP  0A600014:0035 wrr
  -> 0AF40108:0035      Masq    3      0          0
  -> 0AF40109:0035      Masq    1      0          0
UDP  0A60001E:0035 lc ops
  -> 0AF40108:0035      Masq    1      0          0
  -> 0AF40109:0035      Masq    0      0          0
UDP  0A600028:0035 rr
SCTP 0A600032:0007 rr
FWM  00000007 rr
  -> 0A000001:0000      Masq    1      0          0
UDP  [fd00:0000:0000:0000:0000:0000:0000:0010]:0035 rr
  -> [fd00:0000:0000:0000:0000:0000:0000:000a]:0035      Masq    1      0          0
"""


def read(text: str, trailer: Completeness | None = None) -> tuple[NodeRules, ...]:
    return ipvs.parse([text.encode()], trailer)


@pytest.mark.parametrize("text", [SAVED, PROC])
def test_services_and_real_servers_of_both_families(text: str) -> None:
    four, six = read(text, WHOLE)
    assert (four.mode, four.family, six.family) == (Mode.IPVS, 4, 6)
    assert four.completeness == six.completeness == WHOLE
    found = {(each.protocol, each.address, each.port): each for each in four.services}
    assert found["tcp", "10.96.0.1", 443].targets == (Target("10.88.0.1", 6443, 1.0, weight=1),)
    dns = found["udp", "10.96.0.10", 53]
    assert dns.affinity
    assert dns.targets == (
        Target("10.244.1.5", 53, 0.5, weight=1),
        Target("10.244.1.6", 53, 0.0, weight=0),
        Target("10.244.1.7", 53, 0.5, weight=1),
    )
    assert [each.probability for each in found["udp", "10.96.0.20", 53].targets] == [0.75, 0.25]
    assert [each.probability for each in found["udp", "10.96.0.30", 53].targets] == [None, 0.0]
    assert not found["udp", "10.96.0.20", 53].affinity
    assert found["udp", "10.96.0.40", 53].targets == ()
    assert ("sctp", "10.96.0.50", 7) in found
    assert len(found) == 6
    (dns_six,) = six.services
    assert (dns_six.address, dns_six.targets) == ("fd00::10", (Target("fd00::a", 53, 1.0, weight=1),))


def test_both_forms_give_the_same_model() -> None:
    assert read(SAVED) == read(PROC)


def test_a_list_has_no_end_of_its_own() -> None:
    assert [code(each) for each in read(SAVED)] == ["noTrailer", "noTrailer"]
    (nothing,) = read("")
    assert (code(nothing), nothing.family, nothing.services) == ("noTrailer", None, ())
    (empty,) = read("", WHOLE)
    assert empty.completeness.complete


def test_a_trailers_bad_news_is_passed_on() -> None:
    missing = Completeness(problem=WHOLE.problem)
    assert not read(SAVED, missing)[0].completeness.complete


@pytest.mark.parametrize(
    "line",
    [
        "-A -t host:53 -s rr",
        "-A -t 10.0.0.1 -s rr",
        "-A -s rr",
        "-a -u 10.96.0.99:53 -r 10.244.1.5:53 -m -w 1",
        "-a -u 10.96.0.10:53 -m -w 1",
        "-a -u 10.96.0.10:53 -r",
        "ipvsadm: you must be root",
        "UDP 0A6000:0035 rr",
        "UDP [x]:0035 rr",
        "  -> nonsense",
        "QUIC 0A60000A:0035 rr",
    ],
)
def test_a_line_that_is_not_known_makes_the_list_incomplete(line: str) -> None:
    rules = read(f"{SAVED}{line}\n", WHOLE)
    assert [code(each) for each in rules] == ["unreadable", "unreadable"]
    assert [len(each.services) for each in rules] == [6, 1]


def test_a_line_that_is_cut_off_is_not_read() -> None:
    rules = read(SAVED + "-a -u [fd00::10]:53 -r [fd00::b]:5", WHOLE)
    assert code(rules[1]) == "unreadable"
    assert [target.address for target in rules[1].services[0].targets] == ["fd00::a"]


def test_weights_that_are_no_number_or_not_there() -> None:
    rules = read(
        "-A -u 10.0.0.1:53 -s rr\n-a -u 10.0.0.1:53 -r 10.0.0.2:53 -w x\n-a -u 10.0.0.1:53 -r 10.0.0.3:53 -m\n"
    )
    assert [(target.weight, target.probability) for target in rules[0].services[0].targets] == [(None, None), (1, None)]
    rules = read("UDP  0A60000A:0035 rr\n  -> 0AF40105:0035      Masq\n")
    assert rules[0].services[0].targets == (Target("10.244.1.5", 53, None),)
    rules = read("-A -u 10.0.0.1:53 -s rr\n-a -u 10.0.0.1:53 -r 10.0.0.2:53 -m -w 0\n")
    assert rules[0].services[0].targets == (Target("10.0.0.2", 53, 0.0, weight=0),)


def test_lists_without_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipvs, "MOST_LINES", 3)
    rules = read(SAVED, WHOLE)
    assert code(rules[0]) == "unreadable"
    assert len(rules[0].services) == 2
