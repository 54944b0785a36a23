"""Loads and writes a repo's ``expectations.py``, with the suites by view, and derives a model's bounds from them."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from skewless.contract.bounds import Bound, Bounds, Value
from skewless.contract.clock import to_us
from skewless.contract.columns import REQUEST
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.validation.suggest import SuggestedExpectation

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation


FILE = "expectations.py"
LABELS = "labels"
_WIDTH = 120
_HEAD = '''"""Expectations that data must meet: suggested by `skewless validate`, to be reviewed and edited."""

import great_expectations.expectations as gxe

SUITES = {
'''
Suites = Mapping[str, "Sequence[Expectation]"]
_ALL = 1.0
_DEFERRED = ("altair", "scipy.stats")
_UNSUPPORTED = frozenset({DType.BYTES})


def load_suites(repo: Path) -> Mapping[str, list[Expectation]]:
    """Return ``SUITES`` of the repo's ``expectations.py``: view name (or ``labels``) -> expectations.

    A repo without the file has no suites (and does not import Great Expectations).

    Raises:
        DefinitionError: the file cannot be run, or its SUITES are invalid; names file and line.
    """
    path = repo / FILE
    if not path.is_file():
        return {}
    suites = _run(path).get("SUITES")
    if not isinstance(suites, Mapping):
        raise DefinitionError(
            f"{path}", "has no mapping named SUITES", value=suites, fix="write SUITES = {'view': [Expectation, ...]}"
        )
    for name in suites:
        if not isinstance(name, str):
            raise DefinitionError(f"{path}", "has a key in SUITES that is not a text", value=name, fix="use a string")
    return {name: _suite(path, name, suite) for name, suite in suites.items()}


def _run(path: Path) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("skewless_expectations", path)
    if spec is None or spec.loader is None:
        raise DefinitionError(f"{path}", "is not a Python file", fix="write the suites as Python")
    module = importlib.util.module_from_spec(spec)
    bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # bytecode files would appear in the user's repo
    try:
        with defer_imports():
            spec.loader.exec_module(module)
    except Exception as error:  # a user's module may raise any type
        problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DefinitionError(f"{path}, line {_line(path, error)}", problem, fix="correct this line") from error
    finally:
        sys.dont_write_bytecode = bytecode
    return vars(module)


@contextmanager
def defer_imports() -> Iterator[None]:
    """Let Great Expectations import the libraries for its charts and distributions when it first uses them.

    They take a third of its import, for four expectations. All other code imports them as ever.
    """
    deferred = {name: _DeferredModule(name) for name in _DEFERRED if name not in sys.modules}
    sys.modules.update(deferred)
    try:
        yield
    finally:
        for module in deferred.values():
            module.uncover()


class _DeferredModule(ModuleType):
    """A module that is imported when an attribute of it is read."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute
        self.uncover()
        return getattr(importlib.import_module(self.__name__), name)

    def uncover(self) -> None:
        """Let imports find the module itself."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


def _line(path: Path, error: Exception) -> int:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == str(path)), 0)


def _suite(path: Path, name: str, suite: object) -> list[Expectation]:
    from great_expectations.expectations.expectation import Expectation  # noqa: PLC0415 - takes seconds; only with suites

    if not isinstance(suite, list | tuple):
        raise DefinitionError(f"{path}: SUITES[{name!r}]", "is not a list", value=suite, fix="list its expectations")
    for index, item in enumerate(suite):
        if not isinstance(item, Expectation):
            raise DefinitionError(
                f"{path}: SUITES[{name!r}][{index}]",
                "is not an expectation",
                value=item,
                fix="use objects of great_expectations.expectations, such as ExpectColumnValuesToNotBeNull(column='x')",
            )
    return list(suite)


def suite_source(suites: Mapping[str, Sequence[SuggestedExpectation]]) -> str:
    """Return the source text of a module with ``SUITES``, by view or ``labels:MODEL``."""
    parts = [_HEAD]
    for name, suite in suites.items():
        calls = "".join(_call(item, " " * 8) for item in suite)
        parts.append(f"    {_literal(name)}: [\n{calls}    ],\n" if calls else f"    {_literal(name)}: [],\n")
    return "".join([*parts, "}\n"])


def _call(item: SuggestedExpectation, indent: str) -> str:
    """Return a call on one line; if too long, with its arguments on one line, or each argument on its own line."""
    arguments = [f"{name}={_literal(value)}" for name, value in item.arguments.items()]
    head, deeper = f"{indent}gxe.{item.kind}(", indent + " " * 4
    short, middle = f"{head}{', '.join(arguments)}),", f"{deeper}{', '.join(arguments)}"
    if len(short) <= _WIDTH:
        return f"{short}\n"
    if len(middle) <= _WIDTH:
        return f"{head}\n{middle}\n{indent}),\n"
    lines = [_argument(name, value, deeper) for name, value in item.arguments.items()]
    return f"{head}\n{''.join(lines)}{indent}),\n"


def _argument(name: str, value: object, indent: str) -> str:
    short = f"{indent}{name}={_literal(value)},"
    if len(short) <= _WIDTH or not isinstance(value, list):
        return f"{short}\n"
    items, deeper = [_literal(item) for item in value], indent + " " * 4
    middle = f"{deeper}{', '.join(items)}"
    inner = f"{middle}\n" if len(middle) <= _WIDTH else "".join(f"{deeper}{item},\n" for item in items)
    return f"{indent}{name}=[\n{inner}{indent}],\n"


def _literal(value: Any) -> str:  # noqa: ANN401 - an argument
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if not isinstance(value, str):
        return repr(value)
    text = json.dumps(value, ensure_ascii=False)
    if value.count('"') <= value.count("'"):
        return text
    inner = text[1:-1].replace('\\"', '"').replace("'", "\\'")
    return f"'{inner}'"


def compile_bounds(plan: FeaturePlan, spec: ModelSpec, suites: Suites) -> Bounds:
    """Return the bounds of a model's features, keys and request fields.

    They come from ``ExpectColumnValuesToBeBetween``, ``...ToBeInSet`` and ``...ToNotBeNull`` that are critical and
    apply to all rows. Expectations with ``mostly`` below 1, another severity or a ``row_condition`` are ignored,
    because some valid rows violate them.

    Args:
        plan: the part of the plan that the model pins.
        suites: suites by view, ``labels`` or ``labels:MODEL``.
    """
    return Bounds(features=_feature_bounds(plan, spec, suites), fields=_field_bounds(plan, spec, suites))


def _feature_bounds(plan: FeaturePlan, spec: ModelSpec, suites: Suites) -> dict[str, Bound]:
    label_bounds = _field_bounds(plan, spec, suites)
    bounds = {}
    for ref in plan.services[0].features:
        bound = label_bounds.get(ref.name) if ref.group == REQUEST else None
        if ref.group in {view.name for view in plan.views}:
            bound = _column_bound(suites.get(ref.group, ()), ref.name, plan.dtype(ref))
        if bound is not None and not bound.is_open:
            bounds[ref.label] = bound
    return bounds


def _field_bounds(plan: FeaturePlan, spec: ModelSpec, suites: Suites) -> dict[str, Bound]:
    suite = suites.get(f"{LABELS}:{spec.name}") or suites.get(LABELS, ())
    bounds = {
        column.name: _column_bound(suite, spec.labels.column(column.name), column.dtype)
        for column in (*plan.join_keys, *plan.request)
    }
    return {name: bound for name, bound in bounds.items() if not bound.is_open}


def _column_bound(suite: Sequence[Expectation], column: str, dtype: DType) -> Bound:
    bound = Bound()
    for expectation in suite:
        arguments: dict[str, Any] = expectation.configuration.kwargs
        if arguments.get("column") == column and _applies_to_all(expectation, arguments):
            bound = bound.intersect(_expectation_bound(expectation.expectation_type, arguments, dtype))
    return bound


def _applies_to_all(expectation: Expectation, arguments: Mapping[str, Any]) -> bool:
    critical = expectation.configuration.severity == "critical"
    return critical and arguments.get("mostly", _ALL) == _ALL and not arguments.get("row_condition")


def _expectation_bound(kind: str, arguments: Mapping[str, Any], dtype: DType) -> Bound:
    """Return the bound of one expectation; an open bound if it cannot be compared."""
    if kind == "expect_column_values_to_not_be_null":
        return Bound(nullable=False)
    if kind == "expect_column_values_to_be_between" and not dtype.is_text:
        low, high = _number(arguments.get("min_value")), _number(arguments.get("max_value"))
        # A server compares with inclusive bounds only; the next float64 makes a strict one of them.
        if low is not None and arguments.get("strict_min"):
            low = math.nextafter(low, math.inf)
        if high is not None and arguments.get("strict_max"):
            high = math.nextafter(high, -math.inf)
        return Bound(low=low, high=high)
    if kind == "expect_column_values_to_be_in_set" and dtype not in _UNSUPPORTED:
        return Bound(allowed=_allowed_values(arguments.get("value_set") or (), dtype))
    return Bound()


def _allowed_values(values: Sequence[object], dtype: DType) -> tuple[Value, ...] | None:
    converted = [value if isinstance(value, str) and dtype.is_text else _number(value) for value in values]
    numbers = [value for value in converted if value is not None]
    return tuple(sorted(set(numbers))) if len(numbers) == len(converted) else None


def _number(value: object) -> float | None:
    """Return a limit as a float, times as microseconds; None if it is not a number."""
    if isinstance(value, datetime):
        return float(to_us(value if value.tzinfo else value.replace(tzinfo=UTC)))
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
