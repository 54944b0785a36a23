"""The doors through which a value gets into a project, and the places that an erasure must clear.

A process of its own opens the doors, so that no reader of the logs keeps their files.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.contract.errors import GateError
from skewless.infra.ingest.streams.redis_link import EventKeys
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.records.predictions.segments import PREDICTIONS, SCHEMA, prediction_spool
from skewless.project import Project
from skewless_cloud.storage import CloudStorage
from tests.servers.prediction import ROOT
from tests.worlds.addresses import read_object
from tests.worlds.erasures import ERASED, NOW, SHOPS, fill

TEXT = ERASED.encode()
# What an erasure leaves by design, by the folder that has it: a word of the receipt.
BY_DESIGN = {
    "backup": "backups",
    "dataset": "datasets",
    "quarantine": "rejected batches",
    "data_docs": "Data Docs",
}
_SUITES = """\
import great_expectations.expectations as gxe

SUITES = {"users": [gxe.ExpectColumnValuesToMatchRegex(column="user", regex="^[a-y]*$")]}
"""
_PLANT = """\
import sys
from pathlib import Path
from skewless.project import Project
from tests.worlds.erasure_doors import open_doors
with Project(Path(sys.argv[1])) as project:
    open_doors(project)
"""


def plant(repo: Path) -> None:
    """Bring the value through all doors, in a process that ends."""
    subprocess.run([sys.executable, "-c", _PLANT, str(repo)], cwd=ROOT, check=True)


def run_command(repo: Path, *words: str) -> None:
    """Run a command in a process that ends."""
    program = "from skewless.cli import main; main()"
    subprocess.run([sys.executable, "-c", program, *words, "--repo", str(repo)], cwd=ROOT, check=True)


def open_doors(project: Project) -> None:
    """Bring the value through tables, events, requests, outcomes, lists, reports and copies."""
    repo = project.repo
    fill(project)
    project.lists.set("blocked", [ERASED, "bob"], reason="fraud")
    send(project, "s", 6)
    sender = project.streams.sender(project.streams.plan.sources[0])
    sender.send([f"no JSON, and yet {ERASED}".encode(), b"[" * 100_000 + TEXT])
    sender.close()
    project.stream(until_idle=True)
    project.train("both")
    users = (ERASED, ERASED, "ann")
    ids = project.predict("both", [{"user": user, "shop": SHOPS[0]} for user in users])["id"].to_pylist()
    _give_outcome(project, {"prediction_id": ids[0], "label": "1"})
    _give_outcome(project, {"user": ERASED, "shop": SHOPS[1], "event_time": "2026-01-15T11:00:00Z", "label": "0"})
    project.parity(sample=20)
    project.replay()
    project.freshness()
    project.dataset(repo / "data/labels.parquet", "visits", repo / "dataset", time="at")
    (repo / "expectations.py").write_text(_SUITES)
    with Project(repo) as strict:
        strict.validate(["users"], record=True)
        _touch_users(repo)
        with suppress(GateError):
            strict.materialize()
    (repo / "expectations.py").unlink()
    project.backup(repo / "backup")
    # A server that was killed leaves a file that it has not shipped.
    logged = pa.concat_tables(map(pq.read_table, PartitionLog(project.state, PREDICTIONS).files()))
    prediction_spool(project.state).store(NOW, logged.filter(pc.match_substring(logged["inputs"], ERASED)).cast(SCHEMA))


def send(project: Project, prefix: str, n: int) -> None:
    """Send events of the entity and of others by turns, to both of two partitions."""
    sender = project.streams.sender(project.streams.plan.sources[0])
    rows = [
        {"visit": f"{prefix}{i}", "user": ERASED if i % 2 else "bob", "shop": SHOPS[0], "amount": 1.5, "at": NOW - i}
        for i in range(n)
    ]
    sender.send([json.dumps(row).encode() for row in rows], [("a", "d")[i // 2 % 2] for i in range(n)])
    sender.close()


def list_streams(project: Project, client: Any) -> list[str]:  # noqa: ANN401 - redis-py's clients are untyped
    """Return the streams that have messages."""
    keys = EventKeys(project=project.applied.plan.project, source="visits")
    return [key for i in range(project.settings.stream_partitions) if client.xlen(key := keys.stream(i))]


def find_files(folder: Path, text: bytes = TEXT) -> set[str]:
    """Return the names of the files below a folder that have a text."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {path.relative_to(folder).as_posix() for path in files if text in path.read_bytes()}


def find_keys(client: Any, prefix: str, text: bytes = TEXT) -> set[str]:  # noqa: ANN401 - as above
    """Return the keys of Redis that have a text in their name or in their serialized value."""
    keys = client.scan_iter(match=f"{prefix}*", count=10_000)
    return {key.decode() for key in keys if text in key or text in (client.dump(key) or b"")}


def find_objects(project: Project) -> set[str]:
    """Return the names of the objects in the bucket that have the value."""
    storage = project.state.storage
    assert isinstance(storage, CloudStorage)
    names = [item.name for item in storage.list_objects("")]
    assert names
    return {name for name in names if TEXT in read_object(storage, name)}


def _give_outcome(project: Project, row: dict[str, str]) -> None:
    file = project.repo / "outcomes.csv"
    file.write_text("\n".join(",".join(each) for each in (row, row.values())) + "\n")
    project.feedback(file, model=None if "prediction_id" in row else "both")
    file.unlink()


def _touch_users(repo: Path) -> None:
    """Let the table of users have a row that no run has seen."""
    path = repo / "data/users.parquet"
    rows = pq.read_table(path)
    last = rows.slice(rows.num_rows - 1).set_column(0, "user", pa.array([ERASED]))
    pq.write_table(pa.concat_tables([rows, last]), path)
