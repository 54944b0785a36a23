"""The expectations that a user's repo declares, by view."""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skewless.contract.errors import DefinitionError

if TYPE_CHECKING:
    from pathlib import Path

    from great_expectations.expectations.expectation import Expectation

FILE = "expectations.py"
LABELS = "labels"


def load_suites(repo: Path) -> Mapping[str, list[Expectation]]:
    """Return ``SUITES`` of the repo's ``expectations.py``: view name (or ``labels``) -> expectations.

    A repo without the file has no suites (and does not pay for the import of Great Expectations).

    Raises:
        DefinitionError: the file cannot be run, or holds something else; names file and line.
    """
    path = repo / FILE
    if not path.is_file():
        return {}
    suites = _run(path).get("SUITES")
    if not isinstance(suites, Mapping):
        raise DefinitionError(
            f"{path}", "has no mapping named SUITES", value=suites, fix="write SUITES = {'view': [Expectation, ...]}"
        )
    return {_name(path, name): _suite(path, name, suite) for name, suite in suites.items()}


def _run(path: Path) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("skewless_expectations", path)
    if spec is None or spec.loader is None:
        raise DefinitionError(f"{path}", "is not a Python file", fix="write the suites as Python")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's module may raise anything at all
        problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DefinitionError(f"{path}, line {_line(path, error)}", problem, fix="correct this line") from error
    return vars(module)


def _line(path: Path, error: Exception) -> int:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == str(path)), 0)


def _name(path: Path, name: object) -> str:
    if not isinstance(name, str):
        raise DefinitionError(f"{path}", "has a key in SUITES that is no view's name", value=name, fix="use a string")
    return name


def _suite(path: Path, name: str, suite: object) -> list[Expectation]:
    from great_expectations.expectations.expectation import Expectation  # noqa: PLC0415 - seconds; only with suites

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
