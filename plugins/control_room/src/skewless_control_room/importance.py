"""Feature importance, window by window, from a sample of the prediction log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.clock import from_us
from skewless.contract.errors import RequestError
from skewless.infra.log.reading import translate_query_errors
from skewless.infra.models.packages.served_model import load_model
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import ROWS_SQL, SCHEMA, prediction_files
from skewless.workspace import Workspace

# The rows with the smallest seeded hashes of each group, selected in one scan of the ids: nothing is sorted, and only
# the vectors of selected rows are read.
_SAMPLE_SQL = f"""
    CREATE TEMP TABLE chosen AS
    SELECT version, part, predictions, unnest(ids) AS id FROM (
        SELECT version, (t - $since) // $window AS part, count(*) AS predictions,
            arg_min(id, md5_number(concat($seed, id)), {{most:d}}) AS ids
        FROM {ROWS_SQL}
        WHERE model = $model AND t >= $since AND t < $until
        GROUP BY ALL
    )
"""
_VECTORS_SQL = f"""
    SELECT part, version, predictions, vector FROM {ROWS_SQL} AS log
    JOIN chosen USING (id, version) WHERE model = $model AND t >= $since AND t < $until ORDER BY part, version, id
"""
_SAMPLE = pa.schema(
    [("part", pa.int64()), SCHEMA.field("version"), ("predictions", pa.int64()), SCHEMA.field("vector")]
)


@dataclass(frozen=True, kw_only=True)
class WindowImportance:
    """One version in one window.

    Args:
        predictions: number in the log.
        sampled: number of explained predictions.
        mean: feature -> mean absolute contribution to the margin, the largest first; summed over several outputs.
    """

    since_us: int
    until_us: int
    version: str
    predictions: int
    sampled: int
    mean: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, with each feature's share of the sum."""
        total = sum(self.mean.values())
        return asdict(self) | {
            "since": from_us(self.since_us).isoformat(),
            "until": from_us(self.until_us).isoformat(),
            "share": {name: value / total if total else 0.0 for name, value in self.mean.items()},
        }


@dataclass(frozen=True, kw_only=True)
class ImportanceReport:
    """A model's global importance over time.

    Args:
        windows: with predictions, in order, then by version.
        unexplained: versions whose kind of model has no contributions.
    """

    model: str
    windows: Sequence[WindowImportance]
    unexplained: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**vars(self), "windows": [window.as_dict() for window in self.windows]}


def importance(
    project: Workspace,
    model: str | None = None,
    *,
    window_us: int = 86_400_000_000,
    windows: int = 7,
    sample: int = 1_000,
    seed: int = 0,
) -> ImportanceReport:
    """Return mean absolute contributions in the last windows, by version.

    Args:
        model: its name; None: the only one.
        window_us: length of a window; windows begin at its multiples since 1970, so all calls agree.
        windows: their number, with the current one.
        sample: number of predictions of each version and window.
        seed: of the sample.

    Raises:
        RequestError: the plan has no such model.
        PackageError: a package was altered or is missing.
        StoreError: a file of the prediction log is corrupt.
    """
    model, now = project.applied.model_or_only(model).name, project.clock.now_us()
    since = (now // window_us - windows + 1) * window_us
    rows = sample_log(
        project.state,
        project.connection,
        model,
        since_us=since,
        until_us=now + 1,
        window_us=window_us,
        most=sample,
        seed=seed,
    )
    results: list[WindowImportance] = []
    unexplained = []
    for version in sorted(rows["version"].unique().to_pylist()):
        own = rows.filter(pc.field("version") == version)
        parts = _contributions(project, model, version, own)
        if parts is None:
            unexplained.append(version)
            continue
        results += _windows(own, version, *parts, since, window_us)
    results.sort(key=lambda window: (window.since_us, window.version))
    return ImportanceReport(model=model, windows=results, unexplained=unexplained)


def sample_log(
    state: ProjectState,
    connection: duckdb.DuckDBPyConnection,
    model: str,
    *,
    since_us: int,
    until_us: int,
    window_us: int,
    most: int,
    seed: int,
) -> pa.Table:
    """Return a sample of the vectors that a model's versions scored; it does not depend on the files.

    Args:
        state: of the project.
        since_us, until_us: time range of the predictions, the end exclusive.
        window_us: length of a window; the first begins at ``since_us``.
        most: largest sample of each version in each window.
        seed: seed of the sample.

    Returns:
        ``part`` (number of the window), ``version``, ``predictions`` (of the version in the window) and
        ``vector``, in that order.

    Raises:
        StoreError: a file of the log is corrupt.
    """
    files = prediction_files(state)
    if not files:
        return pa.Table.from_batches([], _SAMPLE)  # `empty_table` imports pandas
    values = {"files": files, "model": model, "since": since_us, "until": until_us}
    with connection.cursor() as cursor, translate_query_errors("prediction log"):
        cursor.execute(_SAMPLE_SQL.format(most=most), values | {"window": window_us, "seed": str(seed)})
        return cursor.sql(_VECTORS_SQL, params=values).to_arrow_table().cast(_SAMPLE)


def _contributions(
    project: Workspace, model: str, version: str, rows: pa.Table
) -> tuple[Sequence[str], npt.NDArray[np.float64]] | None:
    """Return the features, and the absolute contribution of each to each prediction, shape ``(n, n_features)``."""
    with load_model(project.store, model, version) as served:
        flat = rows["vector"].combine_chunks().flatten()
        matrix = flat.to_numpy(zero_copy_only=False).reshape(rows.num_rows, served.runtime.n_features)
        try:
            # Without the last column: the bias belongs to no feature.
            contributions = np.abs(served.runtime.contributions(np.ascontiguousarray(matrix))[..., :-1])
        except RequestError:
            return None
    return served.assembler.labels, contributions.sum(axis=1) if contributions.ndim > 2 else contributions  # noqa: PLR2004 - n, k, features


def _windows(
    rows: pa.Table, version: str, labels: Sequence[str], parts: npt.NDArray[np.float64], since: int, length: int
) -> list[WindowImportance]:
    numbers, predictions = rows["part"].to_numpy(), rows["predictions"].to_numpy()
    results = []
    for number in np.unique(numbers).tolist():
        own = numbers == number
        means = dict(zip(labels, parts[own].mean(axis=0).tolist(), strict=True))
        results.append(
            WindowImportance(
                since_us=since + number * length,
                until_us=since + (number + 1) * length,
                version=version,
                predictions=int(predictions[own][0]),
                sampled=int(own.sum()),
                mean=dict(sorted(means.items(), key=lambda item: -item[1])),
            )
        )
    return results
