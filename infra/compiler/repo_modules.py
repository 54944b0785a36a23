"""The modules of a repo: importable by their names within a block, and loaded again in the next block."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from skewless.infra.compiler.compile_inputs import importable_names


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
    names = {name.removesuffix(".py") for name in importable_names(folder)}
    loaded = dict(sys.modules)
    namespaces = {name: places for name, module in loaded.items() if (places := _folders(module))}
    names |= {name for name, places in namespaces.items() if places == [str(folder / name)]}
    names -= {"__main__", "skewless"}  # running
    return {name: module for name, module in loaded.items() if name.partition(".")[0] in names}


def _folders(module: ModuleType) -> list[str]:
    """Return the folders of a namespace package; empty: it is another kind of module."""
    return list(getattr(module, "__path__", ())) if getattr(module, "__file__", None) is None else []


def _unload(modules: dict[str, ModuleType]) -> None:
    for name in modules:
        sys.modules.pop(name, None)
