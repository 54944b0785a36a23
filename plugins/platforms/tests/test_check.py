"""The check of each run of `make test`: instances and CSV on a platform's path have the scores of `/predict`."""

from __future__ import annotations

import json
from urllib.request import Request, urlopen

from tests.worlds.trained import Sandbox, ask, serving


def post(url: str, body: bytes, kind: str) -> bytes:
    """Return the body of a reply."""
    with urlopen(Request(url, body, {"Content-Type": kind})) as reply:  # noqa: S310 - our own server
        return bytes(reply.read())


def test_instances_and_csv_have_the_scores_of_predict(place: Sandbox) -> None:
    rows = ask(3)
    variables = {
        "SKEWLESS_PLATFORM": "sagemaker",
        "SKEWLESS_STATE": f"{place.repo}/.skewless",
        "SKEWLESS_REDIS_URL": place.project.redis_url,
    }
    with serving(place.repo, **variables) as server:
        plain = json.loads(post(f"{server.url}/predict", json.dumps({"rows": rows}).encode(), "application/json"))
        path = f"{server.url}/invocations"
        replies = json.loads(post(path, json.dumps({"instances": rows}).encode(), "application/json"))
        csv = "card_id,shop_id,amount,paid_at\n" + "".join(
            f"{row['card_id']},{row['shop_id']},{row['amount']!r},{row['paid_at']}\n" for row in rows
        )
        lines = post(path, csv.encode(), "text/csv; header=present").decode().split()
        with urlopen(f"{server.url}/ping") as health:  # noqa: S310 - as above
            assert health.status == 200
    scores = [item["score"] for item in plain["predictions"]]
    assert [item["score"] for item in replies["predictions"]] == scores
    assert [float(line) for line in lines] == scores
