"""Names of models, versions, aliases and files of packages."""

from __future__ import annotations

import re
from pathlib import Path

from skewless.contract.errors import PackageError, RequestError
from skewless.contract.names import RULE, is_name

MANIFEST = "manifest.json"
_VERSION = re.compile(r"[0-9]{6,}")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_FILES = re.compile(r"\.(tar|t?gz|bz2|xz|zst|zip|7z|parquet|csv|jsonl?|onnx|wasm)", re.IGNORECASE)
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def check_model_name(name: str) -> str:
    """Return the name of a model; reject one that could leave its folder."""
    if not is_name(name):
        raise PackageError("model", "has an invalid name", value=name, fix=RULE)
    return name


def is_version(text: str) -> bool:
    """Return whether a text has the form of a version.

    >>> is_version("000001"), is_version("1")
    (True, False)
    """
    return _VERSION.fullmatch(text) is not None


def alias_name(model: str, alias: str) -> str:
    """Return the name of a model's alias in the database.

    >>> alias_name("late", "champion")
    'late/champion'
    """
    if not _ALIAS.fullmatch(alias):
        raise PackageError("alias", "has an invalid name", value=alias, fix="use small letters, digits, '-' and '_'")
    return f"{check_model_name(model)}/{alias}"


def check_folder_name(folder: Path) -> None:
    """Raise RequestError if the name of a new folder is that of an archive or a table."""
    if _FILES.fullmatch(folder.suffix) and not folder.is_dir():
        raise RequestError(f"folder {folder}", "has the name of a file", value=folder.suffix, fix="name a folder")


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


def package_label(model: str, version: str) -> str:
    """Return the name of a package in errors."""
    return f"package {model!r} version {version!r}"


def missing_file_error(package: str, name: str) -> PackageError:
    """Return the error for a package without one of its files."""
    return PackageError(package, "lacks a file", value=name, fix="restore the folder or use another version")
