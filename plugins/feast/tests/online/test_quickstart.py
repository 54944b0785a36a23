"""Feast's quickstart, as `feast init` writes it, with three lines of YAML changed; and Feast's command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from difflib import unified_diff
from pathlib import Path

import pytest
import redis
from feast import FeatureStore

from plugins.feast.tests.online.conftest import Make
from skewless.infra.reads.online.private_server import PrivateServer
from tests.docs.pages import blocks, page, section
from tests.servers.node import Node
from tests.worlds.feast_repo import users_of
from tests.worlds.feast_twins import NOW, Twin, ago, row, schema

BIN = Path(sys.executable).parent
NAMES = ("a_double",)
DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource
from feast.types import Float64, Int64
from feast.value_type import ValueType

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
users = FeatureView(
    name="users",
    entities=[user],
    ttl=timedelta(days=10),
    source=FileSource(path="users.parquet", timestamp_field="event_time", created_timestamp_column="created"),
    schema=[Field(name="user_id", dtype=Int64), Field(name="a_double", dtype=Float64)],
)
"""


def run(folder: Path, *words: str) -> str:
    """Run a program of the environment; it must succeed. Return its output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SKEWLESS_", "PROMETHEUS_"))}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    command = [str(BIN / words[0]), *words[1:]]
    done = subprocess.run(
        command, cwd=folder, env=kept | {"PATH": path, "COLUMNS": "200"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def change(text: str) -> str:
    """Return the template's YAML with the lines that docs/feast.md shows."""
    shown = blocks(section(page("feast.md"), "Three lines"), "yaml")[0]
    offline, online, engine = (line for line in shown.splitlines() if "skewless_feast" in line)
    return text.replace("    type: sqlite", online).replace("provider: local", f"provider: local\n{offline}\n{engine}")


@pytest.mark.soak
def test_the_quickstart_runs_with_three_lines_changed(tmp_path: Path) -> None:
    init, change_folder, walk = blocks(section(page("feast.md"), "Three lines"), "sh")[0].splitlines()
    run(tmp_path, *init.split())
    repo = tmp_path / change_folder.removeprefix("cd ")
    yaml = repo / "feature_store.yaml"
    before, after = yaml.read_text(), change(yaml.read_text())
    yaml.write_text(after)
    changed = [line for line in unified_diff(before.splitlines(), after.splitlines(), n=0) if line[:1] == "+"]
    assert len(changed) == 1 + 3  # the name of the file, and three lines
    try:
        said = run(repo, *walk.split())
    finally:
        PrivateServer(repo / ".skewless").stop()
    served, pushed = said.partition("--- Simulate a stream event")[::2]
    assert "None" not in served.partition("--- Online features ---")[2]
    assert "conv_rate  :  [1.0, 0." in pushed
    assert "avg_daily_trips  :  [1000, " in pushed
    assert "'name': 'driver_1001_updated'" in pushed


@pytest.mark.soak
def test_every_verb_of_the_command_line(make: Make, opened: Callable[[Twin], FeatureStore], valkey: Node) -> None:
    twin = make("skewless", project="by_hand")
    (twin.repo / "definitions.py").write_text(DEFINITIONS)
    twin.write("users.parquet", [row(1, ago(days=2), a_double=1.0), row(2, ago(days=5), a_double=2.0)], schema(NAMES))
    assert "Deploying infrastructure for users" in run(twin.repo, "feast", "apply")
    run(twin.repo, "feast", "materialize", ago(days=3).isoformat(), NOW.isoformat())
    store = opened(twin)
    assert doubles(store) == [1.0, None]
    run(twin.repo, "feast", "materialize-incremental", NOW.isoformat())
    assert doubles(store) == [1.0, 2.0]
    with redis.Redis(port=valkey.port, db=1) as client:
        assert len(list(client.scan_iter("sk:by_hand:*"))) == 3  # two rows and how far they were applied
        run(twin.repo, "feast", "teardown")
        assert list(client.scan_iter("sk:by_hand:*")) == []


def doubles(store: FeatureStore) -> list[float | None]:
    """Return what users 1 and 2 have."""
    values: list[float | None] = store.get_online_features(["users:a_double"], users_of(1, 2)).to_dict()["a_double"]
    return values
