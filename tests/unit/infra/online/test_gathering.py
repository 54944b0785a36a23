"""Values come from nodes in any order and stand where they were asked for."""

from __future__ import annotations

import random

import pytest

from skewless.infra.reads.online.cluster_reader import ReplyAssembler, Value


@pytest.mark.parametrize("seed", range(5))
def test_values_stand_in_their_places(seed: int) -> None:
    chance = random.Random(seed)
    places = list(range(20))
    chance.shuffle(places)
    parts = [places[:3], places[3:4], places[4:]]
    ended: list[tuple[list[Value], bool]] = []
    gathering = ReplyAssembler(20, len(parts), lambda *end: ended.append(end))
    for part in chance.sample(parts, 3):
        assert ended == []
        gathering.add_reply(part, [b"%d" % place for place in part])
    assert ended == [([b"%d" % i for i in range(20)], False)]


def test_an_error_stands_for_each_value_that_did_not_come() -> None:
    error = OSError("away")
    ended: list[tuple[list[Value], bool]] = []
    gathering = ReplyAssembler(3, 2, lambda *end: ended.append(end))
    gathering.add_reply([2, 0], error)
    gathering.add_reply([1], [None])
    assert ended == [([error, None, error], True)]
