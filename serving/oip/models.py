"""Models as the protocol shows them."""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

from skewless.infra.packages.served_model import ServedModel
from skewless.serving.oip.signature import Signature
from skewless.serving.oip.tally import VersionTally


class OipModel(NamedTuple):
    """One version: the tensors that it takes and gives, and what it has answered."""

    signature: Signature
    tally: VersionTally


class OipModels:
    """Makes each version's once, and forgets it with the version."""

    def __init__(self) -> None:
        self._models: WeakKeyDictionary[ServedModel, OipModel] = WeakKeyDictionary()

    def of(self, model: ServedModel) -> OipModel:
        """Return what the protocol shows of a version."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = OipModel(Signature(model), VersionTally())
        return found
