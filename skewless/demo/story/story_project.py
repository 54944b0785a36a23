"""Where the story plays: a copy of the definitions beside the data, one table of which the story may spoil and mend."""

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
    """What goes wrong with a source, as the repo declares it.

    Args:
        table: folder of Parquet files below ``data``.
        time: its column of event times.
        column: whose values come in another unit.
        divide_by: the values, to be in that unit.
        feature: where a model sees them.
        wrong, mended: what is said of it.
    """

    table: str
    time: str
    column: str
    divide_by: float
    feature: str
    wrong: str
    mended: str


@dataclass(frozen=True, kw_only=True)
class StoryProject:
    """The story's own project.

    Args:
        repo: its folder.
        source: the repo that it is a copy of.
        defect: what the story plants.
    """

    repo: Path
    source: Path
    defect: SourceDefect

    @classmethod
    def lay(cls, source: Path) -> Self:
        """Make it, in the place of an older one; the data are linked, the table that is spoilt is copied.

        Raises:
            PlaceError: the repo has no story, or its data were not loaded.
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

    def spoil(self, since_us: int, length: timedelta) -> int:
        """Report the values of some hours in another unit, as a station would after an update; return rows."""
        until_us = since_us + length // timedelta(microseconds=1)
        spoilt, column = 0, quote(self.defect.column)
        for path in self._files():
            with duckdb.connect() as connection:
                wrong = f"epoch_us({quote(self.defect.time)}::TIMESTAMP) BETWEEN ? AND ?"
                source = "read_parquet(?)"
                found = connection.execute(
                    f"SELECT count(*) FROM {source} WHERE {wrong}",  # noqa: S608 - both are ours
                    [str(path), since_us, until_us],
                ).fetchone()
                if found is None or not found[0]:
                    continue
                spoilt += int(found[0])
                fresh = path.with_suffix(".new")
                connection.execute(
                    f"COPY (SELECT * REPLACE (CASE WHEN {wrong} THEN {column} / {float(self.defect.divide_by)}"  # noqa: S608
                    f" ELSE {column} END AS {column}) FROM {source}) TO '{fresh}' (FORMAT parquet)",
                    [since_us, until_us, str(path)],
                )
            fresh.replace(path)
        return spoilt

    def mend(self) -> None:
        """Put the table as it was in the place of what was spoilt."""
        for path in self._files():
            fresh = path.with_suffix(".new")
            shutil.copy(self.source / "data" / self.defect.table / path.name, fresh)
            fresh.replace(path)

    def _files(self) -> list[Path]:
        return sorted((self.repo / "data" / self.defect.table).glob("*.parquet"))


def _check(source: Path, needs: dict[str, str]) -> None:
    for needed, fix in needs.items():
        if not (source / needed).exists():
            raise PlaceError(f"story of drift in {source}", "lacks what it is about", value=needed, fix=fix)
