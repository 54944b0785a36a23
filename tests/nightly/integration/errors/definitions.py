"""Definitions that cannot be right: refused by ``plan`` and by ``apply``, which leaves the plan in force."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.nightly.integration.errors.case import Arrange, Case, edited, verb, written
from tests.nightly.integration.errors.scene import Scene

_SHARE = 'Field(name="refund_share", dtype=Float64)'


def rewritten(file: str, column: str, kind: pa.DataType | None, name: str | None = None) -> Arrange:
    """Return the rewriting of a source with a column of another type or name."""

    def arrange(scene: Scene) -> None:
        path = scene.repo / file
        table = pq.read_table(path)
        values = table[column] if kind is None else table[column].cast(kind)
        pq.write_table(table.set_column(table.column_names.index(column), name or column, values), path)

    return arrange


def _each(name: str, arrange: Arrange, code: int = 2, **parts: Any) -> Iterator[Case]:  # noqa: ANN401 - fields of Case
    """Both compile alike: in make test, `plan` meets the first error of each exit code."""
    for word in ("plan", "apply"):
        soak = word == "plan" and name not in {"missing column", "two features of one name"}
        yield Case(name=f"{word}: {name}", ask=verb(word), code=code, arrange=arrange, soak=soak, **parts)


CASES: tuple[Case, ...] = (
    *_each(
        "missing column", edited("definitions.py", '"refund_share"', '"refund_rate"'), 4,
        thing="source of view 'shop_risk'", says=("no such column", "'refund_rate'"), fix="it has shop_id",
    ),
    *_each(
        "missing label column", edited("models.py", 'label="fraud"', 'label="fraudulent"'), 4,
        thing="label table of model 'fraud'", says=("no such column", "'fraudulent'"), fix="it has card_id",
    ),
    *_each(
        "two features of one name", edited("definitions.py", _SHARE, f"{_SHARE}, {_SHARE}"),
        thing="feature view 'shop_risk'", says=("two features with one name", "refund_share"), fix="rename or remove",
    ),
    *_each(
        "two features that differ in case",
        edited("definitions.py", _SHARE, f"{_SHARE}, {_SHARE.replace('refund', 'Refund')}"),
        thing="feature view 'shop_risk'", says=("differ only in case", "Refund_share"), fix="rename",
    ),
    *_each(
        "two views of one name", edited("definitions.py", 'name="shop_risk"', 'name="card_days"'),
        thing="'card_days'", says=("is defined twice",), fix="rename or remove",
    ),
    *_each(
        "a view listed twice", edited("definitions.py", "features=[card_days,", "features=[card_days, card_days,"),
        thing="feature service 'fraud_features'", says=("two features with one name", "card_days"), fix="list it once",
    ),
    *_each(
        "a time without zone", rewritten("data/shop_risk.parquet", "event_time", pa.timestamp("us")), 4,
        thing="source of view 'shop_risk' column 'event_time'", says=("without a zone", "TIMESTAMP"), fix="UTC",
    ),
    *_each(
        "a label time without zone", rewritten("data/payments.parquet", "known_at", pa.timestamp("us")), 4,
        thing="label table of model 'fraud' column 'known_at'", says=("without a zone",), fix="UTC",
    ),
    *_each(
        "a column of another type", rewritten("data/shop_risk.parquet", "refund_share", pa.string()), 4,
        thing="column 'refund_share'", says=("declared type float64", "VARCHAR"), fix="correct the definition",
    ),
    *_each(
        "an unknown service", edited("models.py", '"fraud_features"', '"fraud_feature"'),
        thing="service", says=("fraud_feature",), fix="",
    ),
    *_each(
        "an unknown algorithm", edited("models.py", '"lightgbm"', '"cubist"'),
        thing="model 'fraud' algorithm", says=("'cubist'",), fix="lightgbm, xgboost",
    ),
    *_each(
        "a transform through pandas", edited("definitions.py", 'mode="python"', 'mode="pandas"'),
        thing="definitions.py:", says=("Pandas",), fix="correct the definition there",
    ),
    *_each(
        "an unknown tag", edited("definitions.py", "skewless.delay", "skewless.delays"),
        thing="feature view 'shop_risk' tag", says=("skewless.delays",), fix="skewless.delay",
    ),
    *_each(
        "no length of time", edited("definitions.py", '"1h"', '"an hour"'),
        thing="tag 'skewless.delay'", says=("'an hour'",), fix="write it as 90s",
    ),
    *_each(
        "not Python", edited("definitions.py", "fraud_features =", "fraud_features = ="),
        thing="definitions.py:", says=("invalid syntax",), fix="correct the definition",
    ),
    *_each(
        "an import of nothing", edited("definitions.py", "import transforms", "import transformz"),
        thing="definitions.py:", says=("transformz",), fix="correct the definition",
    ),
    *_each(
        "no models", written("models.py", "MODEL = []\n"),
        thing="models.py", says=("MODELS",), fix="MODELS = [ModelSpec(...)]",
    ),
    *_each(
        "a broken Feast configuration", written("feature_store.yaml", "project: [\n"),
        thing="feature_store.yaml", says=(), fix="correct the Feast configuration",
    ),
)  # fmt: skip
