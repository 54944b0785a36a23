"""Feast's registry: the definitions are registered there as they are, so that Feast's tools see them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feast import FeatureStore
from feast.repo_config import load_repo_config

from skewless.errors import DefinitionError


def register(repo: Path, objects: Sequence[Any]) -> None:
    """Apply Feast objects to the registry of a repo.

    Raises:
        DefinitionError: Feast refuses a definition.
    """
    store = FeatureStore(repo_path=str(repo))
    try:
        with warnings.catch_warnings():
            # Feast warns that its own way of computing on-demand views does not scale; ours is used.
            warnings.filterwarnings("ignore", message="On demand feature view is an experimental feature")
            store.apply(list(objects))
    except Exception as error:
        raise DefinitionError("Feast registry", f"refuses: {error}", fix="correct the definition") from error


def registry_path(repo: Path) -> str:
    """Return the registry's file, relative to the repo."""
    config = load_repo_config(repo, repo / "feature_store.yaml")
    return str(config.registry if isinstance(config.registry, str) else config.registry.path)
