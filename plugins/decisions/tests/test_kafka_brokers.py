"""When a sink of Kafka checks the hosts that its brokers advertise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import pytest

from skewless.contract.destinations import SinkHosts
from skewless.contract.errors import DefinitionError, StoreError
from skewless.contract.sinks import KafkaSink
from skewless_decisions import message_sinks
from skewless_decisions.decision import JsonMessages
from skewless_decisions.message_sinks import KafkaDelivery
from skewless_decisions.outbox import DecisionBatch

if TYPE_CHECKING:
    from skewless_kafka.client import KafkaSender

SINK = KafkaSink(name="out", topic="decisions", servers="kafka:1")
NOTHING = DecisionBatch(first=0, last=0, positions=(), decisions=())


class ClusterSender:
    """Sends to a cluster whose brokers change."""

    def __init__(self, *hosts: str) -> None:
        self.hosts, self.asked, self.sent, self.fails = list(hosts), 0, 0, False

    def broker_hosts(self) -> list[str]:
        self.asked += 1
        return self.hosts

    def send(self, payloads: Sequence[bytes], keys: Sequence[str] | None = None) -> None:
        assert (list(payloads), keys) == ([], [])
        if self.fails:
            raise StoreError("Kafka topic 'decisions'", "did not answer", fix="wait")
        self.sent += 1


def opened(sender: ClusterSender, *allowed: str) -> KafkaDelivery:
    return KafkaDelivery(SINK, JsonMessages(), cast("KafkaSender", sender), SinkHosts(allowed))


@pytest.mark.parametrize("host", ["169.254.169.254", "metadata.google.internal", "fd00:ec2::254"])
def test_no_setting_is_needed_to_refuse_a_metadata_service(host: str) -> None:
    sender = ClusterSender("kafka-1", host)
    with pytest.raises(DefinitionError, match="sink 'out': has brokers that advertise a host that is not allowed"):
        opened(sender).send(NOTHING)
    assert sender.sent == 0
    opened(sender, "kafka-1", host).send(NOTHING)
    assert sender.sent == 1


def test_brokers_are_checked_at_first_after_a_failure_and_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = ClusterSender("kafka-1")
    delivery = opened(sender)
    for _ in range(3):
        delivery.send(NOTHING)
    assert (sender.asked, sender.sent) == (1, 3)
    sender.fails = True
    with pytest.raises(StoreError):
        delivery.send(NOTHING)
    sender.fails = False
    delivery.send(NOTHING)
    assert (sender.asked, sender.sent) == (2, 4)
    sender.hosts.append("169.254.169.254")
    delivery.send(NOTHING)
    monkeypatch.setattr(message_sinks, "_BROKERS_S", 0.0)  # the minute is over
    with pytest.raises(DefinitionError):
        delivery.send(NOTHING)
    assert (sender.asked, sender.sent) == (3, 5)
