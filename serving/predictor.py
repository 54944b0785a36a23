"""The transport-free core: entity ids in, scores and their reasons out."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.online.guard import Guard
from infra.online.port import OnlineReader
from infra.online.window_states import Applied, WindowReads
from infra.predictions.record import Record
from infra.predictions.writer import PredictionWriter
from infra.served_model import ServedModel
from skewless.clock import Clock
from skewless.errors import StoreError
from skewless.keys import marker_key
from skewless.request import Ask, parse_rows
from skewless.rows import ViewRead, missing
from skewless.spec import LogPolicy
from skewless.status import BoolArray
from skewless.vector import Vectors

_MILLISECOND = 1_000


@dataclass(frozen=True, kw_only=True)
class Reads:
    """What the views of both kinds answered for one request."""

    views: Mapping[str, ViewRead]
    applied: Mapping[str, Applied]

    @classmethod
    def of(cls, rows: Mapping[str, ViewRead], windows: WindowReads) -> Reads:
        """Return reads of rows and of windows together."""
        return cls(views={**rows, **windows.reads}, applied=windows.applied)


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The answer to one request of n rows.

    Args:
        t: the one time at which everything was evaluated, microseconds.
        scores: float64, shape ``(n,)``.
        reads: per view, what was read.
        applied: per windowed view, up to where its states had been applied.
        log: whether the log row is durable (``required``) or on its way (``best_effort``).
        degraded: the store did not answer and nulls were scored.
    """

    model: ServedModel
    ids: Sequence[str]
    t: int
    scores: npt.NDArray[np.float64]
    vectors: Vectors
    reads: Mapping[str, ViewRead]
    applied: Mapping[str, Applied]
    log: LogPolicy
    degraded: bool

    def stale(self, view: str) -> BoolArray:
        """Return where a view's row was older than its freshness limit; the value was kept."""
        limit = {item.name: item.freshness_us for item in self.model.plan.all_views}[view]
        ages = self.t - self.reads[view].versions.event_ts
        return (ages > limit) & self.reads[view].found if limit else np.zeros(len(self.ids), dtype=np.bool_)


class Predictor:
    """Predicts with any loaded model from one store."""

    def __init__(
        self,
        *,
        online: OnlineReader,
        clock: Clock,
        log: PredictionWriter | None,
        max_batch: int,
        guard: Guard | None = None,
    ) -> None:
        self._online = online
        self._guard = guard or Guard()
        self._clock = clock
        self._log = log
        self._max_batch = max_batch
        self._prefix = os.urandom(6).hex()
        self._counter = itertools.count()
        self.skew_us = 0

    async def predict(self, model: ServedModel, rows: Sequence[object]) -> Predictions:
        """Return predictions for JSON rows of entity keys and request fields.

        Raises:
            RequestError: a row is not as the plan says.
            StoreError: the store is away and the model refuses nulls, or a required log is full.
        """
        ask = parse_rows(model.plan, rows, self._max_batch)
        n = len(rows)
        t = self._clock.now_us() // _MILLISECOND * _MILLISECOND
        reads, degraded = await self._read(model, ask, n, t)
        read_end = self._clock.now_us()
        vectors = model.assembler.assemble(np.full(n, t, dtype=np.int64), reads.views, ask.fields)
        scores = model.runtime.score(vectors.matrix)
        answer = Predictions(
            model=model,
            ids=[f"{self._prefix}-{next(self._counter):x}" for _ in range(n)],
            t=t,
            scores=scores,
            vectors=vectors,
            reads=reads.views,
            applied=reads.applied,
            log=model.package.spec.log,
            degraded=degraded,
        )
        await self._record(answer, read_end, rows)
        return answer

    async def _read(self, model: ServedModel, ask: Ask, n: int, t: int) -> tuple[Reads, bool]:
        names = {view: codec.encode_columns(ask.keys) for view, codec in model.keys.items()}
        windows = model.windows.names(ask.keys, n)
        wanted = list(dict.fromkeys(key for keys in (*names.values(), windows) for key in keys if key is not None))
        marks = [marker_key(model.plan.project, view) for view in model.plan.views]
        try:
            rows, markers = await self._online.get_marked(wanted, [*marks, *model.windows.markers])
        except StoreError:
            if model.package.spec.missing == "refuse":
                raise
            nothing = {view.name: missing(view, n, available=False) for view in model.plan.views}
            return Reads.of(nothing, model.windows.unavailable(n)), True
        lost = self._guard.lost([*marks, *model.windows.markers], markers)
        if lost and model.package.spec.missing == "refuse":
            raise _incomplete(model, lost)
        stored = dict(zip(wanted, rows, strict=True))
        reads = {
            view.name: missing(view, n, available=False)
            if mark in lost
            else model.rows[view.name].decode([None if key is None else stored[key] for key in names[view.name]])
            for view, mark in zip(model.plan.views, marks, strict=True)
        }
        states = [None if key is None else stored[key] for key in windows]
        return Reads.of(reads, model.windows.read(windows, states, lost, t)), bool(lost)

    async def _record(self, answer: Predictions, read_end: int, rows: Sequence[object]) -> None:
        if self._log is None:
            return
        record = _record(answer, read_end, rows, self.skew_us)
        if answer.log == "required":
            await asyncio.wrap_future(self._log.require(record))
        else:
            self._log.offer(record)


def _incomplete(model: ServedModel, lost: set[str]) -> StoreError:
    views = [view.name for view in model.plan.views if marker_key(model.plan.project, view) in lost]
    what = "`skewless materialize`" if views else "`skewless stream`"
    views += [view.name for view in model.plan.windows]
    return StoreError(
        f"view {views[0]!r}",
        "is not whole in this Redis: it has lost writes",
        fix=f"run {what}, which puts them again",
    )


def _record(answer: Predictions, read_end: int, rows: Sequence[object], skew_us: int) -> Record:
    model = answer.model
    constants: dict[str, Any] = {
        "model": model.name,
        "version": model.version,
        "runtime_id": model.runtime.runtime_id,
        "tolerance": 0.0 if model.certificate.bit_equal else model.package.spec.tolerance,
        "plan_hash": model.plan.hash,
        "transform_hashes": [item.hash for item in model.plan.transforms],
        "missing": model.package.spec.missing,
        "skew_us": skew_us,
    }
    return Record(
        ids=answer.ids,
        t=answer.t,
        read_end=read_end,
        inputs=[json.dumps(row, separators=(",", ":")) for row in rows],
        versions={view: read.versions for view, read in answer.reads.items()},
        applied=answer.applied,
        status=answer.vectors.status,
        hashes={view.name: view.hash for view in model.plan.all_views},
        matrix=answer.vectors.matrix,
        scores=answer.scores,
        constants=constants,
    )
