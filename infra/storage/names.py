"""Names of models, versions and aliases, and the folders of versions."""

from __future__ import annotations

import re
from pathlib import Path

from skewless.contract.errors import PackageError
from skewless.contract.names import RULE, is_name

_VERSION = re.compile(r"[0-9]{6,}")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def check_model_name(name: str) -> str:
    """Return the name of a model; reject one that could leave its folder."""
    if not is_name(name):
        raise PackageError("model", "has an invalid name", value=name, fix=RULE)
    return name


def model_folder(root: Path, name: str) -> Path:
    """Return the folder of a model's versions."""
    return root / check_model_name(name)


def list_models(root: Path) -> list[str]:
    """Return the models that have a folder, sorted; ignores folders whose name is not a valid model name."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if is_name(path.name) and path.is_dir())


def version_folder(root: Path, name: str, version: str) -> Path:
    """Return the folder of one version.

    Raises:
        PackageError: the version does not exist.
    """
    folder = model_folder(root, name) / version
    if not _VERSION.fullmatch(version) or not folder.is_dir():
        raise PackageError(
            f"model {name!r}", "has no such version", value=version, fix=f"use one of {list_versions(root, name)}"
        )
    return folder


def alias_name(model: str, alias: str) -> str:
    """Return the name of a model's alias in the database.

    >>> alias_name("late", "champion")
    'late/champion'
    """
    if not _ALIAS.fullmatch(alias):
        raise PackageError("alias", "has an invalid name", value=alias, fix="use small letters, digits, '-' and '_'")
    return f"{check_model_name(model)}/{alias}"


def list_versions(root: Path, name: str) -> list[str]:
    """Return the versions of a model, oldest first; empty if it was never packaged."""
    folder = model_folder(root, name)
    if not folder.is_dir():
        return []
    return sorted((path.name for path in folder.iterdir() if _VERSION.fullmatch(path.name)), key=int)


def number(value: int) -> str:
    """Return a version or sequence number as a sortable name.

    >>> number(7)
    '000007'
    """
    return f"{value:06d}"


def check_file_name(name: str) -> str:
    """Return a plain file name; reject one that could leave its folder or be hidden."""
    if not _FILE.fullmatch(name):
        raise PackageError(
            "package file", "is not a plain file name", value=name, fix="use letters, digits, '.', '-', '_'"
        )
    return name
