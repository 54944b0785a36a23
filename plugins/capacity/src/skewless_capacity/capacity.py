"""How many cores, how much Redis and how much time a size needs: arithmetic on measured costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from skewless.contract.errors import RequestError
from skewless.contract.plan import BUCKETS
from skewless_capacity import measured_costs as costs
from skewless_capacity.online_size import row_memory, row_reply, state_memory, state_reply
from skewless_capacity.prediction_cost import MillionCost, Prices, million_costs, redis_share, total_cost

if TYPE_CHECKING:
    from skewless.contract.plan import FeaturePlan
    from skewless.workspace import Workspace

_MOST, _MILLION, _DAY_S = 1e15, 1e6, 86_400
_MAY_BE_ZERO = {"events_per_day", "rows", "predictions_per_second"}
_ALL = "Redis: all, while states are built"
_ON_TASKS = "time of one core to 8 million events, equal bits on two; more are arithmetic"
_ON_A_PAIR = "one client with one server; more are arithmetic"


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size to plan for; ``capacity`` describes the fields."""

    entities: int
    events_per_day: int
    days: int
    rows: int
    predictions_per_second: float
    hours: float
    text_bytes: int
    callers: int
    batch: int

    def __post_init__(self) -> None:
        """Check that the numbers are finite, and positive where 0 has no meaning."""
        for name, value in asdict(self).items():
            if not (0 < value <= _MOST or (value == 0 and name in _MAY_BE_ZERO)):
                least = "0 or more" if name in _MAY_BE_ZERO else "a number above 0"
                fix = f"give {least}, 10^15 at most"
                raise RequestError(f"option --{name.replace('_', '-')}", "is out of range", value=value, fix=fix)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One need.

    Args:
        cores: number; None: none, not measured, or no number is enough.
        seconds: time on these cores, or the least time on any number; None: it has no end, or was not measured.
        size_bytes: memory of Redis, or disk; None: none.
        formula: with the names of measured costs.
        costs: these names.
        tested: how far results of the formula were compared with measurements.
    """

    name: str
    cores: int | None = None
    seconds: float | None = None
    size_bytes: int | None = None
    formula: str
    costs: Sequence[str]
    tested: str


@dataclass(frozen=True, kw_only=True)
class CapacityReport:
    """The needs of a project of one size, and the measured costs that they rest on.

    Args:
        predictions: the parts of the cost of a million predictions.
    """

    size: Size
    prices: Prices
    figures: Sequence[Figure]
    predictions: Sequence[MillionCost]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, with the costs that figures and predictions name."""
        names = {name for figure in self.figures for name in figure.costs}
        names |= {name for part in self.predictions for name in part.costs}
        return {
            "size": asdict(self.size),
            "prices": asdict(self.prices),
            "figures": [asdict(figure) for figure in self.figures],
            "million_predictions": {
                "parts": [asdict(part) for part in self.predictions],
                "total": total_cost(self.predictions),
            },
            "costs": [cost._asdict() for cost in costs.COSTS if cost.name in names],
        }


def capacity(
    project: Workspace,
    *,
    entities: int,
    events_per_day: int = 0,
    days: int = 30,
    rows: int = 0,
    predictions_per_second: float = 0.0,
    hours: float = 1.0,
    text_bytes: int = 16,
    callers: int = 16,
    batch: int = 1,
    price_core_hour: float = 0.0,
    price_memory_gb_month: float = 0.0,
    price_storage_gb_month: float = 0.0,
    utilization: float = 0.5,
) -> CapacityReport:
    """Return how many cores, how much Redis and how long the applied plan needs for a size, and a prediction costs.

    Args:
        entities: number in each view.
        events_per_day: of each event source.
        days: length of the history; latest-value views have a row a day for each entity.
        rows: of a training set with the features of all views.
        predictions_per_second: to serve.
        hours: allowed for each: the training set, the first load of Redis, the replay of a day.
        text_bytes: mean length of texts, as keys and as features.
        callers: that ask for predictions at the same time, of one server worker.
        batch: rows in a request.
        price_core_hour: of a core of a server or a Redis, in any currency.
        price_memory_gb_month: of a gigabyte of Redis' memory.
        price_storage_gb_month: of a gigabyte of the storage of logs.
        utilization: share of the paid cores' time that is used, 0 to 1.

    Raises:
        RequestError: a number is out of range.
        StalePlanError: no plan is applied.
    """
    size = Size(
        entities=entities,
        events_per_day=events_per_day,
        days=days,
        rows=rows,
        predictions_per_second=predictions_per_second,
        hours=hours,
        text_bytes=text_bytes,
        callers=callers,
        batch=batch,
    )
    prices = Prices(
        core_hour=price_core_hour,
        memory_gb_month=price_memory_gb_month,
        storage_gb_month=price_storage_gb_month,
        utilization=utilization,
    )
    plan = project.applied.plan
    figures = [*_storage(plan, size), *_batch_work(plan, size), *_live_work(plan, size)]
    return CapacityReport(size=size, prices=prices, figures=figures, predictions=_predictions(plan, size, prices))


def _predictions(plan: FeaturePlan, size: Size, prices: Prices) -> list[MillionCost]:
    reply_bytes = _reply_bytes(plan, size)
    parts = list(million_costs(plan, reply_bytes, prices, callers=size.callers, batch=size.batch))
    memory = next(item.size_bytes for item in _storage(plan, size) if item.name == _ALL) or 0
    share = redis_share(memory, size.predictions_per_second, prices)
    return parts if share is None else [*parts, share]


