"""A project ready to be served: filled and trained, its Redis beside the load, an API key made."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestant import Contestant
from benchmarks.cores import Cores, cores, pin_redis
from benchmarks.served import Server, skewless_server
from benchmarks.server import own_server
from benchmarks.serving_asks import infer_request, predict_request, predict_scores
from benchmarks.serving_race import Contender
from benchmarks.serving_repo import Ids, Matrix, Shape, fill, model_file, write_project
from skewless.infra.platform.access.api_keys import ApiKey, KeyStore, generate_secret, hash_secret
from skewless.infra.platform.storage.project_state import ProjectState

ASKED, COMPARED = 2_000, 200


@dataclass(frozen=True, kw_only=True)
class ServedProject:
    """A project that can be served.

    Args:
        folder: of everything that belongs to it; gone afterwards.
        key: an API key with the scope ``predict``.
        other_key: another one.
    """

    shape: Shape
    folder: Path
    repo: Path
    url: str
    key: str
    other_key: str
    where: Cores

    @property
    def model(self) -> Path:
        """Return the model as its library wrote it."""
        return model_file(self.repo)

    def server(self, first: bytes, name: str = "skewless") -> Server:
        """Return our server, with keys required, metrics and prediction log on."""
        return skewless_server(self.repo, self.url, first, name, auth="required")

    def pairs(self) -> Ids:
        """Return the pairs that are asked for, shape ``(n, 2)``."""
        return self.shape.pairs(ASKED)

    def whole_vectors(self) -> Matrix:
        """Return vectors without a null, which JSON can say to every server, shape ``(n, n_features)``."""
        vectors = self.shape.vectors(self.pairs())
        return vectors[~np.isnan(vectors).any(axis=1)]

    def predict(self, pairs: Ids, key: str = "", **options: object) -> bytes:
        """Return a request of ours by entity ids, with the first key or another one."""
        return predict_request(pairs, key or self.key, shops=self.shape.n_views > 1, **options)

    def infer(self, vectors: Matrix) -> bytes:
        """Return a request of ours by feature vectors."""
        return infer_request(vectors, self.key)

    def scores(self, vectors: Matrix) -> Matrix:
        """Return what the library itself says of vectors, shape ``(n,)``."""
        booster = _BOOSTERS[self.shape.algorithm]
        return np.asarray(booster(self.model, vectors), dtype=np.float64)


@contextmanager
def served_project(shape: Shape) -> Iterator[ServedProject]:
    """Build a project on a Redis of its own, and remove both afterwards."""
    where = cores()
    with tempfile.TemporaryDirectory() as name, own_server() as url:
        folder = Path(name)
        repo = write_project(folder, shape)
        Contestant(name="the project", entrant=fill, arguments={"repo": str(repo), "url": url}).run()
        pin_redis(url, where.load)
        keys = {field: _new_key(repo, name) for field, name in (("key", "bench"), ("other_key", "other"))}
        yield ServedProject(shape=shape, folder=folder, repo=repo, url=url, where=where, **keys)


def pair_contender(project: ServedProject) -> Contender:
    """Return our server, asked for one pair of entities at a time."""
    pairs = project.pairs()
    requests = [project.predict(pair[None]) for pair in pairs]
    expected = project.scores(project.shape.vectors(pairs[:COMPARED]))
    return Contender(server=project.server(requests[0]), requests=requests, expected=expected, scores=predict_scores)


def _new_key(repo: Path, name: str) -> str:
    secret = generate_secret(name)
    key = ApiKey(
        name=name,
        digest=hash_secret(secret.encode()),
        scopes=frozenset({"predict"}),
        rate=None,
        created_us=time.time_ns() // 1_000,
        expires_us=None,
    )
    KeyStore(ProjectState(repo / ".skewless")).add(key)
    return secret


def _lightgbm(model: Path, vectors: Matrix) -> Any:  # noqa: ANN401 - the library's types are wider
    import lightgbm  # noqa: PLC0415 - only where its model is served

    return lightgbm.Booster(model_file=str(model)).predict(vectors, num_threads=1)


def _xgboost(model: Path, vectors: Matrix) -> Any:  # noqa: ANN401 - as above
    import xgboost  # noqa: PLC0415 - only where its model is served

    booster = xgboost.Booster(model_file=str(model))
    booster.set_param({"nthread": 1})
    return booster.inplace_predict(vectors)


_BOOSTERS = {"lightgbm": _lightgbm, "xgboost": _xgboost}
