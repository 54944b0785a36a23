"""Connections to DuckDB: only results reach stdout."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from skewless.infra.reads.offline.engine import connect, leave_memory, read_memory_limit

# DuckDB takes a program that is given as text for an interactive one, and shows its progress from two seconds on.
PROGRAM = """
import sys
from pathlib import Path
import duckdb
from skewless.infra.reads.offline.engine import connect

for connection in duckdb.connect(), connect(Path(sys.argv[1])):
    print(connection.sql("SELECT current_setting('enable_progress_bar')").fetchall())
"""


def test_a_program_given_as_text_shows_no_progress_bar(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=100).stdout
    assert said.splitlines() == ["[(True,)]", "[(False,)]"]


@pytest.mark.parametrize("limit", ["1GB", "750MB", "333MiB", "1.7GB"])
def test_a_materialization_leaves_a_fifth_of_the_memory_and_gives_it_back(tmp_path: Path, limit: str) -> None:
    with closing(connect(tmp_path, memory_limit=limit)) as connection:
        whole = read_memory_limit(connection)
        for _ in range(10):
            with suppress(LookupError), leave_memory(connection):
                assert 0.7 * whole < read_memory_limit(connection) <= 0.8 * whole
                raise LookupError
            assert read_memory_limit(connection) == whole
