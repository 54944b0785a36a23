"""The project of the story: a copy of the definitions, and of the source table into which the story injects a fault."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

import duckdb
import yaml

from skewless.contract.clock import OffsetClock
from skewless.contract.errors import PlaceError
from skewless.infra.offline.sql import quote

FOLDER = ".skewless/story"
_MODELS, _STORY_MODELS = "models.py", "story_models.py"
_DEFECT = "story.yaml"
_CLOCK = ".skewless/clock"
_SETTINGS = {
    "materialize_cron": "0 */6 * * *",
    "validate_cron": "off",
    "drift_cron": "10 4 * * *",
    "quality_cron": "20 4 * * 1",
    "triggers_cron": "30 4 * * *",
    "parity_cron": "40 4 1 * *",
    "replay_cron": "50 4 1 * *",
    "freshness_cron": "off",
    "housekeeping_cron": "0 4 * * *",
    "rollout_seconds": 6 * 3600.0,
    "log_flush_seconds": 0.1,
    "port": 0,
}


@dataclass(frozen=True, kw_only=True)
class SourceDefect:
    """The fault of a source, as the repo declares it.

    Args:
        table: folder of Parquet files below ``data``.
        time: its column of event times.
        column: its column with values in another unit.
        divide_by: factor of that unit.
        feature: name of the feature with these values.
        wrong, repaired: texts for the timeline.
    """

    table: str
    time: str
    column: str
    divide_by: float
    feature: str
    wrong: str
    repaired: str


@dataclass(frozen=True, kw_only=True)
class StoryProject:
    """The project of the story.

    Args:
        repo: its folder.
        source: the original repo.
        defect: the injected fault.
    """

    repo: Path
    source: Path
    defect: SourceDefect

    @classmethod
    def create(cls, source: Path) -> Self:
        """Create the project, and replace an older one; data is linked, the faulty table is copied.

        Raises:
            PlaceError: the repo has no story, or its data is not loaded.
        """
        _check(source, {_STORY_MODELS: "use --repo feature_repo", _DEFECT: "use --repo feature_repo"})
        defect = SourceDefect(**yaml.safe_load((source / _DEFECT).read_text(encoding="utf-8")))
        _check(source, {f"data/{defect.table}": "run feature_repo/load.py"})
        repo = (source / FOLDER).resolve()
        shutil.rmtree(repo, ignore_errors=True)
        (repo / "data").mkdir(parents=True)
        for path in (*source.glob("*.py"), source / "feature_store.yaml", source / ".feastignore"):
            shutil.copy(path, repo / path.name)
        shutil.copy(source / _STORY_MODELS, repo / _MODELS)
        for folder in (source / "data").iterdir():
            if folder.name == defect.table:
                shutil.copytree(folder, repo / "data" / folder.name)
            else:
                (repo / "data" / folder.name).symlink_to(folder.resolve(), target_is_directory=True)
        OffsetClock.create(repo / _CLOCK)
        settings = _SETTINGS | {"clock": f"file:{_CLOCK}"}
        (repo / "skewless.yaml").write_text(yaml.safe_dump(settings))
        return cls(repo=repo, source=source, defect=defect)

    def inject_fault(self, since_us: int, length: timedelta) -> int:
        """Rewrite the values of some hours in another unit; return the number of rows."""
        until_us = since_us + length // timedelta(microseconds=1)
        rows, column = 0, quote(self.defect.column)
        for path in self._files():
            with duckdb.connect() as connection:
                wrong = f"epoch_us({quote(self.defect.time)}::TIMESTAMP) BETWEEN ? AND ?"
                source = "read_parquet(?)"
                count = connection.execute(
                    f"SELECT count(*) FROM {source} WHERE {wrong}",  # noqa: S608 - both are ours
                    [str(path), since_us, until_us],
                ).fetchone()
                if count is None or not count[0]:
                    continue
                rows += int(count[0])
                target = path.with_suffix(".new")
                connection.execute(
                    f"COPY (SELECT * REPLACE (CASE WHEN {wrong} THEN {column} / {float(self.defect.divide_by)}"  # noqa: S608
                    f" ELSE {column} END AS {column}) FROM {source}) TO '{target}' (FORMAT parquet)",
                    [since_us, until_us, str(path)],
                )
            target.replace(path)
        return rows

    def repair(self) -> None:
        """Replace the faulty table by the original."""
        for path in self._files():
            target = path.with_suffix(".new")
            shutil.copy(self.source / "data" / self.defect.table / path.name, target)
            target.replace(path)

    def _files(self) -> list[Path]:
        return sorted((self.repo / "data" / self.defect.table).glob("*.parquet"))


def _check(source: Path, needs: dict[str, str]) -> None:
    for needed, fix in needs.items():
        if not (source / needed).exists():
            raise PlaceError(f"story of drift in {source}", "has no such file", value=needed, fix=fix)
