"""The models that a server serves; a version is swapped between two requests, and earlier champions stay loaded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path

from skewless.contract.errors import (
    ConflictError,
    PackageError,
    RequestError,
    SkewlessError,
    StoreError,
)
from skewless.infra.definitions.plans.needed_views import (
    CHAMPION,
    NeededViewsMonitor,
    StoredTargetVersions,
    TargetVersions,
    retained_champions,
)
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.models.packages.store import PackageStore, versions_of
from skewless.infra.models.runtimes.candidates import ScoringTarget
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.port import OnlineReader
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.loaded_models import (
    MODEL_FIELD,
    CurrentVersions,
    LoadedModels,
)
from skewless.serving.models.traffic_policies import TrafficPolicies
from skewless.serving.prediction.routing import Routing

_CURRENT = "aliases and traffic"
_log = EventLogger()


class ModelTable(LoadedModels):
    """Loads the champion of each model, earlier champions, the versions of traffic policies, and requested versions.

    Args:
        marker_history: receives the views that are read; None: losses of the store are not checked.
        keep: number of champions of each model that stay loaded, including the current one.
        scoring_target: where models may be scored in addition to their own library; None: only by their own library.
    """

    def __init__(
        self,
        *,
        repo: Path,
        state: ProjectState,
        store: PackageStore,
        online: OnlineReader,
        marker_history: MarkerHistory | None = None,
        metrics: Metrics | None = None,
        keep: int = 2,
        scoring_target: ScoringTarget | None = None,
    ) -> None:
        self._repo = repo
        self._packages = store.packages
        self._aliases = store.aliases
        self._keep = keep
        self._current: dict[str, CurrentVersions] = {}
        super().__init__(
            store=store,
            online=online,
            marker_history=marker_history or MarkerHistory(),
            needed=NeededViewsMonitor(state, store, keep),
            metrics=metrics or Metrics(),
            scoring_target=scoring_target,
        )
        self._stored_targets = StoredTargetVersions(state)
        self._targets = TargetVersions()
        self.policies = TrafficPolicies(store.traffic, self._metrics)
        self._lock = asyncio.Lock()

    def known_versions(self) -> dict[str, list[str]]:
        """Return all versions of each model that has one, oldest first; the database may be slow."""
        return {name: self._packages.list_versions(name) for name in self._packages.list_models()}

    def routing(self, name: str) -> Routing | None:
        """Return the routing of a model; None: its champion serves all requests."""
        return self.policies.get(name)

    async def load(self) -> None:
        """Load every champion and requested version that can be served; record why others cannot.

        If a champion cannot be served, the previous one serves, as in a server that was already running.

        Raises:
            PackageError: the project has no champion.
            SkewlessError: no champion can be served; the error is that of the first one.
            StoreError: the online store is unavailable.
        """
        targets = self._targets = await asyncio.to_thread(self._stored_targets.read)
        await self._read_current_versions(await asyncio.to_thread(self._packages.list_models))
        names = [name for name, current in self._current.items() if current.champions]
        if not names:
            fix = "declare a model in models.py, if there is none, and run `skewless train`"
            raise PackageError(f"project in {self._repo}", "has no champion to serve", fix=fix)
        names_to_load = [name for name in names if name not in targets.unloaded]
        errors = [error for name in names_to_load if (error := await self._serve_latest_champion(name)) is not None]
        if errors and not self._champions:
            raise errors[0]
        await self._open_requested(targets)
        await self._route_all()

    async def refresh(self) -> list[str]:
        """Swap champions whose alias moved, load and drop requested versions; return the swapped models.

        A version that fails to load is not served. Windowed views with a new generation are read from it from now on.
        While the database is unavailable, the last aliases and policies apply.
        """
        async with self._lock:
            targets, names = await self._read_targets(), list(self._current)
            try:
                names = await asyncio.to_thread(self._packages.list_models)
                await self._read_current_versions(names)
            except SkewlessError as error:
                self._rejected.add(_CURRENT, error)
            else:
                self._rejected.clear(_CURRENT)
            swapped = [name for name in names if await self._refresh_model(name, targets)]
            await self._open_requested(targets)
            await self._route_all()
            for model in (models := [model for versions in self._open_models.values() for model in versions.values()]):
                with contextlib.suppress(StoreError):  # requests report it
                    await self.refresh_windows(model)
                if model.policy is not None:
                    with contextlib.suppress(StoreError):  # the last lists apply
                        await asyncio.to_thread(model.read_lists)
            await self.check_losses(models)
            return swapped

    async def serve_version(self, name: str, version: str | None = None) -> ServedModel:
        """Serve a model that was unloaded, or one more version of a model; return the loaded version.

        Raises:
            RequestError: the model or version does not exist.
            PackageError, StalePlanError, StoreError: it cannot be loaded, or nothing updates its views. No change.
        """
        versions = await asyncio.to_thread(self.known_versions)
        if name not in versions:
            raise RequestError(MODEL_FIELD, "does not exist", value=name, fix=f"use one of: {', '.join(versions)}")
        async with self._lock:
            await self._read_current_versions([name])
            champion, known = self._current[name].champion, versions[name]
            target = champion if version is None else version.zfill(6)
            if target not in known:
                fix = f"use one of: {', '.join(known)}"
                raise RequestError(MODEL_FIELD, "has no such version", value=version or name, fix=fix)
            if version is None or champion == target:
                await self._set_champion(name, target)
            else:
                await self.check_views_fed(name, target)
                await self.open_version(name, target)
            self._targets = await asyncio.to_thread(self._stored_targets.load, name, version and target)
            if champion is not None and name not in self._champions:
                await self._set_champion(name, champion)
            return self._open_models[name][target]

    async def unload_model(self, name: str) -> None:
        """Stop serving a model; requests in progress are completed.

        Raises:
            RequestError: the model is not served.
        """
        self.get(name)
        async with self._lock:
            self._targets = await asyncio.to_thread(self._stored_targets.unload, name)
            self._drop_model(name)

    async def roll_back(self, name: str, *, reason: str, now_us: int) -> ServedModel:
        """End a running rollout, or else make the previous champion champion again; return the champion.

        Raises:
            RequestError: the model is not served.
            StalePlanError: nothing updates the views of the previous champion.
            ConflictError: the model has no previous champion, or another process moved the alias at the same time.
        """
        self.get(name)
        async with self._lock:
            moves = await asyncio.to_thread(self._aliases.history, name, CHAMPION)
            last = moves[-1]
            is_ended = await self.policies.end_policy(name, last.to, moves=last.number, reason=reason, now_us=now_us)
            await self._read_current_versions([name])
            if is_ended:
                return self._open_models[name][self._champions[name]]
            previous = next((move.to for move in reversed(moves) if move.to != last.to), None)
            if previous is None:
                fix = "train a new version"
                raise ConflictError(f"model {name!r}", "has no earlier champion", value=last.to, fix=fix)
            await self.check_views_fed(name, previous)
            await self.open_version(name, previous)
            # Only now: a version that cannot be loaded must not become champion.
            await asyncio.to_thread(
                self._aliases.move, name, CHAMPION, expect=last.to, to=previous, reason=reason, now_us=now_us
            )
            await self._read_current_versions([name])
            return await self._set_champion(name, previous)

    async def _read_current_versions(self, names: Iterable[str]) -> None:
        """Read the champions and policies of models in a thread, because the database may be slow."""
        self._current |= await asyncio.to_thread(lambda: {name: self._read_versions(name) for name in names})

    def _read_versions(self, name: str) -> CurrentVersions:
        """Return the current versions of a model; they are read again after a move, a new policy or an outage."""
        # Before the values: if they change during the read, the next call reads them again.
        moves = self._aliases.number(name, CHAMPION), self._store.traffic.number(name)
        numbers = *moves, self._store.state.database.outages()
        current = self._current.get(name)
        if current is not None and current.numbers == numbers:
            return current
        champions = tuple(retained_champions(self._store, name, self._keep))
        return CurrentVersions(champions, self._store.traffic.get(name), numbers)

    async def _refresh_model(self, name: str, targets: TargetVersions) -> bool:
        """Swap one model if its alias moved; return whether it was swapped."""
        current = self._current.get(name)
        version = None if name in targets.unloaded or current is None else current.champion
        try:
            if version is None:
                self._drop_model(name)
            if version is None or self._champions.get(name) == version:
                self._rejected.clear(name)
                return False
            if self._rejected.has_failed_recently(name, version):
                return False
            with self._rejected.record_failure(name, version):
                await self._set_champion(name, version)
        except SkewlessError as error:
            self._rejected.add(name, error)
            return False
        self._rejected.clear(name)
        _log.info("model_loaded", model=name, version=version)
        return True

    async def _read_targets(self) -> TargetVersions:
        """Return the target versions; while they cannot be read, those of the last read."""
        try:
            self._targets = await asyncio.to_thread(self._stored_targets.read)
        except (PackageError, StoreError) as error:
            self._rejected.add("target versions", error)
        else:
            self._rejected.clear("target versions")
        return self._targets

    async def _open_requested(self, targets: TargetVersions) -> None:
        for name in self._champions:
            for version in targets.versions(name) - self._open_models[name].keys():
                try:
                    if not self._rejected.has_failed_recently(name, version):
                        with self._rejected.record_failure(name, version):
                            await self.open_version(name, version)
                        self._rejected.clear(f"{name} {version}")
                except SkewlessError as error:
                    self._rejected.add(f"{name} {version}", error)

    async def _route_all(self) -> None:
        for name, champion in list(self._champions.items()):
            thing = f"{name} traffic"
            try:
                if await self._route(name, champion):
                    self._rejected.clear(thing)
            except SkewlessError as error:
                self._rejected.add(thing, error)
            self.policies.show_rejected(name, rejected=self._rejected.get(thing) is not None)

    async def _route(self, name: str, champion: str) -> bool:
        """Apply a new policy once all its versions are loaded; return whether no policy is left to apply."""
        previous = self.policies.versions(name)
        policy = self.policies.pending_policy(name, champion, self._current[name].policy)
        if policy is not None:
            needed = versions_of(policy)
            if any(self._rejected.has_failed_recently(name, version) for version in needed):
                return False
            models = {}
            for version in needed:
                with self._rejected.record_failure(name, version):
                    models[version] = await self.open_version(name, version)
            self.policies.apply_policy(name, policy, models)
        if self.policies.versions(name) != previous:
            self._drop_old(name)
        return True

    async def _serve_latest_champion(self, name: str) -> SkewlessError | None:
        """Serve the latest champion that can be served; return why the first choice cannot be, or None."""
        refusal: SkewlessError | None = None
        for version in self._current[name].champions:
            try:
                await self._set_champion(name, version)
            except SkewlessError as error:
                refusal = refusal or error
            else:
                break
        if refusal is not None:
            self._rejected.add(name, refusal)
        return refusal

    async def _set_champion(self, name: str, version: str) -> ServedModel:
        model = await self.open_version(name, version)
        self._champions[name] = version
        self.policies.drop_outdated(name, version)
        self._drop_old(name)
        return model

    def _drop_old(self, name: str) -> None:
        """Drop versions that are neither requested, nor needed by a policy, nor among the champions to retain."""
        retained = {self._champions[name], *self._current[name].champions}
        retained |= self.policies.versions(name) | self._targets.versions(name)
        for version in self._open_models[name].keys() - retained:
            self._drop(name, version)

    def _drop_model(self, name: str) -> None:
        self._champions.pop(name, None)
        self.policies.drop(name)
        for version in self.open_versions(name):
            self._drop(name, version)
        self._open_models.pop(name, None)
