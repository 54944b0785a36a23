"""No body of any POST route leads to anything but an answer or an error of bounded size in the protocol's shape."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from plugins.oip.tests.doors.bodies import ODD, ROUTES, WORST, SentBody, replaced, requests, text_of
from tests.integration.serving.core.doors import Connection, DoorReply

LONGEST_ERROR = 4_096
# 503 and 504 are answers: the model refuses to score without features, or the time that was given is over.
ALLOWED = {200, 202, 400, 401, 404, 405, 409, 413, 431, 503, 504}
SOAK_S = 600.0
JSON = {"Content-Type": "application/json"}


def check(sent: SentBody, reply: DoorReply) -> None:
    """The reply is an answer, or an error of its path."""
    told = reply.status, reply.body[:500]
    assert reply.status in ALLOWED, told
    if reply.status < 400:
        return
    assert reply.headers["content-type"] == "application/json", told
    assert len(reply.body) <= LONGEST_ERROR, (len(reply.body), reply.body[:500])
    error = json.loads(reply.body.decode())["error"]
    if sent.path.startswith("/v2/"):
        assert isinstance(error, str), told
    else:
        assert {"message", "kind", "thing", "problem", "fix"} <= error.keys() <= {*error, "value"}, told
        assert isinstance(error.get("value", ""), str | int), told


def ask_both(links: list[Connection], sent: SentBody) -> int:
    replies = [link.post(sent.path, sent.body, sent.headers) for link in links]
    for reply in replies:
        check(sent, reply)
    statuses = {reply.status for reply in replies}
    assert len(statuses) == 1 or 413 in statuses, statuses  # the slow lane here is uvicorn's own, which takes all
    return replies[0].status


@pytest.mark.parametrize("path", ROUTES)
def test_the_worst_values_in_every_place(links: list[Connection], path: str) -> None:
    """Each place has a sixth of the values, and each value is in a sixth of the places; in the soak, all are in all."""
    for value in ROUTES[path]:
        for turn, odd in enumerate(WORST):
            for body in islice(replaced(value, odd), turn % 6, None, 6):
                ask_both(links, SentBody(path=path, body=text_of(body).encode(), headers=JSON))


@pytest.mark.soak
@pytest.mark.parametrize("path", ROUTES)
def test_every_odd_value_in_every_place(links: list[Connection], path: str) -> None:
    for value in ROUTES[path]:
        for odd in (*ODD, *WORST):
            for body in replaced(value, odd):
                ask_both(links, SentBody(path=path, body=text_of(body).encode(), headers=JSON))


@settings(deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])
@given(requests())
def test_bodies_with_mutations(links: list[Connection], sent: SentBody) -> None:
    ask_both(links, sent)


@pytest.mark.soak
def test_ten_minutes_of_bodies(links: list[Connection], tell: Callable[[str], None]) -> None:
    counts: Counter[tuple[str, int]] = Counter()
    end = time.monotonic() + SOAK_S

    @settings(
        deadline=None, database=None, max_examples=500, suppress_health_check=list(HealthCheck), derandomize=False
    )
    @given(requests())
    def some(sent: SentBody) -> None:
        counts[sent.path if sent.path in ROUTES else "other paths", ask_both(links, sent)] += 1

    while time.monotonic() < end:
        some()
    for (path, status), n in sorted(counts.items()):
        tell(f"{path} {status}: {n}")
    tell(f"{counts.total()} requests through each lane, none answered with 500")
    assert {path for path, _ in counts} == {*ROUTES, "other paths"}
