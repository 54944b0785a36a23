"""The versions of a server: the current ones, the loaded ones and the rejected ones.

Loading verifies a version's package, certifies its runtime, checks its views, and warms it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from skewless.contract.errors import RequestError, SkewlessError, StalePlanError, StoreError
from skewless.contract.keys import marker_key
from skewless.contract.render import hide_paths
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.definitions.plans.needed_views import NeededViewsMonitor
from skewless.infra.models.packages.package import SERVED_DOCUMENTS
from skewless.infra.models.packages.served_model import ServedModel, load_model
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.runtimes.candidates import ScoringTarget
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.port import OnlineReader
from skewless.serving.metrics.metrics import Metrics

_HOLD_SECONDS = 30  # longer than the interval of `refresh_windows`, which renews it
_log = EventLogger()
_RETRY_SECONDS = 5.0
MODEL_FIELD = "field 'model'"


def warm_up(model: ServedModel) -> None:
    """Run the steps of a request once without a store, so that the first request is as fast as later ones."""
    columns: dict[str, list[str | int | None]] = {column.name: [None] for column in model.plan.join_keys}
    columns |= {column.name: ["" if column.dtype.is_text else 0] for column in model.plan.request}
    parsed_rows = model.parser.build_rows(columns)
    model.reader.names(parsed_rows.keys, 1)
    vectors = model.reader.unavailable(time.time_ns() // 1_000_000 * 1_000, parsed_rows)
    model.runtime.score(np.ascontiguousarray(vectors.matrix))


class CurrentVersions(NamedTuple):
    """The versions of a model that a server should load.

    Args:
        champions: the last champions, the current one first; empty: the model has none.
        policy: the current traffic policy; None: the model never had one.
        numbers: of the last move of the alias, of the policy, and of outages of the database before.
    """

    champions: tuple[str, ...]
    policy: TrafficPolicy | None
    numbers: tuple[object, ...]

    @property
    def champion(self) -> str | None:
        """Return the version with the alias, None if there is none."""
        return next(iter(self.champions), None)


class RejectedModels:
    """Reasons why a model, a model version or a traffic policy cannot be served."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._reasons: dict[str, str] = {}
        self._failed_at: dict[tuple[str, str], float] = {}

    def all(self) -> dict[str, str]:
        """Return all reasons, by thing."""
        return dict(self._reasons)

    def get(self, thing: str) -> str | None:
        """Return why something was rejected; None: it was not."""
        return self._reasons.get(thing)

    def add(self, thing: str, error: SkewlessError) -> None:
        """Store and log why something was rejected."""
        reason = hide_paths(str(error))
        if self._reasons.get(thing) != reason:
            _log.error("model_refused", model=thing, error=str(error))
        self._reasons[thing] = reason
        self._metrics.model_refused(thing).set(1)

    def clear(self, thing: str) -> None:
        """Remove the reason of something that is served again."""
        if self._reasons.pop(thing, None) is not None:
            self._metrics.model_refused(thing).set(0)

    def has_failed_recently(self, name: str, version: str) -> bool:
        """Return whether a version failed in the last seconds; each attempt to load it slows down other requests."""
        oldest_at = time.monotonic() - _RETRY_SECONDS
        self._failed_at = {key: at for key, at in self._failed_at.items() if at > oldest_at}
        return (name, version) in self._failed_at

    @contextlib.contextmanager
    def record_failure(self, name: str, version: str) -> Iterator[None]:
        """Record the time if loading the version fails."""
        try:
            yield
        except SkewlessError:
            self._failed_at[name, version] = time.monotonic()
            raise


