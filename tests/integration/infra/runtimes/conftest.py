"""Models of every kind, each in our runtime."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.worlds.model_cases import MAKERS, ModelCase

# What is peculiar to these, other models have, too: the link, codes of categories, or lists of them.
_ALIKE = {
    *(f"lightgbm {kind}" for kind in ("binary", "categorical", "ranking")),
    *(f"xgboost {kind}" for kind in ("binary", "categorical", "regression")),
}


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=[pytest.mark.soak] * (name in _ALIKE)) for name in sorted(MAKERS)],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelCase]:
    made = MAKERS[request.param](tmp_path_factory.mktemp("model"))
    yield made
    made.runtime.close()
