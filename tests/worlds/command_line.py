"""The command line run inside the test process, and the state of a folder before and after."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from skewless.cli import create_app
from skewless.commands.all_commands import plugin_commands
from skewless.infra.platform.host import plugins
from skewless.infra.platform.storage.project_state import DATABASE_FILE
from skewless.infra.platform.storage.schema import KEYS
from skewless.infra.platform.telemetry.logger import set_log_level

ROWS: list[dict[str, Any]] = [
    {"card_id": 9_007_199_254_740_993, "shop_id": "shop-07", "amount": 12.5, "paid_at": "2025-01-31T12:00:00Z"},
    {"card_id": "9007199254741000", "shop_id": "shop-39", "amount": 1e-7, "paid_at": 1_700_000_000_123_456},
    {"card_id": 5, "shop_id": "nowhere", "amount": None, "paid_at": 0},
    {"card_id": None, "shop_id": "", "amount": 0.1 + 0.2, "paid_at": "1969-12-31T23:00:00+00:00"},
]


@dataclass(frozen=True)
class Said:
    """What a verb answered."""

    code: int
    stdout: str
    stderr: str

    @property
    def body(self) -> dict[str, Any]:
        """Return stdout as the one JSON object that it must be."""
        body = json.loads(self.stdout)
        assert isinstance(body, dict)
        return body


def run(*words: str | Path, stdin: str | None = None) -> Said:
    """Run one command in this process; anything but a clean exit fails the test."""
    with CliRunner().isolation(input=stdin) as (stdout, stderr, _):
        try:
            code = _ended([str(word) for word in words])
        finally:
            set_log_level("info")  # a command sets the level of the whole process
        sys.stdout.flush()
        sys.stderr.flush()
        return Said(code, stdout.getvalue().decode(), stderr.getvalue().decode())


def _ended(words: list[str]) -> int:
    """Run the command line; return its exit code."""
    try:
        _command(plugins._entry_points)(words, prog_name="skewless")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@cache
def _command(_entry_points: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command line, which takes longer to make than many commands take to run.

    Args:
        _entry_points: what finds plug-ins: a test that hides them has another command line than the next one.
    """
    return get_command(create_app(plugin_commands([])))


def done(*words: str | Path) -> dict[str, Any]:
    """Run a verb that must succeed; return its JSON."""
    said = run(*words, "--json")
    assert said.code == 0, said
    return said.body


def fingerprint(folder: Path) -> dict[str, str]:
    """Return every file below a folder with its hash, every folder, and every row of a database like a file.

    Without the file with which a server tests for a moment whether the disk accepts writes.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name == DATABASE_FILE:
            found |= {f"{name}/{row}": digest for row, digest in _rows(path).items()}
        elif path.suffix != ".probe" and not path.is_socket() and not path.name.startswith(f"{DATABASE_FILE}-"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "/"
    return found


def _rows(path: Path) -> dict[str, str]:
    """Return the rows of a database by their keys.

    A lease is held while something is done, and is no part of it; the audit log has attempts, too.
    """
    found = {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        for table, keys in KEYS.items():
            if table == "leases":
                continue
            for row in connection.execute(f"SELECT * FROM {table}"):
                if table == "records" and row[0] in {"audit", "audit_outcome"}:
                    continue
                key = "/".join(map(str, row[: len(keys)]))
                found[f"{table}/{key}"] = hashlib.sha256(repr(row).encode()).hexdigest()
    return found