class LoadedModels:
    """Holds the loaded versions of each model. A version stays loaded until it is dropped and its last request is done.

    Args:
        marker_history: receives the views that are read.
        needed: knows which views are updated.
        metrics: shows the loaded versions.
    """

    def __init__(
        self,
        *,
        store: PackageStore,
        online: OnlineReader,
        marker_history: MarkerHistory,
        needed: NeededViewsMonitor,
        metrics: Metrics,
        scoring_target: ScoringTarget | None,
    ) -> None:
        self._store = store
        self._online = online
        self._marker_history = marker_history
        self._needed = needed
        self._metrics = metrics
        self._scoring_target = scoring_target
        self._champions: dict[str, str] = {}
        self._open_models: dict[str, dict[str, ServedModel]] = {}
        self._rejected = RejectedModels(metrics)

    @property
    def problems(self) -> dict[str, str]:
        """Return why newer versions are not served, by model."""
        return self._rejected.all()

    def unserved_reasons(self, names: Collection[str]) -> dict[str, str]:
        """Return why models are not served, by name, without the served ones."""
        return {name: self._rejected.get(name) or "is not served" for name in names if name not in self._champions}

    def all(self) -> list[ServedModel]:
        """Return the champions being served."""
        return [self._open_models[name][version] for name, version in self._champions.items()]

    def open_versions(self, name: str) -> list[str]:
        """Return the loaded versions of a model, oldest first."""
        return sorted(self._open_models.get(name, {}), key=int)

    def get(self, name: str | None, version: str | None = None) -> ServedModel:
        """Return a model; without a name the only one, without a version the champion.

        Raises:
            RequestError: the model is unknown or not loaded, or a name is required.
            StalePlanError: the model cannot be served now.
        """
        if name is None and len(self._champions) == 1:
            name = next(iter(self._champions))
        champion = self._champions.get(name or "")
        if champion is None and (why := self._rejected.get(name or "")) is not None:
            raise StalePlanError(f"model {name!r}", f"cannot be served: {why}", fix="fix this; the server retries")
        if name is None or champion is None:
            known = ", ".join(sorted(self._champions))
            fix = f"use one of: {known}" if known else "load a model: none is served now"
            if name is None and known:
                raise RequestError("request body", "has no field 'model'; several are served", fix=fix)
            raise RequestError(MODEL_FIELD, "is not a served model", value=name, fix=fix)
        if version is None:
            return self._open_models[name][champion]
        model = self._open_models[name].get(version.zfill(len(champion)))
        if model is None:
            fix = f"load it, or use one of: {', '.join(self.open_versions(name))}"
            raise RequestError(MODEL_FIELD, f"{name!r} has no such loaded version", value=version, fix=fix)
        return model

    async def open_version(self, name: str, version: str) -> ServedModel:
        """Load a version if it is not loaded, and return it.

        Raises:
            PackageError, StalePlanError, StoreError: it cannot be loaded.
        """
        model = self._open_models.get(name, {}).get(version)
        if model is None:
            model = await self._open(name, version)
            self._open_models.setdefault(name, {})[version] = model
            self._metrics.show_model(name, version, model.certificate, model.trials, model.runtime)
        return model

    async def check_views_fed(self, name: str, version: str) -> None:
        """Reject a version whose views have not been updated since a version needed them (SEMANTICS 8.5).

        Raises:
            StalePlanError: it reads such views. Promoting the version fills them; a server cannot.
            PackageError: its package was altered.
        """
        unfed_views = await asyncio.to_thread(self._needed.find_unfed_views, name, version)
        if unfed_views:
            raise StalePlanError(
                f"model {name!r} {version}",
                "reads views that nothing updates any more",
                value=", ".join(unfed_views),
                fix=f"run `skewless promote {name} {version}` or start a rollout, which fill the views first",
            )

    async def _open(self, name: str, version: str) -> ServedModel:
        """Return a version after verification, certification and warm-up, if its views are filled.

        The applied plan does not matter: the views that a version pins are updated as long as it may serve.

        Raises:
            PackageError: a file was altered, or the runtime differs from the library that trained the model.
            StalePlanError: a view of the version is not filled.
            StoreError: the online store is unavailable.
        """
        model = await asyncio.to_thread(self._load, name, version)
        # Before a row is read: its marker is compared with the position in the log (SEMANTICS 4.5).
        self._marker_history.add_plan(model.plan)
        await self._marker_history.refresh_async()
        views = model.plan.views
        _, marks = await self._online.get_with_markers([], [marker_key(model.plan.project, view) for view in views])
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
        self._marker_history.set_plans([model.plan for model in models])
        with contextlib.suppress(StoreError):  # requests report it
            if lost := await self._marker_history.check(self._online):
                _log.error("store_lost_rows", markers=sorted(lost))

    async def refresh_windows(self, model: ServedModel) -> list[str]:
        """Read the generation of each windowed view's states, mark it as in use, and return views without states."""
        if not model.plan.windows:
            return []
        missing_views = model.windows.load_generations(await self._online.get(model.windows.pointers))
        await self._online.mark_in_use(model.windows.generations, _HOLD_SECONDS)
        return missing_views

    def _load(self, name: str, version: str) -> ServedModel:
        model = load_model(self._store, name, version, self._scoring_target, SERVED_DOCUMENTS)
        warm_up(model)
        return model

    def _drop(self, name: str, version: str) -> None:
        del self._open_models[name][version]
        self._metrics.forget(name, version)
