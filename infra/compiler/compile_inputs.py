"""A compiled repo, and the inputs of its compilation: while they are as they were, the plan is, too.

The code of the definitions tells which variables they read, and whether all that they depend on can be known.
"""

from __future__ import annotations

import ast
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
from skewless.contract.decisions import DecisionStream
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec

# Variables that Python, Feast and the C library read on their own.
_ALWAYS = ("FEAST_", "LANG", "LC_", "PYTHON", "TZ")
_PACKAGES = frozenset({"dist-packages", "site-packages"})
_METADATA = (".dist-info", ".egg-info", ".egg-link", ".pth")
Stamp = tuple[int, int, int, int]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Modules whose functions read nothing but files that are opened through Python, and the environment.
_MODULES = _words(
    "__future__ abc collections copy dataclasses datetime decimal enum fractions functools itertools json math numbers"
    " numpy operator os pathlib re statistics string textwrap tomllib types typing typing_extensions yaml"
    " feast feast.aggregation feast.data_format feast.data_source feast.entity feast.feature_service feast.feature_view"
    " feast.field feast.infra.offline_stores.file_source feast.on_demand_feature_view feast.stream_feature_view"
    " feast.types feast.value_type skewless skewless.contract skewless.definitions skewless.infra.sources.duckdb_source"
)
_CLOSED = frozenset({"feast", "skewless"})  # of these only the modules above, of others their submodules too
_OS = frozenset({"PathLike", "environ", "fspath", "getenv", "linesep", "name", "path", "sep"})
_BUILTINS = _words("__import__ breakpoint compile delattr eval exec globals hash id input locals setattr vars")
# Names through which code reads the clock, the disk's folders, chance or another process, or runs text as code.
_UNKNOWABLE = _words(
    "attrgetter methodcaller"
    " builtins ctypes getpid importlib inspect io listdir scandir shutil socket subprocess sys tempfile urandom"
    " fromtimestamp now now_us today utcnow astimezone"
    " exists expanduser expandvars getatime getctime getmtime getsize glob home is_dir is_file is_junction is_mount"
    " is_symlink isdir isfile islink iterdir lexists lstat owner readlink rglob samefile stat walk"
    " DataSource ctypeslib f2py fromfile memmap random"
    " FeatureStore RepoConfig feature_store load_repo_config registry repo_config repo_operations"
    " OffsetClock Project SystemClock open_clock UnsafeLoader unsafe_load"
)
_DUNDERS = _words(
    "__all__ __annotations__ __class__ __doc__ __eq__ __file__ __init__ __len__ __main__ __name__ __post_init__"
    " __repr__ __str__ __version__"
)
_WORKING_FOLDER = frozenset({"absolute", "abspath", "cwd", "getcwd", "realpath", "relpath", "resolve"})
_SYSTEM_FOLDERS = ("/dev/", "/proc/", "/sys/")
_CLOCK_TEXTS = frozenset({"now", "today"})  # of numpy.datetime64


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
        decisions: the decision streams, with compiled conditions.
    """

    plan: FeaturePlan
    models: tuple[ModelSpec, ...]
    feast_objects: tuple[Any, ...]
    inputs: CompileInputs | None = None
    files: tuple[str, ...] = ()
    decisions: tuple[DecisionStream, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DefinitionCode:
    """One module's dependencies, read from its text; the module is not run.

    Args:
        imports: names of modules, with the dots of relative imports in front.
        variables: environment variables that it reads by name.
        all_variables: it may read any variable.
        working_folder: its paths may depend on the working folder.
        unknown: why it may depend on more than this; None: it does not.
    """

    imports: tuple[str, ...]
    variables: frozenset[str]
    all_variables: bool
    working_folder: bool
    unknown: str | None


def read_code(text: str) -> DefinitionCode:
    r"""Return the dependencies of a module.

    >>> read_code("import os\nPATH = os.environ['DATA']").variables
    frozenset({'DATA'})
    >>> read_code("x = eval('1')").unknown
    'line 1: eval'

    Args:
        text: its source.

    Raises:
        SyntaxError: the text is not Python.
    """
    nodes = list(ast.walk(ast.parse(text)))
    names = {name for node in nodes for name in _names(node)}
    lookups = dict(filter(None, map(_find_lookup, nodes)))
    uses = [node for node in nodes if _is_called(node, "environ") or _is_called(node, "getenv")]
    attributes = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    problems = [
        (getattr(node, "lineno", 0), item) for node in nodes for item in _find_unknowable(node, id(node) in attributes)
    ]
    return DefinitionCode(
        imports=tuple(dict.fromkeys(name for node in nodes for name in _imports(node))),
        variables=frozenset(lookups.values()),
        # Some use of the environment is not a look-up of a constant name.
        all_variables=len(uses) > len(lookups),
        working_folder=not names.isdisjoint(_WORKING_FOLDER),
        unknown=next((f"line {line}: {item}" for line, item in sorted(problems)), None),
    )


def is_understood(module: str) -> bool:
    """Say whether all functions of a library module, unless refused by name, read only what is recorded.

    >>> is_understood("numpy.typing"), is_understood("feast.infra.registry"), is_understood("pandas")
    (True, False, False)
    """
    parts = module.split(".")
    heads = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return module in _MODULES or bool(heads & (_MODULES - _CLOSED))


def _imports(node: ast.AST) -> Iterator[str]:
    """Yield the imported modules; each is judged where it is known which file it is: see ``InputRecorder``."""
    match node:
        case ast.Import(names=aliases):
            yield from (alias.name for alias in aliases)
        case ast.ImportFrom(names=aliases, level=level):
            module = "." * level + (node.module or "")
            yield module
            yield from (f"{module}{'' if module.endswith('.') else '.'}{alias.name}" for alias in aliases)


def _names(node: ast.AST) -> Iterator[str]:
    """Yield the names by which code reaches objects."""
    match node:
        case ast.Import(names=aliases):
            yield from (part for alias in aliases for part in alias.name.split("."))
        case ast.ImportFrom(names=aliases):
            yield from (alias.name for alias in aliases)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            yield name
        case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]):
            yield name


def _find_unknowable(node: ast.AST, is_base: bool) -> Iterator[str]:  # noqa: FBT001 - one call
    """Yield what a node may read beyond files and variables; ``is_base``: it is the ``x`` of ``x.y``."""
    yield from filter(_is_unknowable, _names(node))
    match node:
        case ast.Import(names=aliases):
            yield from (f"os as {item.asname}" for item in aliases if item.asname and item.name.split(".")[0] == "os")
        case ast.ImportFrom(module=module, names=aliases):
            yield from (f"from {module} import *" for alias in aliases if alias.name == "*")
            if module == "os" and not node.level:
                yield from (f"os.{alias.name}" for alias in aliases if alias.name not in _OS or alias.asname)
        # The module itself may be passed on, and then nobody sees which of its functions are called.
        case ast.Name(id=name) if name in _BUILTINS or (name == "os" and not is_base):
            yield name
        case ast.Attribute(value=ast.Name(id="os"), attr=name) if name not in _OS:
            yield f"os.{name}"
        case ast.Attribute(attr="os"):  # of a module that imports it
            yield "os"
        case ast.Call(func=ast.Name(id="getattr")) if not [*_names(node)]:
            yield "getattr"
        case ast.Constant(value=str(text)) if text in _CLOCK_TEXTS or text.startswith(_SYSTEM_FOLDERS):
            yield repr(text)


def _find_lookup(node: ast.AST) -> tuple[ast.AST, str] | None:
    """Return a use of the environment that looks up a constant name, and the name."""
    match node:
        case (
            ast.Subscript(value=use, slice=name, ctx=ast.Load())
            | ast.Compare(left=name, ops=[ast.In() | ast.NotIn()], comparators=[use])
            | ast.Call(func=ast.Attribute(value=use, attr="get"), args=[name, *_])
        ):
            is_lookup = _is_called(use, "environ")
        case ast.Call(func=use, args=[name, *_]):
            is_lookup = _is_called(use, "getenv")
        case _:
            return None
    if is_lookup and isinstance(name, ast.Constant) and isinstance(name.value, str):
        return use, name.value
    return None


def _is_called(node: ast.AST, name: str) -> bool:
    return (isinstance(node, ast.Name) and node.id == name) or (isinstance(node, ast.Attribute) and node.attr == name)


def _is_unknowable(name: str) -> bool:
    return name in _UNKNOWABLE or (name.startswith("__") and name.endswith("__") and name not in _DUNDERS)


def absolute_names(code: DefinitionCode, package: str) -> Iterator[str]:
    """Yield the imported modules by their full names.

    Args:
        package: of the module, for relative imports; empty: it is in none.
    """
    for name in code.imports:
        bare = name.lstrip(".")
        level = len(name) - len(bare)
        parents = package.split(".")[: len(package.split(".")) - level + 1] if level else []
        yield ".".join([*parents, bare]) if bare else ".".join(parents)
