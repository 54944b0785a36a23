"""The command ``capacity``: cores, Redis, time and money for a size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from skewless.commands.command import command, option
from skewless.commands.output import Part, Session, records_table
from skewless.commands.tables import TextTable
from skewless.contract.readable import duration_text

if TYPE_CHECKING:
    from skewless_capacity.capacity import CapacityReport

Entities = Annotated[int, option("--entities N", "Entities of each view.")]
EventsPerDay = Annotated[int, option("--events-per-day N", "Events of each event source.")]
HistoryDays = Annotated[int, option("--days N", "Days of history.")]
TrainingRows = Annotated[int, option("--rows N", "Rows of a training set.")]
PredictionRate = Annotated[float, option("--predictions-per-second N", "Predictions to serve.")]
Hours = Annotated[float, option("--hours H", "Time allowed for each work with an end.")]
TextBytes = Annotated[int, option("--text-bytes N", "Mean length of text keys and features.")]
Callers = Annotated[int, option("--callers N", "Callers at the same time of one server worker.", min=1)]
Batch = Annotated[int, option("--batch N", "Rows of a request for predictions.", min=1)]
CorePrice = Annotated[float, option("--price-core-hour P", "Price of a core for an hour.")]
MemoryPrice = Annotated[float, option("--price-memory-gb-month P", "Price of a GB of Redis for a month.")]
StoragePrice = Annotated[float, option("--price-storage-gb-month P", "Price of a GB of storage for a month.")]
Utilization = Annotated[float, option("--utilization S", "Share of the paid cores' time that is used.")]


@command(
    "Estimate cores, Redis and time for a size.",
    "--entities 1000000 --repo my-project",
    "--entities 1000000 --events-per-day 50000000 --days 365 --rows 10000000 --hours 4 --json",
    "--entities 1000000 --predictions-per-second 2000 --callers 16 --price-core-hour 0.04 --price-memory-gb-month 8",
    section="Operate",
    is_short=True,
)
def capacity(
    session: Session,
    *,
    entities: Entities,
    events_per_day: EventsPerDay = 0,
    days: HistoryDays = 30,
    rows: TrainingRows = 0,
    predictions_per_second: PredictionRate = 0.0,
    hours: Hours = 1.0,
    text_bytes: TextBytes = 16,
    callers: Callers = 16,
    batch: Batch = 1,
    price_core_hour: CorePrice = 0.0,
    price_memory_gb_month: MemoryPrice = 0.0,
    price_storage_gb_month: StoragePrice = 0.0,
    utilization: Utilization = 0.5,
) -> None:
    """Estimate how many cores, how much Redis and how long the applied plan needs, and what predictions cost.

    All numbers are arithmetic on measured costs, which the output names.
    """
    from skewless_capacity.capacity import capacity as estimate

    report = estimate(
        session.project,
        entities=entities,
        events_per_day=events_per_day,
        days=days,
        rows=rows,
        predictions_per_second=predictions_per_second,
        hours=hours,
        text_bytes=text_bytes,
        callers=callers,
        batch=batch,
        price_core_hour=price_core_hour,
        price_memory_gb_month=price_memory_gb_month,
        price_storage_gb_month=price_storage_gb_month,
        utilization=utilization,
    )
    body = report.as_dict()
    session.show(body, *_parts(report, body))


def _parts(report: CapacityReport, body: dict[str, Any]) -> list[Part]:
    figures = report.figures
    rows_of = [
        (
            *(item.name, item.cores, None if item.seconds is None else duration_text(item.seconds)),
            None if item.size_bytes is None else round(item.size_bytes / 1e9, 3),
        )
        for item in figures
    ]
    too_slow = [
        f"{item.name}: takes {duration_text(item.seconds)} at least, on any number of cores"
        for item in figures
        if item.seconds is not None and item.cores is None
    ]
    parts = [*body["figures"], *body["million_predictions"]["parts"]]
    return [
        TextTable("needs", ("need", "cores", "time", "GB"), rows_of),
        *too_slow,
        _million_table(body["million_predictions"]),
        records_table("formulas", parts, ("name", "formula", "tested")),
        records_table(
            "measured costs, on two cores of an AMD EPYC", body["costs"], ("name", "value", "unit", "measured")
        ),
    ]


def _million_table(million: dict[str, Any]) -> TextTable:
    """Return the costs of a million predictions, with their sum."""
    parts = [*million["parts"], {"name": "total", **million["total"]}]
    rows = [
        (
            part["name"],
            None if part["cpu_s"] is None else round(part["cpu_s"], 1),
            None if part["size_bytes"] is None else round(part["size_bytes"] / 1e9, 3),
            None if part["cost"] is None else round(part["cost"], 4),
        )
        for part in parts
    ]
    return TextTable("a million predictions", ("part", "CPU s", "GB", "cost"), rows)
