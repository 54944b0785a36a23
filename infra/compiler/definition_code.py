"""The code of definitions: which variables it reads, and whether all that it depends on can be known."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field


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
    reader = _CodeVisitor()
    reader.visit(ast.parse(text))
    return DefinitionCode(
        imports=tuple(dict.fromkeys(reader.imports)),
        variables=frozenset(reader.variables),
        # Some use of the environment is not a look-up of a constant name.
        all_variables=reader.environments > len(reader.named),
        working_folder=reader.working_folder,
        unknown=reader.unknown,
    )


def is_understood(module: str) -> bool:
    """Say whether all functions of a library module, unless refused by name, read only what is recorded.

    >>> is_understood("numpy.typing"), is_understood("feast.infra.registry"), is_understood("pandas")
    (True, False, False)
    """
    parts = module.split(".")
    heads = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return module in _MODULES or bool(heads & (_MODULES - _CLOSED))


@dataclass
class _CodeVisitor(ast.NodeVisitor):
    """Collects names and imports; each visit method sees one kind of node."""

    imports: list[str] = field(default_factory=list)
    variables: set[str] = field(default_factory=set)
    named: set[ast.AST] = field(default_factory=set)
    environments: int = 0
    working_folder: bool = False
    unknown: str | None = None
    os_attributes: set[ast.AST] = field(default_factory=set)

    def refuse(self, node: ast.AST, what: str) -> None:
        self.unknown = self.unknown or f"line {getattr(node, 'lineno', 0)}: {what}"

    def check(self, node: ast.AST, name: str) -> None:
        if name in _UNKNOWABLE or (name.startswith("__") and name.endswith("__") and name not in _DUNDERS):
            self.refuse(node, name)
        self.working_folder |= name in _WORKING_FOLDER

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._import(node, alias.name)
            if alias.name.partition(".")[0] == "os" and alias.asname:
                self.refuse(node, f"{alias.name} as {alias.asname}")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        self._import(node, module, alone=False)
        for alias in node.names:
            if alias.name == "*":
                self.refuse(node, f"from {module} import *")
            if module == "os":
                self._os(node, alias.name)
                if alias.asname and alias.name in {"environ", "getenv"}:
                    self.refuse(node, f"{alias.name} as {alias.asname}")
            self.check(node, alias.name)
            self.imports.append(f"{module}{'' if module.endswith('.') else '.'}{alias.name}")

    def _import(self, node: ast.AST, module: str, *, alone: bool = True) -> None:
        # The name is judged where it is known which file it is: see ``CompileInputs``.
        self.imports.append(module)
        for part in module.strip(".").split(".") if alone else ():
            self.check(node, part)

    def visit_Name(self, node: ast.Name) -> None:
        self.check(node, node.id)
        if node.id in _BUILTINS:
            self.refuse(node, node.id)
        # The module itself may be passed on, and then nobody sees which of its functions are called.
        if node.id == "os" and node not in self.os_attributes:
            self.refuse(node, "os")
        self.environments += node.id in {"environ", "getenv"}

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.check(node, node.attr)
        if node.attr == "os":  # of a module that imports it
            self.refuse(node, "os")
        if isinstance(node.value, ast.Name) and node.value.id == "os":
            self.os_attributes.add(node.value)
            self._os(node, node.attr)
        self.environments += node.attr in {"environ", "getenv"}
        self.generic_visit(node)

    def _os(self, node: ast.AST, name: str) -> None:
        if name not in _OS:
            self.refuse(node, f"os.{name}")

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if _is_called(node.value, "environ") and isinstance(node.ctx, ast.Load):
            self._variable(node.value, node.slice)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        is_lookup = len(node.ops) == 1 and isinstance(node.ops[0], ast.In | ast.NotIn)
        if is_lookup and _is_called(node.comparators[0], "environ"):
            self._variable(node.comparators[0], node.left)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        function, first = node.func, node.args[0] if node.args else None
        if isinstance(function, ast.Name) and function.id == "getattr":
            name = node.args[1] if len(node.args) > 1 else None
            if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
                self.refuse(node, "getattr")
            else:
                self.check(node, name.value)
        if _is_called(function, "getenv"):
            self._variable(function, first)
        if isinstance(function, ast.Attribute) and function.attr == "get" and _is_called(function.value, "environ"):
            self._variable(function.value, first)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and (node.value in _CLOCK_TEXTS or node.value.startswith(_SYSTEM_FOLDERS)):
            self.refuse(node, repr(node.value))

    def _variable(self, reference: ast.AST, name: ast.AST | None) -> None:
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            self.named.add(reference)
            self.variables.add(name.value)


def _is_called(node: ast.AST, name: str) -> bool:
    return (isinstance(node, ast.Name) and node.id == name) or (isinstance(node, ast.Attribute) and node.attr == name)


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
