"""Loads the flights of 2013 as Parquet, moved by full weeks so that the year ends just before now."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from skewless import ModelSpec
from skewless_demo.flights.events import KINDS, StreamMessages, departed_flights, event_tables, live_start, messages
from skewless_demo.flights.tables import build_tables, last_instant, read_raw, time_columns

_TIMESTAMP = pa.timestamp("us", tz="UTC")
_BY_MONTH = {"flights": "sched_dep", "weather": "event_time"}


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """The numbers of loaded rows and events.

    Args:
        weeks: number of weeks by which all times were moved.
        last: last time of the data, moved.
        rows: number of rows by table.
        events: messages of the test weeks by kind.
        flights: scheduled flights.
        cancelled: flights that never departed.
        unlabelled: flights without a label: cancelled, diverted or not recorded.
        without_weather: flights whose scheduled hour has no weather row.
        without_plane: flights with an unknown plane.
        late_share: share of late flights among the labelled flights.
    """

    weeks: int
    last: datetime
    rows: Mapping[str, int]
    events: Mapping[str, StreamMessages]
    flights: int
    cancelled: int
    unlabelled: int
    without_weather: int
    without_plane: int
    late_share: float

    def lines(self) -> list[str]:
        """Return the report as text."""
        labels = f"{self.unlabelled:,} without a label, {self.late_share:.1%} of the labelled flights late"
        return [
            f"all times moved by {self.weeks} weeks (same weekdays): they end {self.last:%Y-%m-%d %H:%M} UTC",
            f"{self.flights:,} flights: {self.cancelled:,} cancelled, {labels}",
            f"{self.without_weather:,} without an exact weather hour, {self.without_plane:,} without a known plane",
            "rows: " + ", ".join(f"{name} {count:,}" for name, count in self.rows.items()),
            *(_event_line(name, report) for name, report in self.events.items()),
        ]


def load(out: Path, now: datetime, spec: ModelSpec) -> LoadReport:
    """Write all tables as Parquet to a folder, and return their numbers of rows.

    Existing tables are replaced completely; other files of the folder are not changed.

    Args:
        out: the folder, created if needed.
        now: the time before which the data ends.
        spec: the model whose test period is sent as events; earlier events are the history.
    """
    tables = build_tables(read_raw())
    last = last_instant(tables)
    weeks = (now - last.to_pydatetime().replace(tzinfo=UTC)) // timedelta(weeks=1)
    shifted = {name: _moved(table, timedelta(weeks=weeks)) for name, table in tables.items()}
    out.mkdir(parents=True, exist_ok=True)
    for name, table in shifted.items():
        _replace_table(out / name, table, _BY_MONTH.get(name))
    events = _write_events(out, shifted["flights"], spec)
    return _report(shifted, events, weeks, last.to_pydatetime().replace(tzinfo=UTC) + timedelta(weeks=weeks))


def _write_events(out: Path, flights: pd.DataFrame, spec: ModelSpec) -> dict[str, StreamMessages]:
    start = live_start(flights, pd.Timedelta(spec.horizon), pd.Timedelta(spec.split.test))
    reports = {}
    for name, events in event_tables(flights).items():
        time_column = KINDS[name].time
        past = events[events[time_column] < start]
        sent = messages(name, events[events[time_column] >= start].reset_index(drop=True))
        (out / name).mkdir(exist_ok=True)
        _replace_table(out / name / "history", past, None)
        _replace_table(out / name / "live", sent.table, None)
        reports[name] = replace(sent, past=len(past))
    labels = departed_flights(flights)
    is_past = labels["departed_at"] < start
    (out / "departed").mkdir(exist_ok=True)
    _replace_table(out / "departed" / "history", labels[is_past], None)
    _replace_table(out / "departed" / "live", labels[~is_past], None)
    return reports


def _event_line(name: str, report: StreamMessages) -> str:
    irregular = f"{report.late} late, {report.twice} duplicate, {report.broken} broken"
    return f"{name}: {report.past:,} of history, {report.live:,} to send in the test weeks ({irregular})"


def _moved(table: pd.DataFrame, shift: timedelta) -> pd.DataFrame:
    return table.assign(**{name: table[name] + pd.Timedelta(shift) for name in time_columns(table)})


def _replace_table(folder: Path, table: pd.DataFrame, month_of: str | None) -> None:
    target = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    months = table[month_of].dt.strftime("%Y-%m") if month_of else pd.Series("all", index=table.index)
    for month, rows in table.groupby(months, sort=True):
        pq.write_table(_arrow(rows), target / f"{month}.parquet", compression="zstd")
    shutil.rmtree(folder, ignore_errors=True)
    target.rename(folder)


def _arrow(table: pd.DataFrame) -> pa.Table:
    arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    fields = [
        pa.field(field.name, _TIMESTAMP) if pa.types.is_timestamp(field.type) else field for field in arrow.schema
    ]
    return arrow.cast(pa.schema(fields))


def _report(
    tables: Mapping[str, pd.DataFrame], events: Mapping[str, StreamMessages], weeks: int, last: datetime
) -> LoadReport:
    flights = tables["flights"]
    hours = pd.MultiIndex.from_arrays([flights["origin"], flights["sched_dep"].dt.floor("h")])
    known_hours = pd.MultiIndex.from_frame(tables["weather"][["origin", "event_time"]])
    return LoadReport(
        weeks=weeks,
        last=last,
        rows={name: len(table) for name, table in tables.items()},
        events=events,
        flights=len(flights),
        cancelled=int(flights["dep_delay"].isna().sum()),
        unlabelled=int(flights["late"].isna().sum()),
        without_weather=int((~hours.isin(known_hours)).sum()),
        without_plane=int((~flights["tailnum"].isin(tables["planes"]["tailnum"])).sum()),
        late_share=float(flights["late"].mean()),
    )
