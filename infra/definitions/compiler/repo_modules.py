"""The modules of a repo, which each compilation loads again."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

CONFIG = "feature_store.yaml"


@contextmanager
def repo_modules(repo: Path) -> Iterator[None]:
    """Make the repo's modules and packages importable by their names within the block."""
    # Modules of these names may be loaded from elsewhere, or from older files: hide them within the block.
    hidden = find_repo_modules(repo)
    _unload(hidden)
    bytecode = sys.dont_write_bytecode
    # Bytecode files would appear in the user's repo.
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(repo))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(repo))
        sys.dont_write_bytecode = bytecode
        _unload(find_repo_modules(repo))
        sys.modules.update(hidden)


def find_repo_modules(repo: Path) -> dict[str, ModuleType]:
    """Return the loaded modules, by name, that have the name of a module of the repo, submodules of its packages too.

    A folder without ``__init__.py`` counts as a package if its modules come from the repo alone.
    """
    folder = repo.absolute()
    names = {name.removesuffix(".py") for name in _importable_names(folder)}
    loaded = dict(sys.modules)
    top = {name: module for name, module in loaded.items() if "." not in name}
    names |= {name for name, module in top.items() if (found := _folders(module)) and found == [str(folder / name)]}
    names -= {"__main__", "skewless"}  # running
    packages = tuple(f"{name}." for name in names)
    return {name: module for name, module in loaded.items() if name in names or name.startswith(packages)}


def list_repo_files(repo: Path) -> tuple[str, ...]:
    """Return the files of the loaded modules of the repo, relative to it; sorted. Call inside ``repo_modules``."""
    folder = repo.absolute()
    paths = {Path(path) for module in find_repo_modules(repo).values() if (path := getattr(module, "__file__", None))}
    return tuple(sorted(str(path.relative_to(folder)) for path in paths if path.is_relative_to(folder)))


def _importable_names(folder: Path) -> list[str]:
    """Return the entries of a folder that can be imported: Python files, compiled ones, and packages; sorted."""
    suffixes = tuple(importlib.machinery.all_suffixes())
    try:
        entries = list(folder.iterdir())
    except OSError:
        return []
    return sorted(entry.name for entry in entries if entry.name.endswith(suffixes) or any(entry.glob("__init__.*")))


def _folders(module: ModuleType) -> list[str]:
    """Return the folders of a namespace package; empty: it is another kind of module."""
    return list(getattr(module, "__path__", ())) if getattr(module, "__file__", None) is None else []


def _unload(modules: dict[str, ModuleType]) -> None:
    for name in modules:
        sys.modules.pop(name, None)
