"""Values of the store that are kept for a bounded time, against a plain model of the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.feature_reads import CachedValues, FeatureCache, min_watermarks

AGE, ENTRIES = 10, 4
KEYS = st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f"]), unique=True)
MARKS = st.dictionaries(st.sampled_from(["m", "n", "o"]), st.integers(0, 9))


def cache(metrics: Metrics | None = None) -> FeatureCache:
    return FeatureCache(max_age_us=AGE, entries=ENTRIES, metrics=metrics or Metrics())


@pytest.mark.parametrize(("now", "held"), [(100, True), (110, True), (111, False)])
def test_a_value_is_used_up_to_its_age_and_no_longer(now: int, *, held: bool) -> None:
    one = cache()
    one.put({b"a": b"1"}, {"m": 99}, 100)
    assert one.get([b"a"], now) == (CachedValues({b"a": b"1"}, 100, {"m": 99}) if held else CachedValues({}, now, {}))


def test_that_nothing_is_there_is_known_as_well() -> None:
    one = cache()
    one.put({b"a": None}, {}, 100)
    assert one.get([b"a", b"b"], 105) == CachedValues({b"a": None}, 100, {})


def test_the_oldest_of_those_that_are_used_counts() -> None:
    one = cache()
    one.put({b"a": b"1"}, {}, 100)
    one.put({b"b": b"2"}, {}, 105)
    assert one.get([b"a", b"b"], 109).oldest_us == 100
    assert one.get([b"b"], 109).oldest_us == 105
    assert one.get([b"a", b"b"], 112) == CachedValues({b"b": b"2"}, 105, {})


def test_8_4_the_least_watermark_of_those_that_are_used_counts() -> None:
    one = cache()
    one.put({b"a": b"1"}, {"m": 90, "n": 99}, 100)
    one.put({b"b": b"2"}, {"m": 95, "n": 94, "o": 0}, 105)
    assert one.get([b"a", b"b"], 109).watermarks == {"m": 90, "n": 94, "o": 0}
    assert one.get([b"a"], 109).watermarks == {"m": 90, "n": 99}
    one.put({b"a": b"1"}, {"m": 106}, 107)
    assert one.get([b"a"], 109).watermarks == {"m": 106}
    assert one.get([b"a", b"b"], 116).watermarks == {"m": 106}


def test_a_value_read_again_is_the_new_one() -> None:
    one = cache()
    one.put({b"a": b"1"}, {}, 100)
    one.put({b"a": b"2"}, {}, 108)
    assert one.get([b"a"], 115) == CachedValues({b"a": b"2"}, 108, {})


def test_what_was_read_first_goes_first() -> None:
    one = cache()
    one.put({b"a": b"1", b"b": b"1", b"c": b"1", b"d": b"1"}, {}, 100)
    one.put({b"a": b"2"}, {}, 101)
    one.put({b"e": b"2", b"f": b"2"}, {}, 102)
    assert set(one.get([b"a", b"b", b"c", b"d", b"e", b"f"], 103).values) == {b"d", b"a", b"e", b"f"}


def test_hits_and_misses_are_counted() -> None:
    metrics = Metrics()
    one = cache(metrics)
    one.put({b"a": b"1"}, {}, 100)
    one.get([b"a", b"b", b"c"], 101)
    one.get([b"a"], 102)
    assert (metrics.hits("feature").value, metrics.misses("feature").value) == (2, 2)


@given(st.lists(st.tuples(st.booleans(), KEYS, st.integers(0, 4), MARKS), max_size=30))
def test_it_says_what_a_plain_list_of_reads_says(steps: list[tuple[bool, list[bytes], int, dict[str, int]]]) -> None:
    """The oracle keeps every read in order and looks through all of them."""
    one, reads, now = cache(), list[tuple[bytes, bytes, int, dict[str, int]]](), 1_000
    for i, (puts, keys, later, marks) in enumerate(steps):
        now += later
        if puts:
            one.put(dict.fromkeys(keys, b"%d" % i), marks, now)
            reads = [read for read in reads if read[0] not in keys] + [(key, b"%d" % i, now, marks) for key in keys]
            reads = reads[-ENTRIES:]
        fresh = [read for read in reads if read[0] in keys and now - read[2] <= AGE]
        values, oldest, watermarks = one.get(keys, now)
        assert values == {key: value for key, value, _, _ in fresh}
        assert oldest == min((at for _, _, at, _ in fresh), default=now)
        names = {name for *_, with_it in fresh for name in with_it}
        assert watermarks == {name: min(each[name] for *_, each in fresh if name in each) for name in names}


@given(st.lists(MARKS, max_size=5))
def test_the_least_of_nothing_is_nothing_and_of_several_the_least_of_each(several: list[dict[str, int]]) -> None:
    pairs = sorted(((name, at) for each in several for name, at in each.items()), reverse=True)
    assert min_watermarks(several) == dict(pairs)
