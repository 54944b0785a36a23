"""Where a case plays: a copy of a prepared project, beside one Redis that all cases share and none may change."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from skewless.contract.settings import Settings
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.infra.records.predictions.segments import PREDICTIONS, prediction_spool
from tests.servers.prediction import PredictionServer
from tests.worlds.command_line import done, fingerprint
from tests.worlds.edits import edit
from tests.worlds.payments_data import write_payments

# Which labels passed their gate is remembered, also if the command fails; the others follow the segments
# of the prediction log, which are compared.
_DATABASE = ".skewless/skewless.db"
REMEMBERED = tuple(
    f"{_DATABASE}/{name}"
    for name in ("documents/passed_labels", "documents/shipped_files", f"log_partitions/{PREDICTIONS}")
)
# Locks, and the sign of a running server.
TRANSIENT = {".lock", "server.json", "process"}
STATE = ".skewless"
StoredBytes = dict[bytes, bytes]

_REQUEST = 'Field(name="amount", dtype=Float64), '
_MORE = (
    'Field(name="channel", dtype=Int32), Field(name="visits", dtype=Int64), Field(name="tip", dtype=Float32), '
    'Field(name="chip", dtype=Bool), Field(name="memo", dtype=String), Field(name="proof", dtype=Bytes), '
)
GOOD: Mapping[str, Any] = {
    "card_id": 9_007_199_254_740_993,
    "shop_id": "shop-07",
    "amount": 12.5,
    "paid_at": "2025-01-31T12:00:00Z",
    "channel": 1,
    "visits": "9007199254740993",
    "tip": 0.5,
    "chip": True,
    "memo": "Zürich",
    "proof": "é",
}


def make_project(repo: Path) -> None:
    """Write, apply, materialise and train a project with a request field of every type and two models.

    ``fraud`` scores nulls when the store is away and logs as well as it can; ``strict`` refuses both.
    """
    write_payments(repo)
    edit(repo, _REQUEST, _REQUEST + _MORE)
    edit(repo, "import Float64, Int64", "import Bool, Bytes, Float32, Float64, Int32, Int64")
    edit(repo, "rounds=50", "rounds=10", file="models.py")
    with (repo / "models.py").open("a") as file:
        file.write(
            'strict = replace(MODELS[0], name="strict", missing="refuse", log="required")\nMODELS.append(strict)\n'
        )
    edit(repo, "from datetime", "from dataclasses import replace\nfrom datetime", file="models.py")
    labels = pq.read_table(repo / "data/payments.parquet")
    pq.write_table(_with_more(labels), repo / "data/payments.parquet")
    for verb in ("apply", "materialize", "train"):
        done(verb, "--repo", repo)
    done("predict", "fraud", "--row", json.dumps(GOOD), "--repo", repo)


def _with_more(labels: pa.Table) -> pa.Table:
    n = labels.num_rows
    columns = {
        "channel": pa.array([i % 3 for i in range(n)], pa.int32()),
        "visits": pa.array([2**53 + i for i in range(n)], pa.int64()),
        "tip": pa.array([i / 7 for i in range(n)], pa.float32()),
        "chip": pa.array([i % 2 == 0 for i in range(n)], pa.bool_()),
        "memo": pa.array(["m"] * n, pa.string()),
        "proof": pa.array([b"p"] * n, pa.binary()),
    }
    for name, values in columns.items():
        labels = labels.append_column(name, values)
    return labels


class SharedRedis:
    """The one Redis; its rows are as the prepared project left them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = redis.Redis.from_url(url)

    def rows(self) -> StoredBytes:
        """Return every key with its value."""
        keys = sorted(cast("Iterator[bytes]", self._client.scan_iter(count=1_000)))
        values = cast("Sequence[bytes]", self._client.mget(keys)) if keys else []
        return dict(zip(keys, values, strict=True))

    def fill(self, rows: StoredBytes) -> None:
        """Hold these rows and no others."""
        self._client.flushall()
        if rows:
            self._client.mset(cast("Any", rows))

    def set_policy(self, policy: str) -> None:
        self._client.config_set("maxmemory-policy", policy)

    def close(self) -> None:
        self._client.close()


