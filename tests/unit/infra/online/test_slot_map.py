"""A map of slots holds what the cluster said, and asks to be renewed when it must be."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import RedisClusterException

from skewless.infra.reads.online.cluster_reader import Node, SlotMap
from skewless.infra.reads.online.servers import key_slot

A, B, C = (Node(f"10.0.0.{i}", 6_379) for i in (1, 2, 3))
RANGES: list[list[Any]] = [
    [0, 8_191, [b"10.0.0.1", 6_379, b"id-a", []], [b"10.0.0.9", 6_379, b"replica", []]],
    [8_192, 16_383, [b"10.0.0.2", 6_379, b"id-b", []]],
]


@pytest.fixture
def slots() -> SlotMap:
    one = SlotMap([C])
    one.load(RANGES, C)
    return one


def test_a_map_that_was_never_learnt_is_stale_and_knows_whom_to_ask() -> None:
    one = SlotMap([C, A, C])
    assert one.is_stale
    assert one.nodes() == [C, A]
    with pytest.raises(RedisClusterException, match="no node of the cluster serves slot 7"):
        one.owner(7)


def test_slots_belong_to_the_masters(slots: SlotMap) -> None:
    assert not slots.is_stale
    assert [slots.owner(slot) for slot in (0, 8_191, 8_192, 16_383)] == [A, A, B, B]
    assert slots.nodes() == [A, B, C]


@pytest.mark.parametrize("host", [b"", None])
def test_a_node_that_names_no_host_is_where_it_was_asked(host: bytes | None) -> None:
    one = SlotMap([C])
    one.load([[0, 16_383, [host, 7_000, b"id", []]]], C)
    assert one.owner(5) == Node(C.host, 7_000)


def test_a_slot_that_nobody_serves_any_more_is_told(slots: SlotMap) -> None:
    slots.load(RANGES[:1], A)
    assert slots.owner(8_191) == A
    with pytest.raises(RedisClusterException, match="slot 8192"):
        slots.owner(8_192)


def test_one_marker_is_read_on_each_master_also_when_a_slot_has_moved(slots: SlotMap) -> None:
    def asked() -> set[Node]:
        return {slots.owner(key_slot(key)) for key in slots.marker_keys("m")}

    assert len(slots.marker_keys("m")) == 2
    assert asked() == {A, B}
    for slot in range(8_192, 16_384):
        slots.set_owner(slot, C)
    assert len(slots.marker_keys("m")) == 2
    assert asked() == {A, C}
