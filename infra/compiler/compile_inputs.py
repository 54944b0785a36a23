"""A compiled repo, and the inputs of its compilation: while they are as they were, the plan is, too."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skewless.contract.columns import digest
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec

# Variables that Python, Feast and the C library read on their own.
_ALWAYS = ("FEAST_", "LANG", "LC_", "PYTHON", "TZ")
_PACKAGES = frozenset({"dist-packages", "site-packages"})
_METADATA = (".dist-info", ".egg-info", ".egg-link", ".pth")
Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class CompileInputs:
    """Everything that a compilation read, apart from the tables behind its sources.

    Args:
        repo: folder of the definitions, absolute.
        interpreter: identity of Python and of the installed packages.
        files: SHA-256 by path of the modules of the definitions and of the files that they opened; empty: no file.
        modules: names of what can be imported, by folder of such a module.
        libraries: size, times of change and inode by path of each library module that was loaded.
        origins: file of each library that the definitions import, by top-level name.
        variables: environment variables that were read; None: any.
        environment: SHA-256 of their values.
        folder: the working folder, where paths may depend on it.
    """

    repo: str
    interpreter: str
    files: Mapping[str, str]
    modules: Mapping[str, list[str]]
    libraries: Mapping[str, Stamp]
    origins: Mapping[str, str]
    variables: tuple[str, ...] | None
    environment: str
    folder: str | None

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> CompileInputs:
        """Return inputs from plain values.

        Raises:
            ValueError, KeyError, TypeError: these are not the values of such inputs.
        """
        names = body["variables"]
        plain = dict(body) | {"variables": None if names is None else tuple(names)}
        return cls(**plain | {"libraries": {path: tuple(stamp) for path, stamp in body["libraries"].items()}})

    def difference(self, repo: Path) -> str | None:
        """Return the first input that is no longer as it was, for logs; None: all are.

        Args:
            repo: folder of the definitions, absolute.
        """
        return next(self._differences(str(repo)), None)

    def _differences(self, repo: str) -> Iterator[str]:
        if repo != self.repo or self.folder not in {None, os.getcwd()}:  # noqa: PTH109 - a text, as recorded
            yield "folder"
        if self.interpreter != read_interpreter():
            yield "installed packages"
        if self.environment != digest_environment(self.variables):
            yield "environment"
        yield from (path for path, sha256 in self.files.items() if sha256_of(path) != sha256)
        yield from (folder for folder, names in self.modules.items() if importable_names(Path(folder)) != names)
        yield from (name for name, origin in self.origins.items() if find_origin(name) != origin)
        yield from (path for path, stamp in self.libraries.items() if read_stamp(path) != stamp)


def read_interpreter() -> str:
    """Return the identity of Python, its options and the installed packages."""
    folders = sorted({path for path in sys.path if Path(path).name in _PACKAGES and Path(path).is_dir()})
    # The name of a metadata folder has the version, so each installation or removal changes the list.
    packages = {path: sorted(name for name in os.listdir(path) if name.endswith(_METADATA)) for path in folders}  # noqa: PTH208 - names alone
    return digest([sys.version, sys.prefix, list(sys.flags), packages])


def digest_environment(variables: Iterable[str] | None) -> str:
    """Return the SHA-256 of the values of variables, and of those of Python and Feast; None: of all."""
    names = set(os.environ) if variables is None else {*variables}
    names |= {name for name in os.environ if name.startswith(_ALWAYS)}
    values = {name: os.environ.get(name) for name in sorted(names)}
    return hashlib.sha256(repr(values).encode("utf-8", "surrogateescape")).hexdigest()


def sha256_of(path: str) -> str:
    """Return the SHA-256 of a file in hex; empty: the file is missing or cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def read_stamp(path: str) -> Stamp | None:
    """Return what changes when somebody writes or replaces a file, even with its old size and time; None: no file."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - some thousand files: a Path of each takes longer
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def importable_names(folder: Path) -> list[str]:
    """Return the entries of a folder that can be imported: Python files, compiled ones, and packages; sorted."""
    suffixes = tuple(importlib.machinery.all_suffixes())
    try:
        entries = list(folder.iterdir())
    except OSError:
        return []
    return sorted(entry.name for entry in entries if entry.name.endswith(suffixes) or any(entry.glob("__init__.*")))


def find_origin(name: str) -> str:
    """Return the file of a top-level module; empty: there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return ""
    return "" if spec is None else spec.origin or ""


@dataclass(frozen=True, kw_only=True)
class CompiledRepo:
    """The declarations of a repo: the plan, the models, and the Feast objects to register.

    Args:
        inputs: files, variables and libraries that they depend on; None: these cannot be known.
        files: of the repo that were loaded or opened, relative to the repo.
    """

    plan: FeaturePlan
    models: tuple[ModelSpec, ...]
    feast_objects: tuple[Any, ...]
    inputs: CompileInputs | None = None
    files: tuple[str, ...] = ()
