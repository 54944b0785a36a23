"""The models that a server answers with; a version is swapped in between two requests, the old one stays at hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from pathlib import Path

import structlog

from skewless.contract.errors import (
    ConflictError,
    PackageError,
    RequestError,
    SkewlessError,
    StalePlanError,
    StoreError,
)
from skewless.infra.online.marker_history import MarkerHistory
from skewless.infra.online.port import OnlineReader
from skewless.infra.packages.aliases import Aliases
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.packages.store import PackageStore
from skewless.infra.plans.needed_views import NeededViewsMonitor, retained_champions
from skewless.infra.plans.target_versions import FILE, TargetVersions, TargetVersionsFile
from skewless.infra.rollout.traffic import versions_of
from skewless.infra.runtimes.candidates import ScoringTarget
from skewless.infra.storage.names import list_models, list_versions
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.loader import ModelLoader
from skewless.serving.models.rejected_models import RejectedModels
from skewless.serving.models.routes import Routes
from skewless.serving.prediction.routing import Routing

CHAMPION = "champion"
MODEL_FIELD = "field 'model'"
_log = structlog.get_logger()


class ModelTable:
    """Holds the champion of each model, the champions before it, what its traffic policy needs, and what was asked for.

    A version stays open until it is dropped and the last request let go of it.

    Args:
        marker_history: is told which views are read; None: nobody watches for losses of the store.
        store: the packages, and whose are loaded.
        keep: champions of each model that stay open, the present one among them.
        place: where models may be scored besides; None: by their own library alone.
    """

    def __init__(
        self,
        *,
        repo: Path,
        state: Path,
        store: PackageStore,
        online: OnlineReader,
        marker_history: MarkerHistory | None = None,
        metrics: Metrics | None = None,
        keep: int = 2,
        place: ScoringTarget | None = None,
    ) -> None:
        self._repo = repo
        self._packages = store.root
        self._aliases = Aliases(self._packages)
        needed = NeededViewsMonitor(state, store, keep)
        self._loader = ModelLoader(
            store=store, online=online, marker_history=marker_history or MarkerHistory(), needed=needed, place=place
        )
        self._wanted = TargetVersionsFile(state)
        self._wishes = TargetVersions()
        self._metrics = metrics or Metrics()
        self._keep = keep
        self.routes = Routes(self._packages, self._metrics)
        self._champions: dict[str, str] = {}
        self._open: dict[str, dict[str, ServedModel]] = {}
        self._refusals = RejectedModels(self._metrics)
        self._changing = asyncio.Lock()

    @property
    def problems(self) -> dict[str, str]:
        """Return why newer versions are not served, by model."""
        return self._refusals.all()

    def unserved(self, names: Collection[str]) -> dict[str, str]:
        """Return why some models are not served, by name; those that are served are left out."""
        return {name: self._refusals.why(name) or "is not served" for name in names if name not in self._champions}

    def all(self) -> list[ServedModel]:
        """Return the champions being served."""
        return [self._open[name][version] for name, version in self._champions.items()]

    def names(self) -> list[str]:
        """Return the models that have a version, served or not, sorted."""
        return list_models(self._packages)

    def open_versions(self, name: str) -> list[str]:
        """Return the versions of a model that answer, oldest first."""
        return sorted(self._open.get(name, {}), key=int)

    def known_versions(self, name: str) -> list[str]:
        """Return all versions of a model, oldest first."""
        return list_versions(self._packages, name)

    def get(self, name: str | None, version: str | None = None) -> ServedModel:
        """Return a model; without a name the only one, without a version the champion.

        Raises:
            RequestError: it is unknown or not loaded, or a name is needed.
        """
        if name is None and len(self._champions) == 1:
            name = next(iter(self._champions))
        champion = self._champions.get(name or "")
        if champion is None and (why := self._refusals.why(name or "")) is not None:
            raise StalePlanError(f"model {name!r}", f"cannot be served: {why}", fix="mend that; it is tried again")
        if name is None or champion is None:
            known = ", ".join(sorted(self._champions))
            fix = f"use one of: {known}" if known else "load one: none is served now"
            raise RequestError(MODEL_FIELD, "names no model that is served", value=name, fix=fix)
        if version is None:
            return self._open[name][champion]
        model = self._open[name].get(version.zfill(len(champion)))
        if model is None:
            fix = f"load it, or use one of: {', '.join(self.open_versions(name))}"
            raise RequestError(MODEL_FIELD, f"{name!r} has no such version open", value=version, fix=fix)
        return model

    def routing(self, name: str) -> Routing | None:
        """Return how the requests to a model are shared out; None: its champion answers all."""
        return self.routes.get(name)

    async def load(self) -> None:
        """Open every champion that can be served, and what is wanted besides; of the others say why not.

        Of a champion that cannot be served the one before it answers, as in a server that ran already.

        Raises:
            PackageError: there is no champion.
            SkewlessError: none of them can be served: why the first cannot.
            StoreError: the online store is away.
        """
        wanted = self._wishes = self._wanted.read()
        found = {name: self._aliases.get(name, CHAMPION) for name in self.names()}
        champions = {name: version for name, version in found.items() if version is not None}
        if not champions:
            fix = "run `skewless train`, which promotes the first version"
            raise PackageError(f"project in {self._repo}", "has no champion to serve", fix=fix)
        wished = [name for name in champions if name not in wanted.unloaded]
        first = [error for name in wished if (error := await self._crown_newest(name)) is not None]
        if first and not self._champions:
            raise first[0]
        await self._open_pinned(wanted)
        await self._route_all()

    async def refresh(self) -> list[str]:
        """Swap in champions that moved, open and drop what is wanted so; return the models swapped.

        A version that fails is not served. Windowed views that were built anew are read anew from here on.
        """
        async with self._changing:
            wanted = self._wishes_now()
            swapped = [name for name in self.names() if await self._refreshed(name, wanted)]
            await self._open_pinned(wanted)
            await self._route_all()
            for model in (models := [model for versions in self._open.values() for model in versions.values()]):
                with contextlib.suppress(StoreError):  # requests say so themselves
                    await self._loader.look(model)
            await self._loader.notice_losses(models)
            return swapped

    async def want(self, name: str, version: str | None = None) -> ServedModel:
        """Serve a model that was unloaded, or one more version of it; return what was asked for, open.

        Raises:
            RequestError: there is no such model or version.
            PackageError, StalePlanError, StoreError: it cannot be opened, or nothing feeds what it reads; nothing
                has changed.
        """
        if name not in self.names():
            fix = f"use one of: {', '.join(self.names())}"
            raise RequestError(MODEL_FIELD, "names no model that exists", value=name, fix=fix)
        known = self.known_versions(name)
        target = self._aliases.get(name, CHAMPION) if version is None else version.zfill(6)
        if target not in known:
            fix = f"use one of: {', '.join(known)}"
            raise RequestError(MODEL_FIELD, "names no version that exists", value=version or name, fix=fix)
        async with self._changing:
            champion = self._aliases.get(name, CHAMPION)
            if version is None or champion == target:
                await self._crown(name, target)
            else:
                await self._loader.check_fed(name, target)
                await self._opened(name, target)
            self._wishes = self._wanted.load(name, None if version is None else target)
            if champion is not None and name not in self._champions:
                await self._crown(name, champion)
            return self._open[name][target]

    async def unwant(self, name: str) -> None:
        """Stop serving a model; requests under way are answered.

        Raises:
            RequestError: it is not served.
        """
        self.get(name)
        async with self._changing:
            self._wishes = self._wanted.unload(name)
            self._drop_model(name)

    async def roll_back(self, name: str, *, reason: str, now_us: int) -> ServedModel:
        """End a rollout under way, or else make the champion before this one champion again; return the champion.

        Raises:
            RequestError: the model is not served.
            StalePlanError: nothing feeds what that one reads.
            ConflictError: there was none before it, or somebody moved the alias at the same time.
        """
        self.get(name)
        moves = self._aliases.read_latest_first(name, CHAMPION)
        last = next(moves)
        holder = last.to
        if self.routes.end(name, holder, moves=last.number, reason=reason, now_us=now_us):
            return self._open[name][self._champions[name]]
        before = next((move.to for move in moves if move.to != holder), None)
        if before is None:
            fix = "train a new version"
            raise ConflictError(f"model {name!r}", "never had another champion", value=holder, fix=fix)
        async with self._changing:
            await self._loader.check_fed(name, before)
            await self._opened(name, before)
            self._aliases.move(name, CHAMPION, expect=holder, to=before, reason=reason, now_us=now_us)
            return await self._crown(name, before)

    async def _refreshed(self, name: str, wanted: TargetVersions) -> bool:
        """Swap one model if its alias moved; return whether it did."""
        try:
            version = None if name in wanted.unloaded else self._aliases.get(name, CHAMPION)
            if version is None:
                self._drop_model(name)
            if version is None or self._champions.get(name) == version:
                self._refusals.end(name)
                return False
            if self._refusals.waits(name, version):
                return False
            with self._refusals.remembered(name, version):
                await self._crown(name, version)
        except SkewlessError as error:
            self._refusals.note(name, error)
            return False
        self._refusals.end(name)
        _log.info("model_loaded", model=name, version=version)
        return True

    def _wishes_now(self) -> TargetVersions:
        """Return what is wanted; while the file is damaged, what was wanted before."""
        try:
            self._wishes = self._wanted.read()
        except PackageError as error:
            self._refusals.note(FILE, error)
        else:
            self._refusals.end(FILE)
        return self._wishes

    async def _open_pinned(self, wanted: TargetVersions) -> None:
        for name in self._champions:
            for version in wanted.versions(name) - self._open[name].keys():
                try:
                    if not self._refusals.waits(name, version):
                        with self._refusals.remembered(name, version):
                            await self._opened(name, version)
                        self._refusals.end(f"{name} {version}")
                except SkewlessError as error:
                    self._refusals.note(f"{name} {version}", error)

    async def _route_all(self) -> None:
        for name, champion in list(self._champions.items()):
            thing = f"{name} traffic"
            try:
                if await self._route(name, champion):
                    self._refusals.end(thing)
            except SkewlessError as error:
                self._refusals.note(thing, error)
            self.routes.refused(name, refused=self._refusals.why(thing) is not None)

    async def _route(self, name: str, champion: str) -> bool:
        """Put a new policy in force, once all that it needs is open; return whether none is left to be."""
        before = self.routes.versions(name)
        policy = self.routes.due(name, champion)
        if policy is not None:
            needed = versions_of(policy)
            if any(self._refusals.waits(name, version) for version in needed):
                return False
            models = {}
            for version in needed:
                with self._refusals.remembered(name, version):
                    models[version] = await self._opened(name, version)
            self.routes.enforce(name, policy, models)
        if self.routes.versions(name) != before:
            self._drop_old(name)
        return True

    async def _crown_newest(self, name: str) -> SkewlessError | None:
        """Crown the newest champion that can be served; return why the newest of all cannot, None if it can."""
        refusal: SkewlessError | None = None
        for version in retained_champions(self._packages, name, self._keep):
            try:
                await self._crown(name, version)
            except StoreError:
                raise
            except SkewlessError as error:
                refusal = refusal or error
            else:
                break
        if refusal is not None:
            self._refusals.note(name, refusal)
        return refusal

    async def _crown(self, name: str, version: str) -> ServedModel:
        model = await self._opened(name, version)
        self._champions[name] = version
        self.routes.crowned(name, version)
        self._drop_old(name)
        return model

    async def _opened(self, name: str, version: str) -> ServedModel:
        model = self._open.get(name, {}).get(version)
        if model is None:
            model = await self._loader.open(name, version)
            self._open.setdefault(name, {})[version] = model
            self._metrics.loaded(name, version, model.certificate, model.trials, model.runtime)
        return model

    def _drop_old(self, name: str) -> None:
        """Close what is neither pinned, nor needed by a policy, nor among the champions to be kept."""
        kept = {self._champions[name], *retained_champions(self._packages, name, self._keep)}
        for version in self._open[name].keys() - kept - self.routes.versions(name) - self._wishes_now().versions(name):
            self._drop(name, version)

    def _drop_model(self, name: str) -> None:
        self._champions.pop(name, None)
        self.routes.drop(name)
        for version in self.open_versions(name):
            self._drop(name, version)
        self._open.pop(name, None)

    def _drop(self, name: str, version: str) -> None:
        del self._open[name][version]
        self._metrics.forget(name, version)
