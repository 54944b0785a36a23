"""The loaded models of a server, and which of their versions are champions."""

from __future__ import annotations

from collections.abc import Collection

from skewless.contract.errors import RequestError, StalePlanError
from skewless.infra.packages.served_model import ServedModel
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.loader import ModelLoader
from skewless.serving.models.rejected_models import RejectedModels

MODEL_FIELD = "field 'model'"


class LoadedModels:
    """Holds the loaded versions of each model. A version stays loaded until it is dropped and its last request is done.

    Args:
        loader: loads versions.
        metrics: shows the loaded versions.
    """

    def __init__(self, loader: ModelLoader, metrics: Metrics) -> None:
        self._loader = loader
        self._metrics = metrics
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

    async def _open_version(self, name: str, version: str) -> ServedModel:
        model = self._open_models.get(name, {}).get(version)
        if model is None:
            model = await self._loader.open(name, version)
            self._open_models.setdefault(name, {})[version] = model
            self._metrics.show_model(name, version, model.certificate, model.trials, model.runtime)
        return model

    def _drop(self, name: str, version: str) -> None:
        del self._open_models[name][version]
        self._metrics.forget(name, version)
