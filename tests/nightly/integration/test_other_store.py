"""The template's project on the online store of another package, from ``init`` to replay, in processes of its own."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

from skewless.contract.keys import KeyCodec
from skewless.infra.definitions.plans.applied_plan import load_current
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.private_server import PrivateServer
from tests.sqlite_store.registration import registered
from tests.worlds.command_line import done, run
from tests.worlds.payments_data import write_payments

STAMP = pa.timestamp("us", tz="UTC")
CARD, OTHER = 9_007_199_254_740_993, 9_007_199_254_740_994
WINDOWS = """
from feast import PushSource, StreamFeatureView
from feast.aggregation import Aggregation

payments = PushSource(
    name="payments",
    batch_source=FileSource(path="data/payments.parquet", timestamp_field="paid_at"),
    tags={"skewless.columns": "card_id int64, amount float64", "skewless.scale.amount": "2"},
)
card_hour = StreamFeatureView(
    name="card_hour",
    entities=[card],
    source=payments,
    timestamp_field="paid_at",
    aggregations=[
        Aggregation(column="amount", function="count", time_window=timedelta(hours=1), name="payments_1h"),
        Aggregation(column="amount", function="sum", time_window=timedelta(hours=1), name="amount_1h"),
    ],
)
fraud_features = FeatureService(name="fraud_features", features=[card_days, shop_risk, payment_time, card_hour])
"""
ONLINE = "online_store:\n  type: skewless_feast.online_store.SkewlessOnlineStore"
SERVER = """
import sys
from skewless.infra.reads.online.store import open_online_store
from skewless.serving.process import serve
from skewless.infra.platform.storage.project_state import ProjectState
open_online_store(sys.argv[1]).close()
print([name for name in sys.modules if name in {"redis", "hiredis", "skewless.infra.reads.online.redis_store"}])
"""


class TemplateShop:
    """The project, and the processes that work on it."""

    def __init__(self, repo: Path, file: Path) -> None:
        self.repo, self.file = repo, file

    def run(self, *words: str | Path, code: int = 0) -> dict[str, Any]:
        """Run a verb that must end with a code; return its JSON."""
        command = [sys.executable, "-m", "skewless.cli", *map(str, words), "--repo", str(self.repo), "--json"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == code, (words, ended.stdout, ended.stderr)
        body: dict[str, Any] = json.loads(ended.stdout)
        return body

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Run the server; yield its URL."""
        command = [sys.executable, "-m", "skewless.cli", "serve", "--repo", str(self.repo), "--port", "0", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield json.loads(process.stdout.readline())["url"]
            finally:
                process.send_signal(signal.SIGTERM)
        assert process.returncode == 0

    def damage(self, *keys: bytes | None) -> None:
        """Cut the last byte off what stands under some keys."""
        with closing(sqlite3.connect(self.file)) as connection:
            for key in keys:
                query = "UPDATE entries SET value = substr(value, 1, length(value) - 1) WHERE key = ?"
                assert connection.execute(query, (key,)).rowcount == 1
            connection.commit()


def post(url: str, body: object) -> dict[str, Any]:
    request = urllib.request.Request(url, data=json.dumps(body).encode(), method="POST")  # noqa: S310
    with urllib.request.urlopen(request) as reply:  # noqa: S310
        answer: dict[str, Any] = json.loads(reply.read())
    return answer


def predicted(url: str, card: int) -> dict[str, Any]:
    """Return what the server predicts of a card, features included."""
    row = {"card_id": card, "shop_id": "shop-07", "amount": 12.5, "paid_at": "2025-01-31T12:00:00Z"}
    (prediction,) = post(f"{url}/predict", {"rows": [row], "features": True})["predictions"]
    assert isinstance(prediction, dict)
    return prediction


def paid(card: int, n: int) -> list[dict[str, Any]]:
    """Return payments of a card in the last seconds, of 2.25, 3.25, ..."""
    now = time.time_ns() // 1_000
    return [{"card_id": card, "amount": 2.25 + i, "paid_at": now - (n - i) * 1_000_000} for i in range(n)]


def write_file(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Write events as a file of a folder; return the folder."""
    folder.mkdir()
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.set_column(2, "paid_at", table["paid_at"].cast(STAMP)), folder / "a.parquet")
    return folder


@pytest.fixture
def template_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TemplateShop]:
    (tmp_path / "metadata").mkdir()
    monkeypatch.setenv("SKEWLESS_REDIS_URL", f"sqlite:///{tmp_path}/online.db")
    monkeypatch.setenv("SKEWLESS_THREADS", "1")
    with registered(tmp_path / "metadata"):
        yield TemplateShop(tmp_path / "shop", tmp_path / "online.db")


@pytest.fixture
def broker_url(tmp_path: Path) -> Iterator[str]:
    """The Redis where events wait that were pushed."""
    server = PrivateServer(tmp_path / "broker", grace_s=0.5)
    yield server.ensure()
    server.stop()


@pytest.mark.soak
def test_the_template_runs_on_the_store_of_another_package(
    template_shop: TemplateShop, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_payments(template_shop.repo)
    definitions, config = template_shop.repo / "definitions.py", template_shop.repo / "feature_store.yaml"
    definitions.write_text(definitions.read_text() + WINDOWS)
    config.write_text(config.read_text().replace("online_store: null", ONLINE))
    for verb in ("apply", "import", "materialize", "backfill", "train"):
        done(verb, "--repo", template_shop.repo)
    checks = {
        check["name"]: check["verdict"]
        for check in run("doctor", "--repo", template_shop.repo, "--json").body["checks"]
    }
    assert (checks["online store"], checks["clock"], checks["window card_hour"]) == ("ok", "ok", "ok")

    with template_shop.serving() as url:
        before = predicted(url, CARD)["features"]
        assert (before["card_days__payments_7d"] > 0, before["card_hour__payments_1h"]) == (True, 0.0)
        live = write_file(tmp_path / "live", paid(CARD, 5))
        (counts,) = template_shop.run("stream", "--replay", live, "--until-idle")["sources"]
        assert (counts["accepted"], counts["trouble"]) == (5, None)
        after = predicted(url, CARD)["features"]
        assert after == before | {"card_hour__payments_1h": 5.0, "card_hour__amount_1h": 21.25}

    plan = load_current(template_shop.repo, ProjectState(template_shop.repo / ".skewless")).plan
    template_shop.damage(KeyCodec("shop", plan.view("card_days")).encode([CARD]))
    template_shop.damage(KeyCodec("shop", plan.window("card_hour"), 1).encode([CARD]))
    found = template_shop.run("parity", "--sample", "100000", code=5)
    causes = {name: view["by_cause"] for name, view in found["views"].items()}
    assert causes == {"card_days": {"damaged": 1}, "card_hour": {"damaged": 1}, "shop_risk": {}}
    repaired = template_shop.run("parity", "--sample", "100000", "--repair")
    assert (repaired["repaired"], repaired["left"]) == (2, 0)

    monkeypatch.setenv("SKEWLESS_STREAM_URL", broker_url)
    with template_shop.serving() as url:
        assert predicted(url, CARD)["features"] == after
        assert post(f"{url}/events/payments", {"events": paid(OTHER, 3)})["accepted_for"]
        template_shop.run("stream", "--until-idle")
        assert predicted(url, OTHER)["features"]["card_hour__payments_1h"] == 3.0

    jobs = template_shop.run("scheduler", "--once", "--only", "materialize", "--only", "replay")["jobs"]
    assert [job["state"] for job in jobs] == ["done", "done"]
    proof = template_shop.run("replay")
    assert (proof["ok"], proof["compared"], proof["different"]) == (True, 4, 0)
    feast = FeatureStore(repo_path=str(template_shop.repo))
    seen = feast.get_online_features(["card_days:payments_7d", "card_hour:payments_1h"], [{"card_id": CARD}])
    assert seen.to_dict() == {"card_id": [CARD], "payments_7d": [after["card_days__payments_7d"]], "payments_1h": [5.0]}
    assert not (template_shop.repo / ".skewless/redis").exists()


def test_a_server_on_it_loads_no_client_of_redis(template_shop: TemplateShop) -> None:
    command = [sys.executable, "-c", SERVER, f"sqlite:///{template_shop.file}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
