"""The quality of predictions week by week, of the retrained model and of the control model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.clock import from_us
from skewless.demo.tour_state import HOUR_US
from skewless.operations.quality import labelled_log
from skewless.project import Project
from skewless.validation.evaluation.evaluation import evaluate

DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US
Weekly = Sequence[Mapping[str, Any]]


def weekly(project: Project, model: str, since_us: int, until_us: int) -> Weekly:
    """Return the quality of returned predictions by the known labels, one entry per week."""
    log = labelled_log(project, model)
    rows = log.read(since_us=since_us, until_us=until_us, known_by_us=project.clock.now_us())
    rows = rows.filter((pc.field("role") != "shadow") & pc.field("label").is_valid())
    return list(_weeks(rows, since_us, until_us))


def lines(retrained: Weekly, control: Weekly) -> Iterator[str]:
    """Yield a line per week with the quality of both models."""
    others = {week["since"]: week for week in control}
    for week in retrained:
        other = others.get(week["since"])
        comparison = f" (without retraining: {other['log_loss']:.4f})" if other else ""
        text = f"{week['since'][:10]}: {week['labels']:,} labels, log loss {week['log_loss']:.4f}{comparison}"
        yield f"{text}, by {', '.join(week['versions'])}"


def _weeks(rows: pa.Table, since_us: int, until_us: int) -> Iterator[dict[str, Any]]:
    for start in range(since_us, until_us, WEEK_US):
        part = rows.filter((pc.field("t") >= start) & (pc.field("t") < start + WEEK_US))
        if part.num_rows:
            metrics = evaluate(part["label"].to_numpy(), part["score"].to_numpy())
            yield {
                "since": from_us(start).isoformat(),
                "labels": part.num_rows,
                "versions": sorted(part["version"].unique().to_pylist()),
                **{name: metrics[name] for name in ("log_loss", "auc", "base_rate")},
            }
