"""Where the story plays: a copy of the definitions beside the data, whose weather the story may spoil and mend."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import duckdb
import yaml

from skewless.contract.clock import OffsetClock
from skewless.contract.errors import PlaceError

FOLDER = ".skewless/story"
_MODELS, _STORY_MODELS = "models.py", "story_models.py"
_SPOILT = "weather"
_CLOCK = ".skewless/clock"
# An inch of mercury in hectopascals: the unit that American reports give the pressure in.
_INCH_HPA = 33.8639
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
class Ground:
    """The story's own project.

    Args:
        repo: its folder.
        source: the repo that it is a copy of.
    """

    repo: Path
    source: Path

    @classmethod
    def lay(cls, source: Path) -> Ground:
        """Make it, in the place of an older one; the data are linked, the weather is copied.

        Raises:
            PlaceError: the repo is not that of the flights, or its data were not loaded.
        """
        needs = {_STORY_MODELS: "use --repo feature_repo", f"data/{_SPOILT}": "run feature_repo/load.py"}
        for needed, fix in needs.items():
            if not (source / needed).exists():
                raise PlaceError(f"story of drift in {source}", "lacks what it is about", value=needed, fix=fix)
        repo = (source / FOLDER).resolve()
        shutil.rmtree(repo, ignore_errors=True)
        (repo / "data").mkdir(parents=True)
        for path in (*source.glob("*.py"), source / "feature_store.yaml", source / ".feastignore"):
            shutil.copy(path, repo / path.name)
        shutil.copy(source / _STORY_MODELS, repo / _MODELS)
        for folder in (source / "data").iterdir():
            if folder.name == _SPOILT:
                shutil.copytree(folder, repo / "data" / folder.name)
            else:
                (repo / "data" / folder.name).symlink_to(folder.resolve(), target_is_directory=True)
        OffsetClock.create(repo / _CLOCK)
        settings = _SETTINGS | {"clock": f"file:{_CLOCK}"}
        (repo / "skewless.yaml").write_text(yaml.safe_dump(settings))
        return cls(repo=repo, source=source)

    def spoil(self, since_us: int, length: timedelta) -> int:
        """Report the pressure of some hours in inches of mercury, as a station would after an update; return rows."""
        until_us = since_us + length // timedelta(microseconds=1)
        spoilt = 0
        for path in self._weather():
            with duckdb.connect() as connection:
                wrong = "epoch_us(event_time::TIMESTAMP) BETWEEN ? AND ?"
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
                    f"COPY (SELECT * REPLACE (CASE WHEN {wrong} THEN pressure / {_INCH_HPA} ELSE pressure END"  # noqa: S608
                    f" AS pressure) FROM {source}) TO '{fresh}' (FORMAT parquet)",
                    [since_us, until_us, str(path)],
                )
            fresh.replace(path)
        return spoilt

    def mend(self) -> None:
        """Put the weather as it was in the place of what was spoilt."""
        for path in self._weather():
            fresh = path.with_suffix(".new")
            shutil.copy(self.source / "data" / _SPOILT / path.name, fresh)
            fresh.replace(path)

    def _weather(self) -> list[Path]:
        return sorted((self.repo / "data" / _SPOILT).glob("*.parquet"))
