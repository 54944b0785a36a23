"""Ids of predictions: unique, with their time."""

from __future__ import annotations

from skewless.infra.records.predictions.ids import PredictionIds, find_id_time

NOW = 1_768_478_400_123_000


def test_ids_are_unique_and_have_their_time() -> None:
    first, second = PredictionIds(), PredictionIds()
    ids = [*first.take(NOW, 100), *first.take(NOW + 1_000, 100), *second.take(NOW, 100)]
    assert len({*ids}) == len(ids)
    assert {find_id_time(name) for name in ids} == {range(NOW, NOW + 1_000), range(NOW + 1_000, NOW + 2_000)}


def test_other_ids_have_no_time() -> None:
    for name in ("529985b27312-1", "", "x", "19ad1f7c2e0-8c81a2f7-", "19AD1F7C2E0-8c81a2f7-1f", "9" * 2_000):
        assert find_id_time(name) is None
    before = PredictionIds().take(-1_000, 1)[0]  # a request as of a time before 1970
    assert find_id_time(before) is None
