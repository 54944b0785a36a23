"""The project of the serving benchmarks: what a pair's vector is stands in the tables too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.serving_repo import Shape, shop_name, write_project

SHAPE = Shape(n_cards=50, n_shops=6, n_features=11, n_views=3, n_labels=200)


def test_the_vector_of_a_pair_is_what_the_tables_say(tmp_path: Path) -> None:
    write_project(tmp_path, SHAPE)
    pairs = SHAPE.pairs(30)
    tables = {view.name: pq.read_table(tmp_path / f"{view.name}.parquet").to_pylist() for view in SHAPE.views}
    assert list(tables) == ["cards0", "shops1", "cards2"]
    for pair, vector in zip(pairs.tolist(), SHAPE.vectors(pairs), strict=True):
        card, shop = pair
        found: list[float | None] = []
        for name, rows in tables.items():
            key, value = ("card_id", card) if name.startswith("cards") else ("shop_id", shop_name(shop))
            (row,) = [row for row in rows if row[key] == value]
            found += [row[column] for column in row if column.startswith(name)]
        assert np.array_equal(np.array(found, dtype=np.float64), vector, equal_nan=True)


def test_some_features_are_null_but_not_all() -> None:
    shape = Shape(n_cards=1_000, n_shops=100)
    share = np.isnan(shape.vectors(shape.pairs(1_000))).mean()
    assert 0.01 < share < 0.03


@pytest.mark.parametrize("views", [1, 2, 8])
def test_features_are_spread_over_the_views(views: int) -> None:
    shape = Shape(n_cards=10, n_shops=2, n_features=40, n_views=views)
    assert [view.n_features for view in shape.views] == [40 // views] * views
    assert shape.vectors(shape.pairs(3)).shape == (3, 40)


def test_labels_are_of_both_classes_and_known_later() -> None:
    labels = SHAPE.labels().to_pydict()
    assert set(labels["fraud"]) == {0, 1}
    assert all(paid < known for paid, known in zip(labels["paid_at"], labels["known_at"], strict=True))
    assert labels["paid_at"] == sorted(labels["paid_at"])


def test_the_algorithm_chooses_its_own_parameters(tmp_path: Path) -> None:
    for algorithm, parameter in (("lightgbm", "num_leaves"), ("xgboost", "max_leaves")):
        repo = write_project(tmp_path / algorithm, Shape(n_cards=5, n_shops=2, algorithm=algorithm, leaves=17))
        assert f"'{parameter}': 17" in (repo / "models.py").read_text()
