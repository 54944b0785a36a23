"""Loads the modules of a repo, and records the inputs of a compilation while it runs."""

from __future__ import annotations

import importlib
import os
import site
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType

from skewless.infra.compiler.compile_inputs import (
    CompileInputs,
    DefinitionCode,
    Stamp,
    absolute_names,
    digest_environment,
    find_origin,
    importable_names,
    is_understood,
    read_code,
    read_interpreter,
    read_stamp,
    sha256_of,
)
from skewless.infra.host.process_start import started_ns

CONFIG = "feature_store.yaml"
_BYTECODE = (".pyc", "__pycache__")
_SYSTEM = ("/dev/", "/proc/", "/sys/")
_WRITES = frozenset("wax+")
# Clocks of file systems tick this seldom: a file that changes later within a tick keeps its time.
_TICK_NS, _COARSE_TICK_NS = 20_000_000, 2_000_000_000
_MILLISECOND_NS = 1_000_000


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
    top = {name: module for name, module in loaded.items() if "." not in name}
    names |= {name for name, module in top.items() if (found := _folders(module)) and found == [str(folder / name)]}
    names -= {"__main__", "skewless"}  # running
    packages = tuple(f"{name}." for name in names)
    return {name: module for name, module in loaded.items() if name in names or name.startswith(packages)}


def _folders(module: ModuleType) -> list[str]:
    """Return the folders of a namespace package; empty: it is another kind of module."""
    return list(getattr(module, "__path__", ())) if getattr(module, "__file__", None) is None else []


def _unload(modules: dict[str, ModuleType]) -> None:
    for name in modules:
        sys.modules.pop(name, None)


class UnknownInputError(Exception):
    """An input of a compilation cannot be known; the text says which, and why."""


