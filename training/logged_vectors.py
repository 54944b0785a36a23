"""The vectors of label rows as their predictions were logged (``Outcomes.vectors``)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import numbers
from skewless.contract.labels import Outcomes
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.contract.vector import Assembler, Matrix
from skewless.infra.log.reading import translate_query_errors
from skewless.infra.models.packages.package import open_package
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.records.outcomes.labelled_log import LabelledLog
from skewless.infra.records.predictions.reader import decode_matrix
from skewless.infra.records.predictions.segments import ROWS_SQL, prediction_files

# A version with the features of another plan has other vectors.
_VECTORS_SQL = f"""
    SELECT n, version, vector FROM {ROWS_SQL} JOIN wanted USING (id)
    WHERE model = $model AND role <> 'shadow' AND plan_hash = $plan ORDER BY n
"""  # noqa: S608 - of constants alone


def has_logged_vectors(spec: ModelSpec) -> bool:
    """Return whether a model is trained on vectors as they were logged."""
    return isinstance(spec.labels, Outcomes) and spec.labels.vectors == "logged"


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedVectors:
    """Logged vectors of k rows of a dataset.

    Args:
        plan: of the service.
        rows: their numbers in the dataset, shape ``(k,)``.
        matrix: the vectors, with the codes of their versions, shape ``(k, n_features)``.
        words: per text feature, the word of each vector; None: it was missing, or unknown to the version.
    """

    plan: FeaturePlan
    rows: npt.NDArray[np.int64]
    matrix: Matrix
    words: Mapping[str, npt.NDArray[Any]]

    def replace_in(self, matrix: Matrix, assembler: Assembler) -> int:
        """Replace the vectors of the rows in a matrix, if it has the same features; return how many had other bits.

        Args:
            matrix: all rows of the dataset, by the assembler.
        """
        if assembler.plan.hash != self.plan.hash or not len(self.rows):
            return 0
        own = self.matrix.copy()
        for name, words in self.words.items():
            codes = assembler.codes[name]
            own[:, assembler.labels.index(name)] = [codes.get(word, np.nan) for word in words]
        before = np.ascontiguousarray(matrix[self.rows])
        is_same = (own.view(np.int64) == before.view(np.int64)) | (np.isnan(own) & np.isnan(before))
        matrix[self.rows] = own
        return int((~is_same.all(axis=1)).sum())


def read_logged_vectors(log: LabelledLog, store: PackageStore, ids: pa.ChunkedArray) -> LoggedVectors:
    """Return the logged vectors of those rows whose prediction was served with the features of the log's plan.

    Args:
        ids: the prediction of each row; null: it has none.

    Raises:
        StoreError: the log is corrupt.
        PackageError: the package of a version with text features cannot be read.
    """
    wanted = pa.table({"n": pa.array(np.arange(len(ids))), "id": ids}).filter(ids.is_valid())
    assembler, files = Assembler(log.plan, {}), prediction_files(log.state)
    names = [assembler.labels[i] for i in assembler.categorical]
    empty = np.empty((0, len(assembler.labels)))
    if not files or not wanted.num_rows:
        return LoggedVectors(plan=log.plan, rows=np.empty(0, np.int64), matrix=empty, words={})
    with closing(log.connection.cursor()) as cursor, translate_query_errors("prediction log"):
        cursor.register("wanted", wanted)
        values = {"files": files, "model": log.spec.name, "plan": log.plan.hash}
        found = cursor.sql(_VECTORS_SQL, params=values).to_arrow_table()
    matrix = decode_matrix(found["vector"]) if found.num_rows else empty
    versions = np.array(found["version"].to_pylist(), dtype=object)
    words = {name: np.full(len(matrix), None, dtype=object) for name in names}
    for version in dict.fromkeys(versions.tolist()) if names else ():
        vocabularies = open_package(store, log.spec.name, version).plan["vocabularies"]
        is_own = versions == version
        for name in names:
            codes = matrix[is_own, assembler.labels.index(name)].tolist()
            words[name][is_own] = [None if code != code else vocabularies[name][int(code)] for code in codes]  # noqa: PLR0124 - NaN
    return LoggedVectors(plan=log.plan, rows=numbers(found["n"]).astype(np.int64), matrix=matrix, words=words)
