"""Register the definitions in Feast's registry, so that Feast's tools see them."""

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
from feast.repo_config import RepoConfig

from skewless.contract.errors import DefinitionError, StoreError
from skewless.infra.definitions.compiler.feast_settings import load_settings


@contextmanager
def register_objects(repo: Path, objects: Sequence[Any]) -> Iterator[None]:
    """Apply Feast objects to the registry of a repo; an error here or in the block restores the registry.

    Feast overwrites a registry file directly, so a full disk would corrupt it. So Feast writes to a copy.

    Raises:
        DefinitionError: Feast rejects a definition.
        StoreError: the disk failed.
    """
    config = load_settings(repo)
    if not _is_file(config):
        _apply(repo, config, objects)
        yield
        return
    path = repo / config.registry.path
    with _restore_on_error(path):
        copy = path.with_name(f"{path.name}.new")
        try:
            if path.exists():
                shutil.copyfile(path, copy)
            config.registry.path = str(copy)
            _apply(repo, config, objects)
            # As private as its folder: Feast's tools may read a registry that is outside of the state folder.
            copy.chmod(copy.stat().st_mode & path.parent.stat().st_mode & 0o666)
            copy.replace(path)
        except OSError as error:
            raise _write_error(error) from error
        finally:
            copy.unlink(missing_ok=True)
        yield


def check_registration(repo: Path, objects: Sequence[Any]) -> None:
    """Apply Feast objects to a temporary copy of the registry; nothing else is changed.

    The copy of a registry that is not a file is empty.

    Raises:
        DefinitionError: Feast rejects a definition.
        StoreError: the disk failed.
    """
    config, scratch = load_settings(repo), load_settings(repo)
    # With these, Feast would also prepare the online store and notify other services.
    scratch.online_config = scratch.openlineage_config = scratch.mlflow_config = None
    with TemporaryDirectory(prefix="skewless-registry-") as folder:
        copy = Path(folder) / "registry.db"
        if _is_file(config) and (repo / config.registry.path).exists():
            shutil.copyfile(repo / config.registry.path, copy)
        scratch.registry_config = {"registry_type": "file", "path": str(copy)}
        _apply(repo, scratch, objects)


def registry_path(repo: Path) -> str:
    """Return the registry's file, relative to the repo."""
    return str(load_settings(repo).registry.path)


def _is_file(config: RepoConfig) -> bool:
    return config.registry.registry_type == "file" and "://" not in str(config.registry.path)


def _apply(repo: Path, config: RepoConfig, objects: Sequence[Any]) -> None:
    store = FeatureStore(repo_path=str(repo), config=config)
    try:
        with warnings.catch_warnings():
            # Feast warns that its computation of on-demand views does not scale; skewless uses its own.
            warnings.filterwarnings("ignore", message="On demand feature view is an experimental feature")
            # The same for stream feature views, which Feast builds again from the registry.
            warnings.filterwarnings("ignore", message="Stream feature views are experimental")
            store.apply(list(objects))
    except (OSError, sqlite3.Error) as error:
        raise _write_error(error) from error
    except Exception as error:
        raise DefinitionError(
            "Feast registry", f"rejects a definition: {error}", fix="correct the definition"
        ) from error


def _write_error(error: Exception) -> StoreError:
    return StoreError("Feast registry", f"cannot be written: {error}", fix="free disk space or rights, then run again")


@contextmanager
def _restore_on_error(path: Path) -> Iterator[None]:
    """Keep a hard link to the file within the block: restoring it needs no disk space."""
    backup = path.with_name(f"{path.name}.before")
    backup.unlink(missing_ok=True)
    if path.exists():
        os.link(path, backup)
    try:
        yield
    except BaseException:
        if backup.exists():
            backup.replace(path)
        else:
            path.unlink(missing_ok=True)
        raise
    finally:
        # Renaming one hard link to another link of the same file does nothing, so the backup may still exist.
        backup.unlink(missing_ok=True)
