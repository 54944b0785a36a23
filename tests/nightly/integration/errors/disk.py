"""A full disk: a limit on the size of files, so that the kernel refuses to write, at each verb that writes."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.nightly.integration.errors.case import Arrange, Case, ErrorReply, post, rows, verb
from tests.nightly.integration.errors.changes import new_shop_rows, reworded
from tests.nightly.integration.errors.files import _csv
from tests.nightly.integration.errors.scene import Scene
from tests.servers.prediction import refused_start
from tests.worlds.waiting import eventually

FULL, ALMOST_FULL = 0, 2_000


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, in bytes; Python ignores the signal, so writes fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _case(name: str, *words: str, size: int, arrange: Arrange, **parts: Any) -> Case:  # noqa: ANN401 - fields of Case
    return Case(
        name=f"{name}, {'full' if size == FULL else 'almost full'} disk",
        ask=verb(*words, repo=parts.pop("repo", True)),
        code=7,
        arrange=arrange,
        during=lambda _: limited(size),
        says=("cannot be written",),
        **parts,
    )


def _each() -> Iterator[Case]:
    for size in (FULL, ALMOST_FULL):
        yield _case("apply", "apply", size=size, arrange=reworded, fix="free disk space")
        yield _case("materialize", "materialize", size=size, arrange=new_shop_rows, fix="free disk space")
        yield _case("train", "train", "fraud", size=size, arrange=lambda _: None, fix="free disk space")
        yield _case(
            "init",
            "init",
            "{elsewhere}/new",
            repo=False,
            size=size,
            arrange=lambda s: s.elsewhere.mkdir(exist_ok=True),
            fix="free disk space",
        )
        yield _case(
            "predict file", "predict", "fraud", "--in", "{elsewhere}/in.csv", "--out", "{elsewhere}/out.parquet",
            size=size, arrange=_csv("1.5"), fix="free disk space",
        )  # fmt: skip


def _served_on_full_disk(scene: Scene) -> None:
    """Fill the disk under a server that runs."""
    scene.serve()
    assert scene.server is not None
    pid = scene.server.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (ALMOST_FULL, hard))


def _drop_is_counted(scene: Scene, said: ErrorReply) -> None:
    assert said.body["log"] == "best_effort"
    assert len(said.body["predictions"]) == 2
    server = scene.server
    assert server is not None
    metrics = eventually(lambda: str(server.get("/metrics")), lambda text: 'log_dropped_total{reason="disk"}' in text)
    assert 'skewless_log_dropped_total{reason="disk"} 2.0' in metrics
    _asks_to_come_back(scene)


def _asks_to_come_back(scene: Scene) -> None:
    """The other model requires the log."""
    said = post(rows(model="strict"))(scene)
    assert (said.code, said.headers["retry-after"]) == (503, "1")
    assert "prediction log" in said.part("thing")
    assert "cannot be written" in said.part("message")
    assert "free disk space" in said.part("fix")


def _serve(scene: Scene) -> ErrorReply:
    # A process of its own, as Feast has sent this one's metrics to files.
    code, text = refused_start(scene.repo)
    body = json.loads(text)
    return ErrorReply(code=code, text=text, body=body, error=body.get("error", {}))


def _private_redis(scene: Scene) -> None:
    new_shop_rows(scene)
    scene.patch.delenv("SKEWLESS_REDIS_URL")


CASES: tuple[Case, ...] = (
    *_each(),
    Case(
        name="serve, full disk",
        ask=_serve,
        code=7,
        during=lambda _: limited(FULL),
        thing="database",
        says=("cannot be written",),
        fix="free disk space",
    ),
    Case(
        name="private Redis, full disk",
        ask=verb("materialize"),
        code=7,
        arrange=_private_redis,
        during=lambda _: limited(FULL),
        thing="database",
        says=("cannot be written",),
        fix="free disk space",
    ),
    Case(
        name="best-effort and required prediction log, full disk",
        soak=True,  # test_full_disk.py, test_required_log.py
        ask=post(rows({}, {})),
        code=200,
        arrange=_served_on_full_disk,
        after=_drop_is_counted,
    ),
)
