"""The buckets in a real Valkey: many workers at once, a server that goes away, a cluster."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
import redis

from skewless.contract.errors import DefinitionError, StoreError
from skewless.infra.reads.online.shared_rates import Demand, SharedRates
from skewless.serving.access.rates import RateSharing
from tests.servers.cluster import Cluster
from tests.worlds.ports import free_ports
from tests.worlds.waiting import until


@pytest.fixture
def project_name() -> str:
    return f"p{uuid4().hex[:8]}"


def demand(name: str = "key/web", served: int = 0, wanted: int = 5, rate: float = 10.0) -> Demand:
    return Demand(name=name, rate=rate, size=max(rate, 1.0), served=served, wanted=wanted)


def test_a_full_bucket_gives_its_size_and_then_the_rate(server_url: str, project_name: str) -> None:
    rates = SharedRates(server_url, project_name)
    grants = [rates.take([demand()])[0] for _ in range(3)]
    assert [grant.requests for grant in grants] == [5, 5, 0]
    assert 0.0 < grants[2].wait_s <= 0.1
    assert rates.take([demand("key/shop")])[0].requests == 5
    rates.close()


def test_what_was_served_on_credit_counts_even_if_the_bucket_is_empty(server_url: str, project_name: str) -> None:
    rates = SharedRates(server_url, project_name)
    first, second = (rates.take([demand(served=25, wanted=1)])[0] for _ in range(2))
    assert (first.requests, second.requests) == (0, 0)
    assert 1.4 < first.wait_s < 1.7
    assert 3.9 < second.wait_s < 4.2
    rates.close()


def test_the_key_of_an_unused_bucket_expires(server_url: str, project_name: str) -> None:
    rates = SharedRates(server_url, project_name)
    rates.take([demand()])
    with redis.Redis.from_url(server_url) as client:
        assert 0 < client.pttl(f"sk:{project_name}:rate/key/web") <= 2_000
    rates.close()


def test_workers_at_once_get_no_request_twice(server_url: str, project_name: str) -> None:
    def ask(_: int) -> int:
        rates = SharedRates(server_url, project_name)
        granted = sum(rates.take([demand(rate=200.0, wanted=7)])[0].requests for _ in range(20))
        rates.close()
        return granted

    begin = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        granted = sum(pool.map(ask, range(8)))
    assert 200 <= granted <= 200 * (1 + time.monotonic() - begin) + 1


def test_four_workers_share_a_rate_in_real_time(server_url: str, project_name: str) -> None:
    sharings = [RateSharing(SharedRates(server_url, project_name), 0.25) for _ in range(4)]
    buckets = [sharing.new_bucket("key/web", 400.0) for sharing in sharings]
    passed, begin = [0] * 4, time.monotonic()

    def hammer(i: int) -> None:
        while (now := time.monotonic()) < begin + 1.5:
            passed[i] += buckets[i].take(now) == 0.0
            time.sleep(0.0005)

    threads = [threading.Thread(target=hammer, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lasted = time.monotonic() - begin
    for sharing in sharings:
        sharing.close()
    # Above: a full bucket, the rate, and for each worker its share and two chunks of a twentieth of the rate.
    assert sum(passed) <= 400 * (1 + lasted) + 4 * (100 + 2 * 20)
    # Most of the rate is used. Each worker alone would have let through four times as much.
    assert sum(passed) >= 400


def test_an_absent_server_is_an_error_and_it_works_when_it_is_there(server_url: str, project_name: str) -> None:
    away = SharedRates(f"redis://127.0.0.1:{free_ports(1)[0]}/0", project_name)
    for _ in range(2):
        with pytest.raises(StoreError, match="did not answer"):
            away.take([demand()])
    away.close()
    rates = SharedRates(server_url, project_name)
    rates.take([demand()])
    with redis.Redis.from_url(server_url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    until(lambda: _takes(rates))
    rates.close()


def _takes(rates: SharedRates) -> bool:
    try:
        return rates.take([demand()])[0].requests >= 0
    except StoreError:
        return False


def test_a_cluster_has_the_buckets_too(three_nodes: Cluster, project_name: str) -> None:
    rates = SharedRates(three_nodes.url, project_name)
    demands = [demand(f"key/{i}") for i in range(20)]
    for wanted in (5, 5, 0):
        assert [grant.requests for grant in rates.take(demands)] == [wanted] * 20
    rates.close()


def test_another_online_store_has_no_buckets(project_name: str) -> None:
    with pytest.raises(DefinitionError, match="'rate_limit': requires an online store in Redis or Valkey"):
        SharedRates("bigtable://x", project_name)
