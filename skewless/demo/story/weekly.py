"""How good the answers were week by week, of the model that lives and of the one that was left alone."""

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
    """Return quality of what callers were answered, by the labels known now, one entry a week."""
    log = labelled_log(project, model)
    rows = log.read(since_us=since_us, until_us=until_us, known_by_us=project.clock.now_us())
    rows = rows.filter((pc.field("role") != "shadow") & pc.field("label").is_valid())
    return list(_weeks(rows, since_us, until_us))


def lines(living: Weekly, alone: Weekly) -> Iterator[str]:
    """Return both as text, week by week."""
    others = {week["since"]: week for week in alone}
    for week in living:
        other = others.get(week["since"])
        beside = f" (left alone: {other['log_loss']:.4f})" if other else ""
        text = f"{week['since'][:10]}: {week['labels']:,} labels, log loss {week['log_loss']:.4f}{beside}"
        yield f"{text}, by {', '.join(week['versions'])}"


def _weeks(rows: pa.Table, since_us: int, until_us: int) -> Iterator[dict[str, Any]]:
    for start in range(since_us, until_us, WEEK_US):
        part = rows.filter((pc.field("t") >= start) & (pc.field("t") < start + WEEK_US))
        if part.num_rows:
            found = evaluate(part["label"].to_numpy(), part["score"].to_numpy())
            yield {
                "since": from_us(start).isoformat(),
                "labels": part.num_rows,
                "versions": sorted(part["version"].unique().to_pylist()),
                **{name: found[name] for name in ("log_loss", "auc", "base_rate")},
            }
