"""A trained project from the template, copied for each test, with the clock in the test's hand."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import redis

from skewless.contract.clock import OffsetClock
from skewless.contract.keys import KeyCodec
from skewless.contract.plan import View
from skewless.contract.row_layout import MODULUS
from skewless.contract.rows import RowCodec
from skewless.contract.settings import load_settings
from skewless.infra.models.packages.served_model import ServedModel, load_model
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.port import OnlineReader
from skewless.infra.reads.online.redis_store import RedisReader
from skewless.infra.reads.online.service_vectors import ServiceVectors
from skewless.infra.records.predictions.segments import prediction_files, prediction_spool
from skewless.infra.records.predictions.writer import PredictionWriter
from skewless.operations.state.backup import back_up, restore
from skewless.project import Project
from skewless.serving.prediction.predictor import Predictor
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.training.promotion import promote
from skewless.training.train import TrainedVersion, train
from tests.servers.prediction import PredictionServer
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.payments_data import TEMPLATE, write_sample

NOW = 1_768_478_400_000_000  # 2026-01-15 12:00 UTC
SECOND = 1_000_000
FIRST_CARD = 9_007_199_254_740_993
MODEL = "fraud"
Row = dict[str, Any]


def ask(n: int, first: int = 0) -> list[Row]:
    """Return n payments of n cards, in 40 shops."""
    return [
        {
            "card_id": FIRST_CARD + i,
            "shop_id": f"shop-{i % 40:02d}",
            "amount": 3.7 + 1.1 * i,
            "paid_at": NOW - i * 977 * SECOND,
        }
        for i in range(first, first + n)
    ]


@dataclass(kw_only=True)
class Sandbox:
    """One project that a test may do anything to."""

    project: Project
    opened: list[Callable[[], None]] = field(default_factory=list)

    @property
    def repo(self) -> Path:
        return self.project.repo

    @property
    def state(self) -> Path:
        return self.project.state.folder

    @cached_property
    def model(self) -> ServedModel:
        """The first version, opened as the server does."""
        return self.load("000001")

    @cached_property
    def redis(self) -> redis.Redis:
        """The project's store, for what no program of ours would do to it."""
        client = redis.Redis.from_url(self.project.redis_url)
        self.opened.append(client.close)
        return client

    def load(self, version: str) -> ServedModel:
        model = load_model(self.project.store, MODEL, version)
        self.opened.append(model.runtime.close)
        return model

    def view(self, name: str) -> View:
        return self.project.applied.plan.view(name)

    def now_us(self) -> int:
        return self.project.clock.now_us()

    def wait(self, seconds: int) -> None:
        """Move the clock."""
        clock = self.project.clock
        assert isinstance(clock, OffsetClock)
        clock.set(clock.now_us() + seconds * SECOND)

    def predict(
        self, rows: Sequence[Row], *, model: ServedModel | None = None, online: OnlineReader | None = None
    ) -> ScoredSlice:
        """Predict as the server does; the log is durable on return."""
        return asyncio.run(self._predict(rows, model or self.model, online))

    async def _predict(self, rows: Sequence[Row], model: ServedModel, online: OnlineReader | None) -> ScoredSlice:
        reader = online or RedisReader(self.project.redis_url)
        log = self.log()
        try:
            predictor = Predictor(online=reader, clock=self.project.clock, log=log)
            return await predictor.predict(model, rows)
        finally:
            log.close()
            await reader.close()

    def log(self, flush_s: float = 60.0) -> PredictionWriter:
        def refuse(n: int, why: str) -> None:
            raise AssertionError((n, why))

        spool = prediction_spool(self.project.state)
        return PredictionWriter(spool, capacity=100_000, flush_seconds=flush_s, on_drop=refuse, on_stored=spool.ship)

    def train(self) -> TrainedVersion:
        """Train a version without its label gate; its alias moves if the promotion gate allows."""
        spec, now = self.project.applied.model(MODEL), self.now_us()
        dataset = self.project.training_set(MODEL)
        trained = train(dataset, spec, self.project.store, threads=1, now_us=now)
        promote(dataset, spec, trained, self.project.store, now)
        return trained

    def publish(self, card: pa.Table) -> None:
        """Add rows to the source of ``card_days``."""
        path = self.repo / "data/card_days.parquet"
        table = pq.read_table(path)
        temporary = path.with_suffix(".new")
        pq.write_table(pa.concat_tables([table, card.select(table.column_names).cast(table.schema)]), temporary)
        temporary.replace(path)

    def key(self, view: str, *values: Any) -> bytes:  # noqa: ANN401 - a key of any type
        name = KeyCodec(self.model.plan.project, self.model.plan.view(view)).encode(values)
        assert name is not None
        return name

    def stored(self, key: bytes) -> bytes:
        row = self.redis.get(key)
        assert isinstance(row, bytes)
        return row

    def flip(self, view: str, key: bytes, *, feature: int, bit: int) -> None:
        """Flip one bit of one number stored in Redis, and make the row whole again: its value is wrong."""
        fields = RowCodec(self.view(view)).dtype.fields
        assert fields is not None
        row = bytearray(self.stored(key))
        row[fields[f"f{feature}"][1] + bit // 8] ^= 1 << bit % 8
        start = fields["sum"][1]
        row[start : start + 4] = bytes(4)
        row[start : start + 4] = (MODULUS - int.from_bytes(row, "little") % MODULUS).to_bytes(4, "little")
        self.redis.set(key, bytes(row))

    def log_files(self) -> list[Path]:
        """Return the files of the prediction log, in its order; what a server has not shipped is in it, too."""
        return [Path(name) for name in prediction_files(self.project.state)]

    def close(self) -> None:
        for close in self.opened:
            close()
        self.project.close()
        self.project.private.stop()


def looked_up(answer: ScoredSlice) -> ServiceVectors:
    """Return what the views answered to all that were scored together."""
    found = answer.scored.vectors
    assert found is not None
    return found


def newest_rows(place: Sandbox) -> pa.Table:
    """Return the newest source row of each card."""
    table = pq.read_table(place.repo / "data/card_days.parquet")
    newest = table.group_by("card_id").aggregate([("event_time", "max")])
    kept = table.join(newest.rename_columns(["card_id", "newest"]), "card_id")
    return kept.filter(pc.equal(kept["event_time"], kept["newest"])).sort_by("card_id")


def later_rows(place: Sandbox, n: int, *, factor: float = 2.0) -> pa.Table:
    """Return a row that happened and was published now for each of n cards, with other values."""
    rows = newest_rows(place).slice(0, n)
    now = pa.array([place.now_us()] * n, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    return changed(rows, factor).drop_columns(["event_time", "created"]).append_column("event_time", now).append_column(
        "created", now
    )  # fmt: skip


def changed(rows: pa.Table, factor: float) -> pa.Table:
    """Return rows whose mean amount is another, and never null."""
    means = pc.multiply(pc.fill_null(rows["mean_amount_7d"], 10.0), factor)
    return rows.set_column(rows.column_names.index("mean_amount_7d"), "mean_amount_7d", means)


def make_project(repo: Path) -> None:
    """Write the template with its sample as of ``NOW``, apply, materialise and train it."""
    shutil.copytree(TEMPLATE, repo, ignore=shutil.ignore_patterns("__pycache__"))
    write_sample(repo / "data", NOW)
    OffsetClock.create(repo / ".skewless/clock").set(NOW)
    with opened(repo) as place:
        place.project.apply()
        place.project.materialize(check=False)
        place.train()


def copy_project(repo: Path, target: Path) -> Path:
    """Copy a project without its online store.

    The copy's clock goes on from the last change of the project: a test finds the same time whenever it runs.
    """
    shutil.copytree(repo, target, ignore=shutil.ignore_patterns("redis", "__pycache__"))
    changed_s = max(file.stat().st_mtime for file in (target / ".skewless").rglob("*") if file.is_file())
    if (target / ".skewless/clock").exists():
        clock = OffsetClock(target / ".skewless/clock")
        clock.set(clock.now_us() - int((time.time() - changed_s) * SECOND))
    return target


def move_project(repo: Path, addresses: ProjectAddresses) -> Path:
    """Move a project from the defaults to other addresses, by a backup and a restoration."""
    if addresses.is_shared:
        folder = repo.with_name(f"{repo.name}-backup")
        with open_project(repo) as project:
            back_up(project, folder)
        ProjectState(repo / ".skewless").database.close()
        shutil.rmtree(repo / ".skewless")
        with (repo / "skewless.yaml").open("a") as file:
            file.write(addresses.settings(repo))
        restore(state_of(repo), folder)
    return repo


def state_of(repo: Path) -> ProjectState:
    """Return the state of a project, as its settings say."""
    return ProjectState.of(repo, load_settings(repo))


@contextmanager
def opened(repo: Path) -> Iterator[Sandbox]:
    """Open a project; its private server is stopped at the end."""
    place = Sandbox(project=open_project(repo))
    try:
        yield place
    finally:
        place.close()


@contextmanager
def opened_copy(trained: Path, repo: Path, *, start: bool = True) -> Iterator[Sandbox]:
    """Copy a project and open the copy, whose store has the same rows.

    Args:
        start: start its private server, which runs until the block ends; otherwise it starts on first use.
    """
    copy_project(trained, repo)
    rows = Path(".skewless/redis/appendonlydir")
    has_rows = (trained / rows).exists()
    if has_rows:
        shutil.copytree(trained / rows, repo / rows)
    with opened(repo) as place:
        if not has_rows:
            place.project.materialize(check=False)
        if start:
            place.project.private.ensure()
        yield place


@contextmanager
def serving(repo: Path, **settings: str) -> Iterator[PredictionServer]:
    """Run ``skewless serve`` for the length of a block; unless it was killed in it, it must end cleanly."""
    clock = f"file:{repo}/.skewless/clock"
    server = PredictionServer.start(repo, SKEWLESS_PORT="0", SKEWLESS_CLOCK=clock, **settings)
    with server.process:
        try:
            yield server
            if server.process.poll() is None:
                server.stop()
        finally:
            server.process.kill()


def open_project(repo: Path, **settings: str) -> Project:
    return Project(repo, clock=f"file:{repo}/.skewless/clock", threads=1, **settings)
