"""Opening a model version so that it can answer: package, certificate, views, warm-up."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np

from infra.applied import load_applied
from infra.online.port import OnlineReader
from infra.runtimes.candidates import Place
from infra.served_model import ServedModel, load_model
from skewless.errors import StalePlanError
from skewless.keys import marker_key
from skewless.plan import FeaturePlan, View
from skewless.windows.view import WindowView

_HOLD_SECONDS = 30


class ModelLoader:
    """Opens versions beside those that answer; nothing is swapped here."""

    def __init__(self, *, repo: Path, state: Path, online: OnlineReader, place: Place | None = None) -> None:
        self._repo = repo
        self._state = state
        self._packages = state / "packages"
        self._online = online
        self._place = place

    async def open(self, name: str, version: str) -> ServedModel:
        """Return a version that has been verified, certified and warmed up, and whose views are filled.

        Raises:
            PackageError: a file is altered, or the runtime differs from the library that trained it.
            StalePlanError: it was trained under another plan, or its views are not filled.
            StoreError: the online store is away.
        """
        model = await asyncio.to_thread(self._load, name, version)
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
        for name_of_view in await self.look(model):
            raise StalePlanError(
                f"model {name!r}",
                "needs a windowed view that this Redis does not hold",
                value=name_of_view,
                fix=f"run `skewless stream`, or `skewless bootstrap {name_of_view}`",
            )
        return model

    async def look(self, model: ServedModel) -> list[str]:
        """Take up which states windowed views are read from, and say that they are; return the views without."""
        if not model.plan.windows:
            return []
        lacking = model.windows.take(await self._online.get(model.windows.pointers))
        await self._online.hold(model.windows.generations, _HOLD_SECONDS)
        return lacking

    def _load(self, name: str, version: str) -> ServedModel:
        model = load_model(self._packages, name, version, self._place)
        warm_up(model)
        return model


def warm_up(model: ServedModel) -> None:
    """Walk the way of a request once without a store, so that the first one is no slower than the others."""
    columns: dict[str, list[str | int | None]] = {column.name: [None] for column in model.plan.join_keys}
    columns |= {column.name: [_any_value(column.dtype.is_text)] for column in model.plan.request}
    ask = model.parser.ask(columns)
    model.reader.names(ask.keys, 1)
    vectors = model.reader.unavailable(time.time_ns() // 1_000_000 * 1_000, ask)
    model.runtime.score(np.ascontiguousarray(vectors.matrix))


def _any_value(text: bool) -> str | int:  # noqa: FBT001 - a fact, no switch
    return "" if text else 0


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
