"""A table reduced to bounded groups, and how two readings of a sample compare."""

from __future__ import annotations

import pytest

from kdnsctl.diagnosis.flows import FEWEST, Collector, Group, persisted
from kdnsctl.netfilter.entries import Entry, Key
from tests.unit.diagnosis.nodes import DEAD, DEAD_TOO, VIP, WHOLE, entry, flows

KEY = Key("udp", VIP, 53, DEAD, 53)


def group(entries: list[Entry], **bounds: int) -> Group:
    collector = Collector(**bounds)
    collector.add_all(entries)
    return collector.reading(WHOLE).groups[KEY]


def test_entries_are_counted_by_key_and_client() -> None:
    collector = Collector()
    collector.add_all([*flows(3), *flows(2, client="10.244.2.9"), entry(DEAD_TOO)])
    reading = collector.reading(WHOLE, entries=99)
    assert {key.reply_source: each.count for key, each in reading.groups.items()} == {DEAD: 5, DEAD_TOO: 1}
    assert reading.groups[KEY].clients == {"10.244.2.3": 3, "10.244.2.9": 2}
    assert (reading.groups[KEY].more, reading.lost, reading.entries) == (0, 0, 99)


def test_zones_tell_flows_apart() -> None:
    one, two = entry(), entry()
    assert len(group([one, two]).flows) == 1
    assert group([one, two]).count == 2


def test_clients_beyond_the_bound_are_counted() -> None:
    found = group([entry(client=f"10.244.2.{each}") for each in range(30)] + [entry(client="10.244.2.1")], clients=10)
    assert (len(found.clients), found.more, found.count) == (10, 20, 31)
    assert found.clients["10.244.2.1"] == 2


def test_groups_beyond_the_bound_are_lost_and_said_to_be() -> None:
    collector = Collector(groups=2)
    collector.add_all(entry(f"10.9.9.{each}") for each in range(5))
    reading = collector.reading(WHOLE)
    assert len(reading.groups) == 2
    assert reading.lost == 3


def test_a_group_that_is_too_large_keeps_a_sample() -> None:
    found = group(flows(4_000), flows=500)
    assert found.count == 4_000
    assert 0 < len(found.flows) <= 500
    assert found.mask


def test_all_groups_together_are_bounded_and_each_keeps_some() -> None:
    collector = Collector(details=400)
    for each in range(10):
        collector.add_all(flows(200, f"10.9.9.{each}"))
    groups = collector.reading(WHOLE).groups.values()
    assert sum(len(each.flows) for each in groups) <= 400
    assert all(each.flows for each in groups)
    assert all(each.count == 200 for each in groups)


def test_a_bound_below_the_fewest_still_keeps_the_fewest() -> None:
    collector = Collector(details=1)
    for each in range(5):
        collector.add_all(entry(f"10.9.9.{each}", client=f"10.244.{each}.{one}") for one in range(40))
    groups = list(collector.reading(WHOLE).groups.values())
    assert all(len(each.flows) <= FEWEST for each in groups)
    assert all(each.more == 40 - len(each.clients) for each in groups)
    assert all(each.clients for each in groups)


def test_what_persisted_is_exact_while_all_is_kept() -> None:
    assert persisted(group(flows(10)), group(flows(10, first=20_007))) == 3
    assert persisted(group(flows(10)), group(flows(10, first=30_000))) == 0


@pytest.mark.parametrize(("bound", "other"), [(400, 16_384), (16_384, 400), (300, 700)])
def test_what_persisted_is_estimated_from_samples(bound: int, other: int) -> None:
    earlier = group(flows(6_000), flows=bound)
    later = group(flows(6_000, first=23_000), flows=other)
    estimate = persisted(earlier, later)
    assert 2_000 < estimate < 4_000


def test_samples_without_anything_in_common_persist_nothing() -> None:
    earlier = group(flows(2_000), flows=100)
    assert persisted(earlier, group(flows(2_000, first=40_000), flows=100)) == 0


def test_packets_are_those_of_both_directions_where_they_are_counted() -> None:
    (sight,) = group([entry(packets=5)]).flows.values()
    assert sight.packets == 5
    (sight,) = group([entry()]).flows.values()
    assert sight.packets is None
