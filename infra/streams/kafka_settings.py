"""What Kafka's client is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skewless.contract.errors import DefinitionError
from skewless.infra.streams.kafka_client import ClientLog

# Where to go on is the owner's to say, and a position that is gone must be heard of; so must the end of a partition,
# since the mark at the end of a transaction has a position and is not a message.
_OURS = {
    "auto.offset.reset": "error",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "group.protocol": "classic",
    "partition.assignment.strategy": "range,roundrobin",
}
# A topic that is made later, or gets more partitions, is found so soon; the client's own default is five minutes.
_DEFAULTS = {"topic.metadata.refresh.interval.ms": 5_000}
_TAKEN = {*_OURS, "bootstrap.servers", "group.id", "error_cb", "logger", "acks", "enable.idempotence"}


def consumer_settings(bootstrap: str, group: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a member of a group.

    Raises:
        DefinitionError: ``extra`` holds a setting that is ours to make.
    """
    given = {**_DEFAULTS, **_allowed(extra)}
    return {**given, **_OURS, "bootstrap.servers": bootstrap, "group.id": group, "logger": ClientLog()}


def producer_settings(bootstrap: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a sender, whose messages are stored once and on all replicas that are in step.

    Raises:
        DefinitionError: ``extra`` holds a setting that is ours to make.
    """
    given = {"partitioner": "murmur2_random", **_allowed(extra)}  # a key's partition is that of Java's producers
    ours = {"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "logger": ClientLog()}
    return {**given, **ours}


def admin_settings(bootstrap: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a client that only asks about topics; it needs the same keys to the broker."""
    shared = ("client.", "sasl.", "security.", "socket.", "ssl.", "broker.", "reconnect.", "enable.ssl", "enable.sasl")
    allowed = {name: value for name, value in extra.items() if name.startswith(shared)}
    return {**allowed, "bootstrap.servers": bootstrap, "logger": ClientLog()}


def _allowed(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    taken = sorted(_TAKEN & set(extra))
    if taken:
        raise DefinitionError(
            "settings of Kafka", "set what the stream decides itself", value=", ".join(taken), fix="leave them out"
        )
    return extra
