"""Three brokers: one of them is killed, replicas are missing, and a leader is elected that lacks messages."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest
from confluent_kafka.cimpl import NewTopic
from structlog.testing import capture_logs

from skewless.contract.errors import StoreError
from skewless_kafka.client import KafkaSender
from tests.contract.streams import KafkaPlace, Log, N, Worker, numbered, poll_until, send, spread
from tests.servers.kafka import NODES, KafkaCluster, kafka_cluster
from tests.worlds.waiting import until

pytestmark = pytest.mark.soak
_KILLS = 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    with kafka_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


def send_until_stored(sender: KafkaSender, bodies: list[bytes]) -> None:
    """Send again and again, as a sink does."""
    while True:
        try:
            sender.send(bodies, spread(len(bodies)))
        except StoreError:
            time.sleep(0.1)
        else:
            return


def are_done(calls: Sequence[Future[None]]) -> bool:
    return all(call.done() for call in calls)


def test_leaders_are_killed_while_two_workers_read_and_a_sender_writes(cluster: KafkaCluster) -> None:
    place, log, first = KafkaPlace(cluster), Log(), 0
    workers = [Worker(place, log), Worker(place, log)]
    sender = KafkaSender(cluster.bootstrap, place.topic, timeout_s=5.0)
    with ThreadPoolExecutor(1) as pool:
        for turn in range(_KILLS):
            stored = [pool.submit(send_until_stored, sender, numbered(50, at)) for at in range(first, first + 500, 50)]
            leader = cluster.leader(place.topic, turn % N)
            leader.kill()
            poll_until(workers, partial(are_done, stored))
            leader.start()
            cluster.wait_for_brokers(NODES)
            first += 500
    expected = sorted(numbered(first))
    poll_until(workers, lambda: sorted({*log.in_any_order()}) == expected)
    log.assert_in_order()
    positions = [(partition, at) for partition, entries in log.read.items() for at, _ in entries]
    assert len(positions) == len(set(positions))
    assert sorted(body for lane in cluster.read(place.topic) for body in lane) == log.in_any_order()
    sender.close()
    for worker in workers:
        worker.stream.close()


def test_too_few_replicas_are_an_error_until_they_are_back(cluster: KafkaCluster) -> None:
    place = KafkaPlace(cluster)
    place.topic += "-all"
    cluster.make(place.topic, 1, config={"min.insync.replicas": f"{NODES}"})
    sender = KafkaSender(cluster.bootstrap, place.topic, timeout_s=5.0)
    sender.send([b"0"])
    follower = next(node for node in cluster.nodes if node is not cluster.leader(place.topic))
    follower.kill()
    until(lambda: len(isr(cluster, place.topic)) < NODES)
    with pytest.raises(StoreError, match=place.topic):
        sender.send([b"1"])
    follower.start()
    send_until_stored(sender, [b"1"])
    sender.close()
    assert cluster.read(place.topic)[0][0] == b"0"
    assert cluster.read(place.topic)[0][-1] == b"1"


def isr(cluster: KafkaCluster, topic: str) -> list[int]:
    """Return the in-sync replicas of the first partition."""
    return list(cluster.admin().list_topics(topic, timeout=10).topics[topic].partitions[0].isrs)


@pytest.mark.parametrize("n_new", [20, 80], ids=["shorter than before", "longer than before"])
def test_of_a_leader_that_lacks_messages_a_running_worker_names_the_loss_and_reads_all_others(
    cluster: KafkaCluster, n_new: int
) -> None:
    place, log = KafkaPlace(cluster), Log()
    place.topic += "-unclean"
    config = {"min.insync.replicas": "1", "unclean.leader.election.enable": "true"}
    new = NewTopic(place.topic, 1, replica_assignment=[[1, 2]], config=config)
    admin = cluster.admin()
    admin.create_topics([new])[place.topic].result(10)
    until(lambda: place.topic in admin.list_topics(timeout=10).topics)
    leader, follower = cluster.nodes[:2]
    worker, troubles = Worker(place, log), set[str | None]()
    send(place, numbered(50))
    poll_until([worker], log.has(50))
    follower.kill()
    until(partial(is_alone, cluster, place.topic, 1))
    send(place, numbered(50, 50))
    poll_until([worker], log.has(100))
    leader.kill()
    follower.start()
    until(partial(is_alone, cluster, place.topic, 2))
    send_until_stored(KafkaSender(cluster.bootstrap, place.topic), numbered(n_new, 100))

    def look() -> bool:
        troubles.add(worker.stream.trouble)
        return set(numbered(n_new, 100)) <= set(log.payloads())

    with capture_logs() as logs:
        poll_until([worker], look)
    poll_until([worker], lambda: worker.all_drained)
    (lost,) = [entry for entry in logs if entry["event"] == "stream_positions_lost"]
    assert lost["position"] == 100
    assert any("are lost" in (trouble or "") for trouble in troubles)
    # Where the client finds no cut, but the end before its position, all is read again: only ids tell what is new.
    again = [] if lost["cut"] == 50 else numbered(50)
    assert log.payloads() == [*numbered(100), *again, *numbered(n_new, 100)]
    worker.stream.close()
    leader.start()
    cluster.wait_for_brokers(NODES)


def is_alone(cluster: KafkaCluster, topic: str, node: int) -> bool:
    return isr(cluster, topic) == [node]
