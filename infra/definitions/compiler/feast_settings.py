"""Feast's configuration of a repo, read for its project and registry."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import yaml
from feast.infra.offline_stores.offline_store import OfflineStore
from feast.repo_config import FeastConfigBaseModel, RepoConfig, load_repo_config
from pydantic import ValidationError

from skewless.infra.definitions.compiler.repo_modules import CONFIG

# The values that name Feast's store of files, which imports Dask and SciPy.
_FILE_STORE: tuple[object, ...] = ("dask", "file", {}, {"type": "dask"}, {"type": "file"})


class UnreadOfflineStoreConfig(FeastConfigBaseModel):
    """The configuration of ``UnreadOfflineStore``, which Feast finds by this name."""


class UnreadOfflineStore(OfflineStore):
    """A store that reads no rows: to register definitions, Feast asks only what each store takes from its base."""


def load_settings(repo: Path) -> RepoConfig:
    """Return Feast's configuration, but with ``UnreadOfflineStore`` for Feast's store of files.

    Raises:
        Exception: of the kinds and with the texts of Feast's ``load_repo_config``.
    """
    path = repo / CONFIG
    values = yaml.safe_load(os.path.expandvars(path.read_text()))
    if isinstance(values, dict) and values.get("offline_store", "dask") in _FILE_STORE:
        with suppress(ValidationError):
            config = RepoConfig(**values | {"offline_store": UnreadOfflineStoreConfig()})
            config.repo_path = repo
            return config
    return load_repo_config(repo, path)
