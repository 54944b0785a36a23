"""Feast's registry: the definitions are registered there as they are, so that Feast's tools see them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from feast import FeatureStore
from feast.repo_config import RepoConfig, load_repo_config

from skewless.contract.errors import DefinitionError, StoreError


@contextmanager
def registered(repo: Path, objects: Sequence[Any]) -> Iterator[None]:
    """Apply Feast objects to the registry of a repo; what fails then, here or in the block, leaves it as it was.

    Feast writes a registry file in its place, where a full disk tears it. So it is given a copy to write.

    Raises:
        DefinitionError: Feast refuses a definition.
        StoreError: the disk refused.
    """
    config = _config(repo)
    if not _is_file(config):
        _apply(repo, config, objects)
        yield
        return
    path = repo / config.registry.path
    with _put_back_on_error(path):
        copy = path.with_name(f"{path.name}.new")
        try:
            if path.exists():
                shutil.copyfile(path, copy)
            config.registry.path = str(copy)
            _apply(repo, config, objects)
            copy.replace(path)
        except OSError as error:
            raise _refused(error) from error
        finally:
            copy.unlink(missing_ok=True)
        yield


def check_registration(repo: Path, objects: Sequence[Any]) -> None:
    """Make the call that ``registered`` makes, on a copy of the registry that is thrown away.

    A registry that is not a file is stood in for by an empty one, and no store is touched.

    Raises:
        DefinitionError: Feast refuses a definition.
        StoreError: the disk refused.
    """
    config, scratch = _config(repo), _config(repo)
    scratch.online_config = scratch.openlineage_config = scratch.mlflow_config = None
    with TemporaryDirectory(prefix="skewless-registry-") as folder:
        copy = Path(folder) / "registry.db"
        if _is_file(config) and (repo / config.registry.path).exists():
            shutil.copyfile(repo / config.registry.path, copy)
        scratch.registry_config = {"registry_type": "file", "path": str(copy)}
        _apply(repo, scratch, objects)


def registry_path(repo: Path) -> str:
    """Return the registry's file, relative to the repo."""
    return str(_config(repo).registry.path)


def _config(repo: Path) -> RepoConfig:
    return load_repo_config(repo, repo / "feature_store.yaml")


def _is_file(config: RepoConfig) -> bool:
    return config.registry.registry_type == "file" and "://" not in str(config.registry.path)


def _apply(repo: Path, config: RepoConfig, objects: Sequence[Any]) -> None:
    store = FeatureStore(repo_path=str(repo), config=config)
    try:
        with warnings.catch_warnings():
            # Feast warns that its own way of computing on-demand views does not scale; ours is used.
            warnings.filterwarnings("ignore", message="On demand feature view is an experimental feature")
            # And so for stream feature views, which it makes again from what the registry holds.
            warnings.filterwarnings("ignore", message="Stream feature views are experimental")
            store.apply(list(objects))
    except (OSError, sqlite3.Error) as error:
        raise _refused(error) from error
    except Exception as error:
        raise DefinitionError("Feast registry", f"refuses: {error}", fix="correct the definition") from error


def _refused(error: Exception) -> StoreError:
    return StoreError("Feast registry", f"cannot be written: {error}", fix="free disk space or rights, then run again")


@contextmanager
def _put_back_on_error(path: Path) -> Iterator[None]:
    """Keep the file under a second name meanwhile: putting it back needs no space."""
    kept = path.with_name(f"{path.name}.before")
    kept.unlink(missing_ok=True)
    if path.exists():
        os.link(path, kept)
    try:
        yield
    except BaseException:
        if kept.exists():
            kept.replace(path)
        else:
            path.unlink(missing_ok=True)
        raise
    finally:
        # Two names of one file: replacing one by the other does nothing, and leaves both.
        kept.unlink(missing_ok=True)