@dataclass(kw_only=True)
class InputRecorder:
    """Sees which files a compilation opens, and reads from the code of the definitions what else it depends on.

    Args:
        repo: folder of the definitions, absolute.
        reloaded: files of the repo's modules, which each compilation loads again.
    """

    repo: Path
    begun_ns: int = field(default_factory=time.time_ns)
    opened: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    code: dict[str, DefinitionCode] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    reloaded: set[str] = field(default_factory=set)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Collect the files that this thread opens meanwhile."""
        watched = _watched()
        thread = threading.get_ident()
        watched[thread] = self
        try:
            yield
        finally:
            watched.pop(thread, None)

    def read_inputs(self, entries: tuple[str, ...]) -> CompileInputs | None:
        """Return the inputs, while the modules of the definitions are loaded; None: these cannot be known.

        Args:
            entries: names of the modules that the compiler loads.
        """
        files = [getattr(module, "__file__", None) for module in find_repo_modules(self.repo).values()]
        self.reloaded = {path for path in files if path is not None}
        try:
            for name in entries:
                if name in sys.modules:
                    self._read(name, sys.modules[name])
            return self._inputs()
        except UnknownInputError:
            return None

    def repo_files(self) -> tuple[str, ...]:
        """Return the files of the repo that the compilation loaded or opened, relative to the repo; sorted."""
        paths = {Path(path) for path in self.reloaded | self.opened}
        return tuple(sorted(str(path.relative_to(self.repo)) for path in paths if path.is_relative_to(self.repo)))

    def _read(self, name: str, module: ModuleType) -> None:
        path = getattr(module, "__file__", None)
        if path is None or path in self.code:
            return
        if not path.endswith(".py"):
            raise UnknownInputError(f"{path} is not Python source")
        code = self.code[path] = read_code(Path(path).read_text(encoding="utf-8"))
        if code.unknown:
            raise UnknownInputError(f"{path} {code.unknown}")
        package = name if Path(path).name == "__init__.py" else name.rpartition(".")[0]
        for full in absolute_names(code, package):
            self._follow(path, full)

    def _follow(self, path: str, full: str) -> None:
        """Read the code of an imported module, and of the packages around it."""
        parts = full.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            module = sys.modules.get(name)
            if module is None and end > 1:
                return  # a name of the module before
            if module is None or not self._is_own(module):
                if not is_understood(name):
                    raise UnknownInputError(f"{path} imports {name}")
                self.origins[parts[0]] = find_origin(parts[0])
            else:
                self._read(name, module)

    def _is_own(self, module: ModuleType) -> bool:
        path = getattr(module, "__file__", None)
        if path is None:
            return getattr(module, "__path__", None) is not None and module.__name__ not in sys.builtin_module_names
        return not str(path).startswith(_library_folders())

    def _inputs(self) -> CompileInputs:
        started = started_ns()
        if started is None:
            raise UnknownInputError("start of this process")
        if self.written:
            raise UnknownInputError(f"written: {min(self.written)}")
        config = str(self.repo / CONFIG)
        paths = {*self.code, *self.opened, config}
        for path in paths:
            # Modules from elsewhere are loaded once in a process.
            is_read_now = path not in self.code or path in self.reloaded
            _check_age(path, read_stamp(path), self.begun_ns if is_read_now else started)
        everything = any(code.all_variables for code in self.code.values()) or "$" in Path(config).read_text()
        names = None if everything else tuple(sorted({n for code in self.code.values() for n in code.variables}))
        folders = {self.repo, *(Path(path).parent for path in self.code)}
        return CompileInputs(
            repo=str(self.repo),
            interpreter=read_interpreter(),
            files={path: sha256_of(path) for path in sorted(paths)},
            modules={str(folder): importable_names(folder) for folder in sorted(folders)},
            libraries=dict(_libraries(self.reloaded | set(self.code), started)),
            origins=dict(sorted(self.origins.items())),
            variables=names,
            environment=digest_environment(names),
            folder=os.getcwd() if any(code.working_folder for code in self.code.values()) else None,  # noqa: PTH109 - text
        )


def _libraries(own: set[str], started: int) -> Iterator[tuple[str, Stamp]]:
    standard = tuple(_with_slash(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    packages = _package_folders()
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if not isinstance(path, str) or path in own or (path.startswith(standard) and not path.startswith(packages)):
            continue
        stamp = _first_stamp(path)
        if stamp is not None:
            _check_age(path, stamp, started)
            yield path, stamp


@cache
def _first_stamp(path: str) -> Stamp | None:
    """Return the stamp of a library module when this process first asked; it is loaded once, thus stays as it was then.

    If the file changes later, the recorded stamp differs from that of the file, as it should.
    """
    return read_stamp(path)


def _check_age(path: str, stamp: Stamp | None, limit_ns: int) -> None:
    """Refuse a file that may have changed after it was read.

    Raises:
        UnknownInputError: it may have.
    """
    if stamp is None:
        return
    changed = stamp[2]
    # Whole milliseconds come from a file system with a coarse clock.
    tick = _TICK_NS if changed % _MILLISECOND_NS else _COARSE_TICK_NS
    if changed + tick > limit_ns:
        raise UnknownInputError(f"{path} is too new")


@cache
def _watched() -> dict[int, InputRecorder]:
    """Return the recorders by thread; the hook that feeds them is set once, as Python cannot remove one."""
    recorders: dict[int, InputRecorder] = {}

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event != "open" or not recorders:
            return
        recorder = recorders.get(threading.get_ident())
        path, mode, flags = args
        if recorder is None or not isinstance(path, str | bytes | os.PathLike):
            return
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - without a Path for each file
        if name.startswith((*_library_folders(), *_SYSTEM)) or any(part in name for part in _BYTECODE):
            return
        # Flags of os.open: 1 is O_WRONLY, 2 is O_RDWR.
        writes = bool(_WRITES & set(mode)) if isinstance(mode, str) else bool(int(str(flags or 0)) & 3)
        (recorder.written if writes else recorder.opened).add(name)

    sys.addaudithook(hook)
    return recorders


@cache
def _library_folders() -> tuple[str, ...]:
    """Return the folders of modules that are not the user's: Python's, installed packages', and skewless's own."""
    # The folder skewless/infra is a link where skewless runs from its source.
    skewless = {_with_slash(str(Path(__file__).parents[2])), _with_slash(str(Path(__file__).resolve().parents[1]))}
    standard = [_with_slash(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    return (*standard, *_package_folders(), *sorted(skewless))


@cache
def _package_folders() -> tuple[str, ...]:
    names = {*site.getsitepackages(), site.getusersitepackages(), *map(sysconfig.get_path, ("purelib", "platlib"))}
    return tuple(_with_slash(name) for name in sorted(names))


def _with_slash(path: str) -> str:
    return path.rstrip(os.sep) + os.sep
