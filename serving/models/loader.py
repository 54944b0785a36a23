"""Loading of a model version: verify its package, certify its runtime, check its views, warm it up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from skewless.contract.errors import StalePlanError, StoreError
from skewless.contract.keys import marker_key
from skewless.infra.online.marker_history import MarkerHistory
from skewless.infra.online.port import OnlineReader
from skewless.infra.packages.served_model import ServedModel, load_model
from skewless.infra.packages.store import PackageStore
from skewless.infra.plans.needed_views import NeededViewsMonitor
from skewless.infra.runtimes.candidates import ScoringTarget
from skewless.infra.telemetry.logger import EventLogger

_HOLD_SECONDS = 30  # longer than the interval of `refresh_windows`, which renews it
_log = EventLogger()


@dataclass(frozen=True, kw_only=True)
class ModelLoader:
    """Loads versions while others keep serving; it does not swap versions.

    Args:
        marker_history: receives the views that are read.
        needed: knows which views are updated.
    """

    store: PackageStore
    online: OnlineReader
    marker_history: MarkerHistory
    needed: NeededViewsMonitor
    scoring_target: ScoringTarget | None = None

    async def check_views_fed(self, name: str, version: str) -> None:
        """Reject a version whose views have not been updated since a version needed them (SEMANTICS 8.5).

        Raises:
            StalePlanError: it reads such views. Promoting the version fills them; a server cannot.
            PackageError: its package was altered.
        """
        unfed_views = await asyncio.to_thread(self.needed.find_unfed_views, name, version)
        if unfed_views:
            raise StalePlanError(
                f"model {name!r} {version}",
                "reads views that nothing updates any more",
                value=", ".join(unfed_views),
                fix=f"run `skewless promote {name} {version}` or start a rollout, which fill the views first",
            )

    async def open(self, name: str, version: str) -> ServedModel:
        """Return a version after verification, certification and warm-up, if its views are filled.

        The applied plan does not matter: the views that a version pins are updated as long as it may serve.

        Raises:
            PackageError: a file was altered, or the runtime differs from the library that trained the model.
            StalePlanError: a view of the version is not filled.
            StoreError: the online store is unavailable.
        """
        model = await asyncio.to_thread(self._load, name, version)
        # Before a row is read: its marker is compared with the position in the log (SEMANTICS 4.5).
        self.marker_history.add_plan(model.plan)
        await self.marker_history.refresh_async()
        views = model.plan.views
        _, marks = await self.online.get_with_markers([], [marker_key(model.plan.project, view) for view in views])
        for view, marker in zip(views, marks, strict=True):
            if marker is None:
                raise StalePlanError(
                    f"model {name!r} {version}",
                    f"needs view {view.name!r}, which is missing in the online store",
                    value=view.hash,
                    fix=f"run `skewless materialize`, or `skewless promote {name} {version}`",
                )
        for missing_views in await self.refresh_windows(model):
            raise StalePlanError(
                f"model {name!r} {version}",
                f"needs windowed view {missing_views!r}, which is missing in the online store",
                value=model.plan.window(missing_views).hash,
                fix=f"run `skewless stream`, or `skewless promote {name} {version}`",
            )
        return model

    async def check_losses(self, models: Iterable[ServedModel]) -> None:
        """Check whether the store lost rows of views since the last check; requests then reject them (SEMANTICS 4.5).

        Args:
            models: all loaded models; views of other models are not checked any more.
        """
        self.marker_history.set_plans([model.plan for model in models])
        with contextlib.suppress(StoreError):  # requests report it
            if lost := await self.marker_history.check(self.online):
                _log.error("store_lost_rows", markers=sorted(lost))

    async def refresh_windows(self, model: ServedModel) -> list[str]:
        """Read the generation of each windowed view's states, mark it as in use, and return views without states."""
        if not model.plan.windows:
            return []
        missing_views = model.windows.load_generations(await self.online.get(model.windows.pointers))
        await self.online.mark_in_use(model.windows.generations, _HOLD_SECONDS)
        return missing_views

    def _load(self, name: str, version: str) -> ServedModel:
        model = load_model(self.store, name, version, self.scoring_target)
        warm_up(model)
        return model


def warm_up(model: ServedModel) -> None:
    """Run the steps of a request once without a store, so that the first request is as fast as later ones."""
    columns: dict[str, list[str | int | None]] = {column.name: [None] for column in model.plan.join_keys}
    columns |= {column.name: [_any_value(column.dtype.is_text)] for column in model.plan.request}
    parsed_rows = model.parser.build_rows(columns)
    model.reader.names(parsed_rows.keys, 1)
    vectors = model.reader.unavailable(time.time_ns() // 1_000_000 * 1_000, parsed_rows)
    model.runtime.score(np.ascontiguousarray(vectors.matrix))


def _any_value(text: bool) -> str | int:  # noqa: FBT001 - a property of the column, not a switch
    return "" if text else 0
