"""The metrics of several workers as one text, held against Prometheus' own parser."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families

from skewless.serving.metrics.metrics import Metrics, merge, render_all_workers
from skewless.serving.peer_workers import PeerWorkers, socket_of

Key = tuple[str, frozenset[tuple[str, str]]]


def one(worker: int) -> Metrics:
    """Return what a worker might have measured."""
    metrics = Metrics()
    metrics.requests('a "b" {c}', "1", "ok").inc(worker + 1)
    metrics.requests("only", str(worker), "ok").inc()
    for seconds in (1e-4, 0.3 * (worker + 1), 9.0):
        metrics.seconds.observe(seconds)
    metrics.queue_depth.set(worker)
    metrics.compared("v").set(10 + worker)
    return metrics


def samples(text: str) -> dict[Key, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def expected(texts: dict[int, str]) -> dict[Key, float]:
    """Return sums, and gauges with their worker, straight from the parsed texts."""
    totals: defaultdict[Key, float] = defaultdict(float)
    for worker, text in texts.items():
        for family in text_string_to_metric_families(text):
            more = {("worker", str(worker))} if family.type == "gauge" else set()
            for sample in family.samples:
                totals[sample.name, frozenset(sample.labels.items() | more)] += sample.value
    return dict(totals)


def test_counters_and_histograms_are_summed_and_gauges_told_apart() -> None:
    texts = {worker: one(worker).render().decode() for worker in range(3)}
    merged = merge(texts)
    assert samples(merged) == pytest.approx(expected(texts))
    types = {family.name: family.type for family in text_string_to_metric_families(merged)}
    assert types == {family.name: family.type for family in text_string_to_metric_families(texts[0])}


def test_a_worker_that_does_not_answer_is_left_out_and_counted(tmp_path: Path) -> None:
    metrics = one(0)
    peers = PeerWorkers(folder=tmp_path, number=0, count=3, on_no_reply=metrics.unanswered.inc)
    before = samples(metrics.render().decode())["skewless_request_seconds_count", frozenset()]
    found = samples(asyncio.run(render_all_workers(metrics, peers)).decode())
    assert found["skewless_request_seconds_count", frozenset()] == before
    assert found["skewless_workers_unanswered_total", frozenset()] == 2


def test_what_a_sibling_says_is_part_of_the_whole() -> None:
    async def ask() -> bytes:
        body = one(1).render()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            writer.close()

        folder = Path("/tmp") / f"sk-{uuid4().hex[:8]}"  # noqa: S108 - the path of a socket is short
        folder.mkdir(mode=0o700)
        place = socket_of(folder, 1)
        async with await asyncio.start_unix_server(answer, place):
            try:
                return await render_all_workers(one(0), PeerWorkers(folder=folder, number=0, count=2))
            finally:
                place.unlink()
                folder.rmdir()

    found = samples(asyncio.run(ask()).decode())
    assert found["skewless_request_seconds_count", frozenset()] == 6
    assert found["skewless_queue_depth", frozenset({("worker", "1")})] == 1


def test_one_process_shows_no_workers() -> None:
    metrics = one(0)
    found = samples(asyncio.run(render_all_workers(metrics, None)).decode())
    assert found["skewless_queue_depth", frozenset()] == 0
