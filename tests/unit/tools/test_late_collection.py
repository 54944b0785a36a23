"""A run whose workers collect late reports every test, and also a file that cannot be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FILES = {
    "conftest.py": "from tests.late_collection import register_late_collection as pytest_configure",
    "pytest.ini": "[pytest]",
    "a/test_passes.py": "import pytest\n\n\n@pytest.mark.parametrize('n', range(3))\ndef test_one(n): pass",
    "a/test_is_not_selected.py": "def test_other(): raise ValueError",
    "b/test_fails.py": "def test_one(): raise ValueError",
    "b/test_cannot_be_imported.py": "import nowhere_at_all",
}
ROOT = Path(__file__).parents[3]


def test_every_result_is_reported(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    # Its own folder: pytest removes what older runs left in the shared one, which takes a minute after a whole run.
    words = ["-n", "2", "--dist", "loadfile", "-k", "one", "-v", "-p", "no:cacheprovider", "--basetemp", ".base"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=tmp_path,
        env={
            **environment,
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_PLUGINS": "xdist.plugin",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    lines = ended.stdout.splitlines()
    passed = {line.split()[-1] for line in lines if " PASSED " in line}
    assert passed == {f"a/test_passes.py::test_one[{n}]" for n in range(3)}, ended.stdout
    assert "FAILED b/test_fails.py::test_one - ValueError" in ended.stdout
    assert "ERROR b/test_cannot_be_imported.py" in ended.stdout
    assert "ModuleNotFoundError: No module named 'nowhere_at_all'" in ended.stdout
    assert "1 failed, 3 passed, 1 error" in lines[-1]
    assert ended.returncode == 1
