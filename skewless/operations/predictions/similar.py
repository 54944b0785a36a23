"""The logged predictions that are most similar to one prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skewless.contract.actions import decide
from skewless.contract.arrow_numbers import numbers
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.models.runtimes.port import Scores
from skewless.infra.records.predictions.reader import PredictionEntry, decode_matrix
from skewless.infra.records.predictions.search import read_near
from skewless.validation.explanation import shown_value
from skewless.validation.similar import (
    DifferentFeature,
    SimilarPrediction,
    SimilarPredictions,
    gower_distances,
    spreads_of,
)
from skewless.workspace import Workspace

MOST = 2_000
_MOST_DIFFERENCES = 5
_AROUND_US = 86_400_000_000
_SQL = """
    SELECT id, t, score, vector, action FROM rows
    WHERE model = $model AND version = $version AND role <> 'shadow' AND id <> $id AND abs(t - $t) <= $around
    ORDER BY abs(t - $t), id LIMIT $most
"""


def find_similar(project: Workspace, model: ServedModel, entry: PredictionEntry) -> SimilarPredictions:
    """Return the most similar of the 2,000 predictions of the version that were served next to a prediction in time.

    Raises:
        StoreError: a log file is corrupt.
    """
    logged = entry.logged
    rows = read_near(
        project.state,
        project.connection,
        int(logged.t[0]),
        _SQL,
        most_rows=2 * MOST,
        t=int(logged.t[0]),
        model=model.name,
        version=model.version,
        id=logged.ids[0],
        around=_AROUND_US,
        most=MOST,
    )
    decision = _decide(model, logged.score, logged.actions)[0]
    if not rows.num_rows:
        return SimilarPredictions(decision=decision, compared=0, nearest=None, other_decision=None)
    others, labels = decode_matrix(rows["vector"]), model.assembler.labels
    spreads = spreads_of(model.package.profile["features"], labels)
    parts = gower_distances(logged.vectors[0], others, spreads, model.assembler.categorical)
    distances = parts.mean(axis=1)
    scores: Scores = numbers(rows["score"])
    words = model.package.plan["vocabularies"]
    decisions = _decide(model, scores, rows["action"].to_pylist())

    def describe(i: int) -> SimilarPrediction:
        largest = np.argsort(-parts[i], kind="stable")[:_MOST_DIFFERENCES].tolist()
        return SimilarPrediction(
            id=rows["id"][i].as_py(),
            t_us=rows["t"][i].as_py(),
            score=float(scores[i]),
            decision=decisions[i],
            distance=float(distances[i]),
            differences=[
                DifferentFeature(
                    feature=labels[k],
                    own=shown_value(float(logged.vectors[0, k]), words.get(labels[k])),
                    other=shown_value(float(others[i, k]), words.get(labels[k])),
                    distance=float(parts[i, k]),
                )
                for k in largest
                if parts[i, k] > 0
            ],
        )

    order = np.argsort(distances, kind="stable").tolist()
    other = next((i for i in order if decisions[i] != decision), None)
    return SimilarPredictions(
        decision=decision,
        compared=rows.num_rows,
        nearest=describe(order[0]),
        other_decision=None if other is None else describe(other),
    )


def _decide(model: ServedModel, scores: Scores, actions: Sequence[str | None]) -> list[str | None]:
    """Return the logged actions: the policy's, or that of exploration; of a log without actions, by thresholds."""
    by_score = decide(model.package.spec.decisions, scores)
    return [action or decision for action, decision in zip(actions, by_score, strict=True)]
