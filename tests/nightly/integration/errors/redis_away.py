"""Redis away at each stage, of another policy, or another one than was filled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.private_server import PrivateServer
from tests.nightly.integration.errors.case import LEDGER, Case, ErrorReply, environment, post, rows, verb
from tests.nightly.integration.errors.changes import new_shop_rows
from tests.nightly.integration.errors.requests import LOGGED
from tests.nightly.integration.errors.scene import GOOD, Scene, SharedRedis
from tests.worlds.waiting import eventually

AWAY = "redis://ann:hush@127.0.0.1:1/0"
_ROW = json.dumps(GOOD)
_NEEDS = (("materialize",), ("serve",), ("predict", "fraud", "--row", _ROW), ("scheduler", "--only", "materialize"))


def _added(words: tuple[str, ...]) -> tuple[str, ...]:
    return (LEDGER,) if words[0] == "scheduler" else ()


def _away(*words: str) -> Case:
    def no_password(_: Scene, said: ErrorReply) -> None:
        assert "hush" not in said.text

    def arrange(scene: Scene) -> None:
        new_shop_rows(scene)
        scene.setenv("SKEWLESS_REDIS_URL", AWAY)

    return Case(
        name=f"{words[0]}: Redis away", ask=verb(*words), code=7, arrange=arrange, after=no_password,
        thing="Redis at redis://***@127.0.0.1:1/0", says=("did not answer",), fix="SKEWLESS_REDIS_URL",
        added=_added(words),
    )  # fmt: skip


@contextmanager
def _evicting(scene: Scene) -> Iterator[None]:
    scene.stage.store.set_policy("allkeys-lru")
    try:
        yield
    finally:
        scene.stage.store.set_policy("noeviction")


def _policy(*words: str) -> Case:
    return Case(
        name=f"{words[0]}: Redis may evict", ask=verb(*words), code=7, during=_evicting, arrange=new_shop_rows,
        thing="Redis at", says=("may evict", "maxmemory-policy allkeys-lru"), fix="set maxmemory-policy noeviction",
        added=_added(words),
    )  # fmt: skip


def _other_database(scene: Scene) -> None:
    scene.setenv("SKEWLESS_REDIS_URL", scene.stage.store.url + ("&" if "?" in scene.stage.store.url else "?") + "db=5")


def _unfilled(*words: str) -> Case:
    return Case(
        name=f"{words[0]}: another Redis", ask=verb(*words), code=3, arrange=_other_database,
        thing="model 'fraud'", says=("is missing in the online store", "'card_days'"), fix="run `skewless materialize`",
    )  # fmt: skip


def _older_log(scene: Scene) -> None:
    """Lose the log of a view, whose rows the store has already; they are due again."""
    database = ProjectState(scene.state).database
    for sql in (
        "DELETE FROM segments WHERE partition LIKE 'batch/shop_risk-%'",
        "DELETE FROM log_partitions WHERE partition LIKE 'batch/shop_risk-%'",
        "DELETE FROM documents WHERE kind = 'read_progress' AND name LIKE 'shop_risk-%'",
    ):
        database.execute(sql)
    database.close()


def _served_then_away(scene: Scene) -> None:
    private = scene.own_redis()
    scene.serve()
    private.stop()
    scene.server_redis = private


def _held(scene: Scene) -> None:
    """The rows are there when the store is back, and so are the predictions."""
    private = scene.server_redis
    assert isinstance(private, PrivateServer)
    store = SharedRedis(private.ensure())
    assert store.rows() == scene.stage.rows
    store.close()
    server = scene.server
    assert server is not None
    again = json.dumps(rows(model="strict")).encode()
    reply = eventually(lambda: server.ask("POST", "/predict", again), lambda reply: reply[0] == 200)
    assert json.loads(reply[2])["degraded"] is False
    eventually(lambda: scene.logged() > scene.logged_before)


def _degraded(scene: Scene, said: ErrorReply) -> None:
    assert said.body["degraded"] is True
    (item,) = said.body["predictions"]
    assert {read["status"] for read in item["views"].values()} == {"UNAVAILABLE"}
    assert {item["features"][name] for name in ("card_days__payments_7d", "shop_risk__refund_share")} == {None}
    assert scene.server is not None
    assert 'model="fraud",version="000001",outcome="degraded"} 1.0' in scene.server.get("/metrics")
    _strict_refused(scene)
    _held(scene)


def _strict_refused(scene: Scene) -> None:
    """The other model does not score nulls."""
    said = post(rows(model="strict"))(scene)
    assert (said.code, said.headers["retry-after"]) == (503, "1")
    assert "Redis at" in said.part("thing")
    assert "did not answer" in said.part("message")
    assert "start it" in said.part("fix")


CASES: tuple[Case, ...] = (
    *(_away(*words) for words in _NEEDS),
    *(_policy(*words) for words in _NEEDS[:2]),
    *(_unfilled(*words) for words in _NEEDS[1:3]),
    Case(
        name="materialize: no URL of a Redis", ask=verb("materialize"), code=7,
        arrange=environment("SKEWLESS_REDIS_URL", "http://:hush@127.0.0.1"),
        thing="setting 'redis_url'", says=("is not the URL",), fix="redis://HOST:PORT/DB",
    ),
    Case(
        name="materialize: a log older than Redis", ask=verb("materialize", "--no-check"), code=7, arrange=_older_log,
        thing="view 'shop_risk'", says=("ahead of the log", "2399"), fix="skewless recover",
    ),
    Case(  # in make test, test_store_away.py has it
        name="request: Redis away, nulls scored or refused", ask=post(rows()), code=200, soak=True,
        arrange=_served_then_away, after=_degraded, added=LOGGED,
    ),
)  # fmt: skip