def _reply_bytes(plan: FeaturePlan, size: Size) -> float:
    """Return the bytes that Redis sends for the rows and states of one prediction, at most."""
    events = size.events_per_day / size.entities
    return sum(row_reply(view, size.text_bytes) for view in plan.views) + sum(
        state_reply(view, events_per_day=events, days=size.days) for view in plan.windows
    )


def _storage(plan: FeaturePlan, size: Size) -> Iterator[Figure]:
    events = size.events_per_day / size.entities
    rows = {view.name: row_memory(plan.project, view, size.text_bytes) for view in plan.views}
    states = {
        view.name: state_memory(plan.project, view, size.text_bytes, events_per_day=events, days=size.days)
        for view in plan.windows
    }
    most = {name: f"entities x {each:,.0f} bytes of a key with its" for name, each in (rows | states).items()}
    parts = [(f"Redis: {name}", each, f"{most[name]} row") for name, each in rows.items()]
    parts += [(f"Redis: {name}", each, f"{most[name]} state, at most") for name, each in states.items()]
    for name, each, formula in parts:
        needed, tested = math.ceil(size.entities * each), "thousands of entities in a test; more are arithmetic"
        yield Figure(name=name, size_bytes=needed, formula=formula, costs=["key"], tested=tested)
    yield Figure(
        name=_ALL,
        size_bytes=math.ceil(size.entities * (sum(rows.values()) + 2 * sum(states.values()))),
        formula="rows and twice the states, without replicas and fragmentation",
        costs=["key"],
        tested="the sum is arithmetic",
    )
    columns = sum(len(source.columns) for source in plan.sources)
    yield Figure(
        name="logs of events",
        size_bytes=math.ceil(size.events_per_day * size.days * columns * costs.LOG_BYTES.value),
        formula=f"events x {columns} columns x log_bytes; logs of rows are not measured",
        costs=["log_bytes"],
        tested="events with two number columns",
    )


def _batch_work(plan: FeaturePlan, size: Size) -> Iterator[Figure]:
    events = size.events_per_day * size.days * len(plan.windows) / _MILLION
    history = size.entities * size.days * len(plan.views) / _MILLION
    values, latest_values = (
        size.rows * sum(len(view.features) for view in views) / _MILLION for views in (plan.windows, plan.views)
    )
    scan = costs.SCAN.value * (events + history)  # of all files, also of those parts that a task skips
    latest = costs.LATEST.value * (history + size.rows * len(plan.views) / _MILLION)
    divided = costs.EVENT.value * events + costs.VALUE.value * values + latest - scan
    undivided = scan + costs.DRIVER.value * (values + latest_values)
    if size.rows:
        formula = "scan x log rows + driver x values + (event x events + value x values + latest x rows - scan) / cores"
        used = ["event", "scan", "value", "driver", "latest"]
        yield _divide("training set", divided, undivided, size.hours, formula, used, _ON_TASKS)
    written = size.entities * len(plan.views)
    if written:
        loaded, formula = written / costs.WRITE.value, "entities x views / write / clients"
        yield _divide("first load of Redis: clients", loaded, 0, size.hours, formula, ["write"], _ON_A_PAIR)
        loaded, formula = written / costs.SERVER.value, "entities x views / server / servers"
        yield _divide("first load of Redis: servers", loaded, 0, size.hours, formula, ["server"], _ON_A_PAIR)
    replayed = size.predictions_per_second * _DAY_S / costs.REPLAY.value
    if replayed:
        formula, tested = "predictions of a day / replay / cores", "one core; more are arithmetic"
        yield _divide("replay of a day", replayed, 0, size.hours, formula, ["replay"], tested)


def _divide(
    name: str, divided_s: float, undivided_s: float, hours: float, formula: str, used: Sequence[str], tested: str
) -> Figure:
    """Return the cores for work of which a part, in seconds of one core, is divided among them, a bucket each at most.

    The largest number of cores has the least time, which may exceed the hours.
    """
    left = hours * 3_600 - undivided_s
    cores = max(1, math.ceil(divided_s / left)) if left > 0 else BUCKETS + 1
    seconds = undivided_s + divided_s / min(cores, BUCKETS)
    enough = cores if cores <= BUCKETS else None
    return Figure(name=name, cores=enough, seconds=seconds, formula=formula, costs=used, tested=tested)


def _live_work(plan: FeaturePlan, size: Size) -> Iterator[Figure]:
    updates = size.events_per_day * len(plan.windows) / _DAY_S
    if updates:
        yield Figure(
            name="stream workers",
            cores=math.ceil(updates / costs.UPDATE.value),
            formula="mean events/s x views / update, and as many cores of Redis",
            costs=["update"],
            tested=_ON_A_PAIR,
        )
        yield Figure(name="backfill of states", formula="not measured", costs=[], tested="no")
    if size.predictions_per_second:
        yield Figure(
            name="prediction workers",
            cores=math.ceil(size.predictions_per_second / costs.PREDICT.value),
            formula="predictions/s / predict, and cores of Redis; reads of windows cost more",
            costs=["predict"],
            tested="one worker; more are arithmetic",
        )
