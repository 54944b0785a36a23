"""Declarations of sinks: their bounds, and secrets that are only named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from skewless.contract.errors import DefinitionError
from skewless.contract.sinks import (
    KafkaSink,
    KinesisSink,
    ParquetSink,
    RedisStreamSink,
    Sink,
    WebhookSink,
    sink_from_dict,
)

KAFKA: dict[str, Any] = {"name": "out", "topic": "decisions", "servers": "h:9092"}
HOOK: dict[str, Any] = {"name": "out", "url": "https://h/x", "secret_env": "HOOK_SECRET"}
REDIS: dict[str, Any] = {"name": "out", "stream": "decisions"}


@pytest.mark.parametrize(
    "sink",
    [
        KafkaSink(**KAFKA, format="avro", key="card"),
        KinesisSink(name="decided", stream="s", region="eu-central-1", key="card"),
        RedisStreamSink(**REDIS, most_entries=100),
        WebhookSink(**HOOK, most_attempts=5),
        WebhookSink(**HOOK | {"url": "http://[::1]:8080/x"}),
        WebhookSink(**HOOK | {"url": "http://hooks:8080/x"}, allow_http=True),
        ParquetSink(name="files", every_s=0.0),
    ],
)
def test_a_sink_comes_back_from_plain_values(sink: Sink) -> None:
    assert sink_from_dict(sink.as_dict()) == sink
    assert hash(sink_from_dict(sink.as_dict())) == hash(sink)


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: KafkaSink(**KAFKA | {"name": "../x"}), "is not a name"),
        (lambda: KafkaSink(**KAFKA | {"topic": "a b"}), "has an invalid topic"),
        (lambda: KafkaSink(**KAFKA | {"servers": ""}), "has no servers"),
        (lambda: KinesisSink(name="out", stream="a b", region="eu-central-1"), "has an invalid stream"),
        (lambda: KinesisSink(name="out", stream="s", region=""), "has an invalid region"),
        (lambda: KafkaSink(**KAFKA | {"format": "xml"}), "has an unknown format"),
        (lambda: KafkaSink(**KAFKA, subject="a/b"), "has an invalid subject"),
        (lambda: KafkaSink(**KAFKA, batch=0), "field 'batch' is out of range"),
        (lambda: KafkaSink(**KAFKA | {"batch": "10"}), "field 'batch' is out of range"),
        (lambda: KafkaSink(**KAFKA, batch=True), "field 'batch' is out of range"),
        (lambda: KafkaSink(**KAFKA, most_waiting=10), "field 'most_waiting' is out of range"),
        (lambda: KafkaSink(**KAFKA, timeout_s=float("nan")), "field 'timeout_s' is out of range"),
        (lambda: RedisStreamSink(**REDIS | {"stream": ""}), "is not a name"),
        (lambda: RedisStreamSink(**REDIS, most_entries=0), "field 'most_entries' is out of range"),
        (lambda: WebhookSink(**HOOK | {"url": "ftp://h"}), "neither http nor https"),
        (lambda: WebhookSink(**HOOK | {"url": "https://h:99999"}), "neither http nor https"),
        (lambda: WebhookSink(**HOOK | {"url": "https://h/a\nb"}), "neither http nor https"),
        (lambda: WebhookSink(**HOOK | {"url": "http://h/x"}), "sends decisions without TLS to another machine"),
        (lambda: WebhookSink(**HOOK | {"url": "http://127.0.0.1.evil.com/x"}), "without TLS to another machine"),
        (lambda: WebhookSink(**HOOK, connections=65), "field 'connections' is out of range"),
        (lambda: ParquetSink(name="f", every_s=-1.0), "field 'every_s' is out of range"),
    ],
)
def test_a_wrong_field_is_an_error(build: Callable[[], Sink], problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        build()


@pytest.mark.parametrize(
    "build",
    [
        lambda: WebhookSink(**HOOK | {"secret_env": "s3cret-value"}),
        lambda: WebhookSink(**HOOK, token_env="s3cret"),  # noqa: S106 - of this test
        lambda: KafkaSink(**KAFKA, options_env='{"sasl.password": "s3cret"}'),
        lambda: RedisStreamSink(**REDIS, url_env="redis://:s3cret@h"),
        lambda: WebhookSink(**HOOK | {"url": "https://user:s3cret@h/x"}),
    ],
)
def test_a_secret_in_a_definition_is_refused_and_never_quoted(build: Callable[[], Sink]) -> None:
    with pytest.raises(DefinitionError) as refusal:
        build()
    assert "s3cret" not in str(refusal.value)
