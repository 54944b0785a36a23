"""Connections between two calls."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from skewless.client.addresses import parse_address
from skewless.client.pool import Pool
from skewless.contract.errors import RequestError
from tests.integration.client.faces import Time

A, B = parse_address("http://a"), parse_address("http://b")


@dataclass(eq=False)
class Fake:
    """A connection."""

    good: bool = True
    closed: int = 0

    def usable(self) -> bool:
        return self.good

    def close(self) -> None:
        self.closed += 1


def test_the_one_used_last_goes_first_and_to_its_own_address() -> None:
    pool: Pool[Fake] = Pool(4.0, Time().clock)
    one, two, other = Fake(), Fake(), Fake()
    for address, connection in ((A, one), (B, other), (A, two)):
        pool.give_back(address, connection, keep=True)
    assert [pool.take(A), pool.take(A), pool.take(A), pool.take(B)] == [two, one, None, other]


def test_the_old_and_the_broken_are_closed() -> None:
    time = Time()
    pool: Pool[Fake] = Pool(4.0, time.clock)
    old, broken, good, spent = Fake(), Fake(good=False), Fake(), Fake()
    pool.give_back(A, old, keep=True)
    time.sleep(5.0)
    pool.give_back(A, good, keep=True)
    pool.give_back(A, broken, keep=True)
    pool.give_back(A, spent, keep=False)
    assert pool.take(A) is good
    assert [one.closed for one in (old, broken, good, spent)] == [1, 1, 0, 1]


def test_a_closed_pool_keeps_nothing() -> None:
    pool: Pool[Fake] = Pool(4.0, Time().clock)
    waiting, away = Fake(), Fake()
    pool.give_back(A, waiting, keep=True)
    assert pool.close() == [waiting]
    pool.give_back(A, away, keep=True)
    assert (waiting.closed, away.closed, pool.take(A)) == (1, 1, None)
    with pytest.raises(RequestError, match="client: is closed"):
        pool.check_open()
