"""Opening a model version so that it can answer: package, certificate, views, warm-up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable

import numpy as np
import structlog

from skewless.contract.errors import StalePlanError, StoreError
from skewless.contract.keys import marker_key
from skewless.infra.online.marker_history import MarkerHistory
from skewless.infra.online.port import OnlineReader
from skewless.infra.packages.served_model import ServedModel, load_model
from skewless.infra.packages.store import PackageStore
from skewless.infra.plans.needed_views import NeededViewsMonitor
from skewless.infra.runtimes.candidates import ScoringTarget

_HOLD_SECONDS = 30
_log = structlog.get_logger()


class ModelLoader:
    """Opens versions beside those that answer; nothing is swapped here.

    Args:
        guard: is told which views are read.
        needed: says which views are fed.
    """

    def __init__(
        self,
        *,
        store: PackageStore,
        online: OnlineReader,
        guard: MarkerHistory,
        needed: NeededViewsMonitor,
        place: ScoringTarget | None = None,
    ) -> None:
        self._store = store
        self._online = online
        self._guard = guard
        self._needed = needed
        self._place = place

    async def check_fed(self, name: str, version: str) -> None:
        """Refuse a version that reads what nothing has fed since it was last needed (SEMANTICS 8.5).

        Raises:
            StalePlanError: it reads such views; who promotes it fills them, which a server cannot.
            PackageError: its package is altered.
        """
        unfed = await asyncio.to_thread(self._needed.find_unfed_views, name, version)
        if unfed:
            raise StalePlanError(
                f"model {name!r} {version}",
                "reads views that nothing feeds any more",
                value=", ".join(unfed),
                fix=f"run `skewless promote {name} {version}`, or begin a rollout: these fill them first",
            )

    async def open(self, name: str, version: str) -> ServedModel:
        """Return a version that has been verified, certified and warmed up, and whose views are filled.

        Which plan is in force does not matter: the views that a version pins are fed while it may answer.

        Raises:
            PackageError: a file is altered, or the runtime differs from the library that trained it.
            StalePlanError: its views are not filled.
            StoreError: the online store is away.
        """
        model = await asyncio.to_thread(self._load, name, version)
        self._guard.watch(model.plan)
        await self._guard.renewed()
        views = model.plan.views
        _, marks = await self._online.get_marked([], [marker_key(model.plan.project, view) for view in views])
        for view, mark in zip(views, marks, strict=True):
            if mark is None:
                raise StalePlanError(
                    f"model {name!r} {version}",
                    f"needs view {view.name!r}, which the online store does not hold",
                    value=view.hash,
                    fix=f"run `skewless materialize`, or `skewless promote {name} {version}`",
                )
        for lacking in await self.look(model):
            raise StalePlanError(
                f"model {name!r} {version}",
                f"needs windowed view {lacking!r}, which the online store does not hold",
                value=model.plan.window(lacking).hash,
                fix=f"run `skewless stream`, or `skewless promote {name} {version}`",
            )
        return model

    async def notice_losses(self, models: Iterable[ServedModel]) -> None:
        """Have views of models refused of which the store lost rows since it was last read (SEMANTICS 4.5).

        Args:
            models: all that are open; what others read is not watched any more.
        """
        self._guard.keep([model.plan for model in models])
        with contextlib.suppress(StoreError):  # requests say so themselves
            if lost := await self._guard.check(self._online):
                _log.error("store_lost_rows", markers=sorted(lost))

    async def look(self, model: ServedModel) -> list[str]:
        """Take up which states windowed views are read from, and say that they are; return the views without."""
        if not model.plan.windows:
            return []
        lacking = model.windows.take(await self._online.get(model.windows.pointers))
        await self._online.hold(model.windows.generations, _HOLD_SECONDS)
        return lacking

    def _load(self, name: str, version: str) -> ServedModel:
        model = load_model(self._store, name, version, self._place)
        warm_up(model)
        return model


def warm_up(model: ServedModel) -> None:
    """Walk the way of a request once without a store, so that the first one is no slower than the others."""
    columns: dict[str, list[str | int | None]] = {column.name: [None] for column in model.plan.join_keys}
    columns |= {column.name: [_any_value(column.dtype.is_text)] for column in model.plan.request}
    ask = model.parser.build_rows(columns)
    model.reader.names(ask.keys, 1)
    vectors = model.reader.unavailable(time.time_ns() // 1_000_000 * 1_000, ask)
    model.runtime.score(np.ascontiguousarray(vectors.matrix))


def _any_value(text: bool) -> str | int:  # noqa: FBT001 - a fact, no switch
    return "" if text else 0
