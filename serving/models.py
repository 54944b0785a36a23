"""The models that a server answers with; a moved alias swaps a model between two requests."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import structlog

from infra.applied import load_applied
from infra.online.port import OnlineReader
from infra.packages.aliases import Aliases
from infra.served_model import ServedModel, load_model
from skewless.errors import PackageError, RequestError, SkewlessError, StalePlanError, StoreError
from skewless.keys import marker_key
from skewless.plan import FeaturePlan, View
from skewless.windows.view import WindowView

CHAMPION = "champion"
_RETRY_SECONDS = 5.0
_HOLD_SECONDS = 30
_log = structlog.get_logger()


class ModelTable:
    """Holds the champion of each model; old versions stay loaded until the last request let go."""

    def __init__(self, *, repo: Path, state: Path, online: OnlineReader) -> None:
        self._repo = repo
        self._state = state
        self._packages = state / "packages"
        self._aliases = Aliases(self._packages)
        self._online = online
        self._models: dict[str, ServedModel] = {}
        self._refused: dict[str, str] = {}
        self._tried: dict[str, tuple[str, float]] = {}

    @property
    def problems(self) -> dict[str, str]:
        """Return why newer versions are not served, by model."""
        return dict(self._refused)

    def all(self) -> list[ServedModel]:
        """Return the models being served."""
        return list(self._models.values())

    def get(self, name: str | None) -> ServedModel:
        """Return a model; without a name, the only one.

        Raises:
            RequestError: it is unknown, or a name is needed.
        """
        if name is None and len(self._models) == 1:
            return next(iter(self._models.values()))
        model = self._models.get(name or "")
        if model is None:
            known = ", ".join(sorted(self._models)) or "none"
            raise RequestError("field 'model'", "names no model that is served", value=name, fix=f"use one of: {known}")
        return model

    async def load(self) -> None:
        """Load every champion.

        Raises:
            PackageError: there is none, or one cannot be opened.
            StalePlanError: one was trained under another plan, or its views are not filled.
        """
        found = {name: self._aliases.get(name, CHAMPION) for name in self._names()}
        champions = {name: version for name, version in found.items() if version is not None}
        if not champions:
            raise PackageError(
                f"project in {self._repo}",
                "has no champion to serve",
                fix="run `skewless train`, which promotes the first version",
            )
        for name, version in champions.items():
            self._models[name] = await self._open(name, version)

    async def refresh(self) -> list[str]:
        """Swap in champions that moved; return the models swapped. A version that fails is not served.

        Windowed views that were built anew are read anew from here on.
        """
        swapped = [name for name in self._names() if await self._refreshed(name)]
        for model in self._models.values():
            with contextlib.suppress(StoreError):  # requests say so themselves
                await self._look(model)
        return swapped

    async def _look(self, model: ServedModel) -> list[str]:
        """Take up which states windowed views are read from, and say that they are; return the views without."""
        if not model.plan.windows:
            return []
        lacking = model.windows.take(await self._online.get(model.windows.pointers))
        await self._online.hold(model.windows.generations, _HOLD_SECONDS)
        return lacking

    async def _refreshed(self, name: str) -> bool:
        """Swap one model if its alias moved; return whether it did."""
        current = self._models.get(name)
        try:
            version = self._aliases.get(name, CHAMPION)
            if version is None or (current is not None and current.version == version):
                self._refused.pop(name, None)
                return False
            if self._waits(name, version):
                return False
            self._models[name] = await self._open(name, version)
        except SkewlessError as error:
            if self._refused.get(name) != str(error):
                _log.error("model_refused", model=name, error=str(error))
            self._refused[name] = str(error)
            return False
        self._refused.pop(name, None)
        _log.info("model_loaded", model=name, version=version)
        return True

    def _waits(self, name: str, version: str) -> bool:
        """Say whether a version was refused a moment ago; opening it takes long enough to hurt others."""
        tried, at = self._tried.get(name, ("", -_RETRY_SECONDS))
        if tried == version and time.monotonic() - at < _RETRY_SECONDS:
            return True
        self._tried[name] = (version, time.monotonic())
        return False

    def _names(self) -> list[str]:
        return (
            sorted(path.name for path in self._packages.iterdir() if path.is_dir()) if self._packages.is_dir() else []
        )

    async def _open(self, name: str, version: str) -> ServedModel:
        model = await asyncio.to_thread(load_model, self._packages, name, version)
        plan = load_applied(self._repo, self._state).plan
        for view in model.plan.views:
            check_view(model, view, plan)
            if await self._online.marker(marker_key(plan.project, view)) is None:
                raise StalePlanError(
                    f"model {name!r}",
                    "needs a view that this Redis does not hold",
                    value=view.name,
                    fix="run `skewless materialize`",
                )
        for window in model.plan.windows:
            check_view(model, window, plan)
        for name_of_view in await self._look(model):
            raise StalePlanError(
                f"model {name!r}",
                "needs a windowed view that this Redis does not hold",
                value=name_of_view,
                fix=f"run `skewless stream`, or `skewless bootstrap {name_of_view}`",
            )
        return model


def check_view(model: ServedModel, view: View | WindowView, plan: FeaturePlan) -> None:
    """Check that a view which a model pins is the one that the applied plan keeps fresh.

    Raises:
        StalePlanError: it is gone or another; names the feature that differs.
    """
    current = next((item for item in plan.all_views if item.name == view.name), None)
    if current is not None and current.hash == view.hash:
        return
    pinned = {column.name: column.dtype for column in view.features}
    found = {column.name: column.dtype for column in current.features} if current else {}
    differing = sorted(name for name in pinned.keys() | found.keys() if pinned.get(name) != found.get(name))
    raise StalePlanError(
        f"model {model.name!r} {model.version}",
        f"was trained under another plan: view {view.name!r} differs in {', '.join(differing) or 'its source or keys'}",
        value=view.hash,
        fix="train again under the applied plan, or apply the old definitions",
    )
