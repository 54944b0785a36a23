"""The models that a server answers with; a version is swapped in between two requests, the old one stays at hand."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from infra.online.port import OnlineReader
from infra.packages.aliases import Aliases
from infra.packages.names import list_versions
from infra.runtimes.candidates import Place
from infra.served_model import ServedModel
from infra.traffic import versions_of
from serving.metrics.metrics import Metrics
from serving.models.loader import ModelLoader
from serving.models.routes import Routes
from serving.models.wanted import FILE, Wanted, WantedFile
from serving.prediction.routing import Routing
from skewless.errors import ConflictError, PackageError, RequestError, SkewlessError, StoreError

CHAMPION = "champion"
MODEL_FIELD = "field 'model'"
_RETRY_SECONDS = 5.0
_log = structlog.get_logger()


class ModelTable:
    """Holds the champion of each model, the champions before it, what its traffic policy needs, and what was asked for.

    A version stays open until it is dropped and the last request let go of it.

    Args:
        keep: champions of each model that stay open, the present one among them.
        place: where models may be scored besides; None: by their own library alone.
    """

    def __init__(
        self,
        *,
        repo: Path,
        state: Path,
        online: OnlineReader,
        metrics: Metrics | None = None,
        keep: int = 2,
        place: Place | None = None,
    ) -> None:
        self._repo = repo
        self._packages = state / "packages"
        self._aliases = Aliases(self._packages)
        self._loader = ModelLoader(repo=repo, state=state, online=online, place=place)
        self._wanted = WantedFile(state)
        self._wishes = Wanted()
        self._metrics = metrics or Metrics()
        self._keep = keep
        self.routes = Routes(self._packages, self._metrics)
        self._champions: dict[str, str] = {}
        self._open: dict[str, dict[str, ServedModel]] = {}
        self._refused: dict[str, str] = {}
        self._failed: dict[tuple[str, str], float] = {}
        self._changing = asyncio.Lock()

    @property
    def problems(self) -> dict[str, str]:
        """Return why newer versions are not served, by model."""
        return dict(self._refused)

    def all(self) -> list[ServedModel]:
        """Return the champions being served."""
        return [self._open[name][version] for name, version in self._champions.items()]

    def names(self) -> list[str]:
        """Return the models that have a version, served or not, sorted."""
        if not self._packages.is_dir():
            return []
        return sorted(path.name for path in self._packages.iterdir() if path.is_dir())

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
        if name is None or champion is None:
            known = ", ".join(sorted(self._champions))
            fix = f"use one of: {known}" if known else "load one: none is served now"
            raise RequestError(MODEL_FIELD, "names no model that is served", value=name, fix=fix)
        if version is None:
            return self._open[name][champion]
        model = self._open[name].get(version.zfill(len(champion)))
        if model is None:
            known = ", ".join(self.open_versions(name))
            raise RequestError(
                MODEL_FIELD, f"{name!r} has no such version open", value=version, fix=f"load it, or use one of: {known}"
            )
        return model

    def routing(self, name: str) -> Routing | None:
        """Return how the requests to a model are shared out; None: its champion answers all."""
        return self.routes.get(name)

    async def load(self) -> None:
        """Open every champion, and what is wanted besides.

        Raises:
            PackageError: there is none, or one cannot be opened.
            StalePlanError: one was trained under another plan, or its views are not filled.
        """
        wanted = self._wishes = self._wanted.read()
        found = {name: self._aliases.get(name, CHAMPION) for name in self.names()}
        champions = {name: version for name, version in found.items() if version is not None}
        if not champions:
            raise PackageError(
                f"project in {self._repo}",
                "has no champion to serve",
                fix="run `skewless train`, which promotes the first version",
            )
        for name, version in champions.items():
            if name not in wanted.unloaded:
                await self._crown(name, version)
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
            for model in (model for versions in self._open.values() for model in versions.values()):
                with contextlib.suppress(StoreError):  # requests say so themselves
                    await self._loader.look(model)
            return swapped

    async def want(self, name: str, version: str | None = None) -> ServedModel:
        """Serve a model that was unloaded, or one more version of it; return what was asked for, open.

        Raises:
            RequestError: there is no such model or version.
            PackageError, StalePlanError, StoreError: it cannot be opened; nothing has changed.
        """
        if name not in self.names():
            raise RequestError(
                MODEL_FIELD, "names no model that exists", value=name, fix=f"use one of: {', '.join(self.names())}"
            )
        known = self.known_versions(name)
        target = self._aliases.get(name, CHAMPION) if version is None else version.zfill(6)
        if target not in known:
            raise RequestError(
                MODEL_FIELD,
                "names no version that exists",
                value=version or name,
                fix=f"use one of: {', '.join(known)}",
            )
        async with self._changing:
            champion = self._aliases.get(name, CHAMPION)
            if version is None or champion == target:
                await self._crown(name, target)
            else:
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
            ConflictError: there was none before it, or somebody moved the alias at the same time.
        """
        self.get(name)
        moves = self._aliases.backwards(name, CHAMPION)
        last = next(moves)
        holder = last.to
        if self.routes.end(name, holder, moves=last.number, reason=reason, now_us=now_us):
            return self._open[name][self._champions[name]]
        before = next((move.to for move in moves if move.to != holder), None)
        if before is None:
            raise ConflictError(
                f"model {name!r}", "never had another champion", value=holder, fix="train a new version"
            )
        async with self._changing:
            await self._opened(name, before)
            self._aliases.move(name, CHAMPION, expect=holder, to=before, reason=reason, now_us=now_us)
            return await self._crown(name, before)

    async def _refreshed(self, name: str, wanted: Wanted) -> bool:
        """Swap one model if its alias moved; return whether it did."""
        try:
            version = None if name in wanted.unloaded else self._aliases.get(name, CHAMPION)
            if version is None:
                self._drop_model(name)
            if version is None or self._champions.get(name) == version:
                self._refused.pop(name, None)
                return False
            if self._waits(name, version):
                return False
            with self._remembered(name, version):
                await self._crown(name, version)
        except SkewlessError as error:
            self._note(name, error)
            return False
        self._refused.pop(name, None)
        _log.info("model_loaded", model=name, version=version)
        return True

    def _wishes_now(self) -> Wanted:
        """Return what is wanted; while the file is damaged, what was wanted before."""
        try:
            self._wishes = self._wanted.read()
        except PackageError as error:
            self._note(FILE, error)
        else:
            self._refused.pop(FILE, None)
        return self._wishes

    async def _open_pinned(self, wanted: Wanted) -> None:
        for name in self._champions:
            for version in wanted.versions(name) - self._open[name].keys():
                try:
                    if not self._waits(name, version):
                        with self._remembered(name, version):
                            await self._opened(name, version)
                        self._refused.pop(f"{name} {version}", None)
                except SkewlessError as error:
                    self._note(f"{name} {version}", error)

    async def _route_all(self) -> None:
        for name, champion in list(self._champions.items()):
            thing = f"{name} traffic"
            try:
                if await self._route(name, champion):
                    self._refused.pop(thing, None)
            except SkewlessError as error:
                self._note(thing, error)
            self.routes.refused(name, refused=thing in self._refused)

    async def _route(self, name: str, champion: str) -> bool:
        """Put a new policy in force, once all that it needs is open; return whether none is left to be."""
        before = self.routes.versions(name)
        policy = self.routes.due(name, champion)
        if policy is not None:
            needed = versions_of(policy)
            if any(self._waits(name, version) for version in needed):
                return False
            models = {}
            for version in needed:
                with self._remembered(name, version):
                    models[version] = await self._opened(name, version)
            self.routes.enforce(name, policy, models)
        if self.routes.versions(name) != before:
            self._drop_old(name)
        return True

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
            self._metrics.loaded(name, version, model.certificate, model.tried, model.runtime)
        return model

    def _drop_old(self, name: str) -> None:
        """Close what is neither pinned, nor needed by a policy, nor among the champions to be kept."""
        champions = {self._champions[name]}
        for move in self._aliases.backwards(name, CHAMPION):
            if len(champions) == self._keep:
                break
            champions.add(move.to)
        for version in (
            self._open[name].keys() - champions - self.routes.versions(name) - self._wishes_now().versions(name)
        ):
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

    def _waits(self, name: str, version: str) -> bool:
        """Say whether a version was refused a moment ago; opening it takes long enough to hurt others."""
        since = time.monotonic() - _RETRY_SECONDS
        self._failed = {key: at for key, at in self._failed.items() if at > since}
        return (name, version) in self._failed

    @contextlib.contextmanager
    def _remembered(self, name: str, version: str) -> Iterator[None]:
        """Remember when a version was refused."""
        try:
            yield
        except SkewlessError:
            self._failed[name, version] = time.monotonic()
            raise

    def _note(self, thing: str, error: SkewlessError) -> None:
        if self._refused.get(thing) != str(error):
            _log.error("model_refused", model=thing, error=str(error))
        self._refused[thing] = str(error)
