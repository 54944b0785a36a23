"""The costs of a million predictions: CPU, reads of Redis, log, and money, from measured costs and given prices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from skewless.contract.errors import RequestError
from skewless_capacity import measured_costs as costs

if TYPE_CHECKING:
    from skewless.contract.plan import FeaturePlan

_MILLION, _HOUR_S, _GB, _MONTH_S = 1e6, 3_600.0, 1e9, 2_629_746.0
_MANY_ROWS, _VIEWS = 100, 2  # of the benchmarks
_MOST = 1e9
_ONE_ROW = "one row a request of 1, 16 and 64 callers"
_MORE_ROWS = "100 rows a request of 1 and 16 callers; other numbers are on a line through these points"


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Prices in any one currency, and how well the machines are used.

    Args:
        core_hour: of a core of a server or a Redis.
        memory_gb_month: of a gigabyte of Redis' memory.
        storage_gb_month: of a gigabyte of the storage of logs.
        utilization: share of the paid cores' time that is used, 0 to 1.
    """

    core_hour: float = 0.0
    memory_gb_month: float = 0.0
    storage_gb_month: float = 0.0
    utilization: float = 0.5

    def __post_init__(self) -> None:
        """Check that prices are not negative, and that the machines are used."""
        for name, value in asdict(self).items():
            if name == "utilization":
                is_valid, fix = 0 < value <= 1, "give a share above 0, 1 at most"
            else:
                is_valid, fix = 0 <= value <= _MOST, "give 0 or more"
            option = f"--{name}" if name == "utilization" else f"--price-{name.replace('_', '-')}"
            if not is_valid:
                raise RequestError(f"option {option}", "is out of range", value=value, fix=fix)

    def cost_of_cpu(self, cpu_s: float) -> float | None:
        """Return the cost of seconds of a core; None: no price was given."""
        return cpu_s / _HOUR_S / self.utilization * self.core_hour if self.core_hour else None


@dataclass(frozen=True, kw_only=True)
class MillionCost:
    """A part of the cost of a million predictions.

    Args:
        cpu_s: seconds of a core; None: none.
        size_bytes: that are read or written; None: none.
        cost: in the currency of the prices; None: no price was given, or it has none.
        formula: with the names of measured costs.
        costs: these names.
        tested: how far results of the formula were compared with measurements.
    """

    name: str
    cpu_s: float | None = None
    size_bytes: float | None = None
    cost: float | None = None
    formula: str
    costs: Sequence[str]
    tested: str


def million_costs(
    plan: FeaturePlan, reply_bytes: float, prices: Prices, *, callers: int, batch: int
) -> Iterator[MillionCost]:
    """Yield the parts of the cost of a million predictions, then their sum.

    Args:
        reply_bytes: of Redis for the rows and states of one prediction.
        callers: that send requests at the same time.
        batch: rows of a request.
    """
    near = max((measured for measured in costs.REQUESTS if measured <= callers), default=1)
    many = min(near, max(costs.ROWS))
    request, row = costs.REQUESTS[near], costs.ROWS[many]
    slope = (row.value * _MANY_ROWS - costs.REQUESTS[many].value) / (_MANY_ROWS - 1)
    server_s = (request.value - slope) / batch + slope  # us a prediction, so seconds a million
    yield MillionCost(
        name="server",
        cpu_s=server_s,
        cost=prices.cost_of_cpu(server_s),
        formula=f"({request.name} - slope) / batch + slope, slope = (100 x {row.name} - request_{many}) / 99",
        costs=list(dict.fromkeys([request.name, f"request_{many}", row.name])),
        tested=_ONE_ROW if batch == 1 else _MORE_ROWS,
    )
    views = len(plan.all_views)
    if views:
        read = costs.REDIS_READS[near]
        read_s = read.value * views / _VIEWS
        yield MillionCost(
            name="reads of Redis",
            cpu_s=read_s,
            cost=prices.cost_of_cpu(read_s),
            size_bytes=reply_bytes * _MILLION,
            formula=f"{read.name} x views / 2; bytes of the rows and states of the plan",
            costs=[read.name],
            tested="rows of 2 views, one row a request; other views, windows and batches are arithmetic, at most",
        )
    logged_bytes = costs.LOGGED.value * _MILLION
    yield MillionCost(
        name="prediction log, kept for a month",
        size_bytes=logged_bytes,
        cost=logged_bytes / _GB * prices.storage_gb_month if prices.storage_gb_month else None,
        formula="logged x predictions, before merging",
        costs=["logged"],
        tested="2 views, one process; long keys take more",
    )


def redis_share(memory_bytes: float, predictions_per_second: float, prices: Prices) -> MillionCost | None:
    """Return the share of a million predictions in the memory of Redis; None: no rate or no price is given."""
    if not predictions_per_second or not prices.memory_gb_month:
        return None
    months = _MILLION / predictions_per_second / _MONTH_S
    return MillionCost(
        name="memory of Redis",
        cost=memory_bytes / _GB * prices.memory_gb_month * months,
        formula="GB of all rows and states x price x the months that a million predictions take",
        costs=["key"],
        tested="the sum is arithmetic",
    )


def total_cost(parts: Sequence[MillionCost]) -> Mapping[str, float | None]:
    """Return the sums of CPU seconds, bytes and cost; a cost is None if no part has one.

    >>> part = MillionCost(name="x", cpu_s=2.0, formula="", costs=[], tested="")
    >>> total_cost([part, part])
    {'cpu_s': 4.0, 'size_bytes': 0, 'cost': None}
    """
    priced = [part.cost for part in parts if part.cost is not None]
    return {
        "cpu_s": sum(part.cpu_s or 0.0 for part in parts),
        "size_bytes": sum(part.size_bytes or 0 for part in parts),
        "cost": sum(priced) if priced else None,
    }
