"""Connections to DuckDB: only results reach stdout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# DuckDB takes a program that is given as text for an interactive one, and shows its progress from two seconds on.
PROGRAM = """
import sys
from pathlib import Path
import duckdb
from skewless.infra.offline.engine import connect

for connection in duckdb.connect(), connect(Path(sys.argv[1])):
    print(connection.sql("SELECT current_setting('enable_progress_bar')").fetchall())
"""


def test_a_program_given_as_text_shows_no_progress_bar(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=100).stdout
    assert said.splitlines() == ["[(True,)]", "[(False,)]"]
