"""A backfill of a view of latest values under the eyes of ``kills``: of a store that another log has filled."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis
from redis.cluster import RedisCluster

from skewless.contract.keys import marker_key
from skewless.contract.status import Status
from skewless.infra.ingest.materialization import latest_rows
from skewless.infra.ingest.materialization.latest_rows import BACKFILLS
from skewless.infra.reads.online import redis_store
from skewless.infra.reads.online.redis_store import RedisWriter
from skewless.project import Project
from tests.reliability.kills import SIDES, Case, Steps, Victims
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.erasures import DAY, NOW, SECOND, write_repo
from tests.worlds.latest import times

NAME, VIEW, SERVICE = "p", "users", "alone"
OWN, OTHER = range(40), range(10, 50)  # numbers of the users in each log
_ASKED = {"user": [f"u{number}" for number in range(50)]}
_BATCH = 7  # rows or keys: so that a small view has several steps of each kind
Seen = list[tuple[str, str]]  # status and bits of each user
UNAVAILABLE: Seen = [(Status.UNAVAILABLE.name, "nan")] * len(_ASKED["user"])


def act(steps: Steps, order: Mapping[str, str]) -> None:
    """Backfill the view."""
    latest_rows._BATCH_ROWS = redis_store._SCAN_COUNT = _BATCH
    with Project(order["repo"]) as project:
        steps.watch(project.state.folder)
        steps.wrap(RedisWriter, "remove", lambda _, keys, *__: "delete" if keys else "")
        for name in ("put", "set_markers"):
            steps.wrap(RedisWriter, name, lambda *_, name=name: name)
        project.backfill([VIEW])


def write_users(root: Path, addresses: ProjectAddresses, url: str, users: Sequence[int], *, rounds: int) -> Path:
    """Write a project; each round brings a row of each user, and the rounds differ between projects."""
    repo = write_repo(root, NAME, settings=f"redis_url: {url}\n{addresses.settings(root)}")
    with (repo / "definitions.py").open("a") as file:
        file.write(f'{SERVICE} = FeatureService(name="{SERVICE}", features=[users])\n')
    (repo / "models.py").write_text("MODELS = []\n")
    at = [NOW - DAY + (each * rounds + user) * SECOND for each in range(rounds) for user in users]
    columns = {
        "user": [f"u{user}" for user in users] * rounds,
        "value": [rounds + user / 7 + each / 3 for each in range(rounds) for user in users],
        "at": times(*at),
        "created": times(*at),
    }
    pq.write_table(pa.table(columns), repo / f"data/{VIEW}.parquet")
    with Project(repo) as project:
        project.apply()
    return repo


def see(project: Project) -> Seen:
    """Return what a reader of the store gets."""
    read = project.online_features(SERVICE, _ASKED)
    return [
        (Status(status).name, "nan" if np.isnan(value) else float(value).hex())
        for status, value in zip(read.status[VIEW].tolist(), read.matrix[:, 0], strict=True)
    ]


@dataclass(kw_only=True)
class RewrittenStore:
    """A project, and a store that the log of another project of the same name has filled.

    Args:
        own, other: the view's rows and markers in the store, from each log.
        truth, wrong: what readers see of each.
    """

    repo: Path
    url: str
    own: dict[bytes, bytes]
    other: dict[bytes, bytes]
    truth: Seen
    wrong: Seen

    @classmethod
    def make(cls, root: Path, url: str, addresses: ProjectAddresses) -> RewrittenStore:
        """Fill the store from each log in turn; it must be empty."""
        found = []
        for name, users, rounds in (("other", OTHER, 3), ("own", OWN, 2)):
            repo = write_users(root / name, addresses, url, users, rounds=rounds)
            with Project(repo) as project:
                project.materialize([VIEW])
                found.append((stored(url), see(project)))
            put_stored(url, {})
        (other, wrong), (own, truth) = found
        return cls(repo=repo, url=url, own=own, other=other, truth=truth, wrong=wrong)

    def spoil(self, *, has_own_marker: bool) -> None:
        """Let the store be as the other log filled it.

        Args:
            has_own_marker: its marker is that of the own log; otherwise it is beyond the end of the log.
        """
        with Project(self.repo) as project:
            name = marker_key(NAME, project.needed.plan.views[0]).encode()
        mark = {key: value for key, value in self.own.items() if key.startswith(name)} if has_own_marker else {}
        put_stored(self.url, self.other | mark)

    def kill(self, dying: Victims, case: Case, chance: random.Random) -> bool:
        """Kill a backfill, look, and let the next run do the rest; return whether it died."""
        point, side = case
        has_own_marker, by = chance.random() < 0.5, chance.choice(["materialize", "backfill"])
        if case == (f"commit-{BACKFILLS}#1", "before"):
            by = "backfill"  # it was not begun
        words = f"killed {side} {point}, own marker: {has_own_marker}, completed by {by}"
        self.spoil(has_own_marker=has_own_marker)
        with Project(self.repo) as watching:
            assert see(watching) == self.wrong
            before = stored(self.url)
            has_died = dying.killed(point, side, repo=str(self.repo))
            possible = [UNAVAILABLE, self.wrong if stored(self.url) == before else self.truth]
            with Project(self.repo) as project:
                assert see(watching) in possible, words
                assert see(project) in possible, words
                self.complete(project, by)
            # A reader that has seen a marker beyond the end of the log reads the log for its next connection.
            assert see(watching) == (self.truth if has_own_marker else UNAVAILABLE), words
        with Project(self.repo) as project:
            assert see(project) == self.truth, words
            assert project.parity([VIEW], sample=100).ok, words
        assert rows_of(stored(self.url)) == rows_of(self.own), words
        return has_died

    def complete(self, project: Project, by: str) -> None:
        """Do the rest of a backfill."""
        if by == "materialize":
            project.materialize([VIEW])
        else:
            project.backfill([VIEW])

    def draw(self, points: Sequence[str], chance: random.Random, n: int) -> list[Case]:
        """Return some cases, of each kind of step with the same probability."""
        kinds: dict[str, list[str]] = {}
        for point in points:
            kinds.setdefault(point.partition("#")[0], []).append(point)
        return [(chance.choice(kinds[chance.choice(sorted(kinds))]), chance.choice(SIDES)) for _ in range(n)]


def rows_of(values: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the rows, without markers: their watermark moves."""
    return {key: value for key, value in values.items() if b":applied" not in key}


def open_raw(url: str) -> Any:  # noqa: ANN401 - redis-py's clients are untyped
    """Return a client of a server or a cluster."""
    if url.startswith("redis+cluster"):
        return RedisCluster.from_url(url.replace("redis+cluster", "redis").split(",")[0])
    return redis.Redis.from_url(url)


def stored(url: str) -> dict[bytes, bytes]:
    """Return all keys of the project in a store, and their values."""
    with closing(open_raw(url)) as client:
        return {key: client.get(key) for key in client.scan_iter(f"sk:{NAME}:*")}


def put_stored(url: str, values: Mapping[bytes, bytes]) -> None:
    """Let a store have these values of the project, and no others."""
    with closing(open_raw(url)) as client:
        for key in list(client.scan_iter(f"sk:{NAME}:*")):
            client.delete(key)
        for key, value in values.items():
            client.set(key, value)
