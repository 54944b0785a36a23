"""The model versions that decide events: each model's champion and its traffic policy, loaded again after a change."""

from __future__ import annotations

import time
from typing import NamedTuple

from skewless.contract.errors import SkewlessError, StalePlanError
from skewless.infra.definitions.plans.needed_views import CHAMPION
from skewless.infra.models.packages.served_model import ServedModel, load_model
from skewless.infra.models.packages.store import PackageStore, versions_of
from skewless.infra.models.rollout.counts import PolicyCounts
from skewless.infra.models.runtimes.candidates import ScoringTarget
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.online.port import BlockingOnlineReader
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.routing import Routing

_REFRESH_S = 1.0
_log = EventLogger()


class DecidingModel(NamedTuple):
    """The versions of one model that decide events.

    Args:
        champion: the loaded champion.
        routing: distributes entities over versions; None: the champion decides all.
    """

    champion: ServedModel
    routing: Routing | None
    versions: dict[str, ServedModel]


class DecidingModels:
    """Loads the versions that decide; used from one thread.

    Args:
        store: the packages of the project.
        reader: of the online store, for the generations of states; None: it is unavailable.
        target: where models may be scored in addition to their own library.
    """

    def __init__(
        self, store: PackageStore, reader: BlockingOnlineReader, metrics: Metrics, target: ScoringTarget | None
    ) -> None:
        self._store, self._reader, self._metrics, self._target = store, reader, metrics, target
        self._models: dict[str, DecidingModel] = {}
        self._numbers: dict[str, tuple[object, object]] = {}
        self._problems: dict[str, str] = {}
        self._refresh_at: dict[str, float] = {}

    def get(self, name: str) -> DecidingModel:
        """Return the versions of a model as they are now, or were within the last second.

        Raises:
            StalePlanError: the model has no champion yet.
            PackageError: the champion cannot be loaded, and none was loaded before.
            StoreError: the database or the storage is unavailable, and no version was loaded before.
        """
        if time.monotonic() >= self._refresh_at.get(name, 0.0):
            try:
                self._refresh(name)
            except SkewlessError as error:
                if name not in self._models:
                    raise
                if self._problems.get(name) != str(error):
                    _log.warning("model_not_reloaded", model=name, error=str(error))
                self._problems[name] = str(error)
            self._refresh_at[name] = time.monotonic() + _REFRESH_S
        return self._models[name]

    def read_counts(self, at_us: int) -> dict[str, PolicyCounts]:
        """Return the counts under the applied traffic policies, by model, for the guardrails of rollouts."""
        models = list(self._models.items())
        return {name: model.routing.read_counts(at_us) for name, model in models if model.routing is not None}

    def close(self) -> None:
        """Forget all versions; their runtimes are closed with their last use."""
        self._models.clear()

    def _refresh(self, name: str) -> None:
        numbers = self._store.aliases.number(name, CHAMPION), self._store.traffic.number(name)
        if self._numbers.get(name) != numbers:
            self._models[name] = self._load(name)
            self._numbers[name] = numbers
        # The lists and the pointers of all versions, so that new ones are read soon.
        for model in self._models[name].versions.values():
            model.read_lists()
            if model.plan.windows:
                model.windows.load_generations(self._reader.get(model.windows.pointers))
        self._problems.pop(name, None)

    def _load(self, name: str) -> DecidingModel:
        champion = self._store.aliases.get(name, CHAMPION)
        if champion is None:
            raise StalePlanError(f"model {name!r}", "has no champion", fix="run `skewless train`")
        policy = self._store.traffic.get(name)
        if policy is None or policy.champion != champion or (policy.phase == "champion" and not policy.shadows):
            policy = None
        old = self._models[name].versions if name in self._models else {}
        needed = {champion, *(versions_of(policy) if policy else ())}
        versions = {
            version: old.get(version) or load_model(self._store, name, version, self._target) for version in needed
        }
        routing = None if policy is None else Routing(policy, versions, self._metrics)
        return DecidingModel(versions[champion], routing, versions)
