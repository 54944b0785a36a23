"""The folders and settings of a Feast project."""

from __future__ import annotations

from pathlib import Path

from feast.repo_config import RepoConfig

from skewless.contract.settings import Settings, load_settings
from skewless.infra.storage.project_state import ProjectState


def repo_of(config: RepoConfig) -> Path:
    """Return the folder of a project's ``feature_store.yaml``; without one, the working folder."""
    return Path(config.repo_path or Path.cwd()).resolve()


def settings_of(config: RepoConfig) -> Settings:
    """Return the project's settings; ``redis_url`` and ``state`` of the online store's configuration take precedence.

    Raises:
        DefinitionError: a setting is unknown or has a wrong value.
    """
    settings = {name: getattr(config.online_store, name, None) for name in ("redis_url", "state")}
    return load_settings(repo_of(config), **{name: value for name, value in settings.items() if value is not None})


def state_of(config: RepoConfig) -> ProjectState:
    """Return the project's state."""
    return ProjectState.of(repo_of(config), settings_of(config))
