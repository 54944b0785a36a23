"""Loads a user's definition modules by path, as Feast does, and leaves no trace in ``sys.modules``."""

from __future__ import annotations

import importlib
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from skewless.contract.errors import DefinitionError, SkewlessError

DEFINITIONS = "definitions"
MODELS = "models"


@contextmanager
def repo_modules(repo: Path) -> Iterator[None]:
    """Make the repo's modules importable by their bare names for a while."""
    own = {path.stem for path in repo.glob("*.py")}
    hidden = {name: sys.modules.pop(name) for name in own & sys.modules.keys()}
    bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(repo))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(repo))
        sys.dont_write_bytecode = bytecode
        for name in own:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


def load_module(repo: Path, name: str) -> ModuleType:
    """Return a module of the repo; call inside ``repo_modules``.

    Raises:
        DefinitionError: there is no such file, or running it failed; names the file and line.
    """
    path = repo / f"{name}.py"
    if not path.exists():
        raise DefinitionError(
            f"file {path}", "does not exist", fix="pass --repo DIR, or start with `skewless init DIR`"
        )
    try:
        with warnings.catch_warnings():
            # Feast warns that what it computes for stream feature views is experimental; windows are ours.
            warnings.filterwarnings("ignore", message="Stream feature views are experimental")
            return importlib.import_module(name)
    except SkewlessError:
        raise
    except Exception as error:
        raise DefinitionError(
            f"file {_where(error, repo) or path}",
            str(error) or type(error).__name__,
            fix="correct the definition there",
        ) from error


def _where(error: BaseException, repo: Path) -> str | None:
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(repo))]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None
