"""Loading a user's expectations.py, good and broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from great_expectations.expectations import ExpectColumnValuesToNotBeNull

from skewless.contract.errors import DefinitionError
from skewless.validation import suites
from skewless.validation.suites import load_suites

ROOT = Path(__file__).parents[3]
HEAD = "import great_expectations.expectations as gxe\n"


def test_suites_by_view(tmp_path: Path) -> None:
    (tmp_path / "expectations.py").write_text(
        HEAD
        + "def known(column):\n    return gxe.ExpectColumnValuesToNotBeNull(column=column)\n"
        + "SUITES = {'weather': [known('temp')], 'labels': (known('late'), known('at'))}\n"
    )
    found = load_suites(tmp_path)
    assert list(found) == ["weather", "labels"]
    first = found["weather"][0]
    assert isinstance(first, ExpectColumnValuesToNotBeNull)
    assert first.column == "temp"
    assert len(found["labels"]) == 2


def test_a_repo_without_the_file_has_none_and_pays_nothing(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from skewless.validation.suites import load_suites; "
        "import skewless.validation.gates; "
        f"assert load_suites(Path({str(tmp_path)!r})) == {{}}; assert 'great_expectations' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "value"),
    [("import far", "far.VALUE"), ("from far import VALUE", "VALUE"), ("import far.part", "far.part.VALUE")],
)
def test_a_deferred_module_is_imported_where_it_is_used(
    line: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/__init__.py").write_text("VALUE = 7\n")
    (tmp_path / "far/part.py").write_text("VALUE = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(suites, "_DEFERRED", ("far",))
    namespace: dict[str, Any] = {}
    try:
        with suites.defer_imports():
            exec(line, namespace)  # noqa: S102 - the test's own code
        assert ("far" in sys.modules) is (line != "import far")
        assert eval(value, namespace) == 7  # noqa: S307 - likewise
        assert type(sys.modules["far"]) is ModuleType
    finally:
        for name in ("far", "far.part"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("SUITES = {\n  'a': [,\n}\n", ["line 2", "SyntaxError"]),
        ("import nowhere_to_be_found\n", ["line 1", "ModuleNotFoundError", "nowhere_to_be_found"]),
        ("x = 1\n\ny = z\n", ["line 3", "NameError", "'z'"]),
        ("def f():\n    return 1 / 0\n\nf()\n", ["line 2", "ZeroDivisionError"]),
        (
            HEAD + "SUITES = {'a': [gxe.ExpectColumnValuesToBeBetween(column='x', min_valu=1)]}\n",
            ["line 2", "ValidationError", "min_valu"],
        ),
        ("suites = {}\n", ["SUITES"]),
        ("SUITES = []\n", ["SUITES"]),
        ("SUITES = {1: []}\n", ["SUITES", "got 1"]),
        ("SUITES = {'weather': 'x'}\n", ["SUITES['weather']", "not a list"]),
        (HEAD + "SUITES = {'weather': [gxe.ExpectColumnToExist]}\n", ["SUITES['weather'][0]", "not an expectation"]),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "expectations.py"
    path.write_text(text)
    with pytest.raises(DefinitionError) as raised:
        load_suites(tmp_path)
    for part in (str(path), *parts):
        assert part in str(raised.value)
    assert "\n" not in raised.value.sentence()