@dataclass(kw_only=True)
class Stage:
    """What the cases of a module share: the prepared project, the store, and one server for requests.

    Each case has its copy at one and the same path, since that is part of what identifies a source.
    """

    kept: Path
    repo: Path
    store: SharedRedis
    rows: StoredBytes
    stack: ExitStack
    _served: Scene | None = None

    def served(self, patch: pytest.MonkeyPatch) -> Scene:
        """Return the project that one server answers for; it is started by the first request."""
        if self._served is None:
            repo = Path(shutil.copytree(self.kept, self.kept.parent / "served"))
            scene = Scene(repo=repo, place=repo, stage=self, patch=patch)
            scene.server = PredictionServer.start(scene.repo, SKEWLESS_MAX_BATCH="50", SKEWLESS_RELOAD_SECONDS="1")
            self.stack.callback(scene.server.stop)
            self._served = scene
        return self._served

    def copy(self) -> Path:
        """Return the prepared project as it was."""
        if self.repo.exists():
            shutil.rmtree(self.repo)
        return Path(shutil.copytree(self.kept, self.repo))


@dataclass(kw_only=True)
class Scene:
    """One case's project, and a place beside it."""

    repo: Path
    place: Path
    stage: Stage
    patch: pytest.MonkeyPatch
    stack: ExitStack = field(default_factory=ExitStack)
    server: PredictionServer | None = None
    server_redis: PrivateServer | None = None
    logged_before: int = 1

    @property
    def state(self) -> Path:
        return self.repo / STATE

    @property
    def packages(self) -> PackageStore:
        return PackageStore.of(ProjectState(self.state), Settings())

    @property
    def elsewhere(self) -> Path:
        """A folder of the case that is no part of the project."""
        folder = self.place / "elsewhere"
        folder.mkdir(exist_ok=True)
        return folder

    def logged(self) -> int:
        """Return how many segments the prediction log has; 0 while others wait to be shipped."""
        state = ProjectState(self.state)
        is_complete = not prediction_spool(state).waiting()
        segments = PartitionLog(state, PREDICTIONS).segments() if is_complete else ()
        state.database.close()
        return len(segments)

    def setenv(self, name: str, value: str) -> None:
        self.patch.setenv(name, value)

    def serve(self, **settings: str) -> None:
        """Start a server of this case's own."""
        self.server = PredictionServer.start(self.repo, **settings)
        self.stack.callback(self.server.stop)

    def own_redis(self) -> PrivateServer:
        """Start a Redis of this case's own, with the same rows."""
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        private = PrivateServer(folder, grace_s=0.5)
        self.stack.callback(private.stop)
        store = SharedRedis(private.ensure())
        store.fill(self.stage.rows)
        store.close()
        self.setenv("SKEWLESS_REDIS_URL", store.url)
        return private

    def files(self) -> dict[str, str]:
        """Return every file of the project, and what the case wrote elsewhere, with its hash."""
        place = self.place / "elsewhere"
        outside = {f"elsewhere/{path}": digest for path, digest in fingerprint(place).items()} if place.is_dir() else {}
        here = {
            path: digest for path, digest in fingerprint(self.repo).items() if TRANSIENT.isdisjoint(Path(path).parts)
        }
        return {path: digest for path, digest in here.items() if not path.startswith(REMEMBERED)} | outside


def close_database(repo: Path) -> None:
    """Close this process's connections to the database of a project that is copied or replaced."""
    ProjectState((repo / STATE).resolve()).database.close()


@contextmanager
def opened_stage(root: Path) -> Iterator[Stage]:
    """Make the prepared project and its store; everything is stopped at the end."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        # A child that measures coverage could not save it to a full disk, and would say so.
        for name in [name for name in os.environ if name.startswith(("SKEWLESS_", "COVERAGE_"))]:
            patch.delenv(name)
        # A short path: the server listens on a socket file in its folder.
        private = PrivateServer(Path(stack.enter_context(tempfile.TemporaryDirectory())), grace_s=0.5)
        stack.callback(private.stop)
        store = SharedRedis(private.ensure())
        stack.callback(store.close)
        settings = {"REDIS_URL": store.url, "PORT": "0", "THREADS": "1", "RELOAD_SECONDS": "0.02"}
        for name, value in {**settings, "LOG_FLUSH_SECONDS": "0.02"}.items():
            patch.setenv(f"SKEWLESS_{name}", value)
        repo = root / "p"
        make_project(repo)
        close_database(repo)
        kept = Path(shutil.copytree(repo, root / "kept"))
        yield Stage(kept=kept, repo=repo, store=store, rows=store.rows(), stack=stack)
